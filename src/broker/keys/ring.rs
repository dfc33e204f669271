//! The keys of a running broker: a copy of what the store has, looked at again every
//! second. So what another process changes counts here without a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use jsonwebtoken::jwk::JwkSet;
use time::{Duration, OffsetDateTime};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::keeper::{self, Keeper, Settled, put_back};
use super::manage::{Report, Rotation, Which};
use super::{KeyState, SigningAlgorithm, SigningKey, StoredKey, checkpoint, life};
use crate::broker::audit::{self, Author, note::VerifierKey};
use crate::broker::survive::survive;
use crate::error::{Error, ErrorKind, Result};
use crate::oidc::Keys;

/// How often the store is looked at.
const EVERY: std::time::Duration = std::time::Duration::from_secs(1);

/// How old a copy may be that signs and verifies. Whoever needs one looks first, where it
/// is older.
const FRESH: Duration = Duration::seconds(5);

/// How long others may keep keys that could not be looked at of late: another process may have
/// revoked one of them since, and whoever asks anew may come to one that knows.
const KEPT_UNSEEN: std::time::Duration = std::time::Duration::from_secs(5);

/// How long keys are shown that cannot be looked at. So services can check tokens while the
/// database is away for a while. A process that is cut off from it for longer than that must not
/// have a key accepted for ever that was revoked meanwhile.
const SHOWN_UNSEEN: Duration = Duration::HOUR;

/// The keys at one moment.
pub struct Snapshot {
    stored: Vec<StoredKey>,
    usual: SigningAlgorithm,
    /// Those that sign.
    active: BTreeMap<SigningAlgorithm, Arc<SigningKey>>,
    shown: BTreeSet<String>,
    jwks: Vec<u8>,
    verifying: Keys,
    of_log: Vec<VerifierKey>,
}

impl Snapshot {
    /// The key that signs by this algorithm, or by the usual one.
    ///
    /// # Errors
    /// Where there is none.
    pub fn signing(&self, algorithm: Option<SigningAlgorithm>) -> Result<&Arc<SigningKey>> {
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

    /// Whether it can be told of a key what became of it: that it is shown, or is so no more.
    pub fn knows(&self, kid: &str) -> bool {
        let is_over = |key: &StoredKey| matches!(key.state, KeyState::Retired | KeyState::Revoked);
        self.shows(kid) || self.stored.iter().any(|key| key.kid == kid && is_over(key))
    }

    /// Whether the public keys have one with this id.
    pub fn shows(&self, kid: &str) -> bool {
        self.shown.contains(kid)
    }

    /// Whether the key with this id was revoked.
    pub fn has_revoked(&self, kid: &str) -> bool {
        self.stored.iter().any(|key| key.kid == kid && key.state == KeyState::Revoked)
    }

    /// The public keys as a JWKS (RFC 7517 section 5).
    pub fn jwks(&self) -> &[u8] {
        &self.jwks
    }

    /// The keys whose signatures of the audit log are good: first the one that signs.
    pub fn of_log(&self) -> &[VerifierKey] {
        &self.of_log
    }

    pub(super) async fn of(keeper: &Keeper, stored: Vec<StoredKey>) -> Result<Self> {
        let now = keeper.clock.now();
        let private = keeper.unseal_all(&stored).await?;
        let mut active = BTreeMap::new();
        let (mut public, mut shown) = (Vec::new(), BTreeSet::new());
        let of_log = checkpoint::good(&stored, &private, &audit::origin(&keeper.issuer))?;
        for (key, private) in stored.iter().zip(&private) {
            if !life::is_shown(key, now) {
                continue;
            }
            let unsealed = SigningKey::from_pkcs8(private, &key.algorithm)?;
            public.push(unsealed.public().clone());
            shown.insert(unsealed.kid().to_string());
            if key.state == KeyState::Active {
                active.insert(unsealed.algorithm, Arc::new(unsealed));
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
        let verifying = Keys::parse(&jwks)?.remembering(Some(keeper.seen.clone()));
        Ok(Self { stored, usual, active, shown, jwks, verifying, of_log })
    }

    /// Whether these keys would be the same at this moment: those that are retired are not
    /// shown for ever, and are again where the clock was only ahead for a while.
    fn is_of(&self, stored: &[StoredKey], now: OffsetDateTime) -> bool {
        let shown = stored.iter().filter(|key| life::is_shown(key, now));
        self.stored == stored && shown.map(|key| &key.kid).eq(self.in_order())
    }

    fn in_order(&self) -> impl Iterator<Item = &String> {
        self.stored.iter().map(|key| &key.kid).filter(|kid| self.shown.contains(*kid))
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
    looking: Mutex<Looking>,
}

/// What who looks has seen.
#[derive(Default)]
struct Looking {
    /// The ids of those that were revoked.
    revoked: BTreeSet<String>,
    /// Why something that was due could not be done the last time.
    undone: Option<Error>,
    /// Since when the machine had been up when that failed the last time, and why.
    failure: Option<(Duration, Error)>,
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
        keeper.store.seal_with(keeper.root_key.seal_of_log()).await?;
        let stored = keeper.settle(|_| Vec::new()).await?;
        let snapshot = Arc::new(Snapshot::of(&keeper, stored).await?);
        let held = RwLock::new(Held { snapshot, read_at });
        let shared = Arc::new(Shared { keeper, held, looking: Mutex::default() });
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

    /// The keys as they are at this moment, for whoever has met one that those do not know which
    /// were read a moment ago. Anybody can name one: however many do at once, the store is asked
    /// once for all of them.
    ///
    /// # Errors
    /// As with [`current`](Self::current).
    pub async fn newest(&self) -> Result<Arc<Snapshot>> {
        self.shared.look().await
    }

    /// Looks no more of its own accord.
    #[cfg(test)]
    pub(crate) fn close_its_eyes(&self) {
        self.watch.abort();
    }

    /// The keys for everybody, and how long they may be kept. For a while they serve also while
    /// the store cannot be read.
    ///
    /// # Errors
    /// Where it could not be read for too long.
    pub fn shown(&self) -> Result<(Arc<Snapshot>, std::time::Duration)> {
        let held = self.shared.held();
        let age = self.shared.age(&held);
        if age > SHOWN_UNSEEN {
            return Err(Error::new(ErrorKind::Other, "the public keys cannot be shown")
                .because_of(
                    "for more than an hour nobody could see in the database which are good",
                ));
        }
        let max_age = self.shared.keeper.rules.max_age(age);
        let max_age = if age > FRESH { max_age.min(KEPT_UNSEEN) } else { max_age };
        Ok((held.snapshot, max_age))
    }

    /// How long ago they were last looked at, and were as they should be.
    pub fn age(&self) -> Duration {
        self.shared.age(&self.shared.held())
    }

    /// When another of these keys is to sign, as soon as the first of them is.
    pub fn next_turn(&self, keys: &[StoredKey]) -> Option<OffsetDateTime> {
        self.shared.keeper.rules.next_turn(keys)
    }

    /// All keys, the oldest first.
    pub async fn list(&self) -> Result<Vec<Report>> {
        self.shared.keeper.list().await
    }

    /// Begins a rotation of these keys for somebody, as [`Manager`](super::manage::Manager)
    /// does.
    pub async fn rotate(&self, which: &Which, by: &Author) -> Result<Rotation> {
        let rotation = self.shared.keeper.rotate(which, Some(by)).await;
        self.notice().await;
        rotation
    }

    /// Revokes keys for somebody, as [`Manager`](super::manage::Manager) does. Returns all
    /// keys.
    pub async fn revoke(&self, kids: &[String], why: &str, by: &Author) -> Result<Vec<Report>> {
        let keys = self.shared.keeper.revoke(kids, why, Some(by)).await;
        self.notice().await;
        keys
    }

    /// Looks at what was changed. It is done, also where that fails: then who comes next looks.
    async fn notice(&self) {
        if let Err(error) = self.newest().await {
            tracing::warn!(%error, "the signing keys cannot be looked at");
        }
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
            match survive("keys", self.look()).await {
                Some(Ok(_)) => failed = false,
                // It is told once.
                Some(Err(error)) if !failed => {
                    failed = true;
                    tracing::error!(%error, "the signing keys cannot be looked at");
                }
                Some(Err(_)) | None => {}
            }
        }
    }

    /// Reads the store, and does what is due. Who had to wait for another who did the same
    /// has what came of that: a store that does not answer keeps all of them waiting once.
    async fn look(&self) -> Result<Arc<Snapshot>> {
        let asked_at = self.keeper.clock.uptime();
        let mut looking = self.looking.lock().await;
        let held = self.held();
        if held.read_at > asked_at {
            return Ok(held.snapshot);
        }
        match &looking.failure {
            Some((failed_at, error)) if *failed_at > asked_at => return Err(error.clone()),
            _ => {}
        }
        let outcome = self.look_alone(&mut looking).await;
        let failure = outcome.as_ref().err();
        looking.failure = failure.map(|error| (self.keeper.clock.uptime(), error.clone()));
        outcome
    }

    async fn look_alone(&self, looking: &mut Looking) -> Result<Arc<Snapshot>> {
        let read_at = self.keeper.clock.uptime();
        let before = self.held().snapshot;
        let stored = self.keeper.stored().await?;
        // Whatever else was changed to make it look as if it had never been.
        let is_revoked = |key: &&StoredKey| key.state == KeyState::Revoked;
        if stored.iter().any(|key| !is_revoked(&key) && looking.revoked.contains(&key.kid)) {
            return Err(put_back());
        }
        looking.revoked.extend(stored.iter().filter(is_revoked).map(|key| key.kid.clone()));
        let now = self.keeper.clock.now();
        let Settled { keys: stored, undone } = self.keeper.settle_due(stored).await?;
        // It is told once.
        if let Some(error) = undone.as_ref().filter(|_| looking.undone != undone) {
            keeper::warn_of(error);
        }
        looking.undone = undone;
        let snapshot = if before.is_of(&stored, now) {
            before
        } else {
            Arc::new(Snapshot::of(&self.keeper, stored).await?)
        };
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
