//! SQLite: the settings that make it durable, and files that nobody else can read.

use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use sqlx::any::AnyPoolOptions;
use sqlx::{Connection, Executor};
use uuid::Uuid;

use super::sql::{Engine, Own, STARTED_ONCE, SqlStore, fault};
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

/// Opens the database in this file to read it; a broker may be writing to it.
///
/// # Errors
/// As with [`open`]; also where there is none, or an earlier version made it.
pub async fn open_to_read(path: &Path) -> Result<SqlStore> {
    let failed = |error: Error| {
        error.context(format!("the broker's database {} cannot be read", path.display()))
    };
    if !files::exists(path) {
        return Err(failed(Error::new(ErrorKind::Config, "there is no such file")));
    }
    let settings = format!("{SETTINGS} pragma query_only = on;");
    let store = one(path, settings).await.map_err(failed)?;
    store.require_this_version(STARTED_ONCE).await.map_err(failed)?;
    Ok(store)
}

/// Opens the database in this file to copy it, whatever version made it; a broker may be
/// writing to it.
///
/// # Errors
/// As with [`open_to_read`].
pub async fn open_to_copy(path: &Path) -> Result<SqlStore> {
    let failed =
        |error: Error| error.context(format!("the database {} cannot be read", path.display()));
    if !files::exists(path) {
        return Err(failed(Error::new(ErrorKind::Config, "there is no such file")));
    }
    // The file stays as it is: in a log of its own, if it is, and without one, if not.
    let settings = "pragma busy_timeout = 5000; pragma trusted_schema = off;
        pragma cell_size_check = on;";
    one(path, settings.into()).await.map_err(failed)
}

/// Opens the database in this file for one process alone: nobody reads or writes it until
/// it is closed.
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
    store.migrate(&APPEND_ONLY).await.map_err(failed)?;
    Ok(store)
}

/// One connection to the database in this file.
async fn one(path: &Path, settings: String) -> Result<SqlStore> {
    let path = &std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    make_private(path)?;
    let url = format!("sqlite://{}?mode=rw", encoded(path)?);
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
    let writer = pool(&url, writing, 1).await.map_err(failed)?;
    let readers = pool(&url, settings, READERS).await.map_err(failed)?;
    let engine = Engine::sqlite(readers, Some(writer));
    let store = SqlStore::new(engine).guarded_by(path.to_path_buf(), identity);
    store.migrate(&APPEND_ONLY).await.map_err(failed)?;
    Ok(store)
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
    if !files::exists(path) {
        drop(files::open_lock(path)?);
    }
    if files::is_dir(path) {
        return Err(Error::new(ErrorKind::Config, "it is a directory"));
    }
    if files::owner(path)? != Owner::Trusted {
        return Err(Error::new(ErrorKind::Config, "it belongs to somebody else"));
    }
    if files::readers(path)? != Readers::Owner {
        return Err(Error::new(ErrorKind::Config, "others can read or write it")
            .hint(format!("chmod 600 {}", path.display())));
    }
    Ok(())
}

fn encoded(path: &Path) -> Result<String> {
    let text = path
        .to_str()
        .ok_or_else(|| Error::new(ErrorKind::Config, "its path is not valid Unicode"))?;
    Ok(utf8_percent_encode(text, PATH).to_string())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::sql::tests::{append, record};
    use super::super::{Ledger, Store};
    use super::*;

    /// A store that is full at `max_pages`.
    pub(crate) async fn small(path: &Path, max_pages: u32) -> SqlStore {
        open_with(path, Some(max_pages)).await.unwrap()
    }

    /// Does this to a database, as somebody would who may write to its file.
    pub(crate) async fn tamper(path: &Path, change: &str) {
        let url = format!("sqlite://{}?mode=rw", encoded(path).unwrap());
        let other = pool(&url, SETTINGS.to_string(), 1).await.unwrap();
        let change = format!(
            "drop trigger if exists audit_record_update; drop trigger if exists audit_record_delete;
             {change}"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(change)).execute(&other).await.unwrap();
        other.close().await;
    }

    #[tokio::test]
    async fn a_new_database_and_its_log_are_private() {
        let dir = tempfile::tempdir().unwrap();
        // Characters that mean something in a URL.
        let path = dir.path().join("a b#c?d%41.db");
        let store = open(&path).await.unwrap();
        append(&store, &[record("one")]).await.unwrap();
        let found = files::list(dir.path()).unwrap();
        assert!(found.len() >= 2, "{found:?}");
        for file in found {
            assert!(file.to_str().unwrap().contains("a b#c?d%41.db"), "{file:?}");
            assert_eq!(files::readers(&file).unwrap(), Readers::Owner, "{file:?}");
        }
    }

    #[tokio::test]
    async fn what_was_written_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.db");
        let store = open(&path).await.unwrap();
        assert_eq!(append(&store, &[record("one"), record("two")]).await.unwrap(), 1);
        store.close().await;
        let store = open(&path).await.unwrap();
        assert_eq!(append(&store, &[record("three")]).await.unwrap(), 3);
        let records = store.records(1, 10).await.unwrap();
        assert_eq!(records, [(2, record("two")), (3, record("three"))]);
        assert_eq!(store.records(0, 1).await.unwrap(), [(1, record("one"))]);
    }

    #[tokio::test]
    async fn what_cannot_be_a_database_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.db");
        let opened = async || open(&path).await.err().unwrap().to_string();
        files::write_private(&path, &[7; 8192]).unwrap();
        assert!(opened().await.contains("is not a database"), "{}", opened().await);
        files::remove(&path).unwrap();
        open(&path).await.unwrap().close().await;
        let mut bad = files::read(&path, 1 << 20).unwrap().unwrap();
        // Damaged from the second page on.
        assert!(bad.len() > 8192);
        bad[4096..].fill(0x5a);
        files::write_private(&path, &bad).unwrap();
        assert!(opened().await.contains("malformed"), "{}", opened().await);
        assert!(open(dir.path()).await.err().unwrap().to_string().contains("is a directory"));
    }

    #[tokio::test]
    async fn a_database_that_cannot_be_reached_is_explained() {
        let dir = tempfile::tempdir().unwrap();
        // Something else is where its processes share memory.
        let path = dir.path().join("b.db");
        files::write_private(&path, b"").unwrap();
        files::private_dir(&dir.path().join("b.db-shm")).unwrap();
        let error = open(&path).await.err().unwrap();
        assert!(error.hints().iter().any(|hint| hint.contains("`-wal` and `-shm`")), "{error:?}");
    }

    #[cfg(unix)]
    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "a test of who may read the file")]
    async fn a_database_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.db");
        open(&path).await.unwrap().close().await;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = open(&path).await.err().unwrap();
        assert!(error.to_string().contains("others can read"), "{error}");
        assert!(error.hints()[0].starts_with("chmod 600"));
    }

    #[tokio::test]
    async fn a_database_of_another_program_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.db");
        drop(files::open_lock(&path).unwrap());
        let url = format!("sqlite://{}?mode=rw", encoded(&path).unwrap());
        let other =
            pool(&url, "create table if not exists audit_head (x text)".into(), 1).await.unwrap();
        other.close().await;
        let error = open(&path).await.err().unwrap().to_string();
        assert!(error.contains("already exists"), "{error}");
    }

    #[tokio::test]
    async fn a_full_disk_fails_the_whole_batch_and_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = small(&dir.path().join("b.db"), 96).await;
        let long = |n: usize| super::super::super::audit::Record {
            reason: "x".repeat(2000),
            ..record(&n.to_string())
        };
        let mut kept = 0;
        let error = loop {
            let batch: Vec<_> = (0..5).map(|n| long(kept + n)).collect();
            match append(&store, &batch).await {
                Ok(first) => assert_eq!(first, kept as u64 + 1),
                Err(error) => break error,
            }
            kept += 5;
            assert!(kept < 1000, "it never fills");
        };
        assert!(error.to_string().contains("full"), "{error}");
        assert!(kept > 0);
        assert_eq!(store.records(0, 2000).await.unwrap().len(), kept);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_removed_database_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.db");
        let store = open(&path).await.unwrap();
        store.probe().await.unwrap();
        files::remove(&path).unwrap();
        for error in
            [store.probe().await.unwrap_err(), append(&store, &[record("lost")]).await.unwrap_err()]
        {
            assert!(error.to_string().contains("removed or replaced"), "{error}");
        }
    }

    #[tokio::test]
    async fn the_audit_log_only_grows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.db");
        let store = open(&path).await.unwrap();
        append(&store, &[record("one")]).await.unwrap();
        let url = format!("sqlite://{}?mode=rw", encoded(&path).unwrap());
        let other = pool(&url, SETTINGS.to_string(), 1).await.unwrap();
        for change in [
            "update audit_record set reason = 'another'",
            "update audit_record set erased = x'00', salt = null, role = 'another'",
            "update audit_record set erased = x'00'",
            "delete from audit_record",
            "insert or replace into audit_record select * from audit_record",
        ] {
            let error = sqlx::query(change).execute(&other).await.unwrap_err().to_string();
            assert!(error.contains("append-only"), "{change}: {error}");
        }
        assert_eq!(store.records(0, 9).await.unwrap(), [(1, record("one"))]);
    }

    #[tokio::test]
    async fn the_log_is_moved_into_the_database_while_others_write() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.db");
        let store = open(&path).await.unwrap();
        let length = || files::list(dir.path()).unwrap().len();
        let size = || files::read(&path, 1 << 30).unwrap().unwrap().len();
        let (before, files) = (size(), length());
        let one: Vec<_> = (0..64).map(|n| record(&n.to_string())).collect();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        // Fewer than any commit would move by itself.
        let mut records = 0;
        while size() == before {
            assert!(tokio::time::Instant::now() < deadline, "nothing is moved");
            if records < 1024 {
                append(&store, &one).await.unwrap();
                records += one.len();
            }
            tokio::task::yield_now().await;
        }
        append(&store, &one).await.unwrap();
        assert_eq!(store.records(0, 2000).await.unwrap().len(), records + one.len());
        assert_eq!(length(), files, "the log is there still");
        store.close().await;
    }

    #[tokio::test]
    async fn to_read_a_database_changes_nothing_and_makes_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.db");
        assert!(open_to_read(&path).await.is_err() && !files::exists(&path));
        open(&path).await.unwrap().close().await;
        let read = open_to_read(&path).await.unwrap();
        assert!(append(&read, &[record("one")]).await.is_err());
        tamper(&path, "drop table audit_tile; alter table audit_head drop column tree_size").await;
        let error = open_to_read(&path).await.err().unwrap();
        assert!(error.to_string().contains("of no broker of this version"), "{error}");
    }

    #[tokio::test]
    async fn whoever_is_interrupted_takes_no_database_along() {
        let store = in_memory().await.unwrap();
        append(&store, &[record("first")]).await.unwrap();
        for turns in 0..60 {
            let interrupted = async {
                for _ in 0..turns * 10 {
                    tokio::task::yield_now().await;
                }
            };
            let next = [record("next")];
            tokio::select! {
                biased;
                _ = append(&store, &next) => {}
                () = interrupted => {}
            }
            let kept = store.records(0, 999).await.unwrap();
            assert_eq!(kept[0], (1, record("first")), "{turns}");
        }
    }

    #[tokio::test]
    async fn databases_in_memory_are_apart() {
        let (a, b) = (in_memory().await.unwrap(), in_memory().await.unwrap());
        append(&a, &[record("one")]).await.unwrap();
        assert_eq!(b.records(0, 9).await.unwrap(), []);
    }
}
