//! One elevation: all that is asked for, what it would permit, and what to do about it.

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use maud::{Markup, html};
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::elevations::{unserved, view};
use super::super::operate::Shown;
use super::done::Done;
use super::frame::{self, Frame, left, moment, quoted};
use super::uses;
use super::visit::{Visit, is_place};
use crate::broker::Broker;
use crate::broker::config::{Binding, Login, Role, TokenFormat};
use crate::broker::elevation::{Elevation, Path as Way, Refusal, Review, Seen};
use crate::error::printable;
use crate::wire::{RevocationReach, elevation as wire};

/// How many others of the same requester are shown.
const RECENT: usize = 5;

/// Shows it.
pub(super) async fn show(
    State(broker): State<Arc<Broker>>,
    shown: Shown,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<Done>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let request_id = shown.2;
    let Path(id) = path.unwrap_or_else(|_| Path(String::new()));
    let to = if is_place(&id) { id.as_str() } else { "" };
    let visit = match Visit::open(&broker, shown, &headers, to).await {
        Ok(visit) => visit,
        Err(page) => return page,
    };
    let Visit { request, who, frame, .. } = visit;
    let found = async {
        let id = Uuid::try_parse(&id).map_err(|_| Refusal::Unknown)?;
        let seen = broker.elevation_for(&request.book, &who, id).await?;
        let recent = broker.recent_of(&request.book, &who, &seen.elevation, RECENT).await?;
        Ok((seen, recent))
    };
    let (seen, recent) = match found.await {
        Ok(found) => found,
        Err(refusal) => {
            let unserved = unserved(refusal);
            broker.metrics.elevated("show", unserved.outcome.as_str());
            return frame::unserved(Some(&frame), &unserved, request_id);
        }
    };
    let elevation = &seen.elevation;
    if !elevation.asked.drill {
        broker.metrics.elevated("show", "done");
    }
    // Only what was had was of use.
    let uses = match elevation.grant {
        Some(_) => Some(broker.uses_for(&request.book, &who, elevation.id).await.ok()),
        None => None,
    };
    let role = request.book.roles().get(&elevation.asked.role);
    let whole = Whole {
        frame: &frame,
        seen: &seen,
        shown: view::elevation(&request.book, &seen),
        role,
        login: broker.login_for(&request.book, &who, elevation),
        now: broker.clock.now(),
    };
    let done = query
        .ok()
        .and_then(|Query(query)| query.said((&broker, &request.book, &who), &seen, &whole.shown));
    let requester = &whole.shown.requester;
    let title = format!("{} for {}", elevation.asked.role, frame::called(requester));
    let body = html! {
        h1 { bdi { (elevation.asked.role) } " for " (frame::party(requester)) }
        p.states { (state(elevation)) }
        @if let Some(said) = done {
            p.notice.good role="status" { (said) }
        }
        @if elevation.is_active(whole.now) { (grant_bar(elevation, whole.now)) }
        (whole.asked())
        (whole.permits())
        (whole.approvals())
        (whole.outcome())
        @if let Some(known) = &uses { (uses::section(known.as_ref())) }
        (whole.recent(&recent))
        (whole.decide())
    };
    frame::page(Some(&frame), StatusCode::OK, &title, body)
}

/// All that a page tells of one.
struct Whole<'a> {
    frame: &'a Frame,
    seen: &'a Seen,
    shown: wire::Elevation,
    role: Option<&'a Role>,
    /// How whoever looks has to sign in to decide, where they have not.
    login: Option<Login>,
    now: OffsetDateTime,
}

/// A name and what it has.
fn fact(name: &str, value: impl maud::Render) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

impl Whole<'_> {
    fn asked(&self) -> Markup {
        let (shown, asked) = (&self.shown, &self.seen.elevation.asked);
        let emergency = asked.path == Way::Emergency;
        html! {
            section aria-labelledby="asked" {
                h2 id="asked" { "What is asked for" }
                dl.facts.wide {
                    (fact("Reason", html! { strong { (quoted(&shown.reason)) } }))
                    @if let Some(ticket) = &asked.ticket_said() { (fact("Ticket", quoted(ticket))) }
                    (fact("Who", frame::whole_party(&shown.requester)))
                    @if let Some(signed) = &asked.signed {
                        (fact("Asked by", html! { "a signature of the key " code { (signed.key) } }))
                    }
                    @for actor in &shown.actors {
                        (fact("Through", frame::whole_party(actor)))
                    }
                    (fact("Path", match asked.path {
                        Way::Ordinary => "ordinary: by approvals",
                        Way::Emergency => "emergency: without anybody's approval",
                        Way::ProviderDown => "provider down: by signatures",
                    }))
                    (fact("Role", html! { code { (shown.role) } }))
                    (fact("Audience", quoted(&shown.audience)))
                    (fact("Scope", match &shown.scope {
                        Some(scope) => html! { (scopes(scope.split(' '))) },
                        None => html! { "all that policy gives" },
                    }))
                    (fact("For how long", html! { (frame::lasting(shown.ttl)) @if emergency { ", without anybody's approval" } }))
                    (fact("Start", match asked.start {
                        Some(start) => moment(start),
                        None if emergency => html! { "at once" },
                        None => html! { "once it is approved" },
                    }))
                    (fact("Asked", html! { (moment(asked.at)) ", from " code { (shown.source) } }))
                    @if shown.access == "pending" {
                        (fact("Waits until", html! { (moment(asked.lapses_at)) " (" (left(asked.lapses_at, self.now)) ")" }))
                    }
                    @if let Some(key) = &shown.key { (fact("Bound to the key", html! { code { (key) } })) }
                    (fact("Id", html! { code { (shown.id) } }))
                    (fact("Hash", html! { code { (shown.hash) } }))
                }
            }
        }
    }

    fn permits(&self) -> Markup {
        let Some(role) = self.role else {
            return html! {
                section aria-labelledby="permits" {
                    h2 id="permits" { "What it would permit" }
                    p { "There is no such role any more: nothing can be had by it." }
                }
            };
        };
        let all = role.scopes.iter().map(String::as_str);
        html! {
            section aria-labelledby="permits" {
                h2 id="permits" { "What it would permit" }
                @if self.shown.drill {
                    p.notice { strong { "It is a drill: " } "no token is issued under it. This is what it would be if it was not." }
                }
                dl.facts.wide {
                    (fact("Tokens for", quoted(&self.shown.audience)))
                    (fact("That cover at most", match &self.shown.scope {
                        Some(scope) => scopes(scope.split(' ')),
                        None if role.scopes.is_empty() => html! { "what has no scopes" },
                        None => scopes(all),
                    }))
                    (fact("Each lives at most", html! {
                        (humantime::format_duration(role.max_ttl)) ", and never beyond the grant"
                    }))
                    (fact("They are", match role.token_format {
                        TokenFormat::Opaque => "random texts, which end everywhere once the grant does",
                        TokenFormat::Jwt => "signed; whoever does not ask the broker learns of an end when they expire",
                    }))
                    (fact("Stolen, they are", match (role.dpop, &self.shown.key) {
                        (Binding::Required, _) | (_, Some(_)) => "of no use without the key that they are bound to",
                        _ => "of use to whoever has them",
                    }))
                    @if let Some(aws) = &role.aws {
                        (fact("AWS is told", html! {
                            @for (key, value) in &aws.tags { "tag " code { (key) "=" (value) } br; }
                            @if let Some(source) = aws.source_identity_of(role.elevation.is_some()) {
                                "source identity " code { (source) }
                            }
                        }))
                    }
                    @if !role.claims.is_empty() {
                        (fact("They say besides", html! {
                            @for (name, text) in role.claims.texts() { code { (name) "=" (text) } br; }
                        }))
                    }
                }
            }
        }
    }

    fn approvals(&self) -> Markup {
        let shown = &self.shown;
        // It is not looked at who could where nothing more is to be approved.
        let waits = ["pending", "approved"].contains(&shown.access.as_str());
        html! {
            section aria-labelledby="approvals" {
                h2 id="approvals" { "Approvals" }
                @if shown.path == "emergency" {
                    p { "None were needed: it was taken in an emergency." }
                }
                @if !shown.needs.is_empty() {
                    table.stack role="table" {
                        caption.hidden { "Who has to approve" }
                        thead role="rowgroup" { tr role="row" {
                            th scope="col" role="columnheader" { "Of" }
                            th scope="col" role="columnheader" { "Have approved" }
                            @if waits { th scope="col" role="columnheader" { "Could approve" } }
                        } }
                        tbody role="rowgroup" {
                            @for need in &shown.needs {
                                tr role="row" {
                                    th scope="row" role="rowheader" {
                                        @if need.groups.is_empty() { "anybody whom policy lets" }
                                        @else { (need.groups.join(" or ")) }
                                    }
                                    td role="cell" data-label="Have approved" { div {
                                        (need.have.len()) " of " (need.count)
                                        @if !need.have.is_empty() { ": " (need.have.join(", ")) }
                                    } }
                                    @if waits { td role="cell" data-label="Could approve" { div {
                                        @if need.could.is_empty() { "nobody else" } @else { (need.could.join(", ")) }
                                    } } }
                                }
                            }
                        }
                    }
                }
                @if !shown.approvals.is_empty() {
                    ul.plain {
                        @for (approval, at) in shown.approvals.iter().zip(&self.seen.elevation.approvals) {
                            li {
                                (frame::party(&approval.by)) ", " (moment(at.at))
                                @if let Some(key) = &approval.key { ", by a signature of the key " code { (key) } }
                                @if !approval.counts { " " span.state.old { "does not count any more" } }
                                @if let Some(reason) = &approval.reason { ": " q { (quoted(reason)) } }
                            }
                        }
                    }
                }
            }
        }
    }

    /// What became of it.
    fn outcome(&self) -> Markup {
        let elevation = &self.seen.elevation;
        let by = |party: &Option<wire::Party>| match party {
            Some(party) => html! { " by " (frame::party(party)) },
            None => html! {},
        };
        if elevation.grant.is_none() && elevation.ended.is_none() {
            return html! {};
        }
        html! {
            section aria-labelledby="outcome" {
                h2 id="outcome" { "What became of it" }
                dl.facts.wide {
                    @if let Some(grant) = elevation.grant {
                        (fact("Had from", moment(grant.from)))
                        (fact("Until", html! { (moment(grant.until)) " at the latest" }))
                    }
                    @if let (Some(ended), Some(shown)) = (&elevation.ended, &self.shown.ended) {
                        (fact("Ended", html! {
                            (moment(ended.at)) ", " (said_of(&self.shown.access)) (by(&shown.by))
                            @if let Some(reason) = &shown.reason { ": " q { (quoted(reason)) } }
                        }))
                    }
                    @if let Some(tried) = &self.shown.tried {
                        (fact("A token", html! {
                            @if tried.issued { "would have been issued: " } @else { strong { "would not have been issued: " } }
                            (quoted(&tried.said))
                        }))
                    }
                    @if let Some(reach) = self.shown.revocation_reach {
                        (fact("Reach", match reach {
                            RevocationReach::Everywhere => "everybody refuses what was issued under it",
                            RevocationReach::Introspection => "those who ask the broker refuse what was issued under it; who checks signatures alone, when it expires",
                        }))
                    }
                    @if let Some(sessions) = &self.shown.aws_sessions {
                        (fact("Sessions of AWS", html! {
                            "last until they expire, unless their role has this policy, which denies all that began before "
                            (sessions.begun_before) ": " code { (sessions.deny.to_string()) }
                        }))
                    }
                    @if let (Some(reviewed), Some(shown)) = (&elevation.reviewed, &self.shown.reviewed) {
                        (fact("Review", html! {
                            (said_of(&self.shown.review)) " by " (frame::party(&shown.by)) ", " (moment(reviewed.at))
                            ": " q { (quoted(&shown.note)) }
                        }))
                    }
                }
            }
        }
    }

    fn recent(&self, recent: &[Elevation]) -> Markup {
        html! {
            section aria-labelledby="recent" {
                h2 id="recent" { "Lately asked for by the same person" }
                @if recent.is_empty() { p.soft { "Nothing else that you may see." } }
                @else {
                    ul.plain {
                        @for other in recent {
                            li {
                                a href=(self.frame.at(&other.id.to_string())) { (other.asked.role) }
                                " " (state(other)) " " span.soft { (moment(other.asked.at)) }
                                br; (quoted(&other.asked.reason))
                            }
                        }
                    }
                }
            }
        }
    }

    /// What whoever looks may do about it.
    fn decide(&self) -> Markup {
        let may = |what: &str| self.seen.may.contains(&what);
        let deciding = may("approve") || may("deny") || may("review");
        let id = &self.shown.id;
        html! {
            section.decide id="decide" aria-labelledby="decide-title" {
                h2 id="decide-title" { "What you can do" }
                @if self.seen.may.is_empty() { p.soft { "Nothing: it is not, or no more, for you to decide." } }
                @if deciding && let Some(login) = &self.login { (frame::again(self.frame, id, login)) }
                @else {
                    @if may("approve") {
                        (self.form("approve", "Approve", "main", html! {
                            input type="hidden" name="hash" value=(self.shown.hash);
                            (line("approve-reason", "reason", "Why (may be left out)", false))
                        }))
                    }
                    @if may("deny") {
                        (self.form("deny", "Deny", "bad", line("deny-reason", "reason", "Why not", true)))
                    }
                    @if may("review") {
                        (self.form("review", "Record the review", "main", html! {
                            fieldset {
                                legend { "What was done under it" }
                                label.choice { input type="radio" name="outcome" value="reviewed" required; " is in order" }
                                label.choice { input type="radio" name="outcome" value="disputed" required; " is disputed" }
                            }
                            (line("note", "note", "What you found", true))
                        }))
                    }
                }
                @if may("revoke") {
                    (self.form("revoke", "Revoke", "bad", line("revoke-reason", "reason", "Why it has to end", true)))
                }
                @if may("activate") { (self.form("activate", "Begin it now", "main", html! {})) }
                @if may("withdraw") { (self.form("withdraw", "Take it back", "", html! {})) }
                @if may("relinquish") { (self.form("relinquish", "Give it back", "", html! {})) }
            }
        }
    }

    fn form(&self, event: &str, button: &str, kind: &str, fields: Markup) -> Markup {
        html! {
            form.card method="post" action={ (self.frame.at(&self.shown.id)) "/" (event) } autocomplete="off" {
                (self.frame.token())
                (fields)
                button class=(kind) { (button) }
            }
        }
    }
}

/// A line that people write.
fn line(id: &str, name: &str, label: &str, required: bool) -> Markup {
    html! {
        label for=(id) { (label) }
        input id=(id) name=(name) type="text" maxlength="500" required[required];
    }
}

fn scopes<'s>(all: impl Iterator<Item = &'s str>) -> Markup {
    html! { @for scope in all { code { (scope) } " " } }
}

/// How things stand, in words.
pub(super) fn state(elevation: &Elevation) -> Markup {
    let access = elevation.access.as_str();
    let kind = match access {
        "pending" | "approved" => "waits",
        "active" => "had",
        "emergency-active" => "alarm",
        _ => "old",
    };
    let emergency = elevation.asked.path == Way::Emergency && access != "emergency-active";
    let signed = elevation.asked.path == Way::ProviderDown;
    html! {
        @if elevation.asked.drill { span.state.drill { "drill" } " " }
        span class={ "state " (kind) } { (said_of(access)) }
        @if emergency { " " span.state.alarm { "emergency" } }
        @if signed { " " span.state.waits { "by signatures" } }
        @match elevation.review {
            Review::None => {},
            Review::Due => { " " span.state.waits { "review due" } },
            Review::Reviewed => { " " span.state.old { "reviewed" } },
            Review::Disputed => { " " span.state.alarm { "disputed" } },
        }
    }
}

fn said_of(name: &str) -> &str {
    match name {
        "pending" => "waits for approval",
        "approved" => "approved, not begun",
        "emergency-active" => "emergency, active",
        "reviewed" => "found in order",
        other => other,
    }
}

/// How much of a grant is left, as a bar.
pub(super) fn grant_bar(elevation: &Elevation, now: OffsetDateTime) -> Markup {
    let Some(grant) = elevation.grant else { return html! {} };
    let whole = (grant.until - grant.from).whole_seconds().max(1);
    let rest = (grant.until - now).whole_seconds().clamp(0, whole);
    let left = left(grant.until, now);
    let label = format!("{left} left of {}", frame::lasting(whole.unsigned_abs()));
    html! {
        div.bar {
            progress max=(whole) value=(rest) aria-label={ "Time left of " (printable(&elevation.asked.role)) } { (label) }
            span { (label) ", until " (moment(grant.until)) }
        }
    }
}
