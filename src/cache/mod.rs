//! Where credentials and sessions rest between runs, and the locks that make a
//! hundred processes act as one.
//!
//! | what | where | until |
//! |---|---|---|
//! | credentials | the store: an OS keyring, or memory | they expire |
//! | sessions; of one that has ended only whose it was | the store | they are forgotten |
//! | registrations at servers | the store | they end |
//! | the key that tokens are bound to, and the key that signs for somebody | the store | the store is emptied |
//! | what a store cannot take, and all where `TMPCRED_CACHE_KEY` is set | `state/sealed/`, encrypted | as above |
//! | which credentials were to be renewed ahead, or looked at, without anything in it | `state/ahead/`, `state/checks/` | a day has passed |
//! | the index: labels, no secrets | `state/index.json` | as above |
//! | public documents | `state/documents/` | their own end |
//! | locks | `runtime/locks/`; with `TMPCRED_CACHE_KEY` beside what they guard, in `state/sealed/locks/`; the index's own beside it, in `state/locks/` | their holder lets go, or dies |

mod ahead;
mod device;
mod document;
mod forget;
mod index;
#[cfg(target_os = "linux")]
mod kernel;
mod key;
mod keyed;
mod lock;
mod memory;
#[cfg(not(target_os = "linux"))]
mod native;
#[cfg(any(not(target_os = "linux"), test))]
mod native_limits;
mod notice;
mod sealed;
#[cfg(target_os = "linux")]
mod secret_service;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

pub use ahead::CHECK_AFTER;
pub use device::DeviceLabel;
pub use key::{ClientKey, CredentialKey, SessionKey};
pub use lock::{Lead, Turn};

use self::ahead::Ahead;
use self::document::Documents;
use self::index::{Entries, Entry, Index, labels};
use self::key::ItemKey;
use self::lock::{Exclusive, Locks};
use self::notice::Notices;
use self::store::{Item, StoreId, Vault};
use crate::credential::{self, Credential, Lifetime, Principal};
use crate::error::Result;
use crate::host::Host;
use crate::secret::Secret;

/// Which store to use.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum StoreChoice {
    /// Files sealed under `TMPCRED_CACHE_KEY` where that is set. Else the OS keyring;
    /// on Linux the Secret Service where there is one, else the kernel keyring; memory
    /// where there is neither.
    #[default]
    Auto,
    /// The Secret Service, through D-Bus.
    SecretService,
    /// The keyring of the Linux kernel.
    Kernel,
    /// The keyring of macOS or Windows.
    Native,
    /// Files sealed under the key in `TMPCRED_CACHE_KEY`.
    Sealed,
    /// Nothing outlives the run.
    Memory,
}

impl StoreChoice {
    /// Whether it comes down to files sealed under `TMPCRED_CACHE_KEY`.
    fn is_keyed(self, host: &Host) -> bool {
        let has_key = host.env.get_os(crate::host::env::CACHE_KEY).is_some();
        self == Self::Sealed || (self == Self::Auto && has_key)
    }

    /// Refuses a key in `TMPCRED_CACHE_KEY` that would be used and is none, before
    /// anything is minted that could not be kept.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::error::ErrorKind::Config), with how to make one.
    pub fn check(self, host: &Host) -> Result<()> {
        match self {
            Self::Auto => keyed::key(&host.env).map(|_| ()),
            Self::Sealed => keyed::key(&host.env)?.map(|_| ()).ok_or_else(store::no_cache_key),
            Self::SecretService | Self::Kernel | Self::Native | Self::Memory => Ok(()),
        }
    }
}

/// What the index says of a cached credential, without any secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialLabel {
    /// The profile it was minted for.
    pub profile: String,
    /// Its role.
    pub role: String,
    /// Whom it is for.
    pub principal: Principal,
    /// From when to when it is good.
    pub lifetime: Lifetime,
}

/// What the index says of a session, without any secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionLabel {
    /// The identity's name in the configuration.
    pub identity: String,
    /// Who logged in.
    pub principal: Principal,
    /// When.
    #[serde(with = "time::serde::timestamp")]
    pub since: OffsetDateTime,
    /// Whether the other side has ended it. Who it was is still known, since what was
    /// cached for them is good until it expires.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
    /// A digest of what tells it from the one before it, where the principal does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub particular: Option<String>,
}

/// What the cache holds, as far as its index tells. Reading it unlocks nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The sessions.
    pub sessions: Vec<SessionLabel>,
    /// The credentials, expired ones left out.
    pub credentials: Vec<CredentialLabel>,
}

/// The cache of one user. Opening it touches nothing; the store is chosen at
/// the first use.
pub struct Cache {
    host: Host,
    notices: Arc<Notices>,
    locks: Arc<Locks>,
    vault: Vault,
    index: Index,
    documents: Documents,
    ahead: Ahead,
    checks: Ahead,
}

impl Cache {
    /// The cache for this run.
    pub fn new(host: Host, choice: StoreChoice) -> Self {
        let notices = Arc::new(Notices::new(host.interact.clone()));
        let locks = match choice.is_keyed(&host) {
            true => Locks::beside(&keyed::home(&host.dirs), &host.dirs, notices.clone()),
            false => Locks::new(&host.dirs, notices.clone()),
        };
        let locks = Arc::new(locks);
        let vault = Vault::new(host.clone(), choice, locks.clone(), notices.clone());
        // One file, whatever else is where, and so one lock.
        let beside = Arc::new(Locks::beside(&host.dirs.state, &host.dirs, notices.clone()));
        let index = Index::new(host.dirs.state.join("index.json"), beside, notices.clone());
        let documents = Documents::new(host.dirs.state.join("documents"));
        let (ahead, checks) = (Ahead::renewals(&host.dirs.state), Ahead::checks(&host.dirs.state));
        Self { host, notices, locks, vault, index, documents, ahead, checks }
    }

    /// The name of the store in use, such as `kernel keyring`, choosing it first
    /// where that has not happened yet.
    pub fn store_name(&self) -> &'static str {
        self.vault.id().name()
    }

    /// The credential with this key, unless it is absent, broken or expired.
    pub fn credential(&self, key: &CredentialKey) -> Result<Option<Credential>> {
        let item = key.item();
        let Some(bytes) = self.vault.get(&item)? else { return Ok(None) };
        let Some(credential) = self.decode(&bytes) else {
            tracing::debug!(item = item.as_str(), "a broken entry counts as absent");
            return Ok(None);
        };
        if self.is_over(&credential) {
            self.forget_ended(&item);
            return Ok(None);
        }
        Ok(Some(credential))
    }

    /// What is known of the credential with this key, as the index tells, unless
    /// it has expired; unlocks nothing.
    pub fn credential_label(&self, key: &CredentialKey) -> Result<Option<CredentialLabel>> {
        let now = self.host.clock.now();
        let label = self.labelled(&key.item(), |entries| &mut entries.credentials);
        Ok(label.filter(|label| !label.lifetime.remaining(now).is_zero()))
    }

    /// Keeps a credential until it expires. The lock proves that nobody else
    /// mints the same one meanwhile.
    ///
    /// An error means that it was not kept; the credential is as good as before.
    pub fn keep_credential(
        &self,
        key: &CredentialKey,
        credential: &Credential,
        profile: &str,
        _lead: &Lead,
    ) -> Result<()> {
        let item = key.item();
        if self.is_over(credential) {
            return Ok(());
        }
        let now = self.host.clock.now();
        let store = self.vault.put(&Item {
            key: &item,
            label: &format!("tmpcred: {profile}, role {}", credential.role),
            value: &credential::encode(credential),
            lifetime: Some(credential.lifetime.remaining(now)),
        })?;
        let label = CredentialLabel {
            profile: profile.to_string(),
            role: credential.role.clone(),
            principal: credential.principal.clone(),
            lifetime: credential.lifetime,
        };
        let ended = self.index.update(store, |entries| {
            entries.put_credential(store, &item, label);
            entries.prune(store, now)
        });
        for ended in ended.unwrap_or_default().into_iter().chain(self.vault.ended(store)) {
            self.forget_ended(&ended);
        }
        Ok(())
    }

    /// Who is logged in, as the index tells; unlocks nothing.
    pub fn session_label(&self, key: &SessionKey) -> Result<Option<SessionLabel>> {
        Ok(self.labelled(&key.item(), |entries| &mut entries.sessions))
    }

    /// What a source kept of its session.
    pub fn session(&self, key: &SessionKey) -> Result<Option<Secret<Vec<u8>>>> {
        let item = key.item();
        let found = self.vault.get(&item)?;
        let store = self.vault.id_in_use();
        if found.is_none()
            && store != StoreId::Keyed
            && self.index.read().sessions.iter().any(|e| e.is(store, &item))
        {
            // The store lost it, as the kernel's does when the machine restarts.
            // Whoever keeps one writes it to the store first, then to the index.
            let lost = self.index.update(store, |entries| {
                let lost = matches!(self.vault.get(&item), Ok(None));
                if lost {
                    entries.remove(store, &item);
                }
                lost
            });
            tracing::debug!(?lost, "the index knew a session that the store does not have");
        }
        Ok(found)
    }

    /// Keeps a session, until it is replaced or forgotten. The lock proves that
    /// no other process uses the refresh token in it.
    pub fn keep_session(
        &self,
        key: &SessionKey,
        label: &SessionLabel,
        session: &Secret<Vec<u8>>,
        lead: &Lead,
    ) -> Result<()> {
        let item = key.item();
        debug_assert!(lead.is_over(item.as_str()), "another lock proves nothing");
        let store = self.vault.put(&Item {
            key: &item,
            label: &format!("tmpcred: session of {}", label.identity),
            value: session,
            lifetime: None,
        })?;
        self.index.update(store, |entries| entries.put_session(store, &item, label.clone()));
        Ok(())
    }

    /// Forgets a session.
    pub fn forget_session(&self, key: &SessionKey, lead: &Lead) -> Result<()> {
        let item = key.item();
        debug_assert!(lead.is_over(item.as_str()), "another lock proves nothing");
        let store = self.vault.delete(&item)?;
        self.index.update(store, |entries| entries.remove(store, &item));
        Ok(())
    }

    /// What a source kept of its registration at a server.
    pub fn client(&self, key: &ClientKey) -> Result<Option<Secret<Vec<u8>>>> {
        self.vault.get(&key.item())
    }

    /// Keeps a registration while it lasts. It is no session: the index does not know
    /// it, and logging out leaves it. The lock of the session that it is for is held.
    pub fn keep_client(
        &self,
        key: &ClientKey,
        label: &str,
        client: &Secret<Vec<u8>>,
        lifetime: time::Duration,
        _lead: &Lead,
    ) -> Result<()> {
        let label = format!("tmpcred: {label}");
        let (key, lifetime) = (&key.item(), Some(lifetime));
        self.vault.put(&Item { key, label: &label, value: client, lifetime }).map(|_| ())
    }

    /// Forgets a registration. The lock of the session that it is for is held.
    pub fn forget_client(&self, key: &ClientKey, _lead: &Lead) -> Result<()> {
        self.vault.delete(&key.item()).map(|_| ())
    }

    /// What is there, as the index tells; unlocks nothing.
    pub fn contents(&self) -> Result<Contents> {
        let mut entries = self.entries();
        let now = self.host.clock.now();
        entries.credentials.retain(|entry| !entry.label.lifetime.remaining(now).is_zero());
        Ok(Contents {
            sessions: labels(&entries.sessions, |label| (label.identity.clone(), label.since)),
            credentials: labels(&entries.credentials, |label| {
                (label.profile.clone(), label.role.clone(), label.lifetime.expires_at)
            }),
        })
    }

    /// Takes the lock of a session, or waits for whoever has it.
    ///
    /// `look` is called once the lock is held, since the work may have been done
    /// just before, and each time another one's attempt has ended; what it finds
    /// ends the wait. Where the attempt that was waited for failed, its failure
    /// is returned. Whoever can do without waits for `limit` at most: somebody may be
    /// logging in.
    pub fn lead_session<T>(
        &self,
        key: &SessionKey,
        limit: Option<Duration>,
        look: impl FnMut() -> Result<Option<T>>,
    ) -> Result<Turn<T>> {
        self.locks.lead_within(key.item().as_str(), limit, look)
    }

    /// Takes the lock of a session, however the attempts of others end.
    pub fn take_session(&self, key: &SessionKey, limit: Option<Duration>) -> Result<Lead> {
        self.locks.take(key.item().as_str(), limit)
    }

    /// The same as [`lead_session`](Self::lead_session) for a credential. A session's lock may be taken while a
    /// credential's is held, never the other way round.
    pub fn lead_credential<T>(
        &self,
        key: &CredentialKey,
        limit: Option<Duration>,
        mut look: impl FnMut() -> Result<Option<T>>,
    ) -> Result<Turn<T>> {
        let item = key.item();
        if self.vault.is_memory() {
            // Nobody could take over what another process has in memory:
            // waiting for it would only put all of them in a row.
            return Ok(look()?.map_or_else(|| Turn::Lead(Lead::alone(item.as_str())), Turn::Done));
        }
        self.locks.lead_within(item.as_str(), limit, look)
    }

    /// Takes the lock of a credential where nobody has it; for what can be left undone.
    pub fn lead_credential_if_free(&self, key: &CredentialKey) -> Option<Lead> {
        if self.vault.is_memory() {
            return Some(Lead::alone(key.item().as_str()));
        }
        self.locks.lead_if_free(key.item().as_str())
    }

    /// Forgets a credential that is good no more, and is to be replaced by whoever holds its
    /// lock.
    pub fn forget_credential(&self, key: &CredentialKey, _lead: &Lead) -> Result<()> {
        self.vault.delete(&key.item()).map(|_| ())
    }

    /// A public document that was kept, such as discovery metadata or a JWKS,
    /// unless it is older than it may be.
    pub fn document(&self, name: &str) -> Option<Vec<u8>> {
        self.documents.get(name, self.host.clock.now())
    }

    /// Keeps a public document until `until`. Failing is no error: it is fetched again.
    pub fn keep_document(&self, name: &str, bytes: &[u8], until: OffsetDateTime) {
        if let Err(error) = self.documents.put(name, bytes, self.host.clock.now(), until) {
            self.notices.warn_once(
                "documents",
                &format!("public documents are fetched anew each time: {error}"),
            );
        }
    }

    /// What the index says of an item, in the first store that may have it.
    fn labelled<L>(
        &self,
        item: &ItemKey,
        list: impl FnOnce(&mut Entries) -> &mut Vec<Entry<L>>,
    ) -> Option<L> {
        let mut entries = self.entries();
        let list = list(&mut entries);
        let mut stores = self.vault.possible().into_iter();
        let at = stores.find_map(|store| {
            // The index does not tell keys apart, but the names of files do.
            let here = store != StoreId::Keyed || keyed::may_have(&self.host, item);
            list.iter().position(|entry| here && entry.is(store, item))
        })?;
        Some(list.swap_remove(at).label)
    }

    /// What the index says, by this machine's clock as it stands now.
    fn entries(&self) -> Entries {
        let mut entries = self.index.read();
        for entry in &mut entries.credentials {
            entry.label.lifetime = self.by_clock_in(entry.store, entry.label.lifetime);
        }
        entries
    }

    /// A credential that was written down, by this machine's clock as it stands now.
    fn decode(&self, bytes: &Secret<Vec<u8>>) -> Option<Credential> {
        let mut credential = credential::decode(bytes)?;
        credential.lifetime = self.by_clock(credential.lifetime);
        Some(credential)
    }

    /// A lifetime of something that is kept here, by this machine's clock as it stands now.
    pub fn by_clock(&self, lifetime: Lifetime) -> Lifetime {
        self.by_clock_in(self.vault.id_in_use(), lifetime)
    }

    fn by_clock_in(&self, store: StoreId, lifetime: Lifetime) -> Lifetime {
        let started = self.host.clock.machine_started();
        match store {
            // Other machines may have these files too.
            StoreId::Keyed => lifetime.by_some_clock(started),
            _ => lifetime.by_clock(started),
        }
    }

    fn is_over(&self, credential: &Credential) -> bool {
        credential.lifetime.remaining(self.host.clock.now()).is_zero()
    }

    /// Deletes a credential that has ended, unless somebody is about to replace
    /// it, or has. This only tidies up, so it gives way and never fails.
    fn forget_ended(&self, key: &ItemKey) {
        if !key.is_credential() {
            return;
        }
        let Exclusive::Held(_held) = self.locks.exclusive(key.as_str(), Duration::ZERO) else {
            return;
        };
        let deleted = self.vault.get(key).and_then(|bytes| {
            let good = bytes.and_then(|b| self.decode(&b)).is_some_and(|c| !self.is_over(&c));
            if good { Ok(()) } else { self.vault.delete(key).map(|_| ()) }
        });
        if let Err(error) = deleted {
            tracing::debug!(%error, "cannot delete an expired credential");
        }
    }
}
