//! Which key-encryption keys open a database: `tmpcred broker kek`.
//!
//! The root key is sealed under each of them, and nothing else is: so one can be added, and
//! another one removed, while brokers run.

use std::path::Path;
use std::sync::Arc;

use time::OffsetDateTime;

use super::{CheckpointKeys, Kek, RootKey};
use crate::broker::audit::{Author, Decision, Record, leaf};
use crate::broker::config::{self, Config};
use crate::broker::store::sql::SqlStore;
use crate::broker::store::{self, Effect, KeyStore as _, Ledger as _, Store as _, Unit};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::clock::Clock;
use crate::oidc::Issuer;

/// How often it is begun anew because somebody else was quicker.
const TRIES: usize = 8;

/// A key-encryption key that opens the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opens {
    /// Its name, which tells nothing of it.
    pub id: String,
    /// Since when; not known of the one that a database from before was made with.
    pub added_at: Option<OffsetDateTime>,
    /// Whether it is the one of the configuration.
    pub is_configured: bool,
    /// Whether it is the root key itself, as in a database that an earlier version began.
    pub is_root: bool,
}

/// The key-encryption keys of a broker's database.
pub struct Keks {
    store: SqlStore,
    /// The one of the configuration.
    kek: Kek,
    root_key: RootKey,
    issuer: Issuer,
    clock: Arc<dyn Clock>,
}

impl Keks {
    /// Opens the database of the broker that this file describes. Needs a runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where there is none, or the broker would not start with it either.
    pub async fn open(host: &Host, config: &Path) -> Result<Self> {
        let config: Config = config::load(config)?;
        let kek = Kek::load(&config.keys, &host.env).await?;
        let store = store::open_existing(&config.store, &host.env).await?;
        Self::of(store, kek, config.issuer, host.clock.clone()).await
    }

    async fn of(store: SqlStore, kek: Kek, issuer: Issuer, clock: Arc<dyn Clock>) -> Result<Self> {
        let keys = CheckpointKeys::of_broker(&store, &kek, &issuer).await?;
        let root_key = keys.root_key().clone();
        for key in store.keys().await? {
            let _ = root_key.unseal(&key)?;
        }
        store.seal_with(root_key.seal_of_log()).await?;
        Ok(Self { store, kek, root_key, issuer, clock })
    }

    /// All of them, the first one first.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn list(&self) -> Result<Vec<Opens>> {
        let sealed = self.store.sealed_roots().await?;
        if sealed.is_empty() {
            let id = self.kek.id().to_string();
            return Ok(vec![Opens { id, added_at: None, is_configured: true, is_root: true }]);
        }
        let all = sealed.into_iter().map(|one| Opens {
            is_configured: one.kek_id == self.kek.id(),
            is_root: one.kek_id == self.root_key.id(),
            id: one.kek_id,
            added_at: Some(one.added_at),
        });
        Ok(all.collect())
    }

    /// Has another one open the database, too. Returns whether it did not before.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the one of the configuration was removed meanwhile.
    pub async fn add(&self, other: &Kek, why: &str) -> Result<bool> {
        for _ in 0..TRIES {
            let sealed = self.store.sealed_roots().await?;
            let is_there = |kek: &Kek| sealed.iter().any(|one| one.kek_id == kek.id());
            // In a database from before, the one that it was made with comes first.
            let first = sealed.is_empty().then_some(&self.kek);
            if first.is_none() {
                RootKey::among(&sealed, &self.kek)?;
            }
            if is_there(other) {
                // Whether it does is tried: whoever is told so goes by it.
                return RootKey::among(&sealed, other).map(|_| false);
            }
            if other.id() == self.kek.id() {
                return Ok(false);
            }
            let now = self.clock.now();
            let mut slot = sealed.iter().map(|one| one.slot.saturating_add(1)).max().unwrap_or(0);
            let mut effects = Vec::new();
            for kek in first.into_iter().chain([other]) {
                let root = self.root_key.sealed_under(kek, slot, now)?;
                effects.push(Effect::AddRoot { root, by: self.kek.id().into() });
                slot = slot.saturating_add(1);
            }
            let (own, other) = (self.kek.id(), other.id());
            let reason =
                format!("the key-encryption key {other} opens the database as {own} does: {why}");
            if self.commit(now, reason, effects).await? {
                return Ok(true);
            }
        }
        Err(Error::new(ErrorKind::Other, "others change the key-encryption keys all the time")
            .hint("look at them, and begin anew"))
    }

    /// Has one open the database no more. Returns whether that is the root key itself, which
    /// opens all that there is without any database saying so.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] where none has this name, or it is the one of the configuration:
    /// that another one serves is shown by being here with it.
    pub async fn remove(&self, id: &str, why: &str) -> Result<bool> {
        if id == self.kek.id() {
            let said = format!("the key-encryption key {id} is the one of the configuration");
            return Err(Error::new(ErrorKind::Usage, said)
                .because_of("a broker with this configuration would not start without it")
                .hint("add another one, put it into the configuration, and remove this one then"));
        }
        let listed = self.list().await?;
        if listed.iter().all(|one| one.id != id) {
            let ids: Vec<_> = listed.into_iter().map(|one| one.id).collect();
            let said = format!("no key-encryption key {id:?} opens this database");
            return Err(
                Error::new(ErrorKind::Usage, said).hint(format!("there is {}", ids.join(", ")))
            );
        }
        let reason = format!("the key-encryption key {id} opens the database no more: {why}");
        let effect = Effect::RemoveRoot { kek_id: id.into(), other: self.kek.id().into() };
        match self.commit(self.clock.now(), reason, vec![effect]).await? {
            true => Ok(id == self.root_key.id()),
            false => {
                Err(Error::new(ErrorKind::Other, "the key-encryption keys were changed meanwhile")
                    .hint("look at them, and begin anew"))
            }
        }
    }

    /// Closes the database.
    pub async fn close(&self) {
        self.store.close().await;
    }

    async fn commit(
        &self,
        at: OffsetDateTime,
        reason: String,
        effects: Vec<Effect>,
    ) -> Result<bool> {
        let record = Author::operator(&self.issuer).record(at, "key", Decision::Changed);
        let record = Record { reason, ..record };
        leaf::check(&record)?;
        let unit = Unit { records: vec![record], effects };
        let done = self.store.commit(&[unit]).await?;
        Ok(done.iter().all(|outcome| outcome.is_committed()))
    }
}

#[cfg(test)]
mod tests;
