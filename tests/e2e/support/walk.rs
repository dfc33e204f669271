//! Reading all files below a directory.

use std::fs;
use std::path::{Path, PathBuf};

/// A regular file.
pub(crate) struct Found {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What is in it.
    pub(crate) bytes: Vec<u8>,
}

/// The regular files below `directory`. Links are not followed; files that
/// disappear meanwhile are left out.
pub(crate) fn files(directory: &Path) -> Vec<Found> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(directory) else { return found };
    for entry in entries.flatten() {
        let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
        if kind.is_dir() {
            found.extend(files(&path));
        } else if kind.is_file()
            && let Ok(bytes) = fs::read(&path)
        {
            found.push(Found { path, bytes });
        }
    }
    found
}
