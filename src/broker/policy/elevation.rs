//! Who may ask for a role for a while, and who may approve it, in the terms of policies.

use std::collections::BTreeSet;

use serde_json::Value;
use time::OffsetDateTime;

use super::{APPROVE, Answer, Asks, ELEVATE, Policy, Resource};
use crate::broker::authenticate::{Caller, id_of};
use crate::credential::Principal;

use super::terms::{Moment, Told};

/// What somebody asks for, as policies are told of it.
#[derive(Clone, Copy, Debug)]
pub struct Elevating<'a> {
    /// The role.
    pub role: &'a str,
    /// Whom its tokens are for.
    pub audience: &'a str,
    /// What they cover; `None`: all that the role has.
    pub scope: Option<&'a BTreeSet<String>>,
    /// For how long, in seconds.
    pub ttl: u64,
    /// Whether without approval.
    pub emergency: bool,
    /// Whether its tokens will be bound to a key.
    pub key_bound: bool,
}

/// What somebody is to approve, as policies are told of it.
#[derive(Clone, Copy, Debug)]
pub struct Approving<'a> {
    /// For whom.
    pub subject: &'a Principal,
    /// The role.
    pub role: &'a str,
    /// Whom its tokens are for.
    pub audience: &'a str,
    /// What they cover; `None`: all that the role has.
    pub scope: Option<&'a BTreeSet<String>>,
    /// For how long, in seconds.
    pub ttl: u64,
}

impl Policy {
    /// Names this version of policies, roles, issuers and clients, whoever is in the directory.
    pub fn rules_hash(&self) -> &str {
        &self.rules_hash
    }

    /// Decides whether somebody may ask for a role for a while. A policy that cannot be
    /// evaluated is an error, which counts as no.
    pub(in crate::broker) fn elevates(
        &self,
        caller: &Caller,
        asked: &Elevating<'_>,
        moment: Moment,
    ) -> Result<Answer, String> {
        let told = self.elevating_context(caller, asked, moment)?;
        self.ask_of(caller, Asks::of_role(caller.id(), ELEVATE, asked.role, told), moment.now)
    }

    /// Decides whether somebody may approve, by who they are in the directory. A policy that
    /// cannot be evaluated is an error, which counts as no.
    pub(in crate::broker) fn may_approve(
        &self,
        approver: &Principal,
        asked: &Approving<'_>,
        now: OffsetDateTime,
    ) -> Result<bool, String> {
        #[cfg(test)]
        self.asked_of_approvers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let caller = Caller::named(approver.clone(), now);
        let told = self.approving_context(asked, now)?;
        let asks = Asks {
            principal: caller.id(),
            action: APPROVE,
            resource: Resource::Role(asked.role),
            about: Some(asked.subject),
            told,
        };
        Ok(self.ask_of(&caller, asks, now)?.permits)
    }

    pub(super) fn elevating_context(
        &self,
        caller: &Caller,
        asked: &Elevating<'_>,
        moment: Moment,
    ) -> Result<Told, String> {
        self.terms.elevating_context(caller, asked, self.scopes_of(asked.role), moment)
    }

    pub(super) fn approving_context(
        &self,
        asked: &Approving<'_>,
        now: OffsetDateTime,
    ) -> Result<Told, String> {
        let subject = id_of(&asked.subject.issuer, &asked.subject.subject);
        self.terms.approving_context(asked, &subject, self.scopes_of(asked.role), now)
    }

    fn scopes_of(&self, role: &str) -> Option<&BTreeSet<String>> {
        self.scopes.get(role)
    }
}

/// Whether a policy asks more of somebody than issuer, subject and the directory: groups of
/// issuers, or claims. What is asked of approvers is also asked while they are not there.
pub(super) fn reads_tokens(policy: &Value) -> bool {
    match policy {
        Value::Object(map) => {
            map.contains_key("hasTag")
                || map.contains_key("getTag")
                || map.get("type").and_then(Value::as_str) == Some("Group")
                || map.values().any(reads_tokens)
        }
        Value::Array(values) => values.iter().any(reads_tokens),
        _ => false,
    }
}
