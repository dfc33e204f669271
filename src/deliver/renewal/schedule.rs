//! When to do what about a credential that is to be renewed.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use crate::credential::Credential;

/// The longest time between two looks at the clock: a machine that has slept does not
/// notice otherwise.
const LOOK: Duration = Duration::from_secs(30);
/// How long before the end it is told that there will be one, at most.
const NOTICE_MAX: Duration = Duration::from_secs(120);

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing for so long.
    Wait(Duration),
    /// Try to get a new credential.
    Renew,
    /// Tell that the credential ends, or has ended.
    Tell,
}

/// The times that matter for one credential.
#[derive(Debug)]
pub(super) struct Schedule {
    window: Duration,
    outage: Option<Outage>,
}

#[derive(Debug)]
struct Outage {
    next_try: Instant,
    delays: ExponentialBackoff,
    told: Told,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Failure,
    EndsSoon,
    Ended,
}

impl Schedule {
    pub(super) fn of(credential: &Credential) -> Self {
        Self { window: credential.refresh_window().unsigned_abs(), outage: None }
    }

    /// Whether renewing has failed.
    pub(super) fn is_outage(&self) -> bool {
        self.outage.is_some()
    }

    /// What to do when so much is `left`.
    pub(super) fn next(&mut self, left: Duration, now: Instant) -> Step {
        let notice = (self.window / 3).min(NOTICE_MAX);
        let Some(outage) = &mut self.outage else {
            return match left.saturating_sub(self.window) {
                Duration::ZERO => Step::Renew,
                early => Step::Wait(early.min(LOOK)),
            };
        };
        if left.is_zero() && outage.told < Told::Ended {
            outage.told = Told::Ended;
            return Step::Tell;
        }
        if left <= notice && outage.told < Told::EndsSoon {
            outage.told = Told::EndsSoon;
            return Step::Tell;
        }
        let until_try = outage.next_try.saturating_duration_since(now);
        if until_try.is_zero() {
            return Step::Renew;
        }
        let to_tell = if outage.told < Told::EndsSoon { left - notice } else { left };
        let until_told = if to_tell.is_zero() { LOOK } else { to_tell };
        Step::Wait(until_try.min(until_told).min(LOOK))
    }

    /// It could not be renewed. Tells whether that is so for the first time.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        let is_first = self.outage.is_none();
        let outage = self.outage.get_or_insert_with(|| Outage {
            next_try: now,
            delays: delays(self.window),
            told: Told::Failure,
        });
        // There is no end of them.
        outage.next_try = now + outage.delays.next().unwrap_or(LOOK);
        is_first
    }
}

/// The times between two tries: from a small part of the window on, twice as long each
/// time, up to half a minute or a minute.
fn delays(window: Duration) -> ExponentialBackoff {
    let min = (window / 20).clamp(Duration::from_millis(50), Duration::from_secs(5));
    let max = (window / 4).clamp(Duration::from_millis(500), Duration::from_secs(30));
    ExponentialBuilder::new()
        .with_min_delay(min)
        .with_max_delay(max)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn without_trouble_it_waits_for_the_window_and_looks_at_the_clock() {
        let mut schedule = Schedule { window: seconds(900), outage: None };
        let now = Instant::now();
        assert_eq!(schedule.next(seconds(3600), now), Step::Wait(LOOK));
        assert_eq!(schedule.next(seconds(910), now), Step::Wait(seconds(10)));
        assert_eq!(schedule.next(seconds(900), now), Step::Renew);
        assert_eq!(schedule.next(Duration::ZERO, now), Step::Renew);
    }

    #[test]
    fn in_trouble_it_tries_again_later_and_later_and_tells_the_end_in_time() {
        let mut schedule = Schedule { window: seconds(900), outage: None };
        let start = Instant::now();
        let (mut now, mut tries, mut told) = (start, 0, Vec::new());
        let mut longest = Duration::ZERO;
        while now < start + seconds(2000) {
            let left = seconds(900).saturating_sub(now - start);
            match schedule.next(left, now) {
                Step::Wait(time) => {
                    assert!(!time.is_zero());
                    longest = longest.max(time);
                    now += time;
                }
                Step::Renew => {
                    tries += 1;
                    assert_eq!(schedule.failed(now), tries == 1);
                }
                Step::Tell => told.push(left),
            }
        }
        // Twice: two minutes before, and when it has ended.
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0] <= NOTICE_MAX && told[0] > NOTICE_MAX - seconds(1), "{told:?}");
        assert_eq!(told[1], Duration::ZERO);
        assert!(longest <= LOOK);
        assert!((30..500).contains(&tries), "{tries}");
    }

    #[test]
    fn an_end_that_nobody_foresaw_is_told_once() {
        let mut schedule = Schedule { window: seconds(900), outage: None };
        let now = Instant::now();
        assert!(schedule.failed(now));
        // The machine has slept.
        assert_eq!(schedule.next(Duration::ZERO, now), Step::Tell);
        assert_ne!(schedule.next(Duration::ZERO, now), Step::Tell);
    }

    #[test]
    fn short_lifetimes_have_short_times() {
        let first = |window| delays(window).next().unwrap();
        assert!(first(Duration::from_millis(750)) < Duration::from_millis(150));
        assert!(first(seconds(900)) >= seconds(5));
        assert!(delays(seconds(900)).take(50).all(|delay| delay <= seconds(61)));
        assert_eq!(delays(seconds(900)).take(5000).count(), 5000);
    }
}
