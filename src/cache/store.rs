//! The stores that secrets can rest in, and which of them is used.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use time::Duration;

use super::StoreChoice;
use super::key::ItemKey;
use super::keyed::Keyed;
use super::lock::{Exclusive, Locks};
use super::memory::Memory;
use super::notice::Notices;
use super::sealed::{self, Sealed};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::env::{CACHE_KEY, Env};
use crate::secret::Secret;

/// How large an item may be, in bytes, whatever the store.
pub(super) const ITEM_LIMIT: usize = 1024 * 1024;
/// How long another process may take to make the sealing key.
const SEALING_KEY_WAIT: std::time::Duration = std::time::Duration::from_secs(10);

/// A kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum StoreId {
    SecretService,
    Kernel,
    Native,
    Keyed,
    Memory,
}

impl StoreId {
    /// The name for people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::SecretService => "Secret Service",
            Self::Kernel => "kernel keyring",
            Self::Native if cfg!(target_os = "macos") => "Keychain",
            Self::Native if cfg!(windows) => "Credential Manager",
            Self::Native => "keyring of this system",
            Self::Keyed => "files sealed under TMPCRED_CACHE_KEY",
            Self::Memory => "memory of this run",
        }
    }

    /// The name for files.
    pub(super) fn slug(self) -> &'static str {
        match self {
            Self::SecretService => "secret-service",
            Self::Kernel => "kernel",
            Self::Native => "native",
            Self::Keyed => "keyed",
            Self::Memory => "memory",
        }
    }
}

/// Why a store did not do what it was asked.
#[derive(Debug)]
pub(super) enum Fault {
    /// There is no such store here. Another one may be.
    Absent(Error),
    /// It cannot take an item of this size, or no more items.
    Full(Error),
    /// It is there, but failed.
    Failed(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Fault {
    fn into_error(self) -> Error {
        match self {
            Self::Absent(error) | Self::Full(error) | Self::Failed(error) => error,
        }
    }
}

/// What is to be stored.
pub(super) struct Item<'a> {
    pub(super) key: &'a ItemKey,
    /// What people see where the store has a window of its own.
    pub(super) label: &'a str,
    pub(super) value: &'a Secret<Vec<u8>>,
    /// After how long the store may drop it by itself; `None`: never.
    pub(super) lifetime: Option<Duration>,
}

/// A place where secrets rest.
pub(super) trait Store: Send + Sync {
    fn id(&self) -> StoreId;

    /// Whether it is there.
    fn probe(&self) -> Result<(), Fault>;

    fn get(&self, key: &ItemKey) -> Result<Option<Secret<Vec<u8>>>, Fault>;

    /// Stores an item, in place of one with the same key.
    fn put(&self, item: &Item<'_>) -> Result<(), Fault>;

    /// Forgets an item; one that is not there is no error.
    fn delete(&self, key: &ItemKey) -> Result<(), Fault>;

    /// The items of this program, as far as the store can tell.
    fn keys(&self) -> Result<Vec<ItemKey>, Fault>;
}

/// The store of this run, and the sealed files that hold what it cannot take.
pub(super) struct Vault {
    host: Host,
    locks: Arc<Locks>,
    notices: Arc<Notices>,
    explicit: bool,
    sealed: Sealed,
    chain: Mutex<Chain>,
}

/// The stores that come into question, best first.
struct Chain {
    current: Option<Arc<dyn Store>>,
    /// Whether the current one is known to be there.
    settled: bool,
    next: VecDeque<StoreId>,
    missing: Vec<String>,
}

impl Vault {
    pub(super) fn new(
        host: Host,
        choice: StoreChoice,
        locks: Arc<Locks>,
        notices: Arc<Notices>,
    ) -> Self {
        let sealed = Sealed::new(host.dirs.state.join("sealed"));
        let chain = Chain {
            current: None,
            settled: false,
            next: candidates(choice, &host.env),
            missing: Vec::new(),
        };
        let explicit = choice != StoreChoice::Auto;
        Self { host, locks, notices, explicit, sealed, chain: Mutex::new(chain) }
    }

    /// A vault over a store of a test's own; after it comes memory.
    #[cfg(test)]
    pub(super) fn over(
        host: Host,
        store: Arc<dyn Store>,
        explicit: bool,
        locks: Arc<Locks>,
        notices: Arc<Notices>,
    ) -> Self {
        let mut vault = Self::new(host, StoreChoice::Memory, locks, notices);
        vault.explicit = explicit;
        vault.chain.get_mut().unwrap_or_else(PoisonError::into_inner).current = Some(store);
        vault
    }

    /// The stores that this run uses or may come to use, best first. Nothing is
    /// asked to find out.
    pub(super) fn possible(&self) -> Vec<StoreId> {
        let chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        let current = chain.current.as_ref().map(|store| store.id());
        let next = chain.next.iter().copied().filter(|_| !chain.settled);
        current.into_iter().chain(next).collect()
    }

    /// The store that was asked last, or would be asked first.
    pub(super) fn id_in_use(&self) -> StoreId {
        self.possible().first().copied().unwrap_or(StoreId::Memory)
    }

    /// Whether nothing of this run can reach another process.
    pub(super) fn is_memory(&self) -> bool {
        self.possible() == [StoreId::Memory]
    }

    /// The store of this run, chosen now where it has not been.
    pub(super) fn id(&self) -> StoreId {
        match self.with_store(|store| store.probe()) {
            Ok((store, _)) => store.id(),
            // What was chosen by name keeps its name when it is not there.
            Err(_) => self.id_in_use(),
        }
    }

    pub(super) fn get(&self, key: &ItemKey) -> Result<Option<Secret<Vec<u8>>>> {
        let (store, found) = self.with_store(|store| store.get(key))?;
        match found.map_err(Fault::into_error)? {
            Some(value) => Ok(Some(value)),
            None => self.unseal(&*store, key),
        }
    }

    /// Stores an item and says where.
    pub(super) fn put(&self, item: &Item<'_>) -> Result<StoreId> {
        if item.value.expose().len() > ITEM_LIMIT {
            return Err(Error::new(ErrorKind::Other, "an item is too large to be cached")
                .because_of(format!("it has more than {ITEM_LIMIT} bytes")));
        }
        let (store, done) = self.with_store(|store| store.put(item))?;
        match done {
            Ok(()) => self.sealed.remove(store.id(), item.key),
            Err(Fault::Full(full)) => self.seal(&*store, item, full)?,
            Err(fault) => return Err(fault.into_error()),
        }
        Ok(store.id())
    }

    /// Forgets an item and says where.
    pub(super) fn delete(&self, key: &ItemKey) -> Result<StoreId> {
        let (store, done) = self.with_store(|store| store.delete(key))?;
        self.sealed.remove(store.id(), key);
        done.map_err(Fault::into_error)?;
        Ok(store.id())
    }

    /// All items of this program, sealed ones too.
    pub(super) fn keys(&self) -> Result<Vec<ItemKey>> {
        let (store, keys) = self.with_store(|store| store.keys())?;
        let mut keys = keys.map_err(Fault::into_error)?;
        keys.extend(self.sealed.keys(store.id()));
        keys.sort();
        keys.dedup();
        Ok(keys)
    }

    /// The items that sealed files hold in vain. Nothing is asked of the store.
    pub(super) fn ended(&self, store: StoreId) -> Vec<ItemKey> {
        self.sealed.ended(store, self.host.clock.now())
    }

    /// Seals what the store cannot take into a file.
    fn seal(&self, store: &dyn Store, item: &Item<'_>, full: Error) -> Result<()> {
        let sealing_key = match self.sealing_key(store)? {
            Some(key) => key,
            None => self.make_sealing_key(store).map_err(|fault| match fault {
                // The reason is the item, not the key that follows from it.
                Fault::Full(_) => full,
                other => other.into_error(),
            })?,
        };
        let now = self.host.clock.now();
        let until = item.lifetime.map(|lifetime| now.saturating_add(lifetime));
        self.sealed.write(store.id(), item.key, &sealing_key, item.value, until)?;
        // The store's own item would be preferred to the file. It goes last: where the
        // disk is full too, it is all there is.
        store.delete(item.key).map_err(Fault::into_error).map(|_| ())
    }

    fn unseal(&self, store: &dyn Store, key: &ItemKey) -> Result<Option<Secret<Vec<u8>>>> {
        if !self.sealed.has(store.id(), key) {
            return Ok(None);
        }
        // A store that fails to answer must not cost the file.
        match self.sealing_key(store)? {
            Some(sealing_key) => {
                Ok(self.sealed.read(store.id(), key, &sealing_key, self.host.clock.now()))
            }
            None => {
                self.sealed.remove(store.id(), key);
                Ok(None)
            }
        }
    }

    fn sealing_key(&self, store: &dyn Store) -> Result<Option<Secret<Vec<u8>>>> {
        let key = store.get(&ItemKey::sealing_key()).map_err(Fault::into_error)?;
        Ok(key.filter(|key| key.expose().len() == sealed::KEY_LEN))
    }

    /// Makes the sealing key, unless another process does at the same time.
    fn make_sealing_key(&self, store: &dyn Store) -> Result<Secret<Vec<u8>>, Fault> {
        let name = format!("sealing-key-{}", store.id().slug());
        let _held = match self.locks.exclusive(&name, SEALING_KEY_WAIT) {
            Exclusive::Held(held) => Some(held),
            // Without locks the one who writes last wins, and a file sealed
            // under the other's key counts as absent.
            Exclusive::Unavailable => None,
            Exclusive::Busy => {
                return Err(Fault::Failed(Error::new(
                    ErrorKind::Other,
                    "another tmpcred is making the key for sealed files and does not finish",
                )));
            }
        };
        if let Some(key) = self.sealing_key(store)? {
            return Ok(key);
        }
        let value = sealed::new_key()?;
        store.put(&Item {
            key: &ItemKey::sealing_key(),
            label: "tmpcred: key for sealed files",
            value: &value,
            lifetime: None,
        })?;
        Ok(value)
    }

    /// Asks the store of this run. Where nothing was asked of it before and it
    /// turns out not to be there, the next one is asked.
    fn with_store<T>(
        &self,
        ask: impl Fn(&dyn Store) -> Result<T, Fault>,
    ) -> Result<(Arc<dyn Store>, Result<T, Fault>)> {
        loop {
            let (store, settled) = self.current()?;
            match ask(&*store) {
                Err(Fault::Absent(cause)) if !settled => self.pass_over(&store, cause)?,
                answer => {
                    self.settle(&store);
                    return Ok((store, answer));
                }
            }
        }
    }

    fn current(&self) -> Result<(Arc<dyn Store>, bool)> {
        let mut chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(store) = &chain.current {
                return Ok((store.clone(), chain.settled));
            }
            let Some(id) = chain.next.pop_front() else {
                // Memory ends every list that is not explicit, and is never missing.
                return Err(Error::new(ErrorKind::Config, "there is no store for credentials")
                    .because_of(chain.missing.join("; ")));
            };
            match self.open(id) {
                Ok(store) => {
                    if id == StoreId::Memory && !self.explicit {
                        self.notices.warn_once(
                            "memory",
                            &format!(
                                "no keyring can be used here, so nothing is remembered after this run ({})",
                                chain.missing.join("; ")
                            ),
                        );
                    }
                    chain.current = Some(store);
                }
                Err(cause) if self.explicit => {
                    chain.next.push_front(id);
                    return Err(unavailable(cause));
                }
                Err(cause) => chain.missing.push(cause.to_string()),
            }
        }
    }

    fn settle(&self, store: &Arc<dyn Store>) {
        let mut chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        if chain.current.as_ref().is_some_and(|current| Arc::ptr_eq(current, store)) {
            chain.settled = true;
        }
    }

    fn pass_over(&self, store: &Arc<dyn Store>, cause: Error) -> Result<()> {
        if self.explicit {
            return Err(unavailable(cause));
        }
        tracing::debug!(store = store.id().name(), %cause, "the store is not there");
        let mut chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have passed it over meanwhile.
        if chain.current.as_ref().is_some_and(|current| Arc::ptr_eq(current, store)) {
            chain.current = None;
            chain.missing.push(cause.to_string());
        }
        Ok(())
    }

    /// Prepares a store. Nothing is asked of it yet.
    fn open(&self, id: StoreId) -> Result<Arc<dyn Store>> {
        match id {
            StoreId::Keyed => Ok(Arc::new(Keyed::open(&self.host, self.notices.clone())?)),
            StoreId::Memory => Ok(Arc::new(Memory::new(self.host.clock.clone()))),
            #[cfg(target_os = "linux")]
            StoreId::Kernel => Ok(Arc::new(super::kernel::Kernel::default())),
            #[cfg(target_os = "linux")]
            StoreId::SecretService => Ok(Arc::new(super::secret_service::SecretService::open(
                &self.host.env,
                self.locks.clone(),
                self.notices.clone(),
            )?)),
            #[cfg(not(target_os = "linux"))]
            StoreId::Native => Ok(Arc::new(super::native::Native::default())),
            #[cfg(target_os = "linux")]
            StoreId::Native => {
                Err(Error::new(ErrorKind::Config, "Linux has no native keyring of that kind"))
            }
            #[cfg(not(target_os = "linux"))]
            StoreId::Kernel | StoreId::SecretService => {
                Err(Error::new(ErrorKind::Config, format!("the {} is for Linux only", id.name())))
            }
        }
    }
}

/// The error for sealed files that were chosen, without a key for them.
pub(super) fn no_cache_key() -> Error {
    Error::new(ErrorKind::Config, "the store `sealed` has no key")
        .because_of(format!("{CACHE_KEY} is not set"))
        .hint("make one for this job with: openssl rand -base64 32")
}

fn unavailable(cause: Error) -> Error {
    let error = cause.context("the store that the configuration names cannot be used here");
    error.hint(
        "choose another `store`, or \"auto\", in the `[cache]` table, or with TMPCRED_CACHE_STORE",
    )
}

/// The stores that a choice comes down to, best first.
fn candidates(choice: StoreChoice, env: &Env) -> VecDeque<StoreId> {
    match choice {
        // Whoever sets it wants what this run keeps to be found where the keyring
        // of this place is not, as in the next container of the same job.
        StoreChoice::Auto if env.get_os(CACHE_KEY).is_some() => {
            [StoreId::Keyed, StoreId::Memory].into()
        }
        StoreChoice::Auto if cfg!(target_os = "linux") => {
            [StoreId::SecretService, StoreId::Kernel, StoreId::Memory].into()
        }
        StoreChoice::Auto => [StoreId::Native, StoreId::Memory].into(),
        StoreChoice::SecretService => [StoreId::SecretService].into(),
        StoreChoice::Kernel => [StoreId::Kernel].into(),
        StoreChoice::Native => [StoreId::Native].into(),
        StoreChoice::Sealed => [StoreId::Keyed].into(),
        StoreChoice::Memory => [StoreId::Memory].into(),
    }
}
