//! The table `[web]`: pages on which people approve from a browser.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{TrustedIssuer, duration, is_scope_token};
use crate::error::{Error, ErrorKind, Result, lasting};
use crate::oidc::Issuer;

/// The longest that anybody stays signed in.
const MAX_SESSION: Duration = Duration::from_secs(24 * 60 * 60);

/// The table `[web]`: pages below `/elevations`, for those who approve from a browser.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Web {
    /// Where people sign in: the name of a `[trusted_issuer.NAME]`.
    pub issuer: String,
    /// The name under which the pages are registered there. Its ID tokens are accepted for
    /// the pages whatever `audiences` and `clients` of the issuer say.
    pub client_id: String,
    /// A file with the secret by which the pages show there that they are this client.
    #[serde(default)]
    pub client_secret_file: Option<PathBuf>,
    /// A file with a private key (PKCS #8, PEM) by which they do, in place of a secret.
    #[serde(default)]
    pub client_key_file: Option<PathBuf>,
    /// The id of that key (`kid`), where the provider wants to be told.
    #[serde(default)]
    pub client_key_id: Option<String>,
    /// The scopes to ask for.
    #[serde(default = "openid")]
    pub scopes: BTreeSet<String>,
    /// How long people stay signed in; at most a day.
    #[serde(default = "eight_hours", deserialize_with = "duration")]
    #[schemars(with = "String")]
    pub session: Duration,
}

impl Web {
    pub(super) fn check(
        &self,
        issuers: &BTreeMap<String, TrustedIssuer>,
        own: &Issuer,
    ) -> Result<()> {
        let wrong = |why: String| Err(Error::new(ErrorKind::Config, format!("[web] {why}")));
        let Some(issuer) = issuers.get(&self.issuer) else {
            let name = &self.issuer;
            return wrong(format!(
                "names the issuer '{name}', and there is no [trusted_issuer.{name}]"
            ));
        };
        if issuer.token_review.is_some() {
            return wrong(format!("issuer = \"{}\": nobody can sign in there", self.issuer));
        }
        if issuer.issuer == *own {
            return wrong("names the broker itself as issuer, where nobody can sign in".into());
        }
        if self.client_id.is_empty() || self.client_id.chars().any(char::is_control) {
            return wrong("has a client_id that is none".into());
        }
        if self.client_secret_file.is_some() && self.client_key_file.is_some() {
            return wrong("names both client_secret_file and client_key_file".into());
        }
        if self.client_key_id.is_some() && self.client_key_file.is_none() {
            return wrong("has a client_key_id, and no client_key_file".into());
        }
        if let Some(bad) = self.scopes.iter().find(|scope| !is_scope_token(scope)) {
            return wrong(format!("has the scope {bad:?}, which RFC 6749 does not allow"));
        }
        if self.session.is_zero() || self.session > MAX_SESSION {
            return wrong(format!(
                "has a session of {}; it must be more than nothing and at most {}",
                lasting(self.session),
                lasting(MAX_SESSION)
            ));
        }
        Ok(())
    }

    /// The scopes to ask for. Without `openid` a provider does not say who signed in.
    pub(in crate::broker) fn all_scopes(&self) -> BTreeSet<String> {
        self.scopes.iter().cloned().chain(openid()).collect()
    }
}

fn openid() -> BTreeSet<String> {
    ["openid".to_string()].into()
}

fn eight_hours() -> Duration {
    Duration::from_secs(8 * 60 * 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORP: &str = "https://login.example.com";

    fn checked(text: &str) -> Result<Web> {
        let web: Web = toml::from_str(text).unwrap();
        let issuers =
            [("corp".to_string(), TrustedIssuer::new(Issuer::parse(CORP).unwrap()))].into();
        web.check(&issuers, &Issuer::parse("https://broker.example.com").unwrap())?;
        Ok(web)
    }

    #[test]
    fn what_nobody_could_sign_in_by_is_refused() {
        let good = "issuer = \"corp\"\nclient_id = \"pages\"\n";
        let web = checked(good).unwrap();
        assert_eq!(web.session, eight_hours());
        assert_eq!(web.all_scopes(), openid());
        for (text, says) in [
            ("issuer = \"other\"\nclient_id = \"x\"".to_string(), "no [trusted_issuer.other]"),
            ("issuer = \"corp\"\nclient_id = \"\"".into(), "client_id that is none"),
            (
                format!("{good}client_secret_file = \"a\"\nclient_key_file = \"b\""),
                "names both client_secret_file and client_key_file",
            ),
            (format!("{good}client_key_id = \"a\""), "no client_key_file"),
            (format!("{good}scopes = [\"a b\"]"), "RFC 6749"),
            (format!("{good}session = \"25h\""), "at most 1 day"),
            (format!("{good}session = \"0s\""), "more than nothing"),
        ] {
            let error = checked(&text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
