//! Databases of other versions.

use super::*;
use crate::broker::store::open_existing;

/// Makes of a database one of a version before there were keys of issuers in it.
const OLDER: &str = "
    drop table root_key; drop table enrolled_key; drop table issuer_key_set; drop table notify_delivery; drop table notify_message;
    drop table elevation_use; drop table elevation_use_event; drop table elevation; drop index audit_record_elevation;
    alter table audit_record drop column elevation; alter table audit_record drop column claims;
    drop index consumed_due; create index consumed_keep_until on consumed (keep_until);
    delete from _sqlx_migrations where version >= 13";

#[tokio::test]
async fn a_backup_of_an_earlier_version_goes_through_a_file_and_of_a_newer_one_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let here = StoreConfig::at(path("broker.db"));
    let running = open(&here, &env()).await.unwrap();
    fill_in(&running).await;
    running.close().await;
    let kek = kek();
    let file = path("backup.db");
    let copied = backup(&here, &env(), &file, Some(&kek)).await.unwrap();
    tamper(&file, OLDER).await;
    let (there, _database) = postgres().await;
    let error = restore(&there, &env(), &file, Some(&kek), &issuer()).await.unwrap_err();
    let said = format!("{error} {:?}", error.hints());
    for part in
        ["backup.db cannot be restored", "an earlier version of tmpcred made it", "broker move"]
    {
        assert!(said.contains(part), "{said}");
    }
    // So it is said, and so it can be done.
    let between = path("between.db");
    let into = StoreConfig::at(between.clone());
    // (That version had none.)
    let copied = Copied { messages: 0, key_encryption_keys: 0, ..copied };
    assert_eq!(restore(&into, &env(), &file, Some(&kek), &issuer()).await.unwrap(), copied);
    tamper(&between, OLDER).await;
    let (moved, gone) = move_in(&there, &env(), &between, Some(&kek), &issuer()).await.unwrap();
    assert_eq!(moved, Copied { earlier: true, ..copied });
    // There is a way back to that version, and of what was brought up to date nothing is left.
    assert!(is_earlier(&gone).await && !files::exists(&between));
    let mut left = files::list(dir.path()).unwrap();
    left.sort();
    assert_eq!(left, [file.clone(), gone, path("broker.db")]);

    tamper(&file, "update _sqlx_migrations set version = 9999 where version = 10").await;
    for into in [StoreConfig::at(path("other.db")), postgres().await.0] {
        let error =
            restore(&into, &env(), &file, Some(&kek), &issuer()).await.unwrap_err().to_string();
        assert!(error.contains("a newer version of tmpcred made it"), "{error}");
    }
}

/// Whether nobody has brought it up to date.
async fn is_earlier(path: &Path) -> bool {
    matches!(look(&StoreConfig::at(path), &env()).await.unwrap(), Found::Earlier)
}

#[tokio::test]
async fn the_version_before_can_go_back_to_what_is_backed_up_by_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (here, kek) = (StoreConfig::at(path("broker.db")), kek());
    let running = open(&here, &env()).await.unwrap();
    fill_in(&running).await;
    running.close().await;
    tamper(&path("broker.db"), OLDER).await;
    let copied = backup(&here, &env(), &path("backup.db"), Some(&kek)).await.unwrap();
    assert!(copied.earlier && copied.seal_checked && copied.records == 700, "{copied:?}");
    for name in ["broker.db", "backup.db"] {
        assert!(is_earlier(&path(name)).await, "{name}");
    }
    // Of what was looked at nothing is left.
    let mut left = files::list(dir.path()).unwrap();
    left.sort();
    assert_eq!(left, [path("backup.db"), path("broker.db")]);
    // It is as good as one of this version.
    let into = StoreConfig::at(path("restored.db"));
    let restored = restore(&into, &env(), &path("backup.db"), Some(&kek), &issuer()).await;
    assert_eq!(restored.unwrap(), Copied { earlier: false, ..copied });
    assert!(!is_earlier(&path("restored.db")).await && is_earlier(&path("backup.db")).await);
    let again = backup(&into, &env(), &path("again.db"), Some(&kek)).await.unwrap();
    assert!(!again.earlier);
    // One that is not good is found out all the same.
    tamper(&path("broker.db"), "update audit_head set seal = frontier").await;
    let refused = backup(&here, &env(), &path("bad.db"), Some(&kek)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Verification, "{refused}");
    assert!(!files::exists(path("bad.db")) && is_earlier(&path("broker.db")).await);
    assert_eq!(files::list(dir.path()).unwrap().len(), 4);
}

#[tokio::test]
async fn who_operates_a_broker_of_the_version_before_leaves_its_database_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broker.db");
    let here = StoreConfig::at(&path);
    let error = open_existing(&here, &env()).await.err().unwrap();
    assert!(error.to_string().contains("there is no database"), "{error}");
    let running = open(&here, &env()).await.unwrap();
    fill_in(&running).await;
    running.close().await;
    open_existing(&here, &env()).await.unwrap().close().await;
    tamper(&path, OLDER).await;
    for refused in [open_existing(&here, &env()).await, open_to_read(&here, &env()).await] {
        let error = refused.err().unwrap();
        let said = format!("{error} {:?} {:?}", error.causes(), error.hints());
        for part in ["an earlier version of tmpcred made it", "the version that the broker runs"] {
            assert!(said.contains(part), "{said}");
        }
        assert!(is_earlier(&path).await);
    }
    open(&here, &env()).await.unwrap().close().await;
    assert!(!is_earlier(&path).await);
}
