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
    let audit = Arc::new(Audit::start(store.clone(), Whole::default()));
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
    let audit = Audit::start(store.clone(), Whole::default());
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
    let audit = Arc::new(Audit::start(store.clone(), Whole::default()));
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
    let audit = Arc::new(Audit::start(store.clone(), Whole::default()));
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
    let audit = Arc::new(Audit::start(store.clone(), Whole::default()));
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

/// Waits until so many commits were tried.
async fn tried(store: &Gate, commits: usize) {
    let end = Instant::now() + Duration::from_secs(30);
    while store.batches.lock().unwrap().len() < commits || store.open.available_permits() > 0 {
        assert!(Instant::now() < end, "{:?}", store.batches.lock().unwrap());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_was_recorded_though_the_commit_failed_is_taken_back_once_also_where_all_is_quiet() {
    let store = Gate::new().await;
    let audit = Audit::start(store.clone(), Whole::default());
    let try_with = async |fault: u8, commits: usize| {
        store.fault.store(fault, Ordering::Relaxed);
        store.open.add_permits(1);
        tried(&store, commits).await;
    };
    store.fault.store(AFTER, Ordering::Relaxed);
    store.open.add_permits(1);
    assert!(audit.append(record("a")).await.is_err());
    // Nor can it be taken back at once; and then it is, and that cannot be told.
    try_with(BEFORE, 2).await;
    try_with(AFTER, 3).await;
    try_with(NONE, 4).await;
    store.open.add_permits(1);
    let other = Record { jti: Some(uuid::Uuid::nil()), ..record("b") };
    assert!(audit.append(other).await.is_ok());
    let kept = store.records(0, 9).await.unwrap();
    let decisions: Vec<_> = kept.iter().map(|(_, r)| (r.decision, r.jti)).collect();
    let (one, two) = (record("a").jti, Some(uuid::Uuid::nil()));
    use Decision::{Aborted, Issued};
    assert_eq!(decisions, [(Issued, one), (Aborted, one), (Issued, two)]);
}

/// A log with so many issuances in doubt, which nothing lets through.
async fn with_doubts(doubts: usize) -> (Arc<Gate>, Arc<Audit>) {
    let store = Gate::new().await;
    let audit = Arc::new(Audit::start(store.clone(), Whole::default()));
    store.fault.store(BEFORE, Ordering::Relaxed);
    store.open.add_permits(10_000);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..doubts {
        let jti = Some(uuid::Uuid::from_u128(n as u128));
        let (audit, record) = (audit.clone(), Record { jti, ..record("a") });
        tasks.spawn(async move { audit.append(record).await.is_err() });
    }
    while let Some(failed) = tasks.join_next().await {
        assert!(failed.unwrap());
    }
    store.open.forget_permits(10_000);
    store.batches.lock().unwrap().clear();
    store.fault.store(NONE, Ordering::Relaxed);
    (store, audit)
}

#[tokio::test]
async fn many_doubts_are_settled_in_groups() {
    let (store, audit) = with_doubts(BATCH + 1).await;
    store.open.add_permits(10_000);
    Arc::into_inner(audit).unwrap().close().await;
    let batches = store.batches.lock().unwrap().clone();
    assert_eq!(batches, [vec![SETTLED; BATCH / SETTLED], vec![1]].concat());
}

#[tokio::test]
async fn whoever_comes_while_doubts_are_settled_comes_next() {
    let (store, audit) = with_doubts(3 * SETTLED).await;
    let append = |name: &'static str| {
        let audit = audit.clone();
        tokio::spawn(async move { audit.append(record(name)).await.unwrap().sequence() })
    };
    let first = append("b");
    settle().await;
    let second = append("c");
    settle().await;
    store.open.add_permits(5);
    assert_eq!((first.await.unwrap(), second.await.unwrap()), (1, 2));
    let settled = || store.batches.lock().unwrap().iter().filter(|size| **size == SETTLED).count();
    let end = Instant::now() + Duration::from_secs(30);
    while settled() < 3 {
        assert!(Instant::now() < end, "{:?}", store.batches.lock().unwrap());
        tokio::task::yield_now().await;
    }
    // The first, some of what is in doubt, the second. Where the test was held up, what is in
    // doubt has had its turn, and they are next together.
    let batches = store.batches.lock().unwrap().clone();
    let in_turn = vec![1, SETTLED, 1, SETTLED, SETTLED];
    assert!([in_turn, vec![SETTLED, 2, SETTLED, SETTLED]].contains(&batches), "{batches:?}");
}

#[tokio::test]
async fn a_log_that_nothing_writes_any_more_is_told_of() {
    let audit = Audit::start(Gate::new().await, Whole::default());
    assert!(audit.failure_within(Duration::ZERO).is_none());
    audit.writer.abort();
    settle().await;
    let error = audit.failure_within(Duration::ZERO).unwrap();
    assert!(error.to_string().contains("what writes it has ended"), "{error}");
}

#[tokio::test]
async fn what_never_reached_the_log_is_not_taken_back_in_it() {
    let store = Gate::new().await;
    let audit = Audit::start(store.clone(), Whole::default());
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
    let audit = Arc::new(Audit::start(store.clone(), Whole::default()));
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
    let audit = Arc::new(Audit::start(store.clone(), Whole::default()));
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
    let audit = Audit::start(store, Whole::default());
    let jti = record("a").jti.unwrap();
    assert_eq!(audit.append(record("a")).await.unwrap().redeem(jti), Some(1));
    assert_eq!(audit.append(record("a")).await.unwrap().redeem(uuid::Uuid::nil()), None);
    let denied = Record { jti: None, ..record("a") };
    assert_eq!(audit.append(denied).await.unwrap().redeem(jti), None);
}

#[tokio::test]
async fn a_record_that_is_too_long_keeps_no_other_out() {
    let store = Arc::new(sqlite::in_memory().await.unwrap());
    let audit = Audit::start(store.clone(), Whole::default());
    let long = Record { scope: "x".repeat(70_000), ..record("long") };
    let (long, short) = tokio::join!(audit.append(long), audit.append(record("short")));
    assert!(long.unwrap_err().to_string().contains("64 KiB"));
    assert_eq!(short.unwrap().sequence(), 1);
}

#[tokio::test]
async fn nothing_is_issued_by_a_log_that_is_not_whole_and_all_else_goes_on_record() {
    let (store, whole) = (Gate::new().await, Whole::default());
    let audit = Audit::start(store.clone(), whole.clone());
    store.open.add_permits(8);
    let of = |decision: Decision| Record { decision, ..record("a") };
    let gone = Err(Error::new(ErrorKind::Verification, "records are gone"));
    for _ in 0..2 {
        drop(audit.append(of(Decision::Issued)).await.unwrap());
        whole.found(&gone);
    }
    let refused = audit.append(of(Decision::Issued)).await.unwrap_err();
    assert_eq!(refused.message(), "nothing is issued that would go into this audit log");
    assert!(refused.to_string().contains("records are gone"), "{refused}");
    // With something else in the same unit, too.
    let both =
        Unit { records: vec![of(Decision::Denied), of(Decision::Issued)], ..Unit::default() };
    assert!(audit.commit(both).await.is_err());
    for decision in [Decision::Denied, Decision::Revoked, Decision::Changed, Decision::Aborted] {
        drop(audit.append(of(decision)).await.unwrap());
    }
    assert!(audit.failure_within(Duration::from_secs(5)).is_none(), "the store is as good as ever");
    whole.found(&Ok(()));
    drop(audit.append(of(Decision::Issued)).await.unwrap());
    let kept = store.records(0, 99).await.unwrap().into_iter();
    let kept: Vec<_> = kept.map(|(_, record)| record.decision.as_str()).collect();
    let between = ["denied", "revoked", "changed", "aborted"];
    assert_eq!(kept, [&["issued"; 2][..], &between, &["issued"]].concat());
}
