//! What a token says besides who it is about and what it is good for: what AWS reads of it, and
//! the claims of a role.

pub mod aws;
pub mod claims;
mod template;

use serde::Serialize;
use serde_json::{Map, Value};
use time::OffsetDateTime;

use template::Facts;
pub use template::Template;

use super::authenticate::Caller;
use super::directory::Directory;
use super::elevation::ElevationClaim;

/// How long all of it may be in a token, in bytes: its record has to have it. AWS takes less than
/// that of the longest tags.
const MAX_LENGTH: usize = 32 * 1024;

/// What the tokens of a role say besides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// What AWS is told.
    pub(super) aws: Option<&'a aws::Settings>,
    /// The claims.
    pub(super) claims: &'a claims::Settings,
}

/// What a token says besides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AdditionalClaims {
    #[serde(flatten)]
    aws: aws::Claims,
    #[serde(flatten)]
    claims: Map<String, Value>,
}

/// Why something cannot be told.
#[derive(Debug)]
pub(super) enum Untold {
    /// The directory of people is out of date, and it is about that.
    Stale,
    /// Something is missing that AWS is to be told, or it would not take that.
    Aws(String),
    /// Something is missing of the claims, or they are too long.
    Claims(String),
}

impl Wanted<'_> {
    /// Whether it tells anything of what is in the directory of people.
    pub(super) fn reads_directory(&self) -> bool {
        self.claims.any(Template::reads_directory)
            || self.aws.is_some_and(|aws| aws.any(Template::reads_directory))
    }

    /// Whether it tells anything that nobody knows but by a token of an issuer.
    pub(super) fn reads_tokens(&self) -> bool {
        self.claims.any(Template::reads_tokens)
            || self.aws.is_some_and(|aws| aws.any(Template::reads_tokens))
    }

    /// What a token says of this caller, who has the role under this grant where they have it
    /// under one.
    ///
    /// # Errors
    /// Where something of it is not to be had, or more than a token takes: nothing is left out.
    pub(super) fn of(
        &self,
        caller: &Caller,
        grant: Option<&ElevationClaim>,
        (directory, now): (Option<&Directory>, OffsetDateTime),
    ) -> Result<AdditionalClaims, Untold> {
        if self.aws.is_none() && self.claims.is_empty() {
            return Ok(AdditionalClaims::default());
        }
        let directory = directory.filter(|_| self.reads_directory());
        if directory.is_some_and(|directory| directory.is_stale(now)) {
            return Err(Untold::Stale);
        }
        let person = directory.and_then(|directory| directory.person(caller.principal()));
        let person = person.map(|(name, person)| (name, &person.groups));
        let facts = Facts { caller, person, grant };
        let aws = self.aws.map(|aws| aws.fill(facts)).transpose().map_err(Untold::Aws)?;
        let claims = self.claims.fill(facts).map_err(Untold::Claims)?;
        let told = AdditionalClaims { aws: aws.unwrap_or_default(), claims };
        match told.on_record().map_or(0, |text| text.len()) > MAX_LENGTH {
            true => Err(Untold::Aws(format!(
                "what AWS is told would be more than {MAX_LENGTH} bytes in the token"
            ))),
            false => Ok(told),
        }
    }
}

impl AdditionalClaims {
    /// All of it, by the names of the claims.
    pub(super) fn all(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(claims)) => claims,
            // It is claims, which all can be written.
            _ => Map::new(),
        }
    }

    /// The same as a record has it; nothing where it says nothing.
    pub(super) fn on_record(&self) -> Option<String> {
        let says = *self != Self::default();
        says.then(|| Value::Object(self.all()).to_string())
    }
}
