//! Opaque tokens and nonces: what a broker knows again.

use std::net::IpAddr;

use serde_json::json;
use time::OffsetDateTime;

use super::keys::RootKey;
use super::network::Network;
use super::opaque::{self, OpaqueSeal};
use super::proof::{Nonces, Place};
use super::store::OpaqueToken;
use crate::fuzz::{
    Fate::{self, Accepted, Refused},
    NOW, hold,
};
use crate::oidc::Issuer;
use crate::secret::Secret;

fn root_key() -> RootKey {
    RootKey::new(Secret::new([7; 32]))
}

#[test]
fn opaque_token() {
    let seal = OpaqueSeal::new(&root_key());
    let good = "tmpcred_o_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let known = opaque::hash(&Secret::new(good.into())).unwrap();
    let kept = seal.over(known.clone(), json!({"role": "r"}).to_string(), NOW);
    hold("opaque_token", [good.into()], move |input| {
        let Ok(text) = std::str::from_utf8(input) else { return Refused };
        let Some(hash) = opaque::hash(&Secret::new(text.into())) else {
            assert!(!text.starts_with("tmpcred_o_"));
            return Refused;
        };
        assert_eq!(hash == known, text == good, "another token has this hash");
        let moved = OpaqueToken { hash, ..kept.clone() };
        assert_eq!(seal.open(&moved).is_some(), text == good);
        Fate::accepted_if(text == good)
    });
}

#[test]
fn nonce() {
    let issuer = Issuer::parse("https://broker.example").unwrap();
    let nonces = Nonces::new(&root_key(), &issuer);
    let good = nonces.give(Place::Token, NOW);
    let known = good.clone();
    hold("nonce", [good.into_bytes()], move |input| {
        let Ok(text) = std::str::from_utf8(input) else { return Refused };
        assert_eq!(nonces.accept(Place::Token, text, NOW), text == known);
        assert!(!nonces.accept(Place::Resource, text, NOW));
        assert!(!nonces.accept(Place::Token, text, OffsetDateTime::UNIX_EPOCH));
        Fate::accepted_if(text == known)
    });
}

#[test]
fn network() {
    hold("network", ["10.0.0.0/8", "::1", "2001:db8::/32"].map(|seed| seed.into()), |input| {
        let Ok(text) = std::str::from_utf8(input) else { return Refused };
        let Ok(network) = text.parse::<Network>() else { return Refused };
        let first: IpAddr = text.split('/').next().unwrap().parse().unwrap();
        // Peers have no addresses of IPv4 in IPv6: they are taken for what they are.
        let plain = first.to_canonical() == first;
        assert_eq!(network.contains(first), plain, "its own address");
        Accepted
    });
}
