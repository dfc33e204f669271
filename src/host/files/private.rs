//! Whether a directory is a place of this user's own.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// Everybody may write.
const WORLD: u32 = 0o002;
/// Only the owner of an entry may remove it: a directory that is meant for everybody.
const STICKY: u32 = 0o1000;

/// Refuses a directory that is meant for everybody, such as `/tmp`. The volume of a
/// container is not, although it is the administrator's and open to its user.
pub(super) fn check_not_shared(path: &Path) -> Result<()> {
    let mode = fs::metadata(path).map_or(0, |dir| dir.mode());
    if mode & WORLD != 0 && mode & STICKY != 0 {
        return Err(Error::new(ErrorKind::Io, format!("{} is for everybody", path.display())));
    }
    Ok(())
}

/// Refuses a directory that somebody else has made, or may replace.
pub(super) fn check(path: &Path) -> Result<()> {
    let failed = |cause: io::Error| {
        Error::new(ErrorKind::Io, format!("cannot look at {}", path.display())).because(cause)
    };
    let user = rustix::process::geteuid().as_raw();
    let dir = fs::metadata(path).map_err(failed)?;
    if dir.uid() != user && dir.uid() != 0 {
        return Err(Error::new(
            ErrorKind::Io,
            format!("{} belongs to somebody else", path.display()),
        ));
    }
    check_way(path)
}

/// Refuses a place that somebody else may have prepared, as far as it is there.
pub(super) fn check_way(path: &Path) -> Result<()> {
    let failed = |cause: io::Error| {
        Error::new(ErrorKind::Io, format!("cannot look at {}", path.display())).because(cause)
    };
    let user = rustix::process::geteuid().as_raw();
    let given = std::path::absolute(path).map_err(failed)?;
    let there = given.ancestors().find(|place| fs::symlink_metadata(place).is_ok());
    let Some(given) = there else { return Ok(()) };
    // By the name that was given, and by the one without symbolic links.
    let real = fs::canonicalize(given).map_err(failed)?;
    for way in [given, &real] {
        if let Some(place) = foreign_on(way, user).map_err(failed)? {
            return Err(Error::new(
                ErrorKind::Io,
                format!("{} belongs to somebody else", place.display()),
            ));
        }
    }
    Ok(())
}

/// What lies on the way in a directory to which everybody can write, and belongs to
/// somebody else. Elsewhere it is the administrator's affair who owns what.
fn foreign_on(way: &Path, user: u32) -> io::Result<Option<PathBuf>> {
    for place in way.ancestors() {
        let Some(parent) = place.parent() else { break };
        if fs::metadata(parent)?.mode() & WORLD == 0 {
            continue;
        }
        let owner = fs::symlink_metadata(place)?.uid();
        if owner != user && owner != 0 {
            return Ok(Some(place.to_path_buf()));
        }
    }
    Ok(None)
}
