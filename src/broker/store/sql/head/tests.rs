use super::super::tests::{Ground, append, record};
use super::*;
use crate::broker::audit::leaf::Leaf;
use crate::broker::keys::Kek;
use crate::broker::store::{LogStore, Store};

/// Each goes on from what the others have left, which it has to read, and from what it has left
/// itself, which it has in mind; also where a tile is full.
#[tokio::test]
async fn who_goes_on_from_a_tree_goes_on_from_the_last_one() {
    let kek = Kek::random().unwrap();
    for ground in Ground::each().await {
        let stores = ground.open_often(2).await;
        for store in &stores {
            store.seal_with(kek.seal_of_log()).await.unwrap();
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
