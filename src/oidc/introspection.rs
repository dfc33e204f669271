//! Asking an issuer whether a token is still good (RFC 7662).

use reqwest::Method;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::Deserialize;
use serde_json::{Map, Value};
use url::Url;
use url::form_urlencoded;

use super::jwt::check_claims;
use super::{Claims, Expectations};
use crate::error::{Error, ErrorKind, Result};
use crate::host::http::{HttpClient, Request};
use crate::secret::Secret;

const WHO: &str = "the introspection endpoint of the issuer";

/// The answer.
#[derive(Deserialize)]
struct Answer {
    active: bool,
    #[serde(flatten)]
    told: Map<String, Value>,
}

/// Asks whether a token is good, with the token itself as proof of being allowed to
/// ask. `verified` is what it says.
///
/// # Errors
/// [`ErrorKind::Verification`] where it is not good, or the answer is about another
/// token; [`ErrorKind::Denied`] where the issuer does not tell; and
/// [`ErrorKind::Unreachable`] where it cannot be asked.
pub async fn require_active(
    endpoint: Url,
    http: &HttpClient,
    token: &Secret<String>,
    verified: &Claims,
) -> Result<()> {
    let told = ask(endpoint, http, token).await?;
    for name in ["iss", "sub", "jti"] {
        let value = told.get(name).filter(|value| !value.is_null());
        if value.is_some() && value != verified.all.get(name) {
            return Err(Error::new(
                ErrorKind::Verification,
                format!("{WHO} speaks of another token"),
            )
            .because_of(format!("its '{name}' differs")));
        }
    }
    Ok(())
}

/// Asks what a token says that says nothing itself, in the same way, and holds it against
/// what it has to say.
///
/// # Errors
/// As with [`require_active`]; also where it says something else.
pub async fn claims_of(
    endpoint: Url,
    http: &HttpClient,
    token: &Secret<String>,
    expected: &Expectations<'_>,
) -> Result<Claims> {
    Ok(check_claims(ask(endpoint, http, token).await?, expected)?)
}

async fn ask(
    endpoint: Url,
    http: &HttpClient,
    token: &Secret<String>,
) -> Result<Map<String, Value>> {
    let bearer = Secret::new(format!("Bearer {}", token.expose()));
    let mut bearer = HeaderValue::from_str(bearer.expose()).map_err(|_| {
        Error::new(ErrorKind::Verification, "the token has characters that no token has")
    })?;
    bearer.set_sensitive(true);
    let headers = HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
        (ACCEPT, HeaderValue::from_static("application/json")),
        (AUTHORIZATION, bearer),
    ]);
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("token", token.expose())
        .append_pair("token_type_hint", "access_token")
        .finish();
    let body = Secret::new(form.into_bytes());
    let response =
        http.send(Request { method: Method::POST, url: endpoint, headers, body }).await?;
    if let Some(outage) = response.outage(WHO) {
        return Err(outage);
    }
    if !response.status.is_success() {
        return Err(Error::new(ErrorKind::Denied, format!("{WHO} does not tell"))
            .because_of(format!("it answered {}", response.status.as_u16()))
            .hint(
                "it may not let a token ask about itself; leave out --online to check here only",
            ));
    }
    let answer: Answer = response.json(&format!("the answer of {WHO}"))?;
    if !answer.active {
        return Err(Error::new(ErrorKind::Verification, "the token is not good any more")
            .because_of(
                "its issuer says that it is not active: it was revoked, or has ended there",
            ));
    }
    Ok(answer.told)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use super::*;
    use crate::credential::Principal;
    use crate::host::clock::{SkewMeter, SystemClock};
    use crate::host::test_server::{Reply, TestServer, run};

    fn asked(reply: Reply) -> Result<()> {
        let server = TestServer::start(move |_, _| reply.clone());
        let http = HttpClient::new(std::sync::Arc::new(SystemClock), SkewMeter::default(), None);
        let claims = json!({"iss": "https://i.example", "sub": "alice", "jti": "1"});
        let verified = Claims {
            principal: Principal { issuer: "https://i.example".into(), subject: "alice".into() },
            audience: vec!["me".into()],
            issued_at: None,
            expires_at: datetime!(2026-01-01 12:00 UTC),
            all: claims.as_object().unwrap().clone(),
        };
        let endpoint = Url::parse(&format!("{}/introspect", server.origin)).unwrap();
        run(require_active(endpoint, &http, &Secret::new("canary-token".into()), &verified))
    }

    #[test]
    fn only_an_answer_about_this_token_that_says_active_will_do() {
        let good = json!({"active": true, "iss": "https://i.example", "sub": "alice", "jti": "1"});
        asked(Reply::json(200, &good)).unwrap();
        asked(Reply::json(200, &json!({"active": true}))).unwrap();
        for (status, answer, kind, says) in [
            (200, json!({"active": false}), ErrorKind::Verification, "not good any more"),
            (200, json!({"active": "true"}), ErrorKind::Verification, "cannot be understood"),
            (200, json!({}), ErrorKind::Verification, "cannot be understood"),
            (200, json!({"active": true, "jti": "2"}), ErrorKind::Verification, "another token"),
            (200, json!({"active": true, "jti": 1}), ErrorKind::Verification, "another token"),
            (200, json!({"active": true, "sub": "bob"}), ErrorKind::Verification, "another token"),
            (401, json!({"active": true}), ErrorKind::Denied, "it answered 401"),
            (404, json!({"active": true}), ErrorKind::Denied, "it answered 404"),
            (503, json!({"active": true}), ErrorKind::Unreachable, "it answered 503"),
            (302, json!({"active": true}), ErrorKind::Verification, "redirect"),
        ] {
            let error = asked(Reply::json(status, &answer)).unwrap_err();
            assert_eq!(error.kind(), kind, "{status} {answer}: {error}");
            assert!(error.to_string().contains(says), "{status} {answer}: {error}");
            assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        }
    }
}
