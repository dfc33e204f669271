//! Why nothing is issued: what is told of it, and what goes on record.

use std::time::Duration;

use time::OffsetDateTime;

use crate::broker::cutoff::written;
use crate::broker::decide::{Denied, Missing, Why};
use crate::broker::proof::Refused;
use crate::error::Error;

/// How long the reason of a denial is on record, in bytes: whoever can ask can have such
/// records written.
const MAX_REASON: usize = 512;

/// Why nothing was issued.
#[derive(Debug)]
pub enum Refusal {
    /// Policy says no.
    Denied {
        /// What the caller is told.
        said: String,
        /// What goes on record, which names the caller elsewhere.
        reason: String,
    },
    /// The same, and it was said so often lately that it is only counted.
    TooMany {
        /// When to ask again.
        retry_after: Duration,
    },
    /// The role is had under a grant only, and the caller has none.
    Grantless {
        /// What the caller is told.
        said: String,
        /// Whether they have asked for one.
        missing: Missing,
    },
    /// Somebody has revoked all that is issued at this moment.
    CutOff {
        /// From when on something is issued.
        until: OffsetDateTime,
        /// How long that is from now.
        left: Duration,
    },
    /// The assertion may be used once, and was.
    Reused,
    /// The client's key for its request was used for another one, or too long ago.
    Repeated,
    /// The scope cannot be had.
    Scope(String),
    /// The role is not for this audience.
    Audience(String),
    /// The role's tokens are bound to a key, and none was proved.
    Unbound(String),
    /// The proof of a key was used before.
    Replayed,
    /// The decision could not be recorded, so it has no effect.
    Unrecorded(Error),
    /// Something of the broker's own failed.
    Failed(Error),
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        if let Some(missing) = denied.missing {
            return Self::Grantless { said: denied.said, missing };
        }
        match denied.why {
            Why::Scope => Self::Scope(denied.said),
            Why::Audience => Self::Audience(denied.said),
            Why::Unbound => Self::Unbound(denied.said),
            _ => Self::Denied { said: denied.said, reason: denied.reason },
        }
    }
}

impl Refusal {
    /// Why, as a record has it: short, whatever was asked for.
    pub(super) fn on_record(&self) -> String {
        let mut reason = match self {
            Self::Denied { reason, .. } => reason.clone(),
            other => other.to_string(),
        };
        if reason.len() > MAX_REASON {
            reason.truncate(reason.floor_char_boundary(MAX_REASON));
            reason.push('…');
        }
        reason
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Denied { said, .. } | Self::Grantless { said, .. } => f.write_str(said),
            Self::TooMany { .. } => f.write_str(
                "it is denied, and so many requests were denied lately that they are only counted",
            ),
            Self::CutOff { until, .. } => {
                let until = written(*until);
                write!(
                    f,
                    "all such tokens that are issued before {until} were revoked, so there is none until then"
                )
            }
            Self::Reused => {
                f.write_str("the token is not acceptable: it may be used once, and was")
            }
            Self::Repeated => f.write_str(
                "the parameter 'idempotency_key' was used for another request, too often, or more than a minute ago",
            ),
            Self::Scope(why) | Self::Audience(why) | Self::Unbound(why) => f.write_str(why),
            Self::Replayed => Refused::replayed().error.fmt(f),
            Self::Unrecorded(error) | Self::Failed(error) => error.fmt(f),
        }
    }
}
