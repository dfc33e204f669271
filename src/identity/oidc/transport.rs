//! The way from the `oauth2` crate to our own HTTP client, where answers are
//! bounded, checked and mended before the crate reads them.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use hyper::header::RETRY_AFTER;
use oauth2::http;
use oauth2::{
    AsyncHttpClient, ErrorResponseType, HttpRequest, HttpResponse, RequestTokenError,
    StandardErrorResponse,
};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use url::Url;

use super::tokens;
use crate::error::{Error, ErrorKind, Result, foreign};
use crate::host::http::{HttpClient, Request, Response, retry_after};
use crate::secret::Secret;

/// What is asked, which decides how an answer is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// The token endpoint, once.
    Token,
    /// The token endpoint, again and again until the person has logged in.
    Poll,
    /// The device authorization endpoint.
    Device,
}

impl Endpoint {
    /// What it is called in an error.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Token | Self::Poll => "the token endpoint of the identity provider",
            Self::Device => "the device endpoint of the identity provider",
        }
    }
}

/// Sends the crate's requests.
pub(super) struct Transport<'a> {
    http: &'a HttpClient,
    endpoint: Endpoint,
    /// While polling, the crate takes every failure for a passing one. Here is
    /// the one that is not.
    fatal: RefCell<Option<Error>>,
    /// The last passing one, for when time runs out.
    passing: RefCell<Option<Error>>,
    /// Whether there was a refusal without a word.
    mute: Cell<bool>,
    /// When to ask again, as the last answer without a result said.
    retry_after: RefCell<Option<String>>,
}

impl<'a> Transport<'a> {
    pub(super) fn new(http: &'a HttpClient, endpoint: Endpoint) -> Self {
        let (fatal, passing, mute, retry_after) = Default::default();
        Self { http, endpoint, fatal, passing, mute, retry_after }
    }

    /// Whether the provider, or something on the way to it, refused without a word since
    /// this was asked last.
    pub(super) fn was_mute(&self) -> bool {
        self.mute.take()
    }

    /// The last failure that was waited out, if the last request was one.
    pub(super) fn passing(&self) -> Option<Error> {
        self.passing.borrow_mut().take()
    }

    /// How long the provider asked to be left alone when it could not serve. `now` is the
    /// time by its clock.
    pub(super) fn wish(&self, now: OffsetDateTime) -> Option<Duration> {
        retry_after(self.retry_after.borrow().as_deref()?, now)
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse> {
        let sent = self.try_send(request).await;
        if self.endpoint != Endpoint::Poll {
            return sent;
        }
        *self.passing.borrow_mut() = None;
        match sent {
            Err(error) if error.kind() == ErrorKind::Unreachable => {
                *self.passing.borrow_mut() = Some(error.clone());
                Err(error)
            }
            Err(error) => {
                *self.fatal.borrow_mut() = Some(error);
                // Any code that ends the polling.
                answer(400, br#"{"error":"invalid_request"}"#.to_vec())
            }
            sent => sent,
        }
    }

    async fn try_send(&self, request: HttpRequest) -> Result<HttpResponse> {
        let (parts, body) = request.into_parts();
        let url = Url::parse(&parts.uri.to_string()).map_err(|cause| {
            Error::new(ErrorKind::Verification, "the address cannot be used").because(cause)
        })?;
        let request =
            Request { method: parts.method, url, headers: parts.headers, body: Secret::new(body) };
        let response = self.http.send(request).await?;
        if let Some(outage) = response.outage(self.endpoint.name()) {
            let wish = response.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            *self.retry_after.borrow_mut() = wish.map(String::from);
            return Err(outage);
        }
        // What the answer calls itself does not matter, only what it is.
        answer(response.status.as_u16(), self.readable(&response)?)
    }

    /// The body as the crate can read it.
    fn readable(&self, response: &Response) -> Result<Vec<u8>> {
        let (status, body) = (response.status.as_u16(), response.body.expose());
        if body.is_empty() && matches!(status, 400 | 401) && self.endpoint != Endpoint::Device {
            self.mute.set(true);
            // Some providers refuse without a word. Of all the reasons there
            // may be, this one leads on: to a login.
            let mute = r#"{"error":"invalid_grant","error_description":"it gives no reason"}"#;
            return Ok(mute.as_bytes().to_vec());
        }
        let said = |error: Error| error.because_of(format!("the status is {status}"));
        let what = format!("the answer of {}", self.endpoint.name());
        if self.endpoint == Endpoint::Device && status == 200 {
            let members = response.json::<Map<String, Value>>(&what).map_err(said)?;
            // A JSON object always has a written form.
            return Ok(serde_json::to_vec(&mend(members)).unwrap_or_default());
        }
        response.json::<IgnoredAny>(&what).map_err(said)?;
        Ok(body.clone())
    }
}

impl<'c> AsyncHttpClient<'c> for Transport<'_> {
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse>> + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}

fn answer(status: u16, body: Vec<u8>) -> Result<HttpResponse> {
    http::Response::builder().status(status).body(body).map_err(|cause| {
        Error::new(ErrorKind::Verification, "the answer has no valid status").because(cause)
    })
}

/// How often the token endpoint is asked, at most and at least, in seconds.
const INTERVAL: std::ops::RangeInclusive<u64> = 1..=60;

/// Mends what the crate would stumble over in the answer of a device endpoint
/// (RFC 8628 section 3.2): times as text, and both the old and the new name of
/// an address.
fn mend(mut members: Map<String, Value>) -> Map<String, Value> {
    if members.contains_key("verification_uri") {
        members.remove("verification_url");
    }
    if members.get("verification_uri_complete").and_then(Value::as_str).is_none_or(str::is_empty) {
        members.remove("verification_uri_complete");
    }
    for name in ["expires_in", "interval"] {
        if let Some(time) = members.get(name).map(tokens::seconds) {
            match time {
                Some(time) => members.insert(name.into(), time.as_secs().into()),
                None => members.remove(name),
            };
        }
    }
    if let Some(interval) = members.get("interval").and_then(Value::as_u64) {
        let interval = interval.clamp(*INTERVAL.start(), *INTERVAL.end());
        members.insert("interval".into(), interval.into());
    }
    members
}

/// Why there is no answer to go on with.
#[derive(Debug)]
pub(super) enum Failure {
    /// The provider said no.
    Refused(Refusal),
    /// Something else went wrong.
    Failed(Error),
}

/// What the provider says instead of what was asked for (RFC 6749 section 5.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The code.
    pub(super) code: String,
    /// The provider's words.
    pub(super) words: Option<String>,
}

impl Refusal {
    /// The error for people; `what` was refused.
    pub(super) fn error(&self, what: &str) -> Error {
        let words = self.words.as_deref().filter(|words| !words.is_empty());
        let kind = match self.code.as_str() {
            "invalid_client"
            | "invalid_request"
            | "invalid_scope"
            | "invalid_target"
            | "unauthorized_client"
            | "unsupported_grant_type"
            | "unsupported_response_type" => ErrorKind::Config,
            "server_error" | "temporarily_unavailable" => ErrorKind::Unreachable,
            _ => ErrorKind::Denied,
        };
        let error = Error::new(kind, what).because_of(match words {
            Some(words) => format!("it says: {} ({})", foreign(words), foreign(&self.code)),
            None => format!("it says: {}", foreign(&self.code)),
        });
        match self.code.as_str() {
            "invalid_client" | "unauthorized_client" | "unsupported_grant_type" => error.hint(
                "check `client_id`, and that the client is registered as public and native, for this way to log in",
            ),
            "invalid_scope" => error.hint("check `scopes`"),
            "invalid_request" => error.hint(
                "check the registration of the client: its redirect addresses, and whether the provider knows `audience_parameter`",
            ),
            _ => error,
        }
    }
}

impl Failure {
    /// Whether the provider refused with this code.
    pub(super) fn is(&self, code: &str) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.code == code)
    }

    /// The error for people; `what` is what failed.
    pub(super) fn error(&self, what: &str) -> Error {
        match self {
            Self::Refused(refusal) => refusal.error(what),
            Self::Failed(error) => error.clone().context(what),
        }
    }

    /// Reads the crate's error. What it holds of an answer's body is not shown.
    pub(super) fn of<T: ErrorResponseType + AsRef<str> + std::fmt::Display + 'static>(
        error: RequestTokenError<Error, StandardErrorResponse<T>>,
        transport: &Transport<'_>,
    ) -> Self {
        if let Some(fatal) = transport.fatal.borrow_mut().take() {
            return Self::Failed(fatal);
        }
        let what = format!("the answer of {} cannot be understood", transport.endpoint.name());
        match error {
            RequestTokenError::ServerResponse(response) => Self::Refused(Refusal {
                code: response.error().as_ref().to_string(),
                words: response.error_description().cloned(),
            }),
            RequestTokenError::Request(error) => Self::Failed(error),
            RequestTokenError::Parse(cause, _) => Self::Failed(
                Error::new(ErrorKind::Verification, what)
                    .because_of(format!("something is missing or wrong at '{}'", cause.path())),
            ),
            RequestTokenError::Other(_) => Self::Failed(
                Error::new(ErrorKind::Verification, what)
                    .because_of("it has neither a token nor an error in it"),
            ),
        }
    }
}
