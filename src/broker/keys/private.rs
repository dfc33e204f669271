//! Private keys, read once.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256,
};

use super::SigningAlgorithm;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// A private key, as what signs takes it. `jsonwebtoken` reads keys anew for each token, which
/// takes longer than to sign with one.
pub(super) enum PrivateKey {
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
    Rs256(RsaKeyPair),
}

impl PrivateKey {
    /// Reads one of this algorithm.
    ///
    /// # Errors
    /// Where it is none.
    pub(super) fn from_pkcs8(algorithm: SigningAlgorithm, pkcs8: &Secret<Vec<u8>>) -> Result<Self> {
        let document = pkcs8.expose();
        let read = match algorithm {
            SigningAlgorithm::Es256 => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document)
                    .map(Self::Es256)
            }
            SigningAlgorithm::EdDsa => Ed25519KeyPair::from_pkcs8(document).map(Self::EdDsa),
            SigningAlgorithm::Rs256 => RsaKeyPair::from_pkcs8(document).map(Self::Rs256),
        };
        read.map_err(|_| {
            let what = format!("a signing key is not one for {}", algorithm.name());
            Error::new(ErrorKind::Config, what)
        })
    }

    /// The signature over a message, as RFC 7518 section 3 and RFC 8037 section 3.1 have it.
    ///
    /// # Errors
    /// Where the system gives no random numbers.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let random = SystemRandom::new();
        let signed = match self {
            Self::Es256(key) => key.sign(&random, message).map(|signed| signed.as_ref().to_vec()),
            Self::EdDsa(key) => Ok(key.sign(message).as_ref().to_vec()),
            Self::Rs256(key) => {
                let mut signed = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signed).map(|()| signed)
            }
        };
        signed.map_err(|_| Error::new(ErrorKind::Other, "a token cannot be signed"))
    }
}
