//! Which files the tools of AWS read, where a variable names one.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::host::env::Env;

/// Where settings are read from.
pub const CONFIG: &str = "AWS_CONFIG_FILE";
/// Where keys are read from.
pub const CREDENTIALS: &str = "AWS_SHARED_CREDENTIALS_FILE";

/// The path that a variable names, where it is set.
///
/// # Errors
///
/// It is another file for some readers than for others.
pub fn named(env: &Env, variable: &str) -> Result<Option<PathBuf>> {
    let Some(value) = env.get_os(variable) else { return Ok(None) };
    let path = Path::new(value);
    if is_expanded(value) {
        let what = format!("which file {variable} names differs from SDK to SDK");
        return Err(Error::new(ErrorKind::Config, what)
            .because_of(format!("it is '{}'", path.display()))
            .hint(format!("write the whole path into {variable}, without a variable or ~NAME")));
    }
    Ok(Some(match (path.strip_prefix("~"), env.home()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.into(),
    }))
}

/// Whether Python's readers (`os.path.expandvars`, `os.path.expanduser`) take a path for another
/// one than those of other languages do: where it has a variable, or the home of somebody by name.
fn is_expanded(path: &OsStr) -> bool {
    let bytes = path.as_encoded_bytes();
    let has_variable = bytes.windows(2).any(|two| {
        // (Letters of any alphabet count for Python.)
        let begins = |byte: u8| !byte.is_ascii_punctuation() || matches!(byte, b'_' | b'{');
        two[0] == b'$' && begins(two[1]) || cfg!(windows) && two.contains(&b'%')
    });
    let is_somebodys = bytes.first() == Some(&b'~')
        && bytes.get(1).is_some_and(|next| !std::path::is_separator(char::from(*next)));
    has_variable || is_somebodys
}
