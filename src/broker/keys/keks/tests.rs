//! What opens a database, on each engine.

use std::sync::Arc;

use super::*;
use crate::broker::keys::{KEY_LEN, SealedRoot};
use crate::broker::store::sql::tests::{Ground, record};
use crate::broker::store::sqlite;
use crate::broker::testbed::failing::{BEFORE, Failing};
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

#[tokio::test]
async fn whoever_finds_that_another_process_was_quicker_takes_what_that_made() {
    for ground in Ground::each().await {
        let (kek, now) = (kek(1), SystemClock.now());
        let slow = Failing::over(Arc::new(ground.open().await));
        let (quick, same) = (ground.open().await, kek.clone());
        slow.before_change(async move {
            let made = RootKey::open_or_make(&quick, &same, now).await.unwrap();
            quick.seal_with(made.seal_of_log()).await.unwrap();
            quick.commit(&[Unit::of(record("issued"))]).await.unwrap();
        });
        let found = RootKey::open_or_make(slow.as_ref(), &kek, now).await.unwrap();
        assert_eq!(RootKey::open(&ground.open().await, &kek).await.unwrap().id(), found.id());
        // What is no such thing is told as it is.
        let broken = Failing::over(Arc::new(sqlite::in_memory().await.unwrap()));
        broken.writes(BEFORE);
        assert!(RootKey::open_or_make(broken.as_ref(), &kek, now).await.is_err());
    }
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
        // Each goes on at once with what a broker does next.
        let begin = async |store: &SqlStore| {
            let made = RootKey::open_or_make(store, &kek, now).await.unwrap();
            CheckpointKeys::open(store, &made, &SystemClock).await.unwrap();
            made.id().to_string()
        };
        let ids = stores.iter().map(|store| begin(store));
        let ids = futures_util::future::join_all(ids).await;
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
        assert!(!by_new.remove(old.id(), "it leaked").await.unwrap());
        assert_eq!(names(&by_new).await, [(new.id().to_string(), true)]);
        assert!(why(RootKey::open(&store, &old).await).contains("does not open this database"));
        assert!(with(&ground, old.clone()).await.is_err());
        // What was opened before is so still; it is of no use for removing the other one.
        assert!(by_old.remove(new.id(), "too late").await.is_err());
        // Nor does it bring the old one back, together with another one or alone.
        for kek in [&kek(3), &old, &new] {
            let said = why(by_old.add(kek, "too late").await);
            assert!(said.contains("does not open this database"), "{said}");
        }
        assert_eq!(store.sealed_roots().await.unwrap().len(), 1);
        assert_eq!(RootKey::open(&store, &new).await.unwrap().id(), root_key.id());
        assert_eq!(
            told(&ground).await,
            [
                format!(
                    "the key-encryption key {} opens the database as {} does: it is time",
                    new.id(),
                    old.id()
                ),
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
        assert!(by_new.list().await.unwrap()[0].is_root);
        assert!(by_new.remove(old.id(), "it is time").await.unwrap(), "it is the root key still");
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

fn added_by(root: SealedRoot, by: &str) -> Effect {
    Effect::AddRoot { root, by: by.to_string() }
}

#[tokio::test]
async fn none_is_added_by_one_that_was_removed_meanwhile() {
    for ground in Ground::each().await {
        let [one, other, third] = [kek(1), kek(2), kek(3)];
        made(&ground, &one).await;
        let keks = with(&ground, one.clone()).await.unwrap();
        keks.add(&other, "for two").await.unwrap();
        let sealed = keks.root_key.sealed_under(&third, 2, SystemClock.now()).unwrap();
        with(&ground, other.clone()).await.unwrap().remove(one.id(), "it is time").await.unwrap();
        // As it is where that is done between the question who there is, and the answer to it.
        let late = [Unit::default().with(added_by(sealed.clone(), one.id()))];
        assert!(!keks.store.commit(&late).await.unwrap()[0].is_committed());
        assert_eq!(keks.store.sealed_roots().await.unwrap().len(), 1);
        let good = [Unit::default().with(added_by(sealed, other.id()))];
        assert!(keks.store.commit(&good).await.unwrap()[0].is_committed());
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
        let effects = vec![added_by(foreign.clone(), &foreign.kek_id)];
        store.commit(&[Unit { records: Vec::new(), effects }]).await.unwrap();
        // Whoever only has theirs has a root key of theirs, and nothing that it seals.
        assert!(with(&ground, other.clone()).await.is_err());
        ground.execute(&format!("delete from root_key where kek_id = '{}'", good.id())).await;
        let renamed = format!("update root_key set kek_id = '{}'", good.id());
        ground.execute(&renamed).await;
        let said = why(RootKey::open(&store, &good).await);
        assert!(said.contains("was changed"), "{said}");
        // Without any, no key-encryption key stands for it.
        ground.execute("delete from root_key").await;
        for refused in [
            RootKey::open(&store, &good).await,
            RootKey::open_or_make(&store, &good, SystemClock.now()).await,
        ] {
            let said = why(refused);
            assert!(said.contains("the root key is gone"), "{said}");
        }
        // Nor is one without any key taken for a new one.
        store.commit(&[Unit::of(record("issued"))]).await.unwrap();
        ground.execute("delete from signing_key").await;
        for refused in [
            RootKey::open(&store, &good).await,
            RootKey::open_or_make(&store, &good, SystemClock.now()).await,
        ] {
            let said = why(refused);
            assert!(said.contains("the keys of this database are gone"), "{said}");
        }
        assert_eq!(store.sealed_roots().await.unwrap(), []);
        let effects = kept.into_iter().map(|root| added_by(root, good.id())).collect();
        store.commit(&[Unit { records: Vec::new(), effects }]).await.unwrap();
        RootKey::open(&store, &good).await.unwrap();
    }
}

#[tokio::test]
async fn a_database_that_no_broker_was_started_on_is_opened_by_none() {
    for ground in Ground::each().await {
        let store = ground.open().await;
        let said = why(RootKey::open(&store, &kek(1)).await);
        assert!(said.contains("start the broker on it once"), "{said}");
        assert!(with(&ground, kek(1)).await.is_err());
        assert!(RootKey::find(&store, &kek(1)).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn one_that_is_damaged_is_not_said_to_open_it() {
    for ground in Ground::each().await {
        let (good, other) = (kek(1), kek(2));
        made(&ground, &good).await;
        let keks = with(&ground, good).await.unwrap();
        keks.add(&other, "for two").await.unwrap();
        let damaged = format!("update root_key set added_at = 1 where kek_id = '{}'", other.id());
        ground.execute(&damaged).await;
        let said = why(keks.add(&other, "once more").await);
        assert!(said.contains("was changed") && said.contains("add it again"), "{said}");
        keks.remove(other.id(), "it is damaged").await.unwrap();
        assert!(keks.add(&other, "anew").await.unwrap());
        with(&ground, other).await.unwrap();
    }
}
