//! Where the broker keeps what must outlive it: its keys, sealed, the audit log,
//! and which tokens were revoked.
//!
//! [`Store`] is the repository. [`sql`] implements it in the part of SQL that
//! SQLite and PostgreSQL share; what is SQLite's own is in [`sqlite`].

pub mod sql;
pub mod sqlite;

use async_trait::async_trait;
use time::OffsetDateTime;
use uuid::Uuid;

use super::audit::Record;
use super::keys::StoredKey;
use super::revoke::Revocation;
use crate::error::Result;

/// What the broker keeps.
#[async_trait]
pub trait Store: Send + Sync {
    /// Succeeds if something can be written durably at this moment.
    async fn probe(&self) -> Result<()>;

    /// All signing keys, in whatever state, oldest first.
    async fn keys(&self) -> Result<Vec<StoredKey>>;

    /// Adds a signing key. Returns false, and adds nothing, where there is an
    /// active key for the same purpose and algorithm already: another process
    /// may have been quicker.
    async fn add_key(&self, key: &StoredKey) -> Result<bool>;

    /// Appends to the audit log, all records or none, in this order. When it
    /// returns, they are durable. Returns the sequence number of the first.
    async fn append(&self, records: &[Record]) -> Result<u64>;

    /// The audit records after this sequence number, in order, at most `limit`.
    async fn records(&self, after: u64, limit: u32) -> Result<Vec<(u64, Record)>>;

    /// Notes that a token is good no more. When it returns, that is durable. A
    /// second time changes nothing.
    async fn revoke(&self, revocation: &Revocation) -> Result<()>;

    /// Whether the token with this id was revoked.
    async fn is_revoked(&self, jti: Uuid) -> Result<bool>;

    /// Removes revocations that need not be kept any longer, and returns how many
    /// they were.
    async fn forget_revocations(&self, now: OffsetDateTime) -> Result<u64>;

    /// Waits for what is under way, then lets go of the store.
    async fn close(&self);
}
