//! What was done under a grant: told to those who see it, and taken from outside logs.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path as InPath, RawQuery, State};
use axum::http::header::CONTENT_ENCODING;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use uuid::Uuid;

use super::view::moment;
use super::{answered, identified, known_id, refused, unserved};
use crate::broker::elevation::Refusal as Why;
use crate::broker::elevation::uses::{Event, Known, Row, Times, elevation_in, read};
use crate::broker::http::api::{Answer, Endpoint, Operation, Parameter, Verb};
use crate::broker::http::operate::{Request, Shown, Unserved, done, to_its_end};
use crate::broker::http::query;
use crate::broker::http::refusal::Refusal;
use crate::broker::policy::Administration;
use crate::broker::{Broker, config};
use crate::wire::elevation::ELEVATIONS_PATH;
use crate::wire::refusal::INVALID_REQUEST;
use crate::wire::uses as wire;

/// What events may be sent as: a list, or one in each line.
const AS_JSON: &[&str] = &["application/json", "application/jsonl", "application/x-ndjson"];

/// The endpoints.
pub(super) fn endpoints(base: &str) -> [Endpoint<Arc<Broker>>; 2] {
    let path = format!("{base}/{ELEVATIONS_PATH}/{{id}}/uses");
    let told = Operation::new("elevation_uses", "Look at what was done under a grant")
        .about("Decisions at `v1/authz`, introspections, tokens, and what outside logs tell of it, summed up. What was done in the last seconds may be missing where there are several brokers.")
        .takes(&[Parameter::path("id", "The id of the elevation")])
        .answers(Answer::json::<wire::Uses>(200, "What is known of it"));
    let taken = Operation::new("elevation_uses_tell", "Tell what was done under a grant")
        .about("For logs outside of the broker: events as a JSON list, or one in each line, 500 at most. Policy decides (`Action::\"administer\"`, `elevations.use`).")
        .takes(&[Parameter::path(
            "id",
            "The id of the elevation, or a name of a session or source identity that has it",
        )])
        .body::<Event>(AS_JSON)
        .answers(Answer::json::<wire::Taken>(200, "They are taken"))
        .answers(Answer::refusal(415, "The body is encoded", &[INVALID_REQUEST]));
    [
        Endpoint::new(path.clone(), Verb::Get, get(show), refused(told, Verb::Get)),
        // Whoever tells shows a token: there is no form in which a client could be named.
        Endpoint::new(path, Verb::Post, post(take), refused(taken, Verb::Get)),
    ]
}

async fn show(
    State(broker): State<Arc<Broker>>,
    shown: Shown,
    path: Result<InPath<String>, PathRejection>,
    query: RawQuery,
    headers: HeaderMap,
) -> Response {
    let InPath(id) = path.unwrap_or_else(|_| InPath(String::new()));
    let at = format!("{ELEVATIONS_PATH}/{id}/uses");
    let request =
        Request::new(&broker, shown, &headers, (config::Endpoint::Elevations, "GET", &at));
    let mut is_drill = false;
    let perform = async {
        let asked = identified(&request, None).await?;
        request.require_clock().await?;
        query::none(&query)?;
        let known = broker.uses_for(&request.book, &asked, known_id(&id)?).await;
        let known = known.map_err(unserved)?;
        is_drill = known.is_drill;
        Ok(done(told(known)))
    };
    let outcome = perform.await;
    answered(&request, ("uses", is_drill), outcome)
}

async fn take(
    State(broker): State<Arc<Broker>>,
    shown: Shown,
    path: Result<InPath<String>, PathRejection>,
    query: RawQuery,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let InPath(id) = path.unwrap_or_else(|_| InPath(String::new()));
    let at = format!("{ELEVATIONS_PATH}/{id}/uses");
    let request =
        Request::new(&broker, shown, &headers, (config::Endpoint::Elevations, "POST", &at));
    let perform = async {
        let asked = identified(&request, None).await?;
        query::none(&query)?;
        let by = request.administers(&asked, Administration::TellUses).await?;
        let (id, events) = (meant(&id)?, events(&headers, body)?);
        let broker = broker.clone();
        let taking = async move { Ok(broker.take_uses(&by, id, &events).await) };
        let taken = to_its_end(taking).await?.map_err(unserved)?;
        Ok(done(wire::Taken { taken: taken.taken, known: taken.known }))
    };
    let outcome = perform.await;
    answered(&request, ("tell-uses", false), outcome)
}

fn meant(text: &str) -> Result<Uuid, Unserved> {
    elevation_in(text).ok_or_else(|| unserved(Why::Unknown))
}

fn events(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Vec<Event>, Unserved> {
    if headers.contains_key(CONTENT_ENCODING) {
        let why = "the body must not be encoded";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID_REQUEST, why).into());
    }
    let body = body.map_err(|_| Unserved::malformed("the body cannot be read"))?;
    read(&body).map_err(Unserved::malformed)
}

fn told(known: Known) -> wire::Uses {
    let Known { elevation, sum, more_issued, .. } = known;
    let times = |times: &Times| wire::Times {
        count: times.count,
        first: moment(times.first),
        last: moment(times.last),
    };
    let row = |Row { what, times: so_often }: &Row| wire::Use {
        kind: what.kind.as_str().into(),
        source: what.source.clone(),
        action: what.action.clone(),
        resource: what.resource.clone(),
        outcome: what.outcome.clone(),
        from: what.from.clone(),
        times: times(so_often),
    };
    wire::Uses {
        elevation: elevation.to_string(),
        uses: sum.rows.iter().map(row).collect(),
        beyond: sum.beyond.as_ref().map(times),
        more_issued,
        lost: sum.lost,
    }
}
