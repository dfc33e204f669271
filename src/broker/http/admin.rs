//! What is for those who run the broker, on a listener of its own: it answers also
//! while the public one turns requests away.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::connections::Connections;
use super::{health, log};
use crate::broker::Broker;
use crate::broker::metrics;

/// The endpoints; `connections` are those of the public listener.
pub fn routes(broker: Arc<Broker>, connections: Connections) -> Router {
    let seen =
        Router::new().route("/metrics", get(scrape)).with_state((broker.clone(), connections));
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .merge(log::routes())
        .with_state(broker)
        .merge(seen)
}

async fn scrape(State((broker, connections)): State<(Arc<Broker>, Connections)>) -> Response {
    let headers = [(CONTENT_TYPE, metrics::CONTENT_TYPE), (CACHE_CONTROL, "no-store")];
    (headers, broker.scrape(&connections).await).into_response()
}
