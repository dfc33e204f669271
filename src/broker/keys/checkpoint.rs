//! The keys that sign checkpoints of the audit log.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use time::OffsetDateTime;

use super::{Kek, KeyState, Purpose, StoredKey, no_randomness};
use crate::broker::audit::seal::Seal;
use crate::broker::audit::{Decision, Record};
use crate::broker::store::{Effect, Outcome, Store, Unit};
use crate::credential::Principal;
use crate::error::{Error, ErrorKind, Result};
use crate::host::clock::Clock;
use crate::secret::Secret;

/// The algorithm, as JWTs would name it.
const ALGORITHM_NAME: &str = "Ed25519";

/// The keys that sign checkpoints, or have signed some.
pub struct CheckpointKeys {
    active: Option<Ed25519KeyPair>,
    public: Vec<[u8; 32]>,
    seal: Seal,
}

impl CheckpointKeys {
    /// Unseals the keys of the store, whatever they are for, and has the log sealed from
    /// now on. Makes the first key for checkpoints where there is none.
    ///
    /// # Errors
    /// As with [`KeyRing::open`](super::KeyRing::open); and where the log is not as it was
    /// left, or its key is gone.
    pub async fn open(store: &dyn Store, kek: &Kek, clock: &dyn Clock) -> Result<Self> {
        // Before anything is made: the KEK may be the wrong one.
        let keys = store.keys().await?;
        for key in &keys {
            let _ = kek.unseal(key)?;
        }
        let empty = store.size().await? == 0;
        if empty && keys.iter().any(|key| key.purpose == Purpose::AccessToken) {
            return Err(Error::new(ErrorKind::Verification, "the audit log is gone")
                .because_of("it is empty, and how the signing keys were made was in it")
                .hint("restore a backup of the database"));
        }
        store.seal_with(kek.seal_of_log()).await?;
        let found = Self::read(store, kek).await?;
        if found.active.is_some() {
            return Ok(found);
        }
        // Another one would be a new beginning, of which nobody could tell what was before.
        if store.latest_note().await?.is_some() {
            return Err(Error::new(ErrorKind::Verification, "the key of the audit log is gone")
                .because_of("there are checkpoints, and no key that signs them")
                .hint("restore a backup of the database"));
        }
        let pkcs8 =
            Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| no_randomness())?;
        let pkcs8 = Secret::new(pkcs8.as_ref().to_vec());
        let now = clock.now();
        let made = StoredKey {
            kid: kid(&public(&pair(&pkcs8)?)?),
            purpose: Purpose::Checkpoint,
            algorithm: ALGORITHM_NAME.into(),
            state: KeyState::Active,
            sealed: Vec::new(),
            kek_id: kek.id().into(),
            created_at: now,
            changed_at: now,
        };
        let made = kek.seal(made, &pkcs8)?;
        let kid = made.kid.clone();
        // Where there is something to sign already, people are to know from when on it was.
        let records = if empty { Vec::new() } else { vec![first_of(&kid, now)] };
        let unit = Unit { records, effects: vec![Effect::AddKey(made)] };
        if store.commit(&[unit]).await?.into_iter().all(Outcome::is_committed) {
            tracing::info!(kid, "made the first key for checkpoints of the audit log");
        }
        // Another process may have been quicker.
        Self::read(store, kek).await
    }

    /// Unseals the keys of the store.
    ///
    /// # Errors
    /// As with [`KeyRing::open`](super::KeyRing::open).
    pub async fn read(store: &dyn Store, kek: &Kek) -> Result<Self> {
        let mut keys = Self { active: None, public: Vec::new(), seal: kek.seal_of_log() };
        for key in store.keys().await? {
            if key.purpose != Purpose::Checkpoint || key.state == KeyState::Revoked {
                continue;
            }
            let pair = pair(&kek.unseal(&key)?)?;
            keys.public.push(public(&pair)?);
            if key.state == KeyState::Active {
                keys.active = Some(pair);
            }
        }
        Ok(keys)
    }

    /// The public halves.
    pub fn public(&self) -> &[[u8; 32]] {
        &self.public
    }

    /// The public half of the key that signs, where there is one.
    pub fn active(&self) -> Option<[u8; 32]> {
        self.active.as_ref().and_then(|pair| public(pair).ok())
    }

    /// What the end of the log is sealed with.
    pub fn seal(&self) -> &Seal {
        &self.seal
    }

    /// Signs a text.
    pub fn sign(&self, text: &[u8]) -> Vec<u8> {
        self.active.as_ref().map(|pair| pair.sign(text).as_ref().to_vec()).unwrap_or_default()
    }
}

fn first_of(kid: &str, at: OffsetDateTime) -> Record {
    Record {
        reason: format!("the key {kid} is made for checkpoints: the log had none"),
        ..Record::of_the_broker(
            at,
            "key",
            Decision::Changed,
            Principal { issuer: String::new(), subject: "broker".into() },
        )
    }
}

fn broken() -> Error {
    Error::new(ErrorKind::Config, "a key for checkpoints is not an Ed25519 key")
}

fn pair(pkcs8: &Secret<Vec<u8>>) -> Result<Ed25519KeyPair> {
    Ed25519KeyPair::from_pkcs8(pkcs8.expose()).map_err(|_| broken())
}

fn public(pair: &Ed25519KeyPair) -> Result<[u8; 32]> {
    pair.public_key().as_ref().try_into().map_err(|_| broken())
}

/// The RFC 7638 thumbprint, by the members that RFC 8037 section 2 requires.
fn kid(public: &[u8; 32]) -> String {
    let jwk =
        format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, URL_SAFE_NO_PAD.encode(public));
    URL_SAFE_NO_PAD.encode(digest(&SHA256, jwk.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::broker::store::{KeyStore, LogStore, sqlite};
    use crate::broker::testbed::Bed;
    use crate::broker::testbed::failing::Failing;
    use crate::host::clock::SystemClock;

    #[test]
    fn a_key_is_named_as_rfc_8037_says() {
        // Appendix A.3.
        let public = URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
        let name = kid(&public.try_into().unwrap());
        assert_eq!(name, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    /// Where it ends is all that has to be known.
    #[tokio::test]
    async fn a_log_of_any_length_keeps_no_broker_from_starting() {
        let store = Failing::over(Arc::new(sqlite::in_memory().await.unwrap()));
        store.scans.store(false, Ordering::Relaxed);
        let kek = || Kek::new(Secret::new([7; 32]));
        for _ in 0..2 {
            let bed = Bed::with(|options| (options.store, options.kek) = (store.clone(), kek()));
            bed.await.issued(serde_json::json!({}), &[]).await;
        }
        assert!(store.ends().await.is_err() && store.size().await.unwrap() > 2);
    }

    #[tokio::test]
    async fn the_first_key_is_made_once_found_again_and_no_key_for_tokens() {
        let (store, kek) = (sqlite::in_memory().await.unwrap(), Kek::random().unwrap());
        let first = CheckpointKeys::open(&store, &kek, &SystemClock).await.unwrap();
        let again = CheckpointKeys::open(&store, &kek, &SystemClock).await.unwrap();
        assert_eq!(first.active().unwrap(), again.active().unwrap());
        assert_eq!(again.public(), [again.active().unwrap()]);
        let keys = store.keys().await.unwrap();
        assert_eq!(keys.len(), 1);
        assert!(!keys[0].signs_by(crate::broker::keys::SigningAlgorithm::Es256));
        let other = Kek::random().unwrap();
        assert!(CheckpointKeys::open(&store, &other, &SystemClock).await.is_err());
    }
}
