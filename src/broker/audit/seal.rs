//! What says that the log ends where the broker left it, and with the tree that it
//! left: a MAC under a key that follows from the root key.
//!
//! Each commit makes it anew, in the row that it writes anyway, and none goes on from
//! an end whose seal is broken; nor is such an end signed. So whoever can write the
//! database, and does not have the key, can put an older end back, but cannot have
//! records of their own taken for the broker's.

use aws_lc_rs::hmac;

use super::tree::Frontier;

/// The key of the seals.
#[derive(Clone, Debug)]
pub struct Seal(hmac::Key);

/// An end of the log as it rests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedEnd {
    /// How many records there are up to it.
    pub size: u64,
    /// The roots of the whole subtrees over them.
    pub frontier: Vec<u8>,
    /// The seal.
    pub seal: Vec<u8>,
}

impl Seal {
    /// Seals by this key.
    pub fn new(key: hmac::Key) -> Self {
        Self(key)
    }

    /// The seal over a tree.
    pub fn over(&self, tree: &Frontier) -> Vec<u8> {
        hmac::sign(&self.0, &covered(tree.size(), &tree.bytes())).as_ref().to_vec()
    }

    /// The tree, where the seal over it is good.
    pub fn open(&self, end: &SealedEnd) -> Option<Frontier> {
        hmac::verify(&self.0, &covered(end.size, &end.frontier), &end.seal).ok()?;
        Frontier::of(end.size, &end.frontier)
    }
}

fn covered(size: u64, frontier: &[u8]) -> Vec<u8> {
    [b"tmpcred broker: the end of the audit log v1\0", &size.to_be_bytes()[..], frontier].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_is_good_for_its_own_tree_and_key_only() {
        let seal = |key: u8| Seal::new(hmac::Key::new(hmac::HMAC_SHA256, &[key; 32]));
        let mut tree = Frontier::default();
        for leaf in 0..7 {
            tree.push([leaf; 32]);
            let end =
                SealedEnd { size: tree.size(), frontier: tree.bytes(), seal: seal(1).over(&tree) };
            assert_eq!(seal(1).open(&end).unwrap().root(), tree.root());
            assert!(seal(2).open(&end).is_none());
            assert!(seal(1).open(&SealedEnd { size: end.size + 1, ..end.clone() }).is_none());
            assert!(seal(1).open(&SealedEnd { seal: Vec::new(), ..end.clone() }).is_none());
            let mut other = end;
            other.frontier[0] ^= 1;
            assert!(seal(1).open(&other).is_none());
        }
    }
}
