//! What a token says besides who it is about and what it is good for: what AWS reads of it, and
//! the claims of a role.

pub mod aws;
pub mod claims;
mod template;

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value};
use time::OffsetDateTime;

use template::Facts;
pub use template::Template;

use super::authenticate::Caller;
use super::config::Role;
use super::decide::{Denied, Why};
use super::directory::Directory;
use super::elevation::ElevationClaim;

/// What a token says besides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Told {
    #[serde(flatten)]
    aws: aws::Claims,
    #[serde(flatten)]
    claims: Map<String, Value>,
}

impl Told {
    /// What a token of this role, which has this name, says besides of this caller, who has it
    /// under this grant where they have it under one.
    ///
    /// # Errors
    /// Where something of it is not to be had, or more than a token takes: nothing is left out.
    pub(super) fn of(
        (name, role): (&str, &Role),
        caller: &Caller,
        grant: Option<&ElevationClaim>,
        (directory, now): (Option<&Directory>, OffsetDateTime),
    ) -> Result<Self, Denied> {
        if role.aws.is_none() && role.claims.is_empty() {
            return Ok(Self::default());
        }
        if role.reads_directory() && directory.is_some_and(|directory| directory.is_stale(now)) {
            tracing::error!("denied, because the directory of people is out of date");
            let said = format!(
                "the directory of people is out of date, and the tokens of the role '{name}' say something of it"
            );
            return Err(Denied::new(Why::Directory, said));
        }
        let groups: BTreeSet<String> = caller.group_names();
        let person = directory.and_then(|directory| directory.person(caller.principal()));
        let facts = Facts {
            subject: &caller.principal().subject,
            claims: caller.tags(),
            groups: &groups,
            person: person.map(|(name, person)| (name, &person.groups)),
            grant,
        };
        let denied = |kind: Why, why: String| {
            let said = format!("the role '{name}' cannot be given to '{}': {why}", caller.id());
            let reason = format!("the role '{name}' cannot be given: {why}");
            Denied { reason, ..Denied::new(kind, said) }
        };
        let aws = role.aws.as_ref().map(|settings| settings.fill(facts)).transpose();
        let claims = role.claims.fill(facts).map_err(|why| denied(Why::Claims, why))?;
        Ok(Self { aws: aws.map_err(|why| denied(Why::Aws, why))?.unwrap_or_default(), claims })
    }

    /// All of it, by the names of the claims.
    pub(super) fn claims(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(claims)) => claims,
            // It is claims, which all can be written.
            _ => Map::new(),
        }
    }
}
