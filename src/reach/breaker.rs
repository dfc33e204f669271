//! The circuit breaker: what a user's processes know of addresses that do not serve.
//!
//! A small file and a lock for each address, in the state directory, without secrets. An address
//! that has failed in several runs in a row is left alone for a while. Then one process
//! tries it, and the others leave it alone until they know more. Whoever has a credential
//! that serves leaves it alone after the first run that waited for it in vain. What cannot be read
//! counts as absent, and what cannot be written is not missed: then each process finds
//! out for itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::Wish;
use crate::error::{Error, ErrorKind};
use crate::host::{Host, files};

/// After how many runs in a row without an answer an address is left alone.
const THRESHOLD: u32 = 3;
/// For how long at first; each time it fails again, twice as long.
const FIRST_REST: Duration = Duration::from_secs(5);
/// For how long at most.
const LONGEST_REST: Duration = Duration::from_secs(60);
/// For how long at most where a server asks for it.
pub(super) const LONGEST_WISH: Duration = Duration::from_secs(5 * 60);
/// For how long others leave it alone while one process tries it.
const TRIAL: Duration = Duration::from_secs(15);
/// How large the file may be, in bytes.
const LIMIT: u64 = 64 * 1024;

/// Whether an address may be asked.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It may.
    Ask,
    /// It is left alone, because of this.
    Rests(Error),
}

/// An address that is left alone at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resting {
    /// The address.
    pub(crate) address: String,
    /// Nobody asks it before this moment.
    pub(crate) until: OffsetDateTime,
    /// How many runs in a row it has failed.
    pub(crate) failures: u32,
    /// How it failed the last time.
    pub(crate) error: Error,
}

/// The addresses that are left alone.
pub(super) fn resting(host: &Host) -> Vec<Resting> {
    let now = host.clock.now();
    let files = files::list(&place(host)).unwrap_or_default();
    let records = files.iter().filter_map(|path| read(path, now));
    let resting = records.filter(|record| !record.rest(now).is_zero());
    let all = resting.filter_map(|record| {
        let Record { address, rests_until: until, failures, error, .. } = record;
        Some(Resting { address: address?, until, failures, error })
    });
    let mut all: Vec<_> = all.collect();
    all.sort_by(|one, other| one.address.cmp(&other.address));
    all
}

fn place(host: &Host) -> PathBuf {
    host.dirs.state.join("outages")
}

/// What is known by a file. A rest that is longer than any was written by another clock.
fn read(path: &Path, now: OffsetDateTime) -> Option<Record> {
    let bytes = files::read(path, LIMIT).ok()??;
    let record: Record = serde_json::from_slice(&bytes).ok()?;
    let is_ours = record.error.kind() == ErrorKind::Unreachable;
    (is_ours && record.rest(now) <= LONGEST_WISH).then_some(record)
}

/// What is known of an address.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// The address; earlier versions did not write it.
    #[serde(default)]
    address: Option<String>,
    /// How many runs in a row it has failed.
    failures: u32,
    /// Nobody asks it before this moment.
    #[serde(with = "time::serde::timestamp")]
    rests_until: OffsetDateTime,
    /// How it failed the last time.
    error: Error,
    /// Whether somebody waited for it then.
    #[serde(default)]
    in_vain: bool,
    /// Until when it asked to be left alone, where it did.
    #[serde(default, with = "time::serde::timestamp::option")]
    wished_until: Option<OffsetDateTime>,
}

impl Record {
    fn rest(&self, now: OffsetDateTime) -> time::Duration {
        (self.rests_until - now).max(time::Duration::ZERO)
    }

    fn verdict(self, now: OffsetDateTime) -> Verdict {
        // Rounded up: who waits for as long as this is not sent away again.
        let left = Duration::from_secs(self.rest(now).whole_seconds().unsigned_abs() + 1);
        let why = match self.failures {
            _ if self.failures < THRESHOLD && self.in_vain => {
                "it was waited for in vain just now".to_string()
            }
            0 | 1 => "it asked for that".to_string(),
            failures => format!("it has failed {failures} times in a row"),
        };
        let error = self
            .error
            .because_of(format!(
                "{why}, so it is asked again in {}",
                humantime::format_duration(left)
            ))
            .hint("`--refresh` asks it now");
        Verdict::Rests(error)
    }
}

/// The breaker of one address.
#[derive(Debug)]
pub(super) struct Breaker {
    address: String,
    path: PathBuf,
}

impl Breaker {
    pub(super) fn of(host: &Host, address: &str) -> Self {
        let hash = digest(&SHA256, address.as_bytes());
        let name = HEXLOWER.encode(hash.as_ref());
        Self { address: address.into(), path: place(host).join(name) }
    }

    /// Whether the address may be asked, `spare`: by somebody who has what serves, and so
    /// can do without. Whoever may after a rest is the only one.
    pub(super) fn ask(&self, now: OffsetDateTime, spare: bool) -> Verdict {
        let Some(record) = self.read(now) else { return Verdict::Ask };
        if !record.rest(now).is_zero() {
            return record.verdict(now);
        }
        if record.failures < THRESHOLD {
            // It has not rested, so this is since it failed.
            let since = now - record.rests_until;
            let just_now = time::Duration::ZERO <= since && since < FIRST_REST;
            if spare && record.in_vain && just_now {
                let rests_until = record.rests_until + FIRST_REST;
                return Record { rests_until, ..record }.verdict(now);
            }
            return Verdict::Ask;
        }
        let mut claimed = Verdict::Ask;
        let ran = self.exclusively(|| match self.read(now) {
            Some(record) if !record.rest(now).is_zero() => claimed = record.verdict(now),
            Some(record) => self.write(&Record { rests_until: now + TRIAL, ..record }),
            None => {}
        });
        match ran {
            true => claimed,
            // Somebody else is about to.
            false => record.verdict(now),
        }
    }

    /// Whether it has failed, and not answered since.
    pub(super) fn has_failed(&self, now: OffsetDateTime) -> bool {
        self.read(now).is_some()
    }

    /// It has failed; `in_vain`: after somebody waited for it. Where it wants to be left
    /// alone, it is.
    pub(super) fn failed(
        &self,
        now: OffsetDateTime,
        error: &Error,
        wish: Option<Duration>,
        in_vain: bool,
    ) {
        // Where somebody else has the lock, they have the same news.
        self.exclusively(|| {
            let failures = self.read(now).map_or(0, |known| known.failures).saturating_add(1);
            let rest = rest_after(failures);
            let rests_until = if rest.is_zero() { now } else { whole(now + rest) };
            let wished_until = wish.map(|wish| whole(now + wish.min(LONGEST_WISH)));
            let rests_until = wished_until.map_or(rests_until, |wished| rests_until.max(wished));
            let (address, error) = (Some(self.address.clone()), error.clone());
            self.write(&Record { address, failures, rests_until, error, in_vain, wished_until });
        });
    }

    /// It has answered.
    pub(super) fn close(&self) {
        if let Err(error) = files::remove(&self.path) {
            tracing::debug!(%error, "the breaker stays as it is");
        }
    }

    /// It has failed again in the same run, and wants to be left alone.
    pub(super) fn wishes(&self, now: OffsetDateTime, wish: Duration) {
        self.exclusively(|| {
            if let Some(record) = self.read(now) {
                let wished = whole(now + wish.min(LONGEST_WISH));
                let rests_until = record.rests_until.max(wished);
                let wished_until = record.wished_until.max(Some(wished));
                self.write(&Record { rests_until, wished_until, ..record });
            }
        });
    }

    /// Ends its rest. If it fails again, it rests for longer.
    pub(super) fn wake(&self, now: OffsetDateTime, wish: Wish) {
        self.exclusively(|| {
            let rests = |record: &Record| record.in_vain || !record.rest(now).is_zero();
            if let Some(record) = self.read(now).filter(rests) {
                let wished_until = record.wished_until.filter(|_| wish == Wish::Heeded);
                let rests_until = wished_until.map_or(now, |wished| wished.max(now));
                self.write(&Record { rests_until, in_vain: false, wished_until, ..record });
            }
        });
    }

    fn read(&self, now: OffsetDateTime) -> Option<Record> {
        read(&self.path, now)
    }

    fn write(&self, record: &Record) {
        let written = serde_json::to_vec(record)
            .map_err(|cause| Error::new(ErrorKind::Other, "it has no JSON form").because(cause))
            .and_then(|bytes| files::write_private(&self.path, &bytes));
        if let Err(error) = written {
            tracing::debug!(%error, "the breaker stays as it is");
        }
    }

    /// Does something while no other process does for this address; tells whether it was
    /// done. Where there can be no locks it is done all the same.
    fn exclusively(&self, work: impl FnOnce()) -> bool {
        let file = files::open_lock(&self.path.with_extension("lock"));
        if let Ok(file) = &file
            && matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock))
        {
            return false;
        }
        work();
        true
    }
}

/// The file has whole seconds, and no rest is to be shorter for that.
fn whole(moment: OffsetDateTime) -> OffsetDateTime {
    match moment.nanosecond() {
        0 => moment,
        _ => moment.saturating_add(time::Duration::SECOND),
    }
}

/// How long an address rests after so many failures in a row.
fn rest_after(failures: u32) -> Duration {
    match failures.checked_sub(THRESHOLD) {
        None => Duration::ZERO,
        Some(more) => FIRST_REST.saturating_mul(1_u32 << more.min(16)).min(LONGEST_REST),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;
    use crate::host::test_server;

    const NOW: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);

    fn breaker() -> (tempfile::TempDir, Breaker) {
        let dir = tempfile::tempdir().unwrap();
        let host = test_server::host(dir.path(), time::Duration::ZERO);
        let breaker = Breaker::of(&host, "https://a.example");
        (dir, breaker)
    }

    fn outage() -> Error {
        Error::new(ErrorKind::Unreachable, "it did not answer")
    }

    fn asks(breaker: &Breaker, seconds: i64) -> bool {
        matches!(breaker.ask(NOW + time::Duration::seconds(seconds), false), Verdict::Ask)
    }

    #[test]
    fn after_three_failures_it_rests_and_then_one_process_tries() {
        let (_dir, breaker) = breaker();
        for _ in 0..3 {
            assert!(asks(&breaker, 0));
            // Whatever part of a second it is: twice is no reason to rest.
            breaker.failed(NOW + time::Duration::milliseconds(1), &outage(), None, false);
        }
        breaker.close();
        (0..3).for_each(|_| breaker.failed(NOW, &outage(), None, false));
        let Verdict::Rests(error) = breaker.ask(NOW + time::Duration::seconds(2), false) else {
            panic!("it rests")
        };
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        assert_eq!(
            error.to_string(),
            "it did not answer: it has failed 3 times in a row, so it is asked again in 4s"
        );
        assert!(!asks(&breaker, 4));
        assert!(asks(&breaker, 5), "one of them tries");
        assert!(!asks(&breaker, 5), "the others do not");
        assert!(!asks(&breaker, 19));
        assert!(asks(&breaker, 20), "whoever tried has died");
        breaker.close();
        assert!(asks(&breaker, 20) && asks(&breaker, 20));
    }

    #[test]
    fn rests_grow_up_to_a_minute_and_an_answer_ends_them() {
        let (_dir, breaker) = breaker();
        let mut rests = Vec::new();
        for _ in 0..9 {
            breaker.failed(NOW, &outage(), None, false);
            rests.push(breaker.read(NOW).unwrap().rest(NOW).whole_seconds());
        }
        assert_eq!(rests, [0, 0, 5, 10, 20, 40, 60, 60, 60]);
        breaker.close();
        breaker.failed(NOW, &outage(), None, false);
        assert!(asks(&breaker, 0));
        assert_eq!(rest_after(u32::MAX), LONGEST_REST);
    }

    #[test]
    fn whoever_has_what_serves_does_not_wait_in_vain_again() {
        let (_dir, breaker) = breaker();
        let spares = |seconds| breaker.ask(NOW + time::Duration::seconds(seconds), true);
        breaker.failed(NOW, &outage(), None, false);
        assert!(matches!(spares(0), Verdict::Ask), "it failed at once");
        breaker.failed(NOW, &outage(), None, true);
        let Verdict::Rests(error) = spares(1) else { panic!("it is left alone") };
        assert!(error.to_string().contains("waited for in vain just now"), "{error}");
        assert!(asks(&breaker, 1), "somebody needs it");
        assert!(matches!(spares(5), Verdict::Ask));
        assert!(matches!(spares(-3600), Verdict::Ask), "the clock was set back");
        breaker.wake(NOW, Wish::Overridden);
        assert!(matches!(spares(1), Verdict::Ask), "somebody insists");
        breaker.failed(NOW, &outage(), None, true);
        assert!(!asks(&breaker, 1), "that was the third time");
    }

    #[test]
    fn a_servers_wish_is_kept_within_bounds() {
        let (_dir, breaker) = breaker();
        breaker.failed(NOW, &outage(), Some(Duration::from_secs(17)), false);
        assert!(!asks(&breaker, 16) && asks(&breaker, 17));
        breaker.wishes(NOW, Duration::from_secs(19));
        assert!(!asks(&breaker, 18) && asks(&breaker, 19));
        breaker.wishes(NOW, Duration::ZERO);
        assert!(!asks(&breaker, 18) && asks(&breaker, 19));
        breaker.failed(NOW, &outage(), Some(Duration::from_secs(1_000_000)), false);
        assert!(!asks(&breaker, 299) && asks(&breaker, 300));
    }

    #[test]
    fn who_insists_asks_at_once_and_ends_nothing_else() {
        let (_dir, breaker) = breaker();
        breaker.wake(NOW, Wish::Overridden);
        assert!(asks(&breaker, 0));
        (0..3).for_each(|_| breaker.failed(NOW, &outage(), None, false));
        assert!(!asks(&breaker, 0));
        breaker.wake(NOW, Wish::Overridden);
        assert!(asks(&breaker, 0));
        breaker.failed(NOW, &outage(), None, false);
        assert!(!asks(&breaker, 9), "it rests for longer than before");
    }

    #[test]
    fn what_a_server_asks_for_is_heeded_unless_somebody_says_otherwise() {
        let (_dir, breaker) = breaker();
        (0..4).for_each(|_| breaker.failed(NOW, &outage(), None, false));
        breaker.wake(NOW, Wish::Heeded);
        assert!(asks(&breaker, 0), "nobody asked for that rest");
        breaker.failed(NOW, &outage(), Some(Duration::from_secs(100)), true);
        breaker.wake(NOW, Wish::Heeded);
        assert!(!asks(&breaker, 99) && asks(&breaker, 100));
        breaker.failed(NOW, &outage(), Some(Duration::from_secs(100)), true);
        breaker.wake(NOW, Wish::Overridden);
        assert!(asks(&breaker, 0));
        breaker.failed(NOW, &outage(), None, true);
        breaker.wake(NOW, Wish::Heeded);
        assert!(asks(&breaker, 0), "that wish is history");
    }

    #[test]
    fn whoever_tries_one_address_keeps_nobody_from_another() {
        let (dir, one) = breaker();
        let host = test_server::host(dir.path(), time::Duration::ZERO);
        let other = Breaker::of(&host, "https://b.example");
        for breaker in [&one, &other] {
            (0..3).for_each(|_| breaker.failed(NOW, &outage(), None, false));
        }
        one.exclusively(|| {
            assert!(!asks(&one, 5), "somebody else is about to");
            assert!(asks(&other, 5), "its rest is over, and nobody tries it");
        });
    }

    #[test]
    fn a_clock_that_was_set_back_makes_no_rest_longer() {
        let (_dir, breaker) = breaker();
        (0..9).for_each(|_| breaker.failed(NOW, &outage(), None, false));
        assert!(asks(&breaker, -3600));
    }

    #[test]
    fn where_nothing_can_be_written_everybody_asks() {
        let dir = tempfile::tempdir().unwrap();
        let host = test_server::host(&dir.path().join("file"), time::Duration::ZERO);
        files::write_private(&dir.path().join("file"), b"").unwrap();
        let breaker = Breaker::of(&host, "https://a.example");
        (0..9).for_each(|_| breaker.failed(NOW, &outage(), None, false));
        assert!(asks(&breaker, 0));
        breaker.wake(NOW, Wish::Overridden);
        breaker.close();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn garbage_is_absent(bytes in proptest::collection::vec(any::<u8>(), 0..300), flip in any::<usize>()) {
            let (_dir, breaker) = breaker();
            files::write_private(&breaker.path, &bytes).unwrap();
            prop_assert!(asks(&breaker, 0));
            breaker.failed(NOW, &outage(), None, false);
            prop_assert_eq!(breaker.read(NOW).unwrap().failures, 1);
            let mut bytes = files::read(&breaker.path, LIMIT).unwrap().unwrap();
            let at = flip % bytes.len();
            bytes[at] = bytes[at].wrapping_add(1);
            files::write_private(&breaker.path, &bytes).unwrap();
            // Whatever it says now, it is read without harm.
            breaker.ask(NOW, true);
        }
    }
}
