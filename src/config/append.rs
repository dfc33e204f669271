//! Adding to the user's own file, without touching what stands there.

use std::path::PathBuf;

use super::de::decode;
use super::diagnostic::into_error;
use super::model::File;
use super::read::MAX_BYTES;
use super::source::Source;
use super::tree::Node;
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::files;

/// The user's own file with more behind its end. What stands in it, comments too,
/// stays as it is.
#[derive(Debug)]
pub struct Addition {
    path: PathBuf,
    text: String,
}

impl Addition {
    /// Makes sure that the file can be read with `tables` behind its end.
    ///
    /// # Errors
    /// Where it cannot: a table is there already, or the file has them in another form.
    pub fn new(host: &Host, tables: &str) -> Result<Self> {
        let path = &host.dirs.user_config;
        // A link is kept, and what it leads to is changed.
        let path = if files::exists(path) { files::canonical(path)? } else { path.clone() };
        let mut text = files::read_text(&path, MAX_BYTES)?.unwrap_or_default();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(tables);
        let failed = |error: Error| {
            error
                .context(format!("nothing can be added to {}", path.display()))
                .hint("nothing has been changed")
        };
        let name = path.display().to_string();
        let tree = Node::parse(&Source::text(&name, &text))
            .map_err(|problem| failed(problem.into_error()))?;
        decode::<File>(&tree).map_err(|problems| failed(into_error(problems)))?;
        if text.len() as u64 > MAX_BYTES {
            return Err(failed(Error::new(ErrorKind::Config, "it would be too large")));
        }
        Ok(Self { path, text })
    }

    /// The file.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Replaces the file in one step.
    ///
    /// # Errors
    /// Where it cannot be written: it is as it was then.
    pub fn write(&self) -> Result<()> {
        files::write_private(&self.path, self.text.as_bytes())
    }
}
