//! The revocation endpoint (RFC 7009).

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tracing::Instrument;

use super::api::{Answer, Endpoint, Field, Kind, Operation, Scheme, TRIED, Verb, unavailable};
use super::book::Book;
use super::client;
use super::form::{Form, Posted};
use super::guard::RequestId;
use super::rates;
use super::refusal::Refusal;
use super::source::Source;
use super::token::RETRY_AFTER;
use crate::broker::client::Proved;
use crate::broker::metrics::{ClientAuthentication, Revocation};
use crate::broker::rulebook::Rulebook;
use crate::broker::{Broker, config};
use crate::credential::Principal;
use crate::secret::Secret;
use crate::trace::Place;
use crate::wire::{REVOCATION_PATH, refusal};

/// What a request may have (section 2.1).
const FIELDS: &[Field] = &[
    Field::required("token", "The token that is revoked").of(Kind::Secret),
    Field::optional("token_type_hint", "Looked at by nobody: there is one type"),
];

const FORM: &[&[Field]] = &[FIELDS, client::FIELDS];

/// The endpoint.
pub(super) fn endpoint(base: &str) -> Endpoint<Arc<Broker>> {
    let (malformed, unknown) =
        ("The request is malformed", "The client did not show that it is the one");
    let operation = Operation::new("revoke", "Revoke a token (RFC 7009)")
        .about("Whoever holds a token may revoke it, and what came of it.")
        .form(FORM)
        .shown(&[&[], &[Scheme::PrivateKeyJwt]])
        .answers(Answer::empty(200, "It is good no more, or never was"))
        .answers(Answer::refusal(400, malformed, &[refusal::INVALID_REQUEST]))
        .answers(Answer::refusal(401, unknown, &[refusal::INVALID_CLIENT]).with(TRIED))
        .answers(unavailable("The revocation cannot be recorded at present"));
    Endpoint::new(format!("{base}/{REVOCATION_PATH}"), Verb::Post, post(revoke), operation)
        .shedding()
        .limited(config::Endpoint::Revoke)
}

/// Whoever holds a token may revoke it; a client that has a table in the configuration
/// shows that it is the one, where it comes as that (section 2.1). Section 2.2: one that is no token of ours,
/// or is good no more, is nothing to refuse.
async fn revoke(
    State(broker): State<Arc<Broker>>,
    Book(book): Book,
    source: Source,
    id: RequestId,
    posted: Posted,
) -> Response {
    let (form, headers) = posted.described(FORM);
    let outcome = match form {
        Ok(form) => perform(&broker, book, &form, &headers, source, id).await,
        Err(refusal) => Err(malformed(&broker, refusal)),
    };
    match outcome {
        Ok(()) => (StatusCode::OK, [(CACHE_CONTROL, "no-store")]).into_response(),
        Err(refusal) => {
            refusal.log();
            refusal.at(id)
        }
    }
}

async fn perform(
    broker: &Arc<Broker>,
    book: Arc<Rulebook>,
    form: &Form,
    headers: &HeaderMap,
    source: Source,
    id: RequestId,
) -> Result<(), Refusal> {
    let token = form.secret("token").map_err(|refusal| malformed(broker, refusal))?;
    // Nothing is proved here, and nothing is given that could be bound to a key.
    let proved = broker.client(&book, client::presented(form, headers), true).await;
    let proved = proved.map_err(|refused| {
        broker.metrics.revoked(match refused.why {
            ClientAuthentication::Malformed => Revocation::Malformed,
            ClientAuthentication::Unavailable => Revocation::Failed,
            _ => Revocation::Unauthenticated,
        });
        client::refusal(&refused)
    })?;
    // A job that is being ended may not wait for the answer: what came is looked at, and done, all
    // the same.
    let (broker, token) = (broker.clone(), token.clone());
    let work = async move { done(&broker, book, &token, &proved, source, id).await };
    let work = tokio::spawn(Place::here().around(work).in_current_span());
    work.await.unwrap_or_else(|_| Err(Refusal::internal()))
}

/// Revokes this token, which somebody has shown.
async fn done(
    broker: &Broker,
    book: Arc<Rulebook>,
    token: &Secret<String>,
    proved: &Proved,
    source: Source,
    id: RequestId,
) -> Result<(), Refusal> {
    let unavailable = |error| {
        tracing::error!(%error, "a token could not be revoked");
        Refusal::unavailable("the revocation cannot be recorded at present", RETRY_AFTER)
    };
    let own = broker.own_token(token).await.map_err(|error| {
        broker.metrics.revoked(Revocation::Failed);
        unavailable(error)
    })?;
    let Ok(token) = own else {
        broker.metrics.revoked(Revocation::Unknown);
        return Ok(());
    };
    // One that is dead may be in anybody's hands, and nothing comes of it.
    let repeated = broker.was_revoked(&token).await.map_err(|error| {
        broker.metrics.revoked(Revocation::Failed);
        unavailable(error)
    })?;
    if repeated {
        broker.metrics.revoked(Revocation::Repeated);
        return Ok(());
    }
    // Who holds it comes as whom it stands for, unless they are a client that has shown so.
    let client = proved.id().map(|client| {
        let issuer = broker.issuer().as_str().to_string();
        Principal { issuer, subject: client.into() }
    });
    let who = client.as_ref().unwrap_or(token.bearer());
    broker.count(&book, who, config::Endpoint::Revoke).map_err(|too_often| {
        broker.metrics.revoked(Revocation::Denied);
        rates::refusal(broker, too_often)
    })?;
    broker.revoke(&book, &token, proved, source.0, id.0).await.map_err(unavailable)
}

fn malformed(broker: &Broker, refusal: Refusal) -> Refusal {
    broker.metrics.revoked(Revocation::Malformed);
    refusal
}
