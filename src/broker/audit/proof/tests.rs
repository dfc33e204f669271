use tlog_tiles::{check_record, check_tree};

use super::*;
use crate::broker::store::Ledger;
use crate::broker::store::sql::SqlStore;
use crate::broker::store::sql::tests::{append, record};
use crate::broker::store::sqlite;

fn theirs(hash: &Hash) -> tlog_tiles::Hash {
    tlog_tiles::Hash(*hash)
}

fn all(hashes: &[Hash]) -> Vec<tlog_tiles::Hash> {
    hashes.iter().map(theirs).collect()
}

async fn of_size(size: usize) -> SqlStore {
    let store = sqlite::in_memory().await.unwrap();
    append(&store as &dyn Ledger, &vec![record("r"); size]).await.unwrap();
    store
}

/// What somebody else's library says of a proof.
async fn included(store: &SqlStore, index: u64, size: u64) -> Inclusion {
    let proof = inclusion(store, index, size).await.unwrap();
    assert_eq!(proof.root, store.root_at(size).await.unwrap());
    let (path, root, leaf) = (all(&proof.path), theirs(&proof.root), theirs(&proof.leaf));
    check_record(&path, size, root, index, leaf).unwrap();
    let mut other = proof.leaf;
    other[0] ^= 1;
    check_record(&path, size, root, index, theirs(&other)).unwrap_err();
    proof
}

async fn consistent(store: &SqlStore, first: u64, second: u64) {
    let proof = consistency(store, first, second).await.unwrap();
    assert_eq!(proof.first_root, store.root_at(first).await.unwrap());
    assert_eq!(proof.second_root, store.root_at(second).await.unwrap());
    let (path, mut old) = (all(&proof.path), proof.first_root);
    check_tree(&path, second, theirs(&proof.second_root), first, theirs(&old)).unwrap();
    old[0] ^= 1;
    check_tree(&path, second, theirs(&proof.second_root), first, theirs(&old)).unwrap_err();
}

#[tokio::test]
async fn every_proof_of_a_small_log_satisfies_another_implementation() {
    let store = of_size(20).await;
    for size in 1..=20 {
        for index in 0..size {
            included(&store, index, size).await;
            consistent(&store, index + 1, size).await;
        }
    }
}

#[tokio::test]
async fn so_do_proofs_across_tiles() {
    let store = of_size(1030).await;
    for size in [256, 257, 511, 512, 513, 768, 1000, 1024, 1025, 1030] {
        for index in [0, 1, 254, 255, 256, 257, 511, 512, 767, 900, 1023, 1024, 1029] {
            if index < size {
                let proof = included(&store, index, size).await;
                let leaves = store.leaves(index, 1).await.unwrap();
                assert_eq!(Some(proof.leaf), leaves[0].hash());
                consistent(&store, index + 1, size).await;
            }
        }
    }
}

#[tokio::test]
async fn nothing_is_proved_of_what_there_is_not() {
    let store = of_size(3).await;
    for (index, size) in [(3, 3), (0, 0), (u64::MAX, 3)] {
        assert_eq!(inclusion(&store, index, size).await.unwrap_err().kind(), ErrorKind::Usage);
    }
    for (first, second) in [(0, 3), (4, 3)] {
        assert_eq!(consistency(&store, first, second).await.unwrap_err().kind(), ErrorKind::Usage);
    }
    // Beyond the tree there is nothing to prove anything with.
    assert_eq!(inclusion(&store, 2, 4).await.unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(inclusion(&store, 0, u64::MAX).await.unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(consistency(&store, 1, 1 << 63).await.unwrap_err().kind(), ErrorKind::Io);
}
