//! What the endpoints are, said once: the routes are made from it, and so is the description
//! of them (OpenAPI 3.1). So nothing can be served that is not described, nor the other way
//! round; and in tests, nothing can be answered that is not (`check`).

#[cfg(test)]
pub(super) mod check;
mod document;
mod operation;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::body::Bytes;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Extension, Router, middleware};

pub(super) use document::{About, document};
pub(super) use operation::{
    Answer, CHALLENGE, DPOP_NONCE, Field, Header, Kind, Operation, Parameter, RETRY_AFTER, Scheme,
    TRIED, unavailable,
};

use super::guard::{self, Guard};
use super::rates::{self, Limit};
use crate::broker::{Broker, config};

/// Where the description is, below the path of the broker's issuer.
pub(super) const PATH: &str = "openapi.json";

/// By which method an endpoint is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    /// GET, and so HEAD.
    Get,
    /// POST.
    Post,
    /// Whatever there is.
    Any,
}

/// An endpoint, with what is said of it.
pub(super) struct Endpoint<S> {
    path: String,
    verb: Verb,
    handler: MethodRouter<S>,
    operation: Operation,
    /// Its bodies are taken in before it is asked, and it turns requests away where there
    /// are too many at once.
    sheds: bool,
    limited: Option<config::Endpoint>,
}

impl<S> Endpoint<S> {
    /// An endpoint at this path, in the manner of the router's.
    pub(super) fn new(
        path: impl Into<String>,
        verb: Verb,
        handler: MethodRouter<S>,
        operation: Operation,
    ) -> Self {
        let path = path.into();
        Self { path, verb, handler, operation: operation.guarded(), sheds: false, limited: None }
    }

    /// The same, turning requests away while too many are worked on.
    pub(super) fn shedding(self) -> Self {
        Self { sheds: true, operation: self.operation.shedding(), ..self }
    }

    /// The same, turning requests away of which there are too many of late.
    pub(super) fn limited(self, by: config::Endpoint) -> Self {
        Self { limited: Some(by), operation: self.operation.limited(), ..self }
    }
}

/// The endpoint where the description is, which is among what it describes.
pub(super) fn description<S: Clone + Send + Sync + 'static>(base: &str) -> Endpoint<S> {
    let operation = Operation::new("openapi", "This description").answers(Answer::json_of(
        200,
        "The description",
        document::any_object,
    ));
    Endpoint::new(format!("{base}/{PATH}"), Verb::Get, get(describe), operation)
}

/// The description of what is mounted, as it is sent.
#[derive(Clone)]
struct Described(Bytes);

async fn describe(Extension(described): Extension<Described>) -> Response {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "public, max-age=300")];
    (headers, described.0).into_response()
}

/// Endpoints that can be served.
pub struct Api {
    pub(super) routes: Router,
    #[cfg(test)]
    pub(super) declared: check::Declared,
}

impl Api {
    /// Makes routes from endpoints.
    pub(super) fn mount<S: Clone + Send + Sync + 'static>(
        endpoints: Vec<Endpoint<S>>,
        about: &About,
        state: S,
        broker: &Arc<Broker>,
        guard: &Guard,
    ) -> Self {
        let document = document(about, &endpoints);
        // It is made of texts, numbers and lists of them.
        let document = serde_json::to_vec(&document).unwrap_or_default();
        #[cfg(test)]
        let declared = check::Declared::of(&endpoints);
        let mut routes = Router::new();
        for endpoint in endpoints {
            let mut route = Router::new().route(&endpoint.path, endpoint.handler);
            if endpoint.sheds {
                guard.counts_shed_at(&endpoint.path);
                let guard = match endpoint.limited.is_some_and(config::Endpoint::is_for_people) {
                    true => guard.clone().with_room_kept(),
                    false => guard.clone(),
                };
                let shed = middleware::from_fn_with_state(guard, guard::shed_load);
                route = route.layer(shed);
            }
            // Those who ask too often are told so before their bodies are taken in.
            if let Some(endpoint) = endpoint.limited {
                let limit = Limit { broker: broker.clone(), endpoint };
                route = route.layer(middleware::from_fn_with_state(limit, rates::limit));
            }
            routes = routes.merge(route);
        }
        let routes = routes.layer(Extension(Described(document.into()))).with_state(state);
        Self {
            routes,
            #[cfg(test)]
            declared,
        }
    }

    /// The same, with routes that are not described: pages for people.
    #[must_use]
    pub fn merge(mut self, others: Router) -> Self {
        self.routes = self.routes.merge(others);
        self
    }
}

#[cfg(test)]
impl From<Router> for Api {
    fn from(routes: Router) -> Self {
        Self { routes, declared: check::Declared::default() }
    }
}
