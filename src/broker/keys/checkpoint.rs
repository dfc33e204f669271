//! The keys that sign checkpoints of the audit log.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use time::OffsetDateTime;

use super::keeper::put_back;
use super::{Kek, KeyState, Purpose, RootKey, StoredKey, can_be_typed, no_randomness};
use crate::broker::audit::note::{Checkpoint, VerifierKey};
use crate::broker::audit::seal::Seal;
use crate::broker::audit::{self, Decision, Record};
use crate::broker::store::{Effect, LogStore, Once, Outcome, Store, Unit, require_last};
use crate::credential::Principal;
use crate::error::{Error, ErrorKind, Result};
use crate::host::clock::Clock;
use crate::oidc::Issuer;
use crate::secret::Secret;

/// The algorithm, as JWTs would name it.
pub(super) const ALGORITHM_NAME: &str = "Ed25519";

/// The keys that sign checkpoints, or have signed some.
pub struct CheckpointKeys {
    /// The one whose turn it is; the next one, where it is known already, signs besides.
    signing: Vec<Ed25519KeyPair>,
    active: Option<[u8; 32]>,
    public: Vec<[u8; 32]>,
    revoked: Vec<[u8; 32]>,
    seal: Seal,
    root_key: RootKey,
}

impl CheckpointKeys {
    /// Unseals the keys of the store, whatever they are for, and has the log sealed from
    /// now on. Makes the first key for checkpoints where there is none.
    ///
    /// # Errors
    /// As with [`KeyRing::open`](super::KeyRing::open); and where the log is not as it was
    /// left, or its key is gone.
    pub async fn open(store: &dyn Store, root_key: &RootKey, clock: &dyn Clock) -> Result<Self> {
        // Before anything is made: the KEK may be the wrong one.
        let found = Self::of_whole_log(store, root_key).await?;
        if found.active.is_some() {
            return Ok(found);
        }
        let empty = store.size().await? == 0;
        let (kid, pkcs8) = generate()?;
        let now = clock.now();
        let made = StoredKey {
            kid,
            purpose: Purpose::Checkpoint,
            algorithm: ALGORITHM_NAME.into(),
            state: KeyState::Active,
            sealed: Vec::new(),
            sealed_by: root_key.id().into(),
            created_at: now,
            changed_at: now,
        };
        let made = root_key.seal(made, &pkcs8)?;
        let kid = made.kid.clone();
        // Where there is something to sign already, people are to know from when on it was.
        let records = if empty { Vec::new() } else { vec![first_of(&kid, now)] };
        let unit = Unit { records, effects: vec![Effect::AddKey(made)] };
        if store.commit(&[unit]).await?.into_iter().all(Outcome::is_committed) {
            tracing::info!(kid, "made the first key for checkpoints of the audit log");
        }
        // Another process may have been quicker.
        Self::read(store, root_key).await
    }

    /// Unseals the keys of the store, whatever they are for, where its log is as brokers have
    /// left it; it is sealed from now on. Makes nothing.
    ///
    /// # Errors
    /// As with [`open`](Self::open).
    pub async fn of_whole_log(store: &dyn Store, root_key: &RootKey) -> Result<Self> {
        let keys = store.keys().await?;
        for key in &keys {
            let _ = root_key.unseal(key)?;
        }
        if keys.iter().any(|key| key.purpose == Purpose::AccessToken) && store.size().await? == 0 {
            return Err(Error::new(ErrorKind::Verification, "the audit log is gone")
                .because_of("it is empty, and how the signing keys were made was in it")
                .hint("restore a backup of the database"));
        }
        store.seal_with(root_key.seal_of_log()).await?;
        require_last(store).await?;
        let found = Self::read(store, root_key).await?;
        // Another one would be a new beginning, of which nobody could tell what was before.
        if found.active.is_none() && store.latest_note().await?.is_some() {
            return Err(Error::new(ErrorKind::Verification, "the key of the audit log is gone")
                .because_of("there are checkpoints, and no key that signs them")
                .hint("restore a backup of the database"));
        }
        Ok(found)
    }

    /// Those of a broker's database, for whoever comes to it besides the broker.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the key-encryption key does not open it, or it is that of
    /// another broker; and as with [`read`](Self::read).
    pub async fn of_broker(store: &dyn Store, kek: &Kek, issuer: &Issuer) -> Result<Self> {
        let keys = Self::read(store, &RootKey::open(store, kek).await?).await?;
        keys.require_name(store, &audit::origin(issuer)).await?;
        Ok(keys)
    }

    /// Unseals the keys of the store.
    ///
    /// # Errors
    /// As with [`KeyRing::open`](super::KeyRing::open); also where one that was revoked is so
    /// no more.
    pub async fn read(store: &dyn Store, root_key: &RootKey) -> Result<Self> {
        let mut keys = Self {
            signing: Vec::new(),
            active: None,
            public: Vec::new(),
            revoked: Vec::new(),
            seal: root_key.seal_of_log(),
            root_key: root_key.clone(),
        };
        for key in of_the_log(store).await? {
            let pair = pair(&root_key.unseal(&key)?)?;
            let public = public(&pair)?;
            match key.state {
                KeyState::Prepared => {}
                KeyState::Revoked => keys.revoked.push(public),
                _ => keys.public.push(public),
            }
            if key.state == KeyState::Active {
                keys.active = Some(public);
            }
            if matches!(key.state, KeyState::Active | KeyState::Published) {
                keys.signing.push(pair);
            }
        }
        Ok(keys)
    }

    /// Refuses a log that these keys have signed under another name: the broker that signs has
    /// been given another issuer.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where that is so.
    pub async fn require_name(&self, store: &dyn LogStore, origin: &str) -> Result<()> {
        let Some(noted) = store.latest_note().await? else { return Ok(()) };
        let Some(named) = Checkpoint::origin_of(&noted.note).filter(|name| *name != origin) else {
            return Ok(());
        };
        let keys = [self.verifiers(named), self.revoked(named)].concat();
        // What somebody else has put there is found by who verifies the log.
        if Checkpoint::open(&noted.note, &keys).is_err() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Config, "the database is that of a broker with another issuer")
            .because_of(format!("its audit log is signed as {named}, and by `issuer` it is {origin}"))
            .hint(format!(
                "put `issuer` back, whose host and path are {named}; a broker with another one needs a database of its own"
            )))
    }

    /// What seals them, and all else in the database.
    pub fn root_key(&self) -> &RootKey {
        &self.root_key
    }

    /// The same keys, as they are now.
    ///
    /// # Errors
    /// As with [`read`](Self::read).
    pub async fn again(&self, store: &dyn Store) -> Result<Self> {
        Self::read(store, &self.root_key).await
    }

    /// The public halves of those whose signatures are good, in the name of this log: first
    /// the one that signs, then the one that comes next, then those that signed before.
    pub fn verifiers(&self, origin: &str) -> Vec<VerifierKey> {
        self.public.iter().map(|public| VerifierKey::new(origin, *public)).collect()
    }

    /// Those whose signatures are good no more.
    pub fn revoked(&self, origin: &str) -> Vec<VerifierKey> {
        self.revoked.iter().map(|public| VerifierKey::new(origin, *public)).collect()
    }

    /// The public half of the key that signs, where there is one.
    pub fn active(&self) -> Option<[u8; 32]> {
        self.active
    }

    /// What the end of the log is sealed with.
    pub fn seal(&self) -> &Seal {
        &self.seal
    }

    /// The ids of those that sign.
    pub fn signers(&self) -> Result<Vec<String>> {
        self.signing.iter().map(|pair| Ok(kid(&public(pair)?))).collect()
    }

    /// Signs a checkpoint: the next key does as well, where it is known already.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where no key signs.
    pub fn signed(&self, checkpoint: &Checkpoint) -> Result<String> {
        if self.active.is_none() {
            let what = "the database has no active key for checkpoints";
            return Err(Error::new(ErrorKind::Config, what));
        }
        let text = checkpoint.text();
        let signatures = self.signing.iter().map(|pair| {
            let key = VerifierKey::new(&checkpoint.origin, public(pair)?);
            Ok((key, pair.sign(text.as_bytes()).as_ref().to_vec()))
        });
        Ok(checkpoint.signed(signatures.collect::<Result<Vec<_>>>()?))
    }
}

/// The keys for checkpoints, as the store has them, in the order in which they are told.
///
/// # Errors
/// Where one that was revoked is so no more. One that is revoked just as they are read is not
/// taken for that: it is found revoked the second time.
async fn of_the_log(store: &dyn Store) -> Result<Vec<StoredKey>> {
    for _ in 0..2 {
        let mut all = store.keys().await?;
        all.retain(|key| key.purpose == Purpose::Checkpoint);
        all.sort_by_key(|key| order(key.state));
        let good = all.iter().filter(|key| key.state != KeyState::Revoked);
        let good: Vec<_> = good.map(|key| key.kid.clone()).collect();
        if !store.any_consumed(Once::RevokedKey, &good).await? {
            return Ok(all);
        }
    }
    Err(put_back())
}

/// Those of these keys whose signatures of the log with this name are good, each with its
/// private half; in the order of [`CheckpointKeys::verifiers`].
pub(super) fn good(
    keys: &[StoredKey],
    private: &[Secret<Vec<u8>>],
    origin: &str,
) -> Result<Vec<VerifierKey>> {
    let counts =
        |state| matches!(state, KeyState::Published | KeyState::Active | KeyState::Retired);
    let is_good = |key: &StoredKey| key.purpose == Purpose::Checkpoint && counts(key.state);
    let mut good: Vec<_> = keys.iter().zip(private).filter(|(key, _)| is_good(key)).collect();
    good.sort_by_key(|(key, _)| order(key.state));
    good.into_iter().map(|(_, private)| verifier(origin, private)).collect()
}

/// In which order they are told: first those that sign.
fn order(state: KeyState) -> u8 {
    match state {
        KeyState::Active => 0,
        KeyState::Published => 1,
        KeyState::Retired => 2,
        KeyState::Prepared | KeyState::Revoked => 3,
    }
}

/// Makes a key: its id, and the private half (PKCS #8).
pub(super) fn generate() -> Result<(String, Secret<Vec<u8>>)> {
    loop {
        let pkcs8 =
            Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| no_randomness())?;
        let pkcs8 = Secret::new(pkcs8.as_ref().to_vec());
        let kid = kid(&public(&pair(&pkcs8)?)?);
        if can_be_typed(&kid) {
            return Ok((kid, pkcs8));
        }
    }
}

/// The public half of a key, in the name of this log.
pub(super) fn verifier(origin: &str, private: &Secret<Vec<u8>>) -> Result<VerifierKey> {
    Ok(VerifierKey::new(origin, public(&pair(private)?)?))
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
        let root_key = || RootKey::new(Secret::new([7; 32]));
        for _ in 0..2 {
            let bed = Bed::with(|options| {
                (options.store, options.root_key) = (store.clone(), root_key())
            });
            bed.await.issued(serde_json::json!({}), &[]).await;
        }
        assert!(store.ends().await.is_err() && store.size().await.unwrap() > 2);
    }

    #[tokio::test]
    async fn the_first_key_is_made_once_found_again_and_no_key_for_tokens() {
        let (store, root_key) = (sqlite::in_memory().await.unwrap(), RootKey::random().unwrap());
        let first = CheckpointKeys::open(&store, &root_key, &SystemClock).await.unwrap();
        let again = CheckpointKeys::open(&store, &root_key, &SystemClock).await.unwrap();
        assert_eq!(first.active().unwrap(), again.active().unwrap());
        let known = VerifierKey::new("a", again.active().unwrap());
        assert_eq!((again.verifiers("a"), again.revoked("a")), (vec![known], Vec::new()));
        let keys = store.keys().await.unwrap();
        assert_eq!(keys.len(), 1);
        assert!(!keys[0].signs_by(crate::broker::keys::SigningAlgorithm::Es256));
        let other = RootKey::random().unwrap();
        assert!(CheckpointKeys::open(&store, &other, &SystemClock).await.is_err());
    }
}
