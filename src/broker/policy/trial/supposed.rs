//! Callers as they are supposed, and what their tokens say.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Trial, moment, usage};
use crate::broker::authenticate::{Caller, names, said, suppose, suppose_signer};
use crate::broker::config::TrustedIssuer;
use crate::broker::decide::{Denied, Why};
use crate::credential::Principal;
use crate::error::Result;
use crate::oidc::Claims;

/// Claims of a supposed token that are said in other ways than as claims.
const SAID_OTHERWISE: [&str; 4] = ["iss", "sub", "aud", "exp"];

/// A caller with a good token that says this.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Supposed {
    /// The name of a trusted issuer's table, or its identifier.
    pub issuer: String,
    /// The subject.
    pub subject: String,
    /// The groups; where left out, the token has no claim that lists any.
    #[serde(default)]
    pub groups: Option<Vec<String>>,
    /// Other claims.
    #[serde(default)]
    pub claims: Map<String, Value>,
    /// The client that the token was issued to; one that is accepted where left out.
    #[serde(default)]
    pub client: Option<String>,
    /// When the token ends; a day later where left out.
    #[serde(default, deserialize_with = "moment")]
    pub expires: Option<OffsetDateTime>,
}

impl Trial<'_> {
    /// The caller; or that their token would not be accepted.
    pub(super) fn caller(
        &self,
        who: &Supposed,
        now: OffsetDateTime,
    ) -> Result<std::result::Result<Caller, Denied>> {
        let (name, trusted) = self.trusted(&who.issuer)?;
        // The broker goes by the token's own; a decision about another one would say nothing.
        if let Some(name) = SAID_OTHERWISE.iter().find(|name| who.claims.contains_key(**name)) {
            return Err(usage(format!("the claim '{name}' is not said as a claim"))
                .hint("issuer, subject and end of the token have names of their own here; its audience is this broker"));
        }
        let ends = who.expires.unwrap_or_else(|| now.saturating_add(time::Duration::DAY));
        let leeway = time::Duration::try_from(trusted.leeway).unwrap_or_default();
        if now >= ends.saturating_add(leeway) {
            let ended = ends.format(&Rfc3339).unwrap_or_default();
            return Ok(Err(Denied::new(Why::Token, format!("it expired at {ended}"))));
        }
        let mut all = who.claims.clone();
        let mut add = |name: &str, value: Value| names::add(&mut all, name, value);
        add("iss", trusted.issuer.as_str().into());
        add("sub", who.subject.as_str().into());
        if let Some(groups) = &who.groups {
            add(&trusted.groups_claim, groups.clone().into());
        }
        let accepted = trusted.clients.iter().flatten().next();
        if let Some(client) = who.client.as_ref().or(accepted) {
            let name = trusted.client_claim.as_deref().unwrap_or("client_id");
            add(name, client.as_str().into());
        }
        let claims = Claims {
            principal: Principal {
                issuer: trusted.issuer.as_str().into(),
                subject: who.subject.clone(),
            },
            audience: Vec::new(),
            issued_at: None,
            expires_at: ends,
            all,
        };
        let caller = suppose(name, trusted, &self.config.issuer, claims, self.policy.needs());
        Ok(caller.map_err(|error| Denied::new(Why::Token, said(&error))))
    }

    /// The caller, who is known by a signature: nothing that a token would say is known of them.
    pub(super) fn signer(
        &self,
        who: &Supposed,
        now: OffsetDateTime,
    ) -> Result<std::result::Result<Caller, Denied>> {
        let (name, trusted) = self.trusted(&who.issuer)?;
        let principal =
            Principal { issuer: trusted.issuer.as_str().into(), subject: who.subject.clone() };
        let caller = suppose_signer(name, trusted, principal, self.policy.needs(), now);
        Ok(caller.map_err(|error| Denied::new(Why::Token, said(&error))))
    }

    /// A trusted issuer and its name, by either.
    fn trusted(&self, issuer: &str) -> Result<(&str, &TrustedIssuer)> {
        let issuers = &self.config.trusted_issuer;
        let by_identifier =
            || issuers.iter().find(|(_, trusted)| trusted.issuer.as_str() == issuer);
        let Some((name, trusted)) = issuers.get_key_value(issuer).or_else(by_identifier) else {
            let known: Vec<_> = issuers.keys().map(String::as_str).collect();
            return Err(
                usage(format!("there is no trusted issuer '{issuer}'")).hint(configured(&known))
            );
        };
        Ok((name, trusted))
    }
}

/// Says which ones there are.
pub(super) fn configured(known: &[&str]) -> String {
    match known {
        [] => "none is configured".into(),
        known => format!("configured are: {}", known.join(", ")),
    }
}

/// Claims from texts such as `amr=["mfa"]` or `hd=example.com`: JSON where it is some,
/// else a text.
pub fn claims(pairs: &[String]) -> Result<Map<String, Value>> {
    let claims: Result<BTreeMap<String, Value>> = pairs
        .iter()
        .map(|pair| {
            let (name, value) = pair
                .split_once('=')
                .filter(|(name, _)| !name.is_empty())
                .ok_or_else(|| usage(format!("'{pair}' is not a claim such as hd=example.com")))?;
            let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
            Ok((name.to_string(), value))
        })
        .collect();
    Ok(claims?.into_iter().collect())
}
