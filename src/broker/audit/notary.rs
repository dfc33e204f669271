//! Signs the tree of the audit log as it grows.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::micros;
use super::note::Checkpoint;
use super::tree::Frontier;
use super::whole::{Turn, Whole};
use crate::broker::keys::CheckpointKeys;
use crate::broker::store::{Effect, Noted, Outcome, Revocable, Store, Unit, require_end};
use crate::broker::survive::survive;
use crate::error::{Error, ErrorKind, Result};
use crate::host::clock::Clock;

/// How often a checkpoint is signed where the log has grown.
const EVERY: Duration = Duration::from_secs(5);

/// How soon it is looked again where the first look found something wrong.
const AGAIN: Duration = Duration::from_secs(1);

/// How often in a row a process leaves its turn to others: then it looks at the log all the same.
const LEFT: u32 = 11;

/// The task that signs checkpoints.
pub struct Notary {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Notary {
    /// Starts it, for the log with this name; where it fails, it counts, and what it finds of
    /// the log it tells. Needs a runtime.
    pub fn start(
        store: Arc<dyn Store>,
        keys: CheckpointKeys,
        origin: &str,
        clock: Arc<dyn Clock>,
        (failures, whole): (Counter, Whole),
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let signer = Signer { failures, whole, ..Signer::new(store, keys, origin, clock) };
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
    whole: Whole,
    /// How often in a row its turn was left to others.
    left: u32,
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
            whole: Whole::default(),
            left: 0,
        }
    }

    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        loop {
            // Whatever the others do: this process may be the last, or the only one that sees it.
            let alone = stopped.is_terminated() || self.whole.is_in_doubt() || self.left >= LEFT;
            let failure = survive("checkpoints", self.step(alone)).await.unwrap_or_else(|| {
                Some(Error::new(ErrorKind::Other, "the signer of checkpoints failed abnormally"))
            });
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
            let pause = if self.whole.is_in_question() { AGAIN } else { EVERY };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = &mut stopped => {}
            }
        }
    }

    /// Signs, where it has to or it is its turn. Returns why it could not.
    async fn step(&mut self, alone: bool) -> Option<Error> {
        if !alone && !self.has_turn().await {
            self.left += 1;
            return None;
        }
        self.left = 0;
        let outcome = self.sign().await;
        self.tell(&outcome);
        outcome.err()
    }

    /// Tells what was found of the log.
    fn tell(&self, outcome: &Result<()>) {
        match self.whole.found(outcome) {
            Turn::Broken => {
                tracing::error!("nothing is issued until the audit log is what was signed of it");
            }
            Turn::Mended => {
                tracing::warn!("the audit log is what was signed of it, and is issued by again");
            }
            Turn::Same => {}
        }
    }

    /// Whether this process is to look: no other has signed the log just now, as far as can be
    /// told.
    pub(super) async fn has_turn(&self) -> bool {
        let Ok(Some(newest)) = self.store.latest_note().await else { return true };
        let age = micros(self.clock.now()) - newest.at;
        let is_own = self.last.as_ref().is_some_and(|last| last.size == newest.size);
        // A clock that is ahead keeps nobody from signing.
        is_own || !(0..EVERY.as_micros() as i64).contains(&age)
    }

    /// Signs the log as it is, if it has grown.
    pub(super) async fn sign(&mut self) -> Result<()> {
        let changed = |why: String| {
            Error::new(ErrorKind::Verification, "the audit log is not what was signed")
                .because_of(why)
                .hint("tmpcred broker audit verify")
        };
        // Somebody may have changed them meanwhile.
        self.keys = self.keys.again(self.store.as_ref()).await?;
        // Another process may have gone on: then so does this one, from both.
        let is_newer = |noted: &Checkpoint| self.last.as_ref().is_none_or(|l| l.size < noted.size);
        let noted = self.store.latest_note().await?;
        let newer = noted.as_ref().map(|noted| self.opened(noted)).transpose()?.flatten();
        let newer = newer.filter(is_newer);
        let known: Vec<_> = self.last.iter().chain(&newer).cloned().collect();
        // Read after that: whatever was signed is in it.
        let end = match self.store.sealed_end().await? {
            Some(end) => self.keys.seal().open(&end).ok_or_else(|| {
                changed(format!("the seal of its end, at record {}, is broken", end.size))
            })?,
            // Nothing was ever appended.
            None => Frontier::default(),
        };
        let size = end.size();
        let signed = known.last().map_or(0, |last| last.size);
        // Whoever signed it.
        let told = noted.map_or(signed, |noted| noted.size.max(signed));
        if size < told {
            let signed = told;
            return Err(changed(format!("it has {size} records, and {signed} are signed")));
        }
        // Also where nothing was appended: somebody may have taken away what was.
        require_end(self.store.as_ref(), signed, size).await?;
        if size == signed && newer.is_none() {
            return Ok(());
        }
        // Whatever is signed goes on from what was signed: nobody gets another past
        // signed by changing the tiles.
        for known in known {
            if self.store.root_at(known.size).await? != known.root {
                let size = known.size;
                return Err(changed(format!("its first {size} records have another root")));
            }
        }
        if newer.is_some() {
            self.last = newer;
        }
        if size == signed {
            return Ok(());
        }
        // And to what was appended, nobody else has added anything.
        let root = self.store.root_at(size).await?;
        if root != end.root() {
            return Err(changed(format!("its {size} records have another root than was sealed")));
        }
        let checkpoint = Checkpoint { origin: self.origin.clone(), size, root };
        let note = self.keys.signed(&checkpoint)?;
        if self.keep(size, note, &self.keys.signers()?).await? {
            self.last = Some(checkpoint);
        }
        Ok(())
    }

    /// Keeps a note of this size, unless there is one, for another process has signed the same
    /// then; or one of those who signed it was revoked meanwhile.
    pub(super) async fn keep(&self, size: u64, note: String, by: &[String]) -> Result<bool> {
        let added = Effect::AddCheckpoint { size, note, at: self.clock.now() };
        let effects = vec![Effect::IfNotRevoked(Revocable::keys(by)), added];
        let done = self.store.commit(&[Unit { records: Vec::new(), effects }]).await?;
        Ok(done.into_iter().all(Outcome::is_committed))
    }

    /// What was signed; nothing where the key was revoked that signed it.
    fn opened(&self, noted: &Noted) -> Result<Option<Checkpoint>> {
        let revoked = self.keys.revoked(&self.origin);
        let checkpoint = match Checkpoint::open(&noted.note, &self.keys.verifiers(&self.origin)) {
            Err(_) if Checkpoint::open(&noted.note, &revoked).is_ok() => return Ok(None),
            opened => opened?,
        };
        if checkpoint.size != noted.size {
            return Err(Error::new(ErrorKind::Verification, "the newest checkpoint is not good")
                .because_of("it is of another size than its row says"));
        }
        Ok(Some(checkpoint))
    }
}

#[cfg(test)]
mod tests;
