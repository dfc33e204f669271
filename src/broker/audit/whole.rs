//! Whether the log is what was signed of it: who signs it finds out, and who writes it asks.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result};

/// How often in a row the log has to have been found not to be what was signed before that
/// counts: what another process has just changed may look like it for a moment.
const FOUND: u32 = 2;

/// What was found of the log the last times.
#[derive(Clone, Debug, Default)]
pub struct Whole(Arc<Mutex<Found>>);

#[derive(Debug, Default)]
struct Found {
    /// How often in a row it was not what was signed.
    wrong: u32,
    /// Why.
    why: Option<Error>,
}

impl Whole {
    /// Keeps in mind what came of signing the log. A store that cannot be read says nothing of
    /// it. Returns whether it has just come to count.
    pub fn found(&self, outcome: &Result<()>) -> bool {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(()) => *found = Found::default(),
            Err(error) if error.kind() == ErrorKind::Verification => {
                found.wrong = found.wrong.saturating_add(1);
                found.why = Some(error.clone());
                return found.wrong == FOUND;
            }
            Err(_) => {}
        }
        false
    }

    /// Refuses what would rest on a log that is not whole.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where it is not, as where it cannot be written.
    pub fn require(&self) -> Result<()> {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &found.why {
            Some(why) if found.wrong >= FOUND => Err(Error::new(
                ErrorKind::Io,
                "nothing is issued that would go into this audit log",
            )
            .because_of(why.to_string())),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_twice_counts_until_the_log_is_whole_again() {
        let (whole, other) = (Whole::default(), Whole::default());
        let of = |kind| Err(Error::new(kind, "records are gone"));
        let (wrong, unread) = (of(ErrorKind::Verification), of(ErrorKind::Io));
        assert!(!whole.found(&wrong));
        whole.require().unwrap();
        // A store that is away for a while is no sign of anything.
        assert!(!whole.found(&unread));
        whole.require().unwrap();
        assert!(whole.found(&wrong), "that is when it is told");
        assert!(!whole.found(&wrong));
        let refused = whole.clone().require().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Io);
        assert!(refused.to_string().contains("records are gone"), "{refused}");
        other.require().unwrap();
        whole.found(&Ok(()));
        whole.require().unwrap();
        assert!(!whole.found(&wrong));
        whole.require().unwrap();
    }
}
