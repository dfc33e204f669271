use time::Duration;

use super::super::revoked::tests::{NOON, commit, cutoff, issuance, used};
use super::super::tests::{Ground, record};
use crate::broker::store::{
    Effect, Ledger, LogStore, Once, OnceStore, OpaqueToken, Outcome, Revocable, Store, Unit, Whose,
};
use crate::broker::testbed::now;

fn unit(effects: impl Into<Vec<Effect>>) -> Unit {
    Unit { records: vec![record("")], effects: effects.into() }
}

/// Two of them are in each other's way.
fn opaque(claims: &str) -> Effect {
    let (hash, claims) = ("h".into(), claims.into());
    Effect::AddOpaque(OpaqueToken { hash, claims, seal: vec![1], keep_until: NOON })
}

/// As many as a group does, and more than one statement writes.
#[tokio::test]
async fn each_of_a_group_uses_up_what_is_its_own() {
    for ground in Ground::each().await {
        let store = ground.open().await;
        let id = |n: usize| format!("a{n}");
        let units = |some: std::ops::Range<usize>| {
            let both = |n| [used(Once::Assertion, &id(n)), used(Once::AssertionUse, &id(n))];
            some.map(|n| unit(both(n))).collect::<Vec<_>>()
        };
        let kept = async |units: &[Unit]| {
            let outcomes = store.commit(units).await.unwrap();
            outcomes.into_iter().map(Outcome::is_committed).collect::<Vec<_>>()
        };
        assert_eq!(kept(&units(0..75)).await, [true; 75]);
        // Those that were used before are refused, and nobody else for it.
        let expected: Vec<_> = (70..90).map(|n| n >= 75).collect();
        assert_eq!(kept(&units(70..90)).await, expected);
        for n in 0..91 {
            for kind in [Once::Assertion, Once::AssertionUse] {
                let is_used = store.consumed_at(kind, &id(n)).await.unwrap().is_some();
                assert_eq!(is_used, n < 90, "{n}");
            }
        }
        assert_eq!(store.size().await.unwrap(), 90);
    }
}

#[tokio::test]
async fn what_is_used_up_with_something_that_did_not_come_about_is_not() {
    let checkpoint = |size| Effect::AddCheckpoint { size, note: "a note".into(), at: NOON };
    let a = || used(Once::Assertion, "a");
    for ground in Ground::each().await {
        let store = ground.open().await;
        let is_revoked = Revocable { tokens: vec!["t".into()], ..Revocable::default() };
        assert!(commit(&store, vec![used(Once::RevokedToken, "t"), opaque("1")]).await);
        let units = [
            // One change, two of them, a condition, and the same twice.
            unit([a(), opaque("2")]),
            unit([checkpoint(1), a(), opaque("2")]),
            unit([a(), Effect::IfNotRevoked(is_revoked)]),
            unit([a(), used(Once::Statement, "s"), a()]),
            unit([a(), checkpoint(1)]),
            unit([used(Once::Statement, "s"), a()]),
            // Ids of another kind are others.
            unit([used(Once::Statement, "a"), used(Once::DpopProof, "a")]),
            unit([used(Once::Statement, "s")]),
        ];
        let outcomes = store.commit(&units).await.unwrap();
        let kept: Vec<_> = outcomes.into_iter().map(Outcome::is_committed).collect();
        assert_eq!(kept, [false, false, false, false, true, false, true, true]);
        for (kind, id) in [(Once::Assertion, "a"), (Once::Statement, "s")] {
            assert_eq!(store.consumed_at(kind, id).await.unwrap(), Some(NOON), "{id}");
        }
    }
}

/// Whoever holds the time against the database's is told by its clock, not by this machine's; a
/// file has none.
#[tokio::test]
async fn a_clock_that_differs_from_the_databases_fails_what_asks_for_it() {
    for ground in Ground::each().await {
        let store = ground.open().await;
        let has_none = store.now().await.unwrap().is_none();
        let off = |seconds| {
            let (at, within) = (now() + Duration::seconds(seconds), Duration::MINUTE);
            unit([Effect::IfClocksAgree { at, within }])
        };
        let units = [off(0), off(50), off(70), off(-50), off(-70), unit([])];
        let outcomes = store.commit(&units).await.unwrap();
        let kept: Vec<_> = outcomes.into_iter().map(Outcome::is_committed).collect();
        assert_eq!(kept, [true, true, has_none, true, has_none, true]);
    }
}

/// Where all is revoked that a group asks about, it looks again, and what it has used up until
/// then stays so.
#[tokio::test]
async fn what_is_used_up_stays_so_where_a_group_has_to_look_again() {
    for ground in Ground::each().await {
        let store = ground.open().await;
        let role = Whose::Role("r".into());
        let of_role = Revocable::together([issuance(&role, NOON)]);
        let cut = cutoff(&role, NOON + Duration::SECOND);
        let a = || used(Once::Assertion, "a");
        let units = [
            unit([Effect::IfNotRevoked(of_role.clone()), a(), opaque("1")]),
            // What was revoked with something that did not come about was not revoked.
            unit([cut.clone(), opaque("2")]),
            unit([Effect::IfNotRevoked(of_role.clone())]),
            unit([cut]),
            unit([a()]),
            unit([Effect::IfNotRevoked(of_role), used(Once::Assertion, "b")]),
            unit([used(Once::Assertion, "b")]),
        ];
        let outcomes = store.commit(&units).await.unwrap();
        let kept: Vec<_> = outcomes.into_iter().map(Outcome::is_committed).collect();
        assert_eq!(kept, [true, false, true, true, false, false, true]);
    }
}

#[tokio::test]
async fn of_many_processes_that_use_the_same_one_is_first() {
    for ground in Ground::each().await {
        let stores = ground.open_often(4).await;
        let mut tasks = tokio::task::JoinSet::new();
        for (n, store) in stores.iter().enumerate() {
            let store = store.clone();
            tasks.spawn(async move {
                let mut kept = Vec::new();
                for round in 0..20 {
                    // Each begins with another one.
                    let ids = (0..5).map(|place| format!("{round}.{}", (place + n) % 5));
                    let units: Vec<_> = ids.map(|id| unit([used(Once::DpopProof, &id)])).collect();
                    let outcomes = store.commit(&units).await.unwrap();
                    kept.push(outcomes.into_iter().filter(|one| one.is_committed()).count());
                }
                kept
            });
        }
        let all = tasks.join_all().await;
        let sums: Vec<_> =
            (0..20).map(|round| all.iter().map(|kept| kept[round]).sum::<usize>()).collect();
        assert_eq!(sums, [5; 20]);
        assert_eq!(stores[0].size().await.unwrap(), 100);
    }
}
