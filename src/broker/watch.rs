//! Files that change while the broker runs, where nobody can send it a signal: a volume of
//! Kubernetes is exchanged in one step, and tells nobody.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use tokio::time::Instant;

use super::config::Config;
use super::directory;
use crate::host::files;

/// How much of a file is looked at: as much as the largest of them may have.
const MAX: u64 = directory::MAX_FILE;

/// How long after a refusal it is tried once more, where no file has changed: what was wrong may
/// have passed, as too many open files do, or a certificate that was to be valid later.
const AGAIN: Duration = Duration::from_secs(30);

/// Looks whether files have changed.
pub(super) struct Watch {
    files: BTreeMap<PathBuf, Known>,
    every: Option<Duration>,
    /// The one that says who the people are.
    people: Option<PathBuf>,
    /// A hash of what was in that when it was told of it alone.
    alone: Option<Vec<u8>>,
    /// When what was refused is to be tried once more.
    again: Option<Instant>,
}

/// What is to be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// All of it.
    All,
    /// All of it, as it was refused; nothing is known to have changed since.
    Again,
    /// Who has left: the directory of people is another, and not all else can be read.
    PeopleAlone,
}

/// What is known of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    /// A hash of what was in it when it could be read; none where it never could.
    seen: Option<Vec<u8>>,
    /// Why it cannot be read, where it was told so.
    told: Option<String>,
    /// Whether it is named only by what was refused: it may not be there.
    is_refused: bool,
}

impl Watch {
    /// Looks at the files that this broker reads again, as they are now.
    pub(super) async fn start(config: &Config) -> Self {
        let (files, alone, again) = (BTreeMap::new(), None, None);
        let mut watch = Self { files, every: None, people: None, alone, again };
        watch.follow(config, None);
        if watch.every.is_some() {
            watch.look().await;
        }
        watch
    }

    /// From now on it is the files of this configuration, and where something was refused, those
    /// that were named by it: it may be one of those that was no good. One that is new among them
    /// counts as one that has changed: who has read it did so before.
    pub(super) fn follow(&mut self, config: &Config, refused: Option<Vec<PathBuf>>) {
        self.every = config.watch_every;
        self.again = refused.is_some().then(|| Instant::now() + AGAIN);
        self.people = config.directory.as_ref().map(|directory| directory.file.clone());
        let known = |path: PathBuf, is_refused: bool| {
            let known = self.files.get(&path).cloned().unwrap_or_default();
            (path, Known { is_refused, ..known })
        };
        // What is named by both counts as what is in force.
        let refused = refused.into_iter().flatten().map(|path| known(path, true));
        let files = refused.chain(config.reread().map(|path| known(path.into(), false)));
        self.files = files.collect();
    }

    /// Returns once they are others than before, and never where nobody looks. What is new
    /// may be no good: that is seen once, like what is good.
    pub(super) async fn changed(&mut self) -> Seen {
        let Some(every) = self.every else { return std::future::pending().await };
        loop {
            tokio::time::sleep(every).await;
            if let Some(seen) = self.look().await {
                return seen;
            }
        }
    }

    /// Whether they are others than before. Where one cannot be read that is not so yet, since
    /// it is one that is being put there; or it is none at all, and so that is told, once. But
    /// nobody who has left the directory stays for as long.
    async fn look(&mut self) -> Option<Seen> {
        let paths: Vec<PathBuf> = self.files.keys().cloned().collect();
        let Ok(found) = tokio::task::spawn_blocking(move || read_all(paths)).await else {
            return None;
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
                Err(_) if known.is_refused => {}
                Err(why) => {
                    all = false;
                    if known.told.as_ref() != Some(&why) {
                        tracing::warn!(path = %path.display(), why, "a file that is watched cannot be read; until it can be, nothing is read again but who has left the directory of people");
                        known.told = Some(why);
                    }
                }
            }
        }
        if !all {
            let people = changed.into_iter().find(|(path, _)| Some(path) == self.people.as_ref());
            let hash = people.map(|(_, hash)| hash)?;
            let is_new = self.alone.as_ref() != Some(&hash);
            self.alone = Some(hash);
            return is_new.then_some(Seen::PeopleAlone);
        }
        // Who was let go may be back, in a file that is as it was.
        let mut seen = self.alone.take().map(|_| Seen::All);
        for (path, hash) in changed {
            let known = self.files.entry(path).or_default();
            let is_new = known.is_refused && known.seen.is_none();
            known.seen = Some(hash);
            if !is_new {
                seen = Some(Seen::All);
            }
            seen = seen.or(Some(Seen::Again));
        }
        seen.or_else(|| self.again.take_if(|at| *at <= Instant::now()).map(|_| Seen::Again))
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
        let every = Some(Duration::from_millis(1));
        let mut watch = Watch { files, every, people: None, alone: None, again: None };
        assert_eq!(watch.look().await, Some(Seen::All), "whoever is new has changed");
        put("..2", "one");
        let soon = Duration::from_millis(100);
        assert!(tokio::time::timeout(soon, watch.changed()).await.is_err());
        std::fs::remove_file(&file).unwrap();
        assert!(tokio::time::timeout(soon, watch.changed()).await.is_err());
        assert_eq!(watch.files[&file].told.as_deref(), Some("there is no such file"));
        symlink("..data/policy", &file).unwrap();
        put("..3", "two");
        assert_eq!(watch.changed().await, Seen::All);
        assert_eq!(watch.files[&file].told, None);
        assert!(tokio::time::timeout(soon, watch.changed()).await.is_err());
    }

    #[tokio::test]
    async fn the_directory_of_people_is_seen_alone_where_another_file_cannot_be_read() {
        let place = tempfile::tempdir().unwrap();
        let [people, policy] = ["people", "policy"].map(|name| place.path().join(name));
        let write = |path: &Path, text: &str| files::write_private(path, text.as_bytes()).unwrap();
        write(&people, "alice bob");
        write(&policy, "one");
        let files = [&people, &policy].map(|path| (path.clone(), Known::default())).into();
        let (every, alone, again) = (None, None, None);
        let mut watch = Watch { files, every, people: Some(people.clone()), alone, again };
        assert_eq!(watch.look().await, Some(Seen::All));
        files::remove(&policy).unwrap();
        assert_eq!(watch.look().await, None);
        write(&people, "alice");
        assert_eq!(watch.look().await, Some(Seen::PeopleAlone));
        assert_eq!(watch.look().await, None, "it is told once");
        write(&people, "alice carol");
        assert_eq!(watch.look().await, Some(Seen::PeopleAlone));
        // Bob is back, by the same file as before: then all is read again.
        write(&people, "alice bob");
        assert_eq!(watch.look().await, None);
        write(&policy, "one");
        assert_eq!(watch.look().await, Some(Seen::All));
        assert_eq!(watch.look().await, None);
        // Another file alone lets nobody go.
        files::remove(&people).unwrap();
        write(&policy, "two");
        assert_eq!(watch.look().await, None);
        write(&people, "alice bob");
        assert_eq!(watch.look().await, Some(Seen::All));
    }

    /// What was refused for something that no file says may be good by now.
    #[tokio::test]
    async fn what_was_refused_is_tried_once_more_after_a_while() {
        let place = tempfile::tempdir().unwrap();
        let [file, named] = ["file", "named"].map(|name| place.path().join(name));
        files::write_private(&file, b"one").unwrap();
        let known = [(file.clone(), Known::default())].into();
        let (people, alone) = (None, None);
        let mut watch = Watch { files: known, every: None, people, alone, again: None };
        assert_eq!(watch.look().await, Some(Seen::All));
        assert_eq!(watch.look().await, None);
        watch.again = Some(Instant::now() + AGAIN);
        assert_eq!(watch.look().await, None, "not yet");
        watch.again = Some(Instant::now());
        assert_eq!(watch.look().await, Some(Seen::Again));
        assert_eq!(watch.look().await, None, "until it is refused again");
        // A file that only the refused one names was read before it is looked at here.
        let refused = Known { is_refused: true, ..Known::default() };
        watch.files.insert(named.clone(), refused);
        assert_eq!(watch.look().await, None, "it need not be there");
        files::write_private(&named, b"one").unwrap();
        assert_eq!(watch.look().await, Some(Seen::Again));
        files::write_private(&named, b"two").unwrap();
        assert_eq!(watch.look().await, Some(Seen::All));
    }
}
