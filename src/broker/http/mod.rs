//! The broker over HTTP: one file per endpoint, and the limits around them.

pub mod admin;
pub mod authz;
mod client;
pub mod connections;
pub mod form;
#[cfg(test)]
mod fuzz;
pub mod guard;
mod health;
mod introspect;
mod jwks;
mod log;
mod metadata;
mod rates;
pub mod refusal;
mod revoke;
pub mod source;
mod token;

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{MethodRouter, get, post};

pub use metadata::static_document as openid_configuration;

use super::Broker;
use super::config::Endpoint;
use crate::oidc::discovery::WELL_KNOWN;
use crate::wire;
use guard::{Guard, RequestId};
use rates::Limit;
use refusal::Refusal;

/// Where a broker's metadata is (RFC 8414 section 3), before the path of its issuer.
const AUTHORIZATION_SERVER: &str = "/.well-known/oauth-authorization-server";

/// Where its public keys are, below its issuer.
pub(super) const JWKS_PATH: &str = "jwks.json";

/// The endpoints of a broker, below the path of its issuer; health is at the root.
pub fn routes(broker: Arc<Broker>, guard: &Guard) -> Router {
    let base = broker.issuer.url().path().trim_end_matches('/').to_string();
    let limit = |endpoint| {
        let limit = Limit { broker: broker.clone(), endpoint };
        axum::middleware::from_fn_with_state(limit, rates::limit)
    };
    let shed = || axum::middleware::from_fn_with_state(guard.clone(), guard::shed_load);
    // Those who ask too often are told so before their bodies are taken in.
    let asked = |path: &str, endpoint, handler: MethodRouter<Arc<Broker>>| {
        let route = Router::new().route(&format!("{base}/{path}"), handler);
        route.layer(shed()).layer(limit(endpoint))
    };
    let issuing = asked(wire::TOKEN_PATH, Endpoint::Token, post(token::token))
        .merge(asked(wire::REVOCATION_PATH, Endpoint::Revoke, post(revoke::revoke)))
        .merge(asked(wire::INTROSPECTION_PATH, Endpoint::Introspect, post(introspect::introspect)));
    let documents = Router::new()
        .route(&format!("{base}/{WELL_KNOWN}"), get(metadata::openid_configuration))
        .route(&format!("{AUTHORIZATION_SERVER}{base}"), get(metadata::authorization_server))
        .route(&format!("{base}/{JWKS_PATH}"), get(jwks::jwks))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz));
    let routes = issuing.merge(documents).with_state(broker.clone());
    match &broker.authz {
        Some(authz) if authz.listen.is_none() => routes.merge(authz::routes(broker, guard)),
        _ => routes,
    }
}

/// Puts the limits around endpoints, and an answer where there is none.
pub fn guarded(routes: Router, guard: Guard) -> Router {
    let not_found = async |id: RequestId| {
        Refusal::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this address").at(id)
    };
    let not_allowed = async |id: RequestId| {
        let why = "this address is for another method";
        Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", why).at(id)
    };
    guard.around(routes.fallback(not_found).method_not_allowed_fallback(not_allowed))
}

#[cfg(test)]
pub(crate) mod tests;
