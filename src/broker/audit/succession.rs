//! Which keys sign the log, as the log itself tells: so whoever has known one of them for long
//! learns of those that came after it, and of those that are good no more.
//!
//! Each change of such a key is a record, whose scope says what became of which key. That
//! column is in the tree as it is, so nobody can change it behind a signature.

use super::Decision;
use super::leaf::{COLUMNS, Leaf};
use super::note::VerifierKey;
use crate::broker::keys::KeyState;

/// What records of keys are about.
const ACTION: &str = "key";

/// What the record of a change says of the key.
pub fn text(state: KeyState, key: &VerifierKey) -> String {
    format!("{} {key}", state.as_str())
}

/// What this record says became of a key of the log.
pub(super) fn told_by(leaf: &Leaf) -> Option<(KeyState, VerifierKey)> {
    let value = |name: &str| {
        let at = COLUMNS.iter().position(|column| *column == name)?;
        leaf.values.as_ref()?[at].as_deref()
    };
    let of_a_key =
        value("action") == Some(ACTION) && value("decision") == Some(Decision::Changed.as_str());
    let (state, key) = value("scope").filter(|_| of_a_key)?.split_once(' ')?;
    Some((KeyState::from_name(state)?, VerifierKey::parse(key).ok()?))
}

#[cfg(test)]
mod tests;
