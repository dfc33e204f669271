use serde_json::Value;
use time::OffsetDateTime;
use tlog_tiles::{check_record, check_tree};

use super::*;
use crate::broker::audit::leaf::Leaf;
use crate::broker::audit::seal::SealedEnd;
use crate::broker::audit::tree::leaf_hash;
use crate::broker::store::sql::SqlStore;
use crate::broker::store::sql::tests::{append, record};
use crate::broker::store::sqlite;
use crate::broker::store::{Filter, Ledger, LogEnds, Noted, Row};

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

/// The one tile of a small tree, over leaves that are no records.
struct OneTile(Vec<u8>);

#[async_trait::async_trait]
impl LogStore for OneTile {
    async fn tile(&self, level: u32, number: u64) -> Result<Option<Vec<u8>>> {
        Ok((level == 0 && number == 0).then(|| self.0.clone()))
    }

    async fn size(&self) -> Result<u64> {
        unreachable!()
    }

    async fn ends(&self) -> Result<LogEnds> {
        unreachable!()
    }

    async fn count(&self, _: u64, _: u64) -> Result<u64> {
        unreachable!()
    }

    async fn sealed_end(&self) -> Result<Option<SealedEnd>> {
        unreachable!()
    }

    async fn leaves(&self, _: u64, _: u32) -> Result<Vec<Leaf>> {
        unreachable!()
    }

    async fn root_at(&self, _: u64) -> Result<Hash> {
        unreachable!()
    }

    async fn notes(&self, _: u64, _: u32) -> Result<Vec<Noted>> {
        unreachable!()
    }

    async fn latest_note(&self) -> Result<Option<Noted>> {
        unreachable!()
    }

    async fn find(&self, _: &Filter, _: u32) -> Result<Vec<Row>> {
        unreachable!()
    }

    async fn latest(&self, _: OffsetDateTime, _: u64) -> Result<Option<OffsetDateTime>> {
        unreachable!()
    }

    async fn page(&self, _: u64, _: u32) -> Result<Vec<Row>> {
        unreachable!()
    }
}

#[tokio::test]
async fn proofs_are_those_that_certificate_transparency_publishes() {
    const VECTORS: &str = include_str!("../../../../tests/vectors/rfc6962.json");
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let bytes = |hex: &Value| -> Vec<u8> {
        let hex = hex.as_str().unwrap();
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(byte).collect()
    };
    let leaves = vectors["leaves"].as_array().unwrap();
    let store = OneTile(leaves.iter().flat_map(|leaf| leaf_hash(&bytes(leaf))).collect());
    let number = |vector: &Value, name: &str| vector[name].as_u64().unwrap();
    let path = |vector: &Value| -> Vec<Hash> {
        let path = vector["path"].as_array().unwrap().iter();
        path.map(|hash| bytes(hash).try_into().unwrap()).collect()
    };
    for vector in vectors["inclusion"].as_array().unwrap() {
        let (index, size) = (number(vector, "index"), number(vector, "size"));
        assert_eq!(inclusion(&store, index, size).await.unwrap().path, path(vector), "{vector}");
    }
    for vector in vectors["consistency"].as_array().unwrap() {
        let (first, second) = (number(vector, "first"), number(vector, "second"));
        assert_eq!(
            consistency(&store, first, second).await.unwrap().path,
            path(vector),
            "{vector}"
        );
    }
}
