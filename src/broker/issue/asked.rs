//! What was asked for, held against the roles that there are.

use std::collections::BTreeSet;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;

use super::{Ask, joined};
use crate::broker::config::TokenFormat;
use crate::broker::opaque;
use crate::broker::policy::{Granted, Obligation};
use crate::broker::rulebook::Rulebook;
use crate::error::Result;
use crate::secret::Secret;

/// How long the scope that was asked for is on record, in bytes: whoever can ask can have
/// such records written.
const MAX_SCOPE: usize = 1024;

/// What stands in the place of a role or an audience that the configuration does not have.
pub(in crate::broker) const UNKNOWN: &str = "(unknown)";

impl Rulebook {
    /// A token that says nothing, where the role has such ones or the permit wants one.
    pub(super) fn opaque_token(
        &self,
        role: &str,
        granted: &Granted,
    ) -> Result<Option<Secret<String>>> {
        let role = self.roles().get(role);
        let is_opaque = role.is_some_and(|role| role.token_format == TokenFormat::Opaque)
            || granted.obligations.contains(&Obligation::Opaque);
        is_opaque.then(opaque::random).transpose()
    }

    /// The scope that was asked for, as a denial has it: of what the role does not have
    /// only how much it was; and for the reason, which can be erased, a hash to compare with.
    pub(super) fn asked_scope(&self, ask: &Ask) -> (String, String) {
        let role = self.roles().get(&ask.role);
        let (mut shown, mut others) = (String::new(), BTreeSet::new());
        for scope in ask.scope.iter().flatten() {
            let known = role.is_some_and(|role| role.scopes.contains(scope));
            if known && shown.len() + scope.len() < MAX_SCOPE {
                shown += if shown.is_empty() { "" } else { " " };
                shown += scope;
            } else {
                others.insert(scope.clone());
            }
        }
        if others.is_empty() {
            return (shown, String::new());
        }
        let hash = digest(&SHA256, joined(&others).as_bytes());
        let hash = HEXLOWER.encode(hash.as_ref());
        shown += if shown.is_empty() { "" } else { " " };
        // No scope has a quotation mark.
        shown += &format!("\"{} others\"", others.len());
        (shown, format!(" (the others of the scope: SHA-256 {hash})"))
    }

    /// Role and audience that were asked for, where the configuration has them: what goes into
    /// the tree as it is can never be erased, and anybody can ask for a role or an audience
    /// that is somebody's name. The reason, which can be, says what it was.
    pub(super) fn asked_for<'a>(&self, ask: &'a Ask) -> (&'a str, &'a str) {
        let role = self.roles().contains_key(&ask.role);
        let audience = self.roles().values().any(|role| role.audiences.contains(&ask.audience));
        let known = |known, name: &'a str| if known { name } else { UNKNOWN };
        (known(role, &ask.role), known(audience, &ask.audience))
    }
}
