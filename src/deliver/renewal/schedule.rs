//! When to do what about a credential that is to be renewed.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use crate::credential::Credential;

/// The longest time between two looks at the clock: a machine that has slept does not
/// notice otherwise.
const LOOK: Duration = Duration::from_secs(30);
/// How long before the end it is told that there will be one, at most.
const NOTICE_MAX: Duration = Duration::from_secs(120);
/// How long an attempt may take before it is worth a word, at most.
const PATIENCE: Duration = Duration::from_secs(5);

/// The least time before another attempt once a new credential has ended no later than the
/// present one: each is minted in vain, and on record.
const IN_VAIN: Duration = Duration::from_secs(180);

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
    /// Since when an attempt has been going on.
    trying_since: Option<Instant>,
    retry: Option<Retry>,
    /// How often a new credential has ended no later than the present one.
    in_vain: u32,
    told: Told,
}

/// After a failure.
#[derive(Debug)]
struct Retry {
    at: Instant,
    delays: ExponentialBackoff,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Nothing,
    Failure,
    EndsSoon,
    Ended,
}

impl Schedule {
    /// Renewed when its refresh window begins, or when whoever uses it asks again, as far
    /// as its lifetime allows.
    pub(super) fn of(credential: &Credential, asked_again: Duration) -> Self {
        let asked_again = asked_again.try_into().unwrap_or(time::Duration::MAX);
        let window = credential.lifetime.asked_again_window(asked_again);
        Self::with(credential.refresh_window().max(window).unsigned_abs())
    }

    fn with(window: Duration) -> Self {
        Self { window, trying_since: None, retry: None, in_vain: 0, told: Told::Nothing }
    }

    /// Whether anything was told that a new credential makes untrue.
    pub(super) fn has_told(&self) -> bool {
        self.told > Told::Nothing
    }

    /// What to do when so much is `left`.
    pub(super) fn next(&mut self, left: Duration, now: Instant) -> Step {
        let until_trouble = self.until_trouble(now);
        let until_told = match until_trouble {
            Duration::ZERO => {
                let notice = self.notice();
                let (told, until) = if left.is_zero() {
                    (Told::Ended, LOOK)
                } else if left <= notice {
                    (Told::EndsSoon, left)
                } else {
                    (Told::Nothing, left - notice)
                };
                if told > self.told {
                    self.told = told;
                    return Step::Tell;
                }
                until
            }
            until_trouble => until_trouble,
        };
        // What kept new ones from lasting longer ends with the present one, perhaps.
        if left.is_zero()
            && std::mem::take(&mut self.in_vain) > 0
            && let Some(retry) = &mut self.retry
        {
            retry.at = now;
        }
        let until_try = match (&self.trying_since, &self.retry) {
            (Some(_), _) => LOOK,
            // The same twice will not be otherwise the third time, unless somebody has heeded what
            // is told before the end.
            (None, Some(_)) if self.in_vain == 2 => left.saturating_sub(self.notice() / 2),
            (None, Some(_)) if self.in_vain > 2 => left,
            (None, Some(retry)) => retry.at.saturating_duration_since(now),
            (None, None) => left.saturating_sub(self.window),
        };
        if until_try.is_zero() {
            return Step::Renew;
        }
        Step::Wait(until_try.min(until_told).min(LOOK))
    }

    /// How long before the end it is told.
    fn notice(&self) -> Duration {
        (self.window / 3).min(NOTICE_MAX)
    }

    /// How long it will be until there is reason to worry: an attempt has failed, or
    /// gets no answer.
    fn until_trouble(&self, now: Instant) -> Duration {
        match (&self.retry, self.trying_since) {
            (Some(_), _) => Duration::ZERO,
            (None, Some(since)) => {
                let patience = (self.window / 6).min(PATIENCE);
                patience.saturating_sub(now.saturating_duration_since(since))
            }
            (None, None) => LOOK,
        }
    }

    /// An attempt begins.
    pub(super) fn began(&mut self, now: Instant) {
        self.trying_since = Some(now);
    }

    /// It has failed. Tells whether nothing was told yet.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        self.trying_since = None;
        let window = self.window;
        let retry = self.retry.get_or_insert_with(|| Retry { at: now, delays: delays(window) });
        // There is no end of them.
        retry.at = now + retry.delays.next().unwrap_or(LOOK);
        let is_first = self.told == Told::Nothing;
        if is_first {
            self.told = Told::Failure;
        }
        is_first
    }

    /// It has yielded a credential that ends no later than the present one: something behind it
    /// has a fixed end. Tells whether nothing was told yet.
    pub(super) fn was_in_vain(&mut self, now: Instant) -> bool {
        let is_first = self.failed(now);
        self.in_vain += 1;
        let pause = (self.window / 4).max(IN_VAIN);
        if let Some(retry) = &mut self.retry {
            retry.at = now + pause;
        }
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
        let mut schedule = Schedule::with(seconds(900));
        let now = Instant::now();
        assert_eq!(schedule.next(seconds(3600), now), Step::Wait(LOOK));
        assert_eq!(schedule.next(seconds(910), now), Step::Wait(seconds(10)));
        assert_eq!(schedule.next(seconds(900), now), Step::Renew);
        assert_eq!(schedule.next(Duration::ZERO, now), Step::Renew);
    }

    #[test]
    fn who_asks_again_gets_a_new_one_before_as_far_as_the_lifetime_allows() {
        use super::super::super::tests::bearer;
        // It is good for 15 minutes.
        let mut credential = bearer("token");
        let window = |credential: &Credential, asked_again| {
            Schedule::of(credential, seconds(asked_again)).window
        };
        let usual = window(&credential, 0);
        assert!(usual <= seconds(225) && usual > seconds(200));
        assert_eq!(window(&credential, 300), seconds(300));
        assert_eq!(window(&credential, 900), seconds(450));
        credential.lifetime.expires_at += time::Duration::minutes(5);
        assert_eq!(window(&credential, 900), seconds(900));
    }

    #[test]
    fn in_trouble_it_tries_again_later_and_later_and_tells_the_end_in_time() {
        let mut schedule = Schedule::with(seconds(900));
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
    fn what_ends_no_later_is_asked_for_twice_and_again_towards_the_end() {
        for (window, left, pause) in [(900, 900, 225), (600, 600, 180), (60, 60, 60)] {
            let mut schedule = Schedule::with(seconds(window));
            let start = Instant::now();
            let (mut now, mut tries) = (start, Vec::new());
            while now <= start + seconds(left) {
                match schedule.next(seconds(left).saturating_sub(now - start), now) {
                    Step::Wait(time) => now += time,
                    Step::Tell => {}
                    Step::Renew => {
                        tries.push((now - start).as_secs());
                        schedule.began(now);
                        // Once the present one has ended, others fail.
                        match now < start + seconds(left) {
                            true => assert_eq!(schedule.was_in_vain(now), tries.len() == 1),
                            false => assert!(!schedule.failed(now)),
                        }
                    }
                }
            }
            let late = left - 60;
            let expected = if pause < late { vec![0, pause, late, left] } else { vec![0, left] };
            assert_eq!(tries, expected);
        }
    }

    #[test]
    fn an_end_that_nobody_foresaw_is_told_once() {
        let mut schedule = Schedule::with(seconds(900));
        let now = Instant::now();
        assert!(schedule.failed(now));
        // The machine has slept.
        assert_eq!(schedule.next(Duration::ZERO, now), Step::Tell);
        assert_ne!(schedule.next(Duration::ZERO, now), Step::Tell);
    }

    #[test]
    fn an_attempt_without_an_answer_is_trouble_too() {
        let mut schedule = Schedule::with(seconds(900));
        let now = Instant::now();
        assert_eq!(schedule.next(seconds(900), now), Step::Renew);
        schedule.began(now);
        assert_eq!(schedule.next(seconds(900), now), Step::Wait(seconds(5)));
        let later = now + seconds(6);
        assert_eq!(schedule.next(seconds(894), later), Step::Wait(LOOK));
        assert_eq!(schedule.next(seconds(130), later), Step::Wait(seconds(10)));
        assert_eq!(schedule.next(seconds(120), later), Step::Tell);
        assert_eq!(schedule.next(seconds(20), later), Step::Wait(seconds(20)));
        assert_eq!(schedule.next(Duration::ZERO, later), Step::Tell);
        assert_eq!(schedule.next(Duration::ZERO, later), Step::Wait(LOOK));
        assert!(!schedule.failed(later), "all has been told");
        assert!(schedule.has_told());
        // After a sleep of the machine nothing is told before it was tried.
        let mut schedule = Schedule::with(seconds(900));
        assert_eq!(schedule.next(Duration::ZERO, now), Step::Renew);
        schedule.began(now);
        assert_eq!(schedule.next(Duration::ZERO, now), Step::Wait(seconds(5)));
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
