//! The index: what the cache holds, without any secret, so that `status` can
//! tell without unlocking anything.
//!
//! It is a convenience. Losing it loses no secret, and failing to write it fails
//! no run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::key::ItemKey;
use super::lock::{Exclusive, Locks};
use super::notice::Notices;
use super::store::StoreId;
use super::{CredentialLabel, DeviceLabel, SessionLabel};
use crate::error::{Error, ErrorKind, Result};
use crate::host::files;

/// The version of the file's form. A file of another version counts as empty.
const VERSION: u32 = 1;
/// How large the file may be, in bytes: thousands of entries.
const FILE_LIMIT: u64 = 4 * 1024 * 1024;
/// How long others may take to write their entries.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// An entry: what it says, and which store has the secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry<L> {
    pub(super) key: String,
    pub(super) store: StoreId,
    #[serde(flatten)]
    pub(super) label: L,
}

/// What the index says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entries {
    v: u32,
    pub(super) sessions: Vec<Entry<SessionLabel>>,
    pub(super) credentials: Vec<Entry<CredentialLabel>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) devices: Vec<Entry<DeviceLabel>>,
}

impl Entries {
    /// Notes a session, in place of what was there.
    pub(super) fn put_session(&mut self, store: StoreId, key: &ItemKey, label: SessionLabel) {
        put(&mut self.sessions, store, key, label);
    }

    /// Notes a credential, in place of what was there.
    pub(super) fn put_credential(&mut self, store: StoreId, key: &ItemKey, label: CredentialLabel) {
        put(&mut self.credentials, store, key, label);
    }

    /// Notes the key which tokens are bound to, in place of what was there.
    pub(super) fn put_device(&mut self, store: StoreId, key: &ItemKey, label: DeviceLabel) {
        put(&mut self.devices, store, key, label);
    }

    /// Drops whatever a store had under a key.
    pub(super) fn remove(&mut self, store: StoreId, key: &ItemKey) {
        self.sessions.retain(|entry| !entry.is(store, key));
        self.credentials.retain(|entry| !entry.is(store, key));
    }

    /// Drops the credentials that have ended; returns those of `store`.
    pub(super) fn prune(&mut self, store: StoreId, now: OffsetDateTime) -> Vec<ItemKey> {
        let ended =
            self.credentials.extract_if(.., |entry| entry.label.lifetime.remaining(now).is_zero());
        ended.filter(|e| e.store == store).filter_map(|e| ItemKey::parse(&e.key)).collect()
    }
}

impl<L> Entry<L> {
    pub(super) fn is(&self, store: StoreId, key: &ItemKey) -> bool {
        self.store == store && self.key == key.as_str()
    }
}

fn put<L>(entries: &mut Vec<Entry<L>>, store: StoreId, key: &ItemKey, label: L) {
    entries.retain(|entry| !entry.is(store, key));
    entries.push(Entry { key: key.as_str().to_string(), store, label });
}

/// The index of one user.
pub(super) struct Index {
    path: PathBuf,
    pub(super) locks: Arc<Locks>,
    notices: Arc<Notices>,
    /// What only this run has.
    of_run: Mutex<Entries>,
}

impl Index {
    pub(super) fn new(path: PathBuf, locks: Arc<Locks>, notices: Arc<Notices>) -> Self {
        Self { path, locks, notices, of_run: Mutex::default() }
    }

    /// All that is known, of whatever store.
    pub(super) fn read(&self) -> Entries {
        let mut entries = self.read_file();
        let of_run = self.of_run.lock().unwrap_or_else(PoisonError::into_inner);
        entries.sessions.extend(of_run.sessions.iter().cloned());
        entries.credentials.extend(of_run.credentials.iter().cloned());
        entries.devices.extend(of_run.devices.iter().cloned());
        entries
    }

    /// Changes what is said of a store. `None` where it could not be written.
    pub(super) fn update<T>(
        &self,
        store: StoreId,
        change: impl FnOnce(&mut Entries) -> T,
    ) -> Option<T> {
        if store == StoreId::Memory {
            return Some(change(&mut self.of_run.lock().unwrap_or_else(PoisonError::into_inner)));
        }
        let changed = self.update_file(change);
        changed
            .inspect_err(|error| {
                self.notices.warn_once(
                    "index",
                    &format!("`status` may not show everything that is cached: {error}"),
                );
            })
            .ok()
    }

    fn update_file<T>(&self, change: impl FnOnce(&mut Entries) -> T) -> Result<T> {
        let _held = match self.locks.exclusive("index", LOCK_WAIT) {
            Exclusive::Held(held) => Some(held),
            // Two at once may then lose an entry, which is not worth failing for.
            Exclusive::Unavailable => None,
            Exclusive::Busy => {
                return Err(Error::new(
                    ErrorKind::Io,
                    "another tmpcred keeps the index locked and does not finish",
                ));
            }
        };
        let before = self.read_file();
        let mut entries = before.clone();
        let answer = change(&mut entries);
        if entries != before || entries.v != VERSION {
            entries.v = VERSION;
            // Strings and numbers always have a JSON form.
            let bytes = serde_json::to_vec(&entries).unwrap_or_default();
            files::write_private(&self.path, &bytes)?;
        }
        Ok(answer)
    }

    /// What the file says. A damaged one says nothing, and is written anew.
    fn read_file(&self) -> Entries {
        let read = files::read(&self.path, FILE_LIMIT).and_then(|bytes| {
            let Some(bytes) = bytes else { return Ok(Entries::default()) };
            serde_json::from_slice::<Entries>(&bytes).map_err(|_| {
                Error::new(ErrorKind::Io, format!("{} is damaged", self.path.display()))
            })
        });
        match read {
            Ok(entries) if entries.v == VERSION => entries,
            Ok(_) => Entries::default(),
            Err(error) => {
                tracing::debug!(%error, "the index counts as empty");
                Entries::default()
            }
        }
    }
}

/// Entries by what they say, one for each: the same session may be known to
/// several stores.
pub(super) fn labels<L: Clone, K: Ord>(entries: &[Entry<L>], order: impl Fn(&L) -> K) -> Vec<L> {
    let mut by_key: BTreeMap<&str, &L> = BTreeMap::new();
    for entry in entries {
        by_key.insert(&entry.key, &entry.label);
    }
    let mut labels: Vec<L> = by_key.into_values().cloned().collect();
    labels.sort_by_key(|label| order(label));
    labels
}
