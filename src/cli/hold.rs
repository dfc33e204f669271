//! That runs on this machine have a grant in common: the last of them gives it back.
//!
//! Whoever runs two commands with the same request would else have the shorter one end the
//! grant of the longer one. A file is locked by each run that has the grant, and what lies beside
//! it tells that the grant began for one of them. The system unlocks it for a run that is killed.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::host::{Host, files};

/// What is added to the name of the file beside it, which is there where the grant began for one
/// of those who have it. What is locked may not be written everywhere.
const OWN: &str = "own";

/// After how long is removed what was left by a run that was killed: no grant lasts that long.
const FORGOTTEN: Duration = Duration::from_secs(30 * 24 * 3600);

/// That this run has a grant.
#[derive(Debug)]
pub(crate) struct Hold {
    path: PathBuf,
    file: File,
}

/// What becomes of a grant that a run has no more.
#[derive(Debug)]
pub(crate) enum Left {
    /// Others here have it still.
    Others,
    /// Nobody here has it, and it did not begin for a run: it stays.
    Kept,
    /// It is to be given back. Nobody begins to have it with others until this is dropped.
    Last {
        /// Dropped once that is done.
        _held: Last,
    },
}

/// This run is the last one that had a grant.
#[derive(Debug)]
pub(crate) struct Last {
    path: PathBuf,
    _file: File,
}

impl Hold {
    /// From now on this run has it. `own`: it began for it. Whoever gives it back at the moment is
    /// waited for.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where others cannot be told.
    pub(crate) fn begin(host: &Host, grant: Uuid, own: bool) -> Result<Self> {
        Self::at(&host.dirs.state.join("grants"), grant, own)
    }

    fn at(dir: &Path, grant: Uuid, own: bool) -> Result<Self> {
        tidy(dir);
        let path = dir.join(grant.to_string());
        loop {
            let file = files::open_lock(&path)?;
            file.lock_shared().map_err(|cause| failed(&path, cause))?;
            // Whoever had it last has removed it.
            if !files::is_at(&file, &path) {
                continue;
            }
            if own {
                files::write_private(&path.with_extension(OWN), b"")?;
            }
            return Ok(Self { path, file });
        }
    }

    /// This run has it no more.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where it cannot be told whether others have it.
    pub(crate) fn end(self) -> Result<Left> {
        let Self { path, file } = self;
        // Of those who end at once one finds nobody else; who begins meanwhile is one more.
        file.unlock().map_err(|cause| failed(&path, cause))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Left::Others),
            Err(TryLockError::Error(cause)) => return Err(failed(&path, cause)),
        }
        if !files::is_at(&file, &path) {
            return Ok(Left::Others);
        }
        let is_own = files::exists(path.with_extension(OWN));
        let last = Last { path, _file: file };
        Ok(if is_own { Left::Last { _held: last } } else { Left::Kept })
    }
}

impl Drop for Last {
    fn drop(&mut self) {
        // What stays is removed by whoever comes after it is forgotten.
        let _ = files::remove(&self.path.with_extension(OWN));
        // Elsewhere it could not be told from the next one by who waits for it.
        #[cfg(unix)]
        let _ = files::remove(&self.path);
    }
}

/// Removes what runs left that were killed.
fn tidy(dir: &Path) {
    for path in files::list(dir).unwrap_or_default() {
        let age = files::modified(&path).ok().and_then(|at| at.elapsed().ok());
        if age.is_none_or(|age| age < FORGOTTEN) {
            continue;
        }
        let lock = path.with_extension("");
        if let Ok(file) = files::open_lock(&lock)
            && file.try_lock().is_ok()
            && files::is_at(&file, &lock)
        {
            drop(Last { path: lock, _file: file });
        }
    }
}

fn failed(path: &Path, cause: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("cannot lock {}", path.display())).because(cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::clock::{Clock, SystemClock};

    fn at(dir: &tempfile::TempDir, grant: Uuid, own: bool) -> Hold {
        Hold::at(&dir.path().join("grants"), grant, own).unwrap()
    }

    fn left(dir: &tempfile::TempDir) -> Vec<PathBuf> {
        let all = files::list(&dir.path().join("grants")).unwrap();
        all.into_iter().filter(|path| path.extension().is_some()).collect()
    }

    fn gives_back(hold: Hold) -> bool {
        matches!(hold.end().unwrap(), Left::Last { .. })
    }

    #[test]
    fn the_last_one_gives_it_back_where_it_began_for_any_of_them() {
        let (dir, grant) = (tempfile::tempdir().unwrap(), Uuid::new_v4());
        let alone = at(&dir, grant, true);
        assert!(gives_back(alone));
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut holds = [false, true, false].map(|own| Some(at(&dir, grant, own)));
            let given = order.map(|one| gives_back(holds[one].take().unwrap()));
            assert_eq!(given, [false, false, true], "{order:?}");
            assert_eq!(left(&dir), Vec::<PathBuf>::new(), "{order:?}");
        }
        // What was had before stays.
        let (one, other) = (at(&dir, grant, false), at(&dir, grant, false));
        assert!(matches!(one.end().unwrap(), Left::Others));
        assert!(matches!(other.end().unwrap(), Left::Kept));
        // Of another grant it makes no difference.
        let (one, other) = (at(&dir, grant, true), at(&dir, Uuid::new_v4(), true));
        assert!(gives_back(one) && gives_back(other));
    }

    #[test]
    fn one_that_was_killed_leaves_it_to_the_next() {
        let (dir, grant) = (tempfile::tempdir().unwrap(), Uuid::new_v4());
        drop(at(&dir, grant, true));
        assert_eq!(left(&dir).len(), 1);
        assert!(gives_back(at(&dir, grant, false)));
        assert_eq!(left(&dir), Vec::<PathBuf>::new());
    }

    #[test]
    fn of_many_at_once_one_gives_it_back() {
        let (dir, grant) = (tempfile::tempdir().unwrap(), Uuid::new_v4());
        for _ in 0..20 {
            let all: Vec<_> = (0..16).map(|_| at(&dir, grant, true)).collect();
            let given = std::thread::scope(|scope| {
                let ends: Vec<_> =
                    all.into_iter().map(|one| scope.spawn(|| gives_back(one))).collect();
                ends.into_iter().map(|end| end.join().unwrap()).filter(|last| *last).count()
            });
            assert_eq!((given, left(&dir)), (1, Vec::new()));
        }
    }

    #[test]
    fn who_comes_while_it_is_given_back_waits_and_has_it_alone() {
        let (dir, grant) = (tempfile::tempdir().unwrap(), Uuid::new_v4());
        let Left::Last { _held: last } = at(&dir, grant, true).end().unwrap() else {
            panic!("it is last")
        };
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let (dir, sender) = (&dir, sender);
            scope.spawn(move || sender.send(at(dir, grant, false)).unwrap());
            let early = receiver.recv_timeout(Duration::from_millis(100));
            assert!(early.is_err(), "it is being given back");
            drop(last);
            let next = receiver.recv().unwrap();
            // It is had by whoever came, for whom it did not begin.
            assert!(matches!(next.end().unwrap(), Left::Kept));
        });
    }

    #[test]
    fn what_was_left_long_ago_is_removed_and_what_is_had_is_not() {
        let (dir, old, had) = (tempfile::tempdir().unwrap(), Uuid::new_v4(), Uuid::new_v4());
        drop(at(&dir, old, true));
        let held = at(&dir, had, true);
        let now = std::time::SystemTime::from(SystemClock.now());
        let long_ago = now - FORGOTTEN * 2;
        for path in files::list(&dir.path().join("grants")).unwrap() {
            let file = files::open_lock(&path).unwrap();
            file.set_modified(long_ago).unwrap();
        }
        drop(at(&dir, Uuid::new_v4(), false));
        let [own] = &left(&dir)[..] else { panic!("only what is had") };
        assert!(own.with_extension("").ends_with(had.to_string()), "{own:?}");
        assert!(gives_back(held));
    }
}
