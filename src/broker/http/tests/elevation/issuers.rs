//! Callers of another issuer: machines, which decide about nothing, and people whom the directory
//! knows there, too.

mod machines;
mod people;

use super::*;
use crate::broker::config::TrustedIssuer;
use crate::broker::testbed::IssuerKey;
use crate::oidc::Issuer;

const REVIEW: [(&str, &str); 2] = [("outcome", "reviewed"), ("note", "as it should be")];

/// Another issuer that a broker trusts.
struct Another {
    dir: tempfile::TempDir,
    issuer: &'static str,
    key: IssuerKey,
}

impl Another {
    fn new(issuer: &'static str) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), issuer, key: IssuerKey::new() }
    }

    /// Has a broker trust it.
    fn trusted(&self, options: &mut Options) {
        let jwks = self.dir.path().join("jwks.json");
        crate::host::files::write_private(&jwks, self.key.jwks().to_string().as_bytes()).unwrap();
        let mut trusted = TrustedIssuer::new(Issuer::parse(self.issuer).unwrap());
        trusted.jwks_file = Some(jwks);
        options.config.trusted_issuer.insert("another".into(), trusted);
    }

    /// A token of this subject's, whose groups it says are those that matter.
    fn token(&self, place: &Place, subject: &str) -> String {
        let at = now().unix_timestamp() + place.clock.0.load(Ordering::Relaxed);
        self.key.token(json!({
            "iss": self.issuer, "sub": subject, "groups": ["leads", "staff"],
            "auth_time": at, "iat": at, "exp": at + 300,
        }))
    }

    /// Somebody there asks for the role, with these changes.
    async fn asks(&self, place: &Place, subject: &str, changes: &[(&str, &str)]) -> Response {
        let mut form = vec![("role", "admin"), ("reason", "INC-1 all is down"), ("ttl", "900")];
        form.extend(changes);
        place.ask(&self.token(place, subject), (Method::POST, ""), &form).await
    }

    /// Somebody there does something about it.
    async fn does(
        &self,
        place: &Place,
        subject: &str,
        what: &str,
        to: &Value,
        form: &[(&str, &str)],
    ) -> Response {
        let path = format!("/{}/{what}", to["id"].as_str().unwrap());
        let hash = [("hash", to["hash"].as_str().unwrap_or_default())];
        let form = if what == "approve" { &hash } else { form };
        place.ask(&self.token(place, subject), (Method::POST, &path), form).await
    }

    async fn not_done(
        &self,
        place: &Place,
        subject: &str,
        what: &str,
        to: &Value,
        form: &[(&str, &str)],
    ) -> (u16, String) {
        told(&self.does(place, subject, what, to, form).await)
    }
}
