//! The tables `[trusted_issuer.NAME]`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};
use url::Url;

use super::{Pattern, TokenReview, algorithms, duration, is_name, seconds, shared};
use crate::error::{Error, ErrorKind, Result, lasting};
use crate::oidc::Issuer;
use crate::oidc::jwt::Algorithm;

/// The most that may be forgiven a trusted issuer's clock.
pub const MAX_LEEWAY: Duration = Duration::from_secs(5 * 60);

/// The claims by which it is told how somebody has logged in.
const OF_LOGINS: [&str; 2] = ["acr", "auth_time"];

/// The bounds of how long keys of a trusted issuer may be used that cannot be
/// fetched again.
const MIN_KEY_AGE: Duration = Duration::from_secs(60);
const MAX_KEY_AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A table `[trusted_issuer.NAME]`: an issuer whose tokens prove who is calling.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrustedIssuer {
    /// Its identifier, letter by letter as its tokens have it in `iss`.
    pub issuer: Issuer,
    /// The audiences of which a token must name one; the broker's own issuer where
    /// left out. Naming one that other services accept too lets those services
    /// use the tokens they are given here.
    #[serde(default)]
    pub audiences: Option<BTreeSet<String>>,
    /// The signature algorithms to accept; all with a public key where left out.
    #[serde(default, deserialize_with = "algorithms::some")]
    #[schemars(with = "Option<Vec<String>>")]
    pub algorithms: Option<Vec<Algorithm>>,
    /// The clients whose tokens are accepted; any where left out.
    #[serde(default)]
    pub clients: Option<BTreeSet<String>>,
    /// The claim that names the client that a token was issued to, by its name or its JSON
    /// pointer; where left out `client_id`, else `azp`, else the one audience of an ID
    /// token.
    #[serde(default)]
    pub client_claim: Option<String>,
    /// How far the issuer's clock may be off.
    #[serde(default = "default_leeway", deserialize_with = "duration", serialize_with = "seconds")]
    #[schemars(with = "String")]
    pub leeway: Duration,
    /// The claim that lists the caller's groups, by its name or its JSON pointer. A token
    /// without it has none.
    #[serde(default = "default_groups_claim")]
    pub groups_claim: String,
    /// Whether a token without that claim is refused. It is in any case where a policy
    /// forbids something to a group of this issuer.
    #[serde(default)]
    pub groups_required: bool,
    /// Whether what is issued for one of its tokens ends no later than that token.
    #[serde(default)]
    pub ends_with_token: bool,
    /// Whether all who come from it are people: who is not in the directory is nobody then,
    /// and no machine, also where nobody in it has an id there any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub people: bool,
    /// How often one of its tokens may be exchanged: any number of times until it
    /// expires, or once.
    #[serde(default)]
    pub assertions: Assertions,
    /// Claims that a token must have, by their names or JSON pointers, with the values of
    /// which it must have one, or what one must be like.
    #[serde(default)]
    pub required_claims: BTreeMap<String, RequiredClaim>,
    /// Claims as policies are to see them, by the names that they have there, and of which claims
    /// of a token they are made. What a token has by such a name itself is not seen.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, MappedClaim>,
    /// Where its keys are; found through its discovery document where left out.
    #[serde(default, skip_serializing)]
    pub jwks_uri: Option<Url>,
    /// A file with its keys, instead of `jwks_uri`.
    #[serde(default, skip_serializing)]
    pub jwks_file: Option<PathBuf>,
    /// A Kubernetes API server that verifies its tokens, in place of keys.
    #[serde(default, skip_serializing)]
    pub token_review: Option<TokenReview>,
    /// How long its keys may be used after they were last fetched, while they cannot
    /// be fetched again; at most 30 days.
    #[serde(default = "default_max_key_age", deserialize_with = "duration", skip_serializing)]
    #[schemars(with = "String")]
    pub max_key_age: Duration,
    /// A PEM file with certificate authorities to trust besides the system's when
    /// its keys are fetched, or its tokens reviewed.
    #[serde(default, skip_serializing)]
    pub ca_file: Option<PathBuf>,
}

/// How often a token of an issuer may be exchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Assertions {
    /// As often as somebody likes, until it expires: for people.
    #[default]
    UntilExpiry,
    /// Once: for CI jobs, which can have another one.
    Once,
}

/// A claim as policies see it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MappedClaim {
    /// The claim that it is made of, by its name or its JSON pointer.
    pub from: String,
    /// What the whole of a value has to be like, as a regular expression. What is in its
    /// parentheses is seen, or all of the value where it has none; values that are not like it
    /// are not. All of them are where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<Pattern>,
}

/// The value, or values, of a required claim. A claim that is a list must
/// contain one of them.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RequiredClaim {
    /// Text.
    Text(String),
    /// Yes or no.
    Flag(bool),
    /// A whole number.
    Number(i64),
    /// Any of these texts.
    AnyOf(BTreeSet<String>),
    /// What is like this.
    Like(Like),
}

/// What a value has to be like.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Like {
    /// What all of it has to match, as a regular expression.
    pub matches: Pattern,
}

/// The same as it is written: what is wrong with it can be said then.
#[derive(Deserialize)]
#[serde(untagged, expecting = "it is a value, some values, or { matches = \"…\" }")]
enum Written {
    Text(String),
    Flag(bool),
    Number(i64),
    AnyOf(BTreeSet<String>),
    Table(BTreeMap<String, String>),
}

impl<'de> Deserialize<'de> for RequiredClaim {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Ok(match Written::deserialize(deserializer)? {
            Written::Text(text) => Self::Text(text),
            Written::Flag(flag) => Self::Flag(flag),
            Written::Number(number) => Self::Number(number),
            Written::AnyOf(texts) => Self::AnyOf(texts),
            Written::Table(mut table) => match (table.remove("matches"), table.is_empty()) {
                (Some(pattern), true) => {
                    Self::Like(Like { matches: pattern.try_into().map_err(de::Error::custom)? })
                }
                _ => {
                    return Err(de::Error::custom("it needs `matches`, as in { matches = \"…\" }"));
                }
            },
        })
    }
}

impl RequiredClaim {
    /// Whether it says whose somebody is, of an issuer at which anybody can have tokens.
    fn says_whose(&self, issuer: &Issuer, name: &str) -> bool {
        match self {
            Self::Like(like) => shared::says_whose(name, &like.matches),
            Self::Text(_) | Self::AnyOf(_) | Self::Number(_) => {
                shared::says_whose_in_full(issuer, name)
            }
            Self::Flag(_) => false,
        }
    }
}

impl TrustedIssuer {
    /// An issuer with this identifier, and defaults for the rest.
    pub fn new(issuer: Issuer) -> Self {
        Self {
            issuer,
            audiences: None,
            algorithms: None,
            clients: None,
            client_claim: None,
            leeway: default_leeway(),
            groups_claim: default_groups_claim(),
            groups_required: false,
            ends_with_token: false,
            people: false,
            assertions: Assertions::default(),
            required_claims: BTreeMap::new(),
            claims: BTreeMap::new(),
            jwks_uri: None,
            jwks_file: None,
            token_review: None,
            max_key_age: default_max_key_age(),
            ca_file: None,
        }
    }

    pub(super) fn check(&self, name: &str) -> Result<()> {
        let wrong = |why: String| {
            Err(Error::new(ErrorKind::Config, format!("[trusted_issuer.{name}] {why}")))
        };
        if self.jwks_uri.is_some() && self.jwks_file.is_some() {
            return wrong("names both jwks_uri and jwks_file".into());
        }
        if let Some(url) = &self.jwks_uri {
            crate::host::http::require_secure(url)
                .map_err(|error| error.context(format!("[trusted_issuer.{name}] jwks_uri")))?;
        }
        if let Some(review) = &self.token_review {
            if self.jwks_uri.is_some() || self.jwks_file.is_some() || self.algorithms.is_some() {
                return wrong("has a token_review, so it needs neither keys nor algorithms".into());
            }
            let table = || format!("[trusted_issuer.{name}.token_review] server");
            review.check().map_err(|error| error.context(table()))?;
        }
        for (key, list) in [("audiences", &self.audiences), ("clients", &self.clients)] {
            if let Some(list) = list
                && (list.is_empty() || list.contains(""))
            {
                return wrong(format!("has {key} that nothing can match"));
            }
        }
        if self.leeway > MAX_LEEWAY {
            return wrong(format!(
                "has a leeway of {}; at most {} are possible",
                lasting(self.leeway),
                lasting(MAX_LEEWAY)
            ));
        }
        if self.max_key_age < MIN_KEY_AGE || self.max_key_age > MAX_KEY_AGE {
            return wrong(format!(
                "has a max_key_age of {}; it must be at least {} and at most {}",
                lasting(self.max_key_age),
                lasting(MIN_KEY_AGE),
                lasting(MAX_KEY_AGE)
            ));
        }
        if let Some(advice) = shared::advice(&self.issuer)
            && self.clients.is_none()
            && !self
                .required_claims
                .iter()
                .any(|(name, claim)| claim.says_whose(&self.issuer, name))
        {
            return Err(Error::new(
                ErrorKind::Config,
                format!("[trusted_issuer.{name}] trusts everybody in the world"),
            )
            .because_of(format!("anybody can have tokens of {}", self.issuer))
            .hint(format!("say whose are accepted: {advice}")));
        }
        let names = [
            Some(("groups_claim".to_string(), &self.groups_claim)),
            self.client_claim.as_ref().map(|name| ("client_claim".to_string(), name)),
        ];
        let mapped = self.claims.iter().map(|(name, one)| (format!("claims.{name}"), &one.from));
        for (key, name) in names.into_iter().flatten().chain(mapped) {
            if name.trim_matches('/').is_empty() {
                return wrong(format!("has a {key} that names no claim"));
            }
        }
        for (name, mapped) in &self.claims {
            if !is_name(name) {
                return wrong(format!("calls a claim {name:?}, which is no possible name"));
            }
            // How somebody has logged in is said by their token alone.
            if OF_LOGINS.contains(&name.as_str()) {
                return wrong(format!(
                    "maps the claim '{name}', which says how somebody logged in"
                ));
            }
            if mapped.matches.as_ref().is_some_and(|pattern| pattern.groups() > 1) {
                return wrong(format!(
                    "has a claims.{name} whose pattern has several parentheses, of which one can be meant: `(?:` begins others"
                ));
            }
        }
        for (claim, value) in &self.required_claims {
            if matches!(value, RequiredClaim::AnyOf(values) if values.is_empty()) {
                return wrong(format!(
                    "requires the claim '{claim}' with a value that nothing has"
                ));
            }
        }
        Ok(())
    }
}

fn default_leeway() -> Duration {
    crate::oidc::jwt::LEEWAY.unsigned_abs()
}

fn default_max_key_age() -> Duration {
    crate::oidc::remote_keys::MAX_KEY_AGE.unsigned_abs()
}

fn default_groups_claim() -> String {
    "groups".into()
}
