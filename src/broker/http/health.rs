//! `/healthz`: the process lives. `/readyz`: it can issue.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRef, State};
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use schemars::JsonSchema;
use serde::Serialize;

use super::api::{Answer, Endpoint, Operation, Verb};
use crate::broker::Broker;

/// How it is.
#[derive(Serialize, JsonSchema)]
struct Health {
    /// In a word or two.
    status: Status,
    /// Why it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'static str>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Ready,
    #[serde(rename = "not ready")]
    NotReady,
}

/// The endpoints.
pub(super) fn endpoints<S>() -> [Endpoint<S>; 2]
where
    S: Clone + Send + Sync + 'static,
    Arc<Broker>: FromRef<S>,
{
    let lives =
        Operation::new("healthz", "Whether the process lives")
            .answers(Answer::json::<Health>(200, "It does"));
    let ready = Operation::new("readyz", "Whether the broker can issue")
        .answers(Answer::json::<Health>(200, "It can"))
        .answers(Answer::json::<Health>(
            503,
            "The store, its log or the keys in it cannot be used, its clock and this machine's are more than a minute apart, or the broker is ending",
        ));
    [
        Endpoint::new("/healthz", Verb::Get, get(healthz), lives),
        Endpoint::new("/readyz", Verb::Get, get(readyz), ready),
    ]
}

/// Answers as long as the process does.
async fn healthz() -> Response {
    answer(StatusCode::OK, Health { status: Status::Ok, why: None })
}

/// Answers with 200 while the store can be written, its log be appended to and its keys be used;
/// otherwise with 503.
async fn readyz(State(broker): State<Arc<Broker>>) -> Response {
    match broker.check_readiness().await {
        Ok(()) => answer(StatusCode::OK, Health { status: Status::Ready, why: None }),
        Err(error) => {
            let why = match broker.readiness.is_ending() {
                // Who ends it knows.
                true => "the broker is ending",
                false => {
                    tracing::error!(%error, "not ready");
                    "the store, its log or the keys in it cannot be used, or its clock and this machine's are more than a minute apart"
                }
            };
            let health = Health { status: Status::NotReady, why: Some(why) };
            answer(StatusCode::SERVICE_UNAVAILABLE, health)
        }
    }
}

fn answer(status: StatusCode, health: Health) -> Response {
    (status, [(CACHE_CONTROL, "no-store")], Json(health)).into_response()
}
