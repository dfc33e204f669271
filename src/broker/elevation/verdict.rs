//! What somebody wants of a role or of a request for one, and why it is not done.

use std::collections::BTreeSet;
use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::Path;
use super::life::Refused;
use super::signed::SignedRequest;
use crate::broker::config::Login;
use crate::broker::rate::TooOften;
use crate::error::{Error, ErrorKind};

/// A request for a role.
#[derive(Clone, Debug)]
pub struct Request {
    /// On which path.
    pub path: Path,
    /// Whether it only is practised.
    pub drill: bool,
    /// The role.
    pub role: String,
    /// Whom its tokens are for; where the role has one audience, that.
    pub audience: Option<String>,
    /// What they cover; all that can be had where left out.
    pub scope: Option<BTreeSet<String>>,
    /// For how long; as long as can be had where left out.
    pub ttl: Option<Duration>,
    /// When it is to start; once it is approved where left out.
    pub start: Option<OffsetDateTime>,
    /// The thumbprint of the key that its tokens are to be bound to.
    pub key: Option<String>,
    /// Why.
    pub reason: String,
    /// The ticket.
    pub ticket: Option<String>,
    /// By which whoever asks tells that it is the same request again.
    pub idempotency_key: Option<String>,
    /// What was signed, where it is asked for by a signature.
    pub signed: Option<SignedRequest>,
}

/// What somebody does about a request.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// To approve what has this hash.
    Approve {
        /// The hash that they were shown.
        hash: String,
        /// Why.
        reason: Option<String>,
    },
    /// To say no.
    Deny {
        /// Why.
        reason: String,
    },
    /// To take it back.
    Withdraw,
    /// To begin.
    Activate,
    /// To give it back.
    Relinquish,
    /// To end it.
    Revoke {
        /// Why.
        reason: String,
    },
    /// To have looked at it.
    Review {
        /// Whether it was in order.
        in_order: bool,
        /// What was found.
        note: String,
    },
}

impl Verdict {
    /// Its name, as records have it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Approve { .. } => "approve",
            Self::Deny { .. } => "deny",
            Self::Withdraw => "withdraw",
            Self::Activate => "activate",
            Self::Relinquish => "relinquish",
            Self::Revoke { .. } => "revoke",
            Self::Review { .. } => "review",
        }
    }

    /// Whether nothing but an end can come of it.
    pub(super) fn only_ends(&self) -> bool {
        matches!(self, Self::Withdraw | Self::Relinquish | Self::Revoke { .. })
    }

    /// Whether somebody decides about what another one asked for, or did.
    pub(super) fn decides(&self) -> bool {
        matches!(self, Self::Approve { .. } | Self::Deny { .. } | Self::Review { .. })
    }
}

/// Why something is not done.
#[derive(Debug)]
pub enum Refusal {
    /// There is no such request, or it is none of theirs.
    Unknown,
    /// The request cannot be had like that.
    Malformed(String),
    /// That cannot be done in its state, or by them.
    Refused(Refused),
    /// Another request speaks against it, or something else of how things stand.
    Conflict {
        /// What.
        why: String,
        /// Which one it is, where it is one.
        with: Option<Uuid>,
    },
    /// Policy says no.
    Denied(String),
    /// The same, so often that it is only counted.
    Counted {
        /// When to ask again.
        retry_after: Duration,
    },
    /// They have asked too often of late.
    TooOften(TooOften),
    /// They have to log in for it, like this.
    StepUp(Login),
    /// The directory of people is out of date.
    Stale,
    /// So many want the same that this one was not looked at.
    Busy(Busy),
    /// It cannot be told whether there is the ticket.
    Uncheckable,
    /// It could not be recorded, or not be looked up.
    Unrecorded(Error),
}

/// So many want something at once that it is not done for one more of them. Nothing is wrong with
/// the broker, and it can be wanted again in a little while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// To find out who could approve something.
    Approvers,
    /// To have a ticket checked.
    Tickets,
}

impl std::fmt::Display for Busy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Approvers => "so many requests wait to find out who could approve them that this one was not taken; try again in a little while",
            Self::Tickets => "so many tickets are being checked that this one was not; try again in a little while",
        })
    }
}

/// What is told of [`Refusal::Uncheckable`].
pub(in crate::broker) const UNCHECKABLE: &str = "the ticket cannot be checked at present, so nobody can ask with it; try again in a little while";

impl Refusal {
    /// How things stand speaks against it.
    pub(super) fn conflict(why: impl Into<String>) -> Self {
        Self::Conflict { why: why.into(), with: None }
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<Busy> for Refusal {
    fn from(busy: Busy) -> Self {
        Self::Busy(busy)
    }
}

/// Where nobody waits for an answer.
impl From<Busy> for Error {
    fn from(busy: Busy) -> Self {
        Self::new(ErrorKind::Other, busy.to_string())
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Unrecorded(error)
    }
}
