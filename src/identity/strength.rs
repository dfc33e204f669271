//! How strong a login has to be, where somebody wants more than that there was one (step-up,
//! RFC 9470).

use std::time::Duration;

use serde_json::{Map, Value};
use time::OffsetDateTime;

use crate::credential::Assertion;
use crate::error::{Error, ErrorKind, Result};
use crate::oidc::jwt::{self, LEEWAY};

/// What is wanted of the login that an assertion comes of. By default nothing is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strength {
    /// How long ago it may have been at most; nothing at all is a login for this very
    /// purpose.
    pub max_age: Option<Duration>,
    /// How the person has to have shown who they are, by the provider's names for that, the
    /// best first (`acr_values` of OpenID Connect). Which of them will do, whoever is shown
    /// the assertion decides.
    pub acr_values: Vec<String>,
}

impl Strength {
    /// Whether any login will do.
    pub fn is_any(&self) -> bool {
        *self == Self::default()
    }

    /// The parameters by which a provider is asked for it (OpenID Connect Core section
    /// 3.1.2.1).
    pub(super) fn parameters(&self) -> Vec<(&'static str, String)> {
        let max_age = self.max_age.map(|age| ("max_age", age.as_secs().to_string()));
        let acr = (!self.acr_values.is_empty()).then(|| ("acr_values", self.acr_values.join(" ")));
        max_age.into_iter().chain(acr).collect()
    }

    /// Whether an assertion that is at hand says all of it, so that nobody has to log in.
    pub fn suffices(&self, assertion: &Assertion, now: OffsetDateTime) -> bool {
        let claims = claims(assertion);
        let is_new = match (self.max_age, login_at(&claims)) {
            (None, _) => true,
            (Some(most), Some(at)) => now - at <= most,
            (Some(_), None) => false,
        };
        let acr = claims.get("acr").and_then(Value::as_str);
        is_new
            && (self.acr_values.is_empty()
                || acr.is_some_and(|acr| self.acr_values.iter().any(|one| one == acr)))
    }

    /// Checks an assertion that a login for this purpose gave: a provider may take no notice
    /// of what it is asked for.
    ///
    /// # Errors
    /// [`ErrorKind::Verification`] where it does not say when the login was, or says that it
    /// was before.
    pub fn check(&self, assertion: &Assertion, now: OffsetDateTime) -> Result<()> {
        let Some(most) = self.max_age else { return Ok(()) };
        let refused = |why: &str, hint: &str| {
            let message = "the login is not known to be as fresh as it has to be";
            Err(Error::new(ErrorKind::Verification, message).because_of(why).hint(hint))
        };
        match login_at(&claims(assertion)) {
            None => refused(
                "what the identity provider issued does not say when the login was (auth_time)",
                "let it put `auth_time` into the tokens of this client",
            ),
            Some(at) if now - at > most + LEEWAY => refused(
                "the identity provider did not ask who is there, although it was asked to (max_age)",
                "log out at the identity provider in the browser, then try again",
            ),
            Some(_) => Ok(()),
        }
    }
}

/// What an assertion says. Its source has verified it, or nobody can here.
fn claims(assertion: &Assertion) -> Map<String, Value> {
    jwt::decode_unverified(assertion.token.expose()).map(|token| token.claims).unwrap_or_default()
}

/// When the person logged in (`auth_time`).
fn login_at(claims: &Map<String, Value>) -> Option<OffsetDateTime> {
    let seconds = claims.get("auth_time")?;
    let seconds = seconds.as_i64().or_else(|| {
        // Some write a number with a fraction.
        seconds.as_f64().filter(|s| s.abs() < 1e12).map(|s| s as i64)
    })?;
    OffsetDateTime::from_unix_timestamp(seconds).ok()
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;
    use time::macros::datetime;

    use super::*;
    use crate::credential::{Principal, TokenType};
    use crate::secret::Secret;

    const NOW: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);

    fn saying(claims: Value) -> Assertion {
        let part = |v: Value| URL_SAFE_NO_PAD.encode(v.to_string());
        Assertion {
            token: Secret::new(format!("{}.{}.AA", part(json!({"alg": "ES256"})), part(claims))),
            token_type: TokenType::IdToken,
            principal: Principal { issuer: "https://i.example".into(), subject: "alice".into() },
            expires_at: NOW + time::Duration::HOUR,
            grant_ends: None,
        }
    }

    fn ago(seconds: i64) -> Assertion {
        saying(json!({ "auth_time": NOW.unix_timestamp() - seconds }))
    }

    fn within(seconds: u64) -> Strength {
        Strength { max_age: Some(Duration::from_secs(seconds)), ..Strength::default() }
    }

    #[test]
    fn a_login_is_as_old_as_the_assertion_says() {
        assert!(within(300).suffices(&ago(300), NOW) && !within(300).suffices(&ago(301), NOW));
        // A clock that is a little off is no reason to ask the person twice.
        assert!(within(300).check(&ago(301), NOW).is_ok());
        assert!(within(0).check(&ago(2), NOW).is_ok() && !within(0).suffices(&ago(2), NOW));
        assert!(within(300).check(&ago(3600), NOW).is_err());
        let fraction = saying(json!({ "auth_time": NOW.unix_timestamp() as f64 - 10.5 }));
        assert!(within(300).suffices(&fraction, NOW));
    }

    #[test]
    fn one_that_does_not_say_when_is_refused_where_that_matters() {
        for claims in [
            json!({}),
            json!({"auth_time": null}),
            json!({"auth_time": "yesterday"}),
            json!({"auth_time": 1e300}),
            json!({"auth_time": i64::MAX}),
        ] {
            let assertion = saying(claims);
            assert!(Strength::default().check(&assertion, NOW).is_ok());
            assert!(Strength::default().suffices(&assertion, NOW));
            assert!(!within(300).suffices(&assertion, NOW));
            let error = within(300).check(&assertion, NOW).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Verification);
            assert!(!error.hints().is_empty());
        }
    }

    #[test]
    fn which_context_will_do_is_for_others_to_say() {
        let strength =
            Strength { acr_values: vec!["phr".into(), "mfa".into()], ..Strength::default() };
        assert!(strength.suffices(&saying(json!({"acr": "mfa"})), NOW));
        for claims in [json!({"acr": "pwd"}), json!({"acr": 1}), json!({})] {
            assert!(!strength.suffices(&saying(claims.clone()), NOW));
            assert!(strength.check(&saying(claims), NOW).is_ok());
        }
        assert_eq!(strength.parameters(), [("acr_values", "phr mfa".to_string())]);
        assert_eq!(within(5).parameters(), [("max_age", "5".to_string())]);
        assert!(Strength::default().parameters().is_empty() && Strength::default().is_any());
    }
}
