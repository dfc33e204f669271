//! Searching the audit log, by the code that answers `GET /v1/audit/records`.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use url::form_urlencoded::Serializer;
use uuid::Uuid;

use super::super::operate::audit::{Asked, Found, searched};
use super::super::operate::{Shown, Unserved};
use super::super::query::misread;
use super::frame::{self, Frame, Here, moment, quoted};
use super::visit::Visit;
use crate::broker::Broker;

/// How many records a page has.
const PAGE: u32 = 50;

/// What is looked for, as a form has it: what is empty is not looked for.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Search {
    elevation: String,
    principal: String,
    role: String,
    action: String,
    since: String,
    until: String,
    below: String,
}

/// The names of all that.
const FIELDS: [&str; 7] = ["elevation", "principal", "role", "action", "since", "until", "below"];

/// Searches.
pub(super) async fn search(
    State(broker): State<Arc<Broker>>,
    shown: Shown,
    headers: HeaderMap,
    query: Result<Query<Search>, QueryRejection>,
) -> Response {
    let id = shown.2;
    let visit = match Visit::open(&broker, shown, &headers, Here::Audit.path()).await {
        Ok(visit) => visit.at(Here::Audit),
        Err(page) => return page,
    };
    let Visit { request, who, frame, .. } = visit;
    let search = query.map(|Query(search)| search);
    let found = async {
        let search = search.as_ref().map_err(|rejected| misread(rejected, &FIELDS))?;
        searched(&request, &who, &search.asked()?).await
    };
    let (found, wrong, status) = match found.await {
        Ok(found) => (Some(found), None, StatusCode::OK),
        // What somebody wrote can be mended where they wrote it.
        Err(unserved) if unserved.refusal.status() == StatusCode::BAD_REQUEST => {
            let why = unserved.refusal.description().to_string();
            (None, Some(why), StatusCode::BAD_REQUEST)
        }
        Err(unserved) => return frame::unserved(Some(&frame), &unserved, id),
    };
    let search = search.unwrap_or_default();
    let (title, about, nothing) = Here::Audit.said();
    let body = html! {
        h1 { (title) }
        p.lead { (about) }
        (search.form(&frame))
        @if let Some(wrong) = wrong { p.notice.wrong role="alert" { (frame::sentence(&wrong)) } }
        @if let Some(found) = found {
            @if found.records.is_empty() { p.empty role="status" { (nothing) } }
            @else { (records(&frame, &found)) }
            @if let Some(below) = found.next_below {
                p { a.button href={ (frame.at("audit")) "?" (search.older(below)) } { "Older ones" } }
            }
        }
    };
    frame::page(Some(&frame), status, title, body)
}

impl Search {
    fn asked(&self) -> Result<Asked, Unserved> {
        let text = |text: &String| Some(text.trim().to_string()).filter(|text| !text.is_empty());
        let elevation = text(&self.elevation).map(|id| {
            Uuid::try_parse(&id)
                .map_err(|_| Unserved::malformed("the elevation is none: its id is as on its page"))
        });
        let below = text(&self.below).map(|number| {
            number.parse().map_err(|_| Unserved::malformed("'below' is no number of a record"))
        });
        Ok(Asked {
            since: text(&self.since).map(|at| moment_of(&at)),
            until: text(&self.until).map(|at| moment_of(&at)),
            principal: text(&self.principal),
            role: text(&self.role),
            action: text(&self.action),
            elevation: elevation.transpose()?,
            limit: Some(PAGE),
            below: below.transpose()?,
            ..Asked::default()
        })
    }

    fn form(&self, frame: &Frame) -> Markup {
        let field = |name: &str, label: &str, value: &str, hint: &str| {
            html! {
                div {
                    label for=(name) { (label) }
                    input id=(name) name=(name) type="text" value=(value) placeholder=(hint) spellcheck="false" autocapitalize="none";
                }
            }
        };
        html! {
            form.search role="search" aria-label="Audit log" method="get" action=(frame.at("audit")) {
                div.fields {
                    (field("elevation", "Elevation", &self.elevation, "its id"))
                    (field("principal", "Subject", &self.principal, "alice"))
                    (field("role", "Role", &self.role, "prod-admin"))
                    (field("action", "Action", &self.action, "elevation.approve"))
                    (field("since", "Since (UTC)", &self.since, "2026-01-31 08:00"))
                    (field("until", "Until (UTC)", &self.until, "2026-01-31 18:00"))
                }
                button.main { "Search" }
            }
        }
    }

    /// The query for older ones.
    fn older(&self, below: u64) -> String {
        let below = below.to_string();
        let all = [
            ("elevation", &self.elevation),
            ("principal", &self.principal),
            ("role", &self.role),
            ("action", &self.action),
            ("since", &self.since),
            ("until", &self.until),
            ("below", &below),
        ];
        let given = all.into_iter().filter(|(_, value)| !value.is_empty());
        Serializer::new(String::new()).extend_pairs(given).finish()
    }
}

/// A moment as people write it: a day, or one with a time, of UTC; or as RFC 3339 has it.
fn moment_of(text: &str) -> String {
    let text = text.replacen(' ', "T", 1);
    let zoned = text.ends_with('Z') || text.get(10..).is_some_and(|rest| rest.contains(['+', '-']));
    match (text.len(), zoned) {
        (10, _) => format!("{text}T00:00:00Z"),
        (16, false) => format!("{text}:00Z"),
        (_, false) => format!("{text}Z"),
        (_, true) => text,
    }
}

fn records(frame: &Frame, found: &Found) -> Markup {
    let cell = |label: &str, value: Markup| {
        html! { td role="cell" data-label=(label) { div { (value) } } }
    };
    html! {
        table.stack.records role="table" {
            caption.hidden { "Records that match, the newest first" }
            thead role="rowgroup" { tr role="row" {
                @for name in ["When", "What", "Who", "Role", "Said"] {
                    th scope="col" role="columnheader" { (name) }
                }
            } }
            tbody role="rowgroup" {
                @for record in found.records.iter().rev() {
                    tr role="row" {
                        (cell("When", html! {
                            (at(record)) br; span.soft { "no. " (text(record, "sequence")) }
                        }))
                        (cell("What", html! {
                            (quoted(&text(record, "action"))) br;
                            span.soft { (quoted(&text(record, "decision"))) }
                        }))
                        (cell("Who", html! {
                            (quoted(&text(record, "subject"))) br;
                            span.soft { (quoted(&text(record, "source"))) }
                        }))
                        (cell("Role", html! { (quoted(&text(record, "role"))) }))
                        (cell("Said", html! {
                            (quoted(&text(record, if record.get("unreadable").is_some() { "unreadable" } else { "reason" })))
                            @if let Some(id) = record["elevation"].as_str() {
                                " " a href=(frame.at(id)) { "elevation" span.hidden { " of record " (text(record, "sequence")) } }
                            }
                        }))
                    }
                }
            }
        }
    }
}

fn at(record: &Value) -> Markup {
    let at = record["at"].as_str().and_then(|at| OffsetDateTime::parse(at, &Rfc3339).ok());
    at.map_or_else(|| html! {}, moment)
}

fn text(record: &Value, name: &str) -> String {
    match record.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}
