//! Who may approve at this moment.
//!
//! Said by the directory of people and by policy, and by nothing that a token says: so it can
//! be told of those who are not there, and be asked again when a grant begins.

use std::collections::BTreeSet;

use time::OffsetDateTime;

use super::crowd::{Answers, Roll};
use super::{Access, Approval, Asked, Elevation, Party, Tally};
use crate::broker::config::{Elevation as Rules, Threshold};
use crate::broker::decide::Rules as Policies;
use crate::broker::directory::{Directory, Person};
use crate::broker::policy::{Approving, Traits};
use crate::credential::Principal;

/// The rules, the people and the policies by which an elevation is approved.
#[derive(Clone, Copy)]
pub(in crate::broker) struct Eligible<'a> {
    policies: Policies<'a>,
    asked: &'a Asked,
    now: OffsetDateTime,
}

impl<'a> Eligible<'a> {
    pub(in crate::broker) fn new(
        policies: Policies<'a>,
        asked: &'a Asked,
        now: OffsetDateTime,
    ) -> Self {
        Self { policies, asked, now }
    }

    /// The same by what the directory said when it was not out of date yet: for telling people
    /// of something, who else would never hear of it, and for nothing that anybody gets by it.
    pub(super) fn last_known(
        policies: Policies<'a>,
        asked: &'a Asked,
        now: OffsetDateTime,
    ) -> Self {
        let people = policies.policy.directory();
        let now = people.map_or(now, |people| people.last_fresh(now));
        Self::new(policies, asked, now)
    }

    /// The rules of the role; nothing where there are none any more.
    pub(in crate::broker) fn rules(&self) -> Option<&'a Rules> {
        self.policies.roles.get(&self.asked.role)?.elevation.as_ref()
    }

    /// The directory, where it says something.
    pub(super) fn directory(&self) -> Option<&'a Directory> {
        self.policies
            .policy
            .directory()
            .map(AsRef::as_ref)
            .filter(|people| !people.is_stale(self.now))
    }

    /// Who somebody is in the directory at this moment, by issuer and subject.
    pub(in crate::broker) fn person(&self, issuer: &str, subject: &str) -> Option<&'a str> {
        let principal = Principal { issuer: issuer.into(), subject: subject.into() };
        self.directory()?.person(&principal).map(|(name, _)| name)
    }

    /// Whether this person asked, or acts for who did, by what is known of them now or was
    /// known then.
    pub(super) fn is_party(&self, person: &str) -> bool {
        self.parties().contains(person)
    }

    /// The people who asked, or act for who did, in that sense.
    pub(super) fn parties(&self) -> BTreeSet<&'a str> {
        let parties = [&self.asked.by].into_iter().chain(&self.asked.actors);
        let names = parties.flat_map(|party| {
            [party.person.as_deref(), self.person(&party.issuer, &party.subject)]
        });
        names.flatten().collect()
    }

    /// Whether this is who asked: by the id of then, or by another one of the same person, who
    /// still has that. Whoever has left is not, nor somebody else who has their name.
    pub(in crate::broker) fn is_who_asked(&self, by: &Party) -> bool {
        let has_left = self.asked.by.person.is_some() && by.person.is_none();
        self.is_asker(by) && !has_left
    }

    /// The same for what is theirs to see and to end, also where nobody knows who is who because
    /// the directory is out of date.
    pub(super) fn is_asker(&self, by: &Party) -> bool {
        self.is_still(&self.asked.by, by)
    }

    /// Whether this is who asked, or who acts for them, in that sense.
    pub(super) fn is_for(&self, by: &Party) -> bool {
        self.is_asker(by) || self.asked.actors.iter().any(|actor| self.is_still(actor, by))
    }

    /// Somebody by the name that they had when they asked, where this is who asked: to what
    /// becomes of a request they are one, whatever the directory calls them meanwhile.
    pub(super) fn as_asked(&self, by: Party) -> Party {
        let asked = &self.asked.by;
        match &asked.person {
            _ if by.person.is_none() || !self.is_asker(&by) => by,
            Some(person) => Party { person: Some(person.clone()), ..by },
            // Whom the directory did not have then is the same one by the id of then.
            None => Party { person: by.person, ..asked.clone() },
        }
    }

    fn is_still(&self, before: &Party, by: &Party) -> bool {
        let (issuer, subject) = (&before.issuer, &before.subject);
        (issuer, subject) == (&by.issuer, &by.subject)
            || by.person.is_some() && self.person(issuer, subject) == by.person.as_deref()
    }

    /// Whether one somebody is another one, by any id that the directory has of them now, whatever
    /// it called them then; where it has neither, by what it called them.
    pub(super) fn are_one(&self, one: &Party, other: &Party) -> bool {
        let now = |party: &Party| self.person(&party.issuer, &party.subject);
        let by_name = || one.person.is_some() && one.person == other.person;
        (&one.issuer, &one.subject) == (&other.issuer, &other.subject)
            || match (now(one), now(other)) {
                (None, None) => by_name(),
                (one, other) => one == other,
            }
    }

    /// Whether somebody has approved, by whatever name and id: by what they were called then, too.
    pub(super) fn has_approved(&self, elevation: &Elevation, by: &Party) -> bool {
        let is = |approval: &Approval| approval.by.is(by) || self.are_one(&approval.by, by);
        elevation.approvals.iter().any(is)
    }

    /// Whether this was done by somebody, by whatever name and id, and still is how things stand.
    pub(super) fn is_done(
        &self,
        elevation: &Elevation,
        by: &Party,
        event: &str,
        tally: &Tally,
    ) -> bool {
        let is = |party: &Party| party.is(by) || self.are_one(party, by);
        let ended = |access| {
            let ended_by = elevation.ended.as_ref().and_then(|ended| ended.by.as_ref());
            elevation.access == access && ended_by.is_some_and(is)
        };
        match event {
            "approve" => elevation.approvals.iter().any(|one| is(&one.by) && tally.counts(one)),
            "deny" => ended(Access::Denied),
            "withdraw" => ended(Access::Withdrawn),
            "activate" => elevation.access == Access::Active && is(&elevation.asked.by),
            "relinquish" => ended(Access::Relinquished),
            "revoke" => ended(Access::Revoked),
            "review" => elevation.reviewed.as_ref().is_some_and(|reviewed| is(&reviewed.by)),
            _ => false,
        }
    }

    /// The groups of somebody who may approve; nothing where they may not.
    pub(in crate::broker) fn groups(&self, by: &Party) -> Option<&'a BTreeSet<String>> {
        self.groups_where(by, |approver, _| self.permits(approver))
    }

    /// The same where policy is asked in this way, about whoever it is in the directory.
    pub(super) fn groups_where(
        &self,
        by: &Party,
        permits: impl FnOnce(&Principal, (&'a str, &'a Person)) -> bool,
    ) -> Option<&'a BTreeSet<String>> {
        let person = by.person.as_deref()?;
        let known = self.person(&by.issuer, &by.subject)?;
        // Whoever is somebody else now is not who approved.
        if known != person || self.is_party(known) {
            return None;
        }
        let principal = Principal { issuer: by.issuer.clone(), subject: by.subject.clone() };
        let (name, entry) = self.directory()?.person(&principal)?;
        permits(&principal, (name, entry)).then_some(&entry.groups)
    }

    /// Whether somebody may review what is left of a role that is had by elevation no more: no
    /// rules say any longer who decides about it, so that those do who may revoke its tokens.
    pub(super) fn reviews_the_rest(&self, by: &Party, may_revoke: impl FnOnce() -> bool) -> bool {
        let is_other = by.person.as_deref().is_some_and(|person| !self.is_party(person));
        self.rules().is_none() && is_other && may_revoke()
    }

    /// What somebody is called at this moment; nothing where the directory has them no more.
    pub(super) fn called(&self, party: &Party) -> Option<String> {
        self.person(&party.issuer, &party.subject).map(String::from)
    }

    /// As whom somebody would approve: those of their groups that are asked for. Nothing where
    /// it would count for no threshold.
    pub(in crate::broker) fn approves_as(&self, by: &Party) -> Option<BTreeSet<String>> {
        let (rules, groups) = (self.rules()?, self.groups(by)?);
        rules.approvals.iter().any(|threshold| threshold.takes(groups)).then(|| {
            let asked_for = rules.approvals.iter().flat_map(|threshold| &threshold.groups);
            asked_for.filter(|group| groups.contains(*group)).cloned().collect()
        })
    }

    /// Whether policy lets somebody approve it.
    pub(super) fn permits(&self, approver: &Principal) -> bool {
        let subject = Principal {
            issuer: self.asked.by.issuer.clone(),
            subject: self.asked.by.subject.clone(),
        };
        let asked = Approving {
            subject: &subject,
            role: &self.asked.role,
            audience: &self.asked.audience,
            scope: self.asked.scope.as_ref(),
            ttl: self.asked.ttl,
        };
        self.policies.policy.may_approve(approver, &asked, self.now).unwrap_or_else(|why| {
            tracing::error!(why, "a policy cannot be evaluated, so an approval does not count");
            false
        })
    }

    /// What policies look at of whoever approves it.
    pub(super) fn traits(&self) -> Traits {
        self.policies.policy.traits_to_approve(&self.asked.role)
    }

    /// What policies say of several people, of whom each sort is asked about once.
    pub(in crate::broker) fn answers(&self) -> Answers<'a> {
        Answers::of(*self)
    }

    /// The people who could approve at this moment, and whom one of the thresholds takes. For
    /// where nobody else waits: see [`Crowds`](super::Crowds).
    pub(in crate::broker) fn people(&self) -> Vec<&'a str> {
        let mut roll = Roll::of(*self);
        let people = self.directory().into_iter().flat_map(Directory::people);
        people.filter(|person| roll.takes(*person)).map(|(name, _)| name).collect()
    }

    /// Those of these people who could meet this threshold.
    pub(in crate::broker) fn people_for<'p>(
        &self,
        threshold: &Threshold,
        all: &[&'p str],
    ) -> Vec<&'p str> {
        let Some(directory) = self.directory() else { return Vec::new() };
        let takes = |name: &&&str| {
            directory.named(name).is_some_and(|person| threshold.takes(&person.groups))
        };
        all.iter().filter(takes).copied().collect()
    }

    /// What of the approvals counts, together with this one where there is one.
    pub(in crate::broker) fn tally(&self, elevation: &Elevation, with: Option<&Approval>) -> Tally {
        let hash = elevation.hash(self.policies.policy.rules_hash());
        Tally::of(elevation, with, self.thresholds(), &hash, |by| self.groups(by).cloned())
    }

    /// The same of one that is looked at: what began stays approved by those by whom it was.
    pub(super) fn tally_shown(&self, elevation: &Elevation) -> Tally {
        if elevation.grant.is_none() {
            return self.tally(elevation, None);
        }
        let hash = elevation.hash(self.policies.policy.rules_hash());
        Tally::begun(elevation, self.thresholds(), &hash)
    }

    fn thresholds(&self) -> &'a [Threshold] {
        self.rules().map_or(&[][..], |rules| &rules.approvals)
    }
}
