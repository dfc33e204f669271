//! What is for those who run the broker, on a listener of its own: it answers also
//! while the public one turns requests away.

use std::sync::Arc;

use axum::extract::{FromRef, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::Value;

use super::api::{self, About, Answer, Api, Endpoint, Operation, Verb};
use super::connections::Connections;
use super::guard::Guard;
use super::{health, log};
use crate::broker::Broker;
use crate::broker::metrics;
use crate::oidc::discovery::WELL_KNOWN;

/// What can be seen here: the broker, and the connections to its public listener.
#[derive(Clone)]
struct Seen {
    broker: Arc<Broker>,
    connections: Connections,
}

impl FromRef<Seen> for Arc<Broker> {
    fn from_ref(seen: &Seen) -> Self {
        seen.broker.clone()
    }
}

impl FromRef<Seen> for Connections {
    fn from_ref(seen: &Seen) -> Self {
        seen.connections.clone()
    }
}

/// The endpoints; `connections` are those of the public listener.
pub fn routes(broker: Arc<Broker>, connections: Connections, guard: &Guard) -> Api {
    let seen = Seen { broker: broker.clone(), connections };
    Api::mount(endpoints(), &about(), seen, &broker, guard)
}

/// The description of the endpoints.
pub fn description() -> Value {
    api::document(&about(), &endpoints())
}

fn endpoints() -> Vec<Endpoint<Seen>> {
    let metrics = Operation::new("metrics", "Counts and times").answers(Answer::text(
        200,
        metrics::CONTENT_TYPE,
        "In the Prometheus text format",
    ));
    let mut endpoints =
        vec![Endpoint::new("/metrics", Verb::Get, get(scrape), metrics), api::description("")];
    endpoints.extend(health::endpoints());
    endpoints.extend(log::endpoints());
    endpoints
}

fn about() -> About {
    About {
        title: "tmpcred broker, for those who run it",
        about: "Metrics, health, and what can be proved of the audit log. It asks nobody who \
                they are, so it is for loopback or a network of its own.",
        server: "/".into(),
        discovery: format!("/{WELL_KNOWN}"),
    }
}

async fn scrape(
    State(broker): State<Arc<Broker>>,
    State(connections): State<Connections>,
) -> Response {
    let headers = [(CONTENT_TYPE, metrics::CONTENT_TYPE), (CACHE_CONTROL, "no-store")];
    (headers, broker.scrape(&connections).await).into_response()
}
