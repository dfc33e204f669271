use data_encoding::HEXLOWER;

use super::*;
use crate::broker::audit::note::VerifierKey;
use crate::broker::config;
use crate::broker::keys::{Keeper, KeyRing, RootKey, Rules};
use crate::broker::store::sql::SqlStore;
use crate::broker::store::sql::tests::{Ground, append, record};
use crate::broker::store::sqlite::tests::tamper;
use crate::broker::store::{KeyStore, Ledger, LogStore, sqlite};
use crate::broker::testbed::Standing;
use crate::host::clock::SystemClock;
use crate::oidc::Issuer;

const ORIGIN: &str = "broker.example.com";

async fn signer(store: &Arc<SqlStore>, root_key: &RootKey) -> Signer {
    signer_by(Arc::new(SystemClock), store, root_key).await
}

async fn signer_by(clock: Arc<dyn Clock>, store: &Arc<SqlStore>, root_key: &RootKey) -> Signer {
    let keys = CheckpointKeys::open(store.as_ref(), root_key, clock.as_ref()).await.unwrap();
    Signer::new(store.clone(), keys, ORIGIN, clock)
}

async fn sizes(store: &SqlStore) -> Vec<u64> {
    store.notes(0, 99).await.unwrap().iter().map(|noted| noted.size).collect()
}

#[tokio::test]
async fn a_log_is_signed_where_it_has_grown_and_at_the_end() {
    let (store, root_key) =
        (Arc::new(sqlite::in_memory().await.unwrap()), RootKey::random().unwrap());
    let mut signer = signer(&store, &root_key).await;
    signer.sign().await.unwrap();
    assert!(sizes(&store).await.is_empty());
    append(store.as_ref(), &[record("a"), record("b")]).await.unwrap();
    signer.sign().await.unwrap();
    signer.sign().await.unwrap();
    assert_eq!(sizes(&store).await, [2]);
    let keys = CheckpointKeys::read(store.as_ref(), &root_key).await.unwrap();
    let key = VerifierKey::new(ORIGIN, keys.active().unwrap());
    let notary =
        Notary::start(store.clone(), keys, ORIGIN, Arc::new(SystemClock), Default::default());
    append(store.as_ref(), &[record("c")]).await.unwrap();
    notary.close().await;
    let noted = store.latest_note().await.unwrap().unwrap();
    let checkpoint = Checkpoint::open(&noted.note, &[key]).unwrap();
    assert_eq!((checkpoint.size, noted.size), (3, 3));
    assert_eq!(checkpoint.root, store.root_at(3).await.unwrap());
    assert_eq!(checkpoint.origin, ORIGIN);
}

#[tokio::test]
async fn another_past_is_never_signed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.db");
    let (store, root_key) =
        (Arc::new(sqlite::open(&path).await.unwrap()), RootKey::random().unwrap());
    let mut running = signer(&store, &root_key).await;
    append(store.as_ref(), &[record("a"), record("b")]).await.unwrap();
    running.sign().await.unwrap();
    // What this process has left there it puts back, and goes on from.
    tamper(&path, "update audit_tile set hashes = zeroblob(64)").await;
    append(store.as_ref(), &[record("c")]).await.unwrap();
    running.sign().await.unwrap();
    // Another one goes on from what it finds there.
    tamper(&path, "update audit_tile set hashes = zeroblob(96)").await;
    let other = Arc::new(sqlite::open(&path).await.unwrap());
    let started = signer(&other, &root_key).await;
    for reason in ["d", "e"] {
        append(other.as_ref(), &[record(reason)]).await.unwrap();
    }
    // One that was running, and one that is started on what was left.
    for mut signer in [running, started] {
        let error = signer.sign().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Verification);
        assert!(error.to_string().contains("first 3 records"), "{error}");
    }
    assert_eq!(sizes(&store).await, [2, 3]);
}

#[tokio::test]
async fn what_was_never_appended_is_neither_signed_nor_gone_on_from() {
    let plant = "create table copy as select * from audit_record where sequence = 2;
         update copy set sequence = 3; insert into audit_record select * from copy;
         drop table copy; update audit_head set last_sequence = 3";
    // Behind the tree; in it; at the end of an older log; at the end of none.
    let in_tree = format!("{plant}, tree_size = 3; update audit_tile set hashes = zeroblob(96)");
    for (change, why) in [
        (plant, "never appended"),
        (in_tree.as_str(), "its seal is broken"),
        ("update audit_head set last_sequence = 1, tree_size = 1", "its seal is broken"),
        ("update audit_head set frontier = null, seal = null", "its seal is gone"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.db");
        let (store, root_key) =
            (Arc::new(sqlite::open(&path).await.unwrap()), RootKey::random().unwrap());
        let mut running = signer(&store, &root_key).await;
        append(store.as_ref(), &[record("a"), record("b")]).await.unwrap();
        tamper(&path, change).await;
        let error = append(store.as_ref(), &[record("c")]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Verification);
        assert!(error.to_string().contains(why), "{error}");
        let _ = running.sign().await;
        assert!(!sizes(&store).await.contains(&3));
        store.close().await;
        // Nor by one that is started on it.
        let store = sqlite::open(&path).await.unwrap();
        let error = CheckpointKeys::open(&store, &root_key, &SystemClock).await.err().unwrap();
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[tokio::test]
async fn what_was_appended_and_is_gone_is_found_where_the_next_one_is_signed_and_at_a_start() {
    for ground in Ground::each().await {
        let store = Arc::new(ground.open().await);
        let root_key = RootKey::random().unwrap();
        let mut running = signer(&store, &root_key).await;
        append(store.as_ref(), &[record("a"), record("b")]).await.unwrap();
        running.sign().await.unwrap();
        append(store.as_ref(), &[record("c"), record("d"), record("e")]).await.unwrap();
        // One of those that are not signed yet; all of them; the last that is signed, too.
        for (gone, said) in [("= 4", "1 of those"), (">= 3", "3 of those"), (">= 2", "4 of those")]
        {
            ground.tamper(&format!("delete from audit_record where sequence {gone}")).await;
            let error = running.sign().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Verification);
            let why = error.causes().join(" ");
            assert!(why.contains(said) && why.contains("from 2 on"), "{gone}: {why}");
            let started = CheckpointKeys::open(store.as_ref(), &root_key, &SystemClock).await;
            assert!(started.err().unwrap().to_string().contains("are gone"));
        }
        // Also where somebody goes on behind it.
        append(store.as_ref(), &[record("f")]).await.unwrap();
        assert!(running.sign().await.unwrap_err().to_string().contains("are gone"));
        assert_eq!(sizes(&store).await, [2]);
    }
}

#[tokio::test]
async fn an_older_end_is_noticed_by_whoever_has_seen_a_later_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.db");
    let (store, root_key) =
        (Arc::new(sqlite::open(&path).await.unwrap()), RootKey::random().unwrap());
    let _keys = signer(&store, &root_key).await;
    append(store.as_ref(), &[record("a")]).await.unwrap();
    tamper(&path, "create table kept as select * from audit_head").await;
    append(store.as_ref(), &[record("b")]).await.unwrap();
    tamper(
        &path,
        "delete from audit_record where sequence = 2; delete from audit_head;
         insert into audit_head select * from kept",
    )
    .await;
    let error = append(store.as_ref(), &[record("c")]).await.unwrap_err();
    assert!(error.to_string().contains("shorter than it was"), "{error}");
    // So it is by one that appends nothing, and has only looked.
    tamper(&path, "delete from audit_head").await;
    tamper(&path, "insert into audit_head select * from kept").await;
    let idle = Arc::new(sqlite::open(&path).await.unwrap());
    let _keys = signer(&idle, &root_key).await;
    let other = sqlite::open(&path).await.unwrap();
    other.seal_with(root_key.seal_of_log()).await.unwrap();
    append(&other, &[record("b")]).await.unwrap();
    assert_eq!(idle.sealed_end().await.unwrap().map(|end| end.size), Some(2));
    tamper(
        &path,
        "delete from audit_record where sequence = 2; delete from audit_head;
         insert into audit_head select * from kept",
    )
    .await;
    let error = idle.sealed_end().await.unwrap_err();
    assert!(error.to_string().contains("shorter than it was"), "{error}");
    assert!(append(idle.as_ref(), &[record("c")]).await.is_err());
}

#[tokio::test]
async fn no_other_key_is_made_where_one_has_signed_or_under_the_wrong_kek() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.db");
    let (store, root_key) =
        (Arc::new(sqlite::open(&path).await.unwrap()), RootKey::random().unwrap());
    let mut first = signer(&store, &root_key).await;
    append(store.as_ref(), &[record("a")]).await.unwrap();
    let made = store.keys().await.unwrap();
    tamper(&path, "create table kept as select * from signing_key; delete from signing_key").await;
    // The log alone says that the KEK is another one.
    let other = RootKey::random().unwrap();
    assert!(CheckpointKeys::open(store.as_ref(), &other, &SystemClock).await.is_err());
    assert_eq!(store.keys().await.unwrap(), []);
    // A new key of a log that there is already is on record.
    CheckpointKeys::open(store.as_ref(), &root_key, &SystemClock).await.unwrap();
    let (_, record) = store.records(1, 9).await.unwrap().pop().unwrap();
    assert!(record.reason.contains("the log had none"), "{record:?}");
    tamper(&path, "delete from signing_key; insert into signing_key select * from kept").await;
    assert_eq!(store.keys().await.unwrap(), made);
    first.sign().await.unwrap();
    tamper(&path, "delete from signing_key").await;
    let error = CheckpointKeys::open(store.as_ref(), &root_key, &SystemClock).await.err().unwrap();
    assert!(error.to_string().contains("the key of the audit log is gone"), "{error}");
    assert_eq!(store.keys().await.unwrap(), []);
}

/// Makes the first key that signs tokens, which is on record.
async fn first_for_tokens(store: &Arc<SqlStore>, root_key: &RootKey) {
    let keeper = Keeper {
        store: store.clone(),
        root_key: root_key.clone(),
        clock: Arc::new(SystemClock),
        rules: Rules::from(&config::Keys::default()),
        issuer: Issuer::parse("https://broker.example.com").unwrap(),
        name: "broker",
        seen: Arc::default(),
    };
    KeyRing::open(keeper).await.unwrap();
}

/// To whoever opens it, one that was emptied to the last row looks as one does that is new.
#[tokio::test]
async fn an_empty_log_beside_keys_that_have_signed_is_no_new_one() {
    for signed in [true, false] {
        for ground in Ground::each().await {
            let (store, root_key) = (Arc::new(ground.open().await), RootKey::random().unwrap());
            let mut first = signer(&store, &root_key).await;
            // So far nothing was signed but by the log's own key, and nothing is on record.
            let _again = signer(&store, &root_key).await;
            first_for_tokens(&store, &root_key).await;
            append(store.as_ref(), &[record("a")]).await.unwrap();
            if signed {
                first.sign().await.unwrap();
            }
            assert_eq!(store.latest_note().await.unwrap().is_some(), signed);
            let made = store.keys().await.unwrap();
            ground
                .tamper(
                    "delete from audit_record; delete from audit_checkpoint;
                     delete from audit_tile; update audit_head
                     set last_sequence = 0, tree_size = 0, frontier = null, seal = null",
                )
                .await;
            let other = ground.open().await;
            let error = CheckpointKeys::open(&other, &root_key, &SystemClock).await.err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Verification, "{error}");
            assert!(error.to_string().contains("the audit log is gone"), "{error}");
            assert_eq!(other.keys().await.unwrap(), made);
            assert_eq!(
                (other.size().await.unwrap(), other.latest_note().await.unwrap()),
                (0, None)
            );
        }
    }
}

#[tokio::test]
async fn what_somebody_else_signed_is_not_gone_on_from() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.db");
    let (store, root_key) =
        (Arc::new(sqlite::open(&path).await.unwrap()), RootKey::random().unwrap());
    let _keys = signer(&store, &root_key).await;
    append(store.as_ref(), &[record("a")]).await.unwrap();
    tamper(&path, "insert into audit_checkpoint values (1, 0, 'a note')").await;
    append(store.as_ref(), &[record("b")]).await.unwrap();
    let error = signer(&store, &root_key).await.sign().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Verification, "{error}");
}

#[tokio::test]
async fn of_several_processes_one_signs_and_each_goes_on_from_what_the_others_signed() {
    for ground in Ground::each().await {
        let root_key = RootKey::random().unwrap();
        let stores = ground.open_often(2).await;
        // What was signed just now stays so, however long this takes.
        let clock = Arc::new(Standing::default());
        let mut first = signer_by(clock.clone(), &stores[0], &root_key).await;
        let mut second = signer_by(clock, &stores[1], &root_key).await;
        append(stores[0].as_ref(), &[record("a"), record("b")]).await.unwrap();
        assert!(first.has_turn().await && second.has_turn().await, "nobody has signed yet");
        first.sign().await.unwrap();
        append(stores[1].as_ref(), &[record("c")]).await.unwrap();
        assert!(!second.has_turn().await, "it was signed just now");
        assert!(first.has_turn().await, "its own is no reason to wait");
        first.sign().await.unwrap();
        assert_eq!(sizes(&stores[0]).await, [2, 3]);
        second.sign().await.unwrap();
        // What came in between was changed: the one that did not sign it notices too.
        append(stores[1].as_ref(), &[record("d")]).await.unwrap();
        let tile = stores[0].tile(0, 0).await.unwrap().unwrap();
        let changed = HEXLOWER.encode(&tile[..64]);
        let literal = match ground.is_postgres() {
            true => format!("'\\x{changed}{}'::bytea", "00".repeat(64)),
            false => format!("x'{changed}{}'", "00".repeat(64)),
        };
        ground.tamper(&format!("update audit_tile set hashes = {literal}")).await;
        let error = second.sign().await.unwrap_err();
        assert!(error.to_string().contains("its first 3 records have another root"), "{error}");
    }
}

/// A copy of it from before, from which somebody goes on who has the KEK as well: a broker that
/// was started on a backup, while another one still runs.
#[tokio::test]
async fn another_log_that_has_grown_longer_is_noticed_by_whoever_has_seen_the_first() {
    for ground in Ground::each().await {
        let root_key = RootKey::random().unwrap();
        let stores = ground.open_often(4).await;
        let _keys = signer(&stores[0], &root_key).await;
        append(stores[0].as_ref(), &[record("a")]).await.unwrap();
        ground
            .tamper(
                "create table kept_head as select * from audit_head;
                 create table kept_tile as select * from audit_tile",
            )
            .await;
        append(stores[0].as_ref(), &[record("b")]).await.unwrap();
        let idle = &stores[1];
        idle.seal_with(root_key.seal_of_log()).await.unwrap();
        ground
            .tamper(
                "delete from audit_record where sequence = 2;
                 delete from audit_head; insert into audit_head select * from kept_head;
                 delete from audit_tile; insert into audit_tile select * from kept_tile",
            )
            .await;
        stores[2].seal_with(root_key.seal_of_log()).await.unwrap();
        for (others, size) in [(&["x"][..], 2), (&["y", "z"], 4)] {
            let records: Vec<_> = others.iter().map(|name| record(name)).collect();
            append(stores[2].as_ref(), &records).await.unwrap();
            // One that appends, and one that only looks.
            let looks = idle.sealed_end().await.unwrap_err().to_string();
            let appends = append(stores[0].as_ref(), &[record("c")]).await.unwrap_err();
            for error in [looks, appends.to_string()] {
                assert!(error.contains("another one than it was"), "{size}: {error}");
            }
            assert_eq!(stores[2].size().await.unwrap(), size, "nobody went on from it");
        }
        // Who has not seen the first one cannot know; a checkpoint elsewhere tells.
        stores[3].seal_with(root_key.seal_of_log()).await.unwrap();
        append(stores[3].as_ref(), &[record("d")]).await.unwrap();
        append(stores[2].as_ref(), &[record("e")]).await.unwrap();
    }
}
