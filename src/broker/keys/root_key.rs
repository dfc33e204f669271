//! The root key: what all seals of a database follow from. It rests in the database, sealed
//! under each key-encryption key that opens it, so that these can be changed and nothing else
//! has to be sealed anew.

use aws_lc_rs::hmac;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::sealing::{self, KEY_LEN};
use super::{Kek, StoredKey, no_randomness};
use crate::broker::audit::micros;
use crate::broker::audit::seal::Seal;
use crate::broker::store::{Effect, Store, Unit};
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// What is said of a key-encryption key that is of no use here.
const CLOSED: &str = "the key-encryption key does not open this database";

/// How often it is looked again which one there is, because another process was quicker.
const TRIES: usize = 8;

/// The key that seals the signing keys, and that all other seals follow from.
#[derive(Clone, Debug)]
pub struct RootKey {
    bytes: Secret<[u8; KEY_LEN]>,
    id: String,
}

/// The root key as it rests under one of the key-encryption keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedRoot {
    /// Its place among those.
    pub slot: u32,
    /// The name of the key-encryption key.
    pub kek_id: String,
    /// Nonce, ciphertext and tag of AES-256-GCM.
    pub sealed: Vec<u8>,
    /// Since when.
    pub added_at: OffsetDateTime,
}

impl RootKey {
    /// A root key of these bytes.
    pub fn new(bytes: Secret<[u8; KEY_LEN]>) -> Self {
        let id = sealing::id(&bytes);
        Self { bytes, id }
    }

    /// A fresh one.
    ///
    /// # Errors
    /// Where the system has no random numbers.
    pub fn random() -> Result<Self> {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        aws_lc_rs::rand::fill(bytes.as_mut_slice()).map_err(|_| no_randomness())?;
        Ok(Self::new(Secret::new(*bytes)))
    }

    /// The one of this database.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where this key-encryption key does not open it, or no broker was
    /// started on it yet.
    pub async fn open(store: &dyn Store, kek: &Kek) -> Result<Self> {
        Self::find(store, kek).await?.ok_or_else(|| {
            Error::new(ErrorKind::Config, "the database has no keys yet")
                .hint("start the broker on it once: it makes them")
        })
    }

    /// The same; a database in which nothing is sealed yet has one from now on.
    ///
    /// # Errors
    /// As with [`RootKey::open`].
    pub async fn open_or_make(store: &dyn Store, kek: &Kek, now: OffsetDateTime) -> Result<Self> {
        for _ in 0..TRIES {
            if let Some(found) = Self::find(store, kek).await? {
                return Ok(found);
            }
            let made = Self::random()?;
            let root = made.sealed_under(kek, 0, now)?;
            let first = Effect::AddRoot { root, by: kek.id().into() };
            let done = store.commit(&[Unit::default().with(first)]).await;
            match done {
                Ok(outcomes) if outcomes.iter().all(|one| one.is_committed()) => return Ok(made),
                Ok(_) => {}
                // Another process has sealed something meanwhile, by the one that it made.
                Err(_) if !store.sealed_roots().await?.is_empty() => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(ErrorKind::Other, "other processes change the keys all the time")
            .hint("start it again"))
    }

    /// `None` where nothing is sealed yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where this key-encryption key does not open it;
    /// [`ErrorKind::Verification`] where all keys are gone.
    pub async fn find(store: &dyn Store, kek: &Kek) -> Result<Option<Self>> {
        // In this order: keys are sealed by one that is there.
        let keys = store.keys().await?;
        let sealed = store.sealed_roots().await?;
        if !sealed.is_empty() {
            return Self::among(&sealed, kek).map(Some);
        }
        // Before there were root keys, the key-encryption key was in its place, and so it is still
        // in a database from then.
        match keys.iter().find(|key| key.sealed_by != kek.id()) {
            // With records and without keys, somebody has taken them away.
            _ if keys.is_empty() && store.size().await? > 0 => {
                Err(Error::new(ErrorKind::Verification, "the keys of this database are gone")
                    .because_of("there are records of a broker, and nothing that they were sealed by")
                    .hint("keep the database as it is, and restore a backup"))
            }
            _ if keys.is_empty() => Ok(None),
            None => Ok(Some(Self::new(kek.bytes().clone()))),
            Some(other) => Err(closed(kek, &other.sealed_by)
                .hint("where that is the right one, the root key is gone: restore a backup of the database")),
        }
    }

    /// The one that is sealed under this key-encryption key.
    pub(super) fn among(sealed: &[SealedRoot], kek: &Kek) -> Result<Self> {
        let Some(found) = sealed.iter().find(|one| one.kek_id == kek.id()) else {
            let needed: Vec<_> = sealed.iter().map(|one| one.kek_id.as_str()).collect();
            return Err(closed(kek, &needed.join(" or ")));
        };
        let plain = sealing::open(kek.bytes(), bound_to(found), &found.sealed)?;
        let bytes =
            plain.and_then(|plain| <[u8; KEY_LEN]>::try_from(plain.expose().as_slice()).ok());
        bytes.map(|bytes| Self::new(Secret::new(bytes))).ok_or_else(|| {
            Error::new(ErrorKind::Config, CLOSED)
                .because_of(format!("what it holds for {} was changed", kek.id()))
                .hint("use another key-encryption key that opens it, remove this one and add it again; or restore a backup")
        })
    }

    /// How it rests under a key-encryption key, in this place.
    pub(in crate::broker) fn sealed_under(
        &self,
        kek: &Kek,
        slot: u32,
        now: OffsetDateTime,
    ) -> Result<SealedRoot> {
        let one =
            SealedRoot { slot, kek_id: kek.id().to_string(), sealed: Vec::new(), added_at: now };
        let plain = Secret::new(self.bytes.expose().to_vec());
        Ok(SealedRoot { sealed: sealing::seal(kek.bytes(), bound_to(&one), &plain)?, ..one })
    }

    /// The name by which the store tells which one sealed a key. In a database from before there
    /// were root keys it is that of the key-encryption key.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What the end of the audit log is sealed with.
    pub fn seal_of_log(&self) -> Seal {
        Seal::new(self.derive("the seal of the audit log"))
    }

    /// A key for something else, which whoever has this one can derive, and which tells
    /// nothing of it.
    pub fn derive(&self, purpose: &str) -> hmac::Key {
        let own = hmac::Key::new(hmac::HMAC_SHA256, self.bytes.expose());
        let derived = hmac::sign(&own, format!("tmpcred broker: key for {purpose}").as_bytes());
        hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())
    }

    /// The same key, sealed with all that it says of itself.
    pub(super) fn seal(&self, key: StoredKey, plain: &Secret<Vec<u8>>) -> Result<StoredKey> {
        let sealed = sealing::seal(&self.bytes, as_it_is(&key), plain)?;
        Ok(StoredKey { sealed, sealed_by: self.id.clone(), ..key })
    }

    pub(super) fn unseal(&self, key: &StoredKey) -> Result<Secret<Vec<u8>>> {
        if key.sealed_by != self.id {
            return Err(Error::new(
                ErrorKind::Config,
                "the key-encryption key is not the one that the signing keys are sealed with",
            )
            .because_of(format!("it is {}; {} is needed", self.id, key.sealed_by))
            .hint(
                "start the broker with the key-encryption key that this database was made with",
            ));
        }
        sealing::open(&self.bytes, as_it_is(key), &key.sealed)?.ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("the signing key {} cannot be unsealed", key.kid))
                .because_of("what the database holds was changed")
                .hint("restore a backup of the database")
        })
    }
}

fn closed(kek: &Kek, needed: &str) -> Error {
    Error::new(ErrorKind::Config, CLOSED)
        .because_of(format!("it is {}; {needed} is needed", kek.id()))
        .hint("name the key-encryption key that this database was made with, or one that was added to it since")
}

/// What the root key is bound to besides the key-encryption key.
fn bound_to(one: &SealedRoot) -> Vec<u8> {
    format!("tmpcred broker root key v1\0{}\0{}", one.kek_id, micros(one.added_at)).into_bytes()
}

/// What a sealed key is bound to besides the root key, so that it cannot be passed off as
/// another one, and one that was revoked not as one that signs.
fn as_it_is(key: &StoredKey) -> Vec<u8> {
    format!(
        "tmpcred broker key v2\0{}\0{}\0{}\0{}\0{}\0{}",
        key.purpose.as_str(),
        key.kid,
        key.algorithm,
        key.state.as_str(),
        micros(key.created_at),
        micros(key.changed_at),
    )
    .into_bytes()
}
