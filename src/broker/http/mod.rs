//! The broker over HTTP: one file per endpoint, and the limits around them.

pub mod admin;
mod api;
pub mod authz;
mod book;
mod client;
pub mod connections;
mod elevations;
pub mod form;
#[cfg(test)]
mod fuzz;
pub mod guard;
mod health;
pub mod hosts;
mod introspect;
mod jwks;
mod log;
mod metadata;
mod operate;
mod query;
mod rates;
pub mod refusal;
mod rest;
mod revoke;
mod roles;
mod shown;
pub mod source;
mod token;
mod web;

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
#[cfg(test)]
use axum::middleware;
use serde_json::Value;

pub use api::Api;
pub use metadata::static_document as openid_configuration;

use super::Broker;
use crate::oidc::Issuer;
use crate::oidc::discovery::WELL_KNOWN;
use crate::wire::NO_SUCH_ADDRESS;
use api::{About, Endpoint};
use guard::{Guard, RequestId};
use refusal::Refusal;

/// Where a broker's metadata is (RFC 8414 section 3), before the path of its issuer.
const AUTHORIZATION_SERVER: &str = "/.well-known/oauth-authorization-server";

/// The endpoints of a broker, below the path of its issuer; health is at the root.
pub fn routes(broker: Arc<Broker>, guard: &Guard) -> Api {
    let base = base(&broker);
    let book = broker.policies();
    let decides = book.authz().is_some_and(|authz| authz.listen.is_none());
    let server = broker.issuer.url().origin().ascii_serialization();
    let about = about(server, &broker.issuer);
    let api = Api::mount(endpoints(&base, decides), &about, broker.clone(), &broker, guard);
    match book.pages() {
        Some(_) => api.merge(web::routes(&base, &broker, guard)),
        None => api,
    }
}

/// The description of the public listener of a broker at this issuer that also decides for
/// proxies.
pub fn description(issuer: &Issuer) -> Value {
    let server = issuer.url().origin().ascii_serialization();
    let endpoints = endpoints(issuer.url().path().trim_end_matches('/'), true);
    api::document(&about(server, issuer), &endpoints)
}

fn endpoints(base: &str, decides: bool) -> Vec<Endpoint<Arc<Broker>>> {
    let mut endpoints = vec![
        token::endpoint(base),
        revoke::endpoint(base),
        introspect::endpoint(base),
        metadata::openid_endpoint(base),
        metadata::endpoint(base),
        jwks::endpoint(base),
        api::description(base),
    ];
    endpoints.extend(operate::endpoints(base));
    endpoints.extend(elevations::endpoints(base));
    endpoints.push(roles::endpoint(base));
    endpoints.extend(health::endpoints());
    if decides {
        endpoints.extend(authz::endpoints(base));
    }
    endpoints
}

fn about(server: String, issuer: &Issuer) -> About {
    About {
        title: "tmpcred broker",
        about: "Decides who may have which role, for how long, and issues short-lived tokens \
                for it. Refusals are those of RFC 6749 section 5.2.",
        server,
        discovery: issuer.join(WELL_KNOWN).into(),
    }
}

/// The path of a broker's issuer, which its endpoints are below.
fn base(broker: &Broker) -> String {
    broker.issuer.url().path().trim_end_matches('/').to_string()
}

/// Puts the limits around endpoints, and an answer where there is none.
pub fn guarded(api: Api, guard: Guard) -> Router {
    let not_found = async |id: RequestId| {
        Refusal::new(StatusCode::NOT_FOUND, "not_found", NO_SUCH_ADDRESS).at(id)
    };
    let not_allowed = async |id: RequestId| {
        let why = "this address is for another method";
        Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", why).at(id)
    };
    let routes = api.routes.fallback(not_found).method_not_allowed_fallback(not_allowed);
    let routes = guard.around(routes);
    #[cfg(test)]
    let routes = routes.layer(middleware::from_fn_with_state(api.declared, api::check::hold));
    routes
}

#[cfg(test)]
pub(crate) mod tests;
