//! SQLite: the settings that make it durable, and files that nobody else can read.

use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use sqlx::any::AnyPoolOptions;
use sqlx::{Connection, Executor};
use uuid::Uuid;

use super::Store as _;
use super::open::{Found, Made};
use super::sql::{Engine, Own, RUN_BY_EARLIER, SqlStore, code, fault};
use crate::error::{Error, ErrorKind, Result};
use crate::host::files::{self, Owner, Readers};

/// How many connections one process opens to read, besides the one that writes.
const READERS: u32 = 3;

/// How long a connection of the pool is waited for.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the log of changes may get, in pages, until a commit moves it into the database
/// itself, which takes as long as it takes: usually nearly all of it is there by then. And
/// who starts after a crash reads it.
const LOG: u32 = 16_384;

/// How much of the database the connection that writes keeps in memory, in KiB.
const KEPT: u32 = 16_384;

/// What every connection is told first. A full sync makes a commit durable, not
/// only consistent.
const SETTINGS: &str = "
    pragma busy_timeout = 5000;
    pragma journal_mode = wal;
    pragma synchronous = full;
    pragma foreign_keys = on;
    pragma trusted_schema = off;
    pragma secure_delete = on;
    pragma recursive_triggers = on;
    pragma cell_size_check = on;
";

/// What is said where the file stays as it is: in a log of its own, if it is, and without one, if
/// not.
const AS_IT_IS: &str = "
    pragma busy_timeout = 5000;
    pragma trusted_schema = off;
    pragma cell_size_check = on;
";

/// The audit log only grows, and what is personal in it may be erased. This keeps slips of the hand and of the pen out, not
/// somebody who means to forge: who may write the file may drop a trigger.
const APPEND_ONLY: Own = Own {
    is_there: "select 1 from sqlite_master
        where name = 'audit_record_update' and sql like '%new.elevation%'",
    add: "
        drop trigger if exists audit_record_update;
        create trigger audit_record_update before update on audit_record
            when not (old.erased is null and new.erased is not null and new.salt is null and
                new.sequence is old.sequence and
                new.at is old.at and
                new.request_id is old.request_id and
                new.trace_id is old.trace_id and
                new.elevation is old.elevation and
                new.action is old.action and
                new.decision is old.decision and
                new.issuer is old.issuer and
                new.role is old.role and
                new.audience is old.audience and
                new.scope is old.scope and
                new.ttl is old.ttl and
                new.jti is old.jti and
                new.parent is old.parent and
                new.policy_id is old.policy_id and
                new.policy_hash is old.policy_hash and
                new.count is old.count and
                new.leaf_version is old.leaf_version)
        begin
            select raise(abort, 'the audit log is append-only');
        end;
        create trigger if not exists audit_record_delete before delete on audit_record begin
            select raise(abort, 'the audit log is append-only');
        end;",
};

/// What SQLite answers where a file is no database (SQLITE_NOTADB).
const NO_DATABASE: &str = "26";

/// What to do where this user is not let to the database.
const AS_THE_BROKER: &str =
    "run this as the user that the broker runs as; under systemd `tmpcred-broker-ctl` does";

/// What to do where the database is to be made in a directory of others.
const OWN_PLACE: &str = "name one in a directory of the broker's own, mode 700";

/// Stands between `/` and `?` of a database URL.
const PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'\\')
    .add(b'`')
    .add(b'{')
    .add(b'}');

/// Opens the database in this file, and makes it where there is none.
///
/// # Errors
/// [`ErrorKind::Config`] where others can read the file, where it is no database,
/// or a database of something else, of a newer version, or damaged.
pub async fn open(path: &Path) -> Result<SqlStore> {
    open_with(path, None).await
}

/// Opens the database in this file beside the brokers that run on it.
///
/// # Errors
/// As with [`open`]; also where there is none, or an earlier version made it: brokers of that
/// version go on with it, and once it is brought up to date none of them can be started again.
pub async fn open_existing(path: &Path) -> Result<SqlStore> {
    let failed = |error: Error| {
        error.context(format!("the broker's database {} cannot be used", path.display()))
    };
    require_there(path).map_err(failed)?;
    let settings = format!("{AS_IT_IS} pragma query_only = on;");
    let found = one(path, settings).await.map_err(failed)?;
    let is_of_this = found.require_this_version(RUN_BY_EARLIER).await;
    found.close().await;
    is_of_this.map_err(failed)?;
    open(path).await
}

/// Opens the database in this file to read it; a broker may be writing to it.
///
/// # Errors
/// As with [`open`]; also where there is none, or an earlier version made it.
pub async fn open_to_read(path: &Path) -> Result<SqlStore> {
    let failed = |error: Error| {
        error.context(format!("the broker's database {} cannot be read", path.display()))
    };
    require_there(path).map_err(failed)?;
    let settings = format!("{SETTINGS} pragma query_only = on;");
    let store = one(path, settings).await.map_err(failed)?;
    store.require_this_version(RUN_BY_EARLIER).await.map_err(failed)?;
    Ok(store)
}

/// Looks what a broker would open, and changes nothing.
///
/// # Errors
/// As with [`open`]; also where there is no directory that it could be made in.
pub async fn find(path: &Path) -> Result<Found> {
    let failed = |error: Error| {
        error.context(format!("the broker's database {} cannot be used", path.display()))
    };
    let path = &std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    // What was committed last is in files beside it.
    let beside = path.parent().map_or(Ok(()), files::require_writable);
    beside.and_then(|()| files::require_writable(path)).map_err(failed)?;
    if !is_there(path).map_err(failed)? {
        require_place(path).map_err(failed)?;
        return Ok(Found::Nothing);
    }
    let store = one(path, format!("{AS_IT_IS} pragma query_only = on;")).await.map_err(failed)?;
    match store.found().await {
        Ok(made @ Made::Now) => Ok(Found::of(made, store)),
        other => {
            store.close().await;
            other.map(|made| Found::of(made, store)).map_err(failed)
        }
    }
}

/// Opens the database in this file to copy it, whatever version made it; a broker may be
/// writing to it.
///
/// # Errors
/// As with [`open_to_read`].
pub async fn open_to_copy(path: &Path) -> Result<SqlStore> {
    let failed =
        |error: Error| error.context(format!("the database {} cannot be read", path.display()));
    require_there(path).map_err(failed)?;
    one(path, AS_IT_IS.into()).await.map_err(failed)
}

/// Whether there is such a file.
///
/// # Errors
/// Where that cannot be told, as in a directory that this user is not let into.
pub fn is_there(path: &Path) -> Result<bool> {
    files::is_there(path).map_err(|error| error.of_kind(ErrorKind::Config).hint(AS_THE_BROKER))
}

fn require_there(path: &Path) -> Result<()> {
    match is_there(path)? {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Config, "there is no such file")),
    }
}

/// Opens the database in this file for one process alone: nobody reads or writes it until
/// it is closed. Where an earlier version made it, it stays as that has it.
///
/// # Errors
/// As with [`open`]; also where somebody has it open.
pub async fn open_alone(path: &Path) -> Result<SqlStore> {
    let failed = |error: Error| {
        error
            .context(format!("the database {} cannot be had alone", path.display()))
            .hint("end the brokers that use it")
    };
    // It has to be said first: what is opened otherwise is shared.
    let settings = format!("pragma locking_mode = exclusive; {SETTINGS} begin exclusive; commit;");
    let store = one(path, settings).await.map_err(failed)?;
    if store.found().await.map_err(failed)? != Made::Earlier {
        // It may have been cut off amid being brought up to date.
        store.migrate(&APPEND_ONLY).await.map_err(failed)?;
    }
    Ok(store)
}

/// One connection to the database in this file.
async fn one(path: &Path, settings: String) -> Result<SqlStore> {
    let path = &std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    make_private(path)?;
    let url = format!("sqlite://{}?mode=rw", encoded(path)?);
    require_own(&url).await?;
    Ok(SqlStore::new(Engine::sqlite(pool(&url, settings, 1).await?, None)))
}

/// As [`open`]; the database cannot grow beyond `max_pages`.
async fn open_with(path: &Path, max_pages: Option<u32>) -> Result<SqlStore> {
    let failed = |error: Error| {
        error.context(format!("the broker's database {} cannot be used", path.display()))
    };
    // A bare file name has no directory to speak of.
    let path = &std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    make_private(path).map_err(failed)?;
    let url = format!("sqlite://{}?mode=rw", encoded(path).map_err(failed)?);
    let identity = files::identity(path);
    let settings = match max_pages {
        None => SETTINGS.to_string(),
        Some(pages) => format!("{SETTINGS} pragma max_page_count = {pages};"),
    };
    let writing =
        format!("{settings} pragma wal_autocheckpoint = {LOG}; pragma cache_size = -{KEPT};");
    require_own(&url).await.map_err(failed)?;
    let writer = pool(&url, writing, 1).await.map_err(failed)?;
    let readers = pool(&url, settings, READERS).await.map_err(failed)?;
    let engine = Engine::sqlite(readers, Some(writer));
    let store = SqlStore::new(engine).guarded_by(path.to_path_buf(), identity);
    store.migrate(&APPEND_ONLY).await.map_err(failed)?;
    Ok(store)
}

/// Refuses the database of another program: nothing of a broker's is put into it, nor is it told
/// how a broker's is kept.
async fn require_own(url: &str) -> Result<()> {
    sqlx::any::install_default_drivers();
    let unusable = |cause| match code(&cause).as_deref() {
        Some(NO_DATABASE) => fault("it is no database", cause).of_kind(ErrorKind::Config),
        _ => fault("it cannot be opened", cause),
    };
    let mut only = sqlx::AnyConnection::connect(url).await.map_err(unusable)?;
    let foreign = sqlx::query_scalar::<_, String>(
        "select name from sqlite_master where type = 'table' and name not like 'sqlite@_%' escape '@'
         and not exists (select 1 from sqlite_master where name = '_sqlx_migrations')
         order by name limit 1",
    );
    let found = foreign.fetch_optional(&mut only).await;
    only.close().await.map_err(unusable)?;
    match found.map_err(unusable)? {
        None => Ok(()),
        Some(table) => Err(Error::new(ErrorKind::Config, "it is another program's")
            .because_of(format!("it has a table '{table}', and nothing of a broker"))
            .hint("name a file of the broker's own in [store]; it is made where it is not there")),
    }
}

/// A database in memory, gone when it is closed.
pub async fn in_memory() -> Result<SqlStore> {
    // It has a name, by which whoever opens it gets the same one, as long as anybody has it open:
    // a connection is closed where who used it was interrupted, and must not take it along.
    sqlx::any::install_default_drivers();
    // Only what begins with `file:` is a name that connections share.
    let url = format!("sqlite:file%3Atmpcred-{}?mode=memory&cache=shared", Uuid::new_v4());
    let unusable = |cause| fault("it cannot be opened", cause);
    let keeper = sqlx::AnyConnection::connect(&url).await.map_err(unusable)?;
    let only = pool(&url, SETTINGS.to_string(), 1).await?;
    let store = SqlStore::new(Engine::sqlite(only, None)).kept_by(keeper);
    store.migrate(&APPEND_ONLY).await?;
    Ok(store)
}

async fn pool(url: &str, settings: String, connections: u32) -> Result<sqlx::AnyPool> {
    sqlx::any::install_default_drivers();
    let unusable = |cause| fault("it cannot be opened", cause);
    // The pool would try again and again, and then only say that it took too long.
    let mut first = sqlx::AnyConnection::connect(url).await.map_err(unusable)?;
    first.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(settings.clone()))).await.map_err(unusable)?;
    first.close().await.map_err(unusable)?;
    AnyPoolOptions::new()
        .min_connections(1)
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        // There is no server that could have gone.
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            let settings = settings.clone();
            Box::pin(async move {
                connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(settings))).await?;
                Ok(())
            })
        })
        .before_acquire(|connection, _| {
            // Where a disk is full SQLite may end a transaction by itself, which whoever counts
            // them does not see. What is begun on such a connection would be part of one that is
            // never committed: nobody gets it again.
            let is_free = !connection.is_in_transaction();
            Box::pin(async move { Ok(is_free) })
        })
        .connect(url)
        .await
        .map_err(unusable)
}

/// Makes the file with mode 0600 before SQLite does, which gives its `-wal` and
/// `-shm` files the mode of the database.
fn make_private(path: &Path) -> Result<()> {
    if !is_there(path)? {
        require_place(path)?;
        drop(files::open_lock(path)?);
    }
    if files::is_dir(path) {
        return Err(Error::new(ErrorKind::Config, "it is a directory"));
    }
    if files::owner(path)? != Owner::Trusted {
        return Err(
            Error::new(ErrorKind::Config, "it belongs to somebody else").hint(AS_THE_BROKER)
        );
    }
    if files::readers(path)? != Readers::Owner {
        return Err(Error::new(ErrorKind::Config, "others can read or write it")
            .hint(format!("chmod 600 {}", path.display())));
    }
    Ok(())
}

/// Refuses a place in which no database is made.
fn require_place(path: &Path) -> Result<()> {
    path.parent()
        .map_or(Ok(()), files::require_private_dir)
        .map_err(|error| error.of_kind(ErrorKind::Config).hint(OWN_PLACE))
}

fn encoded(path: &Path) -> Result<String> {
    let text = path
        .to_str()
        .ok_or_else(|| Error::new(ErrorKind::Config, "its path is not valid Unicode"))?;
    Ok(utf8_percent_encode(text, PATH).to_string())
}

#[cfg(test)]
pub(crate) mod tests;
