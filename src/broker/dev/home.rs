//! The first page: what this is, and how to use it.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use maud::html;

use super::provider::page;
use super::{AUDIENCE, GROUP, Place, READER, ROLE};

pub(super) fn routes(place: Place) -> Router {
    Router::new().route("/", get(home)).with_state(Arc::new(place))
}

async fn home(State(place): State<Arc<Place>>) -> Response {
    let body = html! {
        h1 { "A broker to try things with" }
        p { "It issues tokens for " code { (AUDIENCE) } " that mean nothing elsewhere, to whoever logs in at its provider." }
        h2 { "Roles" }
        dl {
            dt { (ROLE) } dd { "for the group " code { (GROUP) } ": dev:read dev:write, an hour" }
            dt { (READER) } dd { "for everybody: dev:read, a quarter of an hour" }
        }
        h2 { "Configuration" }
        p { "Save it as a file and name that file in TMPCRED_CONFIG." }
        pre { (place.configuration(false)) }
        h2 { "Pages" }
        p {
            a href=(place.provider.join("device")) { "Enter a device code" } " · "
            a href=(place.issuer.join(".well-known/openid-configuration")) { "broker" } " · "
            a href=(place.provider.join(".well-known/openid-configuration")) { "provider" }
        }
    };
    page::page(StatusCode::OK, "Development broker", body, None)
}
