//! How long a credential is good, and when to fetch a new one.

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

/// The longest refresh window. Clients such as botocore ask again when less
/// than 15 minutes are left.
pub const REFRESH_WINDOW_MAX: Duration = Duration::minutes(15);

/// From when to when a credential is good, in the clock of whoever issued it.
///
/// There is always an end: a credential without one is an error, not a gift.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifetime {
    /// When it was issued.
    #[serde(with = "time::serde::timestamp")]
    pub issued_at: OffsetDateTime,
    /// When it ends.
    #[serde(with = "time::serde::timestamp")]
    pub expires_at: OffsetDateTime,
    /// What was to be added to this machine's clock to get the issuer's, in seconds.
    pub skew_seconds: i64,
    /// When this machine started, by its clock as it stood at issue.
    #[serde(with = "time::serde::timestamp")]
    pub machine_started: OffsetDateTime,
}

/// For how long a credential must be good for those who ask again near its end, before they
/// are handed the next one: without that, each call would mint.
const ASKED_AGAIN_PAUSE: Duration = Duration::minutes(2);

/// How far the start of the machine may move before its clock counts as set anew.
const CLOCK_NOISE: Duration = Duration::seconds(5);

impl Lifetime {
    /// A lifetime that begins now. `issued_at` and `expires_at` are in the clock of
    /// the issuer, `machine_started` in that of this machine, and `skew` is what is
    /// between the two, where it was measured.
    pub fn new(
        issued_at: OffsetDateTime,
        expires_at: OffsetDateTime,
        skew: Option<Duration>,
        machine_started: OffsetDateTime,
    ) -> Self {
        let skew_seconds = skew.unwrap_or(Duration::ZERO).whole_seconds();
        Self { issued_at, expires_at, skew_seconds, machine_started }
    }

    /// The whole lifetime.
    pub fn ttl(&self) -> Duration {
        (self.expires_at - self.issued_at).max(Duration::ZERO)
    }

    /// What is left, by a local clock that is as far off as it was at issue.
    /// Never negative.
    pub fn remaining(&self, local_now: OffsetDateTime) -> Duration {
        let there = local_now.saturating_add(Duration::seconds(self.skew_seconds));
        (self.expires_at - there).clamp(Duration::ZERO, self.ttl())
    }

    /// The same lifetime for this machine's clock, by which it started at this moment. Where
    /// that is earlier than what was noted at issue, the clock was set back by as much since,
    /// and the issuer's was not. Else [`by_some_clock`](Self::by_some_clock) counts.
    #[must_use]
    pub fn by_clock(mut self, machine_started: OffsetDateTime) -> Self {
        let set_back = self.machine_started - machine_started;
        if set_back > CLOCK_NOISE {
            self.skew_seconds = self.skew_seconds.saturating_add(set_back.whole_seconds()).max(0);
            // It may be written down again, and then counts from here.
            self.machine_started = machine_started;
        }
        self.by_some_clock(machine_started)
    }

    /// The same lifetime for a clock by which some machine started at this moment. Where
    /// that is not the moment noted at issue, the clock has been set since, the machine was
    /// restarted, or it is another one, and the skew may be gone. Which of the two readings
    /// is right cannot be told, so the one that ends earlier counts.
    #[must_use]
    pub fn by_some_clock(mut self, machine_started: OffsetDateTime) -> Self {
        if (machine_started - self.machine_started).abs() > CLOCK_NOISE {
            self.skew_seconds = self.skew_seconds.max(0);
        }
        self
    }

    /// What has to be added to a clock by which the machine started at this moment to get
    /// the issuer's, as far as that is known: nothing where the clock has been set since
    /// it was measured.
    pub fn skew(&self, machine_started: OffsetDateTime) -> Duration {
        match (machine_started - self.machine_started).abs() > CLOCK_NOISE {
            true => Duration::ZERO,
            false => Duration::seconds(self.skew_seconds),
        }
    }

    /// When it ends by this machine's own clock.
    pub fn expires_at_local(&self) -> OffsetDateTime {
        self.expires_at.saturating_sub(Duration::seconds(self.skew_seconds))
    }

    /// How long before the end a new credential is fetched: the lesser of
    /// [`REFRESH_WINDOW_MAX`] and a quarter of the TTL, reduced by up to a
    /// tenth so that the many holders of like credentials do not renew at once.
    ///
    /// `jitter` is between 0 and 1 and must stay the same for one credential.
    pub fn refresh_window(&self, jitter: f64) -> Duration {
        let window = REFRESH_WINDOW_MAX.min(self.ttl() / 4);
        window * (1.0 - 0.1 * jitter.clamp(0.0, 1.0))
    }

    /// How long before the end whoever asks again when less than `wanted` is left gets a
    /// new one: so long, or half of the TTL where a new one would hardly have more.
    pub fn asked_again_window(&self, wanted: Duration) -> Duration {
        let ttl = self.ttl();
        if ttl > wanted.saturating_add(ASKED_AGAIN_PAUSE) { wanted } else { wanted.min(ttl / 2) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    fn lifetime(ttl: Duration, skew_seconds: i64) -> Lifetime {
        let issued_at = datetime!(2026-01-01 12:00 UTC);
        let machine_started = datetime!(2026-01-01 00:00 UTC);
        Lifetime { issued_at, expires_at: issued_at + ttl, skew_seconds, machine_started }
    }

    #[test]
    fn a_short_credential_still_has_time_outside_its_window() {
        let l = lifetime(Duration::seconds(900), 0);
        assert_eq!(l.refresh_window(0.0), Duration::seconds(225));
        assert!(l.refresh_window(1.0) < Duration::seconds(225));
        assert_eq!(lifetime(Duration::hours(12), 0).refresh_window(0.0), Duration::minutes(15));
    }

    #[test]
    fn who_asks_again_gets_as_much_as_a_new_one_has_to_spare() {
        let wanted = Duration::minutes(15);
        for (minutes, window) in [(10, 300), (15, 450), (17, 510), (18, 900), (20, 900), (720, 900)]
        {
            let l = lifetime(Duration::minutes(minutes), 0);
            assert_eq!(l.asked_again_window(wanted), Duration::seconds(window), "{minutes}");
            assert_eq!(l.asked_again_window(Duration::ZERO), Duration::ZERO);
        }
        let l = lifetime(Duration::minutes(20), 0);
        assert_eq!(l.asked_again_window(Duration::MAX), Duration::minutes(10));
    }

    #[test]
    fn a_skew_is_that_of_the_clock_by_which_it_was_measured() {
        let l = lifetime(Duration::hours(1), 600);
        assert_eq!(l.skew(l.machine_started + CLOCK_NOISE), Duration::minutes(10));
        assert_eq!(l.skew(l.machine_started + Duration::minutes(10)), Duration::ZERO);
    }

    #[test]
    fn skew_is_corrected_both_ways() {
        for skew in [-600, 600] {
            let l = lifetime(Duration::seconds(900), skew);
            let local = l.issued_at - Duration::seconds(skew);
            assert_eq!(l.remaining(local), Duration::seconds(900));
            assert_eq!(l.remaining(local + Duration::seconds(901)), Duration::ZERO);
            assert_eq!(l.expires_at_local(), local + Duration::seconds(900));
        }
    }

    #[test]
    fn a_skew_that_may_be_gone_never_lengthens_a_lifetime() {
        for (skew, moved, counts) in [
            (-600, 0, -600),
            (-600, 3, -600),
            // The clock was ahead and has been set right.
            (-600, -600, 0),
            (600, 600, 600),
            (0, 3600, 0),
        ] {
            let l = lifetime(Duration::seconds(900), skew);
            let started = l.machine_started + Duration::seconds(moved);
            assert_eq!(l.by_clock(started).skew_seconds, counts, "{skew} {moved}");
            assert_eq!(l.by_some_clock(started).skew_seconds, counts, "{skew} {moved}");
        }
    }

    #[test]
    fn a_clock_set_back_never_lengthens_a_lifetime() {
        let l = lifetime(Duration::minutes(40), 0);
        // After half an hour it is set back by three quarters.
        let (now, back) = (l.issued_at - Duration::minutes(15), Duration::minutes(45));
        let read = l.by_clock(l.machine_started - back);
        assert_eq!(read.remaining(now), Duration::minutes(10));
        assert_eq!(read.remaining(now + Duration::minutes(10)), Duration::ZERO);
        assert_eq!(read.expires_at_local(), l.expires_at - back);
        // What is written down again counts once, and the noise never.
        assert_eq!(read.by_clock(read.machine_started), read);
        assert_eq!(l.by_clock(l.machine_started - CLOCK_NOISE), l);
        // Another machine may have started at any time.
        assert_eq!(l.by_some_clock(l.machine_started - back), l);

        let l = lifetime(Duration::seconds(900), 0);
        assert_eq!(l.remaining(l.issued_at - Duration::days(1)), Duration::seconds(900));
    }

    /// How often many runs with `--renew` that began together renew, and how many of them in the
    /// same second, is stated in the documentation as it is counted here.
    #[test]
    fn renewals_are_as_few_and_as_far_apart_as_is_stated() {
        let stated = include_str!("../../docs/renewal.md");
        for (words, minutes) in
            [("5 minutes", 5), ("15 minutes", 15), ("1 hour", 60), ("12 hours", 720)]
        {
            let ttl = Duration::minutes(minutes);
            let (plain, jittered) = (Runs::begin(ttl, 0), Runs::begin(ttl, 10));
            let row = format!(
                "| {words} | {:.1} | {} | {} | {} | {} |",
                plain.each_an_hour(),
                plain.busiest_second(1),
                plain.busiest_second(10),
                jittered.busiest_second(1),
                jittered.busiest_second(10),
            );
            assert!(stated.contains(&row), "{row}");
            assert!(plain.each_an_hour() <= jittered.each_an_hour());
            assert!(jittered.each_an_hour() < 60.0, "one a minute, however short it lives");
        }
    }

    /// When a thousand runs renew that begin in the same moment, in seconds from there: for each
    /// run the first ten times.
    struct Runs(Vec<[f64; 10]>);

    impl Runs {
        /// Credentials of them live so long, less up to so many hundredths at random.
        fn begin(ttl: Duration, shorter: u32) -> Self {
            let mut state = 1;
            let run = |_| {
                let mut at = 0.0;
                [(); 10].map(|()| {
                    let less = ttl * (f64::from(shorter) / 100.0 * random(&mut state));
                    let lifetime = lifetime(ttl - less, 0);
                    let window = lifetime.refresh_window(random(&mut state));
                    at += (lifetime.ttl() - window).as_seconds_f64();
                    at
                })
            };
            Self((0..1000).map(run).collect())
        }

        fn each_an_hour(&self) -> f64 {
            let ends = self.0.iter().map(|run| run[9]).sum::<f64>() / self.0.len() as f64;
            10.0 * 3600.0 / ends
        }

        /// How many renew for this time in the same second, at most.
        fn busiest_second(&self, time: usize) -> usize {
            let mut seconds: Vec<_> = self.0.iter().map(|run| run[time - 1] as u64).collect();
            seconds.sort_unstable();
            seconds.chunk_by(|one, other| one == other).map(<[u64]>::len).max().unwrap()
        }
    }

    /// The next of a row of numbers from 0 to 1 that is the same each time (Knuth's MMIX).
    fn random(state: &mut u64) -> f64 {
        *state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f64::from((*state >> 33) as u32) / f64::from(1_u32 << 31)
    }
}
