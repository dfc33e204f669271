//! The public keys of trusted issuers, for processes that start while those are down.

use async_trait::async_trait;
use time::OffsetDateTime;

use crate::error::Result;

/// The keys of each issuer as they were last fetched. What is there was written by anybody:
/// the seal tells whether by this broker, and the store does not look at it.
#[async_trait]
pub trait IssuerKeyStore: Send + Sync {
    /// Those of this issuer, where some were kept.
    async fn issuer_keys(&self, issuer: &str) -> Result<Option<IssuerKeySet>>;

    /// Keeps them, in place of those from before. Where newer ones are there, those stay.
    async fn keep_issuer_keys(&self, keys: &IssuerKeySet) -> Result<()>;

    /// Forgets those of this issuer.
    async fn forget_issuer_keys(&self, issuer: &str) -> Result<()>;
}

/// The keys of an issuer as they were last fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerKeySet {
    /// Whose they are.
    pub issuer: String,
    /// Where they were fetched.
    pub address: String,
    /// When they were last known to be the issuer's.
    pub good_at: OffsetDateTime,
    /// As the issuer sent them.
    pub document: Vec<u8>,
    /// What shows that the broker wrote this.
    pub seal: Vec<u8>,
}
