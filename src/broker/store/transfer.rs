//! Backups, restoring them, and moving from SQLite to PostgreSQL.
//!
//! A backup is a SQLite database, whatever the store is: a file that a broker could run
//! on, and that every engine can be filled from. Each copy is compared with what it is of,
//! and its log has to end as it was sealed: by the key, where that is at hand.

use std::path::{Path, PathBuf};

use super::open::Made;
use super::sql::{Copied, SqlStore};
use super::{KeyStore as _, LogStore as _, Store, open, open_existing, open_to_read, sqlite};
use crate::broker::audit;
use crate::broker::audit::seal::Seal;
use crate::broker::config::{Place, Store as StoreConfig};
use crate::broker::keys::{CheckpointKeys, Kek, RootKey};
use crate::error::{Error, ErrorKind, Result};
use crate::host::env::Env;
use crate::host::files::{self, Draft};
use crate::oidc::Issuer;

/// How a database is called that was moved away: no broker finds it by accident.
const MOVED: &str = "moved";

/// What a SQLite database begins with.
const HEADER: &[u8] = b"SQLite format 3\0";

/// What to do about a backup of an earlier version, which PostgreSQL cannot be filled from: it
/// stays as it is, and what is restored into a file is brought up to date there.
const RESTORED_APART: &str = "restore it into a file, by a configuration with `path` in [store], which brings it \
     up to date; then move that file with `tmpcred broker move`";

/// Who looks at a database before anything of it is copied.
#[derive(Clone, Copy)]
struct Looking<'a> {
    /// The key-encryption key, where it is at hand.
    kek: Option<&'a Kek>,
    /// Whose it has to be, where another store is filled from it.
    issuer: Option<&'a Issuer>,
}

impl Looking<'_> {
    /// Refuses a file in which no broker has made its tables: it would get some, and pass for a
    /// database of one.
    async fn require_tables(self, store: &SqlStore, path: &Path) -> Result<()> {
        match store.found().await? {
            Made::Never => Err(self.nothing().because_of(format!("{} is empty", path.display()))),
            Made::Earlier | Made::Now => Ok(()),
        }
    }

    /// Refuses a database in which there is nothing of a broker, or, as far as the key shows,
    /// that of another one. Returns what the end of its log is sealed with.
    async fn seal_of(self, store: &SqlStore) -> Result<Option<Seal>> {
        // A broker makes its root key before all else, and earlier ones a key.
        let is_begun = store.size().await? > 0
            || !store.keys().await?.is_empty()
            || !store.sealed_roots().await?.is_empty();
        if !is_begun {
            return Err(self.nothing().because_of("it has neither records nor keys"));
        }
        let Some(kek) = self.kek else { return Ok(None) };
        let Some(root_key) = RootKey::find(store, kek).await? else { return Ok(None) };
        if let Some(issuer) = self.issuer {
            let keys = CheckpointKeys::read(store, &root_key).await?;
            let named = keys.require_name(store, &audit::origin(issuer)).await;
            named.map_err(|error| error.hint("nothing was written"))?;
        }
        Ok(Some(root_key.seal_of_log()))
    }

    fn nothing(self) -> Error {
        let (kind, hint) = match self.issuer {
            Some(_) => (ErrorKind::Usage, "name a backup; nothing was written"),
            None => (
                ErrorKind::Config,
                "see that [store] names the database that the broker runs on; nothing was written",
            ),
        };
        Error::new(kind, "there is nothing of a broker in the database").hint(hint)
    }
}

/// Writes a backup into a file that is not there yet. Brokers may be running. Where an earlier
/// version made the SQLite database, so it has made the copy: that version can go back to it.
///
/// # Errors
/// Where the file is there, the store cannot be read, there is nothing of a broker in it, or what
/// was written is not the same.
pub async fn backup(
    config: &StoreConfig,
    env: &Env,
    file: &Path,
    kek: Option<&Kek>,
) -> Result<Copied> {
    require_directory(file)?;
    let draft = Draft::of(file)?;
    require_alone(file)?;
    let looking = Looking { kek, issuer: None };
    let copied = match config.place()? {
        Place::File(path) => {
            raw_copy(path, &draft, looking).await?;
            match made(&draft).await? {
                Made::Earlier => {
                    // To be looked at it has to be brought up to date, and so another one is.
                    let trial = Draft::of(file)?;
                    raw_copy(draft.path(), &trial, looking).await?;
                    let copied = checked(&trial, looking).await?;
                    Copied { earlier: true, ..copied }
                }
                Made::Never | Made::Now => checked(&draft, looking).await?,
            }
        }
        Place::Postgres(_) => {
            let from = open_to_read(config, env).await?;
            let to = sqlite::open(draft.path()).await?;
            let copied = async { from.copy_to(&to, looking.seal_of(&from).await?.as_ref()).await };
            let copied = put_down(&to, &draft, copied.await).await;
            from.close().await;
            copied?
        }
    };
    draft.finish(file)?;
    Ok(copied)
}

/// Refuses a file for which a directory would have to be made: where a disk is not mounted, or its
/// name is misspelt, the backup would be elsewhere than it is looked for.
fn require_directory(file: &Path) -> Result<()> {
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    match directory.filter(|directory| !files::is_dir(directory)) {
        None => Ok(()),
        Some(missing) => {
            let what = format!("there is no directory {}", missing.display());
            Err(Error::new(ErrorKind::Usage, what)
                .hint("none is made for a backup: make it, or mount what belongs there"))
        }
    }
}

/// Lets go of a copy, which has to be in one file by then: what lies beside it is not taken along.
async fn put_down(copy: &SqlStore, draft: &Draft, copied: Result<Copied>) -> Result<Copied> {
    let gathered = match copied {
        Ok(copied) => copy.gather().await.map(|()| copied),
        failed => failed,
    };
    copy.close().await;
    if gathered.is_err() {
        // Where it could not be, a disk may be full of it.
        for path in beside(draft.path()) {
            if let Err(error) = files::remove(&path) {
                tracing::warn!(%error, path = %path.display(), "what was written in vain stays");
            }
        }
    }
    gathered
}

/// Fills the store that the configuration names from a backup. The file stays as it is.
///
/// What was restored `record` puts on record in the store, which has so many records until then:
/// in a file before it appears, so that whoever is cut off has either both or nothing. What comes
/// of that is the other thing that is returned; what was restored is there in any case.
///
/// # Errors
/// Where the store has something already: nothing is overwritten. Where there is nothing of a
/// broker in the file, or, as the key shows, it is of a broker with another issuer.
pub async fn restore(
    config: &StoreConfig,
    env: &Env,
    file: &Path,
    kek: Option<&Kek>,
    issuer: &Issuer,
    record: impl AsyncFnOnce(&dyn Store, u64) -> Result<()>,
) -> Result<(Copied, Result<()>)> {
    require_there(file)?;
    let looking = Looking { kek, issuer: Some(issuer) };
    match config.place()? {
        Place::File(path) => {
            let draft = Draft::of(path)?;
            require_alone(path)?;
            raw_copy(file, &draft, looking).await?;
            let copy = sqlite::open(draft.path()).await?;
            let checked = check(&copy, looking).await;
            let recorded = match &checked {
                Ok(copied) => record(&copy, copied.records).await,
                Err(_) => Ok(()),
            };
            let copied = put_down(&copy, &draft, checked).await?;
            draft.finish(path)?;
            Ok((copied, recorded))
        }
        Place::Postgres(_) => {
            let from = sqlite::open_to_copy(file).await?;
            let named = |error: Error| {
                error.context(format!("the database {} cannot be restored", file.display()))
            };
            let fits = async {
                looking.require_tables(&from, file).await?;
                from.require_this_version(RESTORED_APART).await.map_err(named)
            };
            if let Err(error) = fits.await {
                from.close().await;
                return Err(error);
            }
            let copied = fill(from, config, env, looking).await?;
            let recorded = async {
                let to = open_existing(config, env).await?;
                let recorded = record(&to, copied.records).await;
                to.close().await;
                recorded
            };
            Ok((copied, recorded.await))
        }
    }
}

/// Moves a SQLite database into the PostgreSQL database that the configuration names.
/// Returns what was moved, and how the file is called from then on.
///
/// # Errors
/// As with [`restore`]; also where a broker has the file open. It may be begun anew
/// whenever it was cut off.
pub async fn move_in(
    config: &StoreConfig,
    env: &Env,
    file: &Path,
    kek: Option<&Kek>,
    issuer: &Issuer,
) -> Result<(Copied, PathBuf)> {
    if let Place::File(path) = config.place()? {
        let why = format!("the configuration names the SQLite database {}", path.display());
        return Err(Error::new(ErrorKind::Config, why)
            .hint("name the database to move to in [store.postgres], and no path"));
    }
    require_there(file)?;
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{MOVED}"));
    let moved = PathBuf::from(name);
    if files::exists(&moved) {
        return Err(Error::new(ErrorKind::Usage, format!("there is {} already", moved.display())));
    }
    let looking = Looking { kek, issuer: Some(issuer) };
    let before = sqlite::open_to_copy(file).await?;
    let has_tables = looking.require_tables(&before, file).await;
    before.close().await;
    has_tables?;
    // Nobody writes to it from here on: what was recorded there would be lost.
    let from = sqlite::open_alone(file).await?;
    let copied = match from.found().await {
        Ok(Made::Earlier) => fill_by_copy(from, file, config, env, looking).await?,
        Ok(Made::Never | Made::Now) => fill(from, config, env, looking).await?,
        Err(error) => {
            from.close().await;
            return Err(error);
        }
    };
    files::rename(file, &moved)?;
    Ok((copied, moved))
}

/// As [`fill`], from a database that an earlier version made and nobody else has open: a copy is
/// brought up to date, and the file stays as it is, so that there is a way back to that version.
async fn fill_by_copy(
    from: SqlStore,
    file: &Path,
    config: &StoreConfig,
    env: &Env,
    looking: Looking<'_>,
) -> Result<Copied> {
    let copied = async {
        let draft = Draft::beside(file)?;
        from.vacuum_into(as_text(draft.path())?).await?;
        let copy = sqlite::open(draft.path()).await?;
        fill(copy, config, env, looking).await
    }
    .await;
    from.close().await;
    copied.map(|copied| Copied { earlier: true, ..copied })
}

async fn fill(
    from: SqlStore,
    config: &StoreConfig,
    env: &Env,
    looking: Looking<'_>,
) -> Result<Copied> {
    let copied = async {
        let seal = looking.seal_of(&from).await?;
        let to = open(config, env).await?;
        let copied = from.copy_to(&to, seal.as_ref()).await;
        to.close().await;
        copied
    }
    .await;
    from.close().await;
    copied
}

/// Copies a SQLite database as it is at this moment, whatever version made it.
async fn raw_copy(path: &Path, draft: &Draft, looking: Looking<'_>) -> Result<()> {
    let from = sqlite::open_to_copy(path).await?;
    let outcome = async {
        looking.require_tables(&from, path).await?;
        from.vacuum_into(as_text(draft.path())?).await
    }
    .await;
    from.close().await;
    outcome
}

fn as_text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Error::new(ErrorKind::Usage, "the path is not valid Unicode"))
}

/// Which version made a copy.
async fn made(draft: &Draft) -> Result<Made> {
    let copy = sqlite::open_to_copy(draft.path()).await?;
    let made = copy.found().await;
    copy.close().await;
    made
}

/// Looks whether a copy is good. Where an earlier version made it, it is brought up to date, and
/// what it is of is not.
async fn checked(draft: &Draft, looking: Looking<'_>) -> Result<Copied> {
    let copy = sqlite::open(draft.path()).await?;
    let checked = check(&copy, looking).await;
    put_down(&copy, draft, checked).await
}

async fn check(copy: &SqlStore, looking: Looking<'_>) -> Result<Copied> {
    copy.check(looking.seal_of(copy).await?.as_ref()).await
}

/// Refuses a place for a database beside which there is something of another one that was there:
/// SQLite would take that for a part of what is put there, and overwrite some of it.
fn require_alone(path: &Path) -> Result<()> {
    let left = beside(path).into_iter().find(|path| files::exists(path));
    let Some(left) = left else { return Ok(()) };
    let why = format!("there is {}, of the database that was there before", left.display());
    Err(Error::new(ErrorKind::Usage, why).hint(format!(
        "put it away together with that database: it has what was committed last; all files of a database begin like {}",
        path.display()
    )))
}

/// The files that SQLite may have beside that of a database.
fn beside(path: &Path) -> [PathBuf; 3] {
    ["-wal", "-shm", "-journal"].map(|end| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    })
}

fn require_there(file: &Path) -> Result<()> {
    let wrong = |why: &str| {
        let named = format!("{} cannot be taken for a database", file.display());
        Err(Error::new(ErrorKind::Usage, named).because_of(why))
    };
    if !sqlite::is_there(file)? {
        let why = format!("there is no file {}", file.display());
        return Err(Error::new(ErrorKind::Usage, why));
    }
    if files::is_dir(file) {
        return wrong("it is a directory");
    }
    // Before anything is asked of a file that holds what everybody may read.
    let begins = files::read_start(file, HEADER.len() as u64)?.unwrap_or_default();
    if !begins.is_empty() && begins != HEADER {
        return wrong("it is no SQLite database");
    }
    Ok(())
}

#[cfg(test)]
#[cfg(unix)]
mod tests;
