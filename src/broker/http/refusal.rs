//! What is answered instead of what was asked for (RFC 6749 section 5.2).

use std::time::Duration;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, PRAGMA, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use uuid::Uuid;

use super::guard::RequestId;
use crate::dpop;
use crate::wire::{TokenRefusal, refusal};

/// The longest description that is sent.
const MAX_DESCRIPTION: usize = 1000;

/// A refusal, still without the id of its request.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    code: &'static str,
    description: String,
    retry_after: Option<Duration>,
    elevation: Option<Uuid>,
    challenge: Option<Box<str>>,
}

impl Refusal {
    /// A refusal with this status, this code and what the caller should know.
    pub fn new(status: StatusCode, code: &'static str, description: impl Into<String>) -> Self {
        let description = description.into();
        Self { status, code, description, retry_after: None, elevation: None, challenge: None }
    }

    /// The request cannot be understood, or has what may not be.
    pub fn invalid_request(description: impl Into<String>) -> Self {
        Self::bad(refusal::INVALID_REQUEST, description)
    }

    /// A refusal with status 400, as RFC 6749 has it.
    pub fn bad(code: &'static str, description: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, description)
    }

    /// Not now; perhaps after `retry_after`.
    pub fn unavailable(description: impl Into<String>, retry_after: Duration) -> Self {
        let code = refusal::TEMPORARILY_UNAVAILABLE;
        let refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, description);
        Self { retry_after: Some(retry_after), ..refusal }
    }

    /// Too many requests (RFC 6585 section 4): not now, perhaps after `retry_after`.
    pub fn too_many(description: impl Into<String>, retry_after: Duration) -> Self {
        let code = refusal::TEMPORARILY_UNAVAILABLE;
        let refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, code, description);
        Self { retry_after: Some(retry_after), ..refusal }
    }

    /// A no that is not on record by itself, to somebody who has had many. It is a no all
    /// the same, and no sign that this broker cannot serve: so it is no 429, which clients
    /// take for «not now», and ask again, or elsewhere.
    pub fn denied_again(description: impl Into<String>, retry_after: Duration) -> Self {
        let refusal = Self::bad(refusal::ACCESS_DENIED, description);
        Self { retry_after: Some(retry_after), ..refusal }
    }

    /// Who asks is known, and policy says no. Whichever way they have shown it, another token
    /// is what could help (RFC 6750 section 3).
    pub fn forbidden(description: impl Into<String>) -> Self {
        let error = Some(refusal::INSUFFICIENT_SCOPE);
        Self::new(StatusCode::FORBIDDEN, refusal::ACCESS_DENIED, description)
            .challenging(schemes(error, error))
    }

    /// The same, and what would be accepted. It is printable ASCII.
    pub(super) fn challenging(self, challenge: impl Into<Box<str>>) -> Self {
        Self { challenge: Some(challenge.into()), ..self }
    }

    /// The same, and when asking again may be of use.
    pub fn retrying(self, after: Duration) -> Self {
        Self { retry_after: Some(after), ..self }
    }

    /// The same, and which elevation is in the way, or is waited for.
    pub fn because_of(self, elevation: Option<Uuid>) -> Self {
        Self { elevation, ..self }
    }

    /// Something of the broker's own failed; the log says what.
    pub fn internal() -> Self {
        let why = "the broker failed; its log says why, under the id of this request";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, refusal::SERVER_ERROR, why)
    }

    /// The status.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// What the caller should know.
    pub(super) fn description(&self) -> &str {
        &self.description
    }

    /// The code.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// Puts it in the log, as the caller is told of it.
    pub(super) fn log(&self) {
        let (code, why) = (self.code, printable(&self.description));
        tracing::info!(code, why, "refused");
    }

    /// The answer to this request.
    pub fn at(self, request: RequestId) -> Response {
        let body = TokenRefusal {
            error: self.code.to_string(),
            error_description: printable(&self.description),
            request_id: Some(request.to_string()),
            elevation: self.elevation.map(|id| id.to_string()),
        };
        // Texts always have a JSON form.
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let headers =
            [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store"), (PRAGMA, "no-cache")];
        let mut response = (self.status, headers, body).into_response();
        if let Some(Ok(challenge)) = self.challenge.as_deref().map(HeaderValue::from_str) {
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        if let Some(after) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        response
    }
}

/// The schemes of the header `Authorization` that would be accepted (RFC 6750 section 3, RFC
/// 9449 section 7.1), and what is wrong with what was shown by one or the other.
pub(super) fn schemes(bearer: Option<&str>, bound: Option<&str>) -> String {
    let error = |code: Option<&str>| match code {
        Some(code) => format!(", error=\"{code}\""),
        None => String::new(),
    };
    let (bearer, bound, algorithms) = (error(bearer), error(bound), algorithms());
    format!("Bearer realm=\"tmpcred\"{bearer}, DPoP algs=\"{algorithms}\"{bound}")
}

/// The algorithms of proofs, as challenges have them (RFC 9449 section 7.1).
pub(super) fn algorithms() -> String {
    dpop::ALGORITHMS.map(|(name, _)| name).join(" ")
}

/// Text as RFC 6749 section 5.2 allows it: printable ASCII without `"` and `\`.
pub(super) fn printable(text: &str) -> String {
    let allowed = |c: char| match c {
        '"' => '\'',
        '\\' => '/',
        ' '..='~' => c,
        _ => '?',
    };
    text.chars().map(allowed).take(MAX_DESCRIPTION).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_have_only_what_the_rfc_allows() {
        let got = printable("a \"b\" \\ \u{e9}\r\nX: y\0");
        assert_eq!(got, "a 'b' / ???X: y?");
        assert_eq!(printable(&"x".repeat(5000)).len(), MAX_DESCRIPTION);
    }
}
