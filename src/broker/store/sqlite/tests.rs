//! A database in a file, and what can be the matter with it.

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
    // As with all that a configuration names and that cannot be used, whoever opens it.
    assert_eq!(open_to_read(&path).await.err().unwrap().kind(), ErrorKind::Config);
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
    let before = files::read(&path, 1 << 20).unwrap();
    for refused in [open(&path).await, open_alone(&path).await] {
        let error = refused.err().unwrap();
        let why = [error.to_string(), error.causes().join("; ")].join("; ");
        assert!(why.contains("another program's") && why.contains("'audit_head'"), "{why}");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(files::read(&path, 1 << 20).unwrap() == before, "it stays as it was");
    }
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
        if records < 4096 {
            append(&store, &one).await.unwrap();
            records += one.len();
        }
        tokio::task::yield_now().await;
    }
    append(&store, &one).await.unwrap();
    assert_eq!(store.records(0, 5000).await.unwrap().len(), records + one.len());
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
