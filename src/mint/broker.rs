//! The target `broker`: RFC 8693 token exchange at a tmpcred broker.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use time::OffsetDateTime;

use super::addresses::Addresses;
use super::revocation;
use super::standing;
use super::token_exchange::{self, Ask};
use super::{Exchange, Refusal, Request, Revocation, Standing, Target};
use crate::credential::{Assertion, Credential, Material};
use crate::dpop::DeviceKey;
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::oidc::Issuer;
use crate::reach::{self, Effort, Failure, Wish};
use crate::wire;

/// A profile's target: one of the brokers that the configuration names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The name of a `[broker.NAME]` table. May be left out where there is just one.
    #[serde(default)]
    pub broker: Option<String>,
    /// Whether the profile's tokens are bound to the key of this device. Where left out:
    /// as the broker's table says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dpop: Option<bool>,
}

/// Tells whether a broker can have a role of this name.
///
/// # Errors
/// Where it cannot.
pub(crate) fn check_role(role: &str) -> Result<(), Refusal> {
    if wire::is_role(role) {
        return Ok(());
    }
    let hint = "a name has at most 64 letters, digits, dots, dashes and underscores, and begins with a letter or digit";
    Err(Refusal::new("role", "no broker has a role of such a name").hint(hint))
}

/// A broker, as a `[broker.NAME]` table has it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Its address, or several, which are tried in turn where one cannot serve.
    pub url: Addresses,
    /// Its issuer identifier; its first address where left out.
    #[serde(default)]
    pub issuer: Option<Box<Issuer>>,
    /// The audience that it wants assertions to be bound to; its issuer identifier
    /// where left out.
    #[serde(default)]
    pub audience: Option<String>,
    /// A PEM file with certificate authorities to trust besides the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Whether its tokens are bound to the key of this device (DPoP), so that nobody can
    /// use them who has nothing but the token.
    #[serde(default)]
    pub dpop: bool,
}

impl Server {
    /// Its issuer identifier, whichever of its addresses answers.
    pub fn issuer(&self) -> &Issuer {
        self.issuer.as_deref().unwrap_or_else(|| self.url.first())
    }

    /// Asks its addresses until one has answered.
    ///
    /// # Errors
    /// As [`reach::ask`] has them.
    pub(crate) async fn ask<T>(
        &self,
        host: &Host,
        effort: Effort,
        until: Option<OffsetDateTime>,
        attempt: impl AsyncFn(&Issuer) -> Result<T, Failure>,
    ) -> Result<T> {
        let addresses: Vec<_> = self.url.iter().collect();
        let who = format!("the broker {}", self.issuer());
        reach::ask(host, &who, &addresses, effort, until, attempt).await
    }

    /// Lets the next run ask also those of its addresses that are left alone at present.
    pub(super) fn insist(&self, host: &Host, wish: Wish) {
        self.url.iter().for_each(|address| reach::insist(host, address.as_str(), wish));
    }

    /// The audience that an assertion for this broker must be bound to.
    pub fn audience(&self) -> String {
        let issuer = || self.issuer().as_str().trim_end_matches('/').to_string();
        self.audience.clone().unwrap_or_else(issuer)
    }
}

impl From<Issuer> for Server {
    /// The broker at this address, with nothing else said of it.
    fn from(issuer: Issuer) -> Self {
        Self { url: issuer.into(), issuer: None, audience: None, ca_file: None, dpop: false }
    }
}

/// What identifies a broker. Where it is found is no part of it: credentials that
/// are cached serve on when addresses are added, taken away or put in another order.
impl Serialize for Server {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Identity<'a> {
            url: &'a Issuer,
            #[serde(skip_serializing_if = "Option::is_none")]
            audience: &'a Option<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            ca_file: &'a Option<PathBuf>,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            dpop: bool,
        }
        let Self { audience, ca_file, dpop, .. } = self;
        Identity { url: self.issuer(), audience, ca_file, dpop: *dpop }.serialize(serializer)
    }
}

/// The broker as a target.
pub struct Broker {
    server: Server,
    effort: Effort,
    key: Option<Arc<DeviceKey>>,
}

impl Broker {
    /// The target at this broker.
    pub fn new(server: Server) -> Self {
        Self { server, effort: Effort::MINT, key: None }
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
            elevation: request.elevation,
        };
        let key = self.key.as_deref();
        let granted =
            token_exchange::exchange(host, &self.server, assertion, &ask, key, self.effort).await?;
        let token = granted.token;
        Ok(Credential {
            material: match granted.bound_to {
                Some(thumbprint) => Material::Bound { token, thumbprint },
                None => Material::Bearer { token },
            },
            role: request.role.clone(),
            scope: granted.scope,
            // The broker's name for the caller is made of these two.
            principal: assertion.principal.clone(),
            lifetime: granted.lifetime,
        })
    }

    fn with_effort(&mut self, effort: Effort) {
        self.effort = effort;
    }

    fn with_key(&mut self, key: Arc<DeviceKey>) {
        self.key = Some(key);
    }

    fn standing(&self, credential: &Credential) -> Option<&dyn Standing> {
        standing::key_of(credential).map(|_| self as &dyn Standing)
    }

    fn revocation(&self) -> Option<&dyn Revocation> {
        Some(self)
    }
}

#[async_trait(?Send)]
impl Standing for Broker {
    async fn is_good(&self, host: &Host, credential: &Credential) -> Result<bool> {
        standing::is_good(host, &self.server, credential).await
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
    key: Option<&DeviceKey>,
    effort: Effort,
) -> Result<Assertion> {
    let Exchange { role, scope, audience, elevation, .. } = step;
    let ask = Ask { role, scope, audience, ttl: None, elevation: *elevation };
    let granted = token_exchange::exchange(host, &step.server, assertion, &ask, key, effort).await?;
    Ok(Assertion {
        token: granted.token,
        token_type: granted.token_type,
        principal: assertion.principal.clone(),
        expires_at: granted.lifetime.expires_at,
        // Whatever comes of it later, too.
        grant_ends: granted.grant_ends.into_iter().chain(assertion.grant_ends).min(),
    })
}
