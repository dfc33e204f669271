//! Changing keys in the store: each change with its record, in one commit, and only
//! from what the key was when it was read. So several processes may do it at once.

use std::sync::Arc;

use time::OffsetDateTime;
use uuid::Uuid;

use super::life::{Rules, Step};
use super::{Kek, KeyState, Purpose, SigningAlgorithm, SigningKey, StoredKey};
use crate::broker::audit::{Decision, Record};
use crate::broker::store::{Effect, Outcome, Store, Unit};
use crate::credential::Principal;
use crate::error::{Error, ErrorKind, Result};
use crate::host::clock::Clock;
use crate::oidc::Issuer;
use crate::secret::Secret;

/// How often a change is begun anew because another process was quicker.
const TRIES: usize = 8;

/// Who can change keys.
pub struct Keeper {
    /// Where the keys are.
    pub store: Arc<dyn Store>,
    /// What seals them.
    pub kek: Kek,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// When keys change their states.
    pub rules: Rules,
    /// The broker whose keys they are.
    pub issuer: Issuer,
    /// In whose name: the records say so.
    pub name: &'static str,
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
        for _ in 0..TRIES {
            let keys = self.stored().await?;
            let mut steps = wanted(&keys);
            if steps.is_empty() {
                steps = self.rules.due(&keys, self.clock.now());
            }
            if steps.is_empty() {
                return Ok(keys);
            }
            // All are unsealed, whatever they are for: a wrong KEK changes nothing, nor
            // does anything follow from a state that somebody made up.
            self.unseal_all(&keys).await?;
            if !self.perform(&keys, &steps).await? {
                tracing::debug!("another process was quicker to change the signing keys");
            }
        }
        Err(Error::new(ErrorKind::Other, "the signing keys change all the time"))
    }

    /// The private halves of all keys. Those whose seals do not cover their state are
    /// sealed anew.
    pub async fn unseal_all(&self, keys: &[StoredKey]) -> Result<Vec<Secret<Vec<u8>>>> {
        let mut private = Vec::new();
        for key in keys {
            let unsealed = self.kek.unseal(key)?;
            if unsealed.outdated {
                let after = self.kek.seal(key.clone(), &unsealed.private)?;
                let change = Effect::ChangeKey { before: key.clone(), after };
                // Where it is not what it was, another process has done it.
                if self.commit(Unit { records: Vec::new(), effects: vec![change] }).await? {
                    tracing::info!(kid = key.kid, "sealed a signing key together with its state");
                }
            }
            private.push(unsealed.private);
        }
        Ok(private)
    }

    /// Makes changes, all of them or none: false where a key is not what it was.
    async fn perform(&self, keys: &[StoredKey], steps: &[Step]) -> Result<bool> {
        let now = self.clock.now();
        let request_id = Uuid::new_v4();
        let mut unit = Unit::default();
        let made = steps.iter().filter(|step| step.kid.is_none() && step.to == KeyState::Published);
        for step in made {
            unit.effects.extend(self.claim(keys, step.algorithm)?);
        }
        for step in steps {
            let (before, after, effect) = match &step.kid {
                None => {
                    let made = self.make(step, now)?;
                    (None, made.clone(), Effect::AddKey(made))
                }
                Some(kid) => {
                    let Some(before) = keys.iter().find(|key| key.kid == *kid) else {
                        return Ok(false);
                    };
                    let private = self.kek.unseal(before)?.private;
                    let after = StoredKey { state: step.to, changed_at: now, ..before.clone() };
                    let after = self.kek.seal(after, &private)?;
                    let change = Effect::ChangeKey { before: before.clone(), after: after.clone() };
                    (Some(before), after, change)
                }
            };
            unit.records.push(self.record(before, &after, &step.why, request_id));
            unit.effects.push(effect);
        }
        let done = self.commit(unit).await?;
        for step in steps.iter().filter(|_| done) {
            let (kid, state, why) = (step.kid.as_deref(), step.to.as_str(), &step.why);
            tracing::info!(kid, state, why, "changed a signing key");
        }
        Ok(done)
    }

    /// Seals the key that signs anew, so that of several processes that saw the same keys
    /// only one adds another.
    fn claim(&self, keys: &[StoredKey], algorithm: SigningAlgorithm) -> Result<Option<Effect>> {
        let Some(active) = keys.iter().find(|key| key.signs_by(algorithm)) else {
            return Ok(None);
        };
        let private = self.kek.unseal(active)?.private;
        let after = self.kek.seal(active.clone(), &private)?;
        Ok(Some(Effect::ChangeKey { before: active.clone(), after }))
    }

    fn make(&self, step: &Step, now: OffsetDateTime) -> Result<StoredKey> {
        let (key, pkcs8) = SigningKey::generate_for(step.algorithm)?;
        let made = StoredKey {
            kid: key.kid().into(),
            purpose: Purpose::AccessToken,
            algorithm: step.algorithm.name().into(),
            state: step.to,
            sealed: Vec::new(),
            kek_id: self.kek.id().into(),
            created_at: now,
            changed_at: now,
        };
        self.kek.seal(made, &pkcs8)
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
        Record {
            at: after.changed_at,
            request_id,
            action: "key".into(),
            decision: Decision::Changed,
            reason: format!("the signing key {kid} ({was}) is {state}: {why}"),
            principal: Principal { issuer: self.issuer.as_str().into(), subject: self.name.into() },
            actor: None,
            client: String::new(),
            source: String::new(),
            role: String::new(),
            audience: String::new(),
            scope: String::new(),
            ttl: 0,
            jti: None,
            parent: None,
            policy_id: None,
            policy_hash: String::new(),
            count: 1,
        }
    }

    async fn commit(&self, unit: Unit) -> Result<bool> {
        Ok(self.store.commit(&[unit]).await?.into_iter().all(Outcome::is_committed))
    }
}
