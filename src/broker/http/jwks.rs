//! The public keys (RFC 7517).

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use crate::broker::Broker;
use crate::broker::keys::JWKS_MAX_AGE;

pub(super) async fn jwks(State(broker): State<Arc<Broker>>) -> Response {
    let headers = [
        (CONTENT_TYPE, "application/jwk-set+json".to_string()),
        (CACHE_CONTROL, format!("public, max-age={}", JWKS_MAX_AGE.as_secs())),
    ];
    (headers, broker.keys.jwks().to_vec()).into_response()
}
