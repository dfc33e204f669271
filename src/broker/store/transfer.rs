//! Backups, restoring them, and moving from SQLite to PostgreSQL.
//!
//! A backup is a SQLite database, whatever the store is: a file that a broker could run
//! on, and that every engine can be filled from. Each copy is compared with what it is of,
//! and its log has to end as it was sealed: by the key, where that is at hand.

use std::path::{Path, PathBuf};

use super::sql::{Copied, SqlStore};
use super::{Store as _, open, open_to_read, sqlite};
use crate::broker::audit::seal::Seal;
use crate::broker::config::{Place, Store as StoreConfig};
use crate::broker::keys::{Kek, RootKey};
use crate::error::{Error, ErrorKind, Result};
use crate::host::env::Env;
use crate::host::files::{self, Draft};

/// How a database is called that was moved away: no broker finds it by accident.
const MOVED: &str = "moved";

/// What to do about a backup of an earlier version, which PostgreSQL cannot be filled from: it
/// stays as it is, and what is restored into a file is brought up to date there.
const RESTORED_APART: &str = "restore it into a file, by a configuration with `path` in [store], which brings it \
     up to date; then move that file with `tmpcred broker move`";

/// Writes a backup into a file that is not there yet. Brokers may be running.
///
/// # Errors
/// Where the file is there, the store cannot be read, or what was written is not the same.
pub async fn backup(
    config: &StoreConfig,
    env: &Env,
    file: &Path,
    kek: Option<&Kek>,
) -> Result<Copied> {
    let draft = Draft::of(file)?;
    require_alone(file)?;
    let copied = match config.place()? {
        Place::File(path) => duplicate(path, &draft, kek).await?,
        Place::Postgres(_) => {
            let from = open_to_read(config, env).await?;
            let to = sqlite::open(draft.path()).await?;
            let copied = copied(&from, &to, kek).await;
            let copied = put_down(&to, &draft, copied).await;
            from.close().await;
            copied?
        }
    };
    draft.finish(file)?;
    Ok(copied)
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
/// # Errors
/// Where the store has something already: nothing is overwritten.
pub async fn restore(
    config: &StoreConfig,
    env: &Env,
    file: &Path,
    kek: Option<&Kek>,
) -> Result<Copied> {
    there(file)?;
    match config.place()? {
        Place::File(path) => {
            let draft = Draft::of(path)?;
            require_alone(path)?;
            let copied = duplicate(file, &draft, kek).await?;
            draft.finish(path)?;
            Ok(copied)
        }
        Place::Postgres(_) => {
            let from = sqlite::open_to_copy(file).await?;
            if let Err(error) = from.require_this_version(RESTORED_APART).await {
                from.close().await;
                let name = format!("the database {} cannot be restored", file.display());
                return Err(error.context(name));
            }
            fill(from, config, env, kek).await
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
) -> Result<(Copied, PathBuf)> {
    if let Place::File(path) = config.place()? {
        let why = format!("the configuration names the SQLite database {}", path.display());
        return Err(Error::new(ErrorKind::Config, why)
            .hint("name the database to move to in [store.postgres], and no path"));
    }
    there(file)?;
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{MOVED}"));
    let moved = PathBuf::from(name);
    if files::exists(&moved) {
        return Err(Error::new(ErrorKind::Usage, format!("there is {} already", moved.display())));
    }
    // Nobody writes to it from here on: what was recorded there would be lost.
    let from = sqlite::open_alone(file).await?;
    let copied = fill(from, config, env, kek).await?;
    files::rename(file, &moved)?;
    Ok((copied, moved))
}

async fn fill(
    from: SqlStore,
    config: &StoreConfig,
    env: &Env,
    kek: Option<&Kek>,
) -> Result<Copied> {
    let copied = async {
        let to = open(config, env).await?;
        let copied = copied(&from, &to, kek).await;
        to.close().await;
        copied
    }
    .await;
    from.close().await;
    copied
}

async fn copied(from: &SqlStore, to: &SqlStore, kek: Option<&Kek>) -> Result<Copied> {
    from.copy_to(to, seal_of(from, kek).await?.as_ref()).await
}

/// What the end of its log is sealed with.
async fn seal_of(store: &SqlStore, kek: Option<&Kek>) -> Result<Option<Seal>> {
    let Some(kek) = kek else { return Ok(None) };
    Ok(RootKey::find(store, kek).await?.map(|root_key| root_key.seal_of_log()))
}

/// Copies a SQLite database as it is at this moment, and looks whether the copy is good.
async fn duplicate(path: &Path, draft: &Draft, kek: Option<&Kek>) -> Result<Copied> {
    let from = sqlite::open_to_copy(path).await?;
    let to = draft
        .path()
        .to_str()
        .ok_or_else(|| Error::new(ErrorKind::Usage, "the path is not valid Unicode"))?;
    let outcome = from.vacuum_into(to).await;
    from.close().await;
    outcome?;
    // Where an earlier version made it, it is brought up to date here, not there.
    let copy = sqlite::open(draft.path()).await?;
    let checked = async { copy.check(seal_of(&copy, kek).await?.as_ref()).await }.await;
    put_down(&copy, draft, checked).await
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

fn there(file: &Path) -> Result<()> {
    if files::exists(file) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Usage, format!("there is no file {}", file.display())))
}

#[cfg(test)]
#[cfg(unix)]
mod tests;
