//! Where the broker keeps what must outlive it: its keys, sealed, the audit log,
//! which one-time things were used up, and what people are told.
//!
//! Everything is written by [`Ledger::commit`]: a [`Unit`] is records and what they
//! tell of, kept together or not at all. So there is no record of what did not
//! happen, and nothing happens without its record.
//!
//! [`Store`] is the repository. [`sql`] implements it in the part of SQL that
//! SQLite and PostgreSQL share; what is their own is in [`sqlite`] and [`postgres`].
//!
//! Several processes may share a PostgreSQL database. They meet in the transaction and
//! nowhere else: whoever appends to the log updates its one head row first, and whoever
//! changes a key names what it was. Nothing rests on a session, a notification or an
//! advisory lock.

mod elevation;
pub mod enrollment;
mod erasure;
mod issuer_keys;
mod log;
mod notify;
mod open;
mod outbox;
pub mod postgres;
pub mod sql;
pub mod sqlite;
pub mod transfer;
mod unit;
mod uses;

use async_trait::async_trait;
use time::OffsetDateTime;

pub use elevation::{
    Among, CountedElevations, ElevationFilter, ElevationStore, FoundElevation, SealedElevation,
    StoredElevation, UnderWay, Unless,
};
pub use enrollment::{Enrollment, EnrollmentState, EnrollmentStore};
pub use erasure::{Erasable, ErasureStore, Traces};
pub use issuer_keys::{IssuerKeySet, IssuerKeyStore};
pub use log::{Filter, LogEnds, LogStore, Noted, Row, gone, require_end, require_last};
pub use notify::{Backlog, Delivery, NewDelivery, NotifyStore, Step, Undelivered};
pub use open::{Found, look, open, open_existing, open_to_read};
pub use outbox::{OutboxStore, Turn};
pub use unit::{
    Consumed, Cutoff, Effect, Issuance, Once, OpaqueToken, Outcome, Revocable, Unit, Whose,
};
pub use uses::{StoredUses, UseStore};

use super::audit::Record;
use super::audit::seal::Seal;
use super::keys::{SealedRoot, StoredKey};
use crate::error::Result;

/// The audit log, and the one way to write anything.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Commits units as a group: when it returns, they are durable. A unit whose
    /// condition does not hold is left out, alone; an error leaves all of them out,
    /// unless it came so late that nobody can tell. The outcomes are in the order of
    /// the units.
    async fn commit(&self, units: &[Unit]) -> Result<Vec<Outcome>>;

    /// The audit records after this sequence number, in order, at most `limit`.
    async fn records(&self, after: u64, limit: u32) -> Result<Vec<(u64, Record)>>;
}

/// The signing keys, and the root key that seals them.
#[async_trait]
pub trait KeyStore: Send + Sync {
    /// All signing keys, in whatever state, oldest first.
    async fn keys(&self) -> Result<Vec<StoredKey>>;

    /// The root key, as it is sealed under each key-encryption key.
    async fn sealed_roots(&self) -> Result<Vec<SealedRoot>>;
}

/// What can be used up once. It is used up by [`Effect::Consume`].
#[async_trait]
pub trait OnceStore: Send + Sync {
    /// Whether any of these was used up.
    async fn any_consumed(&self, kind: Once, ids: &[String]) -> Result<bool>;

    /// When something was used up; `None` where it was not.
    async fn consumed_at(&self, kind: Once, id: &str) -> Result<Option<OffsetDateTime>>;

    /// Forgets what of this kind had to be kept until before this moment, `limit` things at
    /// most, and returns how many that were: fewer once there is no more.
    async fn forget_consumed(&self, kind: Once, before: OffsetDateTime, limit: u32) -> Result<u64>;
}

/// Tokens: those that were revoked together, and those that can only be introspected.
#[async_trait]
pub trait TokenStore: Send + Sync {
    /// Whether any of these was revoked, be it together with others.
    async fn any_revoked(&self, these: Revocable) -> Result<bool>;

    /// The token with this hash; its seal is not looked at.
    async fn opaque(&self, hash: &str) -> Result<Option<OpaqueToken>>;

    /// Whether the token with this id is kept as one that can only be introspected. It may take
    /// long where there are many: no index leads to it.
    async fn has_opaque(&self, jti: uuid::Uuid) -> Result<bool>;

    /// Before when all of theirs that was issued was revoked together, where it was.
    async fn revoked_until(&self, whose: &Whose) -> Result<Option<OffsetDateTime>>;

    /// How many tokens of theirs were issued between these, and are good at `now` as far as
    /// the log tells, unless they were revoked together as these are.
    async fn count_issued(
        &self,
        whose: &Whose,
        between: (Option<OffsetDateTime>, OffsetDateTime),
        now: OffsetDateTime,
    ) -> Result<u64>;

    /// How many tokens are good at `now` as far as the log tells; those that came of one
    /// that was revoked by itself are among them. It takes as long as there are such, and no
    /// longer where the log is long.
    async fn count_active(&self, now: OffsetDateTime) -> Result<u64>;

    /// Forgets, as [`OnceStore::forget_consumed`] does, that tokens were revoked together
    /// which have all expired.
    async fn forget_cutoffs(&self, before: OffsetDateTime, limit: u32) -> Result<u64>;

    /// Forgets so what expired tokens said.
    async fn forget_opaque(&self, before: OffsetDateTime, limit: u32) -> Result<u64>;
}

/// What the broker keeps.
#[async_trait]
pub trait Store:
    Ledger
    + LogStore
    + OutboxStore
    + NotifyStore
    + ErasureStore
    + KeyStore
    + IssuerKeyStore
    + OnceStore
    + TokenStore
    + ElevationStore
    + UseStore
    + EnrollmentStore
{
    /// Seals the end of the log with this from now on: whoever appends goes on from an
    /// end that is sealed, or from an empty log.
    ///
    /// # Errors
    /// [`ErrorKind::Verification`](crate::error::ErrorKind::Verification) where the log
    /// does not end as it was left by whoever has the key.
    async fn seal_with(&self, seal: Seal) -> Result<()>;

    /// What time it is there; `None` where that is this machine.
    async fn now(&self) -> Result<Option<OffsetDateTime>>;

    /// Succeeds if something can be written durably at this moment, and the log ends so that this
    /// process could append to it.
    ///
    /// # Errors
    /// [`ErrorKind::Verification`](crate::error::ErrorKind::Verification) where it ends otherwise.
    async fn probe(&self) -> Result<()>;

    /// Waits for what is under way, then lets go of the store.
    async fn close(&self);
}
