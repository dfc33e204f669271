//! Each algorithm with a key of its own, and with those of others.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use jsonwebtoken::jwk::Jwk;

use super::*;
use crate::oidc::keys::tests::es256;

/// A fresh key for an algorithm: the private half, and the public one as a JWK.
fn fresh(algorithm: Algorithm) -> (EncodingKey, Value) {
    let random = SystemRandom::new();
    let private = match algorithm {
        Algorithm::ES256 => es256("k").0,
        Algorithm::ES384 => {
            let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random);
            EncodingKey::from_ec_der(key.unwrap().as_ref())
        }
        Algorithm::EdDSA => {
            let key = Ed25519KeyPair::generate_pkcs8v1(&random).unwrap();
            EncodingKey::from_ed_der(key.as_ref())
        }
        _ => {
            let key = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
            let der: Pkcs8V1Der<'_> = key.as_der().unwrap();
            // Of PKCS #8 only the key itself is wanted, behind what names its kind.
            EncodingKey::from_rsa_der(&der.as_ref()[26..])
        }
    };
    let mut jwk =
        serde_json::to_value(Jwk::from_encoding_key(&private, algorithm).unwrap()).unwrap();
    jwk["kid"] = json!("k");
    jwk.as_object_mut().unwrap().remove("alg");
    (private, jwk)
}

fn keys(jwks: &[&Value]) -> Keys {
    Keys::parse(json!({ "keys": jwks }).to_string().as_bytes()).unwrap()
}

fn token(algorithm: Algorithm, key: &EncodingKey) -> String {
    let mut header = Header::new(algorithm);
    header.kid = Some("k".into());
    sign(header, &claims(), key)
}

#[test]
fn each_is_accepted_by_its_own_key_alone() {
    let all = [Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA, Algorithm::RS256];
    let made: Vec<_> = all.map(fresh).into();
    let others: Vec<_> = all.map(fresh).into();
    for algorithm in ALGORITHMS {
        let own = all.iter().position(|a| a == algorithm).unwrap_or(3);
        let token = token(*algorithm, &made[own].0);
        for (number, (_, jwk)) in made.iter().enumerate() {
            let accepted = try_verify(&token, &keys(&[jwk])).is_ok();
            assert_eq!(accepted, number == own, "{algorithm:?} {number}");
        }
        // A stranger's key of the same kind, and the right one after it.
        let (_, stranger) = &others[own];
        assert!(refused(&token, &keys(&[stranger])).contains("signature"), "{algorithm:?}");
        assert!(try_verify(&token, &keys(&[stranger, &made[own].1])).is_ok(), "{algorithm:?}");
        // One bit of the signature, of the payload and of the header.
        let parts: Vec<&str> = token.split('.').collect();
        for part in 0..3 {
            let mut bytes = URL_SAFE_NO_PAD.decode(parts[part]).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            let changed = URL_SAFE_NO_PAD.encode(bytes);
            let mut parts = parts.clone();
            parts[part] = &changed;
            assert!(try_verify(&parts.join("."), &keys(&[&made[own].1])).is_err(), "{part}");
        }
    }
}

#[test]
fn of_two_keys_with_one_name_the_right_one_counts() {
    let (private, right) = fresh(Algorithm::ES256);
    let (_, other) = fresh(Algorithm::ES256);
    let (_, of_another_kind) = fresh(Algorithm::EdDSA);
    let mut for_another = other.clone();
    for_another["alg"] = json!("ES384");
    let token = token(Algorithm::ES256, &private);
    for first in [&other, &of_another_kind, &for_another] {
        assert!(try_verify(&token, &keys(&[first, &right])).is_ok(), "{first}");
        assert!(try_verify(&token, &keys(&[&right, first])).is_ok(), "{first}");
        assert!(try_verify(&token, &keys(&[first])).is_err(), "{first}");
    }
}

#[test]
fn a_token_does_not_bring_its_own_key() {
    let (_, issuers) = fresh(Algorithm::ES256);
    let (own, own_public) = fresh(Algorithm::ES256);
    for kid in [Some("k"), None] {
        let mut header = header(kid);
        header.jwk = Some(serde_json::from_value(own_public.clone()).unwrap());
        let token = sign(header, &claims(), &own);
        assert!(refused(&token, &keys(&[&issuers])).contains("signature"));
        assert!(try_verify(&token, &keys(&[&own_public])).is_ok(), "it is good but for the key");
    }
}

#[test]
fn a_public_key_is_no_shared_secret() {
    let (_, jwk) = fresh(Algorithm::RS256);
    let modulus = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
    for secret in
        [modulus.as_slice(), jwk["n"].as_str().unwrap().as_bytes(), jwk.to_string().as_bytes()]
    {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let token = token(algorithm, &EncodingKey::from_secret(secret));
            let says = format!("its algorithm is '{algorithm:?}'");
            assert!(refused(&token, &keys(&[&jwk])).contains(&says));
        }
    }
}
