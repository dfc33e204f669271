//! The keys with which the broker signs, and how they rest: sealed under a root key, which is
//! sealed under a key-encryption key (KEK) that is kept elsewhere.

mod algorithm;
mod checkpoint;
mod client_key;
mod keeper;
mod kek;
pub mod keks;
mod life;
pub mod manage;
mod private;
mod ring;
mod root_key;
mod sealing;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Header;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};
use serde::Serialize;
use time::OffsetDateTime;

pub use algorithm::{Algorithms, SigningAlgorithm};
pub use checkpoint::CheckpointKeys;
pub(in crate::broker) use client_key::ClientKey;
pub use keeper::Keeper;
pub use kek::Kek;
#[cfg(test)]
pub(crate) use life::TOKENS;
pub(in crate::broker) use life::is_shown;
pub use life::{JWKS_MAX_AGE, Rules, Signs};
pub use ring::{KeyRing, Snapshot};
pub use root_key::{RootKey, SealedRoot};
pub use sealing::KEY_LEN;

use private::PrivateKey;

use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// What a key is for. It is part of what seals the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It signs access tokens.
    AccessToken,
    /// It signs checkpoints of the audit log.
    Checkpoint,
    /// It signs something else.
    #[cfg(test)]
    Another,
}

impl Purpose {
    const ALL: &[Self] = &[
        Self::AccessToken,
        Self::Checkpoint,
        #[cfg(test)]
        Self::Another,
    ];

    /// Its name in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AccessToken => "access-token",
            Self::Checkpoint => "audit-checkpoint",
            #[cfg(test)]
            Self::Another => "another",
        }
    }

    /// The purpose with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|purpose| purpose.as_str() == name)
    }
}

/// Where a key is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Shown in the JWKS, and not signing: it waits for the next rotation, or until the key
    /// that signs is revoked.
    Prepared,
    /// Shown in the JWKS, and about to sign at a time that is known.
    Published,
    /// Signing.
    Active,
    /// No longer signing. What it signed is still good.
    Retired,
    /// What it signed is good no more.
    Revoked,
}

impl KeyState {
    /// All states.
    pub const ALL: [Self; 5] =
        [Self::Prepared, Self::Published, Self::Active, Self::Retired, Self::Revoked];

    /// Its name in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Published => "published",
            Self::Active => "active",
            Self::Retired => "retired",
            Self::Revoked => "revoked",
        }
    }

    /// The state with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether a key in this state may be in the JWKS.
    pub fn is_public(self) -> bool {
        self != Self::Revoked
    }
}

/// A signing key as it rests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKey {
    /// Its id: the RFC 7638 thumbprint of its public half.
    pub kid: String,
    /// What it is for.
    pub purpose: Purpose,
    /// The algorithm, as JWTs name it.
    pub algorithm: String,
    /// Where it is in its life.
    pub state: KeyState,
    /// The private key (PKCS #8): nonce, ciphertext and tag of AES-256-GCM. What else
    /// is said of the key is bound to it.
    pub sealed: Vec<u8>,
    /// Which root key sealed it; in a database from before there were any, which key-encryption
    /// key.
    pub sealed_by: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it came to its present state.
    pub changed_at: OffsetDateTime,
}

impl StoredKey {
    /// Whether it signs access tokens by this algorithm.
    pub(super) fn signs_by(&self, algorithm: SigningAlgorithm) -> bool {
        self.is_for(Signs::Tokens(algorithm)) && self.state == KeyState::Active
    }

    /// Whether it is for that.
    fn is_for(&self, what: Signs) -> bool {
        match what {
            Signs::Tokens(algorithm) => {
                self.purpose == Purpose::AccessToken && self.algorithm == algorithm.name()
            }
            Signs::Log => self.purpose == Purpose::Checkpoint,
        }
    }
}

fn no_randomness() -> Error {
    Error::new(ErrorKind::Other, "the system gives no random numbers")
}

/// How long a signature is in a token, for all but RSA, with what stands between its parts.
const SIGNED: usize = 96;

/// Whether a command line takes this id of a key as one: what begins with a hyphen, as one
/// thumbprint of 64 does, looks like an option there, to whoever has to revoke a key in a
/// hurry.
fn can_be_typed(kid: &str) -> bool {
    !kid.starts_with('-')
}

/// A key pair that signs JWTs.
pub struct SigningKey {
    kid: String,
    algorithm: SigningAlgorithm,
    private: PrivateKey,
    public: Jwk,
}

impl SigningKey {
    /// Makes a key pair of the usual algorithm; returns the private half (PKCS #8)
    /// besides, to be sealed.
    pub fn generate() -> Result<(Self, Secret<Vec<u8>>)> {
        Self::generate_for(SigningAlgorithm::default())
    }

    /// The same for this algorithm.
    pub fn generate_for(algorithm: SigningAlgorithm) -> Result<(Self, Secret<Vec<u8>>)> {
        loop {
            let pkcs8 = algorithm.generate()?;
            let key = Self::from_pkcs8(&pkcs8, algorithm.name())?;
            if can_be_typed(&key.kid) {
                return Ok((key, pkcs8));
            }
        }
    }

    /// Takes a private key that signs by this algorithm. Its public half and its id are
    /// derived from it, never read from elsewhere.
    fn from_pkcs8(pkcs8: &Secret<Vec<u8>>, algorithm: &str) -> Result<Self> {
        let Some(algorithm) = SigningAlgorithm::from_name(algorithm) else {
            return Err(Error::new(ErrorKind::Config, "a signing key cannot be used")
                .because_of(format!("it is for {algorithm}, which this version does not know")));
        };
        let broken = |_| {
            let what = format!("a signing key is not one for {}", algorithm.name());
            Error::new(ErrorKind::Config, what)
        };
        let private = PrivateKey::from_pkcs8(algorithm, pkcs8)?;
        let encoding = algorithm.encoding_key(pkcs8)?;
        let mut public = Jwk::from_encoding_key(&encoding, algorithm.of_jwt()).map_err(broken)?;
        let kid = public.thumbprint(ThumbprintHash::SHA256).map_err(broken)?;
        public.common.key_id = Some(kid.clone());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        Ok(Self { kid, algorithm, private, public })
    }

    /// The key's id.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public half.
    pub fn public(&self) -> &Jwk {
        &self.public
    }

    /// Signs claims as a JWT of this type (its `typ`).
    pub fn sign(&self, typ: &str, claims: &impl Serialize) -> Result<Secret<String>> {
        let mut header = Header::new(self.algorithm.of_jwt());
        header.typ = Some(typ.to_string());
        header.kid = Some(self.kid.clone());
        self.sign_under(&header, claims)
    }

    /// Signs claims under this header.
    pub(in crate::broker) fn sign_under(
        &self,
        header: &impl Serialize,
        claims: &impl Serialize,
    ) -> Result<Secret<String>> {
        let unwritable =
            |cause| Error::new(ErrorKind::Other, "a token cannot be written").because(cause);
        let header = serde_json::to_vec(header).map_err(unwritable)?;
        let claims = serde_json::to_vec(claims).map_err(unwritable)?;
        // RFC 7515 section 3.1: header, payload and signature, each in base64url.
        let mut token = String::with_capacity((header.len() + claims.len()) * 4 / 3 + SIGNED);
        URL_SAFE_NO_PAD.encode_string(header, &mut token);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = self.private.sign(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(Secret::new(token))
    }
}

#[cfg(test)]
mod tests;
