//! Who may have which role: Cedar policies, checked against a published schema.
//!
//! What no policy permits is denied, and so is whatever makes a policy fail.
//!
//! How long a token lives and what it covers belongs to the permit that grants
//! it, as annotations:
//!
//! ```cedar
//! @id("platform-deploys")
//! @ttl("15m")
//! @scope("deploy:read deploy:write")
//! permit (
//!     principal in Group::"https://login.example.com#platform",
//!     action == Action::"issue",
//!     resource == Role::"deploy"
//! );
//! ```
//!
//! - `@id`, required: how audit records name the policy.
//! - `@ttl`, required on a permit to issue or to exchange: the longest lifetime it grants.
//! - `@scope`: the scopes it grants, separated by spaces. A permit without it grants
//!   the role and no scope.
//! - `@obligations`: what it makes a condition of, or has done ([`Obligation`]), separated
//!   by spaces.
//! - `@any_issuer`: the permit is for callers of whatever trusted issuer. Where there
//!   are several, others must name one, by a `User`, a `Group` or `principal.issuer`.
//! - `@description`: for people.
//!
//! A permit for another action than `Action::"issue"` and `Action::"exchange"` grants no
//! token, so it has none of `@ttl`, `@scope` and `@obligations`. A permit names the one
//! action that it is for.
//!
//! Others are refused, lest a slip of the pen goes unnoticed.

mod elevation;
mod finding;
mod limits;
mod lint;
mod load;
mod operation;
mod place;
mod reads;
mod slices;
mod syntax;
mod terms;
pub mod trial;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use cedar_policy::{Authorizer, Decision, Effect, Entities, Entity, EntityUid, Request, Schema};
use time::OffsetDateTime;

pub use elevation::{Approving, Elevating};
pub use finding::{About, Finding, Rule, Severity};
pub use limits::{Granted, Obligation};
pub use lint::check;
pub use load::{Source, World};
pub use operation::{Administration, Named, Operation, Tokens};
pub use place::Place;
pub(in crate::broker) use reads::{Reads, Sort, Traits};
pub use syntax::Needs;
pub use terms::Moment;

use self::limits::{Limits, Unmet, weigh};
use self::slices::{Slices, is_for_action, is_for_resource};
use self::terms::{CHECKED, Kind, Terms, Told};
use super::authenticate::{Actor, Caller, id_of};
use super::directory::{Directory, Person};
use crate::credential::Principal;

/// The schema that policies are checked against, in Cedar's own syntax.
pub fn schema() -> &'static str {
    include_str!("schema.cedarschema")
}

/// What a caller asks for.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// The role.
    pub role: &'a str,
    /// The scopes of that role, as configured.
    pub role_scopes: &'a BTreeSet<String>,
    /// The longest lifetime of that role, as configured.
    pub role_ttl: Duration,
    /// Whom the token is for.
    pub audience: &'a str,
    /// The scope that is wanted; `None`: whatever can be had.
    pub scope: Option<&'a BTreeSet<String>>,
    /// The lifetime that is wanted; `None`: as long as can be had.
    pub ttl: Option<Duration>,
    /// Whether the token will be bound to a key of the caller's.
    pub key_bound: bool,
    /// Whether nothing but a JWT will do.
    pub jwt: bool,
    /// On which path it is had for a while, where that is so.
    pub elevation: Option<&'static str>,
    /// How long those tokens are still good that were shown.
    pub left: Duration,
    /// When, and from where.
    pub moment: Moment,
}

/// What policy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may be had.
    Granted(Granted),
    /// The role may be had, but no permit covers all of the scope.
    ScopeDenied,
    /// The role may be had, but the permits for it want tokens that say nothing, and a JWT is
    /// wanted.
    OnlyOpaque,
    /// The role may be had, but the permits for it want a key to bind the token to.
    Unbound,
    /// The role may be had, but the permits for it want the token to end with one that is at
    /// its end.
    Ended,
    /// It may not be had.
    Denied {
        /// The policy that forbids it; `None` where none permits it.
        forbidden_by: Option<String>,
    },
    /// It may not be had, because the directory of people, which policies use, is out of
    /// date.
    Stale,
    /// A policy could not be evaluated, which counts as a denial.
    Failed {
        /// What went wrong; for the log.
        why: String,
    },
}

/// What Cedar says, and the policies for the sake of which it does.
pub(in crate::broker) struct Answer {
    pub(in crate::broker) permits: bool,
    pub(in crate::broker) reasons: Vec<String>,
    /// Whether something was not permitted because the directory is out of date.
    pub(in crate::broker) stale: bool,
}

/// The action of being issued a token.
const ISSUE: &str = "issue";

/// The action of being issued a token for one of the broker's own.
const EXCHANGE: &str = "exchange";

/// The action of asking for a role for a while.
const ELEVATE: &str = "elevate";

/// The action of approving that.
const APPROVE: &str = "approve";

/// The action of acting for somebody who is issued a token.
const ACT: &str = "act";

/// People of the directory, and its groups.
const PERSON: &str = "Person";
const DIRECTORY_GROUP: &str = "DirectoryGroup";

/// The action of being told about a token.
const INTROSPECT: &str = "introspect";

/// The action of revoking tokens of others.
const REVOKE: &str = "revoke";

/// The action of looking after the broker.
const ADMINISTER: &str = "administer";

/// The kind of thing that the broker is.
const BROKER: &str = "Broker";

/// What an action is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource<'a> {
    Role(&'a str),
    Broker,
}

/// What Cedar is asked, besides who the caller is.
struct Asks<'a> {
    principal: &'a str,
    action: &'a str,
    resource: Resource<'a>,
    /// Somebody whom the context speaks of, and who is no party to the request.
    about: Option<&'a Principal>,
    told: Told,
}

/// A set of policies, ready to decide.
#[derive(Debug)]
pub struct Policy {
    terms: Terms,
    /// The broker's issuer.
    own: String,
    schema: Schema,
    policies: Slices,
    /// The limits of every permit to issue or to exchange, by policy id.
    limits: BTreeMap<String, Limits>,
    needs: Needs,
    /// The policies that speak of people or groups of the directory.
    by_directory: BTreeSet<String>,
    /// What those look at that say who may approve.
    approving: reads::OfApprovals,
    directory: Option<Arc<Directory>>,
    /// The scopes that each role has.
    scopes: BTreeMap<String, BTreeSet<String>>,
    hash: String,
    rules_hash: String,
    /// How often it was asked whether somebody may approve.
    #[cfg(test)]
    pub(in crate::broker) asked_of_approvers: std::sync::atomic::AtomicUsize,
}

impl Policy {
    /// What tokens must say so that nothing that is forbidden can be escaped.
    pub fn needs(&self) -> &Needs {
        &self.needs
    }

    /// The directory of people that decides with them.
    pub fn directory(&self) -> Option<&Arc<Directory>> {
        self.directory.as_ref()
    }

    /// Names this version of policies, roles and trusted issuers: a hash of all.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Decides.
    pub fn decide(&self, caller: &Caller, question: &Question<'_>) -> Verdict {
        match self.evaluate(caller, question) {
            Ok(verdict) => verdict,
            Err(why) => Verdict::Failed { why },
        }
    }

    /// Decides whether a caller may be told about a token of this role for this
    /// audience. A policy that cannot be evaluated is an error, which counts as no.
    pub fn may_introspect(
        &self,
        caller: &Caller,
        role: &str,
        audience: &str,
        moment: Moment,
    ) -> Result<bool, String> {
        Ok(self.introspects(caller, role, audience, moment)?.permits)
    }

    /// Decides whether who acts for a caller may do so.
    pub(super) fn may_act(
        &self,
        caller: &Caller,
        question: &Question<'_>,
    ) -> Result<Answer, String> {
        let actor = caller.actors().first().map_or(caller.id(), Actor::id);
        let told = self.terms.acting_context(caller, question)?;
        let asks = Asks::of_role(actor, ACT, question.role, told);
        self.ask_of(caller, asks, question.moment.now)
    }

    fn introspects(
        &self,
        caller: &Caller,
        role: &str,
        audience: &str,
        moment: Moment,
    ) -> Result<Answer, String> {
        let told = self.terms.audience_context(audience, moment)?;
        self.ask_of(caller, Asks::of_role(caller.id(), INTROSPECT, role, told), moment.now)
    }

    fn evaluate(&self, caller: &Caller, question: &Question<'_>) -> Result<Verdict, String> {
        let told = self.terms.context(caller, question)?;
        let now = question.moment.now;
        let asks = Asks::of_role(caller.id(), self.action_of(caller), question.role, told);
        let answer = self.ask_of(caller, asks, now)?;
        let reasons = answer.reasons.iter().map(String::as_str);
        match answer.permits {
            false if answer.stale => Ok(Verdict::Stale),
            false => Ok(Verdict::Denied { forbidden_by: answer.reasons.first().cloned() }),
            true => {
                let permits = reasons.filter_map(|id| Some((id, self.limits.get(id)?)));
                Ok(match weigh(permits, question) {
                    Ok(granted) => Verdict::Granted(granted),
                    Err(Unmet::Scope) => Verdict::ScopeDenied,
                    Err(Unmet::Form) => Verdict::OnlyOpaque,
                    Err(Unmet::Key) => Verdict::Unbound,
                    Err(Unmet::Time) => Verdict::Ended,
                })
            }
        }
    }

    /// What a caller does who is issued a token.
    fn action_of(&self, caller: &Caller) -> &'static str {
        if caller.principal().issuer == self.own { EXCHANGE } else { ISSUE }
    }

    fn ask_of(
        &self,
        caller: &Caller,
        asks: Asks<'_>,
        now: OffsetDateTime,
    ) -> Result<Answer, String> {
        let stale = self.directory.as_ref().is_some_and(|directory| directory.is_stale(now))
            && !self.by_directory.is_empty();
        if stale && self.may_be_forbidden_by_directory(asks.action, asks.resource) {
            return Ok(Answer { permits: false, reasons: Vec::new(), stale });
        }
        let is_there = match asks.resource {
            Resource::Role(role) => self.scopes.contains_key(role),
            Resource::Broker => true,
        };
        let resource = self.uid_of(asks.resource);
        let policies = self.policies.for_question(asks.action, &resource, is_there);
        let (request, entities) = self.request(caller, asks, now)?;
        let response = Authorizer::new().is_authorized(&request, &policies, &entities);
        // Cedar passes over a policy that fails, be it the one that would forbid.
        if let Some(error) = response.diagnostics().errors().next() {
            return Err(error.to_string());
        }
        let mut reasons: Vec<String> =
            response.diagnostics().reason().map(ToString::to_string).collect();
        reasons.sort_unstable();
        let mut permits = response.decision() == Decision::Allow;
        if stale && permits {
            // Those that ask who is not in it.
            reasons.retain(|id| !self.by_directory.contains(id));
            permits = !reasons.is_empty();
        }
        let stale = stale && !permits && reasons.is_empty();
        Ok(Answer { permits, reasons, stale })
    }

    /// Whether a policy might forbid this because of what is in the directory.
    fn may_be_forbidden_by_directory(&self, action: &str, resource: Resource<'_>) -> bool {
        let resource = self.uid_of(resource);
        let policies = self.policies.all().policies();
        let mut forbids = policies.filter(|policy| {
            policy.effect() == Effect::Forbid
                && self.by_directory.contains(AsRef::<str>::as_ref(policy.id()))
        });
        forbids.any(|policy| is_for_action(policy, action) && is_for_resource(policy, &resource))
    }

    /// What Cedar is asked.
    fn request(
        &self,
        caller: &Caller,
        asks: Asks<'_>,
        now: OffsetDateTime,
    ) -> Result<(Request, Entities), String> {
        let failed = |what: &str, cause: &dyn std::error::Error| format!("{what}: {cause}");
        let principal = self.terms.uid(Kind::User, asks.principal);
        let schema = CHECKED.then_some(&self.schema);
        let entities = Entities::from_entities(self.parties(caller, asks.about, now)?, schema)
            .map_err(|cause| failed("the caller", &cause))?;
        let action = self.terms.uid(Kind::Action, asks.action);
        let resource = self.uid_of(asks.resource);
        let request = |told, schema| {
            Request::new(principal.clone(), action.clone(), resource.clone(), told, schema)
                .map_err(|cause| failed("the request", &cause))
        };
        if let Some(whole) = asks.told.whole {
            request(whole, schema)?;
        }
        Ok((request(asks.told.read, None)?, entities))
    }

    fn uid_of(&self, resource: Resource<'_>) -> EntityUid {
        match resource {
            Resource::Role(role) => self.terms.uid(Kind::Role, role),
            Resource::Broker => self.terms.uid(Kind::Broker, &self.own),
        }
    }
}

impl<'a> Asks<'a> {
    fn of_role(principal: &'a str, action: &'a str, role: &'a str, told: Told) -> Self {
        Self { principal, action, resource: Resource::Role(role), about: None, told }
    }
}

impl Policy {
    /// The caller and those who act for them, and whom else is spoken of, each once, and who
    /// they are in the directory.
    fn parties(
        &self,
        caller: &Caller,
        about: Option<&Principal>,
        now: OffsetDateTime,
    ) -> Result<Vec<Entity>, String> {
        let mut users: Vec<Entity> = Vec::new();
        let mut people: BTreeMap<&str, &Person> = BTreeMap::new();
        let fresh = self.directory.as_ref().filter(|directory| !directory.is_stale(now));
        let shown = caller.proven().map(|party| (party.id(), party.principal(), Some(party)));
        let named = caller.actors().iter().map(|actor| (actor.id(), actor.principal(), None));
        let about_id = about.map(|other| id_of(&other.issuer, &other.subject));
        let spoken_of = about_id.as_deref().zip(about).map(|(id, other)| (id, other, None));
        for (id, principal, party) in shown.chain(named).chain(spoken_of) {
            let uid = self.terms.uid(Kind::User, id);
            if users.iter().any(|known| known.uid() == uid) {
                continue;
            }
            let person = fresh.and_then(|directory| directory.person(principal));
            people.extend(person);
            users.push(self.terms.user(uid, principal, party, person.map(|(name, _)| name))?);
        }
        for (name, person) in people {
            let groups =
                person.groups.iter().map(|group| self.terms.uid(Kind::DirectoryGroup, group));
            let entity =
                Entity::new(self.terms.uid(Kind::Person, name), HashMap::new(), groups.collect());
            users.push(entity.map_err(|cause| format!("the person: {cause}"))?);
        }
        Ok(users)
    }
}

#[cfg(test)]
mod tests;
