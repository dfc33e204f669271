//! One task writes the log, in groups: what is queued while a commit is under way
//! goes into the next one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Decision, Receipt, Record};
use crate::broker::store::{Effect, Ledger, Outcome, Unit};
use crate::error::{Error, ErrorKind, Result};

/// How many records may wait. More are refused at once instead of late.
const QUEUE: usize = 1024;

/// How many records go into one commit at most.
const BATCH: usize = 256;

/// How long a record may wait for its commit.
const PATIENCE: Duration = Duration::from_secs(8);

/// How many issuances of which nobody can tell whether they are on record are kept
/// in mind.
const DOUBTS: usize = 4 * QUEUE;

struct Entry {
    unit: Unit,
    answer: oneshot::Sender<Result<Option<Receipt>>>,
}

/// The way into the audit log.
pub struct Audit {
    queue: mpsc::Sender<Entry>,
    writer: JoinHandle<()>,
    failure: Failure,
}

/// When the last commit failed, and why; nothing where it did not.
type Failure = Arc<Mutex<Option<(Instant, Error)>>>;

impl Audit {
    /// Starts the task that writes to this store. Needs a runtime.
    pub fn start(ledger: Arc<dyn Ledger>) -> Self {
        let (queue, entries) = mpsc::channel(QUEUE);
        let failure = Failure::default();
        let writer = Writer { ledger, failure: failure.clone(), doubts: Vec::new() };
        Self { queue, writer: tokio::spawn(writer.run(entries)), failure }
    }

    /// Why the last commit failed, if it did, and not longer ago than this.
    pub fn failure_within(&self, age: Duration) -> Option<Error> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.as_ref().filter(|(at, _)| at.elapsed() < age).map(|(_, error)| error.clone())
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
        let (answer, receipt) = oneshot::channel();
        let failed = |why: &str| {
            Error::new(ErrorKind::Io, "the audit log cannot be written").because_of(why)
        };
        self.queue.try_send(Entry { unit, answer }).map_err(|cause| match cause {
            mpsc::error::TrySendError::Full(_) => failed("too many records are waiting"),
            mpsc::error::TrySendError::Closed(_) => failed("it is closed"),
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
        let mut batch = Vec::with_capacity(BATCH);
        while entries.recv_many(&mut batch, BATCH).await > 0 {
            self.settle_doubts().await;
            // Whoever gave up waiting was told that nothing is issued.
            batch.retain(|entry| !entry.answer.is_closed());
            if !batch.is_empty() {
                self.write(batch.drain(..).collect()).await;
            }
        }
        self.settle_doubts().await;
    }

    async fn write(&mut self, batch: Vec<Entry>) {
        let (units, answers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|entry| (entry.unit, entry.answer)).unzip();
        let outcome = self.ledger.commit(&units).await;
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
                self.settle_doubts().await;
                return;
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
        self.settle_doubts().await;
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
            self.doubts.push(Unit::of(record.clone().aborted(why)).with(Effect::IfIssued(jti)));
        }
    }

    async fn settle_doubts(&mut self) {
        if self.doubts.is_empty() {
            return;
        }
        match self.ledger.commit(&self.doubts).await {
            Ok(_) => self.doubts.clear(),
            Err(error) => {
                tracing::error!(%error, "records of what was abandoned cannot be written");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use async_trait::async_trait;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::broker::store::sql::tests::record;
    use crate::broker::store::{Consumed, Once, OnceStore, Store, sqlite};

    /// A store whose commits wait to be let through one by one.
    struct Gate {
        inner: crate::broker::store::sql::SqlStore,
        open: Semaphore,
        batches: Mutex<Vec<usize>>,
        fault: AtomicU8,
    }

    impl Gate {
        async fn new() -> Arc<Self> {
            Arc::new(Self {
                inner: sqlite::in_memory().await.unwrap(),
                open: Semaphore::new(0),
                batches: Mutex::default(),
                fault: AtomicU8::new(NONE),
            })
        }
    }

    #[async_trait]
    impl Ledger for Gate {
        async fn commit(&self, units: &[Unit]) -> Result<Vec<Outcome>> {
            self.open.acquire().await.unwrap().forget();
            self.batches.lock().unwrap().push(units.len());
            let fault = self.fault.load(Ordering::Relaxed);
            if fault == BEFORE {
                return Err(Error::new(ErrorKind::Io, "disk full"));
            }
            let done = self.inner.commit(units).await;
            if fault == AFTER {
                return Err(Error::new(ErrorKind::Io, "the disk does not answer"));
            }
            done
        }
        async fn records(&self, after: u64, limit: u32) -> Result<Vec<(u64, Record)>> {
            self.inner.records(after, limit).await
        }
    }

    /// Commits work.
    const NONE: u8 = 0;
    /// Commits fail.
    const BEFORE: u8 = 1;
    /// Commits reach the disk, and then fail.
    const AFTER: u8 = 2;

    /// Lets every task run as far as it can.
    async fn settle() {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_waits_is_committed_together_and_in_order() {
        let store = Gate::new().await;
        let audit = Arc::new(Audit::start(store.clone()));
        let mut tasks = Vec::new();
        for n in 0..10 {
            let audit = audit.clone();
            tasks.push(tokio::spawn(async move { audit.append(record(&n.to_string())).await }));
            // The first one is taken alone; the others queue up behind its commit.
            settle().await;
        }
        assert!(tasks.iter().all(|task| !task.is_finished()), "no receipt before the commit");
        store.open.add_permits(2);
        let mut sequences = Vec::new();
        for task in tasks {
            sequences.push(task.await.unwrap().unwrap().sequence());
        }
        assert_eq!(sequences, (1..=10).collect::<Vec<_>>());
        assert_eq!(*store.batches.lock().unwrap(), [1, 9]);
        let kept = store.records(0, 99).await.unwrap();
        let reasons: Vec<_> = kept.iter().map(|(_, r)| r.reason.clone()).collect();
        assert_eq!(reasons, (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_failed_commit_gives_nobody_a_receipt_and_the_next_one_goes_on() {
        let store = Gate::new().await;
        let audit = Audit::start(store.clone());
        store.fault.store(BEFORE, Ordering::Relaxed);
        store.open.add_permits(1);
        let error = audit.append(record("a")).await.unwrap_err();
        assert_eq!(error.message(), "disk full");
        let age = Duration::from_secs(5);
        assert_eq!(
            audit.failure_within(age).map(|e| e.message().to_string()),
            Some("disk full".into())
        );
        assert!(audit.failure_within(Duration::ZERO).is_none());
        store.fault.store(NONE, Ordering::Relaxed);
        // One to see whether the first is on record after all.
        store.open.add_permits(2);
        assert_eq!(audit.append(record("b")).await.unwrap().sequence(), 1);
        assert!(audit.failure_within(age).is_none());
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let store = Gate::new().await;
        let audit = Arc::new(Audit::start(store.clone()));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..QUEUE + BATCH + 10 {
            let audit = audit.clone();
            tasks.spawn(async move { audit.append(record("x")).await.map(|_| ()) });
        }
        settle().await;
        let mut refused = 0;
        while let Some(done) = tasks.try_join_next() {
            assert!(done.unwrap().unwrap_err().to_string().contains("too many"));
            refused += 1;
        }
        assert!((1..=BATCH + 10).contains(&refused), "{refused}");
        store.open.add_permits(QUEUE);
        while let Some(done) = tasks.join_next().await {
            done.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn closing_writes_what_is_queued() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.db");
        let store: Arc<dyn Store> = Arc::new(sqlite::open(&path).await.unwrap());
        let audit = Arc::new(Audit::start(store.clone()));
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..50 {
            let audit = audit.clone();
            tasks.spawn(async move { audit.append(record(&n.to_string())).await.map(|_| ()) });
        }
        settle().await;
        tasks.detach_all();
        while Arc::strong_count(&audit) > 1 {
            tokio::task::yield_now().await;
        }
        Arc::into_inner(audit).unwrap().close().await;
        store.close().await;
        let again = sqlite::open(&path).await.unwrap();
        assert_eq!(again.records(0, 99).await.unwrap().len(), 50);
    }

    #[tokio::test]
    async fn a_credential_that_nobody_waits_for_is_recorded_as_aborted() {
        let store = Gate::new().await;
        let audit = Arc::new(Audit::start(store.clone()));
        let task = tokio::spawn({
            let audit = audit.clone();
            async move { audit.append(record("a")).await }
        });
        settle().await;
        task.abort();
        assert!(task.await.is_err());
        store.open.add_permits(2);
        Arc::into_inner(audit).unwrap().close().await;
        let kept = store.records(0, 9).await.unwrap();
        let decisions: Vec<_> = kept.iter().map(|(_, r)| (r.decision, r.jti)).collect();
        let jti = record("a").jti;
        assert_eq!(decisions, [(Decision::Issued, jti), (Decision::Aborted, jti)]);
    }

    #[tokio::test]
    async fn what_was_recorded_though_the_commit_failed_is_taken_back() {
        let store = Gate::new().await;
        let audit = Audit::start(store.clone());
        store.fault.store(AFTER, Ordering::Relaxed);
        store.open.add_permits(1);
        assert!(audit.append(record("a")).await.is_err());
        // Nor can it be taken back at once.
        store.fault.store(BEFORE, Ordering::Relaxed);
        store.open.add_permits(1);
        settle().await;
        store.fault.store(NONE, Ordering::Relaxed);
        store.open.add_permits(2);
        let other = Record { jti: Some(uuid::Uuid::nil()), ..record("b") };
        assert!(audit.append(other).await.is_ok());
        let kept = store.records(0, 9).await.unwrap();
        let decisions: Vec<_> = kept.iter().map(|(_, r)| (r.decision, r.jti)).collect();
        let (one, two) = (record("a").jti, Some(uuid::Uuid::nil()));
        use Decision::{Aborted, Issued};
        assert_eq!(decisions, [(Issued, one), (Aborted, one), (Issued, two)]);
    }

    #[tokio::test]
    async fn what_never_reached_the_log_is_not_taken_back_in_it() {
        let store = Gate::new().await;
        let audit = Audit::start(store.clone());
        store.fault.store(BEFORE, Ordering::Relaxed);
        store.open.add_permits(2);
        assert!(audit.append(record("a")).await.is_err());
        settle().await;
        store.fault.store(NONE, Ordering::Relaxed);
        store.open.add_permits(2);
        audit.close().await;
        assert_eq!(store.records(0, 9).await.unwrap(), []);
    }

    #[tokio::test]
    async fn an_effect_rides_in_the_group_and_fails_alone() {
        let store = Gate::new().await;
        let audit = Arc::new(Audit::start(store.clone()));
        let unit = |n: usize| {
            let at = time::OffsetDateTime::UNIX_EPOCH;
            let (kind, id) = (Once::RevokedToken, "once".to_string());
            Unit::of(Record { decision: Decision::Revoked, ..record(&n.to_string()) })
                .with(Effect::Consume(Consumed { kind, id, at, keep_until: at }))
        };
        let mut tasks = Vec::new();
        for n in 0..6 {
            let audit = audit.clone();
            let unit = if n == 4 { Unit::of(record("4")) } else { unit(n) };
            tasks.push(tokio::spawn(async move { audit.commit(unit).await.unwrap().is_some() }));
            settle().await;
        }
        store.open.add_permits(2);
        let mut kept = Vec::new();
        for task in tasks {
            kept.push(task.await.unwrap());
        }
        assert_eq!(kept, [true, false, false, false, true, false]);
        assert_eq!(*store.batches.lock().unwrap(), [1, 5]);
        let reasons: Vec<_> =
            store.records(0, 9).await.unwrap().into_iter().map(|(_, r)| r.reason).collect();
        assert_eq!(reasons, ["0", "4"]);
    }

    #[tokio::test]
    async fn a_revocation_that_nobody_waits_for_stands() {
        let store = Gate::new().await;
        let audit = Arc::new(Audit::start(store.clone()));
        let at = time::OffsetDateTime::UNIX_EPOCH;
        let consumed = Consumed { kind: Once::RevokedToken, id: "a".into(), at, keep_until: at };
        let unit = Unit::of(Record { decision: Decision::Revoked, ..record("a") })
            .with(Effect::Consume(consumed));
        let task = tokio::spawn({
            let audit = audit.clone();
            async move { audit.commit(unit).await }
        });
        settle().await;
        task.abort();
        assert!(task.await.is_err());
        store.open.add_permits(2);
        Arc::into_inner(audit).unwrap().close().await;
        let kept = store.records(0, 9).await.unwrap();
        assert_eq!(kept.iter().map(|(_, r)| r.decision).collect::<Vec<_>>(), [Decision::Revoked]);
        assert!(store.inner.any_consumed(Once::RevokedToken, &["a".into()]).await.unwrap());
    }

    #[tokio::test]
    async fn a_receipt_is_good_for_its_own_token_only() {
        let store = Arc::new(sqlite::in_memory().await.unwrap());
        let audit = Audit::start(store);
        let jti = record("a").jti.unwrap();
        assert!(audit.append(record("a")).await.unwrap().redeem(jti));
        assert!(!audit.append(record("a")).await.unwrap().redeem(uuid::Uuid::nil()));
        let denied = Record { jti: None, ..record("a") };
        assert!(!audit.append(denied).await.unwrap().redeem(jti));
    }
}
