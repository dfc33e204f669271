use std::sync::atomic::Ordering;

use serde_json::json;

use super::*;
use crate::broker::store::sql::tests::Ground;
use crate::broker::store::{Consumed, Effect, OnceStore as _, Unit};
use crate::broker::testbed::failing::Failing;
use crate::broker::testbed::logged::Logged;
use crate::host::clock::{Clock as _, SystemClock};

/// Uses up so many things that have to be kept until then.
async fn use_up(
    store: &dyn Store,
    kind: Once,
    names: std::ops::Range<usize>,
    until: OffsetDateTime,
) {
    let consume = |name: usize| {
        Effect::Consume(Consumed { kind, id: name.to_string(), at: until, keep_until: until })
    };
    let units: Vec<_> =
        names.map(|name| Unit { records: Vec::new(), effects: vec![consume(name)] }).collect();
    store.commit(&units).await.unwrap();
}

#[tokio::test]
async fn proofs_are_kept_for_an_hour_longer_than_needed_and_all_else_for_a_day() {
    for ground in Ground::each().await {
        let store = ground.open().await;
        let now = SystemClock.now() - Duration::days(3);
        let kept_for_a_day = [
            Once::RevokedToken,
            Once::ClientAssertion,
            Once::Assertion,
            Once::AssertionUse,
            Once::Statement,
        ];
        for kind in kept_for_a_day.into_iter().chain([Once::DpopProof, Once::RevokedKey]) {
            use_up(&store, kind, 0..1, now).await;
        }
        let kept = async |kind| store.any_consumed(kind, &["0".into()]).await.unwrap();
        for (after, proof, rest) in [
            (Duration::minutes(59), true, true),
            (Duration::minutes(61), false, true),
            (Duration::hours(25), false, false),
        ] {
            assert_eq!(sweep(&store, now + after).await.unwrap(), Swept::All);
            assert_eq!(kept(Once::DpopProof).await, proof, "{after}");
            for kind in kept_for_a_day {
                assert_eq!(kept(kind).await, rest, "{after} {kind:?}");
            }
            assert!(kept(Once::RevokedKey).await, "a revoked key is never forgotten");
        }
    }
}

#[tokio::test]
async fn a_process_whose_clock_is_ahead_forgets_nothing_that_others_need() {
    for ground in Ground::each().await.into_iter().filter(Ground::is_postgres) {
        let store = ground.open().await;
        let now = SystemClock.now();
        use_up(&store, Once::RevokedToken, 0..1, now + Duration::minutes(5)).await;
        sweep(&store, now + Duration::days(400)).await.unwrap();
        assert!(store.any_consumed(Once::RevokedToken, &["0".into()]).await.unwrap());
    }
}

#[tokio::test]
async fn clocks_that_differ_are_logged_where_nobody_asks_for_metrics() {
    let (bed, store) = Failing::bed(|_| {}).await;
    store.behind.store(60, Ordering::Relaxed);
    let logged = Logged::start();
    bed.issued(json!({}), &[]).await;
    let is_told = async {
        while logged.times("this machine's clock is ahead of the database's") == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::MINUTE.unsigned_abs(), is_told).await.expect("it is told");
}

#[tokio::test]
async fn what_does_not_fit_into_one_go_is_gone_on_with_at_once() {
    let ground = Ground::each().await.remove(0);
    let store = ground.open().await;
    let (now, most) = (SystemClock.now(), BATCHES * usize::try_from(BATCH).unwrap());
    let before = now - Duration::days(2);
    for from in (0..=most).step_by(5_000) {
        use_up(&store, Once::DpopProof, from..(from + 5_000).min(most + 7), before).await;
    }
    assert_eq!(sweep(&store, now).await.unwrap(), Swept::Some);
    assert_eq!(sweep(&store, now).await.unwrap(), Swept::All);
    let last = [(most + 6).to_string()];
    assert!(!store.any_consumed(Once::DpopProof, &last).await.unwrap());

    let sweeping = Sweeping::default();
    assert!(sweeping.is_due(now) && !sweeping.is_due(now + Duration::minutes(9)));
    *sweeping.0.lock().unwrap() = None;
    assert!(sweeping.is_due(now), "there is more");
}

#[tokio::test]
async fn what_cannot_be_removed_keeps_nothing_else() {
    let ground = Ground::each().await.remove(0);
    let store = ground.open().await;
    let now = SystemClock.now();
    for kind in [Once::RevokedToken, Once::Assertion, Once::Statement] {
        use_up(&store, kind, 0..1, now - Duration::days(3)).await;
    }
    ground
        .tamper(
            "create trigger stuck before delete on consumed when old.kind = 'assertion'
             begin select raise(abort, 'no'); end",
        )
        .await;
    let logged = Logged::start();
    assert_eq!(sweep(&store, now).await.unwrap(), Swept::All);
    assert_eq!(logged.times("what is old cannot be removed"), 1);
    let kept = async |kind| store.any_consumed(kind, &["0".into()]).await.unwrap();
    assert_eq!(
        [kept(Once::RevokedToken).await, kept(Once::Assertion).await, kept(Once::Statement).await],
        [false, true, false]
    );
}
