//! Revocation (RFC 7009).

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};

use super::Provider;
use crate::broker::http::form::Posted;
use crate::broker::http::guard::RequestId;

/// A refresh token, and all that came from the same login, ends. Access tokens
/// live on until they expire. An unknown token is none to worry about (section 2.2).
pub(super) async fn revoke(
    State(provider): State<Arc<Provider>>,
    id: RequestId,
    posted: Posted,
) -> Response {
    let (form, _) = posted.form();
    let outcome = form.and_then(|form| {
        provider.check_client(&form)?;
        let token = form.secret("token")?;
        let now = provider.now();
        provider.grants().revoke(token.expose(), now);
        Ok(())
    });
    match outcome {
        Ok(()) => (StatusCode::OK, [(CACHE_CONTROL, "no-store")]).into_response(),
        Err(refusal) => refusal.at(id),
    }
}
