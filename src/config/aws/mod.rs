//! The configuration of AWS's own tools, `~/.aws/config`
//! (<https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html>): profiles of ours
//! that are written there, and profiles from there that are taken over.

mod block;
mod import;

use std::path::PathBuf;

pub use block::{After, Entry, install, undo};
pub use import::{Existing, Import, Left, Taken, read, tables};

use crate::aws::files::{CONFIG, CREDENTIALS, named};
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
    /// Where it cannot be read, or which it is cannot be told.
    pub fn config(host: &Host) -> Result<Self> {
        Self::at(host, CONFIG, "config")
    }

    /// The names of the sections of the file with long-lived keys, and the lines that
    /// they stand in. What else it holds is not looked at, and nothing of it is kept.
    ///
    /// # Errors
    /// As [`File::config`].
    pub fn sections_of_credentials(host: &Host) -> Result<(PathBuf, Vec<(usize, String)>)> {
        let file = Self::at(host, CREDENTIALS, "credentials")?;
        let text = zeroize::Zeroizing::new(file.text.unwrap_or_default());
        let lines = text.lines().enumerate();
        let names = lines.filter_map(|(n, line)| Some((n + 1, block::section(line)?.to_string())));
        Ok((file.path, names.collect()))
    }

    fn at(host: &Host, variable: &str, name: &str) -> Result<Self> {
        let path = match (named(&host.env, variable)?, host.env.home()) {
            (Some(path), _) => path,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{files, test_server};

    #[test]
    fn a_path_that_not_all_read_alike_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut host = test_server::host(dir.path(), time::Duration::ZERO);
        let home = dir.path().to_str().unwrap();
        host.env = crate::host::env::Env::from_pairs([("HOME", home)]);
        files::write_private(&dir.path().join("own"), b"[profile a]\n").unwrap();
        let with = |variable: &'static str, path: &str| Host {
            env: host.env.clone().with(variable, path.to_string()),
            ..host.clone()
        };
        let own = File::config(&with(CONFIG, "~/own")).unwrap();
        assert_eq!(
            (own.path, own.text.as_deref()),
            (dir.path().join("own"), Some("[profile a]\n"))
        );
        let (path, sections) = File::sections_of_credentials(&with(CREDENTIALS, "~/own")).unwrap();
        assert_eq!((path, sections.len()), (dir.path().join("own"), 1));
        for path in ["$HOME/own", "~somebody/own"] {
            let config = File::config(&with(CONFIG, path)).unwrap_err();
            let keys = File::sections_of_credentials(&with(CREDENTIALS, path)).unwrap_err();
            for (error, variable) in [(config, CONFIG), (keys, CREDENTIALS)] {
                let says = format!("which file {variable} names differs from SDK to SDK");
                assert_eq!(error.message(), says);
                assert!(error.hints()[0].contains(variable), "{error:?}");
            }
        }
    }
}
