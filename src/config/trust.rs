//! Which project files the person has trusted, down to the last byte.
//!
//! Each one is a small file in the state directory, named after the project
//! file's path, so that two of them can be written at once.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::read;
use super::tree::Node;
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::files::{self, Guard};

/// A project file that was trusted.
#[derive(Serialize, Deserialize)]
struct Trusted {
    path: PathBuf,
    /// The SHA-256 of what it held, in hexadecimal.
    sha256: String,
}

/// How a project file stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is trusted, and has not changed since.
    Trusted,
    /// It was trusted, and has changed since.
    Changed,
    /// It was never trusted.
    Unknown,
}

/// A project file that can be trusted, as it was read. What is shown of it is what
/// will be trusted, even if the file changes in between.
pub struct Candidate {
    path: PathBuf,
    text: read::Text,
}

impl Candidate {
    /// Reads a project file.
    ///
    /// # Errors
    /// Where there is no such file, it belongs to somebody else, or it is no TOML.
    pub fn read(path: &Path) -> Result<Self> {
        let refused = |why: &str| {
            Error::new(ErrorKind::Config, format!("{} cannot be trusted", path.display()))
                .because_of(why)
        };
        if files::is_link(path) {
            return Err(refused("it is a symbolic link"));
        }
        let Some(text) = read::read(path, None)? else {
            return Err(Error::new(ErrorKind::Config, format!("there is no {}", path.display())));
        };
        if text.guard == Guard::OtherOwner {
            return Err(refused("it belongs to somebody else"));
        }
        Node::parse(&text.source).map_err(|problem| problem.into_error())?;
        Ok(Self { path: files::canonical(path)?, text })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says.
    pub fn text(&self) -> &str {
        &self.text.source.text
    }

    /// Trusts it: it then counts as a full layer of the configuration.
    pub fn trust(&self, host: &Host) -> Result<()> {
        let trusted = Trusted { path: self.path.clone(), sha256: hash(&self.text.bytes) };
        let record = serde_json::to_vec(&trusted).map_err(|cause| {
            Error::new(ErrorKind::Io, "the trust cannot be written down").because(cause)
        })?;
        files::write_private(&record_of(host, &trusted.path), &record)
    }
}

/// Takes trust back. Tells whether there was any.
pub fn untrust(host: &Host, path: &Path) -> Result<bool> {
    // A file that is gone can still be named by the path it had.
    let path = files::canonical(path).unwrap_or_else(|_| path.to_path_buf());
    let record = record_of(host, &path);
    let was = files::exists(&record);
    files::remove(&record)?;
    Ok(was)
}

/// How a project file stands that holds these bytes.
pub(super) fn standing(host: &Host, path: &Path, bytes: &[u8]) -> Result<Standing> {
    let path = files::canonical(path)?;
    Ok(match load(&record_of(host, &path))? {
        Some(trusted) if trusted.path != path => Standing::Unknown,
        Some(trusted) if trusted.sha256 == hash(bytes) => Standing::Trusted,
        Some(_) => Standing::Changed,
        None => Standing::Unknown,
    })
}

/// Reads a record; a broken one counts as none, which trusts nobody.
fn load(record: &Path) -> Result<Option<Trusted>> {
    let bytes = files::read(record, read::MAX_BYTES)?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

fn record_of(host: &Host, path: &Path) -> PathBuf {
    host.dirs.state.join("trusted").join(hash(path.as_os_str().as_encoded_bytes()))
}

fn hash(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
