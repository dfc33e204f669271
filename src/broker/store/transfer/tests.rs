mod earlier;

use time::macros::datetime;

use super::*;
use crate::broker::audit::Record;
use crate::broker::audit::note::Checkpoint;
use crate::broker::config::Store as StoreConfig;
use crate::broker::keys::{Purpose, RootKey};
use crate::broker::notify::{Message, Urgency};
use crate::broker::store::postgres::peer::Database;
use crate::broker::store::sql::tests::{append, record};
use crate::broker::store::sqlite::tests::tamper;
use crate::broker::store::{
    Consumed, Cutoff, Effect, Found, Issuance, KeyStore, Ledger, LogStore, NewDelivery,
    NotifyStore, Once, OnceStore, OpaqueToken, Revocable, Step, TokenStore, Unit, Whose, look,
};
use crate::host::clock::SystemClock;
use crate::secret::Secret;

const NONE: &[(&str, &str)] = &[];

fn env() -> Env {
    Env::from_pairs(NONE.iter().copied())
}

/// Restores, and puts nothing on record.
async fn restore(
    config: &StoreConfig,
    env: &Env,
    file: &Path,
    kek: Option<&Kek>,
    issuer: &Issuer,
) -> Result<Copied> {
    let nothing = async |_: &dyn Store, _| Ok(());
    let (copied, recorded) = super::restore(config, env, file, kek, issuer, nothing).await?;
    recorded.map(|()| copied)
}

async fn postgres() -> (StoreConfig, Database) {
    let database = Database::new().await;
    (StoreConfig { path: None, postgres: Some(database.config.clone()) }, database)
}

/// As it was before there were root keys: it is in the place of one.
fn kek() -> Kek {
    Kek::new(Secret::new([7; 32]))
}

fn issuer() -> Issuer {
    Issuer::parse("https://broker.example.com").unwrap()
}

fn root_key() -> RootKey {
    RootKey::new(Secret::new([7; 32]))
}

/// Goes on where the log ends, as whoever has the KEK may.
async fn go_on(store: &SqlStore) -> u64 {
    store.seal_with(root_key().seal_of_log()).await.unwrap();
    append(store, &[record("on")]).await.unwrap()
}

/// Has a bit of everything, and more records than fit into one batch or one tile.
async fn fill_in(store: &SqlStore) {
    let root_key = root_key();
    CheckpointKeys::open(store, &root_key, &SystemClock).await.unwrap();
    let (at, other) = (datetime!(2026-01-01 12:00 UTC), Kek::new(Secret::new([8; 32])));
    for (slot, kek) in [(0, &kek()), (5, &other)] {
        let root = root_key.sealed_under(kek, slot, at).unwrap();
        let effect = Effect::AddRoot { by: kek.id().into(), root };
        store.commit(&[Unit::default().with(effect)]).await.unwrap();
    }
    let records: Vec<_> = (0..700).map(|n| record(&format!("{n} '\u{1f512}"))).collect();
    append(store, &records[..699]).await.unwrap();
    let acted = Record { actor: Some("https://i.example#bot".into()), ..record("acted") };
    append(store, &[acted]).await.unwrap();
    let at = datetime!(2026-01-01 12:00 UTC);
    let revoked = Consumed { kind: Once::RevokedToken, id: "x".into(), at, keep_until: at };
    let effects = vec![
        Effect::Consume(revoked),
        Effect::CutOff(Cutoff {
            whose: Whose::Role("deploy".into()),
            before: at,
            at,
            keep_until: at,
        }),
        Effect::AddOpaque(opaque()),
        Effect::AddCheckpoint { size: 700, note: "a note".into(), at },
        Effect::Tell(message("told", at)),
        Effect::Tell(message("new", at)),
    ];
    store.commit(&[Unit { records: Vec::new(), effects }]).await.unwrap();
    let (channel, addressee) = ("mail".into(), "alice".into());
    store.spread("told", &[NewDelivery { channel, addressee, hurry: 0, at }]).await.unwrap();
    let due = store.due("mail", at, at, 9).await.unwrap().remove(0);
    store.change_deliveries(&[(due, Step::PutOff(at, "down".into()))]).await.unwrap();
}

fn message(key: &str, at: time::OffsetDateTime) -> Message {
    Message::new(key, "drill", Urgency::Alarm, "A drill '\u{1f512}", at).people(["alice"])
}

fn opaque() -> OpaqueToken {
    let (claims, keep_until) = ("{}".into(), datetime!(2026-01-01 12:00 UTC));
    OpaqueToken { hash: "h".into(), claims, seal: vec![0, 255], keep_until }
}

async fn same(one: &SqlStore, other: &SqlStore) {
    assert_eq!(one.records(0, 9999).await.unwrap(), other.records(0, 9999).await.unwrap());
    assert_eq!(one.leaves(0, 9999).await.unwrap(), other.leaves(0, 9999).await.unwrap());
    assert_eq!(one.keys().await.unwrap(), other.keys().await.unwrap());
    assert_eq!(one.notes(0, 9).await.unwrap(), other.notes(0, 9).await.unwrap());
    assert_eq!(one.ends().await.unwrap(), other.ends().await.unwrap());
    assert_eq!(one.sealed_end().await.unwrap(), other.sealed_end().await.unwrap());
    let roots = one.sealed_roots().await.unwrap();
    assert_eq!((roots.len(), &roots), (2, &other.sealed_roots().await.unwrap()));
    let revoked = other.any_consumed(Once::RevokedToken, &["x".into()]).await;
    assert!(revoked.unwrap());
    let long_ago = datetime!(2025-01-01 12:00 UTC);
    let names = [Whose::Role("deploy".into())].into();
    let cut = [Issuance { at: long_ago, names, erased: false }];
    let cut = Revocable::together(cut);
    assert!(one.any_revoked(cut.clone()).await.unwrap() && other.any_revoked(cut).await.unwrap());
    assert_eq!(other.opaque("h").await.unwrap(), Some(opaque()));
    assert_eq!(one.undelivered(9).await.unwrap(), other.undelivered(9).await.unwrap());
    let (unseen, left) = (other.unspread(9).await.unwrap(), other.undelivered(9).await.unwrap());
    assert_eq!((unseen.len(), left.len(), left[0].why.as_deref()), (1, 1, Some("down")));
    assert!(other.keys().await.unwrap().iter().all(|key| key.purpose == Purpose::Checkpoint));
}

#[tokio::test]
async fn a_backup_is_made_while_a_broker_runs_and_restored_into_either_engine() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (there, database) = postgres().await;
    let sqlite_there = StoreConfig::at(path("broker.db"));
    for (number, config) in [sqlite_there, there].into_iter().enumerate() {
        let running = open(&config, &env()).await.unwrap();
        fill_in(&running).await;
        let file = path(&format!("backup-{number}.db"));
        let copied = backup(&config, &env(), &file, Some(&kek())).await.unwrap();
        assert_eq!((copied.records, copied.keys, copied.consumed), (700, 1, 1));
        assert_eq!((copied.cutoffs, copied.opaque_tokens, copied.messages), (1, 1, 2));
        assert_eq!(files::readers(&file).unwrap(), files::Readers::Owner);
        let error = backup(&config, &env(), &file, None).await.unwrap_err();
        assert!(error.to_string().contains("already"), "{error}");
        let elsewhere = path("not/there/backup.db");
        let error = backup(&config, &env(), &elsewhere, Some(&kek())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
        assert!(error.message().starts_with("there is no directory ") && !error.hints().is_empty());
        assert!(!files::exists(path("not")));
        // What comes later is not in it, and the broker goes on.
        append(&running, &[record("later")]).await.unwrap();
        for (kind, into) in
            [StoreConfig::at(path(&format!("restored-{number}.db"))), postgres().await.0]
                .into_iter()
                .enumerate()
        {
            assert_eq!(
                restore(&into, &env(), &file, Some(&kek()), &issuer()).await.unwrap(),
                copied
            );
            let restored = open(&into, &env()).await.unwrap();
            let kept = sqlite::open(&file).await.unwrap();
            same(&kept, &restored).await;
            assert_eq!(go_on(&restored).await, 701, "{kind}");
            kept.close().await;
            let error =
                restore(&into, &env(), &file, None, &issuer()).await.unwrap_err().to_string();
            assert!(error.contains("already") || error.contains("is not empty"), "{error}");
        }
    }
    // Whoever changed a record finds no copy of it.
    database
        .execute(
            "drop trigger audit_record_append_only on audit_record;
             update audit_record set role = 'root' where sequence = 3",
        )
        .await
        .unwrap();
    let (config, file) =
        (StoreConfig { path: None, postgres: Some(database.config.clone()) }, path("another.db"));
    let error = backup(&config, &env(), &file, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Verification, "{error}");
    assert!(!files::exists(&file));
}

#[tokio::test]
async fn a_move_takes_all_or_nothing_and_may_be_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broker.db");
    let running = sqlite::open(&path).await.unwrap();
    fill_in(&running).await;
    let (there, _database) = postgres().await;
    // While a broker has it open, nothing is moved.
    let error = move_in(&there, &env(), &path, None, &issuer()).await.unwrap_err();
    let said = format!("{error} {:?}", error.hints());
    assert!(said.contains("locked") && said.contains("end the brokers"), "{said}");
    running.close().await;
    // As though it had been cut off before the file got its other name.
    let copy = dir.path().join("copy.db");
    backup(&StoreConfig::at(&path), &env(), &copy, None).await.unwrap();
    let (first, _) = move_in(&there, &env(), &copy, None, &issuer()).await.unwrap();
    let (again, moved) = move_in(&there, &env(), &path, None, &issuer()).await.unwrap();
    assert_eq!(first, again);
    assert!(!files::exists(&path) && moved.ends_with("broker.db.moved"));
    let (old, new) = (sqlite::open(&moved).await.unwrap(), open(&there, &env()).await.unwrap());
    same(&old, &new).await;
    assert_eq!(go_on(&new).await, 701);
    // What has gone on is not written over.
    old.close().await;
    let error = move_in(&there, &env(), &moved, None, &issuer()).await.unwrap_err();
    assert!(error.to_string().contains("is not empty"), "{error}");
    assert!(files::exists(&moved));
    let file = StoreConfig::at(dir.path().join("other.db"));
    let error = move_in(&file, &env(), &moved, None, &issuer()).await.unwrap_err();
    assert!(error.to_string().contains("names the SQLite database"), "{error}");
}

#[tokio::test]
async fn a_log_that_does_not_end_as_it_was_sealed_is_not_copied() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (there, database) = postgres().await;
    let here = StoreConfig::at(path("broker.db"));
    for config in [&here, &there] {
        let running = open(config, &env()).await.unwrap();
        fill_in(&running).await;
        running.close().await;
    }
    let kek = kek();
    for config in [&here, &there] {
        let other = Kek::new(Secret::new([9; 32]));
        let error = backup(config, &env(), &path("backup.db"), Some(&other)).await.unwrap_err();
        assert!(error.to_string().contains("does not open this database"), "{error}");
        assert!(!files::exists(path("backup.db")));
    }
    let is_refused = |error: Error| {
        assert_eq!(error.kind(), ErrorKind::Verification, "{error}");
        assert!(error.to_string().contains("does not end where the broker left it"), "{error}");
    };
    // By another key; sealed by nobody; over another tree.
    let undo = "update audit_head set";
    for change in ["seal = frontier", "seal = null, frontier = null"] {
        database.execute(&format!("{undo} {change}")).await.unwrap();
        tamper(&path("broker.db"), &format!("{undo} {change}")).await;
        for config in [&here, &there] {
            let file = path("backup.db");
            is_refused(backup(config, &env(), &file, Some(&kek)).await.unwrap_err());
            assert!(!files::exists(&file));
        }
    }
    let (flipped, fine) = (StoreConfig::at(path("fine.db")), path("fine.backup"));
    let running = open(&flipped, &env()).await.unwrap();
    fill_in(&running).await;
    running.close().await;
    backup(&flipped, &env(), &fine, Some(&kek)).await.unwrap();
    tamper(&fine, "update audit_head set frontier = zeroblob(length(frontier))").await;
    // Nobody needs the key to see that.
    for into in [StoreConfig::at(path("into.db")), postgres().await.0] {
        for by in [None, Some(&kek)] {
            is_refused(restore(&into, &env(), &fine, by, &issuer()).await.unwrap_err());
        }
    }
    let (into, _database) = postgres().await;
    is_refused(move_in(&into, &env(), &fine, None, &issuer()).await.unwrap_err());
    assert!(files::exists(&fine));
}

#[tokio::test]
async fn no_copy_is_put_beside_what_another_database_has_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (from, to) = (StoreConfig::at(path("from.db")), StoreConfig::at(path("to.db")));
    let running = open(&from, &env()).await.unwrap();
    fill_in(&running).await;
    let file = path("backup.db");
    backup(&from, &env(), &file, Some(&kek())).await.unwrap();
    // As a broker leaves it that was killed, whose database alone was put away.
    for left in ["to.db-wal", "to.db-shm", "to.db-journal"] {
        files::write_private(&path(left), b"committed last").unwrap();
        let error = restore(&to, &env(), &file, Some(&kek()), &issuer()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains(left), "{error}");
        assert!(error.hints()[0].contains("put it away"), "{:?}", error.hints());
        assert!(!files::exists(path("to.db")));
        let error = backup(&from, &env(), &path("to.db"), Some(&kek())).await.unwrap_err();
        assert!(error.to_string().contains(left), "{error}");
        files::remove(&path(left)).unwrap();
    }
    assert_eq!(restore(&to, &env(), &file, Some(&kek()), &issuer()).await.unwrap().records, 700);
}

/// Whoever is killed meanwhile, and restores once more, does not find a database without it.
#[tokio::test]
async fn a_restored_file_appears_with_the_record_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let from = StoreConfig::at(path("from.db"));
    let running = open(&from, &env()).await.unwrap();
    fill_in(&running).await;
    let (file, kek, issuer) = (path("backup.db"), kek(), issuer());
    backup(&from, &env(), &file, Some(&kek)).await.unwrap();
    for works in [true, false] {
        let to = path(&format!("to-{works}.db"));
        let record = async |store: &dyn Store, records: u64| {
            assert!(records == 700 && !files::exists(&to));
            store.seal_with(root_key().seal_of_log()).await?;
            store.commit(&[Unit::of(record("restored"))]).await?;
            // What is said to have failed may be there: what was restored is, in any case.
            if works { Ok(()) } else { Err(Error::new(ErrorKind::Io, "the disk is on fire")) }
        };
        let into = StoreConfig::at(to.clone());
        let restored =
            super::restore(&into, &env(), &file, Some(&kek), &issuer, record).await.unwrap();
        let (copied, recorded) = restored;
        assert_eq!((copied.records, recorded.is_ok()), (700, works));
        assert!(beside(&to).iter().all(|path| !files::exists(path)));
        let restored = open(&into, &env()).await.unwrap();
        assert_eq!(restored.records(700, 9).await.unwrap()[0].1.reason, "restored");
        assert_eq!(go_on(&restored).await, 702);
    }
}

#[tokio::test]
async fn a_copy_of_which_something_lies_beside_its_file_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let draft = Draft::of(&dir.path().join("copy.db")).unwrap();
    let copy = sqlite::open(draft.path()).await.unwrap();
    let [wal, ..] = beside(draft.path());
    fill_in(&copy).await;
    // Whoever reads what was there before keeps it from being moved, as a full disk does.
    let reader = sqlite::open_to_copy(draft.path()).await.unwrap();
    let held = reader.hold_for_tests().await;
    append(&copy, &[record("last")]).await.unwrap();
    let copied = copy.check(None).await;
    assert!(copied.is_ok());
    assert!(files::exists(&wal));
    let error = put_down(&copy, &draft, copied).await.unwrap_err();
    assert!(error.to_string().contains("cannot be put into one file"), "{error}");
    assert!(!files::exists(&wal));
    drop(held);
    reader.close().await;
    // Where nobody does, all of it is in the file.
    let draft = Draft::of(&dir.path().join("copy.db")).unwrap();
    let copy = sqlite::open(draft.path()).await.unwrap();
    fill_in(&copy).await;
    let copied = copy.check(None).await;
    put_down(&copy, &draft, copied).await.unwrap();
    assert!(!beside(draft.path()).iter().any(files::exists));
}

#[tokio::test]
async fn where_there_is_nothing_of_a_broker_there_is_nothing_to_copy() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (empty, bare, there) = (path("empty.db"), path("bare.db"), postgres().await);
    files::write_private(&empty, b"").unwrap();
    // As it is left by a broker that found no key-encryption key the first time.
    sqlite::open(&bare).await.unwrap().close().await;
    let kek = kek();
    for file in [&empty, &bare] {
        for by in [None, Some(&kek)] {
            let copy = path("copy.db");
            let is_refused = |error: Error, kind: ErrorKind| {
                assert_eq!(error.kind(), kind, "{error}");
                assert!(error.to_string().contains("there is nothing of a broker"), "{error}");
                assert!(!files::exists(&copy));
            };
            let config = StoreConfig::at(file.clone());
            let error = backup(&config, &env(), &copy, by).await.unwrap_err();
            is_refused(error, ErrorKind::Config);
            for into in [&StoreConfig::at(copy.clone()), &there.0] {
                let error = restore(into, &env(), file, by, &issuer()).await.unwrap_err();
                is_refused(error, ErrorKind::Usage);
            }
            let error = move_in(&there.0, &env(), file, by, &issuer()).await.unwrap_err();
            is_refused(error, ErrorKind::Usage);
        }
    }
    assert!(files::read(&empty, 9).unwrap().unwrap().is_empty(), "it was written to");
    assert!(files::exists(&bare) && !files::exists(path("bare.db.moved")));
    // Nothing was made there, either.
    assert!(matches!(look(&there.0, &env()).await.unwrap(), Found::Nothing));
    // That of a broker that has just begun is one.
    let begun = StoreConfig::at(path("begun.db"));
    let store = open(&begun, &env()).await.unwrap();
    let root = root_key().sealed_under(&kek, 0, datetime!(2026-01-01 12:00 UTC)).unwrap();
    let effect = Effect::AddRoot { by: kek.id().into(), root };
    store.commit(&[Unit::default().with(effect)]).await.unwrap();
    store.close().await;
    let file = path("begun.backup");
    let copied = backup(&begun, &env(), &file, Some(&kek)).await.unwrap();
    assert_eq!((copied.key_encryption_keys, copied.records), (1, 0));
    // There was nothing to seal.
    assert!(!copied.seal_checked);
    for into in [&StoreConfig::at(path("again.db")), &there.0] {
        let restored = restore(into, &env(), &file, Some(&kek), &issuer()).await.unwrap();
        assert_eq!(restored, copied);
    }
}

#[tokio::test]
async fn no_store_is_filled_from_that_of_a_broker_with_another_issuer() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (from, there) = (StoreConfig::at(path("from.db")), postgres().await);
    let store = open(&from, &env()).await.unwrap();
    fill_in(&store).await;
    let keys = CheckpointKeys::read(&store, &root_key()).await.unwrap();
    let (origin, size) = (audit::origin(&issuer()), store.size().await.unwrap());
    let root = store.root_at(size).await.unwrap();
    let note = keys.signed(&Checkpoint { origin, size, root }).unwrap();
    let effect = Effect::AddCheckpoint { size, note, at: datetime!(2026-01-01 12:00 UTC) };
    tamper(&path("from.db"), "delete from audit_checkpoint").await;
    store.commit(&[Unit::default().with(effect)]).await.unwrap();
    store.close().await;
    let (file, kek) = (path("backup.db"), kek());
    let copied = backup(&from, &env(), &file, Some(&kek)).await.unwrap();
    let other = Issuer::parse("https://other.example.com").unwrap();
    let into = StoreConfig::at(path("into.db"));
    for into in [&into, &there.0] {
        let error = restore(into, &env(), &file, Some(&kek), &other).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains("a broker with another issuer"), "{error}");
    }
    let error = move_in(&there.0, &env(), &file, Some(&kek), &other).await.unwrap_err();
    assert!(error.to_string().contains("a broker with another issuer"), "{error}");
    assert!(files::exists(&file) && !files::exists(path("into.db")));
    assert!(matches!(look(&there.0, &env()).await.unwrap(), Found::Nothing));
    // Without the key nobody can tell; by that of its own it is what it was.
    for (by, issuer) in [(None, &other), (Some(&kek), &issuer())] {
        let restored = restore(&into, &env(), &file, by, issuer).await.unwrap();
        assert_eq!(restored, Copied { seal_checked: by.is_some(), ..copied });
        files::remove(&path("into.db")).unwrap();
    }
}

#[tokio::test]
async fn a_log_whose_last_records_are_gone_is_not_copied_and_it_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let here = StoreConfig::at(path("broker.db"));
    let store = open(&here, &env()).await.unwrap();
    fill_in(&store).await;
    store.close().await;
    tamper(&path("broker.db"), "delete from audit_record where sequence > 690").await;
    let file = path("backup.db");
    let error = backup(&here, &env(), &file, Some(&kek())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Verification, "{error}");
    let said = error.to_string();
    assert!(said.contains("records of the audit log are gone: 10 of the 700"), "{said}");
    assert!(!files::exists(&file));
}

#[tokio::test]
async fn what_is_no_database_is_not_taken_for_one_that_others_can_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (file, into) = (path("policy.cedar"), StoreConfig::at(path("into.db")));
    files::write_public(&file, b"permit (principal, action, resource);").unwrap();
    for (named, why) in [(&file, "it is no SQLite database"), (&path("."), "it is a directory")] {
        let error = restore(&into, &env(), named, None, &issuer()).await.unwrap_err();
        let said = format!("{error} {:?}", error.hints());
        assert!(said.contains(why) && !said.contains("chmod"), "{said}");
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    }
}
