//! Which records tell of somebody.

use async_trait::async_trait;

use crate::credential::Principal;
use crate::error::Result;

/// The records of a person. They are erased by [`Effect::Erase`](super::Effect::Erase).
#[async_trait]
pub trait ErasureStore: Send + Sync {
    /// The first records after this sequence number that tell of somebody and are not erased
    /// yet, at most `limit`. It takes as long as it takes.
    async fn of_person(&self, person: &Traces, after: u64, limit: u32) -> Result<Erasable>;
}

/// By what records tell of somebody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// What they are called where they asked.
    pub callers: Vec<Principal>,
    /// What they are called where they acted for somebody, issuer and subject as one.
    pub actors: Vec<String>,
}

/// Records that tell of somebody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erasable {
    /// Those that can be erased, by their numbers, in order.
    pub records: Vec<u64>,
    /// How many there are among them that cannot: they are from before there was a tree, and
    /// in it as they are.
    pub fixed: u64,
    /// The number of the last one of both; `None` where there is none.
    pub last: Option<u64>,
}
