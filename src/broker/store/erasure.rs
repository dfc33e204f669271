//! Which records tell of somebody.

use async_trait::async_trait;

use crate::error::Result;

/// The records of a person. They are erased by [`Effect::Erase`](super::Effect::Erase).
#[async_trait]
pub trait ErasureStore: Send + Sync {
    /// The first records that tell of somebody as the caller, or as who acted for one, and
    /// are not erased yet, at most `limit`; `id` is issuer and subject as one.
    async fn of_person(
        &self,
        issuer: &str,
        subject: &str,
        id: &str,
        limit: u32,
    ) -> Result<Erasable>;
}

/// Records that tell of somebody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erasable {
    /// Those that can be erased, by their numbers, in order.
    pub records: Vec<u64>,
    /// How many there are besides that cannot: they are from before there was a tree, and
    /// in it as they are.
    pub fixed: u64,
}
