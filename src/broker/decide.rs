//! Deciding, without any effect: what an issuance does before it records, and what
//! policies are tried with.

mod bounds;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

pub(super) use self::bounds::Bounds;
use self::bounds::ended;
use super::authenticate::Caller;
use super::config::{Binding, Role, TokenFormat};
use super::elevation::Underway;
use super::policy::{Answer, Elevating, Granted, Moment, Operation, Policy, Question, Verdict};
use super::told::{AdditionalClaims, Untold};
use crate::trace;

/// What decides: one version of the policies, and the roles.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// The policies.
    pub policy: &'a Policy,
    /// The roles.
    pub roles: &'a BTreeMap<String, Role>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The role.
    pub role: &'a str,
    /// Whom the token is for.
    pub audience: &'a str,
    /// The scope; `None`: whatever can be had.
    pub scope: Option<&'a BTreeSet<String>>,
    /// The lifetime; `None`: as long as can be had.
    pub ttl: Option<Duration>,
    /// Whether the caller has proved a key that the token will be bound to.
    pub key_bound: bool,
    /// Whether nothing but a JWT will do.
    pub jwt: bool,
    /// The grant under which it is wanted, where there is one.
    pub elevation: Option<&'a Underway>,
    /// From where.
    pub source: IpAddr,
}

/// Why something is not to be had, as far as a program needs to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// The caller's token says too little, or something that is not accepted.
    Token,
    /// There is no such role.
    Role,
    /// The role is not for this audience.
    Audience,
    /// The role, the token that is exchanged, or every single permit has less scope.
    Scope,
    /// The role's tokens are bound to a key, and none was proved.
    Unbound,
    /// The token that is exchanged is at its end.
    Ended,
    /// No policy permits it.
    NoPermit,
    /// A policy forbids it.
    Forbidden,
    /// Whoever acts for the caller may not.
    Actor,
    /// The directory of people is out of date, and policies use it, or the role's tokens tell of it.
    Directory,
    /// A policy cannot be evaluated.
    Failed,
    /// AWS could not be told what the role wants it to be told.
    Aws,
    /// The tokens of the role have claims that cannot be had for the caller.
    Claims,
    /// The role is had under a grant only, and there is none that serves.
    Elevation,
}

impl Why {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Token,
        Self::Role,
        Self::Audience,
        Self::Scope,
        Self::Unbound,
        Self::Ended,
        Self::NoPermit,
        Self::Forbidden,
        Self::Actor,
        Self::Directory,
        Self::Failed,
        Self::Aws,
        Self::Claims,
        Self::Elevation,
    ];

    /// Its name, as it is written in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Role => "role",
            Self::Audience => "audience",
            Self::Scope => "scope",
            Self::Unbound => "unbound",
            Self::Ended => "ended",
            Self::NoPermit => "no-permit",
            Self::Forbidden => "forbidden",
            Self::Actor => "actor",
            Self::Directory => "directory",
            Self::Failed => "failed",
            Self::Aws => "aws",
            Self::Claims => "claims",
            Self::Elevation => "elevation",
        }
    }
}

/// Something that is not to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Why.
    pub why: Why,
    /// What the caller is told.
    pub said: String,
    /// What goes on record, which names the caller elsewhere.
    pub reason: String,
    /// The policy that forbids it.
    pub policy_id: Option<String>,
    /// The grant that is missing, where it is that.
    pub missing: Option<Missing>,
}

/// A grant that somebody does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// They may ask for one.
    Unasked,
    /// They have asked for this one, and it has not begun.
    Waits(Uuid),
}

impl Denied {
    pub(super) fn new(why: Why, said: impl Into<String>) -> Self {
        let said = said.into();
        Self { why, reason: said.clone(), said, policy_id: None, missing: None }
    }
}

/// Says in the trace what was decided, and by which policy.
fn note(step: &trace::Step, decided: Result<&str, &Denied>) {
    let (decision, policy) = match decided {
        Ok(permit) => ("granted", Some(permit)),
        Err(denied) => {
            step.note("tmpcred.reason", denied.why.name());
            ("denied", denied.policy_id.as_deref())
        }
    };
    step.note("tmpcred.decision", decision);
    if let Some(policy) = policy {
        step.note("tmpcred.policy.id", policy.to_string());
    }
}

impl Rules<'_> {
    /// The same as [`decide`](Self::decide), and says in the trace what came of it.
    pub(super) fn decide_in_trace(
        &self,
        caller: &Caller,
        wanted: Wanted<'_>,
        now: OffsetDateTime,
    ) -> Result<(Granted, AdditionalClaims), Denied> {
        let step = trace::step("decide");
        step.note("tmpcred.policy.hash", self.policy.hash().to_string());
        // Of the others anybody can ask for anything.
        if self.roles.contains_key(wanted.role) {
            step.note("tmpcred.role", wanted.role.to_string());
        }
        let decided = step.within(|| self.decide(caller, wanted, now));
        note(&step, decided.as_ref().map(|(granted, _)| granted.policy_id.as_str()));
        decided
    }

    /// Decides on a token: what is granted, and what the token says besides.
    pub(super) fn decide(
        &self,
        caller: &Caller,
        wanted: Wanted<'_>,
        now: OffsetDateTime,
    ) -> Result<(Granted, AdditionalClaims), Denied> {
        let role = self.role(wanted)?;
        let bounds = Bounds::of(caller, role, wanted, now)?;
        let question = bounds.question(wanted, now);
        let verdict = self.policy.decide(caller, &question);
        let denied = |why: Why, said: &str, policy_id| {
            let reason = format!("{said} the role '{}'", wanted.role);
            let said = format!("{reason} to '{}'", caller.id());
            Denied { reason, policy_id, ..Denied::new(why, said) }
        };
        let granted = match verdict {
            Verdict::Granted(granted) => granted,
            Verdict::ScopeDenied => {
                let said = format!(
                    "no policy permits all of the scope that was asked for, in the role '{}'",
                    wanted.role
                );
                return Err(Denied::new(Why::Scope, said));
            }
            Verdict::OnlyOpaque => {
                return Err(denied(Why::NoPermit, "no policy permits a JWT of", None));
            }
            Verdict::Unbound => {
                let said = format!(
                    "the role '{}' is permitted only to whoever proves a key of their own (DPoP)",
                    wanted.role
                );
                return Err(Denied::new(Why::Unbound, said));
            }
            Verdict::Ended => return Err(ended()),
            Verdict::Denied { forbidden_by: None } => {
                return Err(denied(Why::NoPermit, "no policy permits", None));
            }
            Verdict::Denied { forbidden_by } => {
                return Err(denied(Why::Forbidden, "a policy forbids", forbidden_by));
            }
            Verdict::Stale => {
                tracing::error!("denied, because the directory of people is out of date");
                let said = "the directory of people is out of date, so no policy permits";
                return Err(denied(Why::Directory, said, None));
            }
            Verdict::Failed { why } => {
                tracing::error!(why, "a policy cannot be evaluated");
                return Err(denied(Why::Failed, "a policy failed, which denies", None));
            }
        };
        self.may_act(caller, &question)?;
        // Whoever may not have the role anyway is not told in which form others have it.
        if wanted.jwt && role.token_format == TokenFormat::Opaque {
            let said = format!("tokens of the role '{}' are no JWTs", wanted.role);
            return Err(Denied::new(Why::NoPermit, said));
        }
        Ok((granted, self.told(caller, wanted, role, now)?))
    }

    /// What the caller's token says besides, in this role.
    fn told(
        &self,
        caller: &Caller,
        wanted: Wanted<'_>,
        role: &Role,
        now: OffsetDateTime,
    ) -> Result<AdditionalClaims, Denied> {
        let own = wanted.elevation.map(Underway::claim);
        let grant = own.as_ref().or(caller.grant());
        let people = (self.policy.directory().map(Arc::as_ref), now);
        role.told().of(caller, grant, people).map_err(|untold| {
            let (kind, why) = match untold {
                Untold::Aws(why) => (Why::Aws, why),
                Untold::Claims(why) => (Why::Claims, why),
                Untold::Stale => {
                    tracing::error!("denied, because the directory of people is out of date");
                    let why =
                        "its tokens say what is in the directory of people, which is out of date";
                    (Why::Directory, why.into())
                }
            };
            let name = wanted.role;
            let said = format!("the role '{name}' cannot be given to '{}': {why}", caller.id());
            let reason = format!("the role '{name}' cannot be given: {why}");
            Denied { reason, ..Denied::new(kind, said) }
        })
    }

    /// Whether who acts for the caller may do so.
    fn may_act(&self, caller: &Caller, question: &Question<'_>) -> Result<(), Denied> {
        let Some(actor) = caller.actors().first() else { return Ok(()) };
        let denied = |why: Why, said: &str, policy_id| Denied {
            policy_id,
            reason: format!("{said} in the role '{}'", question.role),
            ..Denied::new(why, format!("{said} for '{}': '{}'", caller.id(), actor.id()))
        };
        if caller.actor().is_none() && self.policy.needs().more_than_name_of(actor) {
            let said = "policies forbid by groups or claims, and the token says neither of who acts (show it as actor_token)";
            return Err(denied(Why::Token, said, None));
        }
        match self.policy.may_act(caller, question) {
            Ok(Answer { permits: true, .. }) => Ok(()),
            Ok(Answer { reasons, .. }) => Err(match reasons.into_iter().next() {
                None => denied(Why::Actor, "no policy lets somebody act", None),
                forbidden_by => {
                    denied(Why::Actor, "a policy forbids somebody to act", forbidden_by)
                }
            }),
            Err(why) => {
                tracing::error!(why, "a policy cannot be evaluated");
                Err(denied(Why::Failed, "a policy failed, which denies to act", None))
            }
        }
    }

    /// The same as [`operate`](Self::operate), and says in the trace what came of it.
    pub(super) fn operate_in_trace(
        &self,
        caller: &Caller,
        operation: &Operation,
        moment: Moment,
    ) -> Result<String, Denied> {
        let step = trace::step("decide");
        step.note("tmpcred.policy.hash", self.policy.hash().to_string());
        let decided = step.within(|| self.operate(caller, operation, moment));
        note(&step, decided.as_ref().map(String::as_str));
        decided
    }

    /// Decides about an operation: the permit by which it may be done.
    pub(super) fn operate(
        &self,
        caller: &Caller,
        operation: &Operation,
        moment: Moment,
    ) -> Result<String, Denied> {
        // It does not say whose tokens they are: the record of a denial names nobody else.
        let denied = |why: Why, said: &str, policy_id| {
            let said = format!("{said} {operation}");
            Denied { policy_id, ..Denied::new(why, said) }
        };
        let answer = self.policy.operates(caller, operation, moment).map_err(|why| {
            tracing::error!(why, "a policy cannot be evaluated");
            denied(Why::Failed, "a policy failed, which denies", None)
        })?;
        self.permit_of(answer, denied)
    }

    /// Decides whether somebody may ask for a role for a while: the permit by which they may.
    pub(super) fn elevate(
        &self,
        caller: &Caller,
        asked: &Elevating<'_>,
        moment: Moment,
    ) -> Result<String, Denied> {
        let what = match asked.emergency {
            false => format!("to ask for the role '{}'", asked.role),
            true => format!("to have the role '{}' without approval", asked.role),
        };
        let denied = |why: Why, said: &str, policy_id| {
            let said = format!("{said} {what}");
            Denied { policy_id, ..Denied::new(why, said) }
        };
        let answer = self.policy.elevates(caller, asked, moment).map_err(|why| {
            tracing::error!(why, "a policy cannot be evaluated");
            denied(Why::Failed, "a policy failed, which denies", None)
        })?;
        self.permit_of(answer, denied)
    }

    /// The permit by which something may be done, where it may.
    fn permit_of(
        &self,
        answer: Answer,
        denied: impl Fn(Why, &str, Option<String>) -> Denied,
    ) -> Result<String, Denied> {
        match (answer.permits, answer.reasons.into_iter().next()) {
            (true, Some(policy)) => Ok(policy),
            (_, None) if answer.stale => {
                tracing::error!("denied, because the directory of people is out of date");
                let said = "the directory of people is out of date, so no policy permits";
                Err(denied(Why::Directory, said, None))
            }
            (_, None) => Err(denied(Why::NoPermit, "no policy permits", None)),
            (false, by) => Err(denied(Why::Forbidden, "a policy forbids", by)),
        }
    }

    /// The role that is asked for, where it can be had for this audience and scope
    /// at all.
    pub(super) fn role(&self, wanted: Wanted<'_>) -> Result<&Role, Denied> {
        let role = self
            .roles
            .get(wanted.role)
            .ok_or_else(|| Denied::new(Why::Role, format!("there is no role '{}'", wanted.role)))?;
        if !role.audiences.contains(wanted.audience) {
            let possible: Vec<_> = role.audiences.iter().map(|a| format!("'{a}'")).collect();
            let said = format!(
                "the role '{}' is for {}, not for '{}'",
                wanted.role,
                possible.join(", "),
                wanted.audience
            );
            return Err(Denied::new(Why::Audience, said));
        }
        if role.elevation.is_some() && wanted.elevation.is_none() {
            let said = format!("the role '{}' is had under a grant only", wanted.role);
            return Err(Denied::new(Why::Elevation, said));
        }
        let unknown =
            wanted.scope.into_iter().flatten().find(|scope| !role.scopes.contains(*scope));
        if let Some(unknown) = unknown {
            let said = format!("the role '{}' has no scope '{unknown}'", wanted.role);
            return Err(Denied::new(Why::Scope, said));
        }
        if role.dpop == Binding::Required && !wanted.key_bound {
            let said = format!(
                "the role '{}' is given only to whoever proves a key of their own (DPoP)",
                wanted.role
            );
            return Err(Denied::new(Why::Unbound, said));
        }
        Ok(role)
    }
}
