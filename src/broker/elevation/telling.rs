//! Whom what happens to an elevation is told, and what.
//!
//! It is on record in the commit of what it tells of: an emergency is told of before anything
//! is issued under it.

use time::OffsetDateTime;
use uuid::Uuid;

use super::crowd::Lane;
use super::desk::rules_of;
use super::drill;
use super::eligible::Eligible;
use super::life::{Access, Review};
use super::verdict::Busy;
use super::{Elevation, Party};
use crate::broker::Broker;
use crate::broker::config::{EMERGENCY, Elevation as Rules, MESSAGES};
use crate::broker::notify::{Message, Urgency};
use crate::broker::rulebook::Rulebook;
use crate::broker::store::Effect;
use crate::broker::web::Pages;
use crate::wire::elevation::machine;

impl Broker {
    /// What is told of this event, after it.
    ///
    /// # Errors
    /// Where too many wait already to find out whom to tell.
    pub(super) async fn telling(
        &self,
        book: &Rulebook,
        (elevation, event): (&Elevation, &str),
        lane: Lane,
        at: OffsetDateTime,
    ) -> Result<Vec<Effect>, Busy> {
        // What is over may have ended while the directory is out of date: it is to be reviewed all
        // the same.
        let eligible = Eligible::last_known(rules_of(book), &elevation.asked, at);
        let others = match concerns_others(elevation, event) {
            true => self.crowds.people(&eligible, lane).await?,
            false => Vec::new(),
        };
        Ok(of(elevation, event, (&eligible, &others), (book.pages(), at)))
    }
}

/// Whether those are told of this event who could approve what it is about.
fn concerns_others(elevation: &Elevation, event: &str) -> bool {
    ["request", "emergency", "withdraw", "review-overdue"].contains(&event)
        || is_to_be_reviewed(elevation, event)
}

/// Whether it is over by this event, and to be reviewed.
fn is_to_be_reviewed(elevation: &Elevation, event: &str) -> bool {
    ["expire", "relinquish", "revoke"].contains(&event) && elevation.review == Review::Due
}

/// The messages about this event, by those who could approve at its moment, where it concerns
/// them.
fn of(
    elevation: &Elevation,
    event: &str,
    (eligible, others): (&Eligible<'_>, &[&str]),
    (pages, at): (Option<&Pages>, OffsetDateTime),
) -> Vec<Effect> {
    let page = pages.map(|pages| pages.page_of(elevation.id));
    let asked = &elevation.asked;
    let (role, who) = (&asked.role, short(&asked.by));
    let approved = elevation.access == Access::Approved && event == "approve";
    let (kind, urgency, title) = match event {
        "request" => {
            ("elevation-requested", Urgency::ActionWanted, format!("{who} asks for {role}"))
        }
        "emergency" => {
            (EMERGENCY, Urgency::Alarm, format!("{who} has taken {role} without approval"))
        }
        "approve" if approved => {
            ("elevation-approved", Urgency::Info, format!("{role} is approved for {who}"))
        }
        "activate" => ("grant-active", Urgency::Info, format!("{who} has {role} now")),
        "deny" => ("elevation-denied", Urgency::Info, format!("{role} is denied to {who}")),
        "withdraw" => {
            ("elevation-withdrawn", Urgency::Info, format!("{who} asks for {role} no more"))
        }
        "lapse" => ("elevation-lapsed", Urgency::Info, format!("{role} for {who} has lapsed")),
        "revoke" if elevation.grant.is_none() => (
            "grant-ended",
            Urgency::Info,
            format!("what was approved for {who} as {role} is ended, and had not begun"),
        ),
        "expire" | "relinquish" | "revoke" => (
            "grant-ended",
            Urgency::Info,
            format!("{who} has {role} no more: {}", elevation.access.as_str()),
        ),
        "review" if elevation.review == Review::Disputed => {
            ("review-disputed", Urgency::Alarm, format!("what {who} did as {role} is disputed"))
        }
        "review" => ("reviewed", Urgency::Info, format!("what {who} did as {role} is reviewed")),
        "review-overdue" => (
            "review-overdue",
            Urgency::Alarm,
            format!("nobody has reviewed what {who} did as {role}"),
        ),
        _ => return Vec::new(),
    };
    // By what they are called now: nobody is told instead who has their name since.
    let requester = eligible.called(&asked.by);
    let approvers = elevation.approvals.iter().filter_map(|one| eligible.called(&one.by));
    let others = || others.iter().copied().map(String::from);
    let told: Vec<String> = match event {
        // All who could say yes are told, and all who need not any more.
        "request" | "withdraw" => others().collect(),
        // All who were skipped; and those by whose accounts it was taken, who know at once where
        // it was somebody else.
        "emergency" => {
            let actors = asked.actors.iter().filter_map(|actor| eligible.called(actor));
            others().chain(requester).chain(actors).collect()
        }
        "review-overdue" => others().collect(),
        "approve" | "deny" | "lapse" => requester.into_iter().collect(),
        _ => requester.into_iter().chain(approvers.clone()).collect(),
    };
    let message = |kind: (&str, Urgency, &str)| message(elevation, eligible.rules(), kind, at);
    let mut messages = vec![message((kind, urgency, &title)).people(told)];
    if is_to_be_reviewed(elevation, event) {
        let title = format!("what {who} did as {role} is to be reviewed");
        // Who has an approver's name since could not review it either.
        let then = elevation.approvals.iter().filter_map(|one| one.by.person.clone());
        let approvers: Vec<_> = approvers.chain(then).collect();
        let reviewers = others().filter(|name| !approvers.contains(name));
        let due = ("review-due", Urgency::ActionWanted, title.as_str());
        messages.push(message(due).people(reviewers));
    }
    let linked = |message: Message| match &page {
        Some(page) => message.link(page),
        None => message,
    };
    messages.into_iter().map(linked).map(Effect::Tell).collect()
}

impl Elevation {
    /// The keys of all messages by which people may have been told of it until now.
    pub(in crate::broker) fn message_keys(&self) -> Vec<String> {
        let of = |version| MESSAGES.map(|kind| key(self.id, version, kind));
        (1..=self.version).flat_map(of).collect()
    }
}

/// By which a message is one. Each version is told of once, whoever commits it.
fn key(id: Uuid, version: u64, kind: &str) -> String {
    format!("elevation {id} {version} {kind}")
}

fn message(
    elevation: &Elevation,
    rules: Option<&Rules>,
    (kind, urgency, title): (&str, Urgency, &str),
    at: OffsetDateTime,
) -> Message {
    debug_assert!(MESSAGES.contains(&kind), "a channel has to be able to leave {kind} out");
    let (asked, id) = (&elevation.asked, elevation.id.to_string());
    let key = key(elevation.id, elevation.version, kind);
    let title = &drill::titled(elevation, title);
    let lasting = humantime::format_duration(std::time::Duration::from_secs(asked.ttl));
    let message = Message::new(&key, kind, urgency, title, at)
        .about(&id)
        .role(&asked.role)
        .ends(over(kind))
        .channels()
        .fact("Drill", if asked.drill { drill::MEANS } else { "" })
        .fact("Role", &asked.role)
        .fact("For", &asked.audience)
        .fact("Who", &asked.by.id())
        .fact("Reason", &asked.reason)
        .fact("Ticket", &asked.ticket_said().unwrap_or_default())
        .fact("Lasting", &lasting.to_string());
    let ended = elevation.ended.as_ref();
    let ended_by = ended.and_then(|ended| ended.by.as_ref()).map(short).unwrap_or_default();
    let ended_why = ended.and_then(|ended| ended.reason.as_deref()).unwrap_or_default();
    let note = elevation.reviewed.as_ref().map_or("", |reviewed| &reviewed.note);
    let is_review = ["review-due", "review-overdue"].contains(&kind);
    message
        .fact("By whom", if is_review && rules.is_none() { BY_WHOM } else { "" })
        .fact("Ended by", &ended_by)
        .fact("Because", ended_why)
        .fact("Review", note)
        .fact("To do", to_do(kind, &id).as_deref().unwrap_or_default())
}

/// Who reviews what is left of a role that is had by elevation no more.
const BY_WHOM: &str =
    "the role is had by elevation no more: whoever may revoke its tokens may review this";

/// The kinds of messages of which nothing more comes after one of this kind.
fn over(kind: &str) -> &'static [&'static str] {
    match kind {
        "elevation-approved" | "elevation-denied" | "elevation-withdrawn" | "elevation-lapsed" => {
            &["elevation-requested"]
        }
        "grant-ended" => &["grant-active"],
        // Whoever had a role in an emergency ends it, and no alarm with it.
        "reviewed" | "review-disputed" => &[EMERGENCY, "review-due", "review-overdue"],
        _ => &[],
    }
}

/// What whoever reads it would type.
fn to_do(kind: &str, id: &str) -> Option<String> {
    Some(match kind {
        "elevation-requested" => format!("tmpcred elevate approve {id}"),
        EMERGENCY => format!("tmpcred elevate status {id}"),
        "elevation-approved" => format!("tmpcred elevate status {id} --wait"),
        "review-due" | "review-overdue" => format!("tmpcred elevate review {id} --note …"),
        _ => return None,
    })
}

fn short(party: &Party) -> String {
    let machine = || machine(&party.issuer, &party.subject);
    party.person.clone().unwrap_or_else(machine)
}
