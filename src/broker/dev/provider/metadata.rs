//! What the provider says of itself, and its keys.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::{Provider, SCOPES};
use crate::wire::JWKS_PATH;

const CACHE: [(axum::http::HeaderName, &str); 1] = [(CACHE_CONTROL, "public, max-age=300")];

pub(super) async fn discovery(State(provider): State<Arc<Provider>>) -> Response {
    let issuer = &provider.options.issuer;
    let document = json!({
        "issuer": issuer.as_str(),
        "authorization_endpoint": issuer.join("authorize"),
        "token_endpoint": issuer.join("token"),
        "device_authorization_endpoint": issuer.join("device_authorization"),
        "revocation_endpoint": issuer.join("revoke"),
        "jwks_uri": issuer.join(JWKS_PATH),
        "authorization_response_iss_parameter_supported": true,
        "claims_supported": [
            "iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "at_hash", "azp", "name",
            "preferred_username", "groups",
        ],
        "code_challenge_methods_supported": ["S256"],
        "grant_types_supported": [
            "authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code",
        ],
        "id_token_signing_alg_values_supported": ["ES256"],
        "request_parameter_supported": false,
        "request_uri_parameter_supported": false,
        "response_modes_supported": ["query"],
        "response_types_supported": ["code"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "scopes_supported": SCOPES,
        "subject_types_supported": ["public"],
        "token_endpoint_auth_methods_supported": ["none"],
    });
    (CACHE, Json(document)).into_response()
}

pub(super) async fn jwks(State(provider): State<Arc<Provider>>) -> Response {
    (CACHE, Json(json!({"keys": [provider.key.public()]}))).into_response()
}
