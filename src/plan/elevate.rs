//! Where a role can be had under a grant, and where it cannot.

use crate::config::diagnostic::quoted;
use crate::error::{Error, ErrorKind, Result};
use crate::mint::broker;

/// Refuses a role to be had under a grant that no broker can have.
pub(super) fn check_role(role: &str) -> Result<()> {
    broker::check_role(role).map_err(|refusal| {
        let error = Error::new(ErrorKind::Usage, "`--elevate` cannot be used like this")
            .because_of(refusal.why);
        refusal.hint.into_iter().fold(error, Error::hint)
    })
}

/// Refuses to have a role under a grant where not exactly one exchange asks a broker for one.
pub(super) fn check_exchanges(profile: &str, exchanges: usize) -> Result<()> {
    let (why, hint) = match exchanges {
        1 => return Ok(()),
        0 => (
            format!("no broker is asked for a role on the way of the profile {}", quoted(profile)),
            "name a profile whose target is a broker, or that has one `exchange` at one",
        ),
        more => (
            format!(
                "the profile {} has {more} exchanges, and it is not said which of them the role is for",
                quoted(profile)
            ),
            "have the role first (`tmpcred elevate request`), with a profile that names it in its exchange, or write a profile with that exchange alone",
        ),
    };
    Err(Error::new(ErrorKind::Usage, "`--elevate` cannot be used here").because_of(why).hint(hint))
}
