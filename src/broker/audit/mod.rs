//! The audit log: a durable record of every decision, before it takes effect.
//!
//! The broker hands out a credential only in exchange for the [`Receipt`] that
//! this module gave for its record: no record, no credential. What changes the
//! store, such as a revocation, is committed together with its record.
//!
//! The records are the leaves of a Merkle tree ([`tree`], [`leaf`]) whose root is
//! signed as it grows ([`note`]), so that whoever changes one is found ([`verify`]).
//! Nobody goes on from an end that the broker did not leave ([`seal`]).
//!
//! Callers that could not prove who they are leave no record, only a line in the
//! log: otherwise anybody could fill the disk.

mod author;
pub mod erase;
pub mod export;
#[cfg(test)]
mod fuzz;
pub mod leaf;
mod notary;
pub mod note;
pub mod outbox;
pub mod proof;
pub mod seal;
pub mod succession;
pub mod tree;
pub mod verify;
mod whole;
mod writer;

use percent_encoding::percent_decode_str;
use time::OffsetDateTime;
use uuid::Uuid;

pub use author::Author;
pub use notary::Notary;
pub use whole::Whole;
pub use writer::Audit;

use crate::credential::Principal;
use crate::oidc::Issuer;
use crate::trace::{self, TraceId};

/// How the reason begins of all that is on record of a drill, which is how such records are found.
pub const DRILL: &str = "DRILL: ";

/// All actions that records have.
pub const ACTIONS: [&str; 23] = [
    "issue",
    "revoke",
    "revoke-many",
    "key",
    "administer",
    "enroll",
    "enrollment.erase",
    "erase",
    "restore",
    "elevation.request",
    "elevation.emergency",
    "elevation.approve",
    "elevation.deny",
    "elevation.withdraw",
    "elevation.activate",
    "elevation.relinquish",
    "elevation.revoke",
    "elevation.expire",
    "elevation.lapse",
    "elevation.review",
    "elevation.review-overdue",
    "elevation.uses",
    "elevation.erase",
];

/// How long the reason for something may be, in bytes, as it goes on record.
pub const MAX_REASON: usize = 1000;

/// The reason for something, as it goes on record.
///
/// # Errors
/// Where it is none that does, in words that go on from its name.
pub fn reason(text: &str) -> Result<&str, String> {
    match text.len() <= MAX_REASON && !text.chars().any(char::is_control) {
        true => Ok(text),
        false => Err(format!("must be a line of at most {MAX_REASON} bytes")),
    }
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A credential was issued.
    Issued,
    /// It was not.
    Denied,
    /// A credential was to be issued, and after its record was written it turned out
    /// that it could not be. It names the same `jti`.
    Aborted,
    /// A credential was revoked.
    Revoked,
    /// Something of the broker's own was changed, such as a signing key.
    Changed,
}

impl Decision {
    /// Its name in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Denied => "denied",
            Self::Aborted => "aborted",
            Self::Revoked => "revoked",
            Self::Changed => "changed",
        }
    }

    /// The decision with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Issued, Self::Denied, Self::Aborted, Self::Revoked, Self::Changed]
            .into_iter()
            .find(|d| d.as_str() == name)
    }
}

/// One entry of the log. It never holds a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it was decided, to the microsecond.
    pub at: OffsetDateTime,
    /// The request, as the caller was told its id.
    pub request_id: Uuid,
    /// The trace that it belongs to, which may have begun elsewhere; `None` where nobody
    /// traced what was done.
    pub trace_id: Option<TraceId>,
    /// What was asked for, or happens to an elevation: one of [`ACTIONS`].
    pub action: String,
    /// What was decided.
    pub decision: Decision,
    /// Why, for people.
    pub reason: String,
    /// Who asked.
    pub principal: Principal,
    /// Who acted for them, first who did so now, then those before; ids, separated by
    /// spaces. `None` where they asked themselves.
    pub actor: Option<String>,
    /// The client that has authenticated; where none has, the one through which they proved
    /// who they are.
    pub client: String,
    /// The address from which they asked.
    pub source: String,
    /// The role that was asked for.
    pub role: String,
    /// The audience that was asked for.
    pub audience: String,
    /// The scope that was granted, or asked for where it was denied; space-separated.
    pub scope: String,
    /// The lifetime that was granted, or asked for where it was denied, in seconds;
    /// 0 where none was asked for.
    pub ttl: u64,
    /// The id of the token.
    pub jti: Option<Uuid>,
    /// The id of the token that was exchanged for it, where it was the broker's own.
    pub parent: Option<Uuid>,
    /// The elevation that it belongs to: that of which it tells, or under whose grant it was
    /// done.
    pub elevation: Option<Uuid>,
    /// What the token says besides, as JSON; `None` where it says nothing, or there is none.
    pub claims: Option<String>,
    /// The policy that granted or forbade it.
    pub policy_id: Option<String>,
    /// Which version of all policies and roles was in force.
    pub policy_hash: String,
    /// How many decisions this stands for: more than one only where so many are
    /// denied that they are counted.
    pub count: u64,
}

impl Record {
    /// A record of something that is no single request of a caller: `name` did it, or the
    /// broker tells it of them. It belongs to the trace of what is under way, if any.
    pub fn of_the_broker(
        at: OffsetDateTime,
        action: &str,
        decision: Decision,
        name: Principal,
    ) -> Self {
        Self {
            at,
            request_id: Uuid::new_v4(),
            trace_id: trace::id(),
            action: action.into(),
            decision,
            reason: String::new(),
            principal: name,
            actor: None,
            client: String::new(),
            source: String::new(),
            role: String::new(),
            audience: String::new(),
            scope: String::new(),
            ttl: 0,
            jti: None,
            parent: None,
            elevation: None,
            claims: None,
            policy_id: None,
            policy_hash: String::new(),
            count: 1,
        }
    }

    /// Whether what it tells of came about as somebody wanted it.
    pub fn went_well(&self) -> bool {
        matches!(self.decision, Decision::Issued | Decision::Revoked | Decision::Changed)
    }

    /// The record that takes this one back.
    pub fn aborted(self, why: &str) -> Self {
        Self { decision: Decision::Aborted, reason: why.into(), ..self }
    }
}

/// A caller as policies and tokens have them, by issuer and subject; or the subject alone.
pub fn principal(text: &str) -> (Option<String>, String) {
    match text.split_once('#') {
        Some((issuer, subject)) if Issuer::parse(issuer).is_ok() => {
            let subject = percent_decode_str(subject).decode_utf8_lossy();
            (Some(issuer.to_string()), subject.into_owned())
        }
        _ => (None, text.to_string()),
    }
}

/// The name of a broker's log: host and path of its issuer.
pub fn origin(issuer: &Issuer) -> String {
    let url = issuer.url();
    format!("{}{}", url.host_str().unwrap_or_default(), url.path().trim_end_matches('/'))
}

/// A time as the log has it.
pub fn micros(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX)
}

/// Proof that a record is durable. It cannot be made or copied elsewhere, and
/// is used up by what it is proof for.
#[derive(Debug)]
#[must_use = "a receipt is what a credential is handed over for"]
pub struct Receipt {
    sequence: u64,
    jti: Option<Uuid>,
}

impl Receipt {
    /// The place of the record in the log.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Uses the receipt up. Where it is for the token with this id, returns the place of
    /// the record in the log.
    pub fn redeem(self, jti: Uuid) -> Option<u64> {
        (self.jti == Some(jti)).then_some(self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::principal;

    #[test]
    fn principals_are_as_policies_have_them_or_subjects() {
        let (issuer, subject) = principal("https://login.example.com#a%23b");
        assert_eq!((issuer.as_deref(), &subject[..]), (Some("https://login.example.com"), "a#b"));
        assert_eq!(principal("alice#1"), (None, "alice#1".into()));
    }
}
