//! Whether the log is what was signed of it: who signs it finds out, and who writes it asks.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result};

/// How often in a row the log has to have been found not to be what was signed before that
/// counts: what another process has just changed may look like it for a moment.
const FOUND: u32 = 2;

/// What has come of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// From now on nothing is issued.
    Broken,
    /// From now on something is issued again.
    Mended,
    /// All is as it was.
    Same,
}

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
    /// Keeps in mind what came of looking at the log. A store that cannot be read says nothing
    /// of it.
    pub fn found(&self, outcome: &Result<()>) -> Turn {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(()) => {
                let before = std::mem::take(&mut *found);
                if before.wrong >= FOUND { Turn::Mended } else { Turn::Same }
            }
            Err(error) if error.kind() == ErrorKind::Verification => {
                found.wrong = found.wrong.saturating_add(1);
                found.why = Some(error.clone());
                if found.wrong == FOUND { Turn::Broken } else { Turn::Same }
            }
            Err(_) => Turn::Same,
        }
    }

    /// Whether the last look found something wrong.
    pub fn is_in_doubt(&self) -> bool {
        self.found_wrong() > 0
    }

    /// Whether one more such look is all that it takes.
    pub fn is_in_question(&self) -> bool {
        self.found_wrong() + 1 == FOUND
    }

    /// Whether nothing is issued.
    pub fn is_broken(&self) -> bool {
        self.found_wrong() >= FOUND
    }

    fn found_wrong(&self) -> u32 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).wrong
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
        assert_eq!(whole.found(&wrong), Turn::Same);
        assert!(whole.is_in_doubt() && whole.is_in_question());
        whole.require().unwrap();
        // A store that is away for a while is no sign of anything.
        assert_eq!(whole.found(&unread), Turn::Same);
        whole.require().unwrap();
        assert!(!whole.is_broken());
        assert_eq!(whole.found(&wrong), Turn::Broken, "that is when it is told");
        assert!(whole.is_broken() && !whole.is_in_question());
        assert_eq!(whole.found(&wrong), Turn::Same);
        assert_eq!(whole.found(&unread), Turn::Same);
        let refused = whole.clone().require().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Io);
        assert!(refused.to_string().contains("records are gone"), "{refused}");
        other.require().unwrap();
        assert_eq!(whole.found(&Ok(())), Turn::Mended);
        assert!(!whole.is_in_doubt() && !whole.is_in_question() && !whole.is_broken());
        whole.require().unwrap();
        assert_eq!(whole.found(&wrong), Turn::Same);
        whole.require().unwrap();
        assert_eq!(whole.found(&Ok(())), Turn::Same, "it never counted");
    }
}
