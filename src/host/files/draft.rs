//! Files that are written by others, piece by piece, and appear when they are whole.

use std::path::Path;

use tempfile::NamedTempFile;

use super::{TEMPORARY, cannot_write, guarded_dir, parent};
use crate::error::{Error, ErrorKind, Result};

/// A file in the making, with mode 0600 and beside the place where it will be. Dropping
/// it removes it.
pub struct Draft {
    file: NamedTempFile,
}

impl Draft {
    /// Begins a file that is to be at `path`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] where there is one already; failures to write.
    pub fn of(path: &Path) -> Result<Self> {
        if super::exists(path) || super::is_link(path) {
            return Err(there_already(path));
        }
        Self::beside(path)
    }

    /// Begins a file beside `path`, which stays as it is.
    ///
    /// # Errors
    /// Failures to write.
    pub fn beside(path: &Path) -> Result<Self> {
        guarded_dir(parent(path))?;
        let mut builder = tempfile::Builder::new();
        let file = builder.prefix(TEMPORARY).tempfile_in(parent(path));
        Ok(Self { file: file.map_err(|cause| cannot_write(path, cause))? })
    }

    /// Where it is meanwhile; there is an empty file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Lets it appear at `path`, durably, unless there is something by now.
    ///
    /// # Errors
    /// As with [`of`](Self::of).
    pub fn finish(self, path: &Path) -> Result<()> {
        let failed = |cause| cannot_write(path, cause);
        self.file.as_file().sync_all().map_err(failed)?;
        self.file.persist_noclobber(path).map_err(|refused| match refused.error.kind() {
            std::io::ErrorKind::AlreadyExists => there_already(path),
            _ => failed(refused.error),
        })?;
        super::sync_dir(parent(path)).map_err(failed)
    }
}

fn there_already(path: &Path) -> Error {
    Error::new(ErrorKind::Usage, format!("there is {} already", path.display()))
        .hint("nothing is overwritten: name another file, or put that one away")
}

/// Gives a file another name beside it, durably. What has that name already stays.
///
/// # Errors
/// As with [`Draft::of`].
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    if super::exists(to) {
        return Err(there_already(to));
    }
    std::fs::rename(from, to).map_err(|cause| cannot_write(to, cause))?;
    super::sync_dir(parent(to)).map_err(|cause| cannot_write(to, cause))
}
