//! Time: this machine's clock, and how far it is off.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use time::{Duration, OffsetDateTime};

/// Tells the time.
pub trait Clock: Send + Sync {
    /// The present moment, in UTC.
    fn now(&self) -> OffsetDateTime;

    /// When this machine started, by this clock: it moves when the clock is set,
    /// and never otherwise. Where that cannot be told, always the same moment.
    fn machine_started(&self) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH
    }

    /// How long this machine has been running, or this program where that cannot be
    /// told. It only grows, whatever the clock is set to: this is what to measure by.
    fn uptime(&self) -> Duration {
        self.now() - self.machine_started()
    }
}

/// The operating system's clock.
#[derive(Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the port to the clock")]
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }

    #[cfg(any(target_os = "linux", target_os = "macos"))]
    fn machine_started(&self) -> OffsetDateTime {
        self.now().saturating_sub(Duration::seconds(self.uptime().whole_seconds()))
    }

    #[cfg(any(target_os = "linux", target_os = "macos"))]
    fn uptime(&self) -> Duration {
        // Both go on while the machine sleeps.
        #[cfg(target_os = "linux")]
        let clock = rustix::time::ClockId::Boottime;
        #[cfg(target_os = "macos")]
        let clock = rustix::time::ClockId::Monotonic;
        let up = rustix::time::clock_gettime(clock);
        Duration::seconds(up.tv_sec).saturating_add(Duration::nanoseconds(up.tv_nsec))
    }

    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    fn uptime(&self) -> Duration {
        static STARTED: std::sync::LazyLock<std::time::Instant> =
            std::sync::LazyLock::new(std::time::Instant::now);
        Duration::try_from(STARTED.elapsed()).unwrap_or(Duration::MAX)
    }
}

/// A clock that stands still, for tests.
#[derive(Debug)]
pub struct FixedClock(
    /// The moment at which it stands.
    pub OffsetDateTime,
);

impl Clock for FixedClock {
    fn now(&self) -> OffsetDateTime {
        self.0
    }
}

/// The smallest difference that counts as skew: `Date` headers have whole
/// seconds and answers take time to arrive.
pub const SKEW_NOISE: Duration = Duration::seconds(5);

/// The largest difference that is believed: whoever is further off than that is
/// rather broken than late, or lies.
pub const MAX_SKEW: Duration = Duration::days(1);

/// The last measured difference between a server's clock and this machine's.
///
/// Clones share one measurement.
#[derive(Clone, Debug)]
pub struct SkewMeter(Arc<Measurement>);

#[derive(Debug)]
struct Measurement {
    seconds: AtomicI64,
    /// A difference that nobody believes.
    absurd: AtomicI64,
    told: AtomicBool,
}

/// Stands for «nothing measured yet».
const UNMEASURED: i64 = i64::MIN;

impl Default for SkewMeter {
    fn default() -> Self {
        let seconds = AtomicI64::new(UNMEASURED);
        let absurd = AtomicI64::new(UNMEASURED);
        Self(Arc::new(Measurement { seconds, absurd, told: AtomicBool::new(false) }))
    }
}

impl SkewMeter {
    /// Notes a server's time against this machine's. Differences within
    /// [`SKEW_NOISE`] count as none; those beyond [`MAX_SKEW`] are not believed.
    pub fn observe(&self, server: OffsetDateTime, local: OffsetDateTime) {
        let difference = server - local;
        if difference.abs() > MAX_SKEW {
            self.0.absurd.store(difference.whole_seconds(), Ordering::Relaxed);
            return;
        }
        let seconds = if difference.abs() <= SKEW_NOISE { 0 } else { difference.whole_seconds() };
        self.0.seconds.store(seconds, Ordering::Relaxed);
    }

    /// What is to be added to this machine's clock; `None` before any measurement.
    pub fn get(&self) -> Option<Duration> {
        match self.0.seconds.load(Ordering::Relaxed) {
            UNMEASURED => None,
            seconds => Some(Duration::seconds(seconds)),
        }
    }

    /// The last difference that was not believed.
    pub fn absurd(&self) -> Option<Duration> {
        match self.0.absurd.load(Ordering::Relaxed) {
            UNMEASURED => None,
            seconds => Some(Duration::seconds(seconds)),
        }
    }

    /// Whether this is the first time that somebody asks, so that the person is
    /// told once only.
    pub(super) fn first_telling(&self) -> bool {
        !self.0.told.swap(true, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn small_differences_are_noise_and_large_ones_are_kept() {
        let meter = SkewMeter::default();
        let local = datetime!(2026-01-01 12:00 UTC);
        assert_eq!(meter.get(), None);
        meter.observe(local + Duration::seconds(3), local);
        assert_eq!(meter.get(), Some(Duration::ZERO));
        meter.observe(local - Duration::minutes(10), local);
        assert_eq!(meter.get(), Some(Duration::minutes(-10)));
        assert_eq!(meter.absurd(), None);
        for absurd in [datetime!(9999-12-31 23:59:59 UTC), local - Duration::hours(25)] {
            meter.observe(absurd, local);
            assert_eq!(meter.get(), Some(Duration::minutes(-10)));
            assert_eq!(meter.absurd(), Some(absurd - local));
        }
    }

    #[test]
    fn the_time_that_the_machine_has_been_running_only_grows() {
        let before = SystemClock.uptime();
        assert!(before >= Duration::ZERO && SystemClock.uptime() >= before);
        let started = SystemClock.now() - SystemClock.uptime();
        if cfg!(any(target_os = "linux", target_os = "macos")) {
            assert!((SystemClock.machine_started() - started).abs() < Duration::seconds(5));
        }
    }
}
