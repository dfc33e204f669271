//! What to do where a role is had under a grant only, or something is in the way of one.

use crate::error::{Error, foreign};
use crate::wire::{TokenRefusal, refusal};

/// The same error, and what to do about it, where it is about elevations.
pub(crate) fn hinted(error: Error, refusal: &TokenRefusal) -> Error {
    let Some(id) = refusal.elevation.as_deref().map(foreign) else { return error };
    match refusal.error.as_str() {
        refusal::ELEVATION_PENDING => {
            error.hint(format!("`tmpcred elevate status {id} --wait` waits for it, and begins"))
        }
        refusal::ELEVATION_CONFLICT => error
            .hint(format!(
                "`tmpcred elevate status {id}` shows it, and with --wait goes on with it"
            ))
            .hint(format!(
                "`tmpcred elevate withdraw {id}` takes it back where it waits for approval; where it waits for a review, that is for others: `tmpcred elevate review {id}`"
            )),
        _ => error,
    }
}

/// The same error, and how to ask for this role.
pub(super) fn asked_for(error: Error, role: &str) -> Error {
    error.hint(format!(
        "ask for it: `tmpcred elevate request {role} --reason WHY`, or for one command `tmpcred exec --elevate {role} --reason WHY -- COMMAND`"
    ))
}
