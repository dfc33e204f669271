//! Whose tokens are meant, and whether there can be any.

use super::{Operator, What};
use crate::broker::audit::{Decision, Record};
use crate::broker::config::{Config, MAX_TTL};
use crate::broker::store::{Filter, Whose};
use crate::error::{Error, ErrorKind, Result};
use crate::oidc::Issuer;
use crate::oidc::jwt::LEEWAY;

/// The issuer that somebody names: by itself, or by the name of its table.
pub fn issuer_meant(config: &Config, named: &str) -> String {
    match config.trusted_issuer.get(named) {
        Some(trusted) => trusted.issuer.to_string(),
        None => named.to_string(),
    }
}

impl Operator {
    /// What was issued of a role so late that it may still be good.
    fn of_late(&self, role: &str) -> Filter {
        Filter {
            role: Some(role.to_string()),
            decision: Some(Decision::Issued),
            since: Some(self.clock.now() - MAX_TTL - LEEWAY),
            ..Filter::default()
        }
    }

    /// The record of what was issued last of a role, where that may still be good; within that
    /// nothing where nobody can read it.
    pub(super) async fn last_issued(&self, role: &str) -> Result<Option<Option<Record>>> {
        Ok(self.store.find(&self.of_late(role), 1).await?.pop().map(|(_, record)| record))
    }

    /// Refuses a role that there is not, and an issuer that there cannot have been: nothing would
    /// come of it, and nobody would notice.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] where neither the configuration has the role, nor a token that may be
    /// good; and where the issuer is neither in the configuration nor one that may have been.
    pub async fn require_known(&self, config: &Config, what: &What) -> Result<()> {
        let What::Many { whose, .. } = what else { return Ok(()) };
        match whose {
            Whose::Role(role) => self.require_role(config, role).await,
            Whose::Issuer(issuer) => require_issuer(config, issuer),
            Whose::Subject(id) => require_issuer(config, id.split_once('#').map_or(id, |(i, _)| i)),
            _ => Ok(()),
        }
    }

    async fn require_role(&self, config: &Config, role: &str) -> Result<()> {
        if config.role.contains_key(role) {
            return Ok(());
        }
        // One that was taken out of the configuration may have left tokens.
        if !self.store.find(&self.of_late(role), 1).await?.is_empty() {
            return Ok(());
        }
        let roles: Vec<_> = config.role.keys().map(String::as_str).collect();
        Err(Error::new(ErrorKind::Usage, format!("there is no role '{role}'"))
            .because_of("the configuration has none, and no token of late")
            .hint(format!("there is {}", roles.join(", "))))
    }
}

/// One that was taken out of the configuration may act in tokens that are good, whoever has them:
/// whatever may be an issuer is taken.
fn require_issuer(config: &Config, issuer: &str) -> Result<()> {
    let is_trusted = config.trusted_issuer.values().any(|known| known.issuer.as_str() == issuer);
    if is_trusted || config.issuer.as_str() == issuer || Issuer::parse(issuer).is_ok() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Usage, format!("the configuration trusts no issuer '{issuer}'"))
        .because_of("it is no name of a table, and no URL")
        .hint("one that was taken out of the configuration is named by its URL"))
}
