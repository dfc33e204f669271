//! The Merkle tree over the audit log (RFC 6962 section 2.1), and the tiles in which
//! it rests.
//!
//! A tile has the hashes of up to 256 neighbours. Those of level 0 are leaves; each
//! one of a higher level is the root of a whole tile below. From the tiles follows
//! the root at every size that the log ever had.

use aws_lc_rs::digest::{SHA256, digest};

/// How many hashes a tile has.
pub const TILE: usize = 256;

/// How many levels of tiles there can be: 8 bits of the size each.
pub const LEVELS: u32 = 8;

/// The length of a hash in bytes.
pub const HASH: usize = 32;

/// A hash of a leaf, or of all that is below a node.
pub type Hash = [u8; HASH];

/// The hash of a leaf.
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    hash(&[&[0], leaf].concat())
}

/// The hash of a node with these two below it.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut both = [1; 1 + 2 * HASH];
    both[1..=HASH].copy_from_slice(left);
    both[1 + HASH..].copy_from_slice(right);
    hash(&both)
}

/// The root of the tree that has no leaves.
pub fn empty_root() -> Hash {
    hash(&[])
}

fn hash(text: &[u8]) -> Hash {
    let mut hash = [0; HASH];
    hash.copy_from_slice(digest(&SHA256, text).as_ref());
    hash
}

/// A tree that grows to the right, of which only what is needed to go on is kept:
/// the roots of its whole subtrees.
#[derive(Clone, Debug, Default)]
pub struct Frontier {
    size: u64,
    /// The larger subtrees come first; there is one for each bit of the size.
    peaks: Vec<Hash>,
}

impl Frontier {
    /// How many leaves it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf by its hash.
    pub fn push(&mut self, mut hash: Hash) {
        let mut below = self.size;
        while below & 1 == 1 {
            if let Some(left) = self.peaks.pop() {
                hash = node_hash(&left, &hash);
            }
            below >>= 1;
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// What is kept, as it rests.
    pub fn bytes(&self) -> Vec<u8> {
        self.peaks.as_flattened().to_vec()
    }

    /// A tree of this size, of which this was kept. `None` where it cannot have been.
    pub fn of(size: u64, bytes: &[u8]) -> Option<Self> {
        let (peaks, rest) = bytes.as_chunks::<HASH>();
        let fits = rest.is_empty() && peaks.len() == size.count_ones() as usize;
        fits.then(|| Self { size, peaks: peaks.to_vec() })
    }

    /// The root of the tree as it is.
    pub fn root(&self) -> Hash {
        root_of_peaks(&self.peaks).unwrap_or_else(empty_root)
    }
}

/// The root over the roots of whole subtrees, the larger ones first.
fn root_of_peaks(peaks: &[Hash]) -> Option<Hash> {
    peaks.iter().rev().copied().reduce(|right, left| node_hash(&left, &right))
}

/// The roots of the whole subtrees of the right edge, one level of tiles after the
/// other, from the leaves up.
#[derive(Debug, Default)]
pub struct Edge(Vec<Vec<Hash>>);

impl Edge {
    /// Adds the next level: the hashes of its last tile, if that is not whole.
    pub fn add_level(&mut self, hashes: &[Hash]) {
        let mut level = Frontier::default();
        hashes.iter().for_each(|hash| level.push(*hash));
        self.0.push(level.peaks);
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        let peaks: Vec<Hash> = self.0.iter().rev().flatten().copied().collect();
        root_of_peaks(&peaks).unwrap_or_else(empty_root)
    }
}

/// The root of a whole tile.
pub fn tile_root(hashes: &[Hash]) -> Hash {
    let mut tile = Frontier::default();
    hashes.iter().for_each(|hash| tile.push(*hash));
    tile.root()
}

/// How many tiles at this level are whole where the log has this size, and how many
/// hashes the next one has.
pub fn tiles_at(size: u64, level: u32) -> (u64, usize) {
    let hashes = size.checked_shr(8 * level).unwrap_or(0);
    (hashes / TILE as u64, (hashes % TILE as u64) as usize)
}

/// The hashes of a tile as it rests; `None` where it is damaged.
pub fn hashes_of(bytes: &[u8]) -> Option<Vec<Hash>> {
    let (hashes, rest) = bytes.as_chunks::<HASH>();
    (rest.is_empty() && hashes.len() <= TILE).then(|| hashes.to_vec())
}

#[cfg(test)]
mod tests;
