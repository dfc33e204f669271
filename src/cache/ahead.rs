//! Which of many processes is to renew a credential ahead of time, or to look whether it was
//! revoked.
//!
//! All that are handed a credential in the same stretch of its life would see to it. One
//! is enough, and after an attempt that failed, or was cut short, nobody needs to try again
//! at once. So there is a file with nothing to tell for each credential, whose time says when
//! somebody may claim it again.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;

use super::key::ItemKey;
use super::{Cache, CredentialKey};
use crate::host::files;

/// How long one claim keeps others from trying.
const PAUSE: Duration = Duration::from_secs(60);
/// How old a credential is, at least, that it is looked whether it was revoked, and how long
/// that is not looked at again: for so long those who check tokens on their own may take a
/// revoked one for good, too.
pub const CHECK_AFTER: time::Duration = time::Duration::minutes(5);
/// How long the time of a claim is kept.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

impl Cache {
    /// Whether it is for this process to have this credential renewed ahead of time:
    /// one of all that ask within a minute is told so.
    pub fn claim_ahead(&self, key: &CredentialKey) -> bool {
        !self.vault.is_memory() && self.ahead.claim(&key.item(), self.host.clock.now())
    }

    /// Whether it is for this process to have it looked whether this credential was revoked:
    /// one of all that ask within a minute is told so, and nobody within [`CHECK_AFTER`] of
    /// when it was [told](Self::checked).
    pub fn claim_check(&self, key: &CredentialKey) -> bool {
        !self.vault.is_memory() && self.checks.claim(&key.item(), self.host.clock.now())
    }

    /// It was told whether this credential was revoked.
    pub fn checked(&self, key: &CredentialKey) {
        self.checks.done(&key.item(), self.host.clock.now());
    }

    /// Forgets who was to see to what, where that was long ago.
    pub fn tidy_ahead(&self) {
        self.ahead.tidy(self.host.clock.now());
        self.checks.tidy(self.host.clock.now());
    }
}

/// The claims of one user, for one of the two.
pub(super) struct Ahead {
    dir: PathBuf,
    /// How long nobody needs to look after it, once that was done.
    rest: Duration,
}

impl Ahead {
    /// Who is to renew what, below this directory.
    pub(super) fn renewals(state: &Path) -> Self {
        Self { dir: state.join("ahead"), rest: PAUSE }
    }

    /// Who is to look whether what was revoked.
    pub(super) fn checks(state: &Path) -> Self {
        Self { dir: state.join("checks"), rest: CHECK_AFTER.unsigned_abs() }
    }

    /// Whether the caller is the one. Where that cannot be told, nobody is: whoever
    /// needs the credential later renews it then.
    pub(super) fn claim(&self, key: &ItemKey, now: OffsetDateTime) -> bool {
        let path = self.dir.join(key.as_str());
        let now = SystemTime::from(now);
        // Most who come find it claimed, and need no lock for that.
        if files::modified(&path).is_ok_and(|then| !is_past(then, now, self.rest)) {
            return false;
        }
        let claim = || -> std::io::Result<bool> {
            let Ok(file) = files::open_lock(&path) else { return Ok(false) };
            // Whoever else is here right now has claimed it.
            if file.try_lock().is_err() {
                return Ok(false);
            }
            // A new file has the time of its making, and nothing in it.
            let metadata = file.metadata()?;
            if metadata.len() > 0 && !is_past(metadata.modified()?, now, self.rest) {
                return Ok(false);
            }
            // As one that was done so long ago that others may try after the pause.
            mark(&file, now - (self.rest - PAUSE))?;
            Ok(true)
        };
        claim().unwrap_or_else(|cause| {
            tracing::debug!(%cause, path = %path.display(), "cannot tell who is to renew ahead");
            false
        })
    }

    /// It was done, for a while.
    fn done(&self, key: &ItemKey, now: OffsetDateTime) {
        let path = self.dir.join(key.as_str());
        let Ok(file) = files::open_lock(&path) else { return };
        if let Err(cause) = mark(&file, now.into()) {
            // Then somebody does it again too soon.
            tracing::debug!(%cause, path = %path.display(), "cannot note that it was done");
        }
    }

    /// Removes what is too old to matter.
    pub(super) fn tidy(&self, now: OffsetDateTime) {
        let now = SystemTime::from(now);
        for path in files::list(&self.dir).unwrap_or_default() {
            let old = files::modified(&path).is_ok_and(|then| is_past(then, now, KEPT));
            if old && let Err(error) = files::remove(&path) {
                tracing::debug!(%error, "cannot remove an old claim");
            }
        }
    }
}

/// Whether `then` is further from `now` than `distance`. A time that is to come, by a
/// clock that was wrong, is no reason to wait for it.
fn is_past(then: SystemTime, now: SystemTime, distance: Duration) -> bool {
    let apart = now.duration_since(then).unwrap_or_else(|ahead| ahead.duration());
    apart >= distance
}

/// Writes down when it was claimed.
fn mark(mut file: &File, now: SystemTime) -> std::io::Result<()> {
    use std::io::{Seek, SeekFrom, Write};
    file.seek(SeekFrom::Start(0))?;
    file.write_all(b"\n")?;
    file.set_modified(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::Principal;

    fn key(subject: &str) -> ItemKey {
        let principal =
            Principal { issuer: "https://login.example.com".into(), subject: subject.into() };
        CredentialKey::new(b"plan", &principal).item()
    }

    #[test]
    fn one_process_a_minute_is_the_one() {
        let root = tempfile::tempdir().unwrap();
        let ahead = Ahead::renewals(root.path());
        let (alice, bob) = (key("alice"), key("bob"));
        let start = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let second = time::Duration::SECOND;
        assert!(ahead.claim(&alice, start), "nobody was before");
        assert!(!ahead.claim(&alice, start), "somebody is at it");
        assert!(!ahead.claim(&alice, start + second * 59));
        assert!(ahead.claim(&bob, start), "another credential");
        assert!(ahead.claim(&alice, start + second * 60), "that attempt must have failed");
        assert!(!ahead.claim(&alice, start + second * 61));
        assert!(ahead.claim(&alice, start - second * 3600), "the clock was set back");
    }

    #[test]
    fn who_did_not_come_to_an_end_is_followed_by_another_after_a_minute() {
        let root = tempfile::tempdir().unwrap();
        let checks = Ahead::checks(root.path());
        let alice = key("alice");
        let start = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let second = time::Duration::SECOND;
        assert!(checks.claim(&alice, start));
        assert!(!checks.claim(&alice, start + second * 59));
        let later = start + second * 60;
        assert!(checks.claim(&alice, later), "nobody was told anything meanwhile");
        checks.done(&alice, later);
        assert!(!checks.claim(&alice, later + CHECK_AFTER - second));
        assert!(checks.claim(&alice, later + CHECK_AFTER));
        assert!(!checks.claim(&alice, later + CHECK_AFTER + second));
    }

    #[test]
    fn of_many_at_once_one_is_the_one() {
        let root = tempfile::tempdir().unwrap();
        let ahead = Ahead::renewals(root.path());
        let key = key("alice");
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let claims = std::thread::scope(|scope| {
            let all: Vec<_> = (0..50).map(|_| scope.spawn(|| ahead.claim(&key, now))).collect();
            all.into_iter().map(|one| one.join().unwrap()).filter(|claimed| *claimed).count()
        });
        assert_eq!(claims, 1);
    }

    #[test]
    fn where_nothing_can_be_written_nobody_is_the_one() {
        let root = tempfile::tempdir().unwrap();
        files::write_private(&root.path().join("ahead"), b"a file").unwrap();
        let ahead = Ahead::renewals(root.path());
        assert!(!ahead.claim(&key("alice"), OffsetDateTime::UNIX_EPOCH));
        ahead.tidy(OffsetDateTime::UNIX_EPOCH);
    }

    #[test]
    fn what_is_old_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let ahead = Ahead::renewals(root.path());
        let start = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        assert!(ahead.claim(&key("alice"), start));
        assert!(ahead.claim(&key("bob"), start + KEPT));
        ahead.tidy(start + KEPT);
        let left = files::list(&root.path().join("ahead")).unwrap();
        assert_eq!(left, [root.path().join("ahead").join(key("bob").as_str())]);
    }
}
