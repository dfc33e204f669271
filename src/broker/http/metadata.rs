//! What the broker says of itself (RFC 8414, OpenID Connect Discovery 1.0).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use url::Url;

use super::JWKS_PATH;
use crate::broker::Broker;
use crate::broker::keys::{Algorithms, JWKS_MAX_AGE, SigningAlgorithm};
use crate::dpop;
use crate::error::{Error, ErrorKind, Result};
use crate::oidc::Issuer;
use crate::wire;

#[derive(Serialize)]
struct Metadata {
    issuer: String,
    token_endpoint: Url,
    jwks_uri: Url,
    grant_types_supported: [&'static str; 1],
    token_endpoint_auth_methods_supported: [&'static str; 1],
    revocation_endpoint: Url,
    revocation_endpoint_auth_methods_supported: [&'static str; 1],
    introspection_endpoint: Url,
    /// RFC 8414 section 2: a type of access token where that is what it takes.
    introspection_endpoint_auth_methods_supported: [&'static str; 1],
    /// Required by both documents. There is no authorization endpoint to use it at.
    response_types_supported: [&'static str; 1],
    /// RFC 9449 section 5.1.
    dpop_signing_alg_values_supported: [&'static str; 4],
    #[serde(flatten)]
    openid: Option<OpenId>,
}

/// What resource owners that federate by OpenID Connect look for besides.
#[derive(Serialize)]
struct OpenId {
    subject_types_supported: [&'static str; 1],
    id_token_signing_alg_values_supported: Vec<&'static str>,
    claims_supported: [&'static str; 12],
}

pub(super) async fn authorization_server(State(broker): State<Arc<Broker>>) -> Response {
    answer(Metadata::new(&broker.issuer, None))
}

pub(super) async fn openid_configuration(State(broker): State<Arc<Broker>>) -> Response {
    answer(Metadata::new(&broker.issuer, Some(OpenId::new(broker.algorithms))))
}

/// The discovery document of a broker with this issuer, to be served in its place.
pub fn static_document(issuer: &Issuer, algorithms: Algorithms) -> Result<Vec<u8>> {
    let metadata = Metadata::new(issuer, Some(OpenId::new(algorithms)));
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
    fn new(issuer: &Issuer, openid: Option<OpenId>) -> Self {
        Self {
            issuer: issuer.as_str().to_string(),
            token_endpoint: issuer.join(wire::TOKEN_PATH),
            jwks_uri: issuer.join(JWKS_PATH),
            grant_types_supported: [wire::GRANT_TYPE],
            token_endpoint_auth_methods_supported: ["none"],
            revocation_endpoint: issuer.join(wire::REVOCATION_PATH),
            revocation_endpoint_auth_methods_supported: ["none"],
            introspection_endpoint: issuer.join(wire::INTROSPECTION_PATH),
            introspection_endpoint_auth_methods_supported: ["Bearer"],
            response_types_supported: ["id_token"],
            dpop_signing_alg_values_supported: dpop::ALGORITHMS.map(|(name, _)| name),
            openid,
        }
    }
}
