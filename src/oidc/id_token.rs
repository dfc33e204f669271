//! What an ID token must satisfy beyond any signed JWT (OpenID Connect Core 1.0
//! section 3.1.3.7).

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::jwt::{self, Claims};
use crate::error::{Error, ErrorKind, Result, foreign};

fn invalid(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Verification, "the ID token is not acceptable").because_of(why)
}

/// Checks what is particular to ID tokens, once the token itself has been
/// verified: who it was issued to, and that it belongs to the access token it
/// came with.
pub fn check(
    token: &str,
    claims: &Claims,
    client_id: &str,
    access_token: Option<&str>,
) -> Result<()> {
    authorized_party(claims, client_id)?;
    match (claims.all.get("at_hash"), access_token) {
        (Some(hash), Some(access_token)) => belongs_together(token, hash, access_token),
        _ => Ok(()),
    }
}

/// `azp`: must be us where it is there, and must be there where the token is
/// for others too.
fn authorized_party(claims: &Claims, client_id: &str) -> Result<()> {
    match claims.all.get("azp") {
        None | Some(Value::Null) if claims.audience.len() < 2 => Ok(()),
        None | Some(Value::Null) => {
            Err(invalid("it is for several audiences and does not say whom it was issued to"))
        }
        Some(Value::String(party)) if party == client_id => Ok(()),
        Some(other) => Err(invalid(format!(
            "it was issued to {}, not to '{client_id}'",
            foreign(&other.to_string())
        ))),
    }
}

/// `at_hash`: the left half of the hash of the access token, by the hash
/// function of the signature (section 3.1.3.6).
fn belongs_together(token: &str, hash: &Value, access_token: &str) -> Result<()> {
    let header = jwt::decode_unverified(token)?.header;
    let algorithm = header.get("alg").and_then(Value::as_str).unwrap_or_default();
    let function = match algorithm.get(2..) {
        Some("256") => &digest::SHA256,
        Some("384") => &digest::SHA384,
        // Ed25519 hashes with SHA-512 too.
        _ => &digest::SHA512,
    };
    let digest = digest::digest(function, access_token.as_bytes());
    let (left, _) = digest.as_ref().split_at(digest.as_ref().len() / 2);
    if hash.as_str() == Some(URL_SAFE_NO_PAD.encode(left).as_str()) {
        return Ok(());
    }
    Err(invalid("its 'at_hash' is not that of the access token it came with"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::Principal;
    use serde_json::json;
    use time::macros::datetime;

    fn claims(all: Value, audience: &[&str]) -> Claims {
        Claims {
            principal: Principal { issuer: "https://i.example".into(), subject: "alice".into() },
            audience: audience.iter().map(|s| s.to_string()).collect(),
            issued_at: None,
            expires_at: datetime!(2026-01-01 12:00 UTC),
            all: all.as_object().unwrap().clone(),
        }
    }

    fn token(algorithm: &str) -> String {
        let part = |v: Value| URL_SAFE_NO_PAD.encode(v.to_string());
        format!("{}.{}.x", part(json!({ "alg": algorithm })), part(json!({})))
    }

    #[test]
    fn the_authorized_party_is_us() {
        let ok = |all: Value, aud: &[&str]| {
            check(&token("ES256"), &claims(all, aud), "me", None).is_ok()
        };
        assert!(ok(json!({}), &["me"]));
        assert!(ok(json!({"azp": "me"}), &["me", "you"]));
        assert!(!ok(json!({}), &["me", "you"]));
        assert!(!ok(json!({"azp": null}), &["me", "you"]));
        assert!(!ok(json!({"azp": "you"}), &["me"]));
        assert!(!ok(json!({"azp": ["me"]}), &["me"]));
    }

    #[test]
    fn the_access_token_is_the_one_it_came_with() {
        // The example of OpenID Connect Core appendix A.3, which is signed with RS256.
        let hash = "77QmUPtjPfzWtF2AnpK9RQ";
        let access = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y";
        let ok = |algorithm: &str, hash: Value, access: Option<&str>| {
            check(&token(algorithm), &claims(json!({ "at_hash": hash }), &["me"]), "me", access)
                .is_ok()
        };
        assert!(ok("RS256", json!(hash), Some(access)));
        assert!(ok("RS256", json!(hash), None));
        assert!(!ok("RS256", json!(hash), Some("another")));
        assert!(!ok("RS384", json!(hash), Some(access)));
        assert!(!ok("EdDSA", json!(hash), Some(access)));
        assert!(!ok("RS256", json!(7), Some(access)));
    }
}
