//! What statements are about, and whether they fit together.

use aws_lc_rs::digest::{Context, SHA256};
use uuid::Uuid;

use super::{At, said};
use crate::broker::elevation::verdict::Refusal;
use crate::broker::ids;
use crate::sshsig::{Named, Said, Signed};

/// The elevation that something is about which somebody said, where it is about one that there
/// has to be already.
pub(super) fn about(said: &Said) -> Option<Uuid> {
    match said {
        Said::Ending { of: Named::Elevation(id), .. } => Some(*id),
        said => said.request().map(id_of),
    }
}

/// Checks that statements are about one request, and about what they are brought for.
pub(super) fn check_together(statements: &[Signed], at: At<'_>) -> Result<(), Refusal> {
    let malformed = |why: &str| Err(Refusal::Malformed(why.into()));
    let mut one: Option<Uuid> = None;
    for (number, Signed { statement, .. }) in statements.iter().enumerate() {
        let id = match &statement.said {
            Said::Request { .. } if number == 0 && at.event.is_none() => {
                id_of(&statement.hash().map_err(|error| said(&error))?)
            }
            Said::Request { .. } if number == 0 => {
                return malformed("a request is brought by itself");
            }
            Said::Request { .. } => return malformed("only the first statement may be a request"),
            Said::Enrollment { .. } => return malformed("an enrollment does not belong here"),
            said => about(said).unwrap_or_default(),
        };
        if *one.get_or_insert(id) != id {
            return malformed("the statements are not about one request");
        }
        let fits = at.event.is_none_or(|(meant, event)| {
            id == meant
                && match statement.said {
                    Said::Approval { .. } => event == "approve",
                    Said::Denial { .. } => event == "deny",
                    Said::Use { .. } => event == "activate",
                    Said::Ending { .. } => ["withdraw", "relinquish", "revoke"].contains(&event),
                    Said::Request { .. } | Said::Enrollment { .. } => false,
                }
        });
        if !fits {
            return malformed("the statement is about another request, or says something else");
        }
    }
    Ok(())
}

/// The id of the elevation that this request, by its hash, asks for.
pub(in crate::broker) fn id_of(request: &[u8; 32]) -> Uuid {
    let mut hasher = Context::new(&SHA256);
    hasher.update(b"tmpcred elevation of a statement v1\0");
    hasher.update(request);
    let mut hash = [0; 32];
    hash.copy_from_slice(hasher.finish().as_ref());
    ids::hashed(&hash)
}
