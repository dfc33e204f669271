//! What a permit gives, and what it wants in return: all of it by one permit, never mixed
//! with another's.

use std::collections::BTreeSet;
use std::time::Duration;

use super::slices::is_for_resource;
use super::{Policy, Question, Resource};

/// What a permit grants, and its obligations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) ttl: Duration,
    pub(super) scope: BTreeSet<String>,
    pub(super) obligations: BTreeSet<Obligation>,
}

/// What a permit makes a condition of, or has done, where it is the one that grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obligation {
    /// The token ends no later than those that were shown for it.
    EndsWithToken,
    /// The token is bound to a key of the caller's.
    KeyBound,
    /// The token says nothing and can only be introspected.
    Opaque,
}

impl Obligation {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::EndsWithToken, Self::KeyBound, Self::Opaque];

    /// Its name, as policies have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::EndsWithToken => "ends_with_token",
            Self::KeyBound => "key_bound",
            Self::Opaque => "opaque",
        }
    }

    /// The one with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|obligation| obligation.name() == name)
    }
}

/// What was granted: all of it by one permit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The permit.
    pub policy_id: String,
    /// The least of what was asked for, what the role has and what the permit gives.
    pub ttl: Duration,
    /// What was asked for; where nothing was, what both the role and the permit have.
    pub scope: BTreeSet<String>,
    /// What the permit wants.
    pub obligations: BTreeSet<Obligation>,
}

/// Why nothing is granted, although the role may be had: what the permits want that come
/// closest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unmet {
    /// None covers all of the scope.
    Scope,
    /// Those that do want the token to be opaque, and a JWT is wanted.
    Form,
    /// Those want a key to bind the token to.
    Key,
    /// Those want the token to end with one that is at its end.
    Time,
}

/// Chooses among permits: of those that cover the scope that is wanted and whose
/// obligations can be met, the one with the longest lifetime; among equals, the first by id.
pub(super) fn weigh<'a>(
    permits: impl Iterator<Item = (&'a str, &'a Limits)>,
    question: &Question<'_>,
) -> Result<Granted, Unmet> {
    let mut best: Option<(&str, &Limits, Duration)> = None;
    let mut closest = Unmet::Scope;
    for (id, limits) in permits {
        let ttl = match limits.longest(question) {
            Ok(ttl) => ttl,
            Err(unmet) => {
                closest = closest.max(unmet);
                continue;
            }
        };
        let better = best.is_none_or(|(best_id, _, longest)| {
            (ttl, std::cmp::Reverse(id)) > (longest, std::cmp::Reverse(best_id))
        });
        if better {
            best = Some((id, limits, ttl));
        }
    }
    let (id, limits, ttl) = best.ok_or(closest)?;
    Ok(Granted {
        policy_id: id.to_string(),
        ttl: question.ttl.unwrap_or(Duration::MAX).min(question.role_ttl).min(ttl),
        scope: match question.scope {
            Some(wanted) => wanted.clone(),
            None => limits.scope.intersection(question.role_scopes).cloned().collect(),
        },
        obligations: limits.obligations.clone(),
    })
}

impl Policy {
    /// Whether all tokens that there are by policy with this role are opaque for the sake of the
    /// permits.
    pub fn wants_opaque(&self, role: &str) -> bool {
        let role = self.uid_of(Resource::Role(role));
        let policies = self.policies.all().policies();
        let permits = policies.filter(|policy| is_for_resource(policy, &role));
        let limits = permits.filter_map(|permit| {
            let id: &str = permit.id().as_ref();
            self.limits.get(id)
        });
        let mut limits = limits.peekable();
        limits.peek().is_some()
            && limits.all(|limits| limits.obligations.contains(&Obligation::Opaque))
    }
}

impl Limits {
    /// The longest lifetime that it grants here.
    fn longest(&self, question: &Question<'_>) -> Result<Duration, Unmet> {
        let covers = question.scope.is_none_or(|wanted| {
            wanted.iter().all(|s| self.scope.contains(s) && question.role_scopes.contains(s))
        });
        if !covers {
            return Err(Unmet::Scope);
        }
        if self.obligations.contains(&Obligation::Opaque) && question.jwt {
            return Err(Unmet::Form);
        }
        if self.obligations.contains(&Obligation::KeyBound) && !question.key_bound {
            return Err(Unmet::Key);
        }
        if !self.obligations.contains(&Obligation::EndsWithToken) {
            return Ok(self.ttl);
        }
        let ttl = self.ttl.min(question.left);
        if ttl.is_zero() { Err(Unmet::Time) } else { Ok(ttl) }
    }
}
