//! What a broker says instead (RFC 6749 section 5.2, RFC 6750 section 3, RFC 9470).

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::WWW_AUTHENTICATE;

use super::WHAT;
use crate::error::{Error, ErrorKind, foreign};
use crate::host::http::Response;
use crate::identity::Strength;
use crate::mint::broker::Server;
use crate::mint::elevation;
use crate::mint::said::words;
use crate::wire::{NO_SUCH_ADDRESS, TokenRefusal, refusal};

/// The code by which a stronger login is asked for (RFC 9470 section 3).
const INSUFFICIENT: &str = "insufficient_user_authentication";

/// What to think of a broker that does not know an address.
const OLDER: &str = "the broker may be older than this program";

/// Whether it is that the broker has no such address, as an older one may not.
pub(crate) fn is_of_an_older_one(error: &Error) -> bool {
    error.hints().iter().any(|hint| hint == OLDER)
}

/// How many names of authentication contexts are taken note of.
const MOST_CONTEXTS: usize = 16;

/// Why something did not come about.
#[derive(Debug)]
pub enum Failure {
    /// Whoever asks has to log in anew, or in a stronger way, and may then ask again.
    StepUp(StepUp),
    /// What whoever asks has shown is not accepted, or no longer: they may show who they are
    /// anew.
    Unaccepted(Error),
    /// Not enough approve of what is to begin: others still may.
    Short(Error),
    /// Anything else.
    Other(Error),
}

/// What the broker wants of the login, and the error for where that cannot be had.
#[derive(Debug)]
pub struct StepUp {
    /// How the login has to be.
    pub strength: Strength,
    /// What is said where nobody logs in.
    pub error: Error,
}

impl Failure {
    pub(super) fn context(self, message: String) -> Self {
        match self {
            Self::StepUp(StepUp { strength, error }) => {
                Self::StepUp(StepUp { strength, error: error.context(message) })
            }
            Self::Unaccepted(error) => Self::Unaccepted(error.context(message)),
            Self::Short(error) => Self::Short(error.context(message)),
            Self::Other(error) => Self::Other(error.context(message)),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::StepUp(StepUp { error, .. })
            | Failure::Unaccepted(error)
            | Failure::Short(error)
            | Failure::Other(error) => error,
        }
    }
}

/// What this answer, which is no success and no outage, says. `issuer` vouches for who asked,
/// where somebody showed who they are.
pub(super) fn of(response: &Response, server: &Server, issuer: Option<&str>) -> Failure {
    let status = response.status;
    let refused = match response.json::<TokenRefusal>(WHAT) {
        Ok(refused) => refused,
        Err(error) => {
            let error = error.because_of(format!("the status is {}", status.as_u16()));
            return Failure::Other(match status {
                StatusCode::NOT_FOUND => error.hint(OLDER),
                _ => error.hint(format!("check that there is a tmpcred broker at {}", server.url)),
            });
        }
    };
    // Its body may have the code, or only the header (RFC 9470 section 3).
    if let Some(strength) = wanted(response)
        .or_else(|| (refused.error == INSUFFICIENT).then(Strength::default))
        .filter(|_| status == StatusCode::UNAUTHORIZED)
    {
        return Failure::StepUp(step_up(strength, &refused));
    }
    let error = elevation::hinted(words(said(&refused, status), &refused), &refused);
    if refused.error == refusal::ELEVATION_SHORT {
        return Failure::Short(error);
    }
    let Some(issuer) = issuer else { return Failure::Other(error) };
    Failure::Other(match (error.kind(), refused.error.as_str()) {
        (_, refusal::INVALID_DPOP_PROOF | refusal::USE_DPOP_NONCE) => error,
        (ErrorKind::Verification, _) if status == StatusCode::UNAUTHORIZED => {
            return Failure::Unaccepted(error.hint(format!(
                "the broker has to trust the issuer {} and to expect the audience {}, or the client's own name in an ID token",
                foreign(issuer),
                server.audience()
            )));
        }
        (_, refusal::ELEVATION_CONFLICT) => error,
        (ErrorKind::Denied, _) => match again(response) {
            Some(hint) => error.hint(hint),
            None => error.hint("ask those who write the broker's policy, and name the request"),
        },
        _ => error,
    })
}

fn said(refused: &TokenRefusal, status: StatusCode) -> Error {
    let (kind, what) = match (status, refused.error.as_str()) {
        (_, refusal::INVALID_DPOP_PROOF | refusal::USE_DPOP_NONCE) => {
            (ErrorKind::Verification, "it does not accept the proof of this device's key".into())
        }
        (StatusCode::UNAUTHORIZED, _) => {
            (ErrorKind::Verification, "it does not accept who asks".into())
        }
        (StatusCode::FORBIDDEN, _) | (_, refusal::ACCESS_DENIED) => {
            (ErrorKind::Denied, "policy says no".into())
        }
        (_, refusal::ELEVATION_CONFLICT) => {
            (ErrorKind::Denied, "something else that was asked for is in the way".into())
        }
        (_, refusal::ELEVATION_STATE | refusal::ELEVATION_SHORT) => {
            (ErrorKind::Other, "it cannot be done as things stand".into())
        }
        (StatusCode::NOT_FOUND, _) if refused.error_description == NO_SUCH_ADDRESS => {
            let error = Error::new(ErrorKind::Usage, "it does not know this request");
            return error.hint(OLDER);
        }
        (StatusCode::NOT_FOUND, _) => (ErrorKind::Usage, "there is no such thing".into()),
        (_, refusal::INVALID_REQUEST) => {
            (ErrorKind::Usage, "it does not accept the request".to_string())
        }
        (_, other) => (ErrorKind::Other, format!("it refuses: {}", foreign(other))),
    };
    Error::new(kind, what)
}

fn step_up(strength: Strength, refused: &TokenRefusal) -> StepUp {
    let error = Error::new(ErrorKind::LoginRequired, "a fresh or stronger login is wanted");
    let mut error = words(error, refused);
    if let Some(age) = strength.max_age {
        let age = humantime::format_duration(age);
        error = error.because_of(format!("the login may have been {age} ago at most"));
    }
    if !strength.acr_values.is_empty() {
        let names = foreign(&strength.acr_values.join(", "));
        error = error.because_of(format!("the login has to be one of these: {names}"));
    }
    let error = error.hint("run it where somebody can be asked to log in");
    StepUp { strength, error }
}

/// How the login has to be, where a challenge says that it is not (RFC 9470 section 3).
fn wanted(response: &Response) -> Option<Strength> {
    let headers = response.headers.get_all(WWW_AUTHENTICATE).iter();
    headers.filter_map(|header| header.to_str().ok()).find_map(challenged)
}

fn challenged(header: &str) -> Option<Strength> {
    let challenges = http_auth::parse_challenges(header).ok()?;
    challenges.iter().find_map(|challenge| {
        let value = |name: &str| {
            let mut params = challenge.params.iter();
            let (_, value) = params.find(|(other, _)| other.eq_ignore_ascii_case(name))?;
            Some(value.to_unescaped())
        };
        if value("error").as_deref() != Some(INSUFFICIENT) {
            return None;
        }
        let max_age = value("max_age").and_then(|seconds| seconds.parse::<u32>().ok());
        let contexts = value("acr_values").unwrap_or_default();
        let contexts = contexts.split_ascii_whitespace().take(MOST_CONTEXTS);
        Some(Strength {
            max_age: max_age.map(|seconds| Duration::from_secs(seconds.into())),
            acr_values: contexts.map(String::from).collect(),
        })
    })
}

/// When to ask again, where the answer says so.
fn again(response: &Response) -> Option<String> {
    let seconds: u32 = response.header(reqwest::header::RETRY_AFTER)?.parse().ok()?;
    Some(format!("it asks to be tried again in {seconds} seconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_says_how_the_login_has_to_be() {
        let strength = |header: &str| challenged(header);
        let both = r#"Bearer realm="tmpcred", error="insufficient_user_authentication", error_description="log in \"anew\", please", acr_values="phr mfa", max_age="5", DPoP algs="ES256""#;
        let wanted = strength(both).unwrap();
        assert_eq!(wanted.max_age, Some(Duration::from_secs(5)));
        assert_eq!(wanted.acr_values, ["phr", "mfa"]);
        let bound = r#"Bearer realm="x", DPoP algs="ES256", error="insufficient_user_authentication", max_age=0"#;
        assert_eq!(strength(bound).unwrap().max_age, Some(Duration::ZERO));
        let neither = r#"Bearer error="insufficient_user_authentication", max_age="soon""#;
        assert_eq!(strength(neither), Some(Strength::default()));
        for other in [
            "",
            "Bearer",
            r#"Bearer error="invalid_token", max_age="5""#,
            r#"Bearer error="insufficient_user_authentication"#,
            "Bearer error=insufficient_user_authentication max_age=5",
        ] {
            assert_eq!(strength(other), None, "{other}");
        }
    }

    #[test]
    fn no_challenge_is_too_long() {
        let many = vec!["a"; 1000].join(" ");
        let header =
            format!(r#"Bearer error="insufficient_user_authentication", acr_values="{many}""#);
        assert_eq!(challenged(&header).unwrap().acr_values.len(), MOST_CONTEXTS);
    }
}
