//! One task writes the log, in groups: what is queued while a commit is under way
//! goes into the next one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::leaf;
use super::whole::Whole;
use super::{Decision, Receipt, Record};
use crate::broker::store::{Effect, Ledger, Outcome, Unit};
use crate::error::{Error, ErrorKind, Result};
use crate::trace::{self, Place};

/// How many records may wait. More are refused at once instead of late.
const QUEUE: usize = 1024;

/// How many records go into one commit at most.
const BATCH: usize = 256;

/// How long a record may wait for its commit.
const PATIENCE: Duration = Duration::from_secs(8);

/// How many issuances of which nobody can tell whether they are on record are kept
/// in mind.
const DOUBTS: usize = 4 * QUEUE;

/// How long an issuance stays in doubt where nothing else is written.
const SETTLE_AFTER: Duration = Duration::from_secs(1);

/// How many are settled at once. Each is looked for in the log, one after the other, and others
/// wait meanwhile.
const SETTLED: usize = 32;

struct Entry {
    unit: Unit,
    /// What waits for it.
    place: Place,
    answer: oneshot::Sender<Result<Option<Receipt>>>,
}

/// The way into the audit log.
pub struct Audit {
    queue: mpsc::Sender<Entry>,
    writer: JoinHandle<()>,
    failure: Failure,
    whole: Whole,
}

/// When the last commit failed, and why; nothing where it did not.
type Failure = Arc<Mutex<Option<(Instant, Error)>>>;

impl Audit {
    /// Starts the task that writes to this store, whose log is whole, as far as was found.
    /// Needs a runtime.
    pub fn start(ledger: Arc<dyn Ledger>, whole: Whole) -> Self {
        let (queue, entries) = mpsc::channel(QUEUE);
        let failure = Failure::default();
        let writer = Writer { ledger, failure: failure.clone(), doubts: Vec::new() };
        Self { queue, writer: tokio::spawn(writer.run(entries)), failure, whole }
    }

    /// Why the last commit failed, if it did, and not longer ago than this.
    pub fn failure_within(&self, age: Duration) -> Option<Error> {
        // Nobody ends it before nobody works with the log any more.
        if self.writer.is_finished() {
            let error = Error::new(ErrorKind::Other, "the audit log cannot be written");
            return Some(
                error.because_of("what writes it has ended").hint("start the broker anew"),
            );
        }
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.as_ref().filter(|(at, _)| at.elapsed() < age).map(|(_, error)| error.clone())
    }

    /// Whether nothing is issued, for the log is not what was signed of it.
    pub fn is_broken(&self) -> bool {
        self.whole.is_broken()
    }

    /// Appends a record of something that changes nothing in the store. When this
    /// returns, it is durable.
    ///
    /// # Errors
    /// Whatever keeps it from being durable in time: then nothing may be issued.
    pub async fn append(&self, record: Record) -> Result<Receipt> {
        self.commit(Unit::of(record)).await?.ok_or_else(|| {
            Error::new(ErrorKind::Other, "a record without a condition was left out")
        })
    }

    /// Appends a record together with what it tells of. When this returns, both are
    /// durable; `None` where the condition of an effect did not hold, and neither is
    /// kept.
    ///
    /// # Errors
    /// As with [`append`](Self::append). Who gives up waiting cannot know which of
    /// the two came about, but it is both or neither.
    pub async fn commit(&self, unit: Unit) -> Result<Option<Receipt>> {
        let step = trace::step("record");
        let outcome = step.around(self.commit_there(unit)).await;
        match &outcome {
            Ok(Some(receipt)) => {
                let sequence = i64::try_from(receipt.sequence).unwrap_or(i64::MAX);
                step.note("tmpcred.audit.sequence", sequence);
            }
            // A condition did not hold: somebody was quicker.
            Ok(None) => step.note("tmpcred.audit.overtaken", true),
            Err(error) => step.failed(error.kind().name()),
        }
        outcome
    }

    async fn commit_there(&self, unit: Unit) -> Result<Option<Receipt>> {
        // Denied and revoked is all the same.
        if unit.records.iter().any(|record| record.decision == Decision::Issued) {
            self.whole.require()?;
        }
        // Alone: in a group it would keep the others out.
        unit.records.iter().try_for_each(leaf::check)?;
        let (answer, receipt) = oneshot::channel();
        let failed = |why: &str| {
            Error::new(ErrorKind::Io, "the audit log cannot be written").because_of(why)
        };
        self.queue.try_send(Entry { unit, place: Place::here(), answer }).map_err(|cause| {
            match cause {
                mpsc::error::TrySendError::Full(_) => failed("too many records are waiting"),
                mpsc::error::TrySendError::Closed(_) => failed("it is closed"),
            }
        })?;
        match tokio::time::timeout(PATIENCE, receipt).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(failed("its writer ended")),
            Err(_) => Err(failed("it took too long")),
        }
    }

    /// Writes what is queued, then ends.
    pub async fn close(self) {
        drop(self.queue);
        if self.writer.await.is_err() {
            tracing::error!("the writer of the audit log ended abnormally");
        }
    }
}

/// The task.
struct Writer {
    ledger: Arc<dyn Ledger>,
    failure: Failure,
    /// What takes back issuances that came to nothing, where their records are on
    /// the disk: a commit that fails may have reached it all the same.
    doubts: Vec<Unit>,
}

impl Writer {
    async fn run(mut self, mut entries: mpsc::Receiver<Entry>) {
        let mut batch = Vec::new();
        let mut pause = SETTLE_AFTER;
        loop {
            let more = entries.recv_many(&mut batch, BATCH);
            if self.doubts.is_empty() {
                if more.await == 0 {
                    break;
                }
            } else if let Ok(0) = tokio::time::timeout(pause, more).await {
                break;
            }
            // Whoever gave up waiting was told that nothing is issued.
            batch.retain(|entry| !entry.answer.is_closed());
            let is_written = batch.is_empty() || self.write(std::mem::take(&mut batch)).await;
            // Those who came meanwhile are next, whatever is left.
            pause = match is_written && self.settle_some().await {
                true => Duration::ZERO,
                false => SETTLE_AFTER,
            };
        }
        while !self.doubts.is_empty() && self.settle_some().await {}
    }

    /// Whether it could be written.
    async fn write(&mut self, batch: Vec<Entry>) -> bool {
        let steps: Vec<_> =
            batch.iter().map(|entry| entry.place.within(|| trace::step("store"))).collect();
        let (units, answers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|entry| (entry.unit, entry.answer)).unzip();
        let outcome = self.ledger.commit(&units).await;
        for step in steps {
            // How many shared the commit.
            step.note("tmpcred.store.units", i64::try_from(units.len()).unwrap_or(i64::MAX));
            if let Err(error) = &outcome {
                step.failed(error.kind().name());
            }
        }
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) =
            outcome.as_ref().err().map(|error| (Instant::now(), error.clone()));
        let outcomes = match outcome {
            Ok(outcomes) => outcomes,
            Err(error) => {
                tracing::error!(%error, units = units.len(), "the audit log cannot be written");
                for (unit, answer) in units.iter().zip(answers) {
                    self.doubt(unit, "whether it was recorded could not be told");
                    let _ = answer.send(Err(error.clone()));
                }
                return false;
            }
        };
        for ((outcome, answer), unit) in outcomes.into_iter().zip(answers).zip(units) {
            let receipt = match outcome {
                Outcome::Committed { first } => {
                    let jti = unit.records.first().and_then(|record| record.jti);
                    Some(Receipt { sequence: first, jti })
                }
                Outcome::Refused => None,
            };
            // The one who asked gave up meanwhile: nothing will come of it.
            if let Err(Ok(Some(_))) = answer.send(Ok(receipt)) {
                self.doubt(&unit, "nobody waited for it any more");
            }
        }
        true
    }

    /// Keeps in mind that what this unit issued came to nothing. What else it did is
    /// as its record says.
    fn doubt(&mut self, unit: &Unit, why: &str) {
        for record in unit.records.iter().filter(|r| r.decision == Decision::Issued) {
            let Some(jti) = record.jti else { continue };
            if self.doubts.len() >= DOUBTS {
                tracing::error!(%jti, "too many issuances are in doubt; this one stays so");
                continue;
            }
            let issued = Effect::IfIssued { jti, request_id: record.request_id };
            self.doubts.push(Unit::of(record.clone().aborted(why)).with(issued));
        }
    }

    /// Takes back some of what is in doubt, if anything is. Whether it could be done.
    async fn settle_some(&mut self) -> bool {
        let some = self.doubts.len().min(SETTLED);
        if some == 0 {
            return true;
        }
        match self.ledger.commit(&self.doubts[..some]).await {
            Ok(_) => {
                self.doubts.drain(..some);
                true
            }
            Err(error) => {
                tracing::error!(%error, "records of what was abandoned cannot be written");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests;
