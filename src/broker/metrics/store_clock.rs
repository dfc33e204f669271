//! How far this machine's clock is from that of its database: looked at where somebody asks for
//! metrics, or it is swept, and once a second at most.
//!
//! What several processes share has its times from the clock of one of them. So who reads it may
//! find that something ends early, or late.

use prometheus_client::registry::{Registry, Unit};
use time::{Duration, OffsetDateTime};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::sample::{Number, STORE_TIME};
use crate::broker::cutoff::CLOCKS_DIFFER;
use crate::broker::store::Store;
use crate::error::Result;
use crate::host::clock::Clock;

/// How long an answer holds.
const HOLDS_FOR: Duration = Duration::SECOND;

/// The last look. One serves all who ask meanwhile.
#[derive(Default)]
pub(in crate::broker) struct StoreClock(Mutex<State>);

#[derive(Default)]
struct State {
    last: Option<(Instant, Option<Duration>)>,
    differs: bool,
}

impl StoreClock {
    /// How far this clock is ahead of the store's; `None` where the store has none of its own, or
    /// does not say.
    pub(in crate::broker) async fn look(
        &self,
        store: &dyn Store,
        clock: &dyn Clock,
    ) -> Option<Duration> {
        let mut state = self.0.lock().await;
        if let Some((at, offset)) = state.last
            && at.elapsed() < HOLDS_FOR
        {
            return offset;
        }
        let offset = match tokio::time::timeout(STORE_TIME, measure(store, clock)).await {
            Ok(Ok(offset)) => offset,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the clock of the database cannot be looked at");
                None
            }
            Err(_) => {
                tracing::warn!("the clock of the database cannot be looked at in time");
                None
            }
        };
        state.last = Some((Instant::now(), offset));
        let seconds = offset.map(Duration::as_seconds_f64);
        match offset.and_then(|offset| state.changes(offset)) {
            Some(true) => tracing::warn!(
                seconds,
                "this machine's clock is ahead of the database's by so much, or behind it where that is less than zero"
            ),
            Some(false) => {
                tracing::info!(
                    seconds,
                    "this machine's clock and the database's are the same again"
                );
            }
            None => {}
        }
        offset
    }
}

#[cfg(test)]
impl StoreClock {
    /// The next one who wants to know looks.
    pub(in crate::broker) async fn forget(&self) {
        self.0.lock().await.last = None;
    }
}

impl State {
    /// Whether the clocks differ, where that has changed.
    fn changes(&mut self, offset: Duration) -> Option<bool> {
        let differs = offset.abs() > CLOCKS_DIFFER;
        (std::mem::replace(&mut self.differs, differs) != differs).then_some(differs)
    }
}

/// What the store says is from somewhere between the question and the answer: from the middle,
/// as far as anybody can tell.
async fn measure(store: &dyn Store, clock: &dyn Clock) -> Result<Option<Duration>> {
    let (asked, since) = (clock.now(), Instant::now());
    let there: Option<OffsetDateTime> = store.now().await?;
    Ok(there.map(|there| asked + since.elapsed() / 2 - there))
}

/// Tells how far it is, where that is known.
pub(super) fn sample(registry: &mut Registry, offset: Option<Duration>) {
    let Some(offset) = offset else { return };
    let gauge = Number::default();
    gauge.set(offset.as_seconds_f64());
    let help = "How far this machine's clock is ahead of its database's; none with SQLite, where both are the same";
    registry.register_with_unit("store_clock_offset", help, Unit::Seconds, gauge);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::broker::store::sqlite;
    use crate::broker::testbed::Shifted;
    use crate::broker::testbed::failing::Failing;

    #[test]
    fn it_is_told_once_that_clocks_differ_and_once_that_they_do_no_more() {
        let mut state = State::default();
        let told = [0, 5, 6, 60, 6, -6, -5, 0, -6]
            .map(|seconds| state.changes(Duration::seconds(seconds)));
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(told, [None, None, yes, None, None, None, no, None, yes]);
    }

    #[tokio::test]
    async fn the_clock_of_a_database_is_asked_for_once_by_all_who_want_to_know() {
        let clock = Shifted::default();
        let store = Failing::over(Arc::new(sqlite::in_memory().await.unwrap()));
        let (own, looked) = (StoreClock::default(), StoreClock::default());
        assert_eq!(own.look(store.as_ref(), &clock).await, None, "it is the same clock");
        store.behind.store(100, Ordering::Relaxed);
        clock.0.store(-40, Ordering::Relaxed);
        let first = looked.look(store.as_ref(), &clock).await.unwrap();
        assert!((first - Duration::MINUTE).abs() < Duration::SECOND, "{first}");
        store.behind.store(200, Ordering::Relaxed);
        // Who asks a moment later is told the same.
        looked.0.lock().await.last = Some((Instant::now(), Some(first)));
        assert_eq!(looked.look(store.as_ref(), &clock).await, Some(first));
        let before = Instant::now().checked_sub(std::time::Duration::from_secs(1)).unwrap();
        looked.0.lock().await.last = Some((before, Some(first)));
        let second = looked.look(store.as_ref(), &clock).await.unwrap();
        assert!((second - first - Duration::seconds(100)).abs() < Duration::SECOND, "{second}");
    }

    #[tokio::test]
    async fn a_database_that_hangs_keeps_nobody_from_seeing_the_rest() {
        let store = Failing::over(Arc::new(sqlite::in_memory().await.unwrap()));
        store.behind.store(100, Ordering::Relaxed);
        let looked = StoreClock::default();
        store.reads.store(false, Ordering::Relaxed);
        assert_eq!(looked.look(store.as_ref(), &Shifted::default()).await, None);
        looked.forget().await;
        store.hangs.store(true, Ordering::Relaxed);
        assert_eq!(looked.look(store.as_ref(), &Shifted::default()).await, None);
    }
}
