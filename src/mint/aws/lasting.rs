//! How long sessions of AWS last that come of a grant: nothing ends one, so none may be there
//! when the grant is not.

use std::time::Duration;

use time::OffsetDateTime;

use super::settings::{TTL_MIN, TTL_USUAL};
use crate::error::{Error, ErrorKind, Result};
use crate::oidc::jwt::LEEWAY;

/// How much sooner than its grant a session ends: AWS counts from when it answers.
const IN_FLIGHT: Duration = Duration::from_secs(5);

/// How long a grant has to last for a session with this lifetime: whoever asks another server
/// for less than AWS gives knows that it does.
pub(in crate::mint) fn least_of_grant(ttl: Option<Duration>) -> Duration {
    ttl.map_or(TTL_MIN, |ttl| ttl.min(TTL_MIN)) + IN_FLIGHT
}

/// For how long a session is asked for. Without a grant: as was asked.
///
/// # Errors
/// [`ErrorKind::Denied`] where less is left of the grant than AWS gives.
pub(super) fn within(
    ttl: Option<Duration>,
    grant_ends: Option<OffsetDateTime>,
    now: OffsetDateTime,
) -> Result<Option<Duration>> {
    let Some(ends) = grant_ends else { return Ok(ttl) };
    let left = Duration::try_from(ends - now).unwrap_or_default();
    if left >= least_of_grant(ttl) {
        let most = Duration::from_secs((left - IN_FLIGHT).as_secs());
        return Ok(Some(ttl.unwrap_or(TTL_USUAL).min(most)));
    }
    let (left, least) = (Duration::from_secs(left.as_secs()), TTL_MIN);
    Err(Error::new(ErrorKind::Denied, "too little is left of the grant for a session of AWS")
        .because_of(format!(
            "the grant ends in {}; a session lasts {} at least, and could not be ended with its grant",
            humantime::format_duration(left),
            humantime::format_duration(least)
        ))
        .hint("ask for a longer grant, such as --for 30m"))
}

/// Refuses a session that would be there when its grant is not: whoever gave it did not heed for
/// how long it was asked for. Two clocks may differ a little.
///
/// # Errors
/// [`ErrorKind::Verification`].
pub(super) fn check(expires_at: OffsetDateTime, grant_ends: Option<OffsetDateTime>) -> Result<()> {
    match grant_ends {
        Some(ends) if expires_at > ends.saturating_add(LEEWAY) => {
            Err(Error::new(ErrorKind::Verification, "the session lasts longer than its grant")
                .because_of("it was asked for until the grant ends, and no longer"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-01-31 08:00 UTC);

    fn lasts(ttl: Option<u64>, left: i64) -> Result<Option<u64>> {
        let (ttl, ends) = (ttl.map(Duration::from_secs), NOW + time::Duration::seconds(left));
        within(ttl, Some(ends), NOW).map(|lasts| lasts.map(|lasts| lasts.as_secs()))
    }

    #[test]
    fn a_session_ends_before_its_grant() {
        for (ttl, left, lasts_for) in [
            (None, 7200, 3600),
            (None, 1805, 1800),
            (Some(1000), 7200, 1000),
            (Some(43_200), 3605, 3600),
            (None, 905, 900),
            // Another server than AWS.
            (Some(60), 120, 60),
        ] {
            assert_eq!(lasts(ttl, left).unwrap(), Some(lasts_for), "{ttl:?} {left}");
        }
        assert_eq!(within(None, None, NOW).unwrap(), None);
    }

    #[test]
    fn what_aws_would_not_give_is_refused_with_what_to_do() {
        for (ttl, left) in [(None, 904), (Some(3600), 899), (Some(60), 64), (None, 0), (None, -5)] {
            let refused = lasts(ttl, left).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Denied, "{ttl:?} {left}");
            assert!(refused.hints().iter().any(|hint| hint.contains("--for")), "{refused}");
        }
    }

    #[test]
    fn a_session_that_lasts_on_is_none() {
        let ends = Some(NOW);
        assert!(check(NOW + LEEWAY, ends).is_ok() && check(NOW + time::Duration::DAY, None).is_ok());
        assert!(check(NOW + time::Duration::hours(1), ends).is_err());
    }
}
