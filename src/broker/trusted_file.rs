//! Files that decide whom the broker trusts and what it grants. Whoever can write
//! them is the one who decides.

use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::host::files;

/// Reads a file that only this user and the administrator can write.
///
/// # Errors
/// [`ErrorKind::Config`] where it cannot be read, or others could change it.
pub(super) fn read(path: &Path, max: u64) -> Result<Vec<u8>> {
    let read = files::read_trusted(path, max).map_err(|error| error.of_kind(ErrorKind::Config))?;
    read.ok_or_else(|| {
        Error::new(ErrorKind::Config, format!("{} cannot be used", path.display()))
            .because_of("there is no such file")
    })
}

/// How large a file with certificate authorities may be, in bytes.
const MAX_PEM: u64 = 1024 * 1024;

/// Reads a file with certificate authorities, where one is named.
pub(super) fn read_authorities(path: Option<&PathBuf>) -> Result<Option<Vec<u8>>> {
    path.map(|path| read(path, MAX_PEM)).transpose()
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test of who may write the file")]
    fn what_others_can_write_decides_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.cedar");
        let refused = || read(&path, 9).unwrap_err().to_string();
        assert!(refused().contains("no such file"));
        assert_eq!(read(dir.path(), 9).unwrap_err().kind(), ErrorKind::Config);
        files::write_private(&path, b"x").unwrap();
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode));
        mode(0o644).unwrap();
        assert_eq!(read(&path, 9).unwrap(), b"x");
        mode(0o646).unwrap();
        assert!(refused().contains("other users can write"), "{}", refused());
    }
}
