//! The keys of a running broker: a copy of what the store has, looked at again every
//! second. So what another process changes counts here without a restart.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use jsonwebtoken::jwk::JwkSet;
use time::{Duration, OffsetDateTime};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::keeper::Keeper;
use super::{KeyState, SigningAlgorithm, SigningKey, StoredKey, life};
use crate::error::{Error, ErrorKind, Result};
use crate::oidc::Keys;

/// How often the store is looked at.
const EVERY: std::time::Duration = std::time::Duration::from_secs(1);

/// How old a copy may be that signs and verifies. Whoever needs one looks first, where it
/// is older.
const FRESH: Duration = Duration::seconds(5);

/// The keys at one moment.
pub struct Snapshot {
    stored: Vec<StoredKey>,
    usual: SigningAlgorithm,
    /// Those that sign.
    active: BTreeMap<SigningAlgorithm, SigningKey>,
    jwks: Vec<u8>,
    verifying: Keys,
    /// When the first of the retired ones is no longer shown.
    until: Option<OffsetDateTime>,
}

impl Snapshot {
    /// The key that signs by this algorithm, or by the usual one.
    ///
    /// # Errors
    /// Where there is none.
    pub fn signing(&self, algorithm: Option<SigningAlgorithm>) -> Result<&SigningKey> {
        let algorithm = algorithm.unwrap_or(self.usual);
        self.active.get(&algorithm).ok_or_else(|| no_key(algorithm))
    }

    /// The key that signs by the usual algorithm.
    #[cfg(test)]
    pub(crate) fn active(&self) -> &SigningKey {
        self.signing(None).unwrap()
    }

    /// The public keys, to verify the broker's own tokens by.
    pub fn verifying(&self) -> &Keys {
        &self.verifying
    }

    /// The public keys as a JWKS (RFC 7517 section 5).
    pub fn jwks(&self) -> &[u8] {
        &self.jwks
    }

    pub(super) async fn of(keeper: &Keeper, stored: Vec<StoredKey>) -> Result<Self> {
        let now = keeper.clock.now();
        let private = keeper.unseal_all(&stored).await?;
        let mut active = BTreeMap::new();
        let mut public = Vec::new();
        for (key, private) in stored.iter().zip(&private) {
            if !life::is_shown(key, now) {
                continue;
            }
            let unsealed = SigningKey::from_pkcs8(private, &key.algorithm)?;
            public.push(unsealed.public().clone());
            if key.state == KeyState::Active {
                active.insert(unsealed.algorithm, unsealed);
            }
        }
        let algorithms = keeper.rules.algorithms;
        if let Some(missing) = algorithms.iter().find(|one| !active.contains_key(one)) {
            return Err(no_key(missing));
        }
        let usual = algorithms.usual();
        let jwks = serde_json::to_vec(&JwkSet { keys: public }).map_err(|cause| {
            Error::new(ErrorKind::Other, "the public keys cannot be written").because(cause)
        })?;
        // Read as everybody else reads them.
        let verifying = Keys::parse(&jwks)?;
        let until = stored.iter().filter(|key| life::is_shown(key, now));
        let until = until.filter_map(life::shown_until).min();
        Ok(Self { stored, usual, active, jwks, verifying, until })
    }
}

fn no_key(algorithm: SigningAlgorithm) -> Error {
    let what = format!("the database has no active signing key for {}", algorithm.name());
    Error::new(ErrorKind::Config, what)
}

/// The keys of a running broker, as they are.
pub struct KeyRing {
    shared: Arc<Shared>,
    watch: JoinHandle<()>,
}

struct Shared {
    keeper: Keeper,
    held: RwLock<Held>,
    /// Held by who looks.
    looking: Mutex<()>,
}

#[derive(Clone)]
struct Held {
    snapshot: Arc<Snapshot>,
    /// Since when the machine had been up when the store was read.
    read_at: Duration,
}

impl KeyRing {
    /// Unseals the keys of the store, makes the first one where there is none, and looks
    /// after them until this is dropped. Needs a runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the KEK is not the right one, or a key or what the
    /// store says of it was tampered with.
    pub async fn open(keeper: Keeper) -> Result<Self> {
        let read_at = keeper.clock.uptime();
        // Before anything is made: the KEK may be the wrong one.
        keeper.unseal_all(&keeper.stored().await?).await?;
        let stored = keeper.settle(|_| Vec::new()).await?;
        let snapshot = Arc::new(Snapshot::of(&keeper, stored).await?);
        let held = RwLock::new(Held { snapshot, read_at });
        let shared = Arc::new(Shared { keeper, held, looking: Mutex::new(()) });
        let watch = tokio::spawn(shared.clone().watch());
        Ok(Self { shared, watch })
    }

    /// The keys, as they were a few seconds ago at most.
    ///
    /// # Errors
    /// Where the store cannot be read, or what it says of a key is not so.
    pub async fn current(&self) -> Result<Arc<Snapshot>> {
        let held = self.shared.held();
        if self.shared.age(&held) <= FRESH {
            return Ok(held.snapshot);
        }
        self.shared.look().await
    }

    /// The keys for everybody, and how long they may be kept. They serve also while the
    /// store cannot be read.
    pub fn shown(&self) -> (Arc<Snapshot>, std::time::Duration) {
        let held = self.shared.held();
        let max_age = self.shared.keeper.rules.max_age(self.shared.age(&held));
        (held.snapshot, max_age)
    }

    /// Lets go of the store.
    pub async fn close(self) {
        let _one = self.shared.looking.lock().await;
        self.watch.abort();
    }
}

impl Drop for KeyRing {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Shared {
    async fn watch(self: Arc<Self>) {
        let mut failed = false;
        loop {
            tokio::time::sleep(EVERY).await;
            match self.look().await {
                Ok(_) => failed = false,
                // It is told once.
                Err(error) if !failed => {
                    failed = true;
                    tracing::error!(%error, "the signing keys cannot be looked at");
                }
                Err(_) => {}
            }
        }
    }

    /// Reads the store, and does what is due.
    async fn look(&self) -> Result<Arc<Snapshot>> {
        let _one = self.looking.lock().await;
        let read_at = self.keeper.clock.uptime();
        let before = self.held().snapshot;
        let stored = self.keeper.stored().await?;
        let now = self.keeper.clock.now();
        let stored = if self.keeper.rules.due(&stored, now).is_empty() {
            stored
        } else {
            match self.keeper.settle(|_| Vec::new()).await {
                Ok(settled) => settled,
                Err(error) => {
                    tracing::warn!(%error, "a signing key that is due cannot be changed");
                    stored
                }
            }
        };
        let same = before.stored == stored && before.until.is_none_or(|until| now < until);
        let snapshot =
            if same { before } else { Arc::new(Snapshot::of(&self.keeper, stored).await?) };
        let held = Held { snapshot: snapshot.clone(), read_at };
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = held;
        Ok(snapshot)
    }

    fn held(&self) -> Held {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn age(&self, held: &Held) -> Duration {
        // Whoever can turn it back has other means.
        self.keeper.clock.uptime().saturating_sub(held.read_at).max(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests;
