//! Pages for people: what waits for them, what is asked, approving, denying, ending,
//! reviewing, and what is on record.
//!
//! They are rendered here, without scripts and without anything from elsewhere. Whatever is
//! done goes the way that `/v1/elevations` goes: by policy, onto the record.

mod act;
mod audit;
mod cookies;
mod done;
mod frame;
mod lists;
mod one;
mod sign_in;
#[cfg(test)]
mod tests;
mod uses;
mod visit;

use std::sync::Arc;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};

use super::guard::{self, Guard, RequestId};
use super::rates::{self, Limit};
use crate::broker::web::PAGES_PATH;
use crate::broker::{Broker, config};
use crate::wire::TokenRefusal;

/// How much of a refusal is looked at, which is the broker's own.
const MAX_REFUSAL: usize = 64 * 1024;

/// What keeps a page to itself, besides what it may load.
const HEADERS: [(HeaderName, &str); 7] = [
    (CACHE_CONTROL, "no-store"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    // Without any, browsers would not say either that a form is our own.
    (REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("x-robots-tag"), "noindex"),
];

/// The pages, below the path of the broker's issuer.
pub(super) fn routes(base: &str, broker: &Arc<Broker>, guard: &Guard) -> Router {
    let at = format!("{base}/{PAGES_PATH}");
    let limit = Limit { broker: broker.clone(), endpoint: config::Endpoint::Elevations };
    Router::new()
        .route(&at, get(lists::waiting))
        .route(&format!("{at}/active"), get(lists::active))
        .route(&format!("{at}/reviews"), get(lists::reviews))
        .route(&format!("{at}/mine"), get(lists::mine))
        .route(&format!("{at}/audit"), get(audit::search))
        .route(&format!("{at}/sign-in"), get(sign_in::begin))
        .route(&format!("{at}/callback"), get(sign_in::callback))
        .route(&format!("{at}/sign-out"), post(sign_in::sign_out))
        .route(&format!("{at}/{{id}}"), get(one::show))
        .route(&format!("{at}/{{id}}/{{event}}"), post(act::settle))
        .route_layer(middleware::from_fn_with_state(
            guard.clone().with_room_kept(),
            guard::shed_load,
        ))
        .route_layer(middleware::from_fn_with_state(limit, rates::limit))
        .route_layer(middleware::from_fn(dress))
        .with_state(broker.clone())
}

/// Puts on each answer what keeps it to itself. What was refused on the way to a page becomes
/// one.
async fn dress(id: RequestId, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let is_json =
        response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    let mut response = if is_json { as_page(response, id).await } else { response };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(policy) = HeaderValue::from_str(&frame::content_security_policy()) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

async fn as_page(response: Response, id: RequestId) -> Response {
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, MAX_REFUSAL).await.unwrap_or_default();
    let refusal = serde_json::from_slice::<TokenRefusal>(&bytes).ok();
    let why = refusal.map(|refusal| refusal.error_description).unwrap_or_default();
    let mut page = frame::failure(None, parts.status, &why, id);
    if let Some(after) = parts.headers.get(RETRY_AFTER) {
        page.headers_mut().insert(RETRY_AFTER, after.clone());
    }
    page
}
