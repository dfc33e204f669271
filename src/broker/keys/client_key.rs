//! A key by which the broker shows who it is, where it is a client of somebody else.

use std::path::Path;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair,
};
use jsonwebtoken::{EncodingKey, Header};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;

use super::SigningAlgorithm;
use crate::broker::private_file;
use crate::error::{Error, ErrorKind, Result};
use crate::host::env::Env;
use crate::secret::Secret;

/// How large its file may be, in bytes.
const MAX: u64 = 16 * 1024;

/// A private key of a client.
pub(in crate::broker) struct ClientKey {
    algorithm: SigningAlgorithm,
    key: EncodingKey,
    id: Option<String>,
}

impl ClientKey {
    /// Reads one (PKCS #8, PEM), which has this id where the server wants to be told.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where others can read it, or it is no key of a kind that is known.
    pub(in crate::broker) fn read(path: &Path, id: Option<String>, env: &Env) -> Result<Self> {
        let name = format!("the key file {}", path.display());
        let wrong = |what: &str| Error::new(ErrorKind::Config, format!("{name} {what}"));
        let bytes = private_file::read(path, MAX, &name, env)?;
        let bytes = bytes.ok_or_else(|| wrong("does not exist"))?;
        let unknown = || {
            wrong("holds no private key that is known")
                .hint("make one with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`, or of Ed25519, or of RSA with 2048 bits or more")
        };
        let der = PrivatePkcs8KeyDer::from_pem_slice(&bytes).map_err(|_| unknown())?;
        let pkcs8 = Secret::new(der.secret_pkcs8_der().to_vec());
        let der = pkcs8.expose();
        let algorithm = if EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).is_ok() {
            SigningAlgorithm::Es256
        } else if Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).is_ok() {
            SigningAlgorithm::EdDsa
        } else if RsaKeyPair::from_pkcs8(der).is_ok() {
            SigningAlgorithm::Rs256
        } else {
            return Err(unknown());
        };
        Ok(Self { algorithm, key: algorithm.encoding_key(&pkcs8)?, id })
    }

    /// A JWT that says this.
    pub(in crate::broker) fn sign(&self, claims: &Value) -> Result<Secret<String>> {
        let header = Header { kid: self.id.clone(), ..Header::new(self.algorithm.of_jwt()) };
        jsonwebtoken::encode(&header, claims, &self.key).map(Secret::new).map_err(|cause| {
            Error::new(ErrorKind::Other, "the broker's key as a client cannot sign").because(cause)
        })
    }
}
