//! Targets: what is asked for a credential.
//!
//! To add one, write a file with its `Settings` (as configured), its plan (as
//! resolved) and a [`Target`], and add its line to the list and to [`Plan`].

pub mod addresses;
pub(crate) mod elevation;
mod nonces;
pub(crate) mod proving;
mod revocation;
pub(crate) mod said;
mod standing;
#[cfg(test)]
mod tests;
mod token_exchange;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use uuid::Uuid;

use crate::aws::sso::Server;
use crate::credential::{Assertion, Credential, Proof};
use crate::dpop::DeviceKey;
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::oidc::Issuer;
use crate::reach::{self, Effort, Wish};

crate::registry::registry! {
    /// The settings of a profile's `target` table.
    "broker" => Broker in broker,
    "aws" => Aws in aws,
    "aws-sso" => AwsSso in aws_sso,
}

impl Settings {
    /// The plan for this target. `find` yields the broker with a name, or the
    /// only one there is.
    pub fn plan<E>(
        &self,
        find: impl FnOnce(Option<&str>) -> Result<broker::Server, E>,
    ) -> Result<Plan, E> {
        match self {
            Self::Broker(settings) => find(settings.broker.as_deref()).map(|server| {
                let dpop = settings.dpop.unwrap_or(server.dpop);
                Plan::Broker(broker::Server { dpop, ..server })
            }),
            Self::Aws(settings) => Ok(Plan::Aws(Box::new(settings.clone()))),
            Self::AwsSso(settings) => Ok(Plan::AwsSso(aws_sso::Plan::new(settings.clone()))),
        }
    }

    /// Whether a profile says whom the credential is to be shown to, and which
    /// scope it has. Credentials for a cloud are for that cloud.
    pub fn wants_audience(&self) -> bool {
        match self {
            Self::Broker(_) => true,
            Self::Aws(_) | Self::AwsSso(_) => false,
        }
    }
}

/// The brokers that the configuration knows, by name.
pub type Brokers = BTreeMap<String, broker::Server>;

/// A target with every reference resolved. It holds no secret.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Plan {
    /// A tmpcred broker.
    Broker(broker::Server),
    /// Roles in AWS.
    Aws(Box<aws::Settings>),
    /// Roles that IAM Identity Center assigns.
    AwsSso(aws_sso::Plan),
}

/// How long a credential lasts where nobody asks for a lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasts {
    /// The broker's policy decides.
    AsPolicySays,
    /// The permission set decides.
    AsPermissionSetSays,
    /// This is usual.
    Usually(Duration),
}

impl Plan {
    /// The target that this plan describes.
    pub fn open(&self) -> Box<dyn Target> {
        match self {
            Self::Broker(server) => Box::new(broker::Broker::new(server.clone())),
            Self::Aws(settings) => Box::new(aws::Aws::new(*settings.clone())),
            Self::AwsSso(plan) => Box::new(aws_sso::AwsSso::new(plan.clone())),
        }
    }

    /// How long a credential lasts where nobody asks for a lifetime.
    pub fn lasts(&self, role: &str) -> Lasts {
        match self {
            Self::Broker(_) => Lasts::AsPolicySays,
            Self::Aws(settings) => Lasts::Usually(settings.usual_ttl(role)),
            Self::AwsSso(plan) => plan.lasts(),
        }
    }

    /// The broker that it is, if it is one.
    pub fn broker(&self) -> Option<&broker::Server> {
        match self {
            Self::Broker(server) => Some(server),
            Self::Aws(_) | Self::AwsSso(_) => None,
        }
    }

    /// The issuer of its credentials, where it is a broker.
    pub fn issuer(&self) -> Option<&Issuer> {
        self.broker().map(broker::Server::issuer)
    }

    /// Whether its credentials are bound to the key of this device.
    pub fn binds(&self) -> bool {
        match self {
            Self::Broker(server) => server.dpop,
            Self::Aws(_) | Self::AwsSso(_) => false,
        }
    }

    /// Lets the next run ask also those who are left alone because they did not serve.
    pub fn insist(&self, host: &Host, wish: Wish) {
        match self {
            Self::Broker(server) => server.insist(host, wish),
            Self::Aws(settings) => reach::insist(host, &settings.address(), wish),
            Self::AwsSso(plan) => {
                plan.addresses().iter().for_each(|address| reach::insist(host, address, wish));
            }
        }
    }

    /// Whom the credential is for, where the target alone decides.
    pub fn own_audience(&self) -> Option<String> {
        match self {
            Self::Broker(_) => None,
            Self::Aws(settings) => Some(settings.audience()),
            Self::AwsSso(plan) => Some(plan.audience()),
        }
    }

    /// Fits the target to the identity whose assertions it will be shown. `portal` is
    /// that of an identity at IAM Identity Center.
    ///
    /// # Errors
    /// Where the two do not go together.
    pub fn fit(&mut self, portal: Option<Server>, exchanges: bool) -> Result<(), Refusal> {
        let refused = |why: &str, hint: &str| Err(Refusal::new("target", why).hint(hint));
        match (self, portal) {
            (Self::AwsSso(_), _) if exchanges => refused(
                "a session at IAM Identity Center cannot be exchanged",
                "leave `exchange` out",
            ),
            (Self::AwsSso(plan), Some(portal)) => {
                plan.at(portal);
                Ok(())
            }
            (Self::AwsSso(_), None) => refused(
                "its identity must be one of the type `aws-sso`",
                "name one with `identity`, and have a table for it with `type = \"aws-sso\"`",
            ),
            (Self::Broker(_) | Self::Aws(_), Some(_)) => refused(
                "a session at IAM Identity Center proves nothing elsewhere",
                "say `target = { type = \"aws-sso\", account_id = \"…\" }`, or name another identity",
            ),
            (Self::Broker(_) | Self::Aws(_), None) => Ok(()),
        }
    }

    /// How long a grant has to last at least for a credential with this lifetime to come of it.
    pub fn least_of_grant(&self, ttl: Option<Duration>) -> Option<Duration> {
        match self {
            // Its tokens last as long as is left.
            Self::Broker(_) | Self::AwsSso(_) => None,
            Self::Aws(_) => Some(aws::least_of_grant(ttl)),
        }
    }

    /// The partition of AWS that its credentials are of, where their role does not say so.
    pub fn partition(&self) -> Option<&'static str> {
        match self {
            Self::Broker(_) | Self::Aws(_) => None,
            Self::AwsSso(plan) => plan.partition(),
        }
    }

    /// Whether credentials of AWS come of it.
    pub fn yields_aws(&self) -> bool {
        matches!(self, Self::Aws(_) | Self::AwsSso(_))
    }

    /// Tells what of a request cannot be had, before anybody is asked.
    /// `role_is_option`: the role is not the profile's own. `proof`: how the caller
    /// proves who they are, where that is known.
    ///
    /// # Errors
    /// With the name of the value that is wrong.
    pub fn check(
        &self,
        role: &str,
        role_is_option: bool,
        ttl: Option<Duration>,
        proof: Option<Proof>,
    ) -> Result<(), Refusal> {
        match self {
            Self::Broker(_) if proof == Some(Proof::AwsAccessKeys) => Err(Refusal::access_keys()),
            Self::Broker(_) => broker::check_role(role),
            Self::Aws(settings) => settings.check(role, role_is_option, ttl, proof),
            Self::AwsSso(plan) => plan.check(role, role_is_option, ttl),
        }
    }

    /// Makes the credential good for less than the role is.
    ///
    /// # Errors
    /// Where the target cannot do that.
    pub fn narrow(&mut self, role: &str, by: &Narrowing) -> Result<(), Refusal> {
        match self {
            Self::Broker(_) if by.is_empty() => Ok(()),
            Self::Broker(_) => {
                let option = match by {
                    Narrowing { policy: Some(_), .. } => "policy",
                    Narrowing { read_only: true, .. } => "read-only",
                    _ => "policy-arn",
                };
                Err(Refusal::new(option, "the profile's target has no session policies")
                    .hint("a broker's credential is narrowed by `--scope`"))
            }
            Self::Aws(settings) => settings.narrow(role, by),
            Self::AwsSso(plan) => plan.narrow(by),
        }
    }

    /// Reads the files that the plan names. What they hold is part of the plan.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where one is missing or not valid.
    pub fn complete(&mut self) -> Result<()> {
        match self {
            Self::Broker(_) => Ok(()),
            Self::Aws(settings) => settings.complete(),
            Self::AwsSso(plan) => plan.complete(),
        }
    }

    /// What will be asked of the target, step by step, where that is more than one thing.
    pub fn steps(&self, role: &str, proof: Proof) -> Vec<String> {
        match self {
            Self::Broker(_) => Vec::new(),
            Self::Aws(settings) => settings.steps(role, proof),
            Self::AwsSso(plan) => plan.steps(role),
        }
    }
}

/// What one command gives up of its role's permissions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Narrowing {
    /// A policy, written out.
    pub policy: Option<String>,
    /// The names of managed policies.
    pub policy_arns: Vec<String>,
    /// Only reading.
    pub read_only: bool,
}

impl Narrowing {
    /// Whether nothing is given up.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What cannot be had from a target, known before it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The name of the value that is wrong, such as `ttl`.
    pub what: &'static str,
    /// Why.
    pub why: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl Refusal {
    /// A refusal without a hint.
    pub fn new(what: &'static str, why: impl Into<String>) -> Self {
        Self { what, why: why.into(), hint: None }
    }

    /// That access keys cannot be shown to a broker: it would have them.
    pub fn access_keys() -> Self {
        Self::new("identity", "access keys are for the target `aws` alone, without exchanges")
    }

    /// Says what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The error where nobody knows who said the value.
    pub fn into_error(self) -> Error {
        let error = Error::new(ErrorKind::Config, format!("the {} cannot be used", self.what))
            .because_of(self.why);
        self.hint.into_iter().fold(error, Error::hint)
    }
}

/// What is asked of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Request {
    /// The role.
    pub role: String,
    /// What of the role is wanted; empty: all that policy gives.
    pub scope: Vec<String>,
    /// Who the credential is to be shown to.
    pub audience: String,
    /// The lifetime wanted; `None`: as long as policy gives.
    #[serde(serialize_with = "seconds")]
    pub ttl: Option<Duration>,
    /// The grant under which it is asked for, where that is of one run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elevation: Option<Uuid>,
}

fn seconds<S: serde::Serializer>(ttl: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
    ttl.map(|ttl| ttl.as_secs()).serialize(s)
}

/// What turns an assertion into a credential.
#[async_trait(?Send)]
pub trait Target {
    /// The audience that an assertion for this target must be bound to.
    fn assertion_audience(&self) -> String;

    /// Mints. An answer without an expiry is an error.
    async fn mint(
        &self,
        host: &Host,
        assertion: &Assertion,
        request: &Request,
    ) -> Result<Credential>;

    /// How much is to be done where it does not serve at once, for targets that can
    /// choose.
    fn with_effort(&mut self, _effort: Effort) {}

    /// The key of this device, for targets that bind their credentials to it.
    fn with_key(&mut self, _key: Arc<DeviceKey>) {}

    /// What tells whether this credential, which it minted, is good still; `None` where nobody
    /// can.
    fn standing(&self, _credential: &Credential) -> Option<&dyn Standing> {
        None
    }

    /// How its credentials are ended before their time; `None` where they cannot be.
    fn revocation(&self) -> Option<&dyn Revocation> {
        None
    }
}

/// What tells whether a credential is good still that was good when it was minted.
#[async_trait(?Send)]
pub trait Standing {
    /// Whether it is, for all that can be told without showing it to anybody.
    ///
    /// # Errors
    /// Where that cannot be told.
    async fn is_good(&self, host: &Host, credential: &Credential) -> Result<bool>;
}

/// What ends a credential before its time.
#[async_trait(?Send)]
pub trait Revocation {
    /// Revokes a credential. Takes a few seconds at most.
    async fn revoke(&self, host: &Host, credential: &Credential) -> Result<()>;
}

/// A step from one assertion to another (RFC 8693), before the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Exchange {
    /// Who performs it.
    pub server: broker::Server,
    /// The role under which the next assertion is issued.
    pub role: String,
    /// The scope of the next assertion.
    pub scope: Vec<String>,
    /// Whom the next assertion is for.
    pub audience: String,
    /// The grant under which it is asked for, where that is of one run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elevation: Option<Uuid>,
}

impl Exchange {
    /// Lets the next run ask also those who are left alone because they did not serve.
    pub fn insist(&self, host: &Host, wish: Wish) {
        self.server.insist(host, wish);
    }

    /// Performs the step; `key` is that of this device, where anything is bound to it.
    pub async fn perform(
        &self,
        host: &Host,
        assertion: &Assertion,
        key: Option<&DeviceKey>,
        effort: Effort,
    ) -> Result<Assertion> {
        broker::exchange(host, self, assertion, key, effort).await
    }

    /// Revokes what the step yielded, where it has not ended by itself.
    ///
    /// # Errors
    /// Whatever keeps it from being revoked: it stays good until it ends.
    pub async fn revoke(&self, host: &Host, yielded: &Assertion) -> Result<()> {
        if yielded.expires_at <= host.corrected_now() {
            return Ok(());
        }
        revocation::revoke(host, &self.server, &yielded.token).await
    }
}
