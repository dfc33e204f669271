//! Lines that are appended for good.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use super::{cannot_write, is_at, parent, sync_dir};
use crate::error::Result;

/// Appends whole lines to a file, which is made with mode 0600 where there is none, and
/// returns when they are on the disk. Where its last line was left open, as by a power
/// failure, it is ended first. Where there is no room for all of the lines, none is left.
///
/// # Errors
/// Whatever keeps them from being there, also where somebody moved the file away meanwhile:
/// then it can be done again.
pub fn append_durably(path: &Path, lines: &[u8]) -> Result<()> {
    let failed = |cause: io::Error| cannot_write(path, cause);
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        // Nobody leads elsewhere by a link, nor keeps it waiting by a pipe.
        options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    }
    let mut file = options.open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(failed(io::Error::other("it is no regular file")));
    }
    let before = meta.len();
    append(&mut file, before, lines).map_err(|cause| {
        // The cause tells more than what keeps a part from being removed.
        let _ = shorten(&file, before, lines.len() as u64);
        failed(cause)
    })?;
    if before == 0 {
        sync_dir(parent(path)).map_err(failed)?;
    }
    // Whoever moved it away may have read it before that.
    match is_at(&file, path) {
        true => Ok(()),
        false => Err(failed(io::Error::other("it was moved away meanwhile"))),
    }
}

fn append(file: &mut File, before: u64, lines: &[u8]) -> io::Result<()> {
    let mut last = [b'\n'];
    if before > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    if last != [b'\n'] {
        file.write_all(b"\n")?;
    }
    file.write_all(lines)?;
    file.sync_all()
}

/// Takes off what was appended of so many bytes, unless somebody else has made the file shorter, or
/// may have appended as well: a line that is not whole is ended by whoever comes next.
fn shorten(file: &File, before: u64, bytes: u64) -> io::Result<()> {
    // And one that ends the line before.
    let most = before.saturating_add(bytes).saturating_add(1);
    let len = file.metadata()?.len();
    if len > before && len <= most { file.set_len(before) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_have_appended_meanwhile_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        append_durably(&path, b"one\n").unwrap();
        let file = OpenOptions::new().append(true).open(&path).unwrap();
        append_durably(&path, b"two\nthree\n").unwrap();
        let text = || std::fs::read_to_string(&path).unwrap();
        // Whoever wanted to append one line cannot have made so much of it.
        shorten(&file, 4, 4).unwrap();
        assert_eq!(text(), "one\ntwo\nthree\n");
        // It may have been all theirs.
        shorten(&file, 4, 10).unwrap();
        assert_eq!(text(), "one\n");
        shorten(&file, 9, 1).unwrap();
        assert_eq!(text(), "one\n");
    }
}
