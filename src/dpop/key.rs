//! The key that tokens are bound to, at the client.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Target, ath};
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// The algorithm with which proofs are made: the one that every server knows.
const ALGORITHM: Algorithm = Algorithm::ES256;

/// A key pair of which the private half stays on this device.
pub struct DeviceKey {
    private: EncodingKey,
    public: Jwk,
    thumbprint: String,
}

impl std::fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceKey").field("thumbprint", &self.thumbprint).finish_non_exhaustive()
    }
}

/// What a proof is for.
#[derive(Clone, Copy, Debug)]
pub struct Signing<'a> {
    /// The method of the request.
    pub method: &'a str,
    /// Where it goes.
    pub target: &'a Target,
    /// The token that it shows.
    pub token: Option<&'a Secret<String>>,
    /// The nonce that the server gave.
    pub nonce: Option<&'a str>,
}

/// The claims of a proof (RFC 9449 section 4.2).
#[derive(Serialize)]
struct Claims<'a> {
    jti: Uuid,
    htm: &'a str,
    htu: &'a str,
    iat: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ath: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<&'a str>,
}

impl DeviceKey {
    /// Makes the private half of a key (PKCS #8), to be kept.
    pub fn generate() -> Result<Secret<Vec<u8>>> {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
            .map_err(|_| Error::new(ErrorKind::Other, "the system gives no random numbers"))?;
        Ok(Secret::new(pkcs8.as_ref().to_vec()))
    }

    /// Takes a private half that was kept; `None` where it is none. What else there is of
    /// the key is derived from it.
    pub fn from_pkcs8(pkcs8: &Secret<Vec<u8>>) -> Option<Self> {
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.expose()).ok()?;
        let private = EncodingKey::from_ec_der(pkcs8.expose());
        let public = Jwk::from_encoding_key(&private, ALGORITHM).ok()?;
        let thumbprint = public.thumbprint(ThumbprintHash::SHA256).ok()?;
        Some(Self { private, public, thumbprint })
    }

    /// What identifies it (RFC 7638), and tells nothing of the private half.
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// Makes a proof, good for one request.
    pub fn sign(&self, request: Signing<'_>, now: OffsetDateTime) -> Result<Secret<String>> {
        let mut header = Header::new(ALGORITHM);
        header.typ = Some("dpop+jwt".into());
        header.jwk = Some(self.public.clone());
        let claims = Claims {
            jti: Uuid::new_v4(),
            htm: request.method,
            htu: request.target.as_str(),
            iat: now.unix_timestamp(),
            ath: request.token.map(|token| ath(token.expose())),
            nonce: request.nonce,
        };
        jsonwebtoken::encode(&header, &claims, &self.private).map(Secret::new).map_err(|cause| {
            Error::new(ErrorKind::Other, "a DPoP proof cannot be signed").because(cause)
        })
    }
}
