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
}

impl Lifetime {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    fn lifetime(ttl: Duration, skew_seconds: i64) -> Lifetime {
        let issued_at = datetime!(2026-01-01 12:00 UTC);
        Lifetime { issued_at, expires_at: issued_at + ttl, skew_seconds }
    }

    #[test]
    fn a_short_credential_still_has_time_outside_its_window() {
        let l = lifetime(Duration::seconds(900), 0);
        assert_eq!(l.refresh_window(0.0), Duration::seconds(225));
        assert!(l.refresh_window(1.0) < Duration::seconds(225));
        assert_eq!(lifetime(Duration::hours(12), 0).refresh_window(0.0), Duration::minutes(15));
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
    fn a_clock_set_back_never_lengthens_a_lifetime() {
        let l = lifetime(Duration::seconds(900), 0);
        assert_eq!(l.remaining(l.issued_at - Duration::days(1)), Duration::seconds(900));
    }
}
