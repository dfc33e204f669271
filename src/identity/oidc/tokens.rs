//! What a token endpoint answers, read with the leniency that providers need.

use std::fmt;
use std::time::Duration;

use oauth2::basic::BasicTokenType;
use oauth2::{AccessToken, RefreshToken, Scope, TokenResponse};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};
use serde_json::Value;

use crate::secret::Secret;

/// The tokens of one answer (RFC 6749 section 5.1, OpenID Connect Core section
/// 3.1.3.3).
///
/// Reading it fails on nothing but an answer that is no JSON object: a rotated
/// refresh token must not be lost because something beside it is odd. A member
/// of another type than it should have counts as missing.
pub(crate) struct TokenAnswer {
    access: AccessToken,
    refresh: Option<RefreshToken>,
    id: Option<Secret<String>>,
    token_type: BasicTokenType,
    expires_in: Option<Duration>,
}

impl TokenAnswer {
    /// The access token, unless there is none.
    pub(crate) fn access_token(&self) -> Option<Secret<String>> {
        let text = self.access.secret();
        (!text.is_empty()).then(|| Secret::new(text.clone()))
    }

    /// The refresh token, unless there is none.
    pub(super) fn refresh_token(&self) -> Option<Secret<String>> {
        self.refresh.as_ref().map(|token| Secret::new(token.secret().clone()))
    }

    /// The ID token, unless there is none.
    pub(crate) fn id_token(&self) -> Option<&Secret<String>> {
        self.id.as_ref()
    }

    /// How long the access token lives, where the provider says.
    pub(super) fn lasts(&self) -> Option<Duration> {
        self.expires_in
    }
}

impl fmt::Debug for TokenAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenAnswer(redacted)")
    }
}

/// The `oauth2` crate asks for it and never uses it; tokens are not written down.
impl Serialize for TokenAnswer {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(ser::Error::custom("tokens are not written down"))
    }
}

impl TokenResponse for TokenAnswer {
    type TokenType = BasicTokenType;

    fn access_token(&self) -> &AccessToken {
        &self.access
    }
    fn token_type(&self) -> &BasicTokenType {
        &self.token_type
    }
    fn expires_in(&self) -> Option<Duration> {
        self.expires_in
    }
    fn refresh_token(&self) -> Option<&RefreshToken> {
        self.refresh.as_ref()
    }
    fn scopes(&self) -> Option<&Vec<Scope>> {
        None
    }
}

impl<'de> Deserialize<'de> for TokenAnswer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = TokenAnswer;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer of a token endpoint")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TokenAnswer, A::Error> {
        let mut answer = TokenAnswer {
            access: AccessToken::new(String::new()),
            refresh: None,
            id: None,
            token_type: BasicTokenType::Bearer,
            expires_in: None,
        };
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "access_token" => {
                    answer.access = AccessToken::new(text(map.next_value()?).unwrap_or_default());
                }
                "refresh_token" => answer.refresh = text(map.next_value()?).map(RefreshToken::new),
                "id_token" => answer.id = text(map.next_value()?).map(Secret::new),
                "expires_in" => answer.expires_in = seconds(&map.next_value()?),
                // `token_type` and `scope` decide nothing here: the tokens that
                // are used are JWTs, and say themselves what they are for.
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(answer)
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

/// A number of seconds, as a number or as text. Nonsense counts as missing.
pub(super) fn seconds(value: &Value) -> Option<Duration> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }?;
    Duration::try_from_secs_f64(number.floor()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> TokenAnswer {
        serde_json::from_str(text).unwrap()
    }

    fn exposed(secret: Option<Secret<String>>) -> Option<String> {
        secret.map(|s| s.expose().clone())
    }

    #[test]
    fn odd_answers_are_read_all_the_same() {
        for (expires_in, seconds) in [
            ("3600", Some(3600)),
            ("\"3600\"", Some(3600)),
            ("\" 60 \"", Some(60)),
            ("59.9", Some(59)),
            ("-1", None),
            ("1e300", None),
            ("\"soon\"", None),
            ("null", None),
            ("{}", None),
        ] {
            let answer = read(&format!(
                r#"{{"access_token":"a","expires_in":{expires_in},"refresh_token":"r","scope":["a","b"]}}"#
            ));
            assert_eq!(answer.lasts().map(|d| d.as_secs()), seconds, "{expires_in}");
            assert_eq!(exposed(answer.refresh_token()), Some("r".into()), "{expires_in}");
        }
    }

    #[test]
    fn a_rotated_refresh_token_survives_whatever_is_beside_it() {
        for beside in [
            r#""id_token":"""#,
            r#""id_token":null"#,
            r#""id_token":{"a":[1]}"#,
            r#""access_token":7"#,
            r#""access_token":null,"token_type":["x"]"#,
            r#""expires_in":[],"scope":{}"#,
        ] {
            let answer = read(&format!(r#"{{{beside},"refresh_token":"rotated"}}"#));
            assert_eq!(exposed(answer.refresh_token()), Some("rotated".into()), "{beside}");
            assert!(answer.id_token().is_none() && answer.access_token().is_none(), "{beside}");
        }
    }

    #[test]
    fn only_objects_are_answers() {
        for bad in ["", "[]", "7", "null", "\"x\"", "{", "<html>"] {
            assert!(serde_json::from_str::<TokenAnswer>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn it_is_shown_and_written_nowhere() {
        let answer =
            read(r#"{"access_token":"canary","refresh_token":"canary","id_token":"canary"}"#);
        assert!(!format!("{answer:?}").contains("canary"));
        assert!(serde_json::to_string(&answer).is_err());
    }
}
