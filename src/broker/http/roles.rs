//! Which roles whoever asks may have: for somebody who has to know a role's name before they can
//! ask for it.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;

use super::api::{Answer, Endpoint, Operation, Verb};
use super::operate::{Request, Shown, Unserved, described, done};
use super::query;
use crate::broker::{Broker, config};
use crate::wire::roles::{ROLES_PATH, Roles};

/// The endpoint.
pub(super) fn endpoint(base: &str) -> Endpoint<Arc<Broker>> {
    let operation = Operation::new("roles", "List the roles that you may have")
        .about(
            "Those that whoever asks would be issued (`Action::\"issue\"`), and those that they may ask for (`Action::\"elevate\"`), as policy says at this moment. Nothing is said of others, and nothing is on record.",
        )
        .answers(Answer::json::<Roles>(200, "The roles"));
    let path = format!("{base}/{ROLES_PATH}");
    Endpoint::new(path, Verb::Get, get(list), described(operation, Verb::Get))
        .shedding()
        .limited(config::Endpoint::Roles)
}

async fn list(
    State(broker): State<Arc<Broker>>,
    shown: Shown,
    query: RawQuery,
    headers: HeaderMap,
) -> Response {
    let request =
        Request::new(&broker, shown, &headers, (config::Endpoint::Roles, "GET", ROLES_PATH));
    match listed(&request, &query).await {
        Ok(roles) => done(roles),
        Err(unserved) => unserved.at(request.id),
    }
}

async fn listed(request: &Request<'_>, query: &RawQuery) -> Result<Roles, Unserved> {
    let asked = request.identified(None).await?;
    request.require_clock().await?;
    query::none(query)?;
    Ok(Roles { roles: request.broker.roles_for(&request.book, &asked).await })
}
