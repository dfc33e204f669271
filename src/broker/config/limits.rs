//! The table `[limits]`.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};

/// The most that a rate may allow, by the minute and at once: beyond, it limits nothing.
const MOST: u32 = 1_000_000;

/// The table `[limits]`: how often somebody may ask. What is left out is not limited, but for
/// `elevation`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// How often one caller may ask for a token.
    #[serde(default)]
    pub principal: Option<Rate>,
    /// How often one caller may ask for anything else, by what is asked for: not for `token`,
    /// which has `principal`, nor for `authz`, where a proxy asks for everybody.
    #[serde(default)]
    pub principal_route: BTreeMap<Endpoint, Rate>,
    /// How often one address may ask anything, or one network of 64 bits where it is an
    /// IPv6 address.
    #[serde(default)]
    pub address: Option<Rate>,
    /// How often one person, or machine, may ask for a role by elevation, drills included: each
    /// time others are told. All machines of one issuer together may ask for the same role three
    /// times as often. Emergencies are not counted. Ten at once, and then one a minute, where left
    /// out.
    #[serde(default = "some_elevations")]
    pub elevation: Rate,
    /// How often everybody together may, by what is asked for.
    #[serde(default)]
    pub route: BTreeMap<Endpoint, Rate>,
}

/// How often something may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// How many times a minute, in the long run.
    pub per_minute: NonZeroU32,
    /// How many times at once, after a pause; as many as a minute has where left out.
    #[serde(default)]
    pub burst: Option<NonZeroU32>,
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Endpoint {
    /// `/token`.
    Token,
    /// `/revoke`.
    Revoke,
    /// `/introspect`.
    Introspect,
    /// `/v1/authz`, and what is below it.
    Authz,
    /// `/v1/revocations`, and what is below it.
    Revocations,
    /// `/v1/keys`, and what is below it.
    Keys,
    /// `/v1/audit/records`.
    Audit,
    /// `/v1/elevations`, and what is below it.
    Elevations,
    /// `/v1/enrollments`, and what is below it.
    Enrollments,
    /// `/v1/roles`.
    Roles,
}

impl Endpoint {
    /// All of them.
    pub(in crate::broker) const ALL: [Self; 10] = [
        Self::Token,
        Self::Revoke,
        Self::Introspect,
        Self::Authz,
        Self::Revocations,
        Self::Keys,
        Self::Audit,
        Self::Elevations,
        Self::Enrollments,
        Self::Roles,
    ];

    /// Its name, as the configuration and metrics have it.
    pub(in crate::broker) const fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Revoke => "revoke",
            Self::Introspect => "introspect",
            Self::Authz => "authz",
            Self::Revocations => "revocations",
            Self::Keys => "keys",
            Self::Audit => "audit",
            Self::Elevations => "elevations",
            Self::Enrollments => "enrollments",
            Self::Roles => "roles",
        }
    }

    /// Whether people act by it, on what programs get by the others.
    pub(in crate::broker) fn is_for_people(self) -> bool {
        match self {
            Self::Token | Self::Revoke | Self::Introspect | Self::Authz => false,
            Self::Revocations
            | Self::Keys
            | Self::Audit
            | Self::Elevations
            | Self::Enrollments
            | Self::Roles => true,
        }
    }

    /// Whether what one address asks of it counts for that: a proxy asks for everybody, and
    /// knows better who comes how often.
    pub(in crate::broker) fn counts_for_address(self) -> bool {
        self != Self::Authz
    }
}

impl Default for Limits {
    fn default() -> Self {
        let elevation = some_elevations();
        Self {
            principal: None,
            principal_route: BTreeMap::new(),
            address: None,
            elevation,
            route: BTreeMap::new(),
        }
    }
}

fn some_elevations() -> Rate {
    Rate { per_minute: NonZeroU32::MIN, burst: NonZeroU32::new(10) }
}

impl Limits {
    /// How often one caller may ask, for all that is limited in this way.
    pub(in crate::broker) fn of_principals(&self) -> impl Iterator<Item = (Endpoint, Rate)> {
        let token = self.principal.map(|rate| (Endpoint::Token, rate));
        token.into_iter().chain(self.principal_route.iter().map(|(route, rate)| (*route, *rate)))
    }

    pub(super) fn check(&self) -> Result<()> {
        let refused = |why: &str, hint: &str| {
            let why = format!("[limits.principal_route] has {why}");
            Err(Error::new(ErrorKind::Config, why).hint(hint.to_string()))
        };
        if self.principal_route.contains_key(&Endpoint::Token) {
            return refused("a rate for 'token'", "that is `principal` in [limits]");
        }
        if self.principal_route.contains_key(&Endpoint::Authz) {
            let hint = "let the proxy limit who comes how often, or set `authz` in [limits.route]";
            return refused("a rate for 'authz', where a proxy asks for everybody", hint);
        }
        let rates = self.of_principals().map(|(_, rate)| rate).chain(self.address);
        let rates = rates.chain([self.elevation]).chain(self.route.values().copied());
        for rate in rates {
            if rate.per_minute.get() > MOST || rate.burst().get() > MOST {
                let why = format!("[limits] has a rate beyond {MOST}");
                return Err(Error::new(ErrorKind::Config, why).hint("leave out what has no limit"));
            }
        }
        Ok(())
    }
}

impl Rate {
    /// How many times at once.
    pub fn burst(&self) -> NonZeroU32 {
        self.burst.unwrap_or(self.per_minute)
    }
}
