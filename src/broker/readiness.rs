//! Whether the broker can issue at this moment.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::audit::Audit;
use super::store::Store;
use crate::error::Result;

/// How long an answer holds: anybody may ask, and each look is a write to the disk.
const HOLDS_FOR: Duration = Duration::from_secs(1);

/// How long after a failure of the audit log requests should go elsewhere.
const AILING: Duration = Duration::from_secs(5);

/// The last answer. One look serves all who ask meanwhile.
#[derive(Default)]
pub(super) struct Readiness(Mutex<Option<(Instant, Result<()>)>>);

impl Readiness {
    /// Looks whether the store can be written, unless it was looked a moment ago.
    ///
    /// A store may take a probe and yet have no room for a record, so for a while
    /// after a record was lost the broker is not ready either.
    pub(super) async fn check(&self, store: &dyn Store, audit: &Audit) -> Result<()> {
        if let Some(error) = audit.failure_within(AILING) {
            return Err(error);
        }
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
