//! What was done under grants, summed up.

use std::collections::BTreeSet;

use async_trait::async_trait;
use uuid::Uuid;

use crate::error::Result;

/// What was done under a grant, as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredUses {
    /// The grant.
    pub elevation: Uuid,
    /// Grows by one with each change.
    pub version: u64,
    /// All of it, as JSON.
    pub document: String,
    /// What shows that the broker wrote it.
    pub seal: Vec<u8>,
}

/// What was done under grants. It is changed by an effect of a [`Unit`](super::Unit).
#[async_trait]
pub trait UseStore: Send + Sync {
    /// What was done under this grant; its seal is not looked at.
    async fn uses(&self, elevation: Uuid) -> Result<Option<StoredUses>>;

    /// Those of these events of outside logs that are in it.
    async fn known_events(&self, elevation: Uuid, ids: &[String]) -> Result<BTreeSet<String>>;

    /// Forgets, as [`OnceStore::forget_consumed`](super::OnceStore::forget_consumed) does, what
    /// was done under grants that are forgotten.
    async fn forget_uses(&self, limit: u32) -> Result<u64>;
}
