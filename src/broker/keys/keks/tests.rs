//! What opens a database, on each engine.

use std::sync::Arc;

use super::*;
use crate::broker::keys::KEY_LEN;
use crate::broker::store::sql::tests::Ground;
use crate::host::clock::SystemClock;
use crate::secret::Secret;

fn kek(byte: u8) -> Kek {
    Kek::new(Secret::new([byte; KEY_LEN]))
}

fn issuer() -> Issuer {
    Issuer::parse("https://broker.example.com").unwrap()
}

/// A database that a broker with this key-encryption key was started on.
async fn made(ground: &Ground, kek: &Kek) -> RootKey {
    let store = ground.open().await;
    let root_key = RootKey::open_or_make(&store, kek, SystemClock.now()).await.unwrap();
    CheckpointKeys::open(&store, &root_key, &SystemClock).await.unwrap();
    root_key
}

/// One from before there were root keys.
async fn made_before(ground: &Ground, byte: u8) {
    let root_key = RootKey::new(Secret::new([byte; KEY_LEN]));
    CheckpointKeys::open(&ground.open().await, &root_key, &SystemClock).await.unwrap();
}

async fn with(ground: &Ground, kek: Kek) -> Result<Keks> {
    Keks::of(ground.open().await, kek, issuer(), Arc::new(SystemClock)).await
}

async fn names(keks: &Keks) -> Vec<(String, bool)> {
    let all = keks.list().await.unwrap().into_iter();
    all.map(|one| (one.id, one.is_configured)).collect()
}

fn why<T>(refused: Result<T>) -> String {
    let error = refused.err().unwrap();
    let all = [error.to_string(), error.causes().join(": "), error.hints().join("; ")];
    all.join("; ")
}

/// What is on record of it.
async fn told(ground: &Ground) -> Vec<String> {
    let records = ground.open().await.records(0, 100).await.unwrap().into_iter();
    let of_keks = records.filter(|(_, record)| record.reason.contains("key-encryption key"));
    of_keks.map(|(_, record)| record.reason).collect()
}

#[tokio::test]
async fn a_new_database_has_a_root_key_that_one_of_many_processes_makes() {
    for ground in Ground::each().await {
        let stores = ground.open_often(8).await;
        let (kek, now) = (kek(1), SystemClock.now());
        let made = stores.iter().map(|store| RootKey::open_or_make(store.as_ref(), &kek, now));
        let made = futures_util::future::join_all(made).await;
        let ids: Vec<_> = made.into_iter().map(|made| made.unwrap().id().to_string()).collect();
        assert!(ids.iter().all(|id| *id == ids[0] && id != kek.id()), "{ids:?}");
        let store = &stores[0];
        assert_eq!(store.sealed_roots().await.unwrap().len(), 1);
        assert_eq!(RootKey::open(store.as_ref(), &kek).await.unwrap().id(), ids[0]);
        let other = self::kek(2);
        for refused in [
            RootKey::open(store.as_ref(), &other).await,
            RootKey::open_or_make(store.as_ref(), &other, now).await,
        ] {
            let said = why(refused);
            assert!(
                said.contains(&format!("it is {}; {} is needed", other.id(), kek.id())),
                "{said}"
            );
        }
    }
}

#[tokio::test]
async fn one_is_added_and_the_one_from_before_is_removed_by_whoever_has_the_new_one() {
    for ground in Ground::each().await {
        let (old, new) = (kek(1), kek(2));
        let root_key = made(&ground, &old).await;
        let by_old = with(&ground, old.clone()).await.unwrap();
        assert_eq!(names(&by_old).await, [(old.id().to_string(), true)]);
        assert!(by_old.add(&new, "it is time").await.unwrap());
        assert!(!by_old.add(&new, "once more").await.unwrap());
        assert!(!by_old.add(&old, "itself").await.unwrap());
        let store = ground.open().await;
        for kek in [&old, &new] {
            assert_eq!(RootKey::open(&store, kek).await.unwrap().id(), root_key.id());
        }
        let said = why(by_old.remove(old.id(), "wrong").await);
        assert!(said.contains("is the one of the configuration"), "{said}");
        let said = why(by_old.remove("nothing", "wrong").await);
        assert!(said.contains(&format!("there is {}, {}", old.id(), new.id())), "{said}");

        let by_new = with(&ground, new.clone()).await.unwrap();
        by_new.remove(old.id(), "it leaked").await.unwrap();
        assert_eq!(names(&by_new).await, [(new.id().to_string(), true)]);
        assert!(why(RootKey::open(&store, &old).await).contains("does not open this database"));
        assert!(with(&ground, old.clone()).await.is_err());
        // What was opened before is so still; it is of no use for removing the other one.
        assert!(by_old.remove(new.id(), "too late").await.is_err());
        assert_eq!(RootKey::open(&store, &new).await.unwrap().id(), root_key.id());
        assert_eq!(
            told(&ground).await,
            [
                format!("the key-encryption key {} opens the database, too: it is time", new.id()),
                format!(
                    "the key-encryption key {} opens the database no more: it leaked",
                    old.id()
                ),
            ]
        );
    }
}

#[tokio::test]
async fn in_a_database_from_before_the_first_one_stays_in_the_root_keys_place() {
    for ground in Ground::each().await {
        made_before(&ground, 1).await;
        assert!(with(&ground, kek(3)).await.is_err(), "no other one opens it");
        let (old, new) = (kek(1), kek(2));
        let store = ground.open().await;
        let opened = RootKey::open_or_make(&store, &old, SystemClock.now()).await.unwrap();
        assert_eq!((opened.id(), store.sealed_roots().await.unwrap().len()), (old.id(), 0));
        let by_old = with(&ground, old.clone()).await.unwrap();
        assert_eq!(by_old.list().await.unwrap()[0].added_at, None);
        assert!(by_old.add(&new, "it is time").await.unwrap());
        assert_eq!(
            names(&by_old).await,
            [(old.id().to_string(), true), (new.id().to_string(), false)]
        );
        let by_new = with(&ground, new.clone()).await.unwrap();
        by_new.remove(old.id(), "it is time").await.unwrap();
        assert_eq!(RootKey::open(&store, &new).await.unwrap().id(), old.id());
        assert!(RootKey::open(&store, &old).await.is_err());
    }
}

#[tokio::test]
async fn two_who_remove_each_others_leave_one() {
    for ground in Ground::each().await {
        let (one, other) = (kek(1), kek(2));
        made(&ground, &one).await;
        let by_one = with(&ground, one.clone()).await.unwrap();
        assert!(by_one.add(&other, "for two").await.unwrap());
        let by_other = with(&ground, other.clone()).await.unwrap();
        let removed =
            tokio::join!(by_one.remove(other.id(), "mine"), by_other.remove(one.id(), "mine"));
        assert!(removed.0.is_ok() != removed.1.is_ok(), "{removed:?}");
        assert_eq!(by_one.store.sealed_roots().await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn what_somebody_else_wrote_opens_nothing() {
    for ground in Ground::each().await {
        let (good, other) = (kek(1), kek(2));
        made(&ground, &good).await;
        let store = ground.open().await;
        let kept = store.sealed_roots().await.unwrap();
        // That of another key-encryption key, under the name of this one.
        let random = RootKey::random().unwrap();
        let foreign = random.sealed_under(&other, 1, SystemClock.now()).unwrap();
        let effects = vec![Effect::AddRoot(foreign)];
        store.commit(&[Unit { records: Vec::new(), effects }]).await.unwrap();
        // Whoever only has theirs has a root key of theirs, and nothing that it seals.
        assert!(with(&ground, other.clone()).await.is_err());
        ground.execute(&format!("delete from root_key where kek_id = '{}'", good.id())).await;
        let renamed = format!("update root_key set kek_id = '{}'", good.id());
        ground.execute(&renamed).await;
        let said = why(RootKey::open(&store, &good).await);
        assert!(said.contains("what the database holds was changed"), "{said}");
        // Without any, the key-encryption key stands for it, and nothing is sealed by that.
        ground.execute("delete from root_key").await;
        assert!(with(&ground, good.clone()).await.is_err());
        let effects = kept.into_iter().map(Effect::AddRoot).collect();
        store.commit(&[Unit { records: Vec::new(), effects }]).await.unwrap();
        with(&ground, good).await.unwrap();
    }
}
