//! What the broker says of itself (RFC 8414, OpenID Connect Discovery 1.0).

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use schemars::JsonSchema;
use serde::Serialize;
use url::Url;

use super::AUTHORIZATION_SERVER;
use super::api::{Answer, Endpoint, Operation, Verb};
use crate::broker::Broker;
use crate::broker::config::Clients;
use crate::broker::keys::{Algorithms, JWKS_MAX_AGE, SigningAlgorithm};
use crate::dpop;
use crate::error::{Error, ErrorKind, Result};
use crate::oidc::Issuer;
use crate::oidc::discovery::WELL_KNOWN;
use crate::oidc::jwt::ALGORITHMS;
use crate::wire;

/// How clients authenticate (OpenID Connect Core section 9).
const PRIVATE_KEY_JWT: &str = "private_key_jwt";

/// The metadata of an authorization server.
#[derive(Serialize, JsonSchema)]
struct Metadata {
    issuer: String,
    token_endpoint: Url,
    jwks_uri: Url,
    grant_types_supported: [&'static str; 1],
    token_endpoint_auth_methods_supported: Vec<&'static str>,
    /// RFC 8414 section 2: required where clients sign what they authenticate by.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    token_endpoint_auth_signing_alg_values_supported: BTreeSet<String>,
    revocation_endpoint: Url,
    revocation_endpoint_auth_methods_supported: Vec<&'static str>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    revocation_endpoint_auth_signing_alg_values_supported: BTreeSet<String>,
    introspection_endpoint: Url,
    /// RFC 8414 section 2: a type of access token where that is what it takes.
    introspection_endpoint_auth_methods_supported: Vec<&'static str>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    introspection_endpoint_auth_signing_alg_values_supported: BTreeSet<String>,
    /// Required by both documents. There is no authorization endpoint to use it at.
    response_types_supported: [&'static str; 1],
    /// RFC 9449 section 5.1.
    dpop_signing_alg_values_supported: [&'static str; 4],
    #[serde(flatten)]
    openid: Option<OpenId>,
}

/// What resource owners that federate by OpenID Connect look for besides.
#[derive(Serialize, JsonSchema)]
struct OpenId {
    subject_types_supported: [&'static str; 1],
    id_token_signing_alg_values_supported: Vec<&'static str>,
    claims_supported: [&'static str; 12],
}

/// The endpoint with the metadata of RFC 8414.
pub(super) fn endpoint(base: &str) -> Endpoint<Arc<Broker>> {
    let operation = Operation::new("authorization_server", "The broker's metadata (RFC 8414)")
        .answers(Answer::json::<Metadata>(200, "The metadata"));
    let path = format!("{AUTHORIZATION_SERVER}{base}");
    Endpoint::new(path, Verb::Get, get(authorization_server), operation)
}

/// The endpoint with that of OpenID Connect.
pub(super) fn openid_endpoint(base: &str) -> Endpoint<Arc<Broker>> {
    let summary = "The broker's metadata (OpenID Connect Discovery 1.0)";
    let operation = Operation::new("openid_configuration", summary)
        .answers(Answer::json::<Metadata>(200, "The metadata"));
    let path = format!("{base}/{WELL_KNOWN}");
    Endpoint::new(path, Verb::Get, get(openid_configuration), operation)
}

async fn authorization_server(State(broker): State<Arc<Broker>>) -> Response {
    answer(Metadata::new(&broker.issuer, broker.policies().clients(), None))
}

async fn openid_configuration(State(broker): State<Arc<Broker>>) -> Response {
    let openid = OpenId::new(broker.algorithms);
    answer(Metadata::new(&broker.issuer, broker.policies().clients(), Some(openid)))
}

/// The discovery document of a broker with this issuer, these clients and these algorithms,
/// to be served in its place.
pub fn static_document(
    issuer: &Issuer,
    clients: &Clients,
    algorithms: Algorithms,
) -> Result<Vec<u8>> {
    let metadata = Metadata::new(issuer, clients, Some(OpenId::new(algorithms)));
    serde_json::to_vec_pretty(&metadata).map_err(|cause| {
        Error::new(ErrorKind::Other, "the discovery document cannot be written").because(cause)
    })
}

fn answer(metadata: Metadata) -> Response {
    let age = format!("public, max-age={}", JWKS_MAX_AGE.whole_seconds());
    ([(CACHE_CONTROL, age)], Json(metadata)).into_response()
}

impl OpenId {
    fn new(algorithms: Algorithms) -> Self {
        Self {
            subject_types_supported: ["public"],
            id_token_signing_alg_values_supported: algorithms
                .iter()
                .map(SigningAlgorithm::name)
                .collect(),
            claims_supported: [
                "iss",
                "sub",
                "sub_id",
                "aud",
                "iat",
                "exp",
                "jti",
                "client_id",
                "role",
                "scope",
                "act",
                "may_act",
            ],
        }
    }
}

impl Metadata {
    fn new(issuer: &Issuer, clients: &Clients, openid: Option<OpenId>) -> Self {
        let algorithms = algorithms(clients);
        let methods = |unsigned: &[&'static str]| {
            let signed = (!algorithms.is_empty()).then_some(PRIVATE_KEY_JWT);
            unsigned.iter().copied().chain(signed).collect()
        };
        Self {
            issuer: issuer.as_str().to_string(),
            token_endpoint: issuer.join(wire::TOKEN_PATH),
            jwks_uri: issuer.join(wire::JWKS_PATH),
            grant_types_supported: [wire::GRANT_TYPE],
            token_endpoint_auth_methods_supported: methods(&["none"]),
            token_endpoint_auth_signing_alg_values_supported: algorithms.clone(),
            revocation_endpoint: issuer.join(wire::REVOCATION_PATH),
            revocation_endpoint_auth_methods_supported: methods(&["none"]),
            revocation_endpoint_auth_signing_alg_values_supported: algorithms.clone(),
            introspection_endpoint: issuer.join(wire::INTROSPECTION_PATH),
            introspection_endpoint_auth_methods_supported: methods(&["Bearer", dpop::SCHEME]),
            introspection_endpoint_auth_signing_alg_values_supported: algorithms,
            response_types_supported: ["id_token"],
            dpop_signing_alg_values_supported: dpop::ALGORITHMS.map(|(name, _)| name),
            openid,
        }
    }
}

/// The algorithms by which clients may sign what they authenticate by.
fn algorithms(clients: &Clients) -> BTreeSet<String> {
    let clients = clients.values().filter(|client| client.authenticates());
    let accepted = clients.flat_map(|client| client.algorithms.as_deref().unwrap_or(ALGORITHMS));
    accepted.map(|algorithm| format!("{algorithm:?}")).collect()
}
