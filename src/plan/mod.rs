//! Planning: what a run will do, resolved before it does anything.
//!
//! Planning is pure. It reads no file, asks no server and no clock; what was
//! detected is handed in. A plan holds no secret: it can be printed, compared
//! and hashed.

mod choose;
mod detect;
mod elevate;
mod resolve;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

pub use resolve::{identity, plan};

use crate::host::Host;
use crate::identity;
use crate::mint;
use crate::reach::Wish;

/// What the command line asks for, beyond what the configuration says, and what was
/// found out about the place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// The profile named on the command line.
    pub profile: Option<String>,
    /// `--role`
    pub role: Option<String>,
    /// `--elevate`: the role that the broker of the profile is asked for under a grant
    pub elevate: Option<String>,
    /// `--scope`, replacing the profile's
    pub scope: Vec<String>,
    /// `--audience`
    pub audience: Option<String>,
    /// `--ttl`
    pub ttl: Option<Duration>,
    /// The identity sources, and whether they can be used here. It is looked at
    /// where the configuration leaves open which one to use.
    pub detected: Vec<identity::Candidate>,
    /// `--policy`, `--policy-arn` and `--read-only`
    pub narrowing: mint::Narrowing,
}

/// The resolved, secret-free description of what a run will do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// The profile's name.
    pub profile: String,
    /// The one identity source.
    pub identity: Identity,
    /// The steps between the source and the target.
    pub exchanges: Vec<mint::Exchange>,
    /// What is asked for the credential.
    pub target: mint::Plan,
    /// What is asked of it.
    pub request: mint::Request,
    /// Further variables for the child, with templates such as `{token}`.
    pub env: BTreeMap<String, String>,
    /// How long the command is expected to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_runtime: Option<Duration>,
    /// Where each value came from, for `explain`.
    pub reasons: Vec<Reason>,
}

/// The identity source of a plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Identity {
    /// Its name in the configuration.
    pub name: String,
    /// Its settings.
    pub settings: identity::Settings,
}

/// Why a value of the plan is what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The value's name, such as `role`.
    pub what: String,
    /// The value, as a person would write it.
    pub value: String,
    /// Where it came from, such as `~/.config/tmpcred/config.toml:12`, `--role` or `built-in`.
    pub origin: String,
}

/// The origin of what was said on the command line without an option.
pub(crate) const ARGUMENT: &str = "argument";

impl Plan {
    /// The profile, where whoever runs the command has named it: others of theirs have to, too.
    pub fn named_profile(&self) -> Option<&str> {
        let is_named = |reason: &Reason| reason.what == "profile" && reason.origin == ARGUMENT;
        self.reasons.iter().any(is_named).then_some(&self.profile)
    }

    /// The audience that the first assertion must be bound to: that of the
    /// first exchange, or of the target.
    pub fn assertion_audience(&self) -> String {
        match self.exchanges.first() {
            Some(step) => step.server.audience(),
            None => self.target.open().assertion_audience(),
        }
    }

    /// The same up to the broker that gives roles for it: its target, or the one that is asked
    /// for its only exchange. `None` where no broker is.
    pub fn at_broker(&self) -> Option<Self> {
        if self.target.broker().is_some() {
            return Some(self.clone());
        }
        let [step] = &self.exchanges[..] else { return None };
        let mint::Exchange { server, role, scope, audience, elevation } = step.clone();
        let target = mint::Plan::Broker(server);
        let request = mint::Request { role, scope, audience, ttl: None, elevation };
        Some(Self { exchanges: Vec::new(), target, request, ..self.clone() })
    }

    /// The same with this grant for the role that its broker is asked for.
    #[must_use]
    pub fn under(mut self, grant: Uuid) -> Self {
        match (self.target.broker(), &mut self.exchanges[..]) {
            (None, [step]) => step.elevation = Some(grant),
            _ => self.request.elevation = Some(grant),
        }
        self
    }

    /// Whether anything on the way is bound to the key of this device.
    pub fn wants_key(&self) -> bool {
        self.target.binds() || self.exchanges.iter().any(|step| step.server.dpop)
    }

    /// Lets the next run ask also those who are left alone because they did not serve.
    pub fn insist(&self, host: &Host, wish: Wish) {
        self.identity.settings.insist(host, wish);
        self.exchanges.iter().for_each(|step| step.insist(host, wish));
        self.target.insist(host, wish);
    }

    /// What identifies the credential that this plan yields: all that changes
    /// its meaning, and nothing that only changes how it is handed out.
    pub fn fingerprint(&self) -> Vec<u8> {
        #[derive(Debug, Serialize)]
        struct Fingerprint<'a> {
            identity: &'a identity::Settings,
            exchanges: &'a [mint::Exchange],
            target: &'a mint::Plan,
            request: &'a mint::Request,
        }
        let fingerprint = Fingerprint {
            identity: &self.identity.settings,
            exchanges: &self.exchanges,
            target: &self.target,
            request: &self.request,
        };
        // Only a path that is not Unicode has no JSON form. Two different plans
        // must never look the same, so that one is written in another way.
        serde_json::to_vec(&fingerprint).unwrap_or_else(|_| format!("{fingerprint:?}").into_bytes())
    }
}

#[cfg(test)]
mod tests;
