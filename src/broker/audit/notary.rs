//! Signs the tree of the audit log as it grows.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::note::{Checkpoint, VerifierKey};
use super::tree::Frontier;
use crate::broker::keys::CheckpointKeys;
use crate::broker::store::{Effect, Store, Unit};
use crate::error::{Error, ErrorKind, Result};
use crate::host::clock::Clock;

/// How often a checkpoint is signed where the log has grown.
const EVERY: Duration = Duration::from_secs(5);

/// The task that signs checkpoints.
pub struct Notary {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Notary {
    /// Starts it, for the log with this name; where it fails, it counts. Needs a runtime.
    pub fn start(
        store: Arc<dyn Store>,
        keys: CheckpointKeys,
        origin: &str,
        clock: Arc<dyn Clock>,
        failures: Counter,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let signer = Signer { failures, ..Signer::new(store, keys, origin, clock) };
        Self { stop, task: tokio::spawn(signer.run(stopped)) }
    }

    /// Signs what is in the log, then ends.
    pub async fn close(self) {
        drop(self.stop);
        if self.task.await.is_err() {
            tracing::error!("the signer of checkpoints ended abnormally");
        }
    }
}

/// What the task does.
pub(super) struct Signer {
    store: Arc<dyn Store>,
    keys: CheckpointKeys,
    origin: String,
    clock: Arc<dyn Clock>,
    /// What was signed last.
    last: Option<Checkpoint>,
    /// Why nothing could be signed the last time.
    failure: Option<Error>,
    /// How often that was so.
    failures: Counter,
}

impl Signer {
    pub(super) fn new(
        store: Arc<dyn Store>,
        keys: CheckpointKeys,
        origin: &str,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            store,
            keys,
            origin: origin.into(),
            clock,
            last: None,
            failure: None,
            failures: Counter::default(),
        }
    }

    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        loop {
            let outcome = self.sign().await;
            let failure = outcome.err();
            if let Some(error) = &failure
                && self.failure != failure
            {
                tracing::error!(%error, "no checkpoint of the audit log can be signed");
            }
            if failure.is_some() {
                self.failures.inc();
            }
            self.failure = failure;
            if stopped.is_terminated() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                _ = &mut stopped => {}
            }
        }
    }

    /// Signs the log as it is, if it has grown.
    pub(super) async fn sign(&mut self) -> Result<()> {
        let changed = |why: String| {
            Error::new(ErrorKind::Verification, "the audit log is not what was signed")
                .because_of(why)
                .hint("tmpcred broker audit verify")
        };
        if self.last.is_none() {
            self.last = self.signed_before().await?;
        }
        let end = match self.store.sealed_end().await? {
            Some(end) => self.keys.seal().open(&end).ok_or_else(|| {
                changed(format!("the seal of its end, at record {}, is broken", end.size))
            })?,
            // Nothing was ever appended.
            None => Frontier::default(),
        };
        let size = end.size();
        let signed = self.last.as_ref().map_or(0, |last| last.size);
        if size < signed {
            return Err(changed(format!("it has {size} records, and {signed} are signed")));
        }
        if size == signed {
            return Ok(());
        }
        // Whatever is signed goes on from what was signed: nobody gets another past
        // signed by changing the tiles.
        if let Some(last) = &self.last
            && self.store.root_at(last.size).await? != last.root
        {
            return Err(changed(format!("its first {signed} records have another root")));
        }
        // And to what was appended, nobody else has added anything.
        let root = self.store.root_at(size).await?;
        if root != end.root() {
            return Err(changed(format!("its {size} records have another root than was sealed")));
        }
        let checkpoint = Checkpoint { origin: self.origin.clone(), size, root };
        let active = self.keys.active().ok_or_else(|| {
            Error::new(ErrorKind::Config, "the database has no active key for checkpoints")
        })?;
        let key = VerifierKey::new(&self.origin, active);
        let note = checkpoint.signed(&key, |text| self.keys.sign(text));
        let effect = Effect::AddCheckpoint { size, note, at: self.clock.now() };
        // Where there is one of this size, another process has signed the same.
        self.store.commit(&[Unit { records: Vec::new(), effects: vec![effect] }]).await?;
        self.last = Some(checkpoint);
        Ok(())
    }

    async fn signed_before(&self) -> Result<Option<Checkpoint>> {
        let Some(noted) = self.store.latest_note().await? else { return Ok(None) };
        let key = |public: &[u8; 32]| VerifierKey::new(&self.origin, *public);
        let keys: Vec<_> = self.keys.public().iter().map(key).collect();
        let checkpoint = Checkpoint::open(&noted.note, &keys)?;
        if checkpoint.size != noted.size {
            return Err(Error::new(ErrorKind::Verification, "the newest checkpoint is not good")
                .because_of("it is of another size than its row says"));
        }
        Ok(Some(checkpoint))
    }
}

#[cfg(test)]
mod tests;
