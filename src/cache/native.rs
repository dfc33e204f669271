//! The keyrings of macOS (Keychain) and Windows (Credential Manager), and what
//! other systems have, through the `keyring` crate.

use keyring::{Entry, Error as KeyringError};

use super::key::ItemKey;
use super::store::{Fault, Item, Store, StoreId};
use crate::error::{Error, ErrorKind};
use crate::secret::Secret;

/// What items are filed under.
const SERVICE: &str = "tmpcred";
/// What Windows takes in one item, in bytes (`CRED_MAX_CREDENTIAL_BLOB_SIZE`).
const WINDOWS_LIMIT: usize = 2560;

/// The system's keyring.
pub(super) struct Native;

impl Store for Native {
    fn id(&self) -> StoreId {
        StoreId::Native
    }

    fn probe(&self) -> Result<(), Fault> {
        match Entry::store_status() {
            Ok(()) => Ok(()),
            Err(cause) => Err(absent(cause)),
        }
    }

    fn get(&self, key: &ItemKey) -> Result<Option<Secret<Vec<u8>>>, Fault> {
        match self.entry(key)?.get_secret() {
            Ok(value) => Ok(Some(Secret::new(value))),
            Err(KeyringError::NoEntry) => Ok(None),
            Err(cause) => Err(failed("cannot read from the keyring", cause)),
        }
    }

    fn put(&self, item: &Item<'_>) -> Result<(), Fault> {
        if cfg!(windows) && item.value.expose().len() > WINDOWS_LIMIT {
            return Err(full());
        }
        match self.entry(item.key)?.set_secret(item.value.expose()) {
            Ok(()) => Ok(()),
            Err(KeyringError::TooLong(..)) => Err(full()),
            Err(cause) => Err(failed("cannot write to the keyring", cause)),
        }
    }

    fn delete(&self, key: &ItemKey) -> Result<(), Fault> {
        match self.entry(key)?.delete_credential() {
            Ok(()) | Err(KeyringError::NoEntry) => Ok(()),
            Err(cause) => Err(failed("cannot delete from the keyring", cause)),
        }
    }

    fn keys(&self) -> Result<Vec<ItemKey>, Fault> {
        // The crate cannot list; what the index knows has to do.
        Ok(Vec::new())
    }
}

impl Native {
    fn entry(&self, key: &ItemKey) -> Result<Entry, Fault> {
        self.probe()?;
        Entry::new(SERVICE, key.as_str()).map_err(|cause| failed("cannot use the keyring", cause))
    }
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
