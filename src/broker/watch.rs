//! Files that change while the broker runs, where nobody can send it a signal: a volume of
//! Kubernetes is exchanged in one step, and tells nobody.

use std::path::PathBuf;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};

use super::config::Config;
use crate::host::files;

/// How much of a file is looked at.
const MAX: u64 = 16 * 1024 * 1024;

/// Looks whether files have changed.
pub(super) struct Watch {
    files: Vec<PathBuf>,
    every: Option<Duration>,
    seen: Vec<u8>,
}

impl Watch {
    /// Looks at the files that this broker reads again, as they are now.
    pub(super) async fn start(config: &Config) -> Self {
        let files = match config.watch_every {
            Some(_) => config.reread().map(PathBuf::from).collect(),
            None => Vec::new(),
        };
        let seen = look(files.clone()).await.unwrap_or_default();
        Self { files, every: config.watch_every, seen }
    }

    /// Returns once they are others than before, and never where nobody looks. What is new
    /// may be no good: that is seen once, like what is good.
    pub(super) async fn changed(&mut self) {
        let Some(every) = self.every else { return std::future::pending().await };
        loop {
            tokio::time::sleep(every).await;
            // One that cannot be read is one that is being put there.
            let Some(seen) = look(self.files.clone()).await else { continue };
            if seen != self.seen {
                self.seen = seen;
                return;
            }
        }
    }
}

/// A hash of what is in files; `None` where one cannot be read.
async fn look(files: Vec<PathBuf>) -> Option<Vec<u8>> {
    let hashed = tokio::task::spawn_blocking(move || {
        let mut hash = Context::new(&SHA256);
        for file in files {
            let bytes = files::read(&file, MAX).ok()??;
            hash.update(&(bytes.len() as u64).to_be_bytes());
            hash.update(&bytes);
        }
        Some(hash.finish().as_ref().to_vec())
    });
    hashed.await.ok().flatten()
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "a volume as Kubernetes makes it")]
    async fn what_is_exchanged_behind_a_link_is_seen_and_what_is_the_same_is_not() {
        let volume = tempfile::tempdir().unwrap();
        let put = |version: &str, text: &str| {
            let directory = volume.path().join(version);
            std::fs::create_dir(&directory).unwrap();
            std::fs::write(directory.join("policy"), text).unwrap();
            let new = volume.path().join("..data_tmp");
            symlink(Path::new(version), &new).unwrap();
            std::fs::rename(&new, volume.path().join("..data")).unwrap();
        };
        put("..1", "one");
        let file = volume.path().join("policy");
        symlink("..data/policy", &file).unwrap();
        let seen = look(vec![file.clone()]).await.unwrap();
        let every = Some(Duration::from_millis(1));
        let mut watch = Watch { files: vec![file.clone()], every, seen };
        put("..2", "one");
        let soon = Duration::from_millis(100);
        assert!(tokio::time::timeout(soon, watch.changed()).await.is_err());
        std::fs::remove_file(&file).unwrap();
        assert!(tokio::time::timeout(soon, watch.changed()).await.is_err());
        symlink("..data/policy", &file).unwrap();
        put("..3", "two");
        watch.changed().await;
        assert!(tokio::time::timeout(soon, watch.changed()).await.is_err());
    }
}
