use time::macros::datetime;

use super::*;
use crate::broker::audit::Record;
use crate::broker::config::Store as StoreConfig;
use crate::broker::keys::{Kek, Purpose};
use crate::broker::store::postgres::peer::Database;
use crate::broker::store::sql::tests::{append, record};
use crate::broker::store::{
    Consumed, Cutoff, Effect, KeyStore, Ledger, LogStore, Once, OnceStore, OpaqueToken, TokenStore,
    Unit, Whose,
};
use crate::host::clock::SystemClock;
use crate::secret::Secret;

const NONE: &[(&str, &str)] = &[];

fn env() -> Env {
    Env::from_pairs(NONE.iter().copied())
}

async fn postgres() -> (StoreConfig, Database) {
    let database = Database::new().await;
    (StoreConfig { path: None, postgres: Some(database.config.clone()) }, database)
}

fn kek() -> Kek {
    Kek::new(Secret::new([7; 32]))
}

/// Goes on where the log ends, as whoever has the KEK may.
async fn go_on(store: &SqlStore) -> u64 {
    store.seal_with(kek().seal_of_log()).await.unwrap();
    append(store, &[record("on")]).await.unwrap()
}

/// Has a bit of everything, and more records than fit into one batch or one tile.
async fn fill_in(store: &SqlStore) {
    let kek = kek();
    crate::broker::keys::CheckpointKeys::open(store, &kek, &SystemClock).await.unwrap();
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
    ];
    store.commit(&[Unit { records: Vec::new(), effects }]).await.unwrap();
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
    let revoked = other.any_consumed(Once::RevokedToken, &["x".into()]).await;
    assert!(revoked.unwrap());
    let long_ago = datetime!(2025-01-01 12:00 UTC);
    let cuts = other.cutoffs(long_ago).await.unwrap();
    assert_eq!((cuts.len(), cuts), (1, one.cutoffs(long_ago).await.unwrap()));
    assert_eq!(other.opaque("h").await.unwrap(), Some(opaque()));
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
        let copied = backup(&config, &env(), &file).await.unwrap();
        assert_eq!((copied.records, copied.keys, copied.consumed), (700, 1, 1));
        assert_eq!((copied.cutoffs, copied.opaque_tokens), (1, 1));
        assert_eq!(files::readers(&file).unwrap(), files::Readers::Owner);
        let error = backup(&config, &env(), &file).await.unwrap_err();
        assert!(error.to_string().contains("already"), "{error}");
        // What comes later is not in it, and the broker goes on.
        append(&running, &[record("later")]).await.unwrap();
        for (kind, into) in
            [StoreConfig::at(path(&format!("restored-{number}.db"))), postgres().await.0]
                .into_iter()
                .enumerate()
        {
            assert_eq!(restore(&into, &env(), &file).await.unwrap(), copied);
            let restored = open(&into, &env()).await.unwrap();
            let kept = sqlite::open(&file).await.unwrap();
            same(&kept, &restored).await;
            assert_eq!(go_on(&restored).await, 701, "{kind}");
            kept.close().await;
            let error = restore(&into, &env(), &file).await.unwrap_err().to_string();
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
    let error = backup(&config, &env(), &file).await.unwrap_err();
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
    let error = move_in(&there, &env(), &path).await.unwrap_err();
    let said = format!("{error} {:?}", error.hints());
    assert!(said.contains("locked") && said.contains("end the brokers"), "{said}");
    running.close().await;
    // As though it had been cut off before the file got its other name.
    let copy = dir.path().join("copy.db");
    backup(&StoreConfig::at(&path), &env(), &copy).await.unwrap();
    let (first, _) = move_in(&there, &env(), &copy).await.unwrap();
    let (again, moved) = move_in(&there, &env(), &path).await.unwrap();
    assert_eq!(first, again);
    assert!(!files::exists(&path) && moved.ends_with("broker.db.moved"));
    let (old, new) = (sqlite::open(&moved).await.unwrap(), open(&there, &env()).await.unwrap());
    same(&old, &new).await;
    assert_eq!(go_on(&new).await, 701);
    // What has gone on is not written over.
    old.close().await;
    let error = move_in(&there, &env(), &moved).await.unwrap_err();
    assert!(error.to_string().contains("is not empty"), "{error}");
    assert!(files::exists(&moved));
    let file = StoreConfig::at(dir.path().join("other.db"));
    let error = move_in(&file, &env(), &moved).await.unwrap_err();
    assert!(error.to_string().contains("names the SQLite database"), "{error}");
}
