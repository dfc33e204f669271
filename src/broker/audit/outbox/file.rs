//! A file, with a record a line.

use std::path::PathBuf;

use async_trait::async_trait;
use tokio::task::JoinHandle;

use super::{Letter, Refused, Sink};
use crate::error::{Error, ErrorKind, Result};
use crate::host::files;

/// It is opened anew for each delivery: so whoever moves it away finds it whole, and what
/// comes next is in a new one.
pub(super) struct File {
    path: PathBuf,
    /// What somebody lost patience with, and still goes on.
    stuck: Option<JoinHandle<Result<()>>>,
}

impl File {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, stuck: None }
    }
}

#[async_trait]
impl Sink for File {
    async fn take(&mut self, letters: &[Letter]) -> Result<(), Refused> {
        // One at a time, also where a file system does not answer.
        if let Some(stuck) = &mut self.stuck {
            let _ = stuck.await;
            self.stuck = None;
        }
        let mut lines = String::with_capacity(letters.iter().map(|l| l.json.len() + 1).sum());
        for letter in letters {
            lines += &letter.json;
            lines.push('\n');
        }
        let path = self.path.clone();
        let task =
            tokio::task::spawn_blocking(move || files::append_durably(&path, lines.as_bytes()));
        let outcome = self.stuck.insert(task).await;
        self.stuck = None;
        let ended = |_| Error::new(ErrorKind::Other, "the file could not be written");
        Ok(outcome.map_err(ended)??)
    }
}
