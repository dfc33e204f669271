use time::macros::datetime;

use uuid::Uuid;

use super::*;
use crate::broker::audit::Decision;
use crate::broker::keys::{KeyState, Purpose};
use crate::broker::store::{Consumed, Effect, sqlite};
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

async fn consumed(store: &SqlStore, id: &str) -> bool {
    store.any_consumed(Once::RevokedToken, &["other".into(), id.into()]).await.unwrap()
}

#[tokio::test]
async fn records_come_back_as_they_were() {
    let store = sqlite::in_memory().await.unwrap();
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

#[tokio::test]
async fn sequence_numbers_have_no_gaps_under_concurrency() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.db");
    // Two processes on one database, as far as SQLite can tell.
    let stores = [sqlite::open(&path).await.unwrap(), sqlite::open(&path).await.unwrap()];
    let stores: Vec<_> = stores.into_iter().map(std::sync::Arc::new).collect();
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

#[tokio::test]
async fn a_record_and_its_effect_are_kept_together_or_not_at_all() {
    let store = sqlite::in_memory().await.unwrap();
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

#[tokio::test]
async fn where_there_is_no_room_for_the_record_nothing_was_used_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = sqlite::tests::small(&dir.path().join("b.db"), 40).await;
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
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.db");
    let stores = [sqlite::open(&path).await.unwrap(), sqlite::open(&path).await.unwrap()];
    let stores: Vec<_> = stores.into_iter().map(std::sync::Arc::new).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..40 {
        let store = stores[n % 2].clone();
        let unit = Unit::of(record(&n.to_string())).with(consuming("once"));
        tasks.spawn(async move { store.commit(&[unit]).await.unwrap()[0].is_committed() });
    }
    let won = tasks.join_all().await.into_iter().filter(|won| *won).count();
    assert_eq!((won, stores[0].records(0, 99).await.unwrap().len()), (1, 1));
}

#[tokio::test]
async fn what_was_used_up_is_kept_until_nobody_needs_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.db");
    let keep_until = datetime!(2026-01-01 12:15:00.5 UTC);
    let store = sqlite::open(&path).await.unwrap();
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
    let store = sqlite::open(&path).await.unwrap();
    assert!(consumed(&store, "a").await && !consumed(&store, "b").await);
    assert_eq!(store.forget_consumed(keep_until).await.unwrap(), 0);
    let later = keep_until + time::Duration::MICROSECOND;
    assert_eq!(store.forget_consumed(later).await.unwrap(), 1);
    assert!(!consumed(&store, "a").await);
    files::remove(&path).unwrap();
    assert!(store.any_consumed(once, &asked).await.is_err());
    assert!(store.commit(&[unit]).await.is_err());
}

#[tokio::test]
async fn what_depends_on_an_issuance_is_kept_only_where_there_was_one() {
    let store = sqlite::in_memory().await.unwrap();
    let taken_back = Unit::of(record("").aborted("it failed")).with(Effect::IfIssued(Uuid::max()));
    let commit =
        async || store.commit(std::slice::from_ref(&taken_back)).await.unwrap()[0].is_committed();
    assert!(!commit().await);
    append(&store, &[record("a")]).await.unwrap();
    assert!(commit().await);
}

#[tokio::test]
async fn a_key_is_added_once_and_changed_only_from_what_it_was() {
    let store = sqlite::in_memory().await.unwrap();
    let at = datetime!(2026-01-01 12:00 UTC);
    let key = |kid: &str, state| StoredKey {
        kid: kid.into(),
        purpose: Purpose::AccessToken,
        algorithm: "ES256".into(),
        state,
        sealed: vec![0, 1, 255],
        kek_id: "k".into(),
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
