use data_encoding::HEXLOWER;

use super::super::tests::{Ground, append, record};
use super::*;
use crate::broker::audit::leaf::Leaf;
use crate::broker::keys::RootKey;
use crate::broker::store::{LogStore, Store};

/// Each goes on from what the others have left, which it has to read, and from what it has left
/// itself, which it has in mind; also where a tile is full.
#[tokio::test]
async fn who_goes_on_from_a_tree_goes_on_from_the_last_one() {
    let root_key = RootKey::random().unwrap();
    for ground in Ground::each().await {
        let stores = ground.open_often(2).await;
        for store in &stores {
            store.seal_with(root_key.seal_of_log()).await.unwrap();
        }
        let (mut records, mut last) = (0, Hash::default());
        for (who, count) in [
            (0, 1),
            (0, 100),
            (1, 7),
            (1, 100),
            // 256, and the first of the next tile.
            (0, 48),
            (0, 1),
            (0, 254),
            (1, 2),
            (1, 1),
            (0, 600),
            (1, 300),
            (1, 300),
        ] {
            let some: Vec<_> = (0..count).map(|n| record(&format!("{records} {n}"))).collect();
            append(stores[who].as_ref(), &some).await.unwrap();
            records += count;
            // One that has gone on need not look again.
            let of = stores[who].guard.tail.lock().unwrap().as_ref().map(|tail| tail.of.size);
            assert_eq!(of, Some(records));
            let mut tree = Frontier::default();
            let leaves = stores[0].leaves(0, 9999).await.unwrap();
            leaves.iter().for_each(|leaf| tree.push(Leaf::hash(leaf).unwrap()));
            let root = tree.root();
            assert_eq!((tree.size(), root == last), (records, false));
            for store in &stores {
                assert_eq!(store.root_at(records).await.unwrap(), root, "{who} {count} {records}");
            }
            last = root;
        }
    }
}

#[tokio::test]
async fn what_somebody_has_changed_in_a_tile_is_not_kept_in_mind() {
    let root_key = RootKey::random().unwrap();
    for ground in Ground::each().await {
        let (first, other) = (ground.open().await, ground.open().await);
        for store in [&first, &other] {
            store.seal_with(root_key.seal_of_log()).await.unwrap();
        }
        append(&first, &[record("a"), record("b")]).await.unwrap();
        let good = first.tile(0, 0).await.unwrap().unwrap();
        let put = async |bytes: &[u8]| {
            let bytes = match ground.is_postgres() {
                true => format!("'\\x{}'", HEXLOWER.encode(bytes)),
                false => format!("x'{}'", HEXLOWER.encode(bytes)),
            };
            ground.tamper(&format!("update audit_tile set hashes = {bytes}")).await;
        };
        put(&[7; 64]).await;
        append(&other, &[record("c")]).await.unwrap();
        assert!(other.guard.tail.lock().unwrap().is_none());
        // Whoever puts it back has put it back.
        let third = other.tile(0, 0).await.unwrap().unwrap()[64..].to_vec();
        put(&[good, third].concat()).await;
        append(&other, &[record("d")]).await.unwrap();
        let mut tree = Frontier::default();
        let leaves = other.leaves(0, 9).await.unwrap();
        leaves.iter().for_each(|leaf| tree.push(Leaf::hash(leaf).unwrap()));
        assert_eq!(other.root_at(4).await.unwrap(), tree.root());
    }
}

/// A failover that lost commits: who has seen them can append nothing, and says so without having
/// tried; who has not goes on.
#[tokio::test]
async fn a_probe_tells_who_could_not_append() {
    let root_key = RootKey::random().unwrap();
    for ground in Ground::each().await {
        let stores = ground.open_often(3).await;
        for store in &stores[..2] {
            store.seal_with(root_key.seal_of_log()).await.unwrap();
            store.probe().await.unwrap();
        }
        append(stores[0].as_ref(), &[record("a")]).await.unwrap();
        let (keep, put_back) = keep_and_put_back();
        ground.tamper(keep).await;
        append(stores[0].as_ref(), &[record("b")]).await.unwrap();
        // It has seen as much as who appended it.
        stores[1].probe().await.unwrap();
        ground.tamper(put_back).await;
        let refused = async |which: usize, said: &str| {
            for _ in 0..2 {
                let error = stores[which].probe().await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Verification);
                assert!(error.to_string().contains(said), "{error}");
            }
        };
        refused(0, "shorter than it was").await;
        refused(1, "shorter than it was").await;
        let started_anew = &stores[2];
        started_anew.seal_with(root_key.seal_of_log()).await.unwrap();
        started_anew.probe().await.unwrap();
        append(started_anew.as_ref(), &[record("x"), record("y")]).await.unwrap();
        refused(0, "another one than it was").await;
        append(stores[0].as_ref(), &[record("c")]).await.unwrap_err();
        refused(0, "another one than it was").await;
        started_anew.probe().await.unwrap();
    }
}

/// What keeps the log as it is, and what puts that back.
fn keep_and_put_back() -> (&'static str, &'static str) {
    (
        "create table kept_head as select * from audit_head;
         create table kept_tile as select * from audit_tile",
        "delete from audit_record where sequence = 2;
         delete from audit_head; insert into audit_head select * from kept_head;
         delete from audit_tile; insert into audit_tile select * from kept_tile",
    )
}

#[tokio::test]
async fn a_probe_tells_that_nobody_could_append_until_the_seal_is_good() {
    let root_key = RootKey::random().unwrap();
    for ground in Ground::each().await {
        let store = ground.open().await;
        store.seal_with(root_key.seal_of_log()).await.unwrap();
        append(&store, &[record("a")]).await.unwrap();
        ground.tamper("create table kept as select seal from audit_head").await;
        ground.tamper("update audit_head set seal = null").await;
        let error = store.probe().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Verification, "{error}");
        ground.tamper("update audit_head set seal = (select seal from kept)").await;
        store.probe().await.unwrap();
    }
}
