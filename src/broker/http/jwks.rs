//! The public keys (RFC 7517).

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use crate::broker::Broker;

pub(super) async fn jwks(State(broker): State<Arc<Broker>>) -> Response {
    let (keys, max_age) = broker.keys.shown();
    let headers = [
        (CONTENT_TYPE, "application/jwk-set+json".to_string()),
        (CACHE_CONTROL, format!("public, max-age={}", max_age.as_secs())),
    ];
    (headers, keys.jwks().to_vec()).into_response()
}
