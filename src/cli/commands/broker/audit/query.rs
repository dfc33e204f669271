//! `tmpcred broker audit query`

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{all_of_them, known, open};
use crate::api::operate::{Query, Records};
use crate::broker::audit::export::{Format, exported};
use crate::broker::audit::{ACTIONS, Decision, principal};
use crate::broker::store::{Filter, LogStore as _};
use crate::cli::App;
use crate::cli::args::AuditQuery;
use crate::cli::elsewhere::Elsewhere;
use crate::cli::{misuse, show};
use crate::error::Result;
use crate::wire::AUDIT_PATH;

/// How many records a broker is asked for at once: its answer has a limit.
const PAGE: u32 = 200;

/// Looks into the database.
pub(super) async fn here(app: &App, args: &AuditQuery) -> Result<()> {
    let now = app.host.clock.now();
    let decision = |name: &String| {
        Decision::from_name(name).ok_or_else(|| misuse(format!("there is no decision '{name}'")))
    };
    let (issuer, subject) = match args.principal.as_deref().map(principal) {
        None => (None, None),
        Some((issuer, subject)) => (issuer, Some(subject)),
    };
    let (since, until) = range(args, now)?;
    let filter = Filter {
        below: None,
        since,
        until,
        issuer,
        subject,
        role: args.role.clone(),
        action: args.action.clone(),
        decision: args.decision.as_ref().map(decision).transpose()?,
        request_id: args.request,
        trace_id: args.trace,
        jti: args.token,
        elevation: args.elevation,
        drill: args.drill,
    };
    let (config, store) = open(app, args.at.file()?).await?;
    let found = store.find(&filter, args.limit).await?;
    let number = found.len();
    let mut unreadable = Vec::new();
    let found: Vec<_> = found.into_iter().filter_map(|row| known(row, &mut unreadable)).collect();
    let lines: Vec<_> =
        found.iter().map(|(n, record)| exported(Format::Jsonl, *n, record)).collect();
    tell(app, args, &lines, number)?;
    // One that was taken out of the configuration has records.
    if let Some(role) = args.role.as_ref().filter(|_| number == 0)
        && !config.role.contains_key(role)
    {
        app.host.interact.note(&format!("The configuration has no role {role:?}."));
    }
    all_of_them(&unreadable)
}

/// Asks a broker that runs, page by page.
pub(super) fn elsewhere(app: &App, profile: &str, args: &AuditQuery) -> Result<()> {
    let (broker, now) = (Elsewhere::open(app, Some(profile))?, app.host.clock.now());
    let (since, until) = range(args, now)?;
    let mut query = Query {
        since: since.map(rfc3339),
        until: until.map(rfc3339),
        principal: args.principal.as_deref(),
        role: args.role.as_deref(),
        action: args.action.as_deref(),
        decision: args.decision.as_deref(),
        request: args.request,
        trace: args.trace.map(|trace| trace.to_string()),
        token: args.token,
        elevation: args.elevation,
        drill: args.drill.then_some(true),
        limit: 0,
        below: None,
    };
    let mut pages = Vec::new();
    let mut left = args.limit;
    while left > 0 {
        query.limit = left.min(PAGE);
        let page = broker.ask(async |client| client.get::<Records>(AUDIT_PATH, &query).await)?;
        let number = u32::try_from(page.records.len()).unwrap_or(u32::MAX);
        left = left.saturating_sub(number);
        pages.push(page.records);
        // Each page is of older records than the one before.
        match page.next_below.filter(|below| query.below.is_none_or(|last| *below < last)) {
            Some(below) if number > 0 => query.below = Some(below),
            _ => break,
        }
    }
    let found: Vec<Value> = pages.into_iter().rev().flatten().collect();
    let number = found.len();
    let is_unreadable = |record: &Value| record.get("unreadable").is_some();
    let (unreadable, found): (Vec<_>, Vec<_>) = found.into_iter().partition(is_unreadable);
    tell(app, args, &found, number)?;
    let unreadable = unreadable.iter().map(|record| record["sequence"].as_u64());
    all_of_them(&unreadable.map(Option::unwrap_or_default).collect::<Vec<_>>())
}

/// Shows records, of which `number` were found, with those that cannot be read.
fn tell(app: &App, args: &AuditQuery, found: &[Value], number: usize) -> Result<()> {
    if let Some(note) = args.action.as_deref().filter(|_| number == 0).and_then(unknown) {
        app.host.interact.note(&note);
    }
    if args.json {
        return app.ui.json(&found);
    }
    let rows = found.iter().map(|record| {
        let text = |name: &str| record[name].as_str().unwrap_or_default().to_string();
        let at = OffsetDateTime::parse(&text("at"), &Rfc3339);
        [
            record["sequence"].to_string(),
            at.map_or_else(|_| text("at"), show::moment),
            text("decision"),
            text("subject"),
            text("role"),
            text("source"),
            text("reason"),
        ]
    });
    app.ui.table(["RECORD", "AT", "DECISION", "SUBJECT", "ROLE", "FROM", "REASON"], rows)?;
    if number == usize::try_from(args.limit).unwrap_or(usize::MAX) {
        app.host.interact.note("There may be older ones: --limit shows more.");
    }
    Ok(())
}

/// What is to be said of an action that is on no record. A broker of another version may know it.
fn unknown(action: &str) -> Option<String> {
    let is_known = ACTIONS.contains(&action);
    (!is_known).then(|| {
        let known = ACTIONS.join(", ");
        format!("This version knows no action {action:?}. Those that it knows: {known}.")
    })
}

/// From when on, and until when.
fn range(
    args: &AuditQuery,
    now: OffsetDateTime,
) -> Result<(Option<OffsetDateTime>, Option<OffsetDateTime>)> {
    let (since, until) = (time(&args.since, now)?, time(&args.until, now)?);
    match since.zip(until) {
        Some((since, until)) if since >= until => Err(misuse("--since is not before --until")
            .because_of(format!("{} is not before {}", rfc3339(since), rfc3339(until)))
            .hint("where both say how long ago, --since says the longer time")),
        _ => Ok((since, until)),
    }
}

fn time(text: &Option<String>, now: OffsetDateTime) -> Result<Option<OffsetDateTime>> {
    text.as_deref().map(|text| moment(text, now)).transpose()
}

/// To its last digit: records are of moments that are no whole seconds.
fn rfc3339(moment: OffsetDateTime) -> String {
    // Years beyond 9999 have no such form, and no records.
    moment.format(&Rfc3339).unwrap_or_default()
}

/// A moment in RFC 3339, or how long ago it was.
fn moment(text: &str, now: OffsetDateTime) -> Result<OffsetDateTime> {
    if let Ok(moment) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(moment);
    }
    let ago = humantime::parse_duration(text).ok().and_then(|ago| ago.try_into().ok());
    ago.and_then(|ago: time::Duration| now.checked_sub(ago)).ok_or_else(|| {
        misuse(format!(
            "'{text}' is no time such as 2026-01-31T08:00:00Z, nor how long ago it was, such as 2h"
        ))
    })
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn an_action_that_there_is_not_is_told_from_one_of_which_nothing_is_on_record() {
        assert_eq!(unknown("elevation.approve"), None);
        for action in ["nope", "approve", "Issue", ""] {
            let note = unknown(action).unwrap();
            assert!(note.contains(&format!("knows no action {action:?}")), "{note}");
            assert!(note.contains("revoke, revoke-many, key"), "{note}");
        }
    }

    #[test]
    fn times_are_moments_or_so_long_ago() {
        let now = datetime!(2026-01-31 08:00 UTC);
        assert_eq!(moment("2h", now).unwrap(), datetime!(2026-01-31 06:00 UTC));
        assert_eq!(
            moment("2026-01-30T08:00:00+01:00", now).unwrap(),
            datetime!(2026-01-30 07:00 UTC)
        );
        for bad in ["", "yesterday", "2026-01-30", "-1h", "99999999999y"] {
            assert_eq!(moment(bad, now).unwrap_err().kind(), ErrorKind::Usage, "{bad}");
        }
    }
}
