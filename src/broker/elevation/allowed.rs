//! Who may do what about elevations; what is denied is on record.

use time::OffsetDateTime;
use uuid::Uuid;

use super::desk::{directory_of, party, rules_of};
use super::eligible::Eligible;
use super::verdict::{Refusal, Request, Verdict};
use super::{Asked, Elevation, Party, Path, Seen, drill};
use crate::broker::Broker;
use crate::broker::audit::{Author, Decision, Record};
use crate::broker::authenticate::Caller;
use crate::broker::decide::{Denied, Why};
use crate::broker::directory::Directory;
use crate::broker::operate::Asked as Who;
use crate::broker::policy::{Elevating, Moment, Named, Operation, Tokens};
use crate::broker::rulebook::Rulebook;
use crate::broker::store::Unit;
use crate::credential::Principal;
use crate::error::Result as Outcome;

/// What was denied to somebody.
#[derive(Clone, Copy, Debug)]
pub(super) struct About<'a> {
    /// What they wanted to do.
    what: &'a str,
    role: &'a str,
    elevation: Option<Uuid>,
    is_drill: bool,
}

/// Why it is not known who somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Unknown {
    /// The directory of people is out of date.
    Stale,
    /// It has people of their issuer, and not them.
    Stranger,
}

impl From<Unknown> for Denied {
    fn from(unknown: Unknown) -> Self {
        Self::new(Why::Directory, unknown.said())
    }
}

impl From<Unknown> for Refusal {
    fn from(unknown: Unknown) -> Self {
        match unknown {
            Unknown::Stale => Self::Stale,
            Unknown::Stranger => Self::Denied(unknown.said().into()),
        }
    }
}

impl Unknown {
    fn said(self) -> &'static str {
        match self {
            Self::Stale => {
                "the directory of people is out of date, so nobody can be told from others"
            }
            Self::Stranger => "you are not in the directory of people",
        }
    }
}

/// Who somebody is. People have to be in the directory, so that nobody is somebody else by
/// another name; of issuers that have no people there, all are machines.
pub(in crate::broker) fn known(
    directory: Option<&Directory>,
    principal: &Principal,
    now: OffsetDateTime,
) -> Result<Party, Unknown> {
    if directory.is_some_and(|directory| directory.is_stale(now)) {
        return Err(Unknown::Stale);
    }
    let known = party(directory, principal);
    let of_people = directory.is_some_and(|directory| directory.has_people_of(&principal.issuer));
    match known.person.is_none() && of_people {
        true => Err(Unknown::Stranger),
        false => Ok(known),
    }
}

impl<'a> About<'a> {
    /// To do something about one.
    pub(super) fn of(elevation: &'a Elevation, what: &'a str) -> Self {
        Self { elevation: Some(elevation.id), ..Self::asked(&elevation.asked, what) }
    }

    fn asked(asked: &'a Asked, what: &'a str) -> Self {
        Self { is_drill: asked.drill, ..Self::role(&asked.role, what) }
    }

    /// To do something about a role.
    fn role(role: &'a str, what: &'a str) -> Self {
        Self { what, role, elevation: None, is_drill: false }
    }

    /// To ask for a role.
    pub(super) fn request(request: &'a Request) -> Self {
        Self { is_drill: request.drill, ..Self::role(&request.role, "request") }
    }
}

impl Broker {
    /// Who somebody is.
    pub(in crate::broker) fn known(
        &self,
        book: &Rulebook,
        caller: &Caller,
        now: OffsetDateTime,
    ) -> Result<Party, Refusal> {
        known(directory_of(book), caller.principal(), now).map_err(Refusal::from)
    }

    /// The same of somebody who wants to do something: that one tries whom the directory does not
    /// have, or no longer, is on record.
    pub(super) async fn known_about(
        &self,
        book: &Rulebook,
        who: &Who,
        about: About<'_>,
        now: OffsetDateTime,
    ) -> Result<Party, Refusal> {
        match known(directory_of(book), who.caller.principal(), now) {
            Err(stranger @ Unknown::Stranger) => {
                Err(self.deny_elevation(book, who, about, stranger.into()).await)
            }
            known => known.map_err(Refusal::from),
        }
    }

    /// Whether this is what somebody has done about an elevation that they see.
    pub(in crate::broker) fn has_done(
        &self,
        book: &Rulebook,
        who: &Who,
        Seen { elevation, tally, .. }: &Seen,
        event: &str,
    ) -> bool {
        let now = self.clock.now();
        let those = Eligible::new(rules_of(book), &elevation.asked, now);
        let by = self.known(book, &who.caller, now);
        by.is_ok_and(|by| those.is_done(elevation, &by, event, tally))
    }

    /// Whether somebody may see an elevation.
    pub(super) fn sees(
        &self,
        book: &Rulebook,
        who: &Who,
        elevation: &Elevation,
        by: &Party,
    ) -> Outcome<bool> {
        let now = self.clock.now();
        let those = Eligible::new(rules_of(book), &elevation.asked, now);
        Ok(those.is_for(by)
            || those.groups(by).is_some()
            || self.may_revoke(book, who, &elevation.asked.role, now))
    }

    /// Whether somebody may revoke all tokens with this role, and so each of its grants.
    pub(super) fn may_revoke(
        &self,
        book: &Rulebook,
        who: &Who,
        role: &str,
        now: OffsetDateTime,
    ) -> bool {
        let tokens = Tokens { role: Some(role.into()), ..Tokens::named(Named::Role) };
        let moment = Moment { now, source: who.source };
        rules_of(book).operate(&who.caller, &Operation::Revoke(tokens), moment).is_ok()
    }

    /// Whether they may ask, by policy, for this audience or one of the others; what is denied is on
    /// record.
    pub(super) async fn may_elevate(
        &self,
        book: &Rulebook,
        who: &Who,
        asked: &Asked,
        mut others: impl Iterator<Item = &String>,
    ) -> Result<Author, Refusal> {
        let moment = Moment { now: asked.at, source: who.source };
        let decide = |audience: &str| {
            let elevating = Elevating {
                role: &asked.role,
                audience,
                scope: asked.scope.as_ref(),
                ttl: asked.ttl,
                emergency: asked.path == Path::Emergency,
                key_bound: asked.key.is_some(),
            };
            rules_of(book).elevate(&who.caller, &elevating, moment)
        };
        let decided = decide(&asked.audience)
            .or_else(|denied| others.find_map(|other| decide(other).ok()).ok_or(denied));
        match decided {
            Ok(permit) => Ok(self.author(book, who, &permit)),
            Err(denied) => {
                let about = About::asked(asked, "request");
                Err(self.deny_elevation(book, who, about, denied).await)
            }
        }
    }

    /// Whether they may do that, by policy; what is denied is on record.
    pub(super) async fn may_settle(
        &self,
        book: &Rulebook,
        who: &Who,
        (elevation, by): (&Elevation, &Party),
        verdict: &Verdict,
    ) -> Result<Author, Refusal> {
        let now = self.clock.now();
        let those = Eligible::new(rules_of(book), &elevation.asked, now);
        let eligible = those.groups(by).is_some();
        let acting = who.caller.actors();
        let permitted = match verdict {
            // Nobody decides in another one's name, be it a person's.
            _ if verdict.decides() && !acting.is_empty() => false,
            // What was approved for somebody is for no others who act for them.
            Verdict::Activate if !elevation.asked.covers(acting) => false,
            // Nor for somebody else who has their name by now.
            Verdict::Activate if elevation.asked.by.is(by) && !those.is_who_asked(by) => false,
            Verdict::Withdraw | Verdict::Relinquish
                if elevation.asked.by.is(by) && !those.is_asker(by) =>
            {
                false
            }
            // Only who asked may, as the state machine sees to.
            Verdict::Withdraw | Verdict::Activate | Verdict::Relinquish => true,
            // That they may not is for the state machine to say.
            _ if elevation.is_for(by) && !matches!(verdict, Verdict::Revoke { .. }) => true,
            Verdict::Approve { .. } => those.approves_as(by).is_some(),
            Verdict::Deny { .. } => eligible,
            Verdict::Review { .. } => {
                eligible
                    || those.reviews_the_rest(by, || {
                        self.may_revoke(book, who, &elevation.asked.role, now)
                    })
            }
            Verdict::Revoke { .. } => {
                eligible || self.may_revoke(book, who, &elevation.asked.role, now)
            }
        };
        if permitted {
            return Ok(self.author(book, who, ""));
        }
        let said = format!(
            "you may not {} what is asked for of the role '{}'",
            verdict.name(),
            elevation.asked.role
        );
        let denied = Denied::new(Why::NoPermit, said);
        let about = About::of(elevation, verdict.name());
        Err(self.deny_elevation(book, who, about, denied).await)
    }

    /// Puts on record what somebody wanted to do about one that they may not see. They are told no
    /// more than that there is none.
    pub(super) async fn deny_unseen(
        &self,
        book: &Rulebook,
        who: &Who,
        elevation: &Elevation,
        verdict: &Verdict,
    ) -> Refusal {
        let said =
            format!("you may not see what is asked for of the role '{}'", elevation.asked.role);
        let about = About::of(elevation, verdict.name());
        let denied = Denied::new(Why::NoPermit, said);
        match self.deny_elevation(book, who, about, denied).await {
            Refusal::Unrecorded(error) => Refusal::Unrecorded(error),
            _ => Refusal::Unknown,
        }
    }

    fn author(&self, book: &Rulebook, who: &Who, permit: &str) -> Author {
        Author::caller(&who.caller, who.source, who.request_id, (permit, book.hash()))
    }

    /// Puts a denial on record, unless there were many of late. Returns what is told.
    pub(super) async fn deny_elevation(
        &self,
        book: &Rulebook,
        who: &Who,
        about: About<'_>,
        denied: Denied,
    ) -> Refusal {
        let now = self.clock.now();
        let policy_id = denied.policy_id.unwrap_or_default();
        let action = format!("elevation.{}", about.what);
        let author = self.author(book, who, &policy_id);
        let record = author.record(now, &action, Decision::Denied);
        let record = Record {
            reason: drill::told_of(about.is_drill, denied.reason),
            role: about.role.to_string(),
            elevation: about.elevation,
            policy_id: record.policy_id.filter(|id| !id.is_empty()),
            ..record
        };
        let record = super::signed::noted(record, who);
        if let Err(retry_after) = self.admit_denial(&who.caller, &record.action, now) {
            let reason = record.reason;
            tracing::info!(request_id = %who.request_id, reason, "denied, and only counted");
            return Refusal::Counted { retry_after };
        }
        // What somebody signed is used up by it: who brings it again puts nothing on record.
        let mut unit = Unit::of(record);
        unit.effects.extend(super::signed::used_up(who, now));
        match self.metrics.recording(self.audit.commit(unit)).await {
            Ok(Some(_)) => Refusal::Denied(denied.said),
            Ok(None) => super::signed::used_before(),
            Err(error) => Refusal::Unrecorded(error),
        }
    }
}
