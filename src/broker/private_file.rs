//! Files with secrets, which nobody else may read.

use std::path::Path;

use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};
use crate::host::env::Env;
use crate::host::files::{self, Owner, Readers};

/// Reads one of at most `max` bytes, which errors call `name`; `None` where there is none.
///
/// # Errors
/// [`ErrorKind::Config`] where it belongs to somebody else, or others can read it.
pub(super) fn read(
    path: &Path,
    max: u64,
    name: &str,
    env: &Env,
) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let Some((bytes, owner, readers)) = files::read_secret(path, max)? else { return Ok(None) };
    let bytes = Zeroizing::new(bytes);
    if owner != Owner::Trusted {
        return Err(Error::new(ErrorKind::Config, format!("{name} cannot be used"))
            .because_of("it belongs to somebody else")
            .hint("run this as the user whose broker it is"));
    }
    let is_private = match readers {
        Readers::Owner => true,
        Readers::Group => is_credential(path, env),
        Readers::Everyone => false,
    };
    if !is_private {
        return Err(Error::new(ErrorKind::Config, format!("{name} is not private"))
            .because_of("others on this machine can read or write it")
            .hint(format!("chmod 600 {}", path.display())));
    }
    Ok(Some(bytes))
}

/// Whether systemd put the file there for this service. It lets a service's own user
/// read its credentials by an access control list, whose mask shows as the rights of a
/// group; into the directory comes nobody else.
fn is_credential(path: &Path, env: &Env) -> bool {
    let Some(directory) = env.get("CREDENTIALS_DIRECTORY").map(Path::new) else { return false };
    directory.is_absolute()
        && path.parent() == Some(directory)
        && files::owner(directory).is_ok_and(|owner| owner == Owner::Trusted)
        && files::readers(directory).is_ok_and(|readers| readers != Readers::Everyone)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test of who may read the file")]
    fn a_credential_of_the_service_is_private_also_where_its_group_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        files::write_private(&path, b"hunter2").unwrap();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let directory = dir.path().to_str().unwrap().to_string();
        let service = Env::from_pairs([("CREDENTIALS_DIRECTORY", directory)]);
        let is_read = |env: &Env| match read(&path, 99, "the secret", env) {
            Ok(bytes) => bytes.unwrap().as_slice() == b"hunter2",
            Err(error) => {
                assert!(error.to_string().contains("is not private"), "{error}");
                false
            }
        };
        assert!(is_read(&Env::default()));
        // As systemd leaves it to a service that has a user of its own.
        mode(&path, 0o440);
        mode(dir.path(), 0o550);
        assert!(is_read(&service) && !is_read(&Env::default()));
        mode(&path, 0o444);
        assert!(!is_read(&service));
        mode(&path, 0o440);
        mode(dir.path(), 0o755);
        assert!(!is_read(&service), "others come in there");
    }
}
