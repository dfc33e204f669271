//! Keys, and what they sign: header and claims to the letter.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value, json};

/// A key pair.
pub(super) struct Key {
    private: EncodingKey,
    algorithm: Algorithm,
    pub(super) kid: String,
    /// The public half, as DER.
    pub(super) der: Vec<u8>,
}

impl Key {
    /// For ES256.
    pub(super) fn new(kid: &str) -> Self {
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref()).unwrap();
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        Self {
            private: EncodingKey::from_ec_der(pkcs8.as_ref()),
            algorithm: Algorithm::ES256,
            kid: kid.into(),
            der: der.as_ref().to_vec(),
        }
    }

    /// For RS256.
    pub(super) fn rsa(kid: &str) -> Self {
        let pair = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
        let pkcs8: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        Self {
            // Of PKCS #8 only the key itself is wanted, behind what names its kind.
            private: EncodingKey::from_rsa_der(&pkcs8.as_ref()[26..]),
            algorithm: Algorithm::RS256,
            kid: kid.into(),
            der: der.as_ref().to_vec(),
        }
    }

    /// The public half.
    pub(super) fn jwk(&self) -> Value {
        let mut jwk = serde_json::to_value(self.bare()).unwrap();
        jwk["kid"] = json!(self.kid);
        jwk
    }

    fn bare(&self) -> Jwk {
        Jwk::from_encoding_key(&self.private, self.algorithm).unwrap()
    }

    /// Its thumbprint.
    pub(super) fn thumbprint(&self) -> String {
        self.bare().thumbprint(ThumbprintHash::SHA256).unwrap()
    }

    /// The public half, as PEM.
    pub(super) fn pem(&self) -> String {
        pem("PUBLIC KEY", &self.der)
    }

    /// Signs header and claims as they are.
    pub(super) fn sign(&self, header: &str, claims: &str) -> String {
        let message = message(header, claims);
        let signature = crypto::sign(message.as_bytes(), &self.private, self.algorithm).unwrap();
        format!("{message}.{signature}")
    }

    /// A header with its id, and changes.
    pub(super) fn header(&self, changes: Value) -> String {
        let alg = format!("{:?}", self.algorithm);
        merged(json!({"alg": alg, "kid": self.kid, "typ": "JWT"}), changes).to_string()
    }
}

fn pem(what: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {what}-----\n{}\n-----END {what}-----\n", lines.join("\n"))
}

/// What is signed.
pub(super) fn message(header: &str, claims: &str) -> String {
    [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".")
}

/// Signed by this secret, with HS256.
pub(super) fn hs256(header: &str, claims: &str, secret: &[u8]) -> String {
    let message = message(header, claims);
    let key = EncodingKey::from_secret(secret);
    let signature = crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

/// The one object with the members of the other over its own; `null` takes one away.
pub(super) fn merged(mut object: Value, changes: Value) -> Value {
    let members = object.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => members.remove(name),
            value => members.insert(name.clone(), value.clone()),
        };
    }
    object
}
