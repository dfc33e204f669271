//! The key that tokens are bound to, and the key that signs for somebody: one for each store,
//! made once however many processes ask for it.

use serde::{Deserialize, Serialize};

use super::Cache;
use super::key::ItemKey;
use super::lock::Exclusive;
use super::store::{Item, StoreId};
use crate::dpop::DeviceKey;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;
use crate::sshsig::OwnKey;

/// How long another process may take to make it: a keyring may have to be unlocked.
const WAIT: std::time::Duration = std::time::Duration::from_secs(60);

/// What the index says of the key, without any secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceLabel {
    /// Its thumbprint (RFC 7638).
    pub thumbprint: String,
}

impl Cache {
    /// The key of this device, which is made where there is none. It never leaves the
    /// store but to sign.
    pub fn device_key(&self) -> Result<DeviceKey> {
        if let Some(key) = self.kept_device_key()? {
            // The index may have been lost.
            if self.device_label().is_none_or(|label| label.thumbprint != key.thumbprint()) {
                self.note_device(&key);
            }
            return Ok(key);
        }
        let (item, what) = (ItemKey::device_key(), "key of this device");
        let kept = || self.kept_device_key();
        let key = self.made_once(&item, what, kept, DeviceKey::generate)?;
        self.note_device(&key);
        Ok(key)
    }

    /// The key with which somebody signs when no provider can say who they are. It is made
    /// where there is none, and never leaves the store but to sign.
    pub fn signing_key(&self) -> Result<OwnKey> {
        if let Some(key) = self.kept_signing_key()? {
            return Ok(key);
        }
        let (item, what) = (ItemKey::signing_key(), "key that signs for you");
        self.made_once(&item, what, || self.kept_signing_key(), OwnKey::generate)
    }

    /// The same; none is made. One that is damaged counts as none.
    pub fn kept_signing_key(&self) -> Result<Option<OwnKey>> {
        let kept = self.vault.get(&ItemKey::signing_key())?;
        Ok(kept.as_ref().and_then(OwnKey::from_pkcs8))
    }

    /// A key that is not there yet, made once however many ask.
    fn made_once<K>(
        &self,
        item: &ItemKey,
        what: &str,
        kept: impl Fn() -> Result<Option<K>>,
        generate: impl FnOnce() -> Result<Secret<Vec<u8>>>,
    ) -> Result<K> {
        let store = self.vault.id();
        let name = format!("{}-{}", item.as_str(), store.slug());
        let _held = match store {
            // Nobody else has this one.
            StoreId::Memory => None,
            _ => match self.locks.exclusive(&name, WAIT) {
                Exclusive::Held(held) => Some(held),
                Exclusive::Unavailable => None,
                Exclusive::Busy => {
                    return Err(Error::new(
                        ErrorKind::Other,
                        format!("another tmpcred is making the {what} and does not finish"),
                    ));
                }
            },
        };
        if let Some(key) = kept()? {
            return Ok(key);
        }
        self.vault.put(&Item {
            key: item,
            label: &format!("tmpcred: {what}"),
            value: &generate()?,
            lifetime: None,
        })?;
        // Where no lock could be had, the one who wrote last counts for all.
        kept()?.ok_or_else(|| Error::new(ErrorKind::Io, format!("the {what} was not kept")))
    }

    fn note_device(&self, key: &DeviceKey) {
        let (store, item) = (self.vault.id(), ItemKey::device_key());
        let label = DeviceLabel { thumbprint: key.thumbprint().to_string() };
        self.index.update(store, |entries| entries.put_device(store, &item, label));
    }

    /// The thumbprint of the key of this device, as the index tells; unlocks nothing.
    pub fn device_label(&self) -> Option<DeviceLabel> {
        self.labelled(&ItemKey::device_key(), |entries| &mut entries.devices)
    }

    /// Whether what is kept ends with this process.
    pub fn ends_with_process(&self) -> bool {
        self.vault.id() == StoreId::Memory
    }

    /// Whether what is kept is gone once the machine has been started anew.
    pub fn ends_with_restart(&self) -> bool {
        self.vault.id() == StoreId::Kernel
    }

    /// One that is damaged counts as none: what was bound to it is lost with it.
    fn kept_device_key(&self) -> Result<Option<DeviceKey>> {
        let kept = self.vault.get(&ItemKey::device_key())?;
        Ok(kept.as_ref().and_then(DeviceKey::from_pkcs8))
    }
}
