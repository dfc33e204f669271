//! Files: bounded reads, private writes.
#![expect(clippy::disallowed_methods, reason = "this is the port to the file system")]

mod access;
#[cfg(feature = "broker")]
mod append;
mod draft;
mod locks;
#[cfg(unix)]
mod private;
mod runtime;
#[cfg(test)]
mod tests;
pub mod worktree;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

#[cfg(unix)]
pub use self::access::owner_id;
pub use self::access::{Owner, Readers, owner, readers, require_writable};
#[cfg(feature = "broker")]
pub use self::append::append_durably;
pub use self::draft::{Draft, rename};
pub use self::locks::{is_at, occupy, open_lock, remove_abandoned};
pub use self::runtime::{is_login_runtime_dir, is_own_dir, login_runtime_dir};
use crate::error::{Error, ErrorKind, Result};

/// Whether something exists at `path` and can be seen.
pub fn exists(path: impl AsRef<Path>) -> bool {
    path.as_ref().exists()
}

/// Whether something exists at `path`.
///
/// # Errors
/// [`ErrorKind::Io`] where that cannot be told, as in a directory that this user is not let into.
pub fn is_there(path: &Path) -> Result<bool> {
    path.try_exists().map_err(|cause| {
        Error::new(ErrorKind::Io, format!("cannot look at {}", path.display())).because(cause)
    })
}

/// Whether there is a file `path`, and this user is not let to it. It is not opened: somebody may
/// write to a pipe once.
pub fn is_withheld(path: impl AsRef<Path>) -> bool {
    #[cfg(unix)]
    return rustix::fs::access(path.as_ref(), rustix::fs::Access::READ_OK)
        == Err(rustix::io::Errno::ACCESS);
    #[cfg(not(unix))]
    File::open(path).is_err_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied)
}

/// Whether `path` is a directory.
pub fn is_dir(path: impl AsRef<Path>) -> bool {
    path.as_ref().is_dir()
}

/// Whether `path` is a regular file: reading it cannot wait for anybody.
pub fn is_file(path: impl AsRef<Path>) -> bool {
    path.as_ref().is_file()
}

/// Whether `path` itself is a symbolic link.
pub fn is_link(path: impl AsRef<Path>) -> bool {
    path.as_ref().is_symlink()
}

/// The one absolute path of a file, without symbolic links.
pub fn canonical(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).map_err(|cause| {
        Error::new(ErrorKind::Io, format!("cannot find {}", path.display())).because(cause)
    })
}

/// The current directory, where it still exists.
pub fn working_dir() -> Option<PathBuf> {
    std::env::current_dir().ok()
}

/// Reads a file of at most `max` bytes. `None` where there is none.
pub fn read(path: &Path, max: u64) -> Result<Option<Vec<u8>>> {
    Ok(read_guarded(path, max)?.map(|(bytes, _)| bytes))
}

/// Who could have written what a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// This user and the administrator only.
    Guarded,
    /// It belongs to somebody else.
    OtherOwner,
    /// Others have the right to write to it.
    OthersMayWrite,
}

/// Reads like [`read`], and tells who could have written what was read. On
/// systems without such owners every file counts as guarded.
pub fn read_guarded(path: &Path, max: u64) -> Result<Option<(Vec<u8>, Guard)>> {
    let Some((bytes, metadata)) = read_whole(path, max)? else { return Ok(None) };
    let guard = guard(path, &metadata).map_err(|cause| cannot_read(path, cause))?;
    Ok(Some((bytes, guard)))
}

/// Reads like [`read`] what decides whom this user trusts, or what is granted: whoever can
/// write it is the one who decides.
///
/// # Errors
/// [`ErrorKind::Config`] where others could change it.
pub fn read_trusted(path: &Path, max: u64) -> Result<Option<Vec<u8>>> {
    let refused = |why: &str| {
        Error::new(ErrorKind::Config, format!("{} cannot be used", path.display())).because_of(why)
    };
    let Some((bytes, guard)) = read_guarded(path, max)? else { return Ok(None) };
    match guard {
        Guard::Guarded => Ok(Some(bytes)),
        Guard::OtherOwner => Err(refused("it belongs to somebody else, who could change it")),
        Guard::OthersMayWrite => Err(refused("other users can write to it")
            .hint(format!("look at what it says, then `chmod go-w {}`", path.display()))),
    }
}

/// Reads like [`read`], and tells whose the file is and who else can read what was read.
pub fn read_secret(path: &Path, max: u64) -> Result<Option<(Vec<u8>, Owner, Readers)>> {
    let Some((bytes, metadata)) = read_whole(path, max)? else { return Ok(None) };
    Ok(Some((bytes, access::owner_of(&metadata), access::readers_of(&metadata))))
}

fn read_whole(path: &Path, max: u64) -> Result<Option<(Vec<u8>, fs::Metadata)>> {
    let Some((bytes, metadata)) = read_at_most(path, max.saturating_add(1))? else {
        return Ok(None);
    };
    if bytes.len() as u64 > max {
        return Err(Error::new(ErrorKind::Io, format!("{} is too large", path.display()))
            .because_of(format!("it has more than {max} bytes")));
    }
    Ok(Some((bytes, metadata)))
}

/// Reads what a file begins with: not more than `max` bytes. `None` where there
/// is no such file.
pub fn read_start(path: &Path, max: u64) -> Result<Option<Vec<u8>>> {
    Ok(read_at_most(path, max)?.map(|(bytes, _)| bytes))
}

fn read_at_most(path: &Path, max: u64) -> Result<Option<(Vec<u8>, fs::Metadata)>> {
    let failed = |cause: io::Error| cannot_read(path, cause);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(cause)
            if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(None);
        }
        Err(cause) => return Err(failed(cause)),
    };
    // Asked of the open file, so that it cannot be exchanged in between.
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(Error::new(
            ErrorKind::Io,
            format!("cannot read {}: it is a directory", path.display()),
        ));
    }
    let mut bytes = Vec::with_capacity(metadata.len().saturating_add(1).min(max) as usize);
    file.take(max).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some((bytes, metadata)))
}

fn cannot_read(path: &Path, cause: io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("cannot read {}", path.display())).because(cause)
}

/// Who could write to what is at `path`, told without opening it.
pub fn guard_of(path: &Path) -> Result<Guard> {
    fs::metadata(path).and_then(|metadata| guard(path, &metadata)).map_err(|cause| {
        Error::new(ErrorKind::Io, format!("cannot look at {}", path.display())).because(cause)
    })
}

#[cfg(unix)]
fn guard(path: &Path, metadata: &fs::Metadata) -> io::Result<Guard> {
    use std::os::unix::fs::MetadataExt;
    let user = rustix::process::geteuid().as_raw();
    let ours = |uid: u32| uid == 0 || uid == user;
    // Whoever owns a symbolic link chooses the file.
    if !ours(metadata.uid()) || !ours(fs::symlink_metadata(path)?.uid()) {
        return Ok(Guard::OtherOwner);
    }
    // A group with the owner's own number is the owner's alone, by custom.
    let group = metadata.mode() & 0o020 != 0 && metadata.gid() != metadata.uid();
    let world = metadata.mode() & 0o002 != 0;
    Ok(if group || world { Guard::OthersMayWrite } else { Guard::Guarded })
}

#[cfg(not(unix))]
fn guard(_: &Path, _: &fs::Metadata) -> io::Result<Guard> {
    Ok(Guard::Guarded)
}

/// Reads a text file of at most `max` bytes. `None` where there is none.
pub fn read_text(path: &Path, max: u64) -> Result<Option<String>> {
    let Some(bytes) = read(path, max)? else { return Ok(None) };
    String::from_utf8(bytes).map(Some).map_err(|cause| {
        Error::new(ErrorKind::Io, format!("{} is not a text file", path.display()))
            .because(cause.utf8_error())
    })
}

/// Makes a directory, and its parents, that only this user can enter.
///
/// A directory that exists already must belong to this user or to the administrator,
/// and not be for everybody, as `/tmp` is. What lies in a directory to which everybody
/// can write must not be somebody else's either, on the whole way to it.
pub fn private_dir(path: &Path) -> Result<()> {
    guarded_dir(path)?;
    #[cfg(unix)]
    private::check_not_shared(path)?;
    Ok(())
}

/// Refuses a directory that [`private_dir`] would refuse. Nothing is made.
#[cfg_attr(not(unix), expect(unused_variables, reason = "all are the user's own there"))]
pub fn require_private_dir(path: &Path) -> Result<()> {
    #[cfg(unix)]
    match path.is_dir() {
        true => private::check(path).and_then(|()| private::check_not_shared(path))?,
        false => private::check_way(path)?,
    }
    Ok(())
}

/// The same as [`private_dir`], for files that need nothing but that nobody puts another in their place:
/// where people want to have one of theirs, even `/tmp` will do.
fn guarded_dir(path: &Path) -> Result<()> {
    let failed = |cause: io::Error| {
        Error::new(ErrorKind::Io, format!("cannot make the directory {}", path.display()))
            .because(cause)
    };
    if !path.is_dir() {
        #[cfg(unix)]
        private::check_way(path)?;
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path).map_err(failed)?;
    }
    #[cfg(unix)]
    private::check(path)?;
    Ok(())
}

/// Replaces a file in one step: written beside it with mode 0600 from the
/// start, synced, then renamed over it. A reader sees the old or the new file.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    guarded_dir(parent(path))?;
    replace(path, bytes, tempfile::Builder::new().prefix(TEMPORARY))?;
    sweep(path);
    Ok(())
}

/// The same for a file that nobody is to write to, not even its owner (mode 0400).
///
/// # Errors
/// [`ErrorKind::Io`]
pub fn write_read_only(path: &Path, bytes: &[u8]) -> Result<()> {
    private_dir(parent(path))?;
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o400));
    replace(path, bytes, builder.prefix(TEMPORARY))
}

/// Replaces a file that everybody may read, in one step. Its directory is made
/// where it is missing.
pub fn write_public(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::create_dir_all(parent(path)).map_err(|cause| cannot_write(path, cause))?;
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    replace(path, bytes, builder.prefix(TEMPORARY))
}

/// Replaces what a file of the user's own holds, in one step, or removes it. Its mode and
/// owner stay as they are, and so does a symbolic link that leads to it. `before` is
/// what it held when the change was decided upon; `None` stands for «no file».
///
/// # Errors
/// Where it was changed meanwhile, or is a link to what is not there, besides failures to write.
pub fn rewrite(path: &Path, before: Option<&[u8]>, after: Option<&[u8]>) -> Result<()> {
    if before.is_none()
        && !exists(path)
        && let Ok(target) = fs::read_link(path)
    {
        let what =
            format!("{} is a link to {}, which is not there", path.display(), target.display());
        return Err(Error::new(ErrorKind::Io, what)
            .hint("nothing has been written; make that file, or remove the link"));
    }
    let max = before.map_or(0, |before| before.len() as u64);
    let now = match before {
        Some(_) => read_start(path, max.saturating_add(1))?,
        None if exists(path) => Some(Vec::new()),
        None => None,
    };
    if now.as_deref() != before {
        return Err(Error::new(ErrorKind::Io, format!("{} was changed meanwhile", path.display()))
            .hint("nothing has been written; try again"));
    }
    match (before, after) {
        (None, Some(after)) => write_private(path, after),
        (Some(_), Some(after)) => replace_in_place(&canonical(path)?, after),
        (_, None) => remove(path),
    }
}

fn replace_in_place(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |cause: io::Error| cannot_write(path, cause);
    let was = fs::metadata(path).map_err(failed)?;
    let builder = &mut tempfile::Builder::new();
    let mut file = builder.prefix(TEMPORARY).tempfile_in(parent(path)).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, fchown};
        let is = file.as_file().metadata().map_err(failed)?;
        if (is.uid(), is.gid()) != (was.uid(), was.gid()) {
            fchown(file.as_file(), Some(was.uid()), Some(was.gid())).map_err(failed)?;
        }
    }
    file.as_file().set_permissions(was.permissions()).map_err(failed)?;
    finish(file, path)
}

/// Appends whole lines to a file that is there, in one piece. Where its last line was
/// left open it is ended first.
pub fn append_lines(path: &Path, lines: &[u8]) -> Result<()> {
    use std::io::{Seek, SeekFrom};
    let failed = |cause: io::Error| cannot_write(path, cause);
    let mut file = OpenOptions::new().read(true).append(true).open(path).map_err(failed)?;
    let mut last = [b'\n'];
    if file.metadata().map_err(failed)?.len() > 0 {
        file.seek(SeekFrom::End(-1)).and_then(|_| file.read_exact(&mut last)).map_err(failed)?;
    }
    let start: &[u8] = if last == [b'\n'] { b"" } else { b"\n" };
    // One write, so that no other program's lines get in between.
    let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(start.len() + lines.len()));
    bytes.extend_from_slice(start);
    bytes.extend_from_slice(lines);
    file.write_all(&bytes).map_err(failed)
}

/// How the names of files that are not whole yet begin.
const TEMPORARY: &str = ".tmpcred-";

/// After how long nobody can be about to finish such a file.
const ABANDONED: std::time::Duration = std::time::Duration::from_secs(60 * 60);

/// Removes what killed processes left half written beside `path`, which was
/// written just now: its time is that of the file system's own clock.
fn sweep(path: &Path) {
    let modified = |path: &Path| fs::symlink_metadata(path)?.modified();
    let Ok(now) = modified(path) else { return };
    for entry in fs::read_dir(parent(path)).into_iter().flatten().flatten() {
        let temporary = entry.file_name().to_string_lossy().starts_with(TEMPORARY);
        let age = |then| now.duration_since(then).unwrap_or_default();
        if temporary && modified(&entry.path()).is_ok_and(|then| age(then) > ABANDONED) {
            // Somebody else may have been quicker, and nothing depends on it.
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn replace(path: &Path, bytes: &[u8], builder: &tempfile::Builder<'_, '_>) -> Result<()> {
    let failed = |cause: io::Error| cannot_write(path, cause);
    // tempfile creates with O_EXCL, and removes the file if we fail.
    let mut file = builder.tempfile_in(parent(path)).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    finish(file, path)
}

/// Puts a file that is whole in the place of another.
fn finish(file: tempfile::NamedTempFile, path: &Path) -> Result<()> {
    let failed = |cause: io::Error| cannot_write(path, cause);
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|cause| failed(cause.error))?;
    sync_dir(parent(path)).map_err(failed)
}

/// Makes the names in a directory durable.
fn sync_dir(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(path).and_then(|dir| dir.sync_all())?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn cannot_write(path: &Path, cause: io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("cannot write {}", path.display())).because(cause)
}

/// Removes a file; one that is not there is no error.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            Err(Error::new(ErrorKind::Io, format!("cannot remove {}", path.display()))
                .because(cause))
        }
        _ => Ok(()),
    }
}

/// When a file was written to last.
pub fn modified(path: &Path) -> Result<std::time::SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).map_err(|cause| {
        Error::new(ErrorKind::Io, format!("cannot look at {}", path.display())).because(cause)
    })
}

/// Removes a directory with nothing in it. Anything else is left as it is.
pub fn remove_empty_dir(path: &Path) {
    let _ = fs::remove_dir(path);
}

/// The entries of a directory; none where there is no such directory.
pub fn list(path: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => {
            return Err(
                Error::new(ErrorKind::Io, format!("cannot list {}", path.display())).because(cause)
            );
        }
    };
    let mut paths: Vec<_> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
    paths.sort();
    Ok(paths)
}

/// By what a file is told from another one that is in its place, or from what was in it before:
/// which one it is, its length, and when it was changed.
pub type Stamp = (Option<(u64, u64)>, u64, Option<std::time::SystemTime>);

/// That of this file, where there is one.
pub fn stamp(path: &Path) -> Option<Stamp> {
    let meta = fs::metadata(path).ok()?;
    Some((identity(path), meta.len(), meta.modified().ok()))
}

/// Identifies a file, whatever happens to its name. `None` where there is none,
/// and on systems that have no such identity.
pub fn identity(path: &Path) -> Option<(u64, u64)> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(path).ok().map(|m| (m.dev(), m.ino()))
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}
