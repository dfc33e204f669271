//! The algorithms by which tokens are signed.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use jsonwebtoken::{Algorithm, EncodingKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::no_randomness;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// How a PKCS #8 document (RFC 5208) of an RSA key begins, but for its length: version 0
/// and the algorithm. What follows the length of an octet string is the key (RFC 8017).
const RSA_BEGINS: [u8; 18] =
    [2, 1, 0, 0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 1, 5, 0];

/// An algorithm by which tokens are signed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum SigningAlgorithm {
    /// ECDSA with P-256 and SHA-256.
    #[default]
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// RSA with PKCS #1 v1.5 and SHA-256, with keys of 2048 bits, for those who know
    /// nothing else.
    #[serde(rename = "RS256")]
    Rs256,
}

impl SigningAlgorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Es256, Self::EdDsa, Self::Rs256];

    /// Its name, as JWTs have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
        }
    }

    /// The one with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    pub(super) fn of_jwt(self) -> Algorithm {
        match self {
            Self::Es256 => Algorithm::ES256,
            Self::EdDsa => Algorithm::EdDSA,
            Self::Rs256 => Algorithm::RS256,
        }
    }

    /// A new private key (PKCS #8).
    pub(super) fn generate(self) -> Result<Secret<Vec<u8>>> {
        let random = SystemRandom::new();
        let pkcs8 = match self {
            Self::Es256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
                .map(|pkcs8| pkcs8.as_ref().to_vec()),
            Self::EdDsa => {
                Ed25519KeyPair::generate_pkcs8v1(&random).map(|pkcs8| pkcs8.as_ref().to_vec())
            }
            Self::Rs256 => RsaKeyPair::generate(KeySize::Rsa2048)
                .and_then(|pair| AsDer::<Pkcs8V1Der<'_>>::as_der(&pair))
                .map(|pkcs8| pkcs8.as_ref().to_vec()),
        };
        pkcs8.map(Secret::new).map_err(|_| no_randomness())
    }

    /// The private key, as what signs JWTs takes it.
    pub(super) fn encoding_key(self, pkcs8: &Secret<Vec<u8>>) -> Result<EncodingKey> {
        let pkcs8 = pkcs8.expose();
        Ok(match self {
            Self::Es256 => EncodingKey::from_ec_der(pkcs8),
            Self::EdDsa => EncodingKey::from_ed_der(pkcs8),
            Self::Rs256 => {
                EncodingKey::from_rsa_der(rsa_private_key(pkcs8).ok_or_else(|| {
                    Error::new(ErrorKind::Config, "a signing key is not an RSA key")
                })?)
            }
        })
    }
}

/// The RSAPrivateKey in a PKCS #8 document.
fn rsa_private_key(pkcs8: &[u8]) -> Option<&[u8]> {
    // Lengths of keys of 2048 bits and more take two bytes.
    let rest = pkcs8.strip_prefix(&[0x30, 0x82])?.get(2..)?;
    let rest = rest.strip_prefix(&RSA_BEGINS)?.strip_prefix(&[4, 0x82])?;
    let (length, key) = rest.split_first_chunk::<2>()?;
    key.get(..usize::from(u16::from_be_bytes(*length)))
}

/// Some of them, one of which is the usual one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Algorithms {
    usual: SigningAlgorithm,
    eddsa: bool,
    es256: bool,
    rs256: bool,
}

impl Algorithms {
    /// The usual one, and others.
    pub fn new(
        usual: SigningAlgorithm,
        others: impl IntoIterator<Item = SigningAlgorithm>,
    ) -> Self {
        let mut all = Self { usual, ..Self::default() };
        for other in others {
            match other {
                SigningAlgorithm::Es256 => all.es256 = true,
                SigningAlgorithm::EdDsa => all.eddsa = true,
                SigningAlgorithm::Rs256 => all.rs256 = true,
            }
        }
        all
    }

    /// The usual one.
    pub fn usual(self) -> SigningAlgorithm {
        self.usual
    }

    /// Whether this is one of them.
    pub fn contains(self, algorithm: SigningAlgorithm) -> bool {
        algorithm == self.usual
            || match algorithm {
                SigningAlgorithm::Es256 => self.es256,
                SigningAlgorithm::EdDsa => self.eddsa,
                SigningAlgorithm::Rs256 => self.rs256,
            }
    }

    /// All of them.
    pub fn iter(self) -> impl Iterator<Item = SigningAlgorithm> {
        SigningAlgorithm::ALL.into_iter().filter(move |algorithm| self.contains(*algorithm))
    }
}
