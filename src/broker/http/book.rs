//! The rulebook that a request goes by, from when it is looked whether it may be asked at all.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::broker::Broker;
use crate::broker::rulebook::Rulebook;

/// The rulebook of a request. Whoever takes it first takes it for all who come after.
#[derive(Clone)]
pub(super) struct Book(pub(super) Arc<Rulebook>);

impl FromRequestParts<Arc<Broker>> for Book {
    type Rejection = Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        broker: &Arc<Broker>,
    ) -> Result<Self, Infallible> {
        Ok(parts.extensions.get_or_insert_with(|| Self(broker.policies())).clone())
    }
}
