//! What elevations mean to others: to whoever issues a token under one, and to the log.

use std::collections::BTreeSet;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::desk::{directory_of, rules_of};
use super::drill;
use super::eligible::Eligible;
use super::life::{Access, Review};
use super::names::theirs;
use super::{Elevation, Party, Path, signed};
use crate::broker::Broker;
use crate::broker::audit::Record;
use crate::broker::authenticate::Caller;
use crate::broker::decide::{Denied, Missing, Why};
use crate::broker::issue::{Ask, joined};
use crate::broker::rulebook::Rulebook;
use crate::broker::store::{Effect, ElevationFilter};
use crate::error::Result;

/// How many grants of somebody are looked through for one that serves.
const LOOKED_AT: u32 = 20;

/// A grant under which a token is issued, as it is at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Underway {
    pub(in crate::broker) id: Uuid,
    version: u64,
    pub(in crate::broker) path: Path,
    until: OffsetDateTime,
    reason_hash: String,
    scope: Option<BTreeSet<String>>,
}

/// What a token says of the grant under which it was issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ElevationClaim")]
pub struct ElevationClaim {
    /// The grant, by its id.
    #[schemars(with = "String")]
    pub id: Uuid,
    /// How it came about.
    pub path: Path,
    /// The SHA-256 of the reason that was given for it.
    pub reason_sha256: String,
}

impl Underway {
    /// That of this elevation.
    pub(super) fn of(elevation: &Elevation, now: OffsetDateTime) -> Self {
        Self {
            id: elevation.id,
            version: elevation.version,
            path: elevation.asked.path,
            until: elevation.grant.map_or(now, |grant| grant.until),
            reason_hash: elevation.reason_hash(),
            scope: elevation.asked.scope.clone(),
        }
    }

    /// A grant that there might be.
    pub(in crate::broker) fn supposed(path: Path, until: OffsetDateTime) -> Self {
        let reason_hash = String::new();
        Self { id: Uuid::nil(), version: 0, path, until, reason_hash, scope: None }
    }

    /// When it ends, in seconds since 1970.
    pub(in crate::broker) fn until(&self) -> i64 {
        self.until.unix_timestamp()
    }

    /// How long it goes on at most.
    pub(in crate::broker) fn left(&self, now: OffsetDateTime) -> Duration {
        // Whole seconds, as tokens have them: none outlives it.
        let left = (self.until.unix_timestamp() - now.unix_timestamp()).max(0);
        Duration::from_secs(left.unsigned_abs())
    }

    /// What tokens under it cover at most; `None`: whatever policy gives.
    pub(in crate::broker) fn scope(&self) -> Option<&BTreeSet<String>> {
        self.scope.as_ref()
    }

    /// What tokens say of it.
    pub(in crate::broker) fn claim(&self) -> ElevationClaim {
        let Self { id, path, reason_hash, .. } = self.clone();
        ElevationClaim { id, path, reason_sha256: reason_hash }
    }

    /// That it is still as it was looked at, as a condition of a commit.
    pub(in crate::broker) fn condition(&self) -> Effect {
        Effect::IfElevation { id: self.id, version: self.version }
    }
}

impl Broker {
    /// The grant under which somebody is issued what they ask for: the one that they name, or
    /// of their own that serve the one that lasts longest. `None` where the role is not had
    /// under a grant.
    ///
    /// # Errors
    /// Where it cannot be looked up; within, why there is none.
    pub(in crate::broker) async fn underway(
        &self,
        book: &Rulebook,
        caller: &Caller,
        ask: &Ask,
        now: OffsetDateTime,
    ) -> Result<Result<Option<Underway>, Denied>> {
        let denied = |why: String| Ok(Err(Denied::new(Why::Elevation, why)));
        let role = book.roles().get(&ask.role);
        if role.is_none_or(|role| role.elevation.is_none()) {
            return match ask.elevation {
                None => Ok(Ok(None)),
                Some(_) => denied(format!("the role '{}' is not had by elevation", ask.role)),
            };
        }
        let Ok(by) = self.known(book, caller, now) else {
            return denied("the directory of people does not know you, or is out of date".into());
        };
        let found = match ask.elevation {
            Some(id) => self.elevation_with(id).await?.into_iter().collect(),
            None => self.going_on(book, &by, ask, now).await?,
        };
        let mut why_not = None;
        let theirs =
            |found: &Elevation| Eligible::new(rules_of(book), &found.asked, now).is_who_asked(&by);
        for grant in found.into_iter().filter(&theirs) {
            match serves(book, caller, ask, now, &grant) {
                Ok(()) => return Ok(Ok(Some(Underway::of(&grant, now)))),
                Err(why) => why_not = why_not.or(Some(why)),
            }
        }
        Ok(Err(match why_not {
            Some(why_not) => why_not,
            None => self.grantless(book, caller, &by, ask, (now, theirs)).await?,
        }))
    }

    /// What is told to whoever has no grant: that they may ask for one, or which one it is that
    /// they have asked for.
    async fn grantless(
        &self,
        book: &Rulebook,
        caller: &Caller,
        by: &Party,
        ask: &Ask,
        (now, theirs): (OffsetDateTime, impl Fn(&Elevation) -> bool),
    ) -> Result<Denied> {
        let filter = ElevationFilter {
            access: vec![Access::Pending.as_str(), Access::Approved.as_str()],
            ..self.all_of(book, by, &ask.role)
        };
        let found = self.legible_of(filter, LOOKED_AT).await?;
        // Whoever only has the name of who asked is told nothing of it.
        let waits = found.into_iter().filter(theirs).find(|one| {
            let serves = one.asked.audience == ask.audience && one.asked.covers(caller.actors());
            let lapses = one.access == Access::Pending && now >= one.asked.lapses_at;
            serves && !lapses
        });
        let none = format!("the role '{}' is had under a grant only, and you have none", ask.role);
        let (said, missing) = match waits {
            None => (none, Missing::Unasked),
            Some(Elevation { id, access, .. }) => {
                let how = match access {
                    Access::Approved => "is approved and has not begun",
                    _ => "waits for approval",
                };
                (format!("{none}: what you asked for {how} ({id})"), Missing::Waits(id))
            }
        };
        Ok(Denied { missing: Some(missing), ..Denied::new(Why::Elevation, said) })
    }

    /// The record of something that happens to an elevation.
    pub(super) fn record_of(&self, elevation: &Elevation, record: Record) -> Record {
        self.record_with(elevation, record, &BTreeSet::new())
    }

    /// The same where it has been weighed whose approvals count.
    pub(super) fn record_with(
        &self,
        elevation: &Elevation,
        record: Record,
        counted: &BTreeSet<String>,
    ) -> Record {
        let asked = &elevation.asked;
        let actors: Vec<_> = asked.actors.iter().map(Party::id).collect();
        Record {
            action: format!("elevation.{}", record.action),
            reason: said(elevation, &record.action, counted),
            actor: (!actors.is_empty() && elevation.version == 1).then(|| actors.join(" ")),
            role: asked.role.clone(),
            audience: asked.audience.clone(),
            scope: asked.scope.as_ref().map(joined).unwrap_or_default(),
            ttl: asked.ttl,
            elevation: Some(elevation.id),
            ..record
        }
    }

    /// Whether nothing has happened to a grant since it was looked at.
    pub(in crate::broker) async fn is_underway(&self, grant: &Underway) -> Result<bool> {
        let found = self.elevation_with(grant.id).await?;
        Ok(found.is_some_and(|found| found.version == grant.version))
    }

    /// The grants of somebody for what is asked for, the one that lasts longest first.
    async fn going_on(
        &self,
        book: &Rulebook,
        by: &Party,
        ask: &Ask,
        now: OffsetDateTime,
    ) -> Result<Vec<Elevation>> {
        let filter = ElevationFilter {
            access: vec![Access::Active.as_str(), Access::EmergencyActive.as_str()],
            going_on_at: Some(now),
            ..self.all_of(book, by, &ask.role)
        };
        let mut found = self.legible_of(filter, LOOKED_AT).await?;
        found.retain(|one| one.is_active(now) && one.asked.audience == ask.audience);
        found.sort_by_key(|one| std::cmp::Reverse(one.grant.map(|grant| grant.until)));
        Ok(found)
    }

    /// All that somebody has asked for of a role in earnest.
    fn all_of(&self, book: &Rulebook, by: &Party, role: &str) -> ElevationFilter {
        ElevationFilter {
            among: Some(theirs(directory_of(book), by, self.issuer.as_str())),
            role: Some(role.into()),
            drill: Some(false),
            ..ElevationFilter::default()
        }
    }
}

/// Whether a token can be issued under this grant to whom it is for.
///
/// # Errors
/// Why not.
fn serves(
    book: &Rulebook,
    caller: &Caller,
    ask: &Ask,
    now: OffsetDateTime,
    grant: &Elevation,
) -> Result<(), Denied> {
    let denied = |why: String| Err(Denied::new(Why::Elevation, why));
    if grant.asked.drill {
        return denied("nothing is issued under a drill".into());
    }
    if let Some(by) = caller.signed()
        && !(signed::serves(by, grant) && signed::is_allowed(book, &ask.role))
    {
        let why =
            "a signature is for the grant that was asked for by a signature, and for no other";
        return denied(why.into());
    }
    // That one of another role is waited for says nothing of this one.
    if (&grant.asked.role, &grant.asked.audience) != (&ask.role, &ask.audience) {
        return denied("your grant is for another role or audience".into());
    }
    if !grant.is_active(now) {
        let state = match grant.access.is_had() {
            true => Access::Expired,
            false => grant.access,
        };
        let said = format!("your grant for the role '{}' is {}", ask.role, state.as_str());
        let missing = match state.is_over() {
            true => Missing::Unasked,
            false => Missing::Waits(grant.id),
        };
        return Err(Denied { missing: Some(missing), ..Denied::new(Why::Elevation, said) });
    }
    if !grant.asked.covers(caller.actors()) {
        return denied("your grant was not asked for together with whoever acts for you".into());
    }
    let shown = ask.proof.as_ref().map(|proof| proof.thumbprint.as_str());
    if grant.asked.key.is_some() && grant.asked.key.as_deref() != shown {
        return denied("your grant is for tokens that are bound to another key".into());
    }
    if let Some(scope) = &grant.asked.scope
        && let Some(more) = ask.scope.iter().flatten().find(|one| !scope.contains(*one))
    {
        return denied(format!("your grant does not cover the scope '{more}'"));
    }
    Ok(())
}

/// What happened, for the log: it has the names of those who asked, approved and ended.
/// `counted` are the people whose approval counted when it was weighed.
pub(super) fn said(elevation: &Elevation, event: &str, counted: &BTreeSet<String>) -> String {
    let asked = &elevation.asked;
    let ended = |what: &str| match elevation.ended.as_ref().and_then(|ended| ended.reason.as_ref())
    {
        Some(reason) => format!("{what}: {reason}"),
        None => what.to_string(),
    };
    let unchecked = if asked.ticket_unchecked { ", not checked" } else { "" };
    let ticket = asked.ticket.as_ref().map(|ticket| format!(" ({ticket}{unchecked})"));
    let ticket = ticket.unwrap_or_default();
    let said = match event {
        "request" => format!("asked for it: {}{ticket}", asked.reason),
        "emergency" => {
            format!("took it without approval, in an emergency: {}{ticket}", asked.reason)
        }
        "approve" => {
            let last = elevation.approvals.last();
            let reason = last.and_then(|approval| approval.reason.as_ref());
            let hash = last.map_or("", |approval| &approval.hash);
            let why = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            let state = elevation.access.as_str();
            format!("approved {hash}{why}; it is {state}")
        }
        "deny" => ended("said no"),
        "withdraw" => ended("took the request back"),
        "activate" => begun(elevation, counted),
        "relinquish" => ended("gave it back"),
        "revoke" => ended("ended it"),
        "lapse" => ended("it lapsed"),
        "expire" => ended("its time was over"),
        "review" => {
            let note = elevation.reviewed.as_ref().map_or("", |reviewed| &reviewed.note);
            match elevation.review {
                Review::Disputed => format!("looked at it and disputes it: {note}"),
                _ => format!("looked at it and found it in order: {note}"),
            }
        }
        "review-overdue" => "nobody has reviewed it in time".into(),
        other => other.into(),
    };
    drill::marked(elevation, event, said)
}

/// By whose approvals it was begun, and whose did not count then.
fn begun(elevation: &Elevation, counted: &BTreeSet<String>) -> String {
    let people = elevation.approvals.iter().filter_map(|one| one.by.person.as_deref());
    let (by, others): (Vec<_>, Vec<_>) = people.partition(|person| counted.contains(*person));
    let others = match others[..] {
        [] => String::new(),
        _ => format!("; not counted: {}", others.join(", ")),
    };
    format!("began it, approved by {}{others}", by.join(", "))
}
