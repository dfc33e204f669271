//! How elevations look.

use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::cli::App;
use crate::cli::show::{self, printable};
use crate::error::Result;
use crate::wire::RevocationReach;
use crate::wire::elevation::{Elevation, Need, Party, Tried, machine};

/// How many characters the time that a grant lasts takes.
const BAR: usize = 16;

/// What it means that something is a drill.
pub(super) const PRACTISED: &str = "this is practised; nothing is issued";

/// Shows all there is to know of one.
pub(super) fn one(app: &App, elevation: &Elevation, json: bool) -> Result<()> {
    if json {
        return app.ui.json(elevation);
    }
    let now = app.host.clock.now();
    for (label, value) in facts(elevation, now) {
        app.ui.line(format!("{label:>10}  {}", printable(&value)))?;
    }
    Ok(())
}

/// Shows the same to whoever is asked about it, beside what a machine reads.
pub(super) fn beside(app: &App, elevation: &Elevation) {
    for (label, value) in facts(elevation, app.host.clock.now()) {
        app.ui.aside(&format!("{label:>10}  {}", printable(&value)));
    }
}

/// What there is to know, line by line.
fn facts(elevation: &Elevation, now: OffsetDateTime) -> Vec<(&'static str, String)> {
    let Elevation { role, audience, scope, ttl, reason, .. } = elevation;
    let mut facts = vec![
        ("id", elevation.id.clone()),
        ("path", path(elevation)),
        ("state", state(elevation, now)),
        ("role", format!("{role}, for {audience}")),
        ("scope", scope.clone().unwrap_or_else(|| "all that policy gives".into())),
        ("for", lasting(*ttl)),
        ("who", who(&elevation.requester)),
    ];
    if elevation.drill {
        facts.insert(0, ("DRILL", PRACTISED.into()));
    }
    if !elevation.actors.is_empty() {
        let actors: Vec<_> = elevation.actors.iter().map(who).collect();
        facts.push(("acting", actors.join(", then ")));
    }
    // Whoever brings what people signed is told less.
    let told = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    facts.extend(told(reason).map(|reason| ("reason", reason)));
    let unchecked = if elevation.ticket_unchecked { " (not checked)" } else { "" };
    facts
        .extend(elevation.ticket.as_ref().map(|ticket| ("ticket", format!("{ticket}{unchecked}"))));
    let from = told(&elevation.source).map(|source| format!(" from {source}"));
    facts.push(("asked", local(&elevation.asked_at) + &from.unwrap_or_default()));
    facts.extend(elevation.start.as_ref().map(|start| ("starts", local(start))));
    facts.extend(elevation.key.clone().map(|key| ("key", format!("bound to {key}"))));
    for approval in &elevation.approvals {
        let void = if approval.counts { "" } else { " (does not count any more)" };
        let why = approval.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let key = approval.key.as_ref().map(|key| format!(", by the key {key}"));
        let key = key.unwrap_or_default();
        facts.push(("approved", format!("by {}{key}{void}{why}", who(&approval.by))));
    }
    if ["pending", "approved"].contains(&elevation.access.as_str()) {
        facts.extend(elevation.needs.iter().map(|need| ("needs", needed(need))));
    }
    if let Some(ended) = &elevation.ended {
        let by = ended.by.as_ref().map_or("by the clock".into(), |by| format!("by {}", who(by)));
        let why = ended.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        facts.push(("ended", format!("{} {by}{why}", local(&ended.at))));
    }
    if let Some(tried) = &elevation.tried {
        facts.push(("token", tried_said(tried)));
    }
    match elevation.revocation_reach {
        Some(RevocationReach::Introspection) => facts.push((
            "reach",
            "those who ask the broker refuse what was issued at once; who checks signatures alone, when it expires".into(),
        )),
        Some(RevocationReach::Everywhere) => {
            facts.push(("reach", "everybody refuses what was issued, at once".into()));
        }
        None => {}
    }
    if let Some(sessions) = &elevation.aws_sessions {
        facts.push((
            "AWS",
            format!(
                "sessions last until they expire, unless their role has this policy, which denies all that began before {}: {}",
                local(&sessions.begun_before),
                sessions.deny
            ),
        ));
    }
    if let Some(reviewed) = &elevation.reviewed {
        let what = format!("{} by {}: {}", elevation.review, who(&reviewed.by), reviewed.note);
        facts.push(("review", what));
    } else if let Some(by) = &elevation.review_by {
        facts.push(("review", format!("due until {}", local(by))));
    }
    facts.extend(told(&elevation.hash).map(|hash| ("hash", hash)));
    facts
}

/// How it comes about, for people.
fn path(elevation: &Elevation) -> String {
    let said = match elevation.path.as_str() {
        "ordinary" => "ordinary: by approvals",
        "emergency" => "emergency: without anybody's approval",
        "provider-down" => "provider-down: by signatures",
        other => other,
    };
    if elevation.drill { format!("{said}; a drill") } else { said.to_string() }
}

/// What in a list tells it from what is asked for in earnest and approved by people who logged
/// in.
pub(super) fn marked(elevation: &Elevation, state: &str) -> String {
    let path = match elevation.path.as_str() {
        "emergency" => Some("EMERGENCY"),
        "provider-down" => Some("BY SIGNATURES"),
        _ => None,
    };
    let drill = elevation.drill.then_some("DRILL");
    let marks = drill.into_iter().chain(path).chain([state]);
    marks.collect::<Vec<_>>().join(": ")
}

/// What policy said of a token under a drill.
pub(super) fn tried_said(tried: &Tried) -> String {
    let what = if tried.issued { "would have been issued" } else { "would not have been issued" };
    format!("{what}: {}", tried.said)
}

/// Its state, for people.
pub(super) fn state(elevation: &Elevation, now: OffsetDateTime) -> String {
    match elevation.access.as_str() {
        "pending" => format!("pending, until {}", local(&elevation.lapses_at)),
        "approved" => match &elevation.begin_by {
            Some(by) => format!("approved, to begin until {}", local(by)),
            None => "approved".into(),
        },
        "active" | "emergency-active" => {
            let left = left(elevation, now).unwrap_or_default();
            let how = if elevation.access == "active" { "active" } else { "active (emergency)" };
            format!("{how}, {} {} left", bar(elevation, left), show::duration(left))
        }
        other => other.to_string(),
    }
}

/// How long it still lasts; nothing where it does not.
pub(crate) fn left(elevation: &Elevation, now: OffsetDateTime) -> Option<Duration> {
    let until = moment(&elevation.grant.as_ref()?.until)?;
    Some((until - now).max(Duration::ZERO))
}

fn bar(elevation: &Elevation, left: Duration) -> String {
    let span = elevation
        .grant
        .as_ref()
        .and_then(|grant| Some(moment(&grant.until)? - moment(&grant.from)?));
    let whole = span.unwrap_or(left).whole_seconds().max(1);
    let full = (left.whole_seconds().saturating_mul(16) + whole - 1) / whole;
    let full = usize::try_from(full).unwrap_or_default().min(BAR);
    format!("{}{}", "█".repeat(full), "░".repeat(BAR - full))
}

/// What is needed, who has approved of those, and who could.
pub(super) fn needed(need: &Need) -> String {
    needs(need, "approvals")
}

/// The same of this kind.
pub(super) fn needs(need: &Need, what: &str) -> String {
    let groups = match need.groups.is_empty() {
        true => String::new(),
        false => format!(" of {}", need.groups.join(" or ")),
    };
    let could = match need.could.is_empty() {
        true => String::new(),
        false => format!("; could: {}", need.could.join(", ")),
    };
    let have = match need.have.is_empty() {
        true => String::new(),
        false => format!(" ({})", need.have.join(", ")),
    };
    format!("{} of {} {what}{groups}{have}{could}", need.have.len(), need.count)
}

/// Somebody, for people: who they are in the directory, and by which name they came.
pub(super) fn who(party: &Party) -> String {
    let id = format!("{} at {}", party.subject, party.issuer);
    match (&party.name, &party.person) {
        (None, Some(person)) if party.issuer.is_empty() => person.clone(),
        (None, None) if party.issuer.is_empty() => "a machine".into(),
        (Some(name), Some(person)) => format!("{name} ({person}, {id})"),
        (None, Some(person)) => format!("{person} ({id})"),
        _ => format!("a machine ({id})"),
    }
}

/// The same in short.
pub(super) fn short(party: &Party) -> String {
    party.person.clone().unwrap_or_else(|| machine(&party.issuer, &party.subject))
}

fn lasting(seconds: u64) -> String {
    show::duration(Duration::seconds(i64::try_from(seconds).unwrap_or(i64::MAX)))
}

pub(crate) fn moment(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

fn local(text: &str) -> String {
    moment(text).map_or_else(|| text.to_string(), show::moment)
}
