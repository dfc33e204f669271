use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::*;

/// The tree as RFC 6962 section 2.1 says it, word by word.
fn naive(leaves: &[Vec<u8>]) -> Hash {
    match leaves {
        [] => empty_root(),
        [leaf] => leaf_hash(leaf),
        several => {
            let split = several.len().next_power_of_two() / 2;
            node_hash(&naive(&several[..split]), &naive(&several[split..]))
        }
    }
}

/// The root by way of tiles, as the store has them.
fn by_tiles(hashes: &[Hash]) -> Hash {
    let mut edge = Edge::default();
    let mut level = hashes.to_vec();
    for n in 0..LEVELS {
        let (whole, rest) = tiles_at(hashes.len() as u64, n);
        let (tiles, partial) = level.split_at(whole as usize * TILE);
        assert_eq!(partial.len(), rest);
        edge.add_level(partial);
        level = tiles.chunks(TILE).map(tile_root).collect();
    }
    edge.root()
}

#[test]
fn roots_are_those_that_certificate_transparency_publishes() {
    let leaves: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    let roots = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    let mut frontier = Frontier::default();
    assert_eq!(HEXLOWER.encode(&frontier.root()), roots[0]);
    for (leaf, root) in leaves.iter().zip(&roots[1..]) {
        frontier.push(leaf_hash(leaf));
        assert_eq!(HEXLOWER.encode(&frontier.root()), *root);
    }
    assert_eq!(frontier.size(), 8);
}

proptest! {
    #[test]
    fn however_it_is_kept_it_is_the_tree_of_the_rfc(
        leaves in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 0..1200)
    ) {
        let hashes: Vec<Hash> = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
        let mut frontier = Frontier::default();
        hashes.iter().for_each(|hash| frontier.push(*hash));
        let root = naive(&leaves);
        prop_assert_eq!(frontier.root(), root);
        prop_assert_eq!(by_tiles(&hashes), root);
    }
}

#[test]
fn sizes_around_those_of_tiles_have_their_roots() {
    let hashes: Vec<Hash> = (0..66_000u32).map(|n| leaf_hash(&n.to_be_bytes())).collect();
    let mut frontier = Frontier::default();
    for (at, hash) in hashes.iter().enumerate() {
        frontier.push(*hash);
        if [1, 255, 256, 257, 511, 512, 1000, 65_535, 65_536, 65_537, 65_793, 66_000]
            .contains(&(at + 1))
        {
            assert_eq!(by_tiles(&hashes[..=at]), frontier.root(), "{}", at + 1);
        }
    }
}

#[test]
fn damaged_tiles_are_none() {
    assert_eq!(hashes_of(&[7; 64]).unwrap().len(), 2);
    assert_eq!(hashes_of(&[7; 63]), None);
    assert_eq!(hashes_of(&vec![7; (TILE + 1) * HASH]), None);
}
