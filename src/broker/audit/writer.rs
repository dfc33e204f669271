//! One task writes the log, in groups: what is queued while a commit is under way
//! goes into the next one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Decision, Receipt, Record};
use crate::broker::store::Store;
use crate::error::{Error, ErrorKind, Result};

/// How many records may wait. More are refused at once instead of late.
const QUEUE: usize = 1024;

/// How many records go into one commit at most.
const BATCH: usize = 256;

/// How long a record may wait for its commit.
const PATIENCE: Duration = Duration::from_secs(8);

struct Entry {
    record: Record,
    answer: oneshot::Sender<Result<Receipt>>,
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
    pub fn start(store: Arc<dyn Store>) -> Self {
        let (queue, entries) = mpsc::channel(QUEUE);
        let failure = Failure::default();
        let writer = tokio::spawn(write(store, entries, failure.clone()));
        Self { queue, writer, failure }
    }

    /// Why the last commit failed, if it did, and not longer ago than this.
    pub fn failure_within(&self, age: Duration) -> Option<Error> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.as_ref().filter(|(at, _)| at.elapsed() < age).map(|(_, error)| error.clone())
    }

    /// Appends a record. When this returns, it is durable.
    ///
    /// # Errors
    /// Whatever keeps it from being durable in time: then nothing may be issued.
    pub async fn append(&self, record: Record) -> Result<Receipt> {
        let (answer, receipt) = oneshot::channel();
        let failed = |why: &str| {
            Error::new(ErrorKind::Io, "the audit log cannot be written").because_of(why)
        };
        self.queue.try_send(Entry { record, answer }).map_err(|cause| match cause {
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

async fn write(store: Arc<dyn Store>, mut entries: mpsc::Receiver<Entry>, failure: Failure) {
    let mut batch = Vec::with_capacity(BATCH);
    while entries.recv_many(&mut batch, BATCH).await > 0 {
        // Whoever gave up waiting was told that nothing is issued.
        batch.retain(|entry| !entry.answer.is_closed());
        if batch.is_empty() {
            continue;
        }
        let (records, answers): (Vec<_>, Vec<_>) = batch
            .drain(..)
            .map(|entry: Entry| {
                let jti = entry.record.jti;
                (entry.record, (entry.answer, jti))
            })
            .unzip();
        let outcome = store.append(&records).await;
        *failure.lock().unwrap_or_else(PoisonError::into_inner) =
            outcome.as_ref().err().map(|error| (Instant::now(), error.clone()));
        if let Err(error) = &outcome {
            tracing::error!(%error, records = records.len(), "the audit log cannot be written");
        }
        let mut abandoned = Vec::new();
        for ((sequence, (answer, jti)), record) in (0..).zip(answers).zip(records) {
            let receipt = match &outcome {
                Ok(first) => Ok(Receipt { sequence: first + sequence, jti }),
                Err(error) => Err(error.clone()),
            };
            // The one who asked gave up meanwhile: nothing will come of it.
            if let Err(Ok(_)) = answer.send(receipt)
                && matches!(record.decision, Decision::Issued | Decision::Revoked)
            {
                abandoned.push(record.aborted("nobody waited for it any more"));
            }
        }
        if !abandoned.is_empty()
            && let Err(error) = store.append(&abandoned).await
        {
            tracing::error!(%error, "records of what was abandoned cannot be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::broker::keys::StoredKey;
    use crate::broker::revoke::Revocation;
    use crate::broker::store::sql::tests::record;
    use crate::broker::store::sqlite;

    /// A store whose commits wait to be let through one by one.
    struct Gate {
        inner: crate::broker::store::sql::SqlStore,
        open: Semaphore,
        batches: Mutex<Vec<usize>>,
        broken: std::sync::atomic::AtomicBool,
    }

    impl Gate {
        async fn new() -> Arc<Self> {
            Arc::new(Self {
                inner: sqlite::in_memory().await.unwrap(),
                open: Semaphore::new(0),
                batches: Mutex::default(),
                broken: Default::default(),
            })
        }
    }

    #[async_trait]
    impl Store for Gate {
        async fn probe(&self) -> Result<()> {
            self.inner.probe().await
        }
        async fn keys(&self) -> Result<Vec<StoredKey>> {
            self.inner.keys().await
        }
        async fn add_key(&self, key: &StoredKey) -> Result<bool> {
            self.inner.add_key(key).await
        }
        async fn append(&self, records: &[Record]) -> Result<u64> {
            self.open.acquire().await.unwrap().forget();
            self.batches.lock().unwrap().push(records.len());
            if self.broken.load(std::sync::atomic::Ordering::Relaxed) {
                return Err(Error::new(ErrorKind::Io, "disk full"));
            }
            self.inner.append(records).await
        }
        async fn records(&self, after: u64, limit: u32) -> Result<Vec<(u64, Record)>> {
            self.inner.records(after, limit).await
        }
        async fn revoke(&self, revocation: &Revocation) -> Result<()> {
            self.inner.revoke(revocation).await
        }
        async fn is_revoked(&self, jti: uuid::Uuid) -> Result<bool> {
            self.inner.is_revoked(jti).await
        }
        async fn forget_revocations(&self, now: time::OffsetDateTime) -> Result<u64> {
            self.inner.forget_revocations(now).await
        }
        async fn close(&self) {}
    }

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
        store.broken.store(true, std::sync::atomic::Ordering::Relaxed);
        store.open.add_permits(1);
        let error = audit.append(record("a")).await.unwrap_err();
        assert_eq!(error.message(), "disk full");
        let age = Duration::from_secs(5);
        assert_eq!(
            audit.failure_within(age).map(|e| e.message().to_string()),
            Some("disk full".into())
        );
        assert!(audit.failure_within(Duration::ZERO).is_none());
        store.broken.store(false, std::sync::atomic::Ordering::Relaxed);
        store.open.add_permits(1);
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
