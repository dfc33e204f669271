//! Memory: what remains where there is no keyring. Nothing outlives the run.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use time::OffsetDateTime;

use super::key::ItemKey;
use super::store::{Fault, Item, Store, StoreId};
use crate::host::clock::Clock;
use crate::secret::Secret;

/// The memory of this process.
pub(super) struct Memory {
    clock: Arc<dyn Clock>,
    items: Mutex<HashMap<ItemKey, Entry>>,
}

struct Entry {
    value: Secret<Vec<u8>>,
    until: Option<OffsetDateTime>,
}

impl Memory {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, items: Mutex::default() }
    }

    fn items(&self) -> std::sync::MutexGuard<'_, HashMap<ItemKey, Entry>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Memory {
    fn id(&self) -> StoreId {
        StoreId::Memory
    }

    fn probe(&self) -> Result<(), Fault> {
        Ok(())
    }

    fn get(&self, key: &ItemKey) -> Result<Option<Secret<Vec<u8>>>, Fault> {
        let now = self.clock.now();
        let mut items = self.items();
        items.retain(|_, entry| entry.until.is_none_or(|until| now < until));
        Ok(items.get(key).map(|entry| entry.value.clone()))
    }

    fn put(&self, item: &Item<'_>) -> Result<(), Fault> {
        let until = item.lifetime.map(|lifetime| self.clock.now().saturating_add(lifetime));
        self.items().insert(item.key.clone(), Entry { value: item.value.clone(), until });
        Ok(())
    }

    fn delete(&self, key: &ItemKey) -> Result<(), Fault> {
        self.items().remove(key);
        Ok(())
    }

    fn keys(&self) -> Result<Vec<ItemKey>, Fault> {
        Ok(self.items().keys().cloned().collect())
    }
}
