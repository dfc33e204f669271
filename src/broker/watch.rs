//! Files that change while the broker runs, where nobody can send it a signal: a volume of
//! Kubernetes is exchanged in one step, and tells nobody.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};

use super::config::Config;
use crate::host::files;

/// How much of a file is looked at.
const MAX: u64 = 16 * 1024 * 1024;

/// Looks whether files have changed.
pub(super) struct Watch {
    files: BTreeMap<PathBuf, Known>,
    every: Option<Duration>,
}

/// What is known of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    /// A hash of what was in it when it could be read; none where it never could.
    seen: Option<Vec<u8>>,
    /// Why it cannot be read, where it was told so.
    told: Option<String>,
}

impl Watch {
    /// Looks at the files that this broker reads again, as they are now.
    pub(super) async fn start(config: &Config) -> Self {
        let mut watch = Self { files: BTreeMap::new(), every: None };
        watch.follow(config);
        if watch.every.is_some() {
            watch.look().await;
        }
        watch
    }

    /// From now on it is these files. One that is new among them counts as one that has
    /// changed: who has read it did so before.
    pub(super) fn follow(&mut self, config: &Config) {
        self.every = config.watch_every;
        let known = |path: PathBuf| {
            let known = self.files.get(&path).cloned().unwrap_or_default();
            (path, known)
        };
        self.files = config.reread().map(PathBuf::from).map(known).collect();
    }

    /// Returns once they are others than before, and never where nobody looks. What is new
    /// may be no good: that is seen once, like what is good.
    pub(super) async fn changed(&mut self) {
        let Some(every) = self.every else { return std::future::pending().await };
        loop {
            tokio::time::sleep(every).await;
            if self.look().await {
                return;
            }
        }
    }

    /// Whether they are others than before. Where one cannot be read that is not so yet, since
    /// it is one that is being put there; or it is none at all, and so that is told, once.
    async fn look(&mut self) -> bool {
        let paths: Vec<PathBuf> = self.files.keys().cloned().collect();
        let Ok(found) = tokio::task::spawn_blocking(move || read_all(paths)).await else {
            return false;
        };
        let (mut changed, mut all) = (Vec::new(), true);
        for (path, found) in found {
            let Some(known) = self.files.get_mut(&path) else { continue };
            match found {
                Ok(hash) => {
                    if known.told.take().is_some() {
                        tracing::info!(path = %path.display(), "a file that is watched can be read again");
                    }
                    if known.seen.as_ref() != Some(&hash) {
                        changed.push((path, hash));
                    }
                }
                Err(why) => {
                    all = false;
                    if known.told.as_ref() != Some(&why) {
                        tracing::warn!(path = %path.display(), why, "a file that is watched cannot be read; until it can be, nothing is read again");
                        known.told = Some(why);
                    }
                }
            }
        }
        if !all || changed.is_empty() {
            return false;
        }
        for (path, hash) in changed {
            self.files.entry(path).or_default().seen = Some(hash);
        }
        true
    }
}

/// A hash of what is in each file, or why it cannot be read.
fn read_all(paths: Vec<PathBuf>) -> Vec<(PathBuf, Result<Vec<u8>, String>)> {
    let look = |path: &PathBuf| match files::read(path, MAX) {
        Ok(Some(bytes)) => Ok(digest(&SHA256, &bytes).as_ref().to_vec()),
        Ok(None) => Err("there is no such file".to_string()),
        Err(error) => Err(error.to_string()),
    };
    paths
        .into_iter()
        .map(|path| {
            let found = look(&path);
            (path, found)
        })
        .collect()
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
        let files = [(file.clone(), Known::default())].into();
        let mut watch = Watch { files, every: Some(Duration::from_millis(1)) };
        assert!(watch.look().await, "whoever is new has changed");
        put("..2", "one");
        let soon = Duration::from_millis(100);
        assert!(tokio::time::timeout(soon, watch.changed()).await.is_err());
        std::fs::remove_file(&file).unwrap();
        assert!(tokio::time::timeout(soon, watch.changed()).await.is_err());
        assert_eq!(watch.files[&file].told.as_deref(), Some("there is no such file"));
        symlink("..data/policy", &file).unwrap();
        put("..3", "two");
        watch.changed().await;
        assert_eq!(watch.files[&file].told, None);
        assert!(tokio::time::timeout(soon, watch.changed()).await.is_err());
    }
}
