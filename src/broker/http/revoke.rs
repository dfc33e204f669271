//! The revocation endpoint (RFC 7009).

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use tracing::Instrument;

use super::form::Form;
use super::guard::RequestId;
use super::refusal::Refusal;
use super::source::Source;
use super::token::RETRY_AFTER;
use crate::broker::Broker;
use crate::broker::metrics::Revocation;

/// Whoever holds a token may revoke it. Section 2.2: one that is no token of ours,
/// or is good no more, is nothing to refuse.
pub(super) async fn revoke(
    State(broker): State<Arc<Broker>>,
    source: Source,
    id: RequestId,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let outcome = match Form::read(&uri, &headers, body) {
        Ok(form) => perform(&broker, &form, source, id).await,
        Err(refusal) => Err(malformed(&broker, refusal)),
    };
    match outcome {
        Ok(()) => (StatusCode::OK, [(CACHE_CONTROL, "no-store")]).into_response(),
        Err(refusal) => {
            tracing::info!(code = refusal.code(), ?refusal, "refused");
            refusal.at(id)
        }
    }
}

async fn perform(
    broker: &Arc<Broker>,
    form: &Form,
    source: Source,
    id: RequestId,
) -> Result<(), Refusal> {
    let token = form.secret("token").map_err(|refusal| malformed(broker, refusal))?;
    let unavailable = |error| {
        tracing::error!(%error, "a token could not be revoked");
        Refusal::unavailable("the revocation cannot be recorded at present", RETRY_AFTER)
    };
    let own = broker.own_token(token).await.map_err(|error| {
        broker.metrics.revoked(Revocation::Failed);
        unavailable(error)
    })?;
    let Some(token) = own else {
        broker.metrics.revoked(Revocation::Unknown);
        return Ok(());
    };
    let broker = broker.clone();
    // A job that is being ended may not wait for the answer: what was begun is done
    // all the same.
    let work = async move { broker.revoke(&token, source.0, id.0).await };
    match tokio::spawn(work.in_current_span()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(unavailable(error)),
        Err(_) => Err(Refusal::internal()),
    }
}

fn malformed(broker: &Broker, refusal: Refusal) -> Refusal {
    broker.metrics.revoked(Revocation::Malformed);
    refusal
}
