//! The Secret Service of a desktop, such as gnome-keyring, KWallet or KeePassXC,
//! through the session bus.
//!
//! Nothing here waits without limit: neither for a service that hangs, nor for a
//! dialog that nobody sees.

mod bus;

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use self::bus::{Asking, Bus, NewItem, Trouble};
use super::key::ItemKey;
use super::lock::{Locks, Turn};
use super::notice::Notices;
use super::store::{Fault, Item, Store, StoreId};
use crate::error::{Error, ErrorKind, Result};
use crate::host::env::Env;
use crate::host::files;
use crate::secret::Secret;

/// How long one call may take.
const CALL_LIMIT: Duration = Duration::from_millis(1500);
/// How long a whole operation may take, the connection included.
const OPERATION_LIMIT: Duration = Duration::from_millis(2500);
/// How long a service that did not answer is left alone.
const LEFT_ALONE: Duration = Duration::from_secs(60);
/// How long the person may take to answer the service's dialog.
const PROMPT_LIMIT: Duration = Duration::from_secs(30);

/// The Secret Service on one session bus.
pub(super) struct SecretService {
    address: String,
    locks: Arc<Locks>,
    notices: Arc<Notices>,
    /// What operations end with for a while: a service that did not answer, or a
    /// person who declined, is not asked again at once.
    given_up: Mutex<Option<(Instant, Error)>>,
}

impl SecretService {
    /// Finds the session bus in the environment. It is not touched yet.
    pub(super) fn open(env: &Env, locks: Arc<Locks>, notices: Arc<Notices>) -> Result<Self> {
        let address = bus_address(env).ok_or_else(|| {
            Error::new(ErrorKind::Config, "there is no session bus, and so no Secret Service")
        })?;
        Ok(Self { address, locks, notices, given_up: Mutex::default() })
    }

    /// Runs an operation, unlocking first where that is needed and allowed.
    fn operate<T, F>(
        &self,
        operation: impl Fn(Bus, Ask) -> F + Clone + Send + 'static,
    ) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Trouble>>,
    {
        if let Some(error) = self.given_up() {
            return Err(Fault::Failed(error));
        }
        let attempt = || self.bounded(operation.clone());
        let objects = match attempt() {
            Err(Trouble::Locked(objects)) if self.notices.interact().may_ask() => objects,
            other => return other.map_err(|trouble| self.fault(trouble)),
        };
        // However many processes wait for it, there is one dialog.
        let look = || match attempt() {
            Ok(value) => Ok(Some(Ok(value))),
            Err(Trouble::Locked(_)) => Ok(None),
            Err(trouble) => Ok(Some(Err(trouble))),
        };
        let unlocked = match self.locks.lead("keyring-dialog", look) {
            Ok(Turn::Done(outcome)) => return outcome.map_err(|trouble| self.fault(trouble)),
            Ok(Turn::Lead(lead)) => {
                let unlock = move |bus: Bus, ask: Ask| {
                    let objects = objects.clone();
                    async move { bus.unlock(&objects, ask.asking()).await }
                };
                match self.bounded(unlock).map_err(|trouble| self.error(trouble)) {
                    Ok(()) => {
                        lead.succeed();
                        Ok(())
                    }
                    Err(error) => {
                        lead.fail(&error);
                        Err(error)
                    }
                }
            }
            Err(error) => Err(error),
        };
        unlocked.map_err(|error| Fault::Failed(self.give_up(error)))?;
        attempt().map_err(|trouble| self.fault(trouble))
    }

    /// Runs an operation on a thread of its own, so that nothing in it can keep
    /// this one: neither the bus nor the service nor the file system.
    fn bounded<T, F>(
        &self,
        operation: impl FnOnce(Bus, Ask) -> F + Send + 'static,
    ) -> Result<T, Trouble>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Trouble>>,
    {
        let (reports, inbox) = mpsc::channel();
        // Dropping the sender ends the operation, its connection, and thereby a dialog.
        let (_alive, ended) = tokio::sync::oneshot::channel::<()>();
        let address = self.address.clone();
        let ask = Ask {
            may: self.notices.interact().may_ask(),
            tell: {
                let reports = reports.clone();
                Box::new(move || {
                    let _ = reports.send(Report::Asking);
                })
            },
        };
        let run = move || {
            let outcome = zbus::block_on(async {
                let work =
                    async { operation(Bus::connect(&address, CALL_LIMIT).await?, ask).await };
                tokio::select! {
                    biased;
                    outcome = work => outcome,
                    _ = ended => Err(Trouble::TimedOut),
                }
            });
            let _ = reports.send(Report::Done(outcome));
        };
        std::thread::Builder::new()
            .name("secret-service".to_string())
            .spawn(run)
            .map_err(|cause| Trouble::Call(zbus::Error::from(cause)))?;

        let mut limit = OPERATION_LIMIT;
        let mut _shown = None;
        loop {
            match inbox.recv_timeout(limit) {
                Ok(Report::Done(outcome)) => return outcome,
                Ok(Report::Asking) => {
                    limit = PROMPT_LIMIT;
                    _shown = Some(
                        self.notices.interact().waiting("waiting for the keyring's own dialog"),
                    );
                }
                Err(_) => return Err(Trouble::TimedOut),
            }
        }
    }

    fn given_up(&self) -> Option<Error> {
        let given_up = self.given_up.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, error) = given_up.as_ref()?;
        (since.elapsed() < LEFT_ALONE).then(|| error.clone())
    }

    fn give_up(&self, error: Error) -> Error {
        let mut given_up = self.given_up.lock().unwrap_or_else(PoisonError::into_inner);
        *given_up = Some((Instant::now(), error.clone()));
        error
    }

    fn fault(&self, trouble: Trouble) -> Fault {
        let lasting =
            matches!(trouble, Trouble::TimedOut | Trouble::Dismissed | Trouble::Locked(_));
        let absent = is_absent(&trouble);
        let error = self.error(trouble);
        if absent {
            Fault::Absent(error)
        } else if lasting {
            Fault::Failed(self.give_up(error))
        } else {
            Fault::Failed(error)
        }
    }

    /// The trouble for people.
    fn error(&self, trouble: Trouble) -> Error {
        let locked = |message: &str| Error::new(ErrorKind::KeyringLocked, message);
        let elsewhere = "to do without it, set `store = \"kernel\"` in the `[cache]` table, or TMPCRED_CACHE_STORE";
        match trouble {
            Trouble::NoBus(cause) => {
                Error::new(ErrorKind::Config, "the session bus cannot be reached")
                    .because(cause)
            }
            Trouble::NoCollection => {
                Error::new(ErrorKind::Config, "the Secret Service has no default keyring")
                    .hint("create one in the desktop's password manager")
            }
            Trouble::Locked(_) => locked("the keyring is locked")
                .hint("unlock it, for example by logging in to the desktop or in its password manager")
                .hint(elsewhere),
            Trouble::WantsToAsk => {
                locked("the keyring wants to ask, and nobody is there to answer")
                    .hint("run the command in a terminal, without `--no-input`")
                    .hint(elsewhere)
            }
            Trouble::Dismissed => locked("the keyring was not unlocked")
                .because_of("its dialog was dismissed, or could not be shown")
                .hint(elsewhere),
            Trouble::TimedOut => locked("the keyring did not answer in time")
                .hint("see whether it shows a dialog, or restart it")
                .hint(elsewhere),
            Trouble::Call(cause) => {
                Error::new(ErrorKind::Io, "the Secret Service failed").because(cause)
            }
        }
    }
}

impl Store for SecretService {
    fn id(&self) -> StoreId {
        StoreId::SecretService
    }

    fn probe(&self) -> Result<(), Fault> {
        self.operate(|bus, _| async move { bus.probe().await })
    }

    fn get(&self, key: &ItemKey) -> Result<Option<Secret<Vec<u8>>>, Fault> {
        let key = key.clone();
        self.operate(move |bus, _| {
            let key = key.clone();
            async move { bus.read(&key).await }
        })
    }

    fn put(&self, item: &Item<'_>) -> Result<(), Fault> {
        let item = Arc::new(NewItem {
            key: item.key.clone(),
            label: item.label.to_string(),
            value: item.value.clone(),
        });
        self.operate(move |bus, ask| {
            let item = item.clone();
            async move { bus.write(&item, ask.asking()).await }
        })
    }

    fn delete(&self, key: &ItemKey) -> Result<(), Fault> {
        let key = key.clone();
        self.operate(move |bus, ask| {
            let key = key.clone();
            async move { bus.delete(&key, ask.asking()).await }
        })
    }

    fn keys(&self) -> Result<Vec<ItemKey>, Fault> {
        self.operate(|bus, _| async move { bus.keys().await })
    }
}

/// What an operation says while it runs.
enum Report<T> {
    /// The person is being asked.
    Asking,
    Done(Result<T, Trouble>),
}

/// Whether an operation may have the person asked, and whom it tells.
struct Ask {
    may: bool,
    tell: Box<dyn Fn() + Send + Sync>,
}

impl Ask {
    fn asking(&self) -> Asking<'_> {
        self.may.then_some(&*self.tell)
    }
}

/// The address of the session bus, where the environment names one or has one in
/// its customary place.
fn bus_address(env: &Env) -> Option<String> {
    if let Some(addresses) = env.get("DBUS_SESSION_BUS_ADDRESS") {
        // There may be several; the first that can be used is the one meant.
        let usable = |address: &&str| zbus::Address::try_from(*address).is_ok();
        return addresses.split(';').find(usable).map(str::to_string);
    }
    let runtime = env.get("XDG_RUNTIME_DIR")?;
    let socket = std::path::Path::new(runtime).join("bus");
    (files::exists(socket) && !runtime.contains([',', ';']))
        .then(|| format!("unix:path={runtime}/bus"))
}

/// Whether there is no Secret Service here, rather than one that fails.
fn is_absent(trouble: &Trouble) -> bool {
    use zbus::fdo::Error as Fdo;
    match trouble {
        Trouble::NoBus(_) | Trouble::NoCollection => true,
        Trouble::Call(zbus::Error::FDO(cause)) => matches!(
            **cause,
            Fdo::ServiceUnknown(_)
                | Fdo::NameHasNoOwner(_)
                // A sandbox that keeps programs from it.
                | Fdo::AccessDenied(_)
                // It could be started on demand, in theory.
                | Fdo::SpawnExecFailed(_)
                | Fdo::SpawnForkFailed(_)
                | Fdo::SpawnChildExited(_)
                | Fdo::SpawnChildSignaled(_)
                | Fdo::SpawnFailed(_)
                | Fdo::SpawnFailedToSetup(_)
                | Fdo::SpawnConfigInvalid(_)
                | Fdo::SpawnServiceNotValid(_)
                | Fdo::SpawnServiceNotFound(_)
                | Fdo::SpawnPermissionsInvalid(_)
                | Fdo::SpawnFileInvalid(_)
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    use super::*;
    use crate::cache::SessionKey;
    use crate::host::dirs::Dirs;
    use crate::host::interact::Silent;

    fn service(root: &Path, address: &str) -> SecretService {
        let notices = Arc::new(Notices::new(Arc::new(Silent)));
        let locks = Arc::new(Locks::new(&Dirs::below(root), notices.clone()));
        let env = Env::from_pairs([("DBUS_SESSION_BUS_ADDRESS", address)]);
        SecretService::open(&env, locks, notices).unwrap()
    }

    #[test]
    fn the_bus_is_where_the_environment_says_or_where_it_is_customary() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = dir.path().to_str().unwrap();
        let address = |pairs: &[(&str, &str)]| bus_address(&Env::from_pairs(pairs.to_vec()));
        assert_eq!(address(&[]), None);
        assert_eq!(address(&[("XDG_RUNTIME_DIR", runtime)]), None);
        files::write_private(&dir.path().join("bus"), b"").unwrap();
        let customary = format!("unix:path={runtime}/bus");
        assert_eq!(address(&[("XDG_RUNTIME_DIR", runtime)]), Some(customary));
        for (given, meant) in [
            ("unix:path=/a", Some("unix:path=/a")),
            (
                "unix:abstract=/a,guid=0123456789abcdef0123456789abcdef;unix:path=/b",
                Some("unix:abstract=/a,guid=0123456789abcdef0123456789abcdef"),
            ),
            ("launchd:env=X;unix:path=/b", Some("unix:path=/b")),
            // Never a program that an address names.
            ("unixexec:path=/bin/true", None),
            ("nonsense", None),
        ] {
            let env = [("DBUS_SESSION_BUS_ADDRESS", given), ("XDG_RUNTIME_DIR", runtime)];
            assert_eq!(address(&env).as_deref(), meant, "{given}");
        }
    }

    #[test]
    fn a_bus_that_cannot_be_reached_means_no_secret_service() {
        let dir = tempfile::tempdir().unwrap();
        let key = SessionKey::new(&["a"]).item();
        let service = service(dir.path(), &format!("unix:path={}/none", dir.path().display()));
        let Err(Fault::Absent(error)) = service.get(&key) else { panic!("there is no bus") };
        assert!(error.to_string().contains("session bus cannot be reached"), "{error}");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a bus that does not answer")]
    fn a_bus_that_never_answers_is_given_up_once() {
        let dir = tempfile::tempdir().unwrap();
        let key = SessionKey::new(&["a"]).item();
        let socket = dir.path().join("bus");
        // Connections queue up, and nobody takes them.
        let listener = UnixListener::bind(&socket).unwrap();
        let service = service(dir.path(), &format!("unix:path={}", socket.display()));
        for _ in 0..2 {
            let Err(Fault::Failed(error)) = service.get(&key) else { panic!("it is there") };
            assert_eq!(error.kind(), ErrorKind::KeyringLocked);
            assert!(!error.hints().is_empty());
        }
        listener.set_nonblocking(true).unwrap();
        assert_eq!(std::iter::from_fn(|| listener.accept().ok()).count(), 1);
    }
}
