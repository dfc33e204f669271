//! A world for tests: a clock to move, a keyring to spoil, a disk of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use tempfile::TempDir;
use time::Duration;
use time::macros::datetime;
use url::Url;

use crate::cache::store::{Fault, Store};
use crate::cache::*;
use crate::credential::Material;
use crate::error::{Error, ErrorKind};
use crate::host::browser::Browser;
use crate::host::clock::{Clock, SkewMeter};
use crate::host::dirs::Dirs;
use crate::host::env::Env;
use crate::host::files;
use crate::host::interact::{DevicePrompt, Interact, Waiting};

/// Looked for in every file.
pub(super) const CANARY: &str = "canary-1f0a9be4";
pub(super) const START: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);

/// A clock that a test moves, and how far it was set back.
struct Hands(Mutex<OffsetDateTime>, Mutex<Duration>);

impl Clock for Hands {
    fn now(&self) -> OffsetDateTime {
        *self.0.lock().unwrap()
    }

    fn machine_started(&self) -> OffsetDateTime {
        START - *self.1.lock().unwrap()
    }
}

#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl Interact for Warnings {
    fn may_ask(&self) -> bool {
        false
    }
    fn may_browse(&self) -> bool {
        false
    }
    fn note(&self, _: &str) {}
    fn warn(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_string());
    }
    fn login_page(&self, _: &Url, _: bool) {}
    fn device_code(&self, _: &DevicePrompt) {}
    fn waiting(&self, _: &str) -> Box<dyn Waiting> {
        struct Shown;
        impl Waiting for Shown {}
        Box::new(Shown)
    }
}

struct NoBrowser;

impl Browser for NoBrowser {
    fn open(&self, _: &Url) -> Result<()> {
        Err(Error::new(ErrorKind::Io, "there is no browser"))
    }
}

/// A store that outlives caches, as a keyring does, and that a test can spoil.
#[derive(Default)]
pub(super) struct Keyring {
    pub(super) items: Mutex<BTreeMap<String, Vec<u8>>>,
    pub(super) labels: Mutex<Vec<String>>,
    /// Larger items are refused.
    pub(super) limit: Option<usize>,
    pub(super) missing: AtomicBool,
    pub(super) locked: AtomicBool,
}

impl Keyring {
    pub(super) fn with_limit(limit: usize) -> Self {
        Self { limit: Some(limit), ..Self::default() }
    }

    pub(super) fn items(&self) -> Result<MutexGuard<'_, BTreeMap<String, Vec<u8>>>, Fault> {
        if self.missing.load(Ordering::SeqCst) {
            return Err(Fault::Absent(Error::new(ErrorKind::Config, "there is no keyring")));
        }
        if self.locked.load(Ordering::SeqCst) {
            return Err(Fault::Failed(Error::new(ErrorKind::KeyringLocked, "it is locked")));
        }
        Ok(self.items.lock().unwrap())
    }
}

/// A keyring under the id of the kernel's: caches share it.
struct Shared(Arc<Keyring>);

impl Store for Shared {
    fn id(&self) -> StoreId {
        StoreId::Kernel
    }
    fn probe(&self) -> Result<(), Fault> {
        self.0.items().map(|_| ())
    }
    fn get(&self, key: &ItemKey) -> Result<Option<Secret<Vec<u8>>>, Fault> {
        Ok(self.0.items()?.get(key.as_str()).cloned().map(Secret::new))
    }
    fn put(&self, item: &Item<'_>) -> Result<(), Fault> {
        let mut items = self.0.items()?;
        let value = item.value.expose().clone();
        if self.0.limit.is_some_and(|limit| value.len() > limit) {
            return Err(Fault::Full(Error::new(ErrorKind::Other, "too large")));
        }
        self.0.labels.lock().unwrap().push(item.label.to_string());
        items.insert(item.key.as_str().to_string(), value);
        Ok(())
    }
    fn delete(&self, key: &ItemKey) -> Result<(), Fault> {
        self.0.items()?.remove(key.as_str());
        Ok(())
    }
    fn keys(&self) -> Result<Vec<ItemKey>, Fault> {
        Ok(self.0.items()?.keys().filter_map(|key| ItemKey::parse(key)).collect())
    }
}

pub(super) struct World {
    pub(super) dir: TempDir,
    clock: Arc<Hands>,
    warnings: Arc<Warnings>,
    pub(super) keyring: Arc<Keyring>,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(Keyring::default())
    }

    pub(super) fn with(keyring: Keyring) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            clock: Arc::new(Hands(Mutex::new(START), Mutex::new(Duration::ZERO))),
            warnings: Arc::default(),
            keyring: Arc::new(keyring),
        }
    }

    pub(super) fn host(&self) -> Host {
        Host {
            clock: self.clock.clone(),
            env: Env::default(),
            dirs: Dirs::below(self.dir.path()),
            browser: Arc::new(NoBrowser),
            interact: self.warnings.clone(),
            skew: SkewMeter::default(),
        }
    }

    /// A cache as another run would have it: nothing is shared but the disk and
    /// the keyring.
    pub(super) fn cache(&self) -> Cache {
        self.cache_over(true)
    }

    pub(super) fn cache_over(&self, explicit: bool) -> Cache {
        let mut cache = Cache::new(self.host(), StoreChoice::Memory);
        let store = Arc::new(Shared(self.keyring.clone()));
        let (locks, notices) = (cache.locks.clone(), cache.notices.clone());
        cache.vault = Vault::over(self.host(), store, explicit, locks, notices);
        cache
    }

    /// Somebody sets the clock back by so much.
    pub(super) fn set_back(&self, by: Duration) {
        *self.clock.0.lock().unwrap() -= by;
        *self.clock.1.lock().unwrap() += by;
    }

    pub(super) fn pass(&self, time: Duration) {
        *self.clock.0.lock().unwrap() += time;
    }

    pub(super) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        self.warnings.0.lock().unwrap().clone()
    }

    pub(super) fn sealed_files(&self) -> Vec<PathBuf> {
        files::list(&self.state().join("sealed/kernel")).unwrap()
    }
}

pub(super) fn principal(subject: &str) -> Principal {
    Principal { issuer: "https://i.example".into(), subject: subject.into() }
}

pub(super) fn key_of(role: &str, subject: &str) -> CredentialKey {
    CredentialKey::new(role.as_bytes(), &principal(subject))
}

pub(super) fn credential(role: &str, subject: &str, size: usize) -> Credential {
    let mut token = CANARY.to_string();
    token.extend(std::iter::repeat_n('x', size));
    Credential {
        material: Material::Bearer { token: Secret::new(token) },
        role: role.into(),
        scope: vec![],
        principal: principal(subject),
        lifetime: Lifetime::new(START, START + Duration::hours(1), None, START),
    }
}

pub(super) fn label(subject: &str) -> SessionLabel {
    SessionLabel {
        identity: "corp".into(),
        principal: principal(subject),
        since: START,
        ended: false,
        particular: None,
    }
}

pub(super) fn lead_credential(cache: &Cache, key: &CredentialKey) -> Lead {
    match cache.lead_credential(key, None, || Ok(None::<()>)).unwrap() {
        Turn::Lead(lead) => lead,
        Turn::Done(()) => panic!("nothing was found"),
    }
}

pub(super) fn lead_session(cache: &Cache, key: &SessionKey) -> Lead {
    match cache.lead_session(key, None, || Ok(None::<()>)).unwrap() {
        Turn::Lead(lead) => lead,
        Turn::Done(()) => panic!("nothing was found"),
    }
}

pub(super) fn try_keep(cache: &Cache, role: &str, subject: &str, size: usize) -> Result<()> {
    let key = key_of(role, subject);
    let lead = lead_credential(cache, &key);
    cache.keep_credential(&key, &credential(role, subject, size), "prod", &lead)
}

pub(super) fn keep(cache: &Cache, role: &str, subject: &str, size: usize) {
    try_keep(cache, role, subject, size).unwrap();
}

pub(super) fn try_keep_session(cache: &Cache, subject: &str) -> Result<()> {
    let key = SessionKey::new(&["corp"]);
    let lead = lead_session(cache, &key);
    let secret = Secret::new(format!("{CANARY} of {subject}").into_bytes());
    cache.keep_session(&key, &label(subject), &secret, &lead)
}

pub(super) fn token(cache: &Cache, role: &str, subject: &str) -> Option<usize> {
    let found = cache.credential(&key_of(role, subject)).unwrap();
    found.map(|credential| credential.material.secret().expose().len() - CANARY.len())
}

pub(super) fn roles(cache: &Cache) -> Vec<String> {
    cache.contents().unwrap().credentials.into_iter().map(|label| label.role).collect()
}

/// All files below a directory.
pub(super) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for path in files::list(dir).unwrap() {
        if files::is_dir(&path) { all.extend(files_below(&path)) } else { all.push(path) }
    }
    all
}
