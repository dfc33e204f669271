//! Why a key is not enrolled, approved or removed.

use crate::error::{Error, ErrorKind};

/// Why it is not done.
#[derive(Debug)]
pub(in crate::broker) enum Refused {
    /// Something about the request, or about what is there.
    Malformed(Error),
    /// Whoever asks may not.
    Denied(Error),
    /// There is no such key.
    Unknown(Error),
    /// It cannot be done at present.
    Failed(Error),
}

impl Refused {
    pub(super) fn malformed(why: impl Into<String>) -> Self {
        Self::Malformed(Error::new(ErrorKind::Usage, why))
    }

    pub(super) fn denied(why: impl Into<String>) -> Self {
        Self::Denied(Error::new(ErrorKind::Denied, why))
    }

    pub(super) fn unknown() -> Self {
        Self::Unknown(Error::new(ErrorKind::Usage, "there is no enrolled key with this id"))
    }

    pub(super) fn hint(self, hint: &str) -> Self {
        match self {
            Self::Malformed(error) => Self::Malformed(error.hint(hint)),
            Self::Denied(error) => Self::Denied(error.hint(hint)),
            Self::Unknown(error) => Self::Unknown(error.hint(hint)),
            Self::Failed(error) => Self::Failed(error.hint(hint)),
        }
    }
}

/// What is wrong with a statement is its maker's matter, all else the broker's.
impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Verification => {
                let why = error.causes().first().map(|cause| format!(": {cause}"));
                let said =
                    Error::new(ErrorKind::Usage, format!("{error}{}", why.unwrap_or_default()));
                Self::Malformed(error.hints().iter().fold(said, |said, hint| said.hint(hint)))
            }
            _ => Self::Failed(error),
        }
    }
}
