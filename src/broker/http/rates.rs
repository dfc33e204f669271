//! How often somebody may ask: requests beyond that are told when to come again.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::book::Book;
use super::connections::network_of;
use super::guard::{RequestId, peer_of};
use super::refusal::Refusal;
use super::source::Source;
use crate::broker::Broker;
use crate::broker::config::Endpoint;
use crate::broker::rate::{Limited, TooOften};

/// What requests of one kind are held against.
#[derive(Clone)]
pub(super) struct Limit {
    pub(super) broker: Arc<Broker>,
    pub(super) endpoint: Endpoint,
}

/// Turns requests away of which there are too many, before their bodies are taken in.
pub(super) async fn limit(
    State(limit): State<Limit>,
    source: Source,
    id: RequestId,
    mut request: Request,
    next: Next,
) -> Response {
    let Limit { broker, endpoint } = limit;
    let book = broker.policies();
    request.extensions_mut().insert(Book(book.clone()));
    // Who is no proxy is turned away for that, and uses up nothing of what proxies may ask.
    if endpoint == Endpoint::Authz
        && let (Some(config), Some(peer)) = (book.authz(), peer_of(&request))
        && !config.is_for(peer.ip(), &broker.trusted_proxies)
    {
        return next.run(request).await;
    }
    match book.rates().request(network_of(source.0), endpoint, broker.clock.uptime()) {
        Ok(()) => next.run(request).await,
        Err(too_often) => refusal(&broker, too_often).at(id),
    }
}

/// The answer to somebody who asks too often.
pub(super) fn refusal(broker: &Broker, too_often: TooOften) -> Refusal {
    broker.metrics.limited(too_often);
    told(too_often)
}

/// The same, where it has been counted.
pub(super) fn told(too_often: TooOften) -> Refusal {
    let why = match too_often.whose {
        Limited::Principal => "this caller asks too often",
        Limited::Address => "too many requests come from this address",
        Limited::Route => "there are too many requests of this kind",
        Limited::Elevation => {
            "roles were asked for too often in your name of late, and others are told each time"
        }
        Limited::Machines => {
            "machines of this issuer asked for the role too often of late, and others are told each time"
        }
    };
    tracing::info!(why, retry_after = too_often.retry_after.as_secs(), "limited");
    Refusal::too_many(why, too_often.retry_after)
}
