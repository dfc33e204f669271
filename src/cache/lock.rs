//! Locks: one login, one refresh, one mint, however many processes ask.
//!
//! A lock is a file that its holder keeps locked with `flock`, so that the
//! system releases it when the holder dies. The file says which attempt is
//! running and how it ended. Those who find it locked queue up with a shared
//! lock: all of them wake at once when the holder ends.
//!
//! The holder removes the file before it lets go. Whoever waited still has it
//! open and reads how the attempt ended; whoever comes later finds no file, and
//! so never inherits the failure of an attempt that was over before.

#[cfg(test)]
mod tests;

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::notice::Notices;
use crate::error::{Error, ErrorKind, Result};
use crate::host::dirs::Dirs;
use crate::host::files;

/// How long a process waits for others at most, unless it says less.
const WAIT_LIMIT: Duration = Duration::from_secs(600);
/// How long it waits before it says so.
const QUIET: Duration = Duration::from_secs(1);
/// How often it looks whether the wait is over: at first, and after a while.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LAST_PAUSE: Duration = Duration::from_millis(25);
/// How often in a row a lock file may turn out to be a removed one before it is
/// taken for good: some file systems have no stable file numbers.
const STALE_LIMIT: u32 = 100;
/// How large a lock file's contents may be, in bytes.
const STATE_LIMIT: u64 = 64 * 1024;

/// Whose turn it is.
#[derive(Debug)]
pub enum Turn<T> {
    /// This process does the work.
    Lead(Lead),
    /// Another process did it meanwhile; this is what it left.
    Done(T),
}

/// The lock, held. Dropped without a word, or by the death of its holder,
/// those who wait try by themselves.
#[derive(Debug)]
pub struct Lead {
    name: String,
    /// Nothing where no lock can be had; the work is done all the same.
    held: Option<Held>,
    attempt: u64,
}

impl Lead {
    /// The lead over something that no other process can share.
    pub(super) fn alone(name: &str) -> Self {
        Self { name: name.to_string(), held: None, attempt: 0 }
    }

    /// The lead of whoever holds the lock, and tells so to those who will wait.
    fn begin(name: &str, held: Held) -> Self {
        let attempt = State::read(&held.file).map_or(0, |s| s.attempt).wrapping_add(1);
        held.write(&State::new(attempt, Outcome::Running));
        Self { name: name.to_string(), held: Some(held), attempt }
    }

    /// Whether this is the lead over what has this name.
    pub(super) fn is_over(&self, name: &str) -> bool {
        self.name == name
    }

    /// Tells those who wait that the work is done.
    pub fn succeed(self) {
        self.end(Outcome::Done);
    }

    /// Tells those who wait that the work failed, and why, so that they fail too
    /// instead of trying again.
    pub fn fail(self, error: &Error) {
        self.end(Outcome::Failed { error: error.clone() });
    }

    fn end(self, outcome: Outcome) {
        if let Some(held) = &self.held {
            held.write(&State::new(self.attempt, outcome));
        }
    }
}

/// A lock file, locked. Dropping it removes the file and unlocks it.
#[derive(Debug)]
pub(super) struct Held {
    file: File,
    path: PathBuf,
}

impl Held {
    /// Writes down what those who wait need to know. Where that fails, as on a
    /// full disk, they know nothing and try by themselves.
    fn write(&self, state: &State) {
        let mut bytes = serde_json::to_vec(state).unwrap_or_default();
        if bytes.len() as u64 > STATE_LIMIT {
            bytes.clear();
        }
        let mut file = &self.file;
        let written = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| file.write_all(&bytes));
        if let Err(cause) = written {
            tracing::debug!(%cause, path = %self.path.display(), "cannot write the lock file");
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Elsewhere a file's number, by which a removed file is told from its
        // successor, cannot be had. The file then stays. So does another holder's,
        // where this one was removed by somebody who cleans up.
        #[cfg(unix)]
        if files::is_at(&self.file, &self.path)
            && let Err(error) = files::remove(&self.path)
        {
            tracing::debug!(%error, "cannot remove the lock file");
        }
    }
}

/// What a lock file says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// Tells attempts apart, together with the process.
    attempt: u64,
    /// The process that leads, or led.
    pid: u32,
    outcome: Outcome,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Running,
    Done,
    Failed { error: Error },
}

impl State {
    fn new(attempt: u64, outcome: Outcome) -> Self {
        Self { attempt, pid: std::process::id(), outcome }
    }

    /// Reads what a lock file says; `None` where that makes no sense.
    fn read(mut file: &File) -> Option<Self> {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0)).ok()?;
        file.take(STATE_LIMIT + 1).read_to_end(&mut bytes).ok()?;
        if bytes.len() as u64 > STATE_LIMIT {
            return None;
        }
        serde_json::from_slice(&bytes).ok()
    }
}

/// What came of asking for a lock without queueing for an outcome.
#[derive(Debug)]
pub(super) enum Exclusive {
    /// It is held now.
    Held(Held),
    /// Somebody else kept it all the time.
    Busy,
    /// No lock can be had here at all.
    Unavailable,
}

/// The locks of one user.
pub(super) struct Locks {
    dirs: [PathBuf; 2],
    notices: Arc<Notices>,
    limit: Duration,
    /// How many have queued up behind somebody so far.
    #[cfg(test)]
    queued: std::sync::atomic::AtomicUsize,
}

impl Locks {
    /// The locks of what is kept on this machine, for whoever logs in to it.
    pub(super) fn new(dirs: &Dirs, notices: Arc<Notices>) -> Self {
        Self::in_dirs([dirs.runtime.join("locks"), dirs.state.join("run").join("locks")], notices)
    }

    /// The locks of what is kept in files at `store`, which several machines or
    /// containers may share: their runtime directories they do not.
    pub(super) fn beside(store: &Path, dirs: &Dirs, notices: Arc<Notices>) -> Self {
        Self::in_dirs([store.join("locks"), dirs.runtime.join("locks")], notices)
    }

    fn in_dirs(dirs: [PathBuf; 2], notices: Arc<Notices>) -> Self {
        Self {
            dirs,
            notices,
            limit: WAIT_LIMIT,
            #[cfg(test)]
            queued: Default::default(),
        }
    }

    /// Takes the lead over what `name` stands for, or waits for whoever has it.
    ///
    /// `look` is called once the lock is held, since the work may have been done
    /// just before, and each time another one's attempt has ended.
    pub(super) fn lead<T>(
        &self,
        name: &str,
        look: impl FnMut() -> Result<Option<T>>,
    ) -> Result<Turn<T>> {
        self.lead_within(name, None, look)
    }

    /// The same for whoever can do without: it waits for `limit` at most, and ends with
    /// [`ErrorKind::Unreachable`] then.
    pub(super) fn lead_within<T>(
        &self,
        name: &str,
        limit: Option<Duration>,
        look: impl FnMut() -> Result<Option<T>>,
    ) -> Result<Turn<T>> {
        self.queue(name, limit, true, look)
    }

    /// Takes the lead in any case, however the attempts of others end; whoever can do
    /// without waits for `limit` at most.
    pub(super) fn take(&self, name: &str, limit: Option<Duration>) -> Result<Lead> {
        Ok(match self.queue(name, limit, false, || Ok(None::<std::convert::Infallible>))? {
            Turn::Lead(lead) => lead,
            Turn::Done(never) => match never {},
        })
    }

    /// Takes the lead where nobody has it and a lock can be had; for what can be left
    /// undone.
    pub(super) fn lead_if_free(&self, name: &str) -> Option<Lead> {
        match self.exclusive(name, Duration::ZERO) {
            Exclusive::Held(held) => Some(Lead::begin(name, held)),
            Exclusive::Busy | Exclusive::Unavailable => None,
        }
    }

    fn queue<T>(
        &self,
        name: &str,
        limit: Option<Duration>,
        inherits_failure: bool,
        mut look: impl FnMut() -> Result<Option<T>>,
    ) -> Result<Turn<T>> {
        let mut wait = Wait::new(&self.notices, limit, self.limit);
        let mut stale = 0;
        loop {
            let Some((file, path)) = self.open(name) else {
                return Ok(look()?.map_or_else(|| Turn::Lead(Lead::alone(name)), Turn::Done));
            };
            match file.try_lock() {
                Ok(()) if stale < STALE_LIMIT && !files::is_at(&file, &path) => {
                    stale += 1;
                    pause();
                }
                Ok(()) => {
                    let held = Held { file, path };
                    if let Some(found) = look()? {
                        return Ok(Turn::Done(found));
                    }
                    return Ok(Turn::Lead(Lead::begin(name, held)));
                }
                Err(TryLockError::WouldBlock) => {
                    stale = 0;
                    let seen = State::read(&file);
                    #[cfg(test)]
                    self.queued.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    if !wait.for_shared(&file)? {
                        self.warn_unavailable(&"waiting for a lock is not supported");
                        return Ok(Turn::Lead(Lead::alone(name)));
                    }
                    let ended = State::read(&file);
                    drop(file);
                    if inherits_failure
                        && ended != seen
                        && let Some(State { outcome: Outcome::Failed { error }, .. }) = ended
                    {
                        return Err(error.context("another tmpcred process tried just now"));
                    }
                    if let Some(found) = look()? {
                        return Ok(Turn::Done(found));
                    }
                    pause();
                }
                Err(TryLockError::Error(cause)) if was_removed(&cause) && stale < STALE_LIMIT => {
                    stale += 1;
                    pause();
                }
                Err(TryLockError::Error(cause)) => {
                    self.warn_unavailable(&cause);
                    return Ok(look()?.map_or_else(|| Turn::Lead(Lead::alone(name)), Turn::Done));
                }
            }
        }
    }

    /// Takes a lock for a moment's work, waiting at most `limit`.
    pub(super) fn exclusive(&self, name: &str, limit: Duration) -> Exclusive {
        let until = Instant::now() + limit;
        let mut stale = 0;
        loop {
            let Some((file, path)) = self.open(name) else { return Exclusive::Unavailable };
            match file.try_lock() {
                Ok(()) if stale < STALE_LIMIT && !files::is_at(&file, &path) => {
                    stale += 1;
                    pause();
                }
                Ok(()) => return Exclusive::Held(Held { file, path }),
                Err(TryLockError::WouldBlock) if Instant::now() >= until => return Exclusive::Busy,
                Err(TryLockError::WouldBlock) => {
                    stale = 0;
                    pause();
                }
                Err(TryLockError::Error(cause)) if was_removed(&cause) && stale < STALE_LIMIT => {
                    stale += 1;
                    pause();
                }
                Err(TryLockError::Error(cause)) => {
                    self.warn_unavailable(&cause);
                    return Exclusive::Unavailable;
                }
            }
        }
    }

    /// Opens a lock file, in the first place where that works.
    fn open(&self, name: &str) -> Option<(File, PathBuf)> {
        let mut first = None;
        for dir in &self.dirs {
            let path = dir.join(format!("{name}.lock"));
            match files::open_lock(&path) {
                Ok(file) => return Some((file, path)),
                Err(error) => first = first.or(Some(error)),
            }
        }
        if let Some(error) = first {
            self.warn_unavailable(&error);
        }
        None
    }

    fn warn_unavailable(&self, cause: &dyn std::fmt::Display) {
        self.notices.warn_once(
            "locks",
            &format!("no lock can be taken, so several commands at once may log in several times: {cause}"),
        );
    }
}

/// A bounded wait for others, shown once it takes long.
struct Wait<'a> {
    notices: &'a Notices,
    started: Instant,
    limit: Duration,
    /// Whether it can do without what it waits for.
    spare: bool,
    shown: Option<Box<dyn crate::host::interact::Waiting>>,
}

impl<'a> Wait<'a> {
    fn new(notices: &'a Notices, wanted: Option<Duration>, longest: Duration) -> Self {
        let limit = wanted.map_or(longest, |wanted| wanted.min(longest));
        let (started, spare) = (Instant::now(), wanted.is_some());
        Self { notices, started, limit, spare, shown: None }
    }

    /// Waits until the holder has let go. `false` where the system cannot.
    //
    // This polls: a lock that is waited for in the kernel cannot be given up.
    fn for_shared(&mut self, file: &File) -> Result<bool> {
        let mut nap = FIRST_PAUSE;
        loop {
            match file.try_lock_shared() {
                Ok(()) => return Ok(true),
                // Its holder, on another machine, has removed it: the wait is over.
                Err(TryLockError::Error(cause)) if was_removed(&cause) => return Ok(true),
                Err(TryLockError::Error(_)) => return Ok(false),
                Err(TryLockError::WouldBlock) => {}
            }
            let waited = self.started.elapsed();
            if waited >= self.limit {
                return Err(self.gave_up(file));
            }
            if waited >= QUIET && self.shown.is_none() {
                self.shown =
                    Some(self.notices.interact().waiting(&format!("waiting for {}", holder(file))));
            }
            std::thread::sleep(nap);
            nap = (nap * 3 / 2).min(LAST_PAUSE);
        }
    }

    fn gave_up(&self, file: &File) -> Error {
        let limit = Duration::from_secs_f64(self.limit.as_secs_f64().round());
        let limit = humantime::format_duration(limit);
        let message = format!("{} did not finish within {limit}", holder(file));
        if self.spare {
            // No failure of those who need it: they go on waiting.
            return Error::new(ErrorKind::Unreachable, message)
                .because_of("it may be waiting for somebody to log in")
                .hint("finish the login, or try again later");
        }
        Error::new(ErrorKind::Other, message).hint("if it hangs, end it, then try again")
    }
}

/// Whether a lock file is gone, by the word of a file system that machines share.
fn was_removed(cause: &std::io::Error) -> bool {
    cause.kind() == std::io::ErrorKind::StaleNetworkFileHandle
}

/// Who holds a lock, as far as its file tells.
fn holder(file: &File) -> String {
    match State::read(file) {
        Some(state) => format!("another tmpcred (process {})", state.pid),
        None => "another tmpcred".to_string(),
    }
}

/// A short random pause, so that those who try again do not do it in step.
fn pause() {
    let mut random = [0; 1];
    // Without randomness the pause is the longest one.
    let step = aws_lc_rs::rand::fill(&mut random).map_or(16, |()| u64::from(random[0] % 16) + 1);
    std::thread::sleep(Duration::from_millis(step));
}
