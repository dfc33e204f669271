//! Which project files the person has trusted, down to the last byte, with the files that
//! they name: whoever changes a file with authorities or a policy changes what they mean.
//!
//! Each one is a small file in the state directory, named after the project
//! file's path, so that two of them can be written at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
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
    /// The files that it names.
    #[serde(default)]
    files: Files,
}

/// Files, and the SHA-256 of what each holds; `None` where it is not there.
type Files = BTreeMap<PathBuf, Option<String>>;

/// How large a file may be that is named, in bytes: it may be a program.
const MAX_NAMED: u64 = 64 * 1024 * 1024;

/// How a project file stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is trusted, and has not changed since.
    Trusted,
    /// It was trusted, and has changed since.
    Changed,
    /// It was trusted, and this file, which it names, has changed since.
    OtherChanged(PathBuf),
    /// It was never trusted.
    Unknown,
}

/// A project file that can be trusted, as it was read. What is shown of it is what
/// will be trusted, even if the file changes in between.
pub struct Candidate {
    path: PathBuf,
    text: read::Text,
    files: Files,
}

impl Candidate {
    /// Reads a project file, and the files that it names.
    ///
    /// # Errors
    /// Where there is no such file, it belongs to somebody else, or it is no TOML; where one
    /// that it names cannot be read; where its path is no text.
    pub fn read(host: &Host, path: &Path) -> Result<Self> {
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
        let path = files::canonical(path)?;
        // What it names relative to itself could not be told from what is in other directories.
        if path.to_str().is_none() {
            return Err(refused("its path is not valid Unicode")
                .hint("rename the directory, or move the project")
                .hint("where the file only chooses a profile: mark that `project_selectable`"));
        }
        let files = named(host, &path, &text)?;
        Ok(Self { path, text, files })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says.
    pub fn text(&self) -> &str {
        &self.text.source.text
    }

    /// The files that it names, which are trusted with it, and whether each is there.
    pub fn files(&self) -> impl Iterator<Item = (&Path, bool)> {
        self.files.iter().map(|(path, digest)| (path.as_path(), digest.is_some()))
    }

    /// Trusts it: it then counts as a full layer of the configuration.
    pub fn trust(&self, host: &Host) -> Result<()> {
        let (path, files) = (self.path.clone(), self.files.clone());
        let trusted = Trusted { path, sha256: hash(&self.text.bytes), files };
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

/// How a project file stands that was read like this.
pub(super) fn standing(host: &Host, path: &Path, text: &read::Text) -> Result<Standing> {
    let path = files::canonical(path)?;
    let trusted = match load(&record_of(host, &path))? {
        Some(trusted) if trusted.path == path => trusted,
        _ => return Ok(Standing::Unknown),
    };
    if trusted.sha256 != hash(&text.bytes) {
        return Ok(Standing::Changed);
    }
    let mut now = named(host, &path, text)?;
    // What it names in another directory may be as it was.
    for path in trusted.files.keys().filter(|path| !now.contains_key(*path)).collect::<Vec<_>>() {
        now.insert(path.clone(), digest_of(path)?);
    }
    let is_other = |path: &&PathBuf| now.get(*path) != trusted.files.get(*path);
    Ok(match now.keys().find(is_other) {
        Some(path) => Standing::OtherChanged(path.clone()),
        None => Standing::Trusted,
    })
}

/// The files that the project file at this path names, without symbolic links on the way to it.
fn named(host: &Host, path: &Path, text: &read::Text) -> Result<Files> {
    let tree = Node::parse(&text.source).map_err(|problem| problem.into_error())?;
    let dir = path.parent().unwrap_or(path);
    let working = host.dirs.working.as_deref().and_then(|dir| files::canonical(dir).ok());
    let named = read::named_files(&tree, dir, (working.as_deref(), host.env.home())).into_iter();
    named.map(|path| digest_of(&path).map(|digest| (path, digest))).collect()
}

fn digest_of(path: &Path) -> Result<Option<String>> {
    let failed = |error: Error| {
        error
            .of_kind(ErrorKind::Config)
            .context("a file that a project file names cannot be trusted")
    };
    // Reading what is no regular file may wait for somebody.
    if files::exists(path) && !files::is_file(path) {
        let why = format!("{} is no regular file", path.display());
        return Err(failed(Error::new(ErrorKind::Config, why)));
    }
    Ok(files::read(path, MAX_NAMED).map_err(failed)?.map(|bytes| hash(&bytes)))
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
    HEXLOWER.encode(digest(&SHA256, bytes).as_ref())
}
