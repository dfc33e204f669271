//! Where files may be that last no longer than a login.

use std::fs;
use std::path::{Path, PathBuf};

/// The directory that a login makes for this user, where there is one that is
/// this user's alone.
pub fn login_runtime_dir() -> Option<PathBuf> {
    #[cfg(target_os = "linux")]
    {
        Some(made_by_login()).filter(|path| is_own_dir(path))
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// Whether this is where a login makes it, letter by letter.
pub fn is_login_runtime_dir(path: &Path) -> bool {
    #[cfg(target_os = "linux")]
    {
        path == made_by_login()
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = path;
        false
    }
}

#[cfg(target_os = "linux")]
fn made_by_login() -> PathBuf {
    PathBuf::from(format!("/run/user/{}", rustix::process::geteuid().as_raw()))
}

/// Whether a directory is this user's, and closed to everybody else. On systems without
/// modes every directory is.
pub fn is_own_dir(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let user = rustix::process::geteuid().as_raw();
        let (Ok(link), Ok(dir)) = (fs::symlink_metadata(path), fs::metadata(path)) else {
            return false;
        };
        // Whoever owns a symbolic link chooses the directory.
        let chosen_by_us = link.uid() == user || link.uid() == 0;
        chosen_by_us && dir.is_dir() && dir.uid() == user && dir.mode() & 0o077 == 0
    }
    #[cfg(not(unix))]
    path.is_dir()
}
