//! What people signed, brought by anybody: to ask for a role, and about what was asked for.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use uuid::Uuid;

use super::{unserved, view};
use crate::broker::Broker;
use crate::broker::http::api::{Answer, Endpoint, Operation, Verb, unavailable};
use crate::broker::http::book::Book;
use crate::broker::http::form::Form;
use crate::broker::http::guard::RequestId;
use crate::broker::http::operate::{Request, Unserved, done, to_its_end};
use crate::broker::http::query;
use crate::broker::http::refusal::Refusal;
use crate::wire::elevation::{self as wire, RULES_PATH};

/// The endpoint that says by which rules something is asked for: whoever signs a request names
/// them.
pub(super) fn rules_endpoint(base: &str) -> Endpoint<Arc<Broker>> {
    let operation = Operation::new("elevation_rules", "Which rules are in force")
        .about("Signed requests name them. They are known by a hash, of which nothing else can be told.")
        .answers(Answer::json::<wire::Rules>(200, "The rules of this moment"))
        .answers(unavailable("There are too many requests at present"));
    Endpoint::new(format!("{base}/{RULES_PATH}"), Verb::Get, get(rules), operation)
}

async fn rules(
    State(broker): State<Arc<Broker>>,
    Book(book): Book,
    id: RequestId,
    query: RawQuery,
) -> Response {
    if let Err(refusal) = query::none(&query) {
        return refusal.at(id);
    }
    done(wire::Rules {
        broker: broker.issuer().as_str().to_string(),
        rules: book.rules_hash().to_string(),
    })
}

/// The statements in a form; whoever sends some shows nothing else.
pub(super) fn of<'a>(
    form: &'a Result<Form, Refusal>,
    headers: &HeaderMap,
) -> Result<Option<&'a str>, Unserved> {
    let Ok(form) = form else { return Ok(None) };
    let Some(text) = form.optional("statement") else { return Ok(None) };
    if headers.contains_key(AUTHORIZATION) || form.has_others("statement") {
        let why = "a statement stands for itself: nothing else goes with it, and no token";
        return Err(Unserved::malformed(why));
    }
    form.check_known()?;
    Ok(Some(text))
}

/// Does what they say, and tells whether it is about a drill.
pub(super) async fn bring(
    request: &Request<'_>,
    text: &str,
    event: Option<(Uuid, &str)>,
    is_drill: &mut bool,
) -> Result<Response, Unserved> {
    let (broker, book, text) = (request.broker.clone(), request.book.clone(), text.to_string());
    let event = event.map(|(id, event)| (id, event.to_string()));
    let (source, request_id) = (request.source(), request.id.0);
    let work = async move {
        let event = event.as_ref().map(|(id, event)| (*id, event.as_str()));
        let at = crate::broker::elevation::At { event, source, request_id };
        let brought = broker.bring(&book, &text, at).await;
        // What comes to nothing says so of itself, and nobody else does.
        let drill = brought.as_ref().is_ok_and(|brought| brought.elevation.asked.drill);
        let brought = match brought {
            Ok(brought) => {
                let seen = broker.seen_by_nobody(&book, brought.elevation).await;
                seen.map(|seen| (seen, brought.is_new, brought.not_taken))
            }
            Err(refusal) => Err(refusal),
        };
        Ok((brought, drill))
    };
    let (brought, drill) = to_its_end(work).await?;
    *is_drill = drill;
    let (seen, is_new, not_taken) = brought.map_err(unserved)?;
    let told = wire::Elevation {
        not_taken: not_taken
            .into_iter()
            .map(|one| wire::NotTaken { kind: one.kind.into(), person: one.person, why: one.why })
            .collect(),
        ..view::brought(&request.book, &seen)
    };
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, done(told)).into_response())
}
