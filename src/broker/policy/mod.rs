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
//! - `@ttl`, required on a permit to issue: the longest lifetime it grants.
//! - `@scope`: the scopes it grants, separated by spaces. A permit without it grants
//!   the role and no scope.
//! - `@any_issuer`: the permit is for callers of whatever trusted issuer. Where there
//!   are several, others must name one, by a `User`, a `Group` or `principal.issuer`.
//! - `@description`: for people.
//!
//! A permit for `Action::"introspect"` grants no token, so it has neither `@ttl` nor
//! `@scope`. A permit names the one action that it is for.
//!
//! Others are refused, lest a slip of the pen goes unnoticed.

mod finding;
mod lint;
mod load;
mod place;
mod syntax;
pub mod trial;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityId, EntityTypeName, EntityUid,
    PolicySet, Request, RestrictedExpression, Schema,
};

pub use finding::{About, Finding, Rule, Severity};
pub use lint::check;
pub use load::{Source, World};
pub use place::Place;
pub use syntax::Needs;

use super::authenticate::Caller;

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
}

/// What policy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may be had.
    Granted(Granted),
    /// The role may be had, but no permit covers all of the scope.
    ScopeDenied,
    /// It may not be had.
    Denied {
        /// The policy that forbids it; `None` where none permits it.
        forbidden_by: Option<String>,
    },
    /// A policy could not be evaluated, which counts as a denial.
    Failed {
        /// What went wrong; for the log.
        why: String,
    },
}

/// The limits of one permit. They are weighed as one, never mixed with another's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Limits {
    ttl: Duration,
    scope: BTreeSet<String>,
}

/// What Cedar says, and the policies for the sake of which it does.
struct Answer {
    permits: bool,
    reasons: Vec<String>,
}

/// The action of being issued a token.
const ISSUE: &str = "issue";

/// The action of being told about a token.
const INTROSPECT: &str = "introspect";

/// A set of policies, ready to decide.
#[derive(Debug)]
pub struct Policy {
    schema: Schema,
    policies: PolicySet,
    /// The limits of every permit to issue, by policy id.
    limits: BTreeMap<String, Limits>,
    needs: Needs,
    hash: String,
}

impl Policy {
    /// What tokens must say so that nothing that is forbidden can be escaped.
    pub fn needs(&self) -> &Needs {
        &self.needs
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
    ) -> Result<bool, String> {
        Ok(self.introspects(caller, role, audience)?.permits)
    }

    fn introspects(&self, caller: &Caller, role: &str, audience: &str) -> Result<Answer, String> {
        self.ask(caller, INTROSPECT, role, audience_context(audience)?)
    }

    fn evaluate(&self, caller: &Caller, question: &Question<'_>) -> Result<Verdict, String> {
        let answer = self.ask(caller, ISSUE, question.role, context(caller, question)?)?;
        let reasons = answer.reasons.iter().map(String::as_str);
        match answer.permits {
            false => Ok(Verdict::Denied { forbidden_by: answer.reasons.first().cloned() }),
            true => {
                let permits = reasons.filter_map(|id| Some((id, self.limits.get(id)?)));
                Ok(weigh(permits, question).map_or(Verdict::ScopeDenied, Verdict::Granted))
            }
        }
    }

    fn ask(
        &self,
        caller: &Caller,
        action: &str,
        role: &str,
        context: Context,
    ) -> Result<Answer, String> {
        let (request, entities) = self.request(caller, action, role, context)?;
        let response = Authorizer::new().is_authorized(&request, &self.policies, &entities);
        // Cedar passes over a policy that fails, be it the one that would forbid.
        if let Some(error) = response.diagnostics().errors().next() {
            return Err(error.to_string());
        }
        let mut reasons: Vec<String> =
            response.diagnostics().reason().map(ToString::to_string).collect();
        reasons.sort_unstable();
        Ok(Answer { permits: response.decision() == Decision::Allow, reasons })
    }

    /// What Cedar is asked.
    fn request(
        &self,
        caller: &Caller,
        action: &str,
        role: &str,
        context: Context,
    ) -> Result<(Request, Entities), String> {
        let failed = |what: &str, cause: &dyn std::error::Error| format!("{what}: {cause}");
        let principal = uid("User", caller.id())?;
        let entity = caller_entity(principal.clone(), caller)?;
        let entities = Entities::from_entities([entity], Some(&self.schema))
            .map_err(|cause| failed("the caller", &cause))?;
        let request = Request::new(
            principal,
            uid("Action", action)?,
            uid("Role", role)?,
            context,
            Some(&self.schema),
        )
        .map_err(|cause| failed("the request", &cause))?;
        Ok((request, entities))
    }
}

/// Chooses among permits: of those that cover the scope that is wanted, the one
/// with the longest lifetime; among equals, the first by id.
fn weigh<'a>(
    permits: impl Iterator<Item = (&'a str, &'a Limits)>,
    question: &Question<'_>,
) -> Option<Granted> {
    let mut best: Option<(&str, &Limits)> = None;
    for (id, limits) in permits {
        let covers = question.scope.is_none_or(|wanted| {
            wanted.iter().all(|s| limits.scope.contains(s) && question.role_scopes.contains(s))
        });
        let better = best.is_none_or(|(best_id, best)| {
            (limits.ttl, std::cmp::Reverse(id)) > (best.ttl, std::cmp::Reverse(best_id))
        });
        if covers && better {
            best = Some((id, limits));
        }
    }
    best.map(|(id, limits)| Granted {
        policy_id: id.to_string(),
        ttl: question.ttl.unwrap_or(Duration::MAX).min(question.role_ttl).min(limits.ttl),
        scope: match question.scope {
            Some(wanted) => wanted.clone(),
            None => limits.scope.intersection(question.role_scopes).cloned().collect(),
        },
    })
}

fn uid(kind: &str, id: &str) -> Result<EntityUid, String> {
    let kind: EntityTypeName = kind.parse().map_err(|cause| format!("{kind}: {cause}"))?;
    Ok(EntityUid::from_type_name_and_id(kind, EntityId::new(id)))
}

fn texts<'a>(values: impl IntoIterator<Item = &'a String>) -> RestrictedExpression {
    RestrictedExpression::new_set(values.into_iter().cloned().map(RestrictedExpression::new_string))
}

fn caller_entity(uid_of_caller: EntityUid, caller: &Caller) -> Result<Entity, String> {
    let text = |text: &str| RestrictedExpression::new_string(text.to_string());
    let groups: Result<Vec<EntityUid>, String> =
        caller.groups().iter().map(|group| uid("Group", group)).collect();
    let principal = caller.principal();
    Entity::new_with_tags(
        uid_of_caller,
        [
            ("issuer".to_string(), text(&principal.issuer)),
            ("subject".to_string(), text(&principal.subject)),
        ],
        groups?,
        caller.tags().iter().map(|(name, values)| (name.clone(), texts(values))),
    )
    .map_err(|cause| format!("the caller: {cause}"))
}

fn text_pair(name: &str, text: &str) -> (String, RestrictedExpression) {
    (name.to_string(), RestrictedExpression::new_string(text.to_string()))
}

fn audience_context(audience: &str) -> Result<Context, String> {
    Context::from_pairs([text_pair("audience", audience)])
        .map_err(|cause| format!("the context: {cause}"))
}

fn context(caller: &Caller, question: &Question<'_>) -> Result<Context, String> {
    let ttl = question.ttl.unwrap_or(question.role_ttl).as_secs();
    let ttl = RestrictedExpression::new_long(i64::try_from(ttl).unwrap_or(i64::MAX));
    let pairs = [
        text_pair("audience", question.audience),
        ("scope".to_string(), texts(question.scope.unwrap_or(question.role_scopes))),
        ("ttl".to_string(), ttl),
        ("key_bound".to_string(), RestrictedExpression::new_bool(question.key_bound)),
    ];
    let client = caller.authenticated_client().map(|client| text_pair("client", client));
    Context::from_pairs(pairs.into_iter().chain(client))
        .map_err(|cause| format!("the context: {cause}"))
}

#[cfg(test)]
mod tests;
