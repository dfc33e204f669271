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
