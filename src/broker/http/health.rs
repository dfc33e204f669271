//! `/healthz`: the process lives. `/readyz`: it can issue.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::broker::Broker;

/// Answers as long as the process does.
pub(super) async fn healthz() -> Response {
    answer(StatusCode::OK, json!({"status": "ok"}))
}

/// Answers with 200 while the store can be written and its keys can be used; otherwise
/// with 503.
pub(super) async fn readyz(State(broker): State<Arc<Broker>>) -> Response {
    let (store, audit, keys) = (broker.store.as_ref(), &broker.audit, &broker.keys);
    match broker.readiness.check(store, audit, keys).await {
        Ok(()) => answer(StatusCode::OK, json!({"status": "ready"})),
        Err(error) => {
            tracing::error!(%error, "not ready");
            let why = match broker.readiness.is_ending() {
                true => "the broker is ending",
                false => "the store or the keys in it cannot be used",
            };
            let body = json!({"status": "not ready", "why": why});
            answer(StatusCode::SERVICE_UNAVAILABLE, body)
        }
    }
}

fn answer(status: StatusCode, body: serde_json::Value) -> Response {
    (status, [(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}
