//! The configuration of AWS's own tools, `~/.aws/config`
//! (<https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html>): profiles of ours
//! that are written there, and profiles from there that are taken over.

mod block;
mod import;

use std::path::{Path, PathBuf};

pub use block::{After, Entry, install, undo};
pub use import::{Existing, Import, Left, Taken, read, tables};

use crate::error::{Error, ErrorKind, Result};
use crate::host::{Host, files};

/// How large such a file may be, in bytes.
const MAX: u64 = 4 * 1024 * 1024;

/// A file of AWS's tools.
#[derive(Clone, Debug)]
pub struct File {
    /// Where it is.
    pub path: PathBuf,
    /// What it holds; `None` where there is none.
    pub text: Option<String>,
}

impl File {
    /// The configuration, where AWS's tools look for it.
    ///
    /// # Errors
    /// Where it cannot be read, or the home directory cannot be told.
    pub fn config(host: &Host) -> Result<Self> {
        Self::at(host, "AWS_CONFIG_FILE", "config")
    }

    /// The names of the sections of the file with long-lived keys, and the lines that
    /// they stand in. What else it holds is not looked at, and nothing of it is kept.
    ///
    /// # Errors
    /// As [`File::config`].
    pub fn sections_of_credentials(host: &Host) -> Result<(PathBuf, Vec<(usize, String)>)> {
        let file = Self::at(host, "AWS_SHARED_CREDENTIALS_FILE", "credentials")?;
        let text = zeroize::Zeroizing::new(file.text.unwrap_or_default());
        let lines = text.lines().enumerate();
        let names = lines.filter_map(|(n, line)| Some((n + 1, block::section(line)?.to_string())));
        Ok((file.path, names.collect()))
    }

    fn at(host: &Host, variable: &str, name: &str) -> Result<Self> {
        let path = match (host.env.get_os(variable).map(Path::new), host.env.home()) {
            (Some(path), home) => match (path.strip_prefix("~"), home) {
                (Ok(below), Some(home)) => home.join(below),
                _ => path.to_path_buf(),
            },
            (None, Some(home)) => home.join(".aws").join(name),
            (None, None) => {
                return Err(Error::new(ErrorKind::Config, "the home directory cannot be told")
                    .because_of("HOME is not set")
                    .hint(format!("set HOME, or {variable}")));
            }
        };
        let text = files::read_text(&path, MAX)?;
        Ok(Self { path, text })
    }
}
