//! Reading the audit log, page by page.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::{Request, Shown, Unserved, described, done};
use crate::broker::audit::export::{Format, exported, unreadable};
use crate::broker::audit::{Decision, principal};
use crate::broker::http::api::{Answer, Endpoint, Operation, Parameter, Verb};
use crate::broker::http::query::misread;
use crate::broker::operate::Asked as Who;
use crate::broker::policy::Administration;
use crate::broker::store::Filter;
use crate::broker::{Broker, config};
use crate::trace::w3c;
use crate::wire::AUDIT_PATH;

/// How many records a page has where nobody says.
const PAGE: u32 = 100;

/// How many it has at most.
const MOST: u32 = 1000;

/// Which records are looked for.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::broker::http) struct Asked {
    pub(in crate::broker::http) since: Option<String>,
    pub(in crate::broker::http) until: Option<String>,
    pub(in crate::broker::http) principal: Option<String>,
    pub(in crate::broker::http) role: Option<String>,
    pub(in crate::broker::http) action: Option<String>,
    pub(in crate::broker::http) decision: Option<String>,
    pub(in crate::broker::http) request: Option<Uuid>,
    pub(in crate::broker::http) trace: Option<String>,
    pub(in crate::broker::http) token: Option<Uuid>,
    pub(in crate::broker::http) elevation: Option<Uuid>,
    pub(in crate::broker::http) drill: Option<bool>,
    pub(in crate::broker::http) limit: Option<u32>,
    pub(in crate::broker::http) below: Option<u64>,
}

/// The same, as it is described.
const PARAMETERS: [Parameter; 13] = [
    Parameter::text("since", "Not before this moment (RFC 3339)"),
    Parameter::text("until", "Before this moment (RFC 3339)"),
    Parameter::text("principal", "Of this caller: the subject, or issuer, `#` and subject"),
    Parameter::text("role", "About this role"),
    Parameter::text("action", "Of this action, such as `issue` or `elevation.approve`"),
    Parameter::text("decision", "`issued`, `denied`, `aborted`, `revoked` or `changed`"),
    Parameter::text("request", "Of this request (`x-request-id`)"),
    Parameter::text("trace", "Of this trace (the second part of `traceparent`)"),
    Parameter::text("token", "About this token (its `jti`)"),
    Parameter::text("elevation", "Of this elevation, and what was done under its grant"),
    Parameter::text("drill", "`true`: of drills alone"),
    Parameter::number("limit", "How many at most: 100 where left out, 1000 at most", false),
    Parameter::number("below", "With lower numbers than this", false),
];

/// Records, in order.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Records")]
pub(in crate::broker::http) struct Found {
    /// Each as `tmpcred broker audit export` has it; `unreadable` where somebody has changed it
    /// so that it cannot be read.
    pub(in crate::broker::http) records: Vec<Value>,
    /// Where there may be older ones: what `below` is of a request for those.
    pub(in crate::broker::http) next_below: Option<u64>,
}

/// The endpoint.
pub(super) fn endpoint(base: &str) -> Endpoint<Arc<Broker>> {
    let operation = Operation::new("audit_records", "Find records of the audit log")
        .about("The newest that match, in order. Policy decides (`Action::\"administer\"`).")
        .takes(&PARAMETERS)
        .answers(Answer::json::<Found>(200, "A page of them"));
    let operation = described(operation, Verb::Get);
    Endpoint::new(format!("{base}/{AUDIT_PATH}"), Verb::Get, get(read), operation)
        .shedding()
        .limited(config::Endpoint::Audit)
}

async fn read(
    State(broker): State<Arc<Broker>>,
    shown: Shown,
    headers: HeaderMap,
    query: Result<Query<Asked>, QueryRejection>,
) -> Response {
    let request =
        Request::new(&broker, shown, &headers, (config::Endpoint::Audit, "GET", AUDIT_PATH));
    request.counted(found(&request, query).await)
}

async fn found(
    request: &Request<'_>,
    query: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, Unserved> {
    let asked = request.identified(None).await?;
    let known = PARAMETERS.map(|parameter| parameter.name);
    let Query(query) = query.map_err(|rejected| misread(&rejected, &known))?;
    Ok(done(searched(request, &asked, &query).await?))
}

/// What is found, by whoever asks, where policy lets them.
pub(in crate::broker::http) async fn searched(
    request: &Request<'_>,
    asked: &Who,
    query: &Asked,
) -> Result<Found, Unserved> {
    let (filter, limit) = (query.filter()?, query.limit.unwrap_or(PAGE));
    if limit == 0 || limit > MOST {
        return Err(Unserved::malformed(format!("a page has from one to {MOST} records")));
    }
    if filter.below == Some(0) {
        return Err(Unserved::malformed("the numbers of records begin at one"));
    }
    let by = request.administers(asked, Administration::ReadAudit).await?;
    tracing::info!(by = by.said(), "the audit log is read");
    let rows = request.broker.store.find(&filter, limit).await;
    let rows = rows.map_err(|error| Unserved::of(&error))?;
    let is_full = usize::try_from(limit).is_ok_and(|limit| rows.len() >= limit);
    let next_below = rows.first().filter(|_| is_full).map(|(number, _)| *number);
    let now = request.broker.clock.now();
    let records = rows.iter().map(|(number, record)| match record {
        Some(record) => exported(Format::Jsonl, *number, record),
        None => unreadable(Format::Jsonl, *number, now),
    });
    Ok(Found { records: records.collect(), next_below })
}

impl Asked {
    fn filter(&self) -> Result<Filter, Unserved> {
        let texts = [&self.since, &self.until, &self.principal, &self.role, &self.trace]
            .into_iter()
            .chain([&self.action, &self.decision]);
        for text in texts.flatten() {
            if text.is_empty() {
                return Err(Unserved::malformed("the query has something without a value"));
            }
            // No record has them, and not every store takes all of them.
            if text.chars().any(char::is_control) {
                return Err(Unserved::malformed("the query has a control character"));
            }
        }
        let moment = |name: &str, text: &Option<String>| {
            let moment = text.as_deref().map(|text| OffsetDateTime::parse(text, &Rfc3339));
            moment.transpose().map_err(|_| {
                let what = format!("'{name}' is no moment such as 2026-01-01T12:00:00Z");
                Unserved::malformed(what)
            })
        };
        let decision = |name: &String| {
            Decision::from_name(name)
                .ok_or_else(|| Unserved::malformed("there is no such decision"))
        };
        let trace = |id: &String| {
            w3c::trace_id(id).ok_or_else(|| Unserved::malformed("'trace' is no id of a trace"))
        };
        let (issuer, subject) = self.principal.as_deref().map(principal).unzip();
        let (since, until) = (moment("since", &self.since)?, moment("until", &self.until)?);
        if since.zip(until).is_some_and(|(since, until)| since >= until) {
            return Err(Unserved::malformed("'since' is not before 'until': nothing is between"));
        }
        Ok(Filter {
            below: self.below,
            since,
            until,
            issuer: issuer.flatten(),
            subject,
            role: self.role.clone(),
            action: self.action.clone(),
            decision: self.decision.as_ref().map(decision).transpose()?,
            request_id: self.request,
            trace_id: self.trace.as_ref().map(trace).transpose()?,
            jti: self.token,
            elevation: self.elevation,
            drill: self.drill.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_described_is_what_may_be_asked() {
        let refused = serde_urlencoded::from_str::<Asked>("bogus=1").err().unwrap().to_string();
        let known: Vec<_> = refused.split('`').skip(3).step_by(2).collect();
        assert_eq!(known, PARAMETERS.map(|parameter| parameter.name), "{refused}");
    }
}
