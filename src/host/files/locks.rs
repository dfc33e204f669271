//! Files that are locked, and the directories that they guard.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};

/// Opens a lock file with mode 0600, making it where it is missing. What it
/// holds is kept.
pub fn open_lock(path: &Path) -> Result<File> {
    if let Some(parent) = path.parent() {
        super::private_dir(parent)?;
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(|cause| {
        Error::new(ErrorKind::Io, format!("cannot open the lock {}", path.display())).because(cause)
    })
}

/// Whether the open file is still the one at `path`, and not one that was
/// removed or replaced since. On systems without file numbers it always is.
pub fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        match (file.metadata(), fs::metadata(path)) {
            (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
            _ => false,
        }
    }
    #[cfg(not(unix))]
    {
        let _ = (file, path);
        true
    }
}

/// Marks a directory as in use for as long as the file that is yielded is open. `None`
/// where somebody took it for abandoned before it was marked, and removed it.
pub fn occupy(dir: &Path) -> Result<Option<File>> {
    let path = dir.join(OCCUPIED);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let failed = |cause: io::Error| {
        Error::new(ErrorKind::Io, format!("cannot lock {}", path.display())).because(cause)
    };
    let file = match options.open(&path) {
        Ok(file) => file,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(failed(cause)),
    };
    #[cfg(test)]
    super::tests::between_opening_and_locking(dir);
    file.lock().map_err(failed)?;
    Ok(is_at(&file, &path).then_some(file))
}

/// The lock of a directory that is in use.
pub(super) const OCCUPIED: &str = "lock";

/// Removes a directory that nobody occupies any more.
pub fn remove_abandoned(dir: &Path) {
    let path = dir.join(OCCUPIED);
    // One that is just being made has none yet.
    let Ok(lock) = OpenOptions::new().read(true).write(true).open(&path) else {
        return;
    };
    if lock.try_lock().is_ok() && is_at(&lock, &path) {
        // Somebody else may have been quicker, and nothing depends on it.
        let _ = fs::remove_dir_all(dir);
    }
}
