//! The keyrings of macOS (Keychain) and Windows (Credential Manager), and what
//! other systems have, through the `keyring` crate.
//!
//! Nothing here waits without limit, as the crate does.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use keyring::{Entry, Error as KeyringError};

use super::key::ItemKey;
use super::native_limits::{has_room, within};
use super::store::{Fault, Item, Store, StoreId};
use crate::error::{Error, ErrorKind};
use crate::secret::Secret;

/// What items are filed under.
const SERVICE: &str = "tmpcred";
/// How long one call may take. The system may show a dialog, and tells nobody: a person
/// has to have the time to answer it.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// How long a keyring that did not answer is left alone.
const LEFT_ALONE: Duration = Duration::from_secs(60);

/// The system's keyring.
#[derive(Default)]
pub(super) struct Native {
    /// When it did not answer.
    given_up: Mutex<Option<Instant>>,
}

impl Store for Native {
    fn id(&self) -> StoreId {
        StoreId::Native
    }

    fn probe(&self) -> Result<(), Fault> {
        self.bounded(is_there)
    }

    fn get(&self, key: &ItemKey) -> Result<Option<Secret<Vec<u8>>>, Fault> {
        let key = key.clone();
        self.bounded(move || match entry(&key)?.get_secret() {
            Ok(value) => Ok(Some(Secret::new(value))),
            Err(KeyringError::NoEntry) => Ok(None),
            Err(cause) => Err(failed("cannot read from the keyring", cause)),
        })
    }

    fn put(&self, item: &Item<'_>) -> Result<(), Fault> {
        if !has_room(cfg!(windows), item.value.expose().len()) {
            return Err(full());
        }
        let (key, value) = (item.key.clone(), item.value.clone());
        self.bounded(move || match entry(&key)?.set_secret(value.expose()) {
            Ok(()) => Ok(()),
            Err(KeyringError::TooLong(..)) => Err(full()),
            Err(cause) => Err(failed("cannot write to the keyring", cause)),
        })
    }

    fn delete(&self, key: &ItemKey) -> Result<(), Fault> {
        let key = key.clone();
        self.bounded(move || match entry(&key)?.delete_credential() {
            Ok(()) | Err(KeyringError::NoEntry) => Ok(()),
            Err(cause) => Err(failed("cannot delete from the keyring", cause)),
        })
    }

    fn keys(&self) -> Result<Vec<ItemKey>, Fault> {
        // The crate cannot list; what the index knows has to do.
        Ok(Vec::new())
    }
}

impl Native {
    /// Runs a call, and gives it up where it does not end in time.
    fn bounded<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let given_up = || self.given_up.lock().unwrap_or_else(PoisonError::into_inner);
        if given_up().is_some_and(|since| since.elapsed() < LEFT_ALONE) {
            return Err(silent());
        }
        match within(CALL_LIMIT, call) {
            Ok(Some(outcome)) => outcome,
            Ok(None) => {
                *given_up() = Some(Instant::now());
                Err(silent())
            }
            Err(cause) => Err(Fault::Failed(
                Error::new(ErrorKind::Io, "cannot use the keyring").because(cause),
            )),
        }
    }
}

fn is_there() -> Result<(), Fault> {
    match Entry::store_status() {
        Ok(()) => Ok(()),
        Err(cause) => Err(absent(cause)),
    }
}

fn entry(key: &ItemKey) -> Result<Entry, Fault> {
    is_there()?;
    Entry::new(SERVICE, key.as_str()).map_err(|cause| failed("cannot use the keyring", cause))
}

fn silent() -> Fault {
    Fault::Failed(
        Error::new(ErrorKind::KeyringLocked, "the keyring did not answer in time")
            .hint("see whether it shows a dialog, then try again"),
    )
}

fn full() -> Fault {
    Fault::Full(Error::new(ErrorKind::Other, "the item is too large for the keyring"))
}

fn absent(cause: &KeyringError) -> Fault {
    Fault::Absent(Error::new(ErrorKind::Config, "there is no keyring").because_of(explain(cause)))
}

fn failed(what: &str, cause: KeyringError) -> Fault {
    let kind = match &cause {
        KeyringError::NoStorageAccess(_) => ErrorKind::KeyringLocked,
        _ => ErrorKind::Io,
    };
    let error = Error::new(kind, what).because_of(explain(&cause));
    Fault::Failed(match kind {
        ErrorKind::KeyringLocked => error.hint("unlock the keyring, then try again"),
        _ => error,
    })
}

/// The cause in words. Never its `Debug` form, and no variant that carries the
/// secret itself.
fn explain(cause: &KeyringError) -> String {
    match cause {
        KeyringError::BadEncoding(_) | KeyringError::BadDataFormat(..) => {
            "the item is not what was stored".to_string()
        }
        KeyringError::Ambiguous(items) => format!("{} items have the same name", items.len()),
        other => other.to_string(),
    }
}
