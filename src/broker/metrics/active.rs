//! How many tokens are good, as the log tells: looked at once a minute at most, and only
//! where somebody asks.
//!
//! An index has what was issued by when it ends, so what is looked at is what is good,
//! however long the log is. Where even that takes long, nobody waits for it: who asks gets
//! the number from before, as long as that is not old.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::sample::STORE_TIME;
use crate::broker::store::Store;
use crate::host::clock::Clock;

/// How often it is counted, at most.
const EVERY: Duration = Duration::MINUTE;

/// How old a number may be that is told.
const OLD: Duration = Duration::minutes(5);

/// How long is waited before it is looked whether a count has ended.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(5);

/// The last count, and the one under way. Moments are told by how long the machine has been
/// running.
#[derive(Default)]
pub(in crate::broker) struct Active(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    last: Option<(Duration, u64)>,
    begun: Option<Duration>,
    counting: Option<JoinHandle<()>>,
}

impl State {
    fn is_counting(&self) -> bool {
        self.counting.as_ref().is_some_and(|task| !task.is_finished())
    }
}

impl Active {
    /// How many there are; `None` where that is not known.
    pub(super) async fn look(&self, store: &Arc<dyn Store>, clock: &Arc<dyn Clock>) -> Option<u64> {
        self.begin(store, clock);
        let end = Instant::now() + STORE_TIME;
        while self.state().is_counting() && Instant::now() < end {
            tokio::time::sleep(PAUSE).await;
        }
        let (last, up) = (self.state().last, clock.uptime());
        last.filter(|(at, _)| up - *at <= OLD).map(|(_, count)| count)
    }

    /// Begins to count, where that is due and nobody does.
    fn begin(&self, store: &Arc<dyn Store>, clock: &Arc<dyn Clock>) {
        let mut state = self.state();
        let up = clock.uptime();
        if state.is_counting() || state.begun.is_some_and(|begun| up - begun < EVERY) {
            return;
        }
        state.begun = Some(up);
        let (shared, store, now) = (self.0.clone(), store.clone(), clock.now());
        state.counting = Some(tokio::spawn(async move {
            match store.count_active(now).await {
                Ok(count) => {
                    let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    state.last = Some((up, count));
                }
                Err(error) => tracing::warn!(%error, "active tokens cannot be counted"),
            }
        }));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        if let Some(task) = self.state().counting.take() {
            task.abort();
        }
    }
}
