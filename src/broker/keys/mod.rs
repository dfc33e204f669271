//! The keys with which the broker signs, and how they rest: sealed under a
//! key-encryption key (KEK) that is kept elsewhere.

mod checkpoint;
mod kek;

use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use time::OffsetDateTime;

pub use checkpoint::CheckpointKeys;
pub use kek::{KEK_LEN, Kek};

use super::store::{Effect, Outcome, Store, Unit};
use crate::error::{Error, ErrorKind, Result};
use crate::host::clock::Clock;
use crate::oidc::Keys;
use crate::secret::Secret;

/// How long others may keep the published keys. A new key has to be published
/// for longer than this before it signs.
pub const JWKS_MAX_AGE: std::time::Duration = std::time::Duration::from_secs(300);

/// The one algorithm with which new keys sign.
const ALGORITHM: Algorithm = Algorithm::ES256;
const ALGORITHM_NAME: &str = "ES256";

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
    /// Made, and not shown to anybody.
    Prepared,
    /// Shown in the JWKS, and not signing yet.
    Published,
    /// Signing.
    Active,
    /// No longer signing. What it signed is still good.
    Retired,
    /// What it signed is good no more.
    Revoked,
}

impl KeyState {
    const ALL: [Self; 5] =
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

    /// Whether a key in this state is in the JWKS: those that sign, those that
    /// will, and those whose tokens may still be about.
    pub fn is_public(self) -> bool {
        matches!(self, Self::Published | Self::Active | Self::Retired)
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
    /// Which key-encryption key sealed it.
    pub kek_id: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it came to its present state.
    pub changed_at: OffsetDateTime,
}

impl StoredKey {
    fn signs_access_tokens(&self) -> bool {
        self.purpose == Purpose::AccessToken && self.state == KeyState::Active
    }
}

fn no_randomness() -> Error {
    Error::new(ErrorKind::Other, "the system gives no random numbers")
}

/// A key pair that signs JWTs.
pub struct SigningKey {
    kid: String,
    private: EncodingKey,
    public: Jwk,
}

impl SigningKey {
    /// Makes a key pair; returns the private half (PKCS #8) besides, to be sealed.
    pub fn generate() -> Result<(Self, Secret<Vec<u8>>)> {
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
                .map_err(|_| no_randomness())?;
        let pkcs8 = Secret::new(pkcs8.as_ref().to_vec());
        Ok((Self::from_pkcs8(&pkcs8)?, pkcs8))
    }

    /// Takes a private key. Its public half and its id are derived from it, never
    /// read from elsewhere.
    fn from_pkcs8(pkcs8: &Secret<Vec<u8>>) -> Result<Self> {
        let broken = |_| Error::new(ErrorKind::Config, "a signing key is not a P-256 key");
        let private = EncodingKey::from_ec_der(pkcs8.expose());
        let mut public = Jwk::from_encoding_key(&private, ALGORITHM).map_err(broken)?;
        let kid = public.thumbprint(ThumbprintHash::SHA256).map_err(broken)?;
        public.common.key_id = Some(kid.clone());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        Ok(Self { kid, private, public })
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
        let mut header = Header::new(ALGORITHM);
        header.typ = Some(typ.to_string());
        header.kid = Some(self.kid.clone());
        jsonwebtoken::encode(&header, claims, &self.private).map(Secret::new).map_err(|cause| {
            Error::new(ErrorKind::Other, "a token cannot be signed").because(cause)
        })
    }
}

/// The keys of a running broker.
#[derive(Clone)]
pub struct KeyRing {
    active: Arc<SigningKey>,
    jwks: Arc<[u8]>,
    verifying: Arc<Keys>,
}

impl KeyRing {
    /// Unseals the keys of the store, and makes the first one where there is none.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the KEK is not the right one, or a key or what the
    /// store says of it was tampered with.
    pub async fn open(store: &dyn Store, kek: &Kek, clock: &dyn Clock) -> Result<Self> {
        // All are unsealed, whatever they are for: a wrong KEK never adds one, and a
        // change of one that is not used is noticed as well.
        let mut keys = unseal_all(store, kek).await?;
        if !keys.iter().any(|(key, _)| key.signs_access_tokens()) {
            let (key, pkcs8) = SigningKey::generate()?;
            let now = clock.now();
            let made = StoredKey {
                kid: key.kid.clone(),
                purpose: Purpose::AccessToken,
                algorithm: ALGORITHM_NAME.into(),
                state: KeyState::Active,
                sealed: Vec::new(),
                kek_id: kek.id().into(),
                created_at: now,
                changed_at: now,
            };
            if perform(store, Effect::AddKey(kek.seal(made, &pkcs8)?)).await? {
                tracing::info!(kid = key.kid, "made the first signing key");
            }
            // Another process may have been quicker.
            keys = unseal_all(store, kek).await?;
        }
        Self::new(&keys)
    }

    fn new(keys: &[(StoredKey, Secret<Vec<u8>>)]) -> Result<Self> {
        let mut active = None;
        let mut public = Vec::new();
        let own = |key: &StoredKey| key.purpose == Purpose::AccessToken && key.state.is_public();
        for (key, private) in keys.iter().filter(|(key, _)| own(key)) {
            let unsealed = SigningKey::from_pkcs8(private)?;
            public.push(unsealed.public.clone());
            if key.signs_access_tokens() {
                active = Some(unsealed);
            }
        }
        let active = active.ok_or_else(|| {
            Error::new(ErrorKind::Config, "the database has no active signing key")
        })?;
        let jwks = serde_json::to_vec(&JwkSet { keys: public }).map_err(|cause| {
            Error::new(ErrorKind::Other, "the public keys cannot be written").because(cause)
        })?;
        // Read as everybody else reads them.
        let verifying = Arc::new(Keys::parse(&jwks)?);
        Ok(Self { active: Arc::new(active), jwks: jwks.into(), verifying })
    }

    /// The key that signs.
    pub fn active(&self) -> &SigningKey {
        &self.active
    }

    /// The public keys, to verify the broker's own tokens by.
    pub fn verifying(&self) -> &Keys {
        &self.verifying
    }

    /// The public keys as a JWKS (RFC 7517 section 5).
    pub fn jwks(&self) -> &[u8] {
        &self.jwks
    }
}

/// All keys of the store with their private halves. Those whose seals do not cover
/// their state are sealed anew.
async fn unseal_all(store: &dyn Store, kek: &Kek) -> Result<Vec<(StoredKey, Secret<Vec<u8>>)>> {
    let mut keys = Vec::new();
    for key in store.keys().await? {
        let unsealed = kek.unseal(&key)?;
        if unsealed.outdated {
            let after = kek.seal(key.clone(), &unsealed.private)?;
            // Where it is not what it was, another process has done it.
            if perform(store, Effect::ChangeKey { before: key.clone(), after }).await? {
                tracing::info!(kid = key.kid, "sealed a signing key together with its state");
            }
        }
        keys.push((key, unsealed.private));
    }
    Ok(keys)
}

async fn perform(store: &dyn Store, effect: Effect) -> Result<bool> {
    let unit = Unit { records: Vec::new(), effects: vec![effect] };
    Ok(store.commit(&[unit]).await?.into_iter().all(Outcome::is_committed))
}

#[cfg(test)]
mod tests;
