//! Lists of elevations: what waits, what is had, what is to be reviewed, what is one's own.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::super::elevations::{unserved, view};
use super::super::operate::Shown;
use super::super::query::misread;
use super::frame::{self, Frame, Here, left, moment, quoted};
use super::one::{grant_bar, state};
use super::visit::Visit;
use crate::broker::Broker;
use crate::broker::elevation::{Review, Seen, Which};
use crate::broker::rulebook::Rulebook;
use crate::error::printable;

/// How many a page has.
const PAGE: usize = 25;

/// What of a list is shown.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct From {
    below: Option<Uuid>,
}

type Asked = Result<Query<From>, QueryRejection>;

/// What waits for whoever looks.
pub(super) async fn waiting(
    State(broker): State<Arc<Broker>>,
    shown: Shown,
    headers: HeaderMap,
    query: Asked,
) -> Response {
    list(&broker, shown, &headers, query, (Here::Waiting, Which::ToApprove)).await
}

/// What is had.
pub(super) async fn active(
    State(broker): State<Arc<Broker>>,
    shown: Shown,
    headers: HeaderMap,
    query: Asked,
) -> Response {
    list(&broker, shown, &headers, query, (Here::Active, Which::Active)).await
}

/// What is to be reviewed.
pub(super) async fn reviews(
    State(broker): State<Arc<Broker>>,
    shown: Shown,
    headers: HeaderMap,
    query: Asked,
) -> Response {
    list(&broker, shown, &headers, query, (Here::Reviews, Which::ToReview)).await
}

/// What whoever looks has asked for.
pub(super) async fn mine(
    State(broker): State<Arc<Broker>>,
    shown: Shown,
    headers: HeaderMap,
    query: Asked,
) -> Response {
    list(&broker, shown, &headers, query, (Here::Mine, Which::Mine)).await
}

async fn list(
    broker: &Arc<Broker>,
    shown: Shown,
    headers: &HeaderMap,
    query: Asked,
    (here, which): (Here, Which),
) -> Response {
    let id = shown.2;
    let visit = match Visit::open(broker, shown, headers, here.path()).await {
        Ok(visit) => visit.at(here),
        Err(page) => return page,
    };
    let Visit { request, who, frame, .. } = visit;
    let found = async {
        let Query(From { below }) = query.map_err(|rejected| misread(&rejected, &["below"]))?;
        let found = broker.elevations_for(&request.book, &who, which, below, PAGE).await;
        found.map_err(unserved)
    };
    let found = match found.await {
        Ok(found) => found,
        Err(unserved) => {
            broker.metrics.elevated("list", unserved.outcome.as_str());
            return frame::unserved(Some(&frame), &unserved, id);
        }
    };
    broker.metrics.elevated("list", "done");
    let now = broker.clock.now();
    let (title, about, nothing) = here.said();
    let body = html! {
        h1 { (title) }
        p.lead { (about) }
        @if found.elevations.is_empty() {
            p.empty { (nothing) }
        } @else {
            ul.cards {
                @for seen in &found.elevations { li { (card(&frame, &request.book, seen, now)) } }
            }
        }
        @if let Some(below) = found.below {
            p { a.button href={ (frame.at(here.path())) "?below=" (below) } { "Older ones" } }
        }
    };
    frame::page(Some(&frame), StatusCode::OK, title, body)
}

/// One of a list.
fn card(frame: &Frame, book: &Rulebook, seen: &Seen, now: OffsetDateTime) -> Markup {
    let elevation = &seen.elevation;
    let asked = &elevation.asked;
    let shown = view::elevation(book, seen);
    let may = |what: &str| seen.may.contains(&what);
    let name = format!("{} for {}", printable(&asked.role), frame::called(&shown.requester));
    let review_by = shown.review_by.as_deref();
    let review_by = review_by.and_then(|by| OffsetDateTime::parse(by, &Rfc3339).ok());
    let until = shown.begin_by.as_deref();
    let until = until.and_then(|until| OffsetDateTime::parse(until, &Rfc3339).ok());
    let todo = match () {
        () if may("approve") || may("deny") => Some(("Look and decide", "")),
        () if may("review") => Some(("Review", "")),
        () if may("revoke") => Some(("Revoke…", "#decide")),
        () => None,
    };
    html! {
        article.card {
            h2 {
                a href=(frame.at(&elevation.id.to_string())) {
                    bdi { (asked.role) } " for " (frame::party(&shown.requester))
                }
            }
            p.states { (state(elevation)) }
            p.quote { (quoted(&asked.reason)) }
            dl.facts {
                @if let Some(ticket) = &asked.ticket_said() { div { dt { "Ticket" } dd { (quoted(ticket)) } } }
                div { dt { "For how long" } dd { (frame::lasting(asked.ttl)) } }
                div { dt { "Asked" } dd { (moment(asked.at)) } }
                @if !elevation.access.is_had() && !elevation.access.is_over() {
                    div { dt { "Approvals" } dd { (progress(&shown)) } }
                    div { dt { "Waits" } dd { (left(until.unwrap_or(asked.lapses_at), now)) " more" } }
                }
                @if elevation.review == Review::Due && let Some(by) = review_by {
                    div { dt { "Review by" } dd { (moment(by)) } }
                }
            }
            @if elevation.is_active(now) { (grant_bar(elevation, now)) }
            @if let Some((said, place)) = todo {
                p { a.button.main href={ (frame.at(&elevation.id.to_string())) (place) } aria-label={ (said) ": " (name) } {
                    (said)
                } }
            }
        }
    }
}

/// How many have approved.
fn progress(shown: &crate::wire::elevation::Elevation) -> String {
    let (have, want) = shown
        .needs
        .iter()
        .fold((0, 0), |(have, want), need| (have + need.count - need.missing(), want + need.count));
    format!("{have} of {want}")
}
