//! Trying policies without a broker: the decision about a supposed caller, which is the
//! one that a broker would make, down to what it requires of their token.

mod cases;
mod elevation;
mod explain;
mod operation;
mod supposed;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub use cases::{Case, CaseResult, Cases, Difference, Expected};
pub use elevation::Approvers;
pub use explain::{Considered, Explanation, Found, Holds, Part};
use supposed::configured;
pub use supposed::{Supposed, claims};

use super::load::{Source, World};
use super::{Moment, Operation, Policy};
use crate::broker::authenticate::{Caller, said};
use crate::broker::client;
use crate::broker::config::{self, Client, Config};
use crate::broker::decide::{Denied, Rules, Wanted, Why};
use crate::broker::directory::Directory;
use crate::broker::elevation::{Path, Underway};
use crate::credential::Principal;
use crate::error::{Error, ErrorKind, Result};

/// What a caller does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// To be issued a token; to exchange one, where the caller is of the broker's own issuer.
    #[default]
    Issue,
    /// To be told about a token.
    Introspect,
    /// To revoke tokens of others.
    Revoke,
    /// To look after the broker.
    Administer,
    /// To ask for a role for a while.
    Elevate,
    /// To approve that.
    Approve,
}

/// What somebody asks.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asking {
    /// Who asks.
    pub caller: Supposed,
    /// Who acts for them, and has a good token that says this.
    #[serde(default)]
    pub actor: Option<Supposed>,
    /// What for.
    #[serde(default)]
    pub action: Action,
    /// The role; of what is revoked, where that has one.
    #[serde(default)]
    pub role: Option<String>,
    /// What is done, where that is to look after the broker.
    #[serde(default)]
    pub operation: Option<String>,
    /// By what the tokens are named that are revoked.
    #[serde(default)]
    pub what: Option<String>,
    /// The issuer of whose tokens are revoked, or of for whom something is approved.
    #[serde(default)]
    pub of_issuer: Option<String>,
    /// Their subject, letter by letter.
    #[serde(default)]
    pub of_subject: Option<String>,
    /// The client to which they were issued.
    #[serde(default)]
    pub of_client: Option<String>,
    /// The path of the grant under which a token is issued, where it is under one, or on which
    /// a role is asked for; the ordinary one where left out.
    #[serde(default)]
    pub path: Option<Path>,
    /// Whom the token is for; where left out, the only audience of the role.
    #[serde(default)]
    pub audience: Option<String>,
    /// The scopes, separated by spaces; where left out, whatever can be had.
    #[serde(default)]
    pub scope: Option<String>,
    /// The lifetime; where left out, as long as can be had.
    #[serde(default, deserialize_with = "duration")]
    pub ttl: Option<Duration>,
    /// Whether the caller proves a key of their own, which the token will be bound to.
    #[serde(default)]
    pub key_bound: bool,
    /// The client that has authenticated; none where left out.
    #[serde(default)]
    pub client: Option<String>,
    /// When; now where left out.
    #[serde(default, deserialize_with = "moment")]
    pub time: Option<OffsetDateTime>,
    /// From where; this machine where left out.
    #[serde(default)]
    pub source: Option<IpAddr>,
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    config::parse_duration(&text).map(Some).map_err(de::Error::custom)
}

fn moment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<OffsetDateTime>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_moment(&text).map(Some).map_err(de::Error::custom)
}

/// Reads a moment such as `2026-01-01T12:00:00Z`.
pub fn parse_moment(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|cause| format!("'{text}' is not a moment such as 2026-01-01T12:00:00Z: {cause}"))
}

/// What is decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "decision", rename_all = "lowercase")]
pub enum Outcome {
    /// It may be had.
    Permit {
        /// The permit.
        policy: String,
        /// The lifetime in seconds; `None` where no token is issued.
        ttl: Option<u64>,
        /// The scope; `None` where no token is issued.
        scope: Option<BTreeSet<String>>,
        /// What the token says besides.
        #[serde(skip_serializing_if = "Map::is_empty")]
        claims: Map<String, Value>,
    },
    /// It may not be had.
    Deny {
        /// Why.
        reason: Why,
        /// The policy that forbids it.
        policy: Option<String>,
        /// The same in words.
        said: String,
    },
}

impl Outcome {
    /// Something is permitted of which no token comes.
    fn permit(policy: String) -> Self {
        Self::Permit { policy, ttl: None, scope: None, claims: Map::new() }
    }
}

impl From<Denied> for Outcome {
    fn from(denied: Denied) -> Self {
        Self::Deny { reason: denied.why, policy: denied.policy_id, said: denied.said }
    }
}

/// Policies, to be tried.
#[derive(Debug)]
pub struct Trial<'a> {
    config: &'a Config,
    sources: Vec<Source>,
    policy: Policy,
}

impl<'a> Trial<'a> {
    /// Reads the policies that this configuration names.
    pub fn new(config: &'a Config, now: OffsetDateTime) -> Result<Self> {
        Self::of(config, Source::read_all(&config.policy.files)?, config.directory(now)?)
    }

    fn of(
        config: &'a Config,
        sources: Vec<Source>,
        directory: Option<Arc<Directory>>,
    ) -> Result<Self> {
        let world = World::of(config, directory.as_ref());
        let policy = Policy::load(&sources, world)?;
        Ok(Self { config, sources, policy })
    }

    /// Decides as a broker would that has these policies.
    ///
    /// # Errors
    /// A question that cannot be asked, such as an issuer that nobody knows.
    pub fn decide(&self, asking: &Asking, now: OffsetDateTime) -> Result<Outcome> {
        let asked = self.ask(asking, now)?;
        Ok(asked.outcome(self))
    }

    fn rules(&self) -> Rules<'_> {
        Rules { policy: &self.policy, roles: &self.config.role }
    }

    fn ask<'q>(&'q self, asking: &'q Asking, now: OffsetDateTime) -> Result<Asked<'q>> {
        let now = asking.time.unwrap_or(now);
        // Nobody can ask for that: requests say whole seconds.
        if asking.ttl.is_some_and(|ttl| ttl < Duration::from_secs(1)) {
            return Err(usage("the lifetime has to be a second or more".into()));
        }
        let scope = asking.scope.as_deref();
        let operation = operation::of(asking)?;
        let (role, audience) = match &operation {
            Some(_) => ("", ""),
            None => self.role_and_audience(asking)?,
        };
        let under = |path| Underway::supposed(path, now.saturating_add(time::Duration::DAY));
        Ok(Asked {
            caller: self.admitted(asking, now)?,
            about: elevation::about(asking, &self.config.trusted_issuer)?,
            path: asking.path,
            elevation: asking.path.map(under),
            action: asking.action,
            operation,
            role,
            audience,
            scope: scope.map(|scope| scope.split_ascii_whitespace().map(String::from).collect()),
            ttl: asking.ttl,
            key_bound: asking.key_bound,
            source: asking.source.unwrap_or(Ipv4Addr::LOCALHOST.into()),
            now,
        })
    }

    fn role_and_audience<'q>(&'q self, asking: &'q Asking) -> Result<(&'q str, &'q str)> {
        let Some(role) = asking.role.as_deref() else {
            return Err(usage("it is not said which role is asked for: role".into()));
        };
        let audience = match (&asking.audience, self.config.role.get(role)) {
            (Some(audience), _) => audience,
            // There is no such role, and so nothing is had whatever it is for.
            (None, None) => "",
            (None, Some(known)) => match known.audiences.first() {
                Some(one) if known.audiences.len() == 1 => one,
                _ => {
                    let why = format!("the role '{role}' has several audiences");
                    return Err(usage(why).hint("name the one that is meant"));
                }
            },
        };
        Ok((role, audience))
    }

    /// The caller, through the client that has authenticated; or that one would have to.
    fn admitted(
        &self,
        asking: &Asking,
        now: OffsetDateTime,
    ) -> Result<std::result::Result<Caller, Denied>> {
        let clients = &self.config.client;
        let client = asking.client.as_deref();
        if let Some(unknown) =
            client.filter(|id| !clients.get(*id).is_some_and(Client::authenticates))
        {
            let known = clients.iter().filter(|(_, client)| client.authenticates());
            let known: Vec<_> = known.map(|(id, _)| id.as_str()).collect();
            return Err(usage(format!("there is no client '{unknown}' that authenticates"))
                .hint(configured(&known)));
        }
        if asking.action != Action::Issue {
            let Supposed { issuer, subject, .. } = &asking.caller;
            let own = &self.config.issuer;
            if client.is_some() {
                return Err(usage("who asks for this, does so in one name".into()).hint(format!(
                    "the caller is the client where its issuer is {own}, and its subject the client"
                )));
            }
            if asking.action == Action::Elevate && asking.path == Some(Path::ProviderDown) {
                return match &asking.actor {
                    None => self.signer(&asking.caller, now),
                    Some(_) => Err(usage("nobody acts for who signs what they ask for".into())),
                };
            }
            if issuer == own.as_str() && clients.get(subject).is_some_and(Client::authenticates) {
                return Ok(Ok(Caller::of_client(own, subject, now)));
            }
            return self.parties(asking, now);
        }
        let through = |caller| {
            let through = client::through(clients, caller, client, asking.key_bound);
            through.map_err(|error| Denied::new(Why::Token, said(&error)))
        };
        Ok(self.parties(asking, now)?.and_then(through))
    }

    /// The caller, and who acts for them where somebody does; or that the token of one of
    /// them would not be accepted.
    fn parties(
        &self,
        asking: &Asking,
        now: OffsetDateTime,
    ) -> Result<std::result::Result<Caller, Denied>> {
        let caller = self.caller(&asking.caller, now)?;
        let Some(actor) = &asking.actor else { return Ok(caller) };
        let actor = self.caller(actor, now)?;
        let refused = |error: Error| Denied::new(Why::Token, said(&error));
        Ok(caller
            .and_then(|caller| actor.and_then(|actor| caller.acted_for_by(actor).map_err(refused))))
    }
}

/// What is asked, once it can be.
struct Asked<'a> {
    caller: std::result::Result<Caller, Denied>,
    action: Action,
    /// What is asked for, where it is not about a token that is issued or looked at.
    operation: Option<Operation>,
    /// For whom something is approved, where that is what is done.
    about: Option<Principal>,
    /// On which path a role is asked for.
    path: Option<Path>,
    /// Under which grant a token is issued.
    elevation: Option<Underway>,
    role: &'a str,
    audience: &'a str,
    scope: Option<BTreeSet<String>>,
    ttl: Option<Duration>,
    key_bound: bool,
    source: IpAddr,
    now: OffsetDateTime,
}

impl Asked<'_> {
    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            role: self.role,
            audience: self.audience,
            scope: self.scope.as_ref(),
            ttl: self.ttl,
            key_bound: self.key_bound,
            jwt: false,
            elevation: self.elevation.as_ref(),
            source: self.source,
        }
    }

    fn moment(&self) -> Moment {
        Moment { now: self.now, source: self.source }
    }

    fn outcome(&self, trial: &Trial<'_>) -> Outcome {
        let caller = self.caller.as_ref().map_err(Denied::clone);
        caller.and_then(|caller| self.decide(trial, caller)).unwrap_or_else(Outcome::from)
    }

    fn decide(&self, trial: &Trial<'_>, caller: &Caller) -> std::result::Result<Outcome, Denied> {
        let rules = trial.rules();
        if let Some(operation) = &self.operation {
            let permit = rules.operate(caller, operation, self.moment())?;
            return Ok(Outcome::permit(permit));
        }
        match self.action {
            Action::Introspect => self.introspects(trial, caller),
            Action::Elevate => self.elevates(trial, caller),
            Action::Approve => self.approves(trial, caller),
            _ => {
                let (granted, told) = rules.decide(caller, self.wanted(), self.now)?;
                Ok(Outcome::Permit {
                    policy: granted.policy_id,
                    ttl: Some(granted.ttl.as_secs()),
                    scope: Some(granted.scope),
                    claims: told.all(),
                })
            }
        }
    }

    fn introspects(
        &self,
        trial: &Trial<'_>,
        caller: &Caller,
    ) -> std::result::Result<Outcome, Denied> {
        // What a token that is there already is bound to is no matter.
        trial.rules().role(Wanted { key_bound: true, ..self.wanted() })?;
        let who = caller.id();
        let answer = trial
            .policy
            .introspects(caller, self.role, self.audience, self.moment())
            .map_err(|why| Denied::new(Why::Failed, why))?;
        match (answer.permits, answer.reasons.into_iter().next()) {
            (true, Some(policy)) => Ok(Outcome::permit(policy)),
            (_, None) => Err(Denied::new(
                Why::NoPermit,
                format!("no policy lets '{who}' introspect tokens of the role"),
            )),
            (false, policy_id) => {
                let said = format!("a policy forbids '{who}' to introspect");
                Err(Denied { policy_id, ..Denied::new(Why::Forbidden, said) })
            }
        }
    }
}

fn usage(why: String) -> Error {
    Error::new(ErrorKind::Usage, why)
}

#[cfg(test)]
mod tests;
