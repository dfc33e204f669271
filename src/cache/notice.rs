//! What the cache says to the person: each thing once per run.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::host::interact::Interact;

/// Says each thing once.
pub(super) struct Notices {
    interact: Arc<dyn Interact>,
    said: Mutex<BTreeSet<&'static str>>,
}

impl Notices {
    pub(super) fn new(interact: Arc<dyn Interact>) -> Self {
        Self { interact, said: Mutex::default() }
    }

    /// Warns, unless something about `topic` was said before.
    pub(super) fn warn_once(&self, topic: &'static str, line: &str) {
        if self.said.lock().unwrap_or_else(PoisonError::into_inner).insert(topic) {
            self.interact.warn(line);
        }
    }

    /// The person.
    pub(super) fn interact(&self) -> &dyn Interact {
        &*self.interact
    }
}
