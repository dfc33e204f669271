//! The public keys (RFC 7517).

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use schemars::JsonSchema;

use super::api::{Answer, Endpoint, Operation, Verb, unavailable};
use super::guard::RequestId;
use super::refusal::Refusal;
use super::token::RETRY_AFTER;
use crate::broker::Broker;
use crate::wire::JWKS_PATH;

/// The type of the document (section 8.5.2).
const TYPE: &str = "application/jwk-set+json";

/// What it is like; it is written by another library, in `keys`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, rename = "JwkSet")]
#[expect(dead_code, reason = "it describes")]
struct Described {
    keys: Vec<Jwk>,
}

/// A public key.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "it describes")]
struct Jwk {
    kty: String,
    kid: String,
    alg: String,
    #[schemars(rename = "use")]
    usage: String,
    #[schemars(skip_serializing_if = "Option::is_none")]
    crv: Option<String>,
    #[schemars(skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[schemars(skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    #[schemars(skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    #[schemars(skip_serializing_if = "Option::is_none")]
    e: Option<String>,
}

/// The endpoint.
pub(super) fn endpoint(base: &str) -> Endpoint<Arc<Broker>> {
    let operation = Operation::new("jwks", "The public keys that verify tokens (RFC 7517)")
        .answers(Answer::json::<Described>(200, "The keys").of_type(TYPE))
        .answers(unavailable("For more than an hour nobody could see which keys are good"));
    Endpoint::new(format!("{base}/{JWKS_PATH}"), Verb::Get, get(jwks), operation)
}

async fn jwks(State(broker): State<Arc<Broker>>, id: RequestId) -> Response {
    let (keys, max_age) = match broker.keys.shown() {
        Ok(shown) => shown,
        // That they cannot be looked at is in the log already.
        Err(error) => return Refusal::unavailable(error.message(), RETRY_AFTER).at(id),
    };
    let headers = [
        (CONTENT_TYPE, TYPE.to_string()),
        (CACHE_CONTROL, format!("public, max-age={}", max_age.as_secs())),
    ];
    (headers, keys.jwks().to_vec()).into_response()
}
