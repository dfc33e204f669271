//! The target `broker`: RFC 8693 token exchange at a tmpcred broker.

use std::path::PathBuf;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::revocation;
use super::token_exchange::{self, Ask};
use super::{Exchange, Request, Revocation, Target};
use crate::credential::{Assertion, Credential, Material};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::oidc::Issuer;

/// A profile's target: one of the brokers that the configuration names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The name of a `[broker.NAME]` table. May be left out where there is just one.
    #[serde(default)]
    pub broker: Option<String>,
}

/// A broker, as a `[broker.NAME]` table has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Its address, which is its issuer identifier too.
    pub url: Issuer,
    /// The audience that it wants assertions to be bound to; its URL where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// A PEM file with certificate authorities to trust besides the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

impl Server {
    /// The audience that an assertion for this broker must be bound to.
    pub fn audience(&self) -> String {
        self.audience.clone().unwrap_or_else(|| self.url.as_str().trim_end_matches('/').to_string())
    }
}

/// The broker as a target.
pub struct Broker {
    server: Server,
}

impl Broker {
    /// The target at this broker.
    pub fn new(server: Server) -> Self {
        Self { server }
    }
}

#[async_trait(?Send)]
impl Target for Broker {
    fn assertion_audience(&self) -> String {
        self.server.audience()
    }

    async fn mint(
        &self,
        host: &Host,
        assertion: &Assertion,
        request: &Request,
    ) -> Result<Credential> {
        let ask = Ask {
            role: &request.role,
            scope: &request.scope,
            audience: &request.audience,
            ttl: request.ttl,
        };
        let granted = token_exchange::exchange(host, &self.server, assertion, &ask).await?;
        Ok(Credential {
            material: Material::Bearer { token: granted.token },
            role: request.role.clone(),
            scope: granted.scope,
            // The broker's name for the caller is made of these two.
            principal: assertion.principal.clone(),
            lifetime: granted.lifetime,
        })
    }

    fn revocation(&self) -> Option<&dyn Revocation> {
        Some(self)
    }
}

#[async_trait(?Send)]
impl Revocation for Broker {
    async fn revoke(&self, host: &Host, credential: &Credential) -> Result<()> {
        match credential.material.token() {
            Some(token) => revocation::revoke(host, &self.server, token).await,
            None => Err(Error::new(ErrorKind::Other, "this is no credential of a broker")),
        }
    }
}

/// Performs one exchange before the target.
pub(super) async fn exchange(
    host: &Host,
    step: &Exchange,
    assertion: &Assertion,
) -> Result<Assertion> {
    let ask =
        Ask { role: &step.role, scope: &step.scope, audience: &step.audience, ttl: None };
    let granted = token_exchange::exchange(host, &step.server, assertion, &ask).await?;
    Ok(Assertion {
        token: granted.token,
        token_type: granted.token_type,
        principal: assertion.principal.clone(),
        expires_at: granted.lifetime.expires_at,
    })
}
