use sqlx::Row as _;
use time::macros::datetime;

use uuid::Uuid;

use super::*;
use crate::broker::audit::Decision;
use crate::broker::keys::{KeyState, Purpose, StoredKey};
use crate::broker::store::{Consumed, Effect, KeyStore as _, OutboxStore, Revocable, Turn, sqlite};
use crate::credential::Principal;

/// A record that tells itself apart by its reason.
pub(crate) fn record(reason: &str) -> Record {
    Record {
        at: datetime!(2026-01-01 12:00:00.123456 UTC),
        request_id: Uuid::nil(),
        action: "issue".into(),
        decision: Decision::Issued,
        reason: reason.into(),
        principal: Principal { issuer: "https://i.example".into(), subject: "alice".into() },
        client: "cli".into(),
        source: "127.0.0.1".into(),
        role: "deploy".into(),
        audience: "https://api.example".into(),
        scope: "a b".into(),
        ttl: 900,
        jti: Some(Uuid::max()),
        parent: None,
        policy_id: Some("p".into()),
        trace_id: None,
        elevation: None,
        claims: None,
        policy_hash: "00".into(),
        actor: None,
        count: 1,
    }
}

/// Appends records, and returns the sequence number of the first.
pub(crate) async fn append(store: &dyn Ledger, records: &[Record]) -> Result<u64> {
    let unit = Unit { records: records.to_vec(), effects: Vec::new() };
    match store.commit(&[unit]).await?[..] {
        [Outcome::Committed { first }] => Ok(first),
        ref other => panic!("{other:?}"),
    }
}

/// Uses something up.
fn consuming(id: &str) -> Effect {
    Effect::Consume(Consumed {
        kind: Once::RevokedToken,
        id: id.into(),
        at: datetime!(2026-01-01 12:00 UTC),
        keep_until: datetime!(2026-01-01 12:15:00.5 UTC),
    })
}

/// A database on one of the engines, which can be opened several times.
pub(crate) struct Ground {
    file: Option<(tempfile::TempDir, PathBuf)>,
    #[cfg(unix)]
    postgres: Option<crate::broker::store::postgres::peer::Database>,
}

impl Ground {
    /// One on each engine, all of them empty.
    pub(crate) async fn each() -> Vec<Self> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.db");
        let file = Self {
            file: Some((dir, path)),
            #[cfg(unix)]
            postgres: None,
        };
        vec![
            file,
            #[cfg(unix)]
            Self {
                file: None,
                postgres: Some(crate::broker::store::postgres::peer::Database::new().await),
            },
        ]
    }

    /// Opens it as one process does.
    pub(crate) async fn open(&self) -> SqlStore {
        if let Some((_, path)) = &self.file {
            return sqlite::open(path).await.unwrap();
        }
        #[cfg(unix)]
        if let Some(database) = &self.postgres {
            return database.open().await;
        }
        panic!("there is no database")
    }

    /// Opens it as it is, also where it has no tables.
    pub(crate) async fn bare(&self) -> SqlStore {
        if let Some((_, path)) = &self.file {
            drop(files::open_lock(path).unwrap());
            return sqlite::open_to_copy(path).await.unwrap();
        }
        #[cfg(unix)]
        if let Some(database) = &self.postgres {
            return database.bare().await;
        }
        panic!("there is no database")
    }

    /// Whether it is no file.
    pub(crate) fn is_postgres(&self) -> bool {
        self.file.is_none()
    }

    /// Opens it as so many processes do.
    pub(crate) async fn open_often(&self, number: usize) -> Vec<Arc<SqlStore>> {
        let mut stores = Vec::new();
        for _ in 0..number {
            stores.push(Arc::new(self.open().await));
        }
        stores
    }

    /// Does this beside brokers, as it stands: in a transaction only where it says so.
    pub(crate) async fn execute(&self, statement: &str) {
        #[cfg(unix)]
        if let Some(database) = &self.postgres {
            return database.execute(statement).await.unwrap();
        }
        self.tamper(statement).await;
    }

    /// Does something in it that no broker would.
    pub(crate) async fn tamper(&self, change: &str) {
        if let Some((_, path)) = &self.file {
            sqlite::tests::tamper(path, change).await;
        }
        #[cfg(unix)]
        if let Some(database) = &self.postgres {
            let change = format!(
                "drop trigger if exists audit_record_append_only on audit_record;
                 drop trigger if exists audit_record_no_truncate on audit_record; {change}"
            );
            database.execute(&change).await.unwrap();
        }
    }
}

async fn consumed(store: &SqlStore, id: &str) -> bool {
    store.any_consumed(Once::RevokedToken, &["other".into(), id.into()]).await.unwrap()
}

/// With what each connection is told, a commit is on the disk when it is over.
#[tokio::test]
async fn every_connection_to_a_file_makes_commits_durable() {
    let dir = tempfile::tempdir().unwrap();
    let store = sqlite::open(&dir.path().join("b.db")).await.unwrap();
    append(&store, &[record("one")]).await.unwrap();
    let (engine, mut all) = (&store.engine, Vec::new());
    // All at once, so that each is another one.
    for pool in [&engine.pool, engine.writer().unwrap()] {
        for _ in 0..pool.options().get_max_connections() {
            all.push(pool.acquire().await.unwrap());
        }
    }
    assert!(all.len() > 2);
    for one in &mut all {
        let says = async |pragma: &'static str, one: &mut sqlx::AnyConnection| {
            sqlx::query(pragma).fetch_one(one).await.unwrap()
        };
        let mode: String = says("pragma journal_mode", one).await.get(0);
        // 2 is full: the log is synced with each commit.
        let synchronous: i64 = says("pragma synchronous", one).await.get(0);
        assert_eq!((mode.as_str(), synchronous), ("wal", 2));
    }
    drop(all);
    append(&store, &[record("two")]).await.unwrap();
}

#[tokio::test]
async fn records_come_back_as_they_were() {
    for ground in Ground::each().await {
        let store = ground.open().await;
        let denied = Record {
            decision: Decision::Denied,
            jti: None,
            parent: Some(Uuid::nil()),
            policy_id: None,
            count: 7,
            reason: "no policy permits it; '\"\\ \u{1f512}".into(),
            ..record("")
        };
        append(&store, &[record("a"), denied.clone()]).await.unwrap();
        let kept = store.records(0, 9).await.unwrap();
        assert_eq!(kept, [(1, record("a")), (2, denied)]);
    }
}

#[tokio::test]
async fn sequence_numbers_have_no_gaps_under_concurrency() {
    for ground in Ground::each().await {
        // Two processes on one database, as far as it can tell.
        let stores = ground.open_often(2).await;
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..20 {
            let store = stores[n % 2].clone();
            tasks.spawn(async move {
                append(store.as_ref(), &[record("x"), record("y"), record("z")]).await.unwrap()
            });
        }
        let mut firsts = tasks.join_all().await;
        firsts.sort_unstable();
        assert_eq!(firsts, (0..20).map(|n| n * 3 + 1).collect::<Vec<u64>>());
        let kept = stores[0].records(0, 100).await.unwrap();
        assert_eq!(kept.iter().map(|(s, _)| *s).collect::<Vec<_>>(), (1..=60).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn of_those_who_change_a_turn_at_once_one_does() {
    for ground in Ground::each().await {
        let stores = ground.open_often(2).await;
        append(stores[0].as_ref(), &[record("x"), record("y")]).await.unwrap();
        assert_eq!(stores[0].turn("siem").await.unwrap(), None);
        for after in [1, 0] {
            stores[1].add_sink("siem", after).await.unwrap();
        }
        let turn = stores[0].turn("siem").await.unwrap().unwrap();
        assert_eq!(turn, Turn { delivered: 1, last: 2, holder: None, beat: 0 });
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..10 {
            let (store, turn) = (stores[n % 2].clone(), turn.clone());
            let me = n.to_string();
            tasks.spawn(async move {
                let done = store.change_turn("siem", &turn, 2, Some(&me)).await.unwrap();
                done.then_some(me)
            });
        }
        let winners: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
        let now = stores[0].turn("siem").await.unwrap().unwrap();
        assert_eq!(now, Turn { delivered: 2, last: 2, holder: winners.first().cloned(), beat: 1 });
        assert_eq!(winners.len(), 1);
        assert!(!stores[0].change_turn("siem", &now, 1, None).await.unwrap(), "it never goes back");
        assert!(stores[0].change_turn("siem", &now, 2, None).await.unwrap());
    }
}

#[tokio::test]
async fn a_record_and_its_effect_are_kept_together_or_not_at_all() {
    for ground in Ground::each().await {
        let store = ground.open().await;
        let unit = |reason: &str, effects: &[Effect]| Unit {
            records: vec![record(reason)],
            effects: effects.to_vec(),
        };
        let outcomes = store
            .commit(&[
                unit("a", &[consuming("1")]),
                // The second time fails alone, and takes back what was done before it.
                unit("b", &[consuming("2"), consuming("1")]),
                unit("c", &[consuming("1")]),
                unit("d", &[consuming("3"), consuming("4")]),
                unit("e", &[]),
            ])
            .await
            .unwrap();
        let done = |first| Outcome::Committed { first };
        assert_eq!(outcomes, [done(1), Outcome::Refused, Outcome::Refused, done(2), done(3)]);
        for (id, is) in [("1", true), ("2", false), ("3", true), ("4", true)] {
            assert_eq!(consumed(&store, id).await, is, "{id}");
        }
        assert_eq!(append(&store, &[record("f")]).await.unwrap(), 4);
        let kept = store.records(0, 9).await.unwrap();
        let reasons: Vec<_> = kept.iter().map(|(n, r)| format!("{n}{}", r.reason)).collect();
        assert_eq!(reasons, ["1a", "2d", "3e", "4f"]);
    }
}

#[tokio::test]
async fn where_there_is_no_room_for_the_record_nothing_was_used_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = sqlite::tests::small(&dir.path().join("b.db"), 80).await;
    let large = Record { reason: "x".repeat(400_000), ..record("") };
    let units = [
        Unit::of(record("small")).with(consuming("small")),
        Unit::of(large).with(consuming("large")),
    ];
    assert!(store.commit(&units).await.is_err());
    assert!(!consumed(&store, "small").await && !consumed(&store, "large").await);
    assert_eq!(store.records(0, 9).await.unwrap(), []);
}

#[tokio::test]
async fn of_many_processes_one_uses_a_thing_up() {
    for ground in Ground::each().await {
        let stores = ground.open_often(2).await;
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..40 {
            let store = stores[n % 2].clone();
            let unit = Unit::of(record(&n.to_string())).with(consuming("once"));
            tasks.spawn(async move { store.commit(&[unit]).await.unwrap()[0].is_committed() });
        }
        let won = tasks.join_all().await.into_iter().filter(|won| *won).count();
        assert_eq!((won, stores[0].records(0, 99).await.unwrap().len()), (1, 1));
    }
}

#[tokio::test]
async fn what_was_used_up_is_kept_until_nobody_needs_it() {
    for ground in Ground::each().await {
        let keep_until = datetime!(2026-01-01 12:15:00.5 UTC);
        let store = ground.open().await;
        let unit = Unit { records: Vec::new(), effects: vec![consuming("a")] };
        assert_eq!(
            store.commit(std::slice::from_ref(&unit)).await.unwrap(),
            [Outcome::Committed { first: 1 }]
        );
        assert_eq!(store.commit(std::slice::from_ref(&unit)).await.unwrap(), [Outcome::Refused]);
        store.close().await;
        let asked = ["a".to_string()];
        let once = Once::RevokedToken;
        assert!(store.any_consumed(once, &asked).await.is_err(), "it cannot say no");
        let store = ground.open().await;
        assert!(consumed(&store, "a").await && !consumed(&store, "b").await);
        assert_eq!(store.forget_consumed(once, keep_until, 9).await.unwrap(), 0);
        let later = keep_until + time::Duration::MICROSECOND;
        assert_eq!(store.forget_consumed(once, later, 9).await.unwrap(), 1);
        assert!(!consumed(&store, "a").await);
        if let Some((_, path)) = &ground.file {
            files::remove(path).unwrap();
            assert!(store.any_consumed(once, &asked).await.is_err());
            assert!(store.commit(&[unit]).await.is_err());
        }
    }
}

#[tokio::test]
async fn what_depends_on_an_issuance_is_kept_only_where_there_was_one() {
    for ground in Ground::each().await {
        let store = ground.open().await;
        let of = |request| Record { request_id: Uuid::from_u128(request), ..record("a") };
        let take_back = async |request| {
            let record = of(request);
            let issued = Effect::IfIssued { jti: Uuid::max(), request_id: record.request_id };
            let unit = Unit::of(record.aborted("it failed")).with(issued);
            store.commit(&[unit]).await.unwrap()[0].is_committed()
        };
        assert!(!take_back(1).await);
        append(&store, &[of(1)]).await.unwrap();
        assert!(!take_back(2).await, "another request came to it");
        assert!(take_back(1).await);
        assert!(!take_back(1).await);
        append(&store, &[of(2)]).await.unwrap();
        assert!(take_back(2).await);
    }
}

#[tokio::test]
async fn what_depends_on_tokens_being_good_is_kept_only_where_they_are() {
    let store = sqlite::in_memory().await.unwrap();
    let unused = |ids: &[&str]| {
        let tokens = ids.iter().map(|id| id.to_string()).collect();
        let these = Revocable { tokens, ..Revocable::default() };
        Unit::of(record("")).with(Effect::IfNotRevoked(these))
    };
    let used = Unit::of(record("")).with(consuming("b"));
    let units = [unused(&[]), unused(&["a", "b"]), used, unused(&["a"]), unused(&["a", "b"])];
    let outcomes = store.commit(&units).await.unwrap();
    let kept: Vec<_> = outcomes.into_iter().map(Outcome::is_committed).collect();
    assert_eq!(kept, [true, true, true, true, false]);
}

#[tokio::test]
async fn a_key_is_added_once_and_changed_only_from_what_it_was() {
    for ground in Ground::each().await {
        let store = ground.open().await;
        let at = datetime!(2026-01-01 12:00 UTC);
        let key = |kid: &str, state| StoredKey {
            kid: kid.into(),
            purpose: Purpose::AccessToken,
            algorithm: "ES256".into(),
            state,
            sealed: vec![0, 1, 255],
            sealed_by: "k".into(),
            created_at: at,
            changed_at: at,
        };
        let perform = async |effect: Effect| {
            let unit = Unit { records: Vec::new(), effects: vec![effect] };
            store.commit(&[unit]).await.unwrap()[0].is_committed()
        };
        assert!(perform(Effect::AddKey(key("a", KeyState::Active))).await);
        assert!(!perform(Effect::AddKey(key("b", KeyState::Active))).await, "only one is active");
        assert!(!perform(Effect::AddKey(key("a", KeyState::Published))).await);
        assert!(perform(Effect::AddKey(key("c", KeyState::Published))).await);
        assert!(perform(Effect::AddKey(key("d", KeyState::Published))).await);
        let kept = store.keys().await.unwrap();
        assert_eq!(kept.iter().map(|k| &k.kid[..]).collect::<Vec<_>>(), ["a", "c", "d"]);
        assert_eq!(kept[0], key("a", KeyState::Active));

        let before = key("a", KeyState::Active);
        let after = StoredKey { sealed: vec![7], ..key("a", KeyState::Retired) };
        let change = Effect::ChangeKey { before, after: after.clone() };
        assert!(perform(change.clone()).await);
        assert!(!perform(change).await, "it is not what it was");
        assert_eq!(store.keys().await.unwrap()[0], after);
    }
}

#[tokio::test]
async fn several_processes_may_begin_a_database_at_the_same_time() {
    for ground in Ground::each().await {
        // SQLite has one writer, and no replicas.
        if ground.file.is_some() {
            continue;
        }
        let ground = Arc::new(ground);
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..4 {
            let ground = ground.clone();
            tasks.spawn(async move {
                append(&ground.open().await, &[record(&n.to_string())]).await.unwrap()
            });
        }
        let mut firsts = tasks.join_all().await;
        firsts.sort_unstable();
        assert_eq!(firsts, [1, 2, 3, 4]);
    }
}

#[tokio::test]
async fn what_nobody_needs_goes_a_little_at_a_time_also_where_several_remove_it() {
    for ground in Ground::each().await {
        let stores = ground.open_often(2).await;
        let effects = (0..1000).map(|n| consuming(&n.to_string())).collect();
        let unit = Unit { records: Vec::new(), effects };
        assert!(stores[0].commit(&[unit]).await.unwrap()[0].is_committed());
        let later = datetime!(2026-01-02 12:00 UTC);
        assert_eq!(stores[0].forget_consumed(Once::RevokedToken, later, 300).await.unwrap(), 300);
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..8 {
            let store = stores[n % 2].clone();
            tasks.spawn(async move {
                let (mut removed, mut last) = (0, 100);
                while last > 0 {
                    last = store.forget_consumed(Once::RevokedToken, later, 100).await.unwrap();
                    removed += last;
                }
                removed
            });
        }
        assert_eq!(tasks.join_all().await.into_iter().sum::<u64>(), 700);
    }
}

/// Where a disk is full, SQLite ends a transaction by itself: whoever began it then fails to end it.
#[tokio::test]
async fn nothing_is_written_within_a_transaction_that_was_never_ended() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.db");
    let store = sqlite::open(&path).await.unwrap();
    append(&store, &[record("a")]).await.unwrap();
    let writer = store.engine.writer().unwrap();
    let mut ended = writer.begin().await.unwrap();
    sqlx::raw_sql("rollback").execute(&mut *ended).await.unwrap();
    drop(ended);
    // One that comes to nothing, and one that is to stay.
    drop(writer.begin().await.unwrap());
    append(&store, &[record("b")]).await.unwrap();
    let other = sqlite::open(&path).await.unwrap();
    let kept: Vec<_> = other.records(0, 9).await.unwrap();
    let kept: Vec<_> = kept.iter().map(|(_, record)| record.reason.as_str()).collect();
    assert_eq!(kept, ["a", "b"]);
}
