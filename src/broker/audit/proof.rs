//! Proofs about the log for those who do not have it (RFC 6962 sections 2.1.1 and 2.1.2):
//! that a record is in it, and that it has only grown. They hold hashes and nothing else.

use std::collections::HashMap;

use super::tree::{Hash, TILE, empty_root, hashes_of, node_hash, tile_root};
use crate::broker::store::LogStore;
use crate::error::{Error, ErrorKind, Result};

/// That a record is in the tree of a certain size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inclusion {
    /// The hash of its leaf.
    pub leaf: Hash,
    /// What leads from there to the root, from the leaf up.
    pub path: Vec<Hash>,
    /// The root.
    pub root: Hash,
}

/// That the record with this index, counted from 0, is in the tree of this size.
///
/// # Errors
/// [`ErrorKind::Usage`] where there is no such record at this size; otherwise whatever keeps
/// the tree from being read. Whether it has this size is for whoever asks to know.
pub async fn inclusion(store: &dyn LogStore, index: u64, size: u64) -> Result<Inclusion> {
    if index >= size {
        let why = format!("the log of {size} records has none with the index {index}");
        return Err(Error::new(ErrorKind::Usage, why));
    }
    let mut tiles = Tiles::of(store);
    let leaf = tiles.root(index, index + 1).await?;
    let (mut from, mut to, mut path) = (0, size, Vec::new());
    while to - from > 1 {
        let middle = from + split(to - from);
        let other = if index < middle { (middle, to) } else { (from, middle) };
        path.push(tiles.root(other.0, other.1).await?);
        (from, to) = if index < middle { (from, middle) } else { (middle, to) };
    }
    path.reverse();
    Ok(Inclusion { leaf, path, root: tiles.root(0, size).await? })
}

/// That the tree of the one size is the beginning of the tree of the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consistency {
    /// The root of the smaller tree.
    pub first_root: Hash,
    /// What leads from there to the other root.
    pub path: Vec<Hash>,
    /// The root of the larger tree.
    pub second_root: Hash,
}

/// That the log of `second` records goes on from the one of `first`.
///
/// # Errors
/// [`ErrorKind::Usage`] where `first` is 0 or larger than `second`; otherwise as with
/// [`inclusion`].
pub async fn consistency(store: &dyn LogStore, first: u64, second: u64) -> Result<Consistency> {
    if first == 0 || first > second {
        let why = format!("no log of {second} records goes on from one of {first}");
        return Err(Error::new(ErrorKind::Usage, why));
    }
    let mut tiles = Tiles::of(store);
    let (mut from, mut to, mut path) = (0, second, Vec::new());
    while first < to {
        let middle = from + split(to - from);
        if first <= middle {
            path.push(tiles.root(middle, to).await?);
            to = middle;
        } else {
            path.push(tiles.root(from, middle).await?);
            from = middle;
        }
    }
    // Whoever asks has the root of the first tree, where that is a whole subtree.
    if from > 0 {
        path.push(tiles.root(from, to).await?);
    }
    path.reverse();
    let first_root = tiles.root(0, first).await?;
    Ok(Consistency { first_root, path, second_root: tiles.root(0, second).await? })
}

/// The largest power of two that is smaller than this.
fn split(size: u64) -> u64 {
    1 << (63 - (size - 1).leading_zeros())
}

/// The tiles that were read for one proof: a few for each level.
struct Tiles<'a> {
    store: &'a dyn LogStore,
    read: HashMap<(u32, u64), Vec<Hash>>,
}

impl<'a> Tiles<'a> {
    fn of(store: &'a dyn LogStore) -> Self {
        Self { store, read: HashMap::new() }
    }

    /// The root over the leaves from the one index up to the other, which is a whole
    /// subtree, or reaches to the end of the tree.
    async fn root(&mut self, from: u64, to: u64) -> Result<Hash> {
        let (mut from, mut peaks) = (from, Vec::new());
        while from < to {
            let size = 1 << (63 - (to - from).leading_zeros());
            peaks.push(self.subtree(from, size).await?);
            from += size;
        }
        let root = peaks.into_iter().rev().reduce(|right, left| node_hash(&left, &right));
        Ok(root.unwrap_or_else(empty_root))
    }

    /// The root over so many leaves from this one on: a power of two, of which it is a
    /// multiple.
    async fn subtree(&mut self, from: u64, size: u64) -> Result<Hash> {
        let level = size.trailing_zeros() / 8;
        let (first, count) = (from >> (8 * level), (size >> (8 * level)) as usize);
        let (number, at) = (first / TILE as u64, (first % TILE as u64) as usize);
        let hashes = self.tile(level, number).await?;
        let part = hashes.get(at..at + count).ok_or_else(|| {
            Error::new(ErrorKind::Io, "the tree of the audit log is damaged")
                .because_of(format!("the tile {number} of level {level} is too short"))
                .hint("`tmpcred broker audit verify` says more")
        })?;
        Ok(tile_root(part))
    }

    async fn tile(&mut self, level: u32, number: u64) -> Result<&[Hash]> {
        if !self.read.contains_key(&(level, number)) {
            let tile = self.store.tile(level, number).await?;
            let hashes = tile.as_deref().and_then(hashes_of).unwrap_or_default();
            self.read.insert((level, number), hashes);
        }
        Ok(self.read.get(&(level, number)).map(Vec::as_slice).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
