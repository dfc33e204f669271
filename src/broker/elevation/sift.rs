//! Which of very many elevations somebody may decide about: policy is asked once about all
//! that are the same to it, and by what the store has beside the sealed text, so that only
//! what is shown has to be opened.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::eligible::Eligible;
use super::{Asked, Party};
use crate::broker::decide::Rules as Policies;
use crate::broker::policy::Reads;

/// All of a request, besides its role, that policies may look at to say who approves it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    #[serde(rename = "i")]
    issuer: String,
    #[serde(rename = "s")]
    subject: String,
    #[serde(rename = "a")]
    audience: String,
    #[serde(rename = "c")]
    scope: Option<BTreeSet<String>>,
    #[serde(rename = "t")]
    ttl: u64,
}

impl Question {
    /// That of a request.
    pub(super) fn of(asked: &Asked) -> Self {
        Self {
            issuer: asked.by.issuer.clone(),
            subject: asked.by.subject.clone(),
            audience: asked.audience.clone(),
            scope: asked.scope.clone(),
            ttl: asked.ttl,
        }
    }

    /// As the store has it.
    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// A request that is the same to policies.
    fn asked(&self, role: &str, now: OffsetDateTime) -> Asked {
        let Self { issuer, subject, audience, scope, ttl } = self.clone();
        let by = Party { issuer, subject, person: None };
        Asked { by, audience, scope, ttl, ..Asked::by_nobody(role, now) }
    }

    /// What policies tell apart of it.
    fn told_apart(&self, reads: Reads) -> Self {
        let text = |read: bool, text: &String| if read { text.clone() } else { String::new() };
        Self {
            issuer: text(reads.subject, &self.issuer),
            subject: text(reads.subject, &self.subject),
            audience: text(reads.audience, &self.audience),
            scope: self.scope.clone().filter(|_| reads.scope),
            ttl: if reads.ttl { self.ttl } else { 0 },
        }
    }
}

/// What somebody may decide about at one moment.
pub(super) struct Sift<'a> {
    policies: Policies<'a>,
    by: &'a Party,
    now: OffsetDateTime,
    /// What they may of the roles about which there is something to ask.
    roles: BTreeMap<String, Of>,
}

/// What of a role is known.
#[derive(Default)]
struct Of {
    reads: Reads,
    answers: HashMap<Question, bool>,
}

impl<'a> Sift<'a> {
    /// Asks policy about each role that is had by elevation.
    pub(super) fn new(policies: Policies<'a>, by: &'a Party, now: OffsetDateTime) -> Self {
        let mut roles = BTreeMap::new();
        // Whoever is no person decides about nothing.
        let elevated = policies.roles.iter().filter(|(_, role)| role.elevation.is_some());
        for (name, _) in elevated.filter(|_| by.person.is_some()) {
            let reads = policies.policy.reads_to_approve(name);
            let nobodys = Asked::by_nobody(name, now);
            let may = || Eligible::new(policies, &nobodys, now).groups(by).is_some();
            // Where policies look at more than the role, it has to be asked about each kind.
            if !reads.tells_none_apart() || may() {
                roles.insert(name.clone(), Of { reads, answers: HashMap::new() });
            }
        }
        Self { policies, by, now, roles }
    }

    /// The roles of which there may be something for them to decide.
    pub(super) fn roles(&self) -> impl Iterator<Item = &String> {
        self.roles.keys()
    }

    /// Whether they may decide about what is asked for.
    pub(super) fn takes(&mut self, asked: &Asked) -> bool {
        let party =
            self.by.person.as_deref().is_some_and(|person| {
                Eligible::new(self.policies, asked, self.now).is_party(person)
            });
        !party && self.may(&asked.role, &Question::of(asked))
    }

    /// Whether they may, as far as can be told without opening it. What is not known may be.
    pub(super) fn may_take(&mut self, role: &str, question: Option<&str>) -> bool {
        let known = question.and_then(|text| serde_json::from_str(text).ok());
        known.is_none_or(|question| self.may(role, &question))
    }

    fn may(&mut self, role: &str, question: &Question) -> bool {
        let Some(of) = self.roles.get_mut(role) else { return false };
        let asked = question.asked(role, self.now);
        let eligible = Eligible::new(self.policies, &asked, self.now);
        if self.by.person.as_deref().is_none_or(|person| eligible.is_party(person)) {
            return false;
        }
        let ask = || eligible.groups(self.by).is_some();
        *of.answers.entry(question.told_apart(of.reads)).or_insert_with(ask)
    }
}
