//! Targets: what is asked for a credential.
//!
//! To add one, write a file with its `Settings` (as configured), its plan (as
//! resolved) and a [`Target`], and add its line to the list and to [`Plan`].

mod revocation;
#[cfg(test)]
mod tests;
mod token_exchange;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;

use crate::credential::{Assertion, Credential};
use crate::error::Result;
use crate::host::Host;

crate::registry::registry! {
    /// The settings of a profile's `target` table.
    "broker" => Broker in broker,
}

impl Settings {
    /// The plan for this target. `find` yields the broker with a name, or the
    /// only one there is.
    pub fn plan<E>(
        &self,
        find: impl FnOnce(Option<&str>) -> Result<broker::Server, E>,
    ) -> Result<Plan, E> {
        match self {
            Self::Broker(settings) => find(settings.broker.as_deref()).map(Plan::Broker),
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
}

impl Plan {
    /// The target that this plan describes.
    pub fn open(&self) -> Box<dyn Target> {
        match self {
            Self::Broker(server) => Box::new(broker::Broker::new(server.clone())),
        }
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

    /// How its credentials are ended before their time; `None` where they cannot be.
    fn revocation(&self) -> Option<&dyn Revocation> {
        None
    }
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
}

impl Exchange {
    /// Performs the step.
    pub async fn perform(&self, host: &Host, assertion: &Assertion) -> Result<Assertion> {
        broker::exchange(host, self, assertion).await
    }
}
