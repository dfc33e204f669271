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
use crate::error::{Error, ErrorKind, Result};
use crate::host::clock::Clock;

/// How long an answer holds.
const HOLDS_FOR: Duration = Duration::SECOND;

/// How long what the store said serves where it says nothing: one that is slow for a moment,
/// because many ask it, makes nobody refuse tokens. In so little time no clock goes wrong by itself, and where this one
/// was set meanwhile that is counted in.
const SERVES_FOR: Duration = Duration::MINUTE;

/// The last look. One serves all who ask meanwhile.
#[derive(Default)]
pub(in crate::broker) struct StoreClock(Mutex<State>);

#[derive(Default)]
struct State {
    last: Option<(Instant, Result<Option<Duration>>)>,
    said: Option<Said>,
    differs: bool,
}

/// What the store said last.
#[derive(Clone, Copy)]
struct Said {
    /// Its time.
    there: OffsetDateTime,
    /// How long this machine had been up then.
    uptime: Duration,
}

impl StoreClock {
    /// How far this clock is ahead of the store's; `None` where the store has none of its own.
    ///
    /// # Errors
    /// Where the store has not said it for a while.
    pub(in crate::broker) async fn look(
        &self,
        store: &dyn Store,
        clock: &dyn Clock,
    ) -> Result<Option<Duration>> {
        let mut state = self.0.lock().await;
        if let Some((at, answer)) = &state.last
            && at.elapsed() < HOLDS_FOR
        {
            return answer.clone();
        }
        let asked = match tokio::time::timeout(STORE_TIME, measure(store, clock)).await {
            Ok(Ok(said)) => {
                state.said = said;
                Ok(said)
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the clock of the database cannot be looked at");
                Err(error)
            }
            Err(_) => {
                tracing::warn!("the clock of the database cannot be looked at in time");
                Err(Error::new(ErrorKind::Unreachable, "the database does not answer in time"))
            }
        };
        let answer = match (asked, state.said) {
            (Ok(said), _) => Ok(said.map(|said| said.offset(clock))),
            (Err(_), Some(said)) if said.serves(clock) => Ok(Some(said.offset(clock))),
            (Err(error), _) => Err(error),
        };
        state.last = Some((Instant::now(), answer.clone()));
        let offset = answer.as_ref().ok().copied().flatten();
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
        answer
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

impl Said {
    /// How far this clock is ahead of the store's, which has gone on since.
    fn offset(self, clock: &dyn Clock) -> Duration {
        clock.now() - (self.there + self.age(clock))
    }

    fn serves(self, clock: &dyn Clock) -> bool {
        self.age(clock) <= SERVES_FOR
    }

    fn age(self, clock: &dyn Clock) -> Duration {
        clock.uptime().saturating_sub(self.uptime)
    }
}

/// What the store says is from somewhere between the question and the answer: from the middle,
/// as far as anybody can tell.
async fn measure(store: &dyn Store, clock: &dyn Clock) -> Result<Option<Said>> {
    let asked = clock.uptime();
    let there: Option<OffsetDateTime> = store.now().await?;
    let took = clock.uptime().saturating_sub(asked);
    Ok(there.map(|there| Said { there, uptime: asked + took / 2 }))
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
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use crate::broker::store::sqlite;
    use crate::broker::testbed::failing::Failing;
    use crate::broker::testbed::{Shifted, now};

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
        assert_eq!(own.look(store.as_ref(), &clock).await.unwrap(), None, "it is the same clock");
        store.behind.store(100, Ordering::Relaxed);
        clock.0.store(-40, Ordering::Relaxed);
        let looks = async || looked.look(store.as_ref(), &clock).await.unwrap().unwrap();
        let first = looks().await;
        assert!((first - Duration::MINUTE).abs() < Duration::SECOND, "{first}");
        store.behind.store(200, Ordering::Relaxed);
        // Who asks a moment later is told the same.
        looked.0.lock().await.last = Some((Instant::now(), Ok(Some(first))));
        assert_eq!(looks().await, first);
        let before = Instant::now().checked_sub(std::time::Duration::from_secs(1)).unwrap();
        looked.0.lock().await.last = Some((before, Ok(Some(first))));
        let second = looks().await;
        assert!((second - first - Duration::seconds(100)).abs() < Duration::SECOND, "{second}");
    }

    #[tokio::test]
    async fn a_database_that_hangs_keeps_nobody_from_seeing_the_rest() {
        let store = Failing::over(Arc::new(sqlite::in_memory().await.unwrap()));
        store.behind.store(100, Ordering::Relaxed);
        let looked = StoreClock::default();
        store.reads.store(false, Ordering::Relaxed);
        looked.look(store.as_ref(), &Shifted::default()).await.unwrap_err();
        looked.forget().await;
        store.hangs.store(true, Ordering::Relaxed);
        looked.look(store.as_ref(), &Shifted::default()).await.unwrap_err();
    }

    /// What was said a moment ago serves while nothing is said, as if both clocks had gone on; not
    /// for long, and not as if this one had not been set.
    #[tokio::test]
    async fn what_was_said_a_moment_ago_serves_and_no_longer() {
        let store = Failing::over(Arc::new(sqlite::in_memory().await.unwrap()));
        store.behind.store(100, Ordering::Relaxed);
        let (looked, clock) = (StoreClock::default(), Hand::default());
        let looks = async || {
            looked.0.lock().await.last = None;
            looked.look(store.as_ref(), &clock).await
        };
        let near = |offset: Result<Option<Duration>>, seconds: i64| {
            let offset = offset.unwrap().unwrap();
            let off = offset - Duration::seconds(seconds);
            assert!(off.abs() < Duration::seconds(20), "{offset} {seconds}");
        };
        near(looks().await, 100);
        store.reads.store(false, Ordering::Relaxed);
        clock.pass(60);
        near(looks().await, 100);
        clock.set_by(-3600);
        near(looks().await, 100 - 3600);
        clock.pass(1);
        looks().await.unwrap_err();
        store.reads.store(true, Ordering::Relaxed);
        near(looks().await, 100 - 3600 + 61);
    }

    /// A clock, and how long the machine is up, that are set by hand.
    struct Hand(AtomicI64, AtomicI64, OffsetDateTime);

    impl Default for Hand {
        fn default() -> Self {
            Self(AtomicI64::new(0), AtomicI64::new(0), now())
        }
    }

    impl Hand {
        fn pass(&self, seconds: i64) {
            self.0.fetch_add(seconds, Ordering::Relaxed);
        }

        fn set_by(&self, seconds: i64) {
            self.1.fetch_add(seconds, Ordering::Relaxed);
        }
    }

    impl Clock for Hand {
        fn now(&self) -> OffsetDateTime {
            self.2 + self.uptime() + Duration::seconds(self.1.load(Ordering::Relaxed))
        }

        fn uptime(&self) -> Duration {
            Duration::seconds(self.0.load(Ordering::Relaxed))
        }
    }
}
