//! Whose files are, and who can read or write them.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This user's, or the administrator's.
    Trusted,
    /// Somebody else's.
    Other,
}

/// Tells whether a file belongs to this user or the administrator. On systems
/// without such owners every file counts as trusted.
pub fn owner(path: &Path) -> Result<Owner> {
    Ok(owner_of(&look_at(path)?))
}

pub(super) fn owner_of(metadata: &Metadata) -> Owner {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let trusted = [0, rustix::process::geteuid().as_raw()].contains(&metadata.uid());
        if trusted { Owner::Trusted } else { Owner::Other }
    }
    #[cfg(not(unix))]
    {
        let _ = metadata;
        Owner::Trusted
    }
}

/// The user id of a file's owner.
#[cfg(unix)]
pub fn owner_id(path: &Path) -> Result<u32> {
    use std::os::unix::fs::MetadataExt;
    Ok(look_at(path)?.uid())
}

/// Refuses a path at which this user could neither write a file nor make one, with the directories
/// that it is in. Nothing is made.
pub fn require_writable(path: &Path) -> Result<()> {
    let failed = |place: &Path| {
        Error::new(ErrorKind::Io, format!("nothing can be written at {}", place.display()))
    };
    let given = std::path::absolute(path).map_err(|cause| failed(path).because(cause))?;
    let there = |place: &&Path| fs::metadata(place).is_ok();
    let place = given.ancestors().find(there).map_or_else(PathBuf::new, PathBuf::from);
    if place != given && !place.is_dir() {
        return Err(failed(path).because_of(format!("{} is no directory", place.display())));
    }
    #[cfg(unix)]
    {
        super::private::check_way(&given)?;
        let mut access = rustix::fs::Access::WRITE_OK;
        access.set(rustix::fs::Access::EXEC_OK, place.is_dir());
        rustix::fs::access(&place, access)
            .map_err(|cause| failed(&place).because(std::io::Error::from(cause)))?;
    }
    Ok(())
}

/// Who besides the administrator can read or write a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Readers {
    /// Its owner alone.
    Owner,
    /// Its owner and a group.
    Group,
    /// Everybody on this machine.
    Everyone,
}

/// Tells who can read or write a file, by its mode. On systems without modes it
/// counts as its owner's alone.
pub fn readers(path: &Path) -> Result<Readers> {
    Ok(readers_of(&look_at(path)?))
}

pub(super) fn readers_of(metadata: &Metadata) -> Readers {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = metadata.permissions().mode();
        match (mode & 0o070, mode & 0o007) {
            (0, 0) => Readers::Owner,
            (_, 0) => Readers::Group,
            _ => Readers::Everyone,
        }
    }
    #[cfg(not(unix))]
    {
        let _ = metadata;
        Readers::Owner
    }
}

fn look_at(path: &Path) -> Result<Metadata> {
    fs::metadata(path).map_err(|cause| {
        Error::new(ErrorKind::Io, format!("cannot look at {}", path.display())).because(cause)
    })
}
