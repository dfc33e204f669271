//! The tables `[role.NAME]`.

use std::collections::BTreeSet;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Elevation, MAX_TTL, duration, is_audience, is_scope_token, seconds};
use crate::broker::told::{self, aws, claims};
use crate::error::{Error, ErrorKind, Result, lasting};

/// A table `[role.NAME]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// Whom its tokens may be shown to. A token is always for exactly one.
    pub audiences: BTreeSet<String>,
    /// The scopes that its tokens may have.
    #[serde(default)]
    pub scopes: BTreeSet<String>,
    /// The longest lifetime of its tokens, such as `1h`; at most a day.
    #[serde(deserialize_with = "duration", serialize_with = "seconds")]
    #[schemars(with = "String")]
    pub max_ttl: Duration,
    /// Whether its tokens end no later than the token that is shown for them.
    #[serde(default)]
    pub ends_with_token: bool,
    /// Whether its tokens must be bound to a key of the caller's (DPoP).
    #[serde(default, skip_serializing_if = "Binding::is_default")]
    pub dpop: Binding,
    /// What its tokens are: JWTs that everybody can check, or random texts that say
    /// nothing and can only be introspected.
    #[serde(default)]
    pub token_format: TokenFormat,
    /// By how much its tokens may live shorter, at random, so that not all that began
    /// together are renewed together; at most a quarter of `max_ttl`.
    #[serde(default, deserialize_with = "duration", serialize_with = "seconds")]
    #[schemars(with = "String")]
    pub ttl_jitter: Duration,
    /// What AWS is told, where it is AWS that the tokens are shown to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws: Option<aws::Settings>,
    /// What its tokens say besides.
    #[serde(default, skip_serializing_if = "claims::Settings::is_empty")]
    pub claims: claims::Settings,
    /// Where the role is had under a grant only: how one comes about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elevation: Option<Elevation>,
}

/// Whether tokens must be bound to a key (RFC 9449).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Binding {
    /// Whoever proves a key gets a token that is bound to it; others get one that whoever
    /// bears it may use.
    #[default]
    Optional,
    /// Whoever proves no key gets none.
    Required,
}

impl Binding {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What the tokens of a role are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenFormat {
    /// A signed JWT (RFC 9068).
    #[default]
    Jwt,
    /// A random text, to be introspected.
    Opaque,
}

impl Role {
    pub(super) fn check(&self, name: &str) -> Result<()> {
        let wrong =
            |why: String| Err(Error::new(ErrorKind::Config, format!("[role.{name}] {why}")));
        if self.audiences.is_empty() {
            return wrong("names no audiences".into());
        }
        if let Some(bad) = self.audiences.iter().find(|a| !is_audience(a)) {
            return wrong(format!(
                "has the audience {bad:?}, which is empty, too long or not text"
            ));
        }
        if let Some(bad) = self.scopes.iter().find(|s| !is_scope_token(s)) {
            return wrong(format!(
                "has the scope {bad:?}, which RFC 6749 section 3.3 does not allow"
            ));
        }
        if self.max_ttl.is_zero() || self.max_ttl > MAX_TTL {
            return wrong(format!(
                "has a max_ttl of {}; it must be more than nothing and at most {}",
                lasting(self.max_ttl),
                lasting(MAX_TTL)
            ));
        }
        if self.ttl_jitter > self.max_ttl / 4 {
            return wrong(format!(
                "has a ttl_jitter of {}; at most a quarter of its max_ttl is possible",
                lasting(self.ttl_jitter)
            ));
        }
        if self.token_format == TokenFormat::Opaque && self.aws.is_some() {
            return wrong("has opaque tokens, which AWS cannot read".into());
        }
        if self.elevation.is_none() && self.aws.as_ref().is_some_and(aws::Settings::tells_of_grants)
        {
            return wrong("tells AWS of grants, and is not had by elevation".into());
        }
        if self.elevation.is_none() && self.claims.tells_of_grants() {
            return wrong("has claims that tell of grants, and is not had by elevation".into());
        }
        // Found now, and not when the provider is down.
        let by_signature = self.elevation.as_ref().is_some_and(|it| it.provider_down.is_some());
        if by_signature && self.told().reads_tokens() {
            return wrong(
                "is had by signatures, too, which say nothing of groups and claims, and its tokens are to say something of those"
                    .into(),
            );
        }
        let wrong =
            |table, why| Err(Error::new(ErrorKind::Config, format!("[role.{name}.{table}] {why}")));
        match self.aws.as_ref().map_or(Ok(()), aws::Settings::check) {
            Ok(()) => self.claims.check().or_else(|why| wrong("claims", why)),
            Err(why) => wrong("aws", why),
        }
    }

    /// What its tokens say besides.
    pub(in crate::broker) fn told(&self) -> told::Wanted<'_> {
        told::Wanted { aws: self.aws.as_ref(), claims: &self.claims }
    }
}
