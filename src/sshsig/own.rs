//! The key of this program's own with which people sign.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use ssh_key::Algorithm;
use ssh_key::public::{Ed25519PublicKey, KeyData};

use super::{PublicKey, Signature};
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// A pair of Ed25519 of which the private half stays in the store of this device.
pub struct OwnKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl std::fmt::Debug for OwnKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnKey").field("public", &self.public).finish_non_exhaustive()
    }
}

impl OwnKey {
    /// Makes the private half of a key (PKCS #8), to be kept.
    pub fn generate() -> Result<Secret<Vec<u8>>> {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| Error::new(ErrorKind::Other, "the system gives no random numbers"))?;
        Ok(Secret::new(pkcs8.as_ref().to_vec()))
    }

    /// Takes a private half that was kept; `None` where it is none. What else there is of
    /// the key is derived from it.
    pub fn from_pkcs8(pkcs8: &Secret<Vec<u8>>) -> Option<Self> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.expose()).ok()?;
        let bytes: [u8; Ed25519PublicKey::BYTE_SIZE] =
            pair.public_key().as_ref().try_into().ok()?;
        let public = PublicKey::of(KeyData::Ed25519(Ed25519PublicKey(bytes))).ok()?;
        Some(Self { pair, public })
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> Result<Signature> {
        Signature::make(&self.public, message, |signed| {
            let raw = self.pair.sign(signed);
            ssh_key::Signature::new(Algorithm::Ed25519, raw.as_ref()).map_err(|cause| {
                Error::new(ErrorKind::Other, "a signature cannot be made").because(cause)
            })
        })
    }
}
