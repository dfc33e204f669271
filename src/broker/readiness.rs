//! Whether the broker can issue at this moment.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::store::Store;
use crate::error::Result;

/// How long an answer holds: anybody may ask, and each look is a write to the disk.
const HOLDS_FOR: Duration = Duration::from_secs(1);

/// The last answer. One look serves all who ask meanwhile.
#[derive(Default)]
pub(super) struct Readiness(Mutex<Option<(Instant, Result<()>)>>);

impl Readiness {
    /// Looks whether the store can be written, unless it was looked a moment ago.
    pub(super) async fn check(&self, store: &dyn Store) -> Result<()> {
        let mut last = self.0.lock().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() < HOLDS_FOR
        {
            return answer.clone();
        }
        let answer = store.probe().await;
        *last = Some((Instant::now(), answer.clone()));
        answer
    }
}
