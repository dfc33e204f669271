//! What a broker answers to those who operate it. What it says besides, nobody here reads.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::secret::{Secret, bare_option};
use crate::wire::{RevocationReach, RevokedAwsSessions};

/// A key that signs, but for the key itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Key {
    /// Its id.
    pub kid: String,
    /// What it signs: `access-token`, or `audit-checkpoint`.
    pub purpose: String,
    /// Its public half, as whoever checks the audit log takes it, where it signs that.
    #[serde(default)]
    pub log_key: Option<String>,
    /// By which algorithm it signs.
    pub algorithm: String,
    /// `prepared`, `published`, `active`, `retired` or `revoked`.
    pub state: String,
    /// Whether it is in the JWKS.
    pub shown: bool,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it came into its state.
    #[serde(with = "time::serde::rfc3339")]
    pub changed_at: OffsetDateTime,
    /// When it will sign, where it is published.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub signs_from: Option<OffsetDateTime>,
    /// Until when it is in the JWKS, where it is retired.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub shown_until: Option<OffsetDateTime>,
}

/// All keys.
#[derive(Clone, Debug, Deserialize)]
pub struct Keys {
    /// The oldest first.
    pub keys: Vec<Key>,
}

/// What became of a key that was to be revoked.
#[derive(Clone, Debug, Deserialize)]
pub struct KeyRevocation {
    /// Whether it was revoked before.
    #[serde(default)]
    pub was_revoked: bool,
    /// All keys, the oldest first.
    pub keys: Vec<Key>,
}

/// Which keys are to be rotated.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Rotate<'a> {
    /// Those that sign tokens by this algorithm.
    pub algorithm: Option<&'a str>,
    /// The one that signs the audit log.
    pub log: Option<bool>,
    /// All that sign anything.
    pub all: Option<bool>,
}

/// What became of a rotation.
#[derive(Clone, Debug, Deserialize)]
pub struct Rotation {
    /// The ids of those that were published now.
    pub begun: Vec<String>,
    /// The ids of those that were asked for, and under way.
    pub under_way: Vec<String>,
    /// All keys, the oldest first.
    pub keys: Vec<Key>,
}

/// Which tokens are to be revoked: one of them, or all that are of somebody.
#[derive(Default, Serialize)]
pub struct Revoke<'a> {
    /// This one.
    #[serde(serialize_with = "bare_option", skip_serializing_if = "Option::is_none")]
    pub token: Option<&'a Secret<String>>,
    /// The one with this id.
    pub jti: Option<Uuid>,
    /// All of callers of this issuer.
    pub issuer: Option<&'a str>,
    /// Of these only those of this subject.
    pub subject: Option<&'a str>,
    /// All with this role.
    pub role: Option<&'a str>,
    /// All that were issued to this client.
    pub client: Option<&'a str>,
    /// All of this broker.
    pub all: Option<bool>,
    /// Only what was issued before this moment (RFC 3339).
    pub before: Option<String>,
    /// Why.
    pub reason: &'a str,
}

/// What became of tokens that were to be revoked.
#[derive(Clone, Debug, Deserialize)]
pub struct Revoked {
    /// How many that were good, where they could be counted.
    pub tokens: Option<u64>,
    /// Before when they were issued.
    #[serde(with = "time::serde::rfc3339")]
    pub issued_before: OffsetDateTime,
    /// Whether any token of theirs of late is on record, be it good or not, where that was
    /// looked at.
    #[serde(default)]
    pub on_record: Option<bool>,
    /// Whom it reaches, where that is said.
    #[serde(default)]
    pub revocation_reach: Option<RevocationReach>,
    /// Sessions of AWS that it does not reach, where there may be some.
    #[serde(default)]
    pub aws_sessions: Option<RevokedAwsSessions>,
    /// Whether nothing was changed, and this is only what would be.
    #[serde(default)]
    pub dry_run: bool,
}

/// Which records of the audit log are looked for: moments in RFC 3339, all else as the command
/// line has it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Query<'a> {
    /// Not before this moment.
    pub since: Option<String>,
    /// Before this one.
    pub until: Option<String>,
    /// Of this caller.
    pub principal: Option<&'a str>,
    /// About this role.
    pub role: Option<&'a str>,
    /// Of this action.
    pub action: Option<&'a str>,
    /// With this decision.
    pub decision: Option<&'a str>,
    /// Of this request.
    pub request: Option<Uuid>,
    /// Of this trace.
    pub trace: Option<String>,
    /// About this token.
    pub token: Option<Uuid>,
    /// Of this elevation.
    pub elevation: Option<Uuid>,
    /// Of drills alone.
    pub drill: Option<bool>,
    /// How many at most.
    pub limit: u32,
    /// With lower numbers than this.
    pub below: Option<u64>,
}

/// A page of the audit log.
#[derive(Clone, Debug, Deserialize)]
pub struct Records {
    /// In order.
    pub records: Vec<Value>,
    /// Where older ones may be.
    pub next_below: Option<u64>,
}
