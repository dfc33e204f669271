//! Changing keys in the store: each change with its record, in one commit, and only
//! from what the key was when it was read. So several processes may do it at once.

use std::sync::Arc;

use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::life::{Rules, Signs, Step};
use super::{KeyState, Purpose, RootKey, SigningKey, StoredKey, checkpoint};
use crate::broker::audit::{self, Author, Decision, Record, leaf, succession};
use crate::broker::store::{Consumed, Effect, Once, Outcome, Store, Unit};
use crate::credential::Principal;
use crate::error::{Error, ErrorKind, Result};
use crate::host::clock::Clock;
use crate::oidc::{Issuer, Seen};
use crate::secret::Secret;

/// How often a change is begun anew because another process was quicker.
const TRIES: usize = 8;

/// How long it is kept in mind that a key was revoked.
const FOR_EVER: Duration = Duration::days(365 * 1000);

/// Says that a key is good again that was revoked.
pub(super) fn put_back() -> Error {
    Error::new(ErrorKind::Config, "a signing key that was revoked is not so any more")
        .because_of("somebody put an older copy of it into the database")
        .hint("restore a backup of the database, and revoke the key again")
}

/// Says that something is due that cannot be done now.
pub(super) fn warn_of(error: &Error) {
    tracing::warn!(%error, "a signing key that is due cannot be changed");
}

fn changing() -> Error {
    Error::new(ErrorKind::Other, "the signing keys change all the time")
}

/// Who can change keys.
pub struct Keeper {
    /// Where the keys are.
    pub store: Arc<dyn Store>,
    /// What seals them.
    pub root_key: RootKey,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// When keys change their states.
    pub rules: Rules,
    /// The broker whose keys they are.
    pub issuer: Issuer,
    /// In whose name: the records say so.
    pub name: &'static str,
    /// What the keys were seen to have signed.
    pub seen: Arc<Seen>,
}

/// What is due was done, as far as it could be.
pub(super) struct Settled {
    /// The keys as they are then.
    pub(super) keys: Vec<StoredKey>,
    /// Why something that is due is left for later.
    pub(super) undone: Option<Error>,
}

impl Keeper {
    /// The keys as they rest.
    pub async fn stored(&self) -> Result<Vec<StoredKey>> {
        self.store.keys().await
    }

    /// Does what is due, and whatever else `wanted` finds to do. Returns the keys as they
    /// are then.
    pub async fn settle(
        &self,
        wanted: impl Fn(&[StoredKey]) -> Vec<Step>,
    ) -> Result<Vec<StoredKey>> {
        self.settle_by(None, wanted).await
    }

    /// The same, where it is somebody else who wants something: the records of that are in
    /// their name.
    pub(super) async fn settle_by(
        &self,
        author: Option<&Author>,
        wanted: impl Fn(&[StoredKey]) -> Vec<Step>,
    ) -> Result<Vec<StoredKey>> {
        for _ in 0..TRIES {
            let keys = self.stored().await?;
            let steps = wanted(&keys);
            if steps.is_empty() {
                let Settled { keys, undone } = self.settle_due(keys).await?;
                if let Some(error) = undone {
                    warn_of(&error);
                }
                return Ok(keys);
            }
            self.take(&keys, &steps, author).await?;
        }
        Err(changing())
    }

    /// Does what would be done without anybody. These are the keys as they are. What cannot be
    /// done now is done later, where there are keys that sign.
    pub(super) async fn settle_due(&self, mut keys: Vec<StoredKey>) -> Result<Settled> {
        for _ in 0..TRIES {
            match self.take_due(&keys).await {
                Ok(true) => keys = self.stored().await?,
                Ok(false) => return Ok(Settled { keys, undone: None }),
                Err(error) if self.rules.lacks(&keys) => return Err(error),
                Err(error) => return Ok(Settled { keys, undone: Some(error) }),
            }
        }
        Err(changing())
    }

    /// Takes the steps that are due from these keys, and returns whether there are any. It is by
    /// the store's clock that they are, which is not asked where none is by this machine's: that
    /// of one process must not have a key sign before all have seen it.
    async fn take_due(&self, keys: &[StoredKey]) -> Result<bool> {
        if self.rules.due(keys, self.clock.now()).is_empty() {
            return Ok(false);
        }
        let steps = self.rules.due(keys, self.now().await?);
        if !steps.is_empty() {
            self.take(keys, &steps, None).await?;
        }
        Ok(!steps.is_empty())
    }

    /// What time it is, by the store's clock where it has one: all processes reckon from when
    /// one of them changed a key.
    async fn now(&self) -> Result<OffsetDateTime> {
        Ok(self.store.now().await?.unwrap_or_else(|| self.clock.now()))
    }

    /// Takes steps from these keys, unless another process was quicker.
    async fn take(&self, keys: &[StoredKey], steps: &[Step], by: Option<&Author>) -> Result<()> {
        // All are unsealed, whatever they are for: a wrong KEK changes nothing, nor
        // does anything follow from a state that somebody made up.
        self.unseal_all(keys).await?;
        if !self.perform(keys, steps, by).await? {
            tracing::debug!("another process was quicker to change the signing keys");
        }
        Ok(())
    }

    /// The private halves of all keys.
    ///
    /// # Errors
    /// Also where one that was revoked is so no more: an older row has a good seal too.
    /// One that was revoked since it was read is as it was then.
    pub async fn unseal_all(&self, keys: &[StoredKey]) -> Result<Vec<Secret<Vec<u8>>>> {
        let private = keys.iter().map(|key| self.root_key.unseal(key)).collect::<Result<_>>()?;
        if self.any_was_revoked(keys).await? && self.any_was_revoked(&self.stored().await?).await? {
            return Err(put_back());
        }
        Ok(private)
    }

    /// Whether one of those that count as good was revoked at some time.
    async fn any_was_revoked(&self, keys: &[StoredKey]) -> Result<bool> {
        let good = keys.iter().filter(|key| key.state != KeyState::Revoked);
        let good: Vec<String> = good.map(|key| key.kid.clone()).collect();
        self.store.any_consumed(Once::RevokedKey, &good).await
    }

    /// Makes changes, all of them or none: false where a key is not what it was.
    async fn perform(
        &self,
        keys: &[StoredKey],
        steps: &[Step],
        by: Option<&Author>,
    ) -> Result<bool> {
        let now = self.now().await?;
        let request_id = Uuid::new_v4();
        let (mut unit, mut kids) = (Unit::default(), Vec::new());
        // (Of keys that sign, the store has no two.)
        let made = steps.iter().filter(|step| step.kid.is_none() && step.to != KeyState::Active);
        for step in made {
            unit.effects.extend(self.claim(keys, step.of)?);
        }
        for step in steps {
            let (before, after, private, effect) = match &step.kid {
                None => {
                    let (made, private) = self.make(step, now)?;
                    (None, made.clone(), private, Effect::AddKey(made))
                }
                Some(kid) => {
                    let Some(before) = keys.iter().find(|key| key.kid == *kid) else {
                        return Ok(false);
                    };
                    let private = self.root_key.unseal(before)?;
                    let after = StoredKey { state: step.to, changed_at: now, ..before.clone() };
                    let after = self.root_key.seal(after, &private)?;
                    let change = Effect::ChangeKey { before: before.clone(), after: after.clone() };
                    (Some(before), after, private, change)
                }
            };
            kids.push(after.kid.clone());
            let record = self.record(before, &after, &step.why, request_id);
            let record = match by {
                Some(by) => by.signed(record),
                None => record,
            };
            unit.records.push(self.announcing(record, &after, &private)?);
            unit.effects.push(effect);
            if after.state == KeyState::Revoked {
                unit.effects.push(Effect::Consume(Consumed {
                    kind: Once::RevokedKey,
                    id: after.kid,
                    at: now,
                    keep_until: now.saturating_add(FOR_EVER),
                }));
            }
        }
        let done = self.commit(unit).await?;
        for (step, kid) in steps.iter().zip(kids).filter(|_| done) {
            let (state, why) = (step.to.as_str(), &step.why);
            tracing::info!(kid, state, why, "changed a signing key");
        }
        Ok(done)
    }

    /// Seals the key that signs anew, so that of several processes that saw the same keys
    /// only one adds another.
    fn claim(&self, keys: &[StoredKey], of: Signs) -> Result<Option<Effect>> {
        let signs = |key: &&StoredKey| key.is_for(of) && key.state == KeyState::Active;
        let Some(active) = keys.iter().find(signs) else { return Ok(None) };
        let private = self.root_key.unseal(active)?;
        let after = self.root_key.seal(active.clone(), &private)?;
        Ok(Some(Effect::ChangeKey { before: active.clone(), after }))
    }

    fn make(&self, step: &Step, now: OffsetDateTime) -> Result<(StoredKey, Secret<Vec<u8>>)> {
        let (purpose, algorithm, kid, pkcs8) = match step.of {
            Signs::Tokens(algorithm) => {
                let (key, pkcs8) = SigningKey::generate_for(algorithm)?;
                (Purpose::AccessToken, algorithm.name(), key.kid().to_string(), pkcs8)
            }
            Signs::Log => {
                let (kid, pkcs8) = checkpoint::generate()?;
                (Purpose::Checkpoint, checkpoint::ALGORITHM_NAME, kid, pkcs8)
            }
        };
        let made = StoredKey {
            kid,
            purpose,
            algorithm: algorithm.into(),
            state: step.to,
            sealed: Vec::new(),
            sealed_by: self.root_key.id().into(),
            created_at: now,
            changed_at: now,
        };
        Ok((self.root_key.seal(made, &pkcs8)?, pkcs8))
    }

    fn record(
        &self,
        before: Option<&StoredKey>,
        after: &StoredKey,
        why: &str,
        request_id: Uuid,
    ) -> Record {
        let (kid, state) = (&after.kid, after.state.as_str());
        let was = before.map_or("made", |key| key.state.as_str());
        let what = match after.purpose {
            Purpose::Checkpoint => "the key of the log",
            _ => "the signing key",
        };
        Record {
            request_id,
            reason: format!("{what} {kid} ({was}) is {state}: {why}"),
            ..Record::of_the_broker(
                after.changed_at,
                "key",
                Decision::Changed,
                Principal { issuer: self.issuer.as_str().into(), subject: self.name.into() },
            )
        }
    }

    /// The same record; that of a key of the log says which key it is, for whoever checks the
    /// log by the one before.
    fn announcing(
        &self,
        record: Record,
        key: &StoredKey,
        private: &Secret<Vec<u8>>,
    ) -> Result<Record> {
        if key.purpose != Purpose::Checkpoint {
            return Ok(record);
        }
        let public = checkpoint::verifier(&audit::origin(&self.issuer), private)?;
        Ok(Record { scope: succession::text(key.state, &public), ..record })
    }

    async fn commit(&self, unit: Unit) -> Result<bool> {
        unit.records.iter().try_for_each(leaf::check)?;
        Ok(self.store.commit(&[unit]).await?.into_iter().all(Outcome::is_committed))
    }
}
