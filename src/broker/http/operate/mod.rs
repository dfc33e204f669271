//! The endpoints for those who operate the broker from elsewhere: each shows who they are, and
//! policy decides.

pub(super) mod audit;
mod enrollments;
mod keys;
mod revocations;

use std::sync::Arc;

use axum::Json;
use axum::http::HeaderMap;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tracing::Instrument;

use super::api::{
    self, Answer, CHALLENGE, DPOP_NONCE, Endpoint, Operation, Scheme, Verb, unavailable,
};
use super::book::Book;
use super::client;
use super::form::Form;
use super::guard::RequestId;
use super::rates;
use super::refusal::Refusal;
use super::shown::{Challenge, Token};
use super::source::Source;
use super::token::RETRY_AFTER;
use crate::broker::audit::{self as log, Author};
use crate::broker::authenticate::{Caller, said};
use crate::broker::client::Proved;
use crate::broker::decide::{Denied, Why};
use crate::broker::metrics::{Administered, ClientAuthentication, Revocation};
use crate::broker::operate::{self, Asked, Unproved};
use crate::broker::policy;
use crate::broker::rulebook::Rulebook;
use crate::broker::{Broker, config};
use crate::error::{Error, ErrorKind};
use crate::trace::Place;
use crate::wire::refusal::{
    ACCESS_DENIED, INVALID_CLIENT, INVALID_DPOP_PROOF, INVALID_REQUEST, INVALID_TOKEN,
    USE_DPOP_NONCE,
};

/// How long a name may be, in bytes, as in records.
const MAX_NAME: usize = 1024;

/// All of them.
pub(super) fn endpoints(base: &str) -> Vec<Endpoint<Arc<Broker>>> {
    let mut endpoints = vec![audit::endpoint(base)];
    endpoints.extend(revocations::endpoints(base));
    endpoints.extend(keys::endpoints(base));
    endpoints.extend(enrollments::endpoints(base));
    endpoints
}

/// What is said of such an operation: how callers show who they are, and how they are refused.
pub(super) fn described(operation: Operation, verb: Verb) -> Operation {
    let unproved = "The caller did not show who they are";
    let codes = ["unauthorized", INVALID_TOKEN, INVALID_CLIENT, INVALID_DPOP_PROOF, USE_DPOP_NONCE];
    let denied = Answer::refusal(403, "Policy says no", &[ACCESS_DENIED]);
    let shown: &[&[Scheme]] = match verb {
        Verb::Post => {
            &[&[Scheme::Bearer], &[Scheme::Dpop, Scheme::DpopProof], &[Scheme::PrivateKeyJwt]]
        }
        _ => &[&[Scheme::Bearer], &[Scheme::Dpop, Scheme::DpopProof]],
    };
    operation
        .shown(shown)
        .answers(Answer::refusal(400, "The request is malformed", &[INVALID_REQUEST]))
        .answers(
            Answer::refusal(401, unproved, &codes).with(CHALLENGE.sometimes()).with(DPOP_NONCE),
        )
        .answers(denied.with(CHALLENGE).with(api::RETRY_AFTER.sometimes()))
        .answers(unavailable("It cannot be done, or not be recorded, at present"))
}

/// How a request ended that came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Malformed,
    Unauthenticated,
    Denied,
    Unknown,
    Failed,
}

impl Outcome {
    /// Its name, as metrics have it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unauthenticated => "unauthenticated",
            Self::Denied => "denied",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
        }
    }
}

impl From<Outcome> for Revocation {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Malformed => Self::Malformed,
            Outcome::Unauthenticated => Self::Unauthenticated,
            Outcome::Denied => Self::Denied,
            Outcome::Unknown => Self::Unknown,
            Outcome::Failed => Self::Failed,
        }
    }
}

impl From<Outcome> for Administered {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Malformed | Outcome::Unknown => Self::Malformed,
            Outcome::Unauthenticated => Self::Unauthenticated,
            Outcome::Denied => Self::Denied,
            Outcome::Failed => Self::Failed,
        }
    }
}

/// What is answered instead, and what it counts as.
pub(super) struct Unserved {
    pub(super) outcome: Outcome,
    pub(super) refusal: Refusal,
    /// What would be accepted instead, where it is that.
    headers: Option<Box<HeaderMap>>,
}

impl Unserved {
    pub(super) fn new(outcome: Outcome, refusal: Refusal) -> Self {
        Self { outcome, refusal, headers: None }
    }

    pub(super) fn malformed(why: impl Into<String>) -> Self {
        Refusal::invalid_request(why).into()
    }

    /// Something that whoever asks may do, and that cannot be done as they want it.
    pub(super) fn of(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::Usage => Self::malformed(said(error)),
            _ => {
                tracing::error!(%error, "an operation could not be done");
                let why = "it cannot be done, or not be recorded, at present";
                Self::new(Outcome::Failed, Refusal::unavailable(why, RETRY_AFTER))
            }
        }
    }

    pub(super) fn at(self, id: RequestId) -> Response {
        self.refusal.log();
        let mut response = self.refusal.at(id);
        response.headers_mut().extend(self.headers.into_iter().flat_map(|headers| *headers));
        response
    }
}

/// Whatever is found wrong with a request.
impl From<Refusal> for Unserved {
    fn from(refusal: Refusal) -> Self {
        Self::new(Outcome::Malformed, refusal)
    }
}

impl From<Challenge> for Unserved {
    fn from(Challenge { refusal, headers }: Challenge) -> Self {
        let headers = Some(Box::new(headers));
        Self { headers, ..Self::new(Outcome::Unauthenticated, refusal) }
    }
}

/// What a request goes by, from where it came, and its id.
pub(super) type Shown = (Book, Source, RequestId);

/// A request, as far as all of them are the same.
pub(super) struct Request<'a> {
    pub(super) broker: &'a Arc<Broker>,
    pub(super) book: Arc<Rulebook>,
    source: Source,
    pub(super) id: RequestId,
    headers: &'a HeaderMap,
    /// What is asked for, as limits have it.
    endpoint: config::Endpoint,
    /// The method, and the path below that of the broker's issuer.
    at: (&'static str, &'a str),
}

impl<'a> Request<'a> {
    pub(super) fn new(
        broker: &'a Arc<Broker>,
        (Book(book), source, id): Shown,
        headers: &'a HeaderMap,
        (endpoint, method, path): (config::Endpoint, &'static str, &'a str),
    ) -> Self {
        Self { broker, book, source, id, headers, endpoint, at: (method, path) }
    }

    /// From which address it is asked.
    pub(super) fn source(&self) -> std::net::IpAddr {
        self.source.0
    }

    /// Who asks, which counts. Where there is a form, a client may show in it which one it is.
    pub(super) async fn identified(&self, form: Option<&Form>) -> Result<Asked, Unserved> {
        let caller = self.caller(form).await?;
        Ok(Asked { caller, source: self.source.0, request_id: self.id.0 })
    }

    async fn caller(&self, form: Option<&Form>) -> Result<Caller, Unserved> {
        let broker = self.broker;
        let proved = match form {
            Some(form) => {
                let presented = client::presented(form, self.headers);
                broker.client(&self.book, presented, true).await
            }
            None => Ok(Proved::default()),
        };
        let proved = proved.map_err(|refused| {
            let outcome = match refused.why {
                ClientAuthentication::Malformed => Outcome::Malformed,
                ClientAuthentication::Unavailable => Outcome::Failed,
                _ => Outcome::Unauthenticated,
            };
            Unserved::new(outcome, client::refusal(&refused))
        })?;
        if let Some(client) = proved.id() {
            let client = Caller::of_client(broker.issuer(), client, broker.clock.now());
            self.count(&client)?;
            return Ok(client);
        }
        let token = Token::read(self.headers).map_err(Challenge::absent)?;
        let shown = token.credentials(self.headers, self.at);
        let shown = shown.map_err(|refused| self.unproved(Unproved::Proof(refused)))?;
        let operator = broker.operator(&self.book, shown, self.endpoint).await;
        operator.map_err(|unproved| self.unproved(unproved))
    }

    /// Refuses to go on where nobody can tell whether what was shown has expired.
    pub(super) async fn require_clock(&self) -> Result<(), Unserved> {
        self.broker.check_clock().await.map_err(|error| Unserved::of(&error))
    }

    /// Counts that somebody asks who was known without a token.
    pub(super) fn count(&self, caller: &Caller) -> Result<(), Unserved> {
        let counted = self.broker.count(&self.book, caller.asking(), self.endpoint);
        counted.map_err(|too_often| self.unproved(Unproved::TooOften(too_often)))
    }

    fn unproved(&self, unproved: Unproved) -> Unserved {
        match unproved {
            Unproved::Token(error) => Challenge::token(self.headers, &error).into(),
            Unproved::Proof(refused) => Challenge::proof(self.broker, &refused).into(),
            Unproved::Counted { retry_after } => operate::Refusal::Counted { retry_after }.into(),
            Unproved::TooOften(too_often) => {
                Unserved::new(Outcome::Denied, rates::refusal(self.broker, too_often))
            }
            Unproved::Unavailable(error) => {
                tracing::error!(%error, "it cannot be told who asks");
                let why = "the broker cannot tell at present who asks";
                Unserved::new(Outcome::Failed, Refusal::unavailable(why, RETRY_AFTER))
            }
        }
    }

    /// Whether they may; in whose name it is done.
    async fn permitted(
        &self,
        asked: &Asked,
        operation: &policy::Operation,
    ) -> Result<Author, Unserved> {
        super::token::summarize(self.broker).await;
        // What ends something goes on.
        if !operation.only_ends() {
            self.require_clock().await?;
        }
        self.broker.permit(&self.book, asked, operation).await.map_err(Unserved::from)
    }

    /// The refusal of what policy permits and something else forbids, which is on record as
    /// denials are.
    async fn denied(&self, asked: &Asked, operation: &policy::Operation, why: String) -> Unserved {
        let denied = Denied::new(Why::Forbidden, why);
        self.broker.deny_operation(&self.book, asked, operation, denied).await.into()
    }
}

impl From<operate::Refusal> for Unserved {
    fn from(refusal: operate::Refusal) -> Self {
        let denied = |why: String| Self::new(Outcome::Denied, Refusal::forbidden(why));
        match refusal {
            operate::Refusal::Denied(why) => denied(why),
            operate::Refusal::Counted { retry_after } => {
                let why = "it is denied, and so many requests were denied lately that they are only counted";
                let refusal = Refusal::forbidden(why).retrying(retry_after);
                Self::new(Outcome::Denied, refusal)
            }
            operate::Refusal::Unrecorded(error) => Self::of(&error),
        }
    }
}

impl Request<'_> {
    /// Whether they may look after the broker in this way.
    pub(super) async fn administers(
        &self,
        asked: &Asked,
        what: policy::Administration,
    ) -> Result<Author, Unserved> {
        self.permitted(asked, &policy::Operation::Administer(what)).await
    }

    /// The answer to a request to look after the broker, which is counted.
    fn counted(&self, outcome: Result<Response, Unserved>) -> Response {
        let count = |outcome| self.broker.metrics.administered(outcome);
        match outcome {
            Ok(response) => {
                count(Administered::Done);
                response
            }
            Err(unserved) => {
                count(unserved.outcome.into());
                unserved.at(self.id)
            }
        }
    }
}

/// Does something to its end, also where whoever asks for it hangs up.
pub(super) async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = crate::error::Result<T>> + Send + 'static,
) -> Result<T, Unserved> {
    match tokio::spawn(Place::here().around(work).in_current_span()).await {
        Ok(outcome) => outcome.map_err(|error| Unserved::of(&error)),
        Err(_) => Err(Unserved::new(Outcome::Failed, Refusal::internal())),
    }
}

/// Why something is done, as it goes on record.
fn reason(form: &Form) -> Result<String, Unserved> {
    let Some(reason) = form.optional("reason") else { return Ok(NO_REASON.into()) };
    log::reason(reason)
        .map(String::from)
        .map_err(|why| Unserved::malformed(format!("the parameter 'reason' {why}")))
}

const NO_REASON: &str = "no reason was given";

/// A parameter that says whether.
pub(super) fn flag(form: &Form, name: &str) -> Result<bool, Unserved> {
    match form.optional(name) {
        None => Ok(false),
        Some("true") => Ok(true),
        Some(_) => {
            Err(Unserved::malformed(format!("the parameter '{name}' is 'true', or left out")))
        }
    }
}

pub(super) fn done(answer: impl Serialize) -> Response {
    ([(CACHE_CONTROL, "no-store")], Json(answer)).into_response()
}
