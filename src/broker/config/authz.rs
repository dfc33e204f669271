//! The table `[authz]`.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use super::{Binding, Nonces, Role, check_name, is_audience, is_scope_token};
use crate::broker::network::Network;
use crate::broker::told::claims::Said;
use crate::error::{Error, ErrorKind, Result, lasting};

/// The bounds of how old what is known of revocations may be.
const REVOCATIONS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// The table `[authz]`: the broker decides about requests that a proxy holds up, by the
/// tokens that come with them. What no route allows is refused.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Authz {
    /// The proxy that asks: it says in headers of its own what the request is.
    pub proxy: Proxy,
    /// The address and port to listen on; that of the broker itself where left out.
    #[serde(default, deserialize_with = "super::some_address")]
    pub listen: Option<SocketAddr>,
    /// Must be true for another `listen` address than loopback.
    #[serde(default)]
    pub expose: bool,
    /// Who may ask, as addresses or such as `10.0.0.0/8`; with a `listen` of its own the
    /// `trusted_proxies` where left out. Without, none of those may be among them.
    #[serde(default)]
    pub proxies: Option<Vec<Network>>,
    /// How old what the broker knows of revocations may be when it answers; from one
    /// second to a minute. Where it cannot know, the request is refused.
    #[serde(default = "default_revocations", deserialize_with = "super::duration")]
    #[schemars(with = "String")]
    pub revocations_within: Duration,
    /// Whether proofs need a nonce of the broker's. The proxy has to pass the header
    /// `DPoP-Nonce` on to callers then.
    #[serde(default = "default_nonces")]
    pub nonces: Nonces,
    /// What may be asked for, by name.
    pub route: BTreeMap<String, Route>,
}

/// A proxy, by the headers that it tells of a request in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Proxy {
    /// `X-Original-Method`, `X-Original-Host` and `X-Original-URI`.
    Nginx,
    /// `X-Forwarded-Method`, `X-Forwarded-Host` and `X-Forwarded-Uri`.
    Traefik,
    /// The request itself, its path behind the name of the route.
    Envoy,
}

/// A table `[authz.route.NAME]`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Where callers send such requests: scheme, host and port. A proof is for one of
    /// these, whatever the proxy was told of the scheme.
    pub origins: Vec<Url>,
    /// The audience that a token must be for.
    pub audience: String,
    /// The roles of which a token must have one; any where left out.
    #[serde(default)]
    pub roles: BTreeSet<String>,
    /// The scopes all of which a token must have.
    #[serde(default)]
    pub scopes: BTreeSet<String>,
    /// Whether only tokens that are bound to a key are accepted.
    #[serde(default)]
    pub dpop: Binding,
    /// Headers besides that tell what the token says, by their names, which begin with `Tmpcred-`:
    /// each the value of a claim of the token's role, by its name or its JSON pointer. Of a
    /// list, the values are separated by commas.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// What the names of headers begin with that tell services who is calling.
const HEADERS: &str = "tmpcred-";

/// Those that say something already.
pub(in crate::broker) const TAKEN: [&str; 7] =
    ["subject", "issuer", "actor", "role", "scope", "jti", "protocol"];

fn default_revocations() -> Duration {
    Duration::from_secs(5)
}

fn default_nonces() -> Nonces {
    Nonces::Optional
}

impl Authz {
    pub(super) fn check(
        &self,
        taken: &[SocketAddr],
        trusted: &[Network],
        has_tls: bool,
    ) -> Result<()> {
        let wrong = |why: String| Err(Error::new(ErrorKind::Config, format!("[authz] {why}")));
        if let Some(listen) = self.listen {
            if !listen.ip().is_loopback() && !self.expose {
                return wrong(format!(
                    "listen = \"{listen}\" is not loopback, and its expose is not true"
                ));
            }
            if !listen.ip().is_loopback() && !has_tls {
                return wrong(format!("listen = \"{listen}\" needs a [tls] table"));
            }
            if taken.contains(&listen) && listen.port() != 0 {
                return wrong(format!("listen = \"{listen}\" is another listener's address"));
            }
        }
        self.check_proxies(trusted)?;
        let [least, most] = REVOCATIONS;
        if self.revocations_within < least || self.revocations_within > most {
            return wrong(format!(
                "has revocations_within = {}; it must be at least {} and at most {}",
                lasting(self.revocations_within),
                lasting(least),
                lasting(most)
            ));
        }
        if self.route.is_empty() {
            return wrong("has no [authz.route.NAME], so all would be refused".into());
        }
        Ok(())
    }

    fn check_proxies(&self, trusted: &[Network]) -> Result<()> {
        let wrong = |why: String, hint: &str| {
            let error = Error::new(ErrorKind::Config, format!("[authz] {why}"));
            Err(error.hint(hint.to_string()))
        };
        let proxies = match (&self.proxies, self.listen) {
            (Some(proxies), _) => proxies,
            (None, Some(_)) => trusted,
            (None, None) => {
                let why = "does not say who may ask, and has no listen of its own";
                return wrong(why.into(), "name the proxies that ask in `proxies` under [authz]");
            }
        };
        if proxies.is_empty() {
            let hint = "name the proxies that ask in `proxies` under [authz]";
            return wrong("lets nobody ask".into(), hint);
        }
        if self.listen.is_some() {
            return Ok(());
        }
        // Those whom a proxy in front speaks for have its address.
        match proxies.iter().find(|proxy| trusted.iter().any(|other| proxy.overlaps(other))) {
            None => Ok(()),
            Some(both) => wrong(
                format!(
                    "has {both} among its proxies, and whoever comes by one of the trusted_proxies comes from there"
                ),
                "give [authz] a `listen` of its own, which only the proxies that ask can reach",
            ),
        }
    }

    /// Whether whoever is at this address may ask.
    pub fn is_for(&self, peer: IpAddr, trusted: &[Network]) -> bool {
        let is_among = |networks: &[Network]| networks.iter().any(|network| network.contains(peer));
        // (Both may have been changed since, and the trusted ones wait for a restart.)
        is_among(self.proxies(trusted)) && (self.listen.is_some() || !is_among(trusted))
    }

    /// Those who may ask.
    pub fn proxies<'a>(&'a self, trusted: &'a [Network]) -> &'a [Network] {
        self.proxies.as_deref().unwrap_or(trusted)
    }

    /// The hosts that requests are for.
    pub fn hosts(&self) -> impl Iterator<Item = String> {
        let origins = self.route.values().flat_map(|route| &route.origins);
        origins.filter_map(|origin| origin.host_str().map(String::from))
    }
}

impl Route {
    pub(super) fn check(&self, name: &str, roles: &BTreeMap<String, Role>) -> Result<()> {
        check_name("authz.route", name)?;
        let wrong =
            |why: String| Err(Error::new(ErrorKind::Config, format!("[authz.route.{name}] {why}")));
        if self.origins.is_empty() {
            return wrong("names no origins".into());
        }
        for origin in &self.origins {
            let bare = origin.path() == "/" && origin.query().is_none();
            let bare = bare && origin.fragment().is_none() && origin.username().is_empty();
            if !bare || !matches!(origin.scheme(), "http" | "https") || !origin.has_host() {
                return wrong(format!(
                    "has the origin \"{origin}\", which is more, or less, than scheme, host and port"
                ));
            }
        }
        if !is_audience(&self.audience) {
            return wrong(format!("has the audience {:?}, which no token has", self.audience));
        }
        if let Some(unknown) = self.roles.iter().find(|role| !roles.contains_key(*role)) {
            return wrong(format!("names the role '{unknown}', which there is none of"));
        }
        if let Some(bad) = self.scopes.iter().find(|scope| !is_scope_token(scope)) {
            return wrong(format!("has the scope {bad:?}, which no token has"));
        }
        self.check_headers(roles).or_else(wrong)
    }

    fn check_headers(&self, roles: &BTreeMap<String, Role>) -> std::result::Result<(), String> {
        let mut seen = BTreeSet::new();
        for (header, claim) in &self.headers {
            let lower = header.to_ascii_lowercase();
            // With another `-`, or with `_`, it would have twins that services cannot tell from it.
            let of_ours = lower
                .strip_prefix(HEADERS)
                .filter(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_alphanumeric()));
            let Some(rest) = of_ours else {
                return Err(format!(
                    "has the header {header:?}; its name has to be `Tmpcred-` and then letters and digits alone"
                ));
            };
            if TAKEN.contains(&rest) || !seen.insert(lower.clone()) {
                return Err(format!("has the header {header:?}, which says something already"));
            }
            let tokens = roles.iter().filter(|(name, role)| {
                let is_one = self.roles.is_empty() || self.roles.contains(*name);
                is_one && role.audiences.contains(&self.audience)
            });
            let mut kinds = tokens.filter_map(|(_, role)| role.claims.get(claim));
            let Some(first) = kinds.next() else {
                return Err(format!(
                    "has the header {header:?} for the claim '{claim}', which is among the claims of none of its roles"
                ));
            };
            let is_table = matches!(first, Said::Claims(_));
            if is_table || kinds.any(|other| discriminant(other) != discriminant(first)) {
                return Err(format!(
                    "has the header {header:?} for the claim '{claim}', which has to be a text in each of its roles, or a list in each"
                ));
            }
        }
        Ok(())
    }
}
