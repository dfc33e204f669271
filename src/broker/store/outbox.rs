//! How far the audit log has been handed on.

use async_trait::async_trait;

use crate::error::Result;

/// How far each sink has got with the records. The records themselves are in the log.
#[async_trait]
pub trait OutboxStore: Send + Sync {
    /// How far a sink has got; `None` where nobody has spoken of it yet.
    async fn turn(&self, sink: &str) -> Result<Option<Turn>>;

    /// Speaks of a sink for the first time: it gets the records after this one. Where
    /// somebody was quicker, what they said counts.
    async fn add_sink(&self, sink: &str, after: u64) -> Result<()>;

    /// Changes how far a sink has got and whose turn it is, if nobody has changed it since
    /// it was read as `before`. Returns whether that was so. It never goes back.
    async fn change_turn(
        &self,
        sink: &str,
        before: &Turn,
        delivered: u64,
        holder: Option<&str>,
    ) -> Result<bool>;
}

/// How far a sink has got, and whose turn it is to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The number of the last record that it has for certain.
    pub delivered: u64,
    /// The number of the last record that there is.
    pub last: u64,
    /// The process whose turn it is.
    pub holder: Option<String>,
    /// How often this was changed.
    pub beat: u64,
}
