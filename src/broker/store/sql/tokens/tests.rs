use uuid::Uuid;

use super::super::revoked::tests::{DAY, NOON, commit, cutoff, issuance};
use super::*;
use crate::broker::audit::Record;
use crate::broker::audit::leaf::WITH_ACTOR;
use crate::broker::store::sql::tests::{Ground, append, record};
use crate::broker::store::{
    Consumed, Effect, EnrollmentStore, Ledger, LogStore, Once, OnceStore, Store,
};

fn token(hash: &str, keep_until: OffsetDateTime) -> OpaqueToken {
    let claims = format!("{{\"hash\":\"{hash}\",\"text\":\"'\u{1f512}\"}}");
    OpaqueToken { hash: hash.into(), claims, seal: vec![0, 1, 255], keep_until }
}

#[tokio::test]
async fn an_opaque_token_is_added_once_and_comes_back_as_it_was() {
    for ground in Ground::each().await {
        let store = ground.open().await;
        let (one, other) =
            (token("a", NOON), OpaqueToken { claims: "{}".into(), ..token("a", NOON) });
        assert!(commit(&store, vec![Effect::AddOpaque(one.clone())]).await);
        assert!(!commit(&store, vec![Effect::AddOpaque(other)]).await);
        assert_eq!(store.opaque("a").await.unwrap(), Some(one));
        assert_eq!(store.opaque("b").await.unwrap(), None);
        store.close().await;
        assert!(
            store.opaque("a").await.is_err()
                && store
                    .any_revoked(Revocable::together([issuance(&Whose::Everybodys, NOON)]))
                    .await
                    .is_err()
        );
    }
}

#[tokio::test]
async fn when_something_was_used_up_is_known() {
    for ground in Ground::each().await {
        let store = ground.open().await;
        let used = |kind| Consumed { kind, id: "x".into(), at: NOON, keep_until: NOON + DAY };
        assert!(commit(&store, vec![Effect::Consume(used(Once::Assertion))]).await);
        assert_eq!(store.consumed_at(Once::Assertion, "x").await.unwrap(), Some(NOON));
        assert_eq!(store.consumed_at(Once::AssertionUse, "x").await.unwrap(), None);
        assert_eq!(store.consumed_at(Once::Assertion, "y").await.unwrap(), None);
    }
}

#[tokio::test]
async fn what_nobody_needs_of_them_goes_a_little_at_a_time() {
    for ground in Ground::each().await {
        let stores = ground.open_often(2).await;
        let mut effects = Vec::new();
        for n in 0..250 {
            effects.push(cutoff(&Whose::Role(n.to_string()), NOON));
            effects.push(Effect::AddOpaque(token(&n.to_string(), NOON + DAY)));
            effects.push(Effect::Consume(Consumed {
                kind: Once::Assertion,
                id: n.to_string(),
                at: NOON,
                keep_until: NOON + DAY,
            }));
        }
        assert!(commit(&stores[0], effects).await);
        assert_eq!(stores[0].forget_cutoffs(NOON + DAY, 9).await.unwrap(), 0);
        assert_eq!(stores[0].forget_opaque(NOON + DAY, 9).await.unwrap(), 0);
        let later = NOON + DAY + Duration::MICROSECOND;
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..6 {
            let store = stores[n % 2].clone();
            tasks.spawn(async move {
                let (mut removed, mut last) = ([0; 3], 1);
                while last > 0 {
                    let now = [
                        store.forget_cutoffs(later, 40).await.unwrap(),
                        store.forget_opaque(later, 40).await.unwrap(),
                        store.forget_consumed(Once::Assertion, later, 40).await.unwrap(),
                    ];
                    assert!(now.iter().all(|count| *count <= 40), "{now:?}");
                    last = now.iter().sum();
                    removed.iter_mut().zip(now).for_each(|(all, now)| *all += now);
                }
                removed
            });
        }
        let all = tasks
            .join_all()
            .await
            .into_iter()
            .reduce(|a, b| [a[0] + b[0], a[1] + b[1], a[2] + b[2]]);
        assert_eq!(all, Some([250; 3]));
    }
}

#[tokio::test]
async fn tokens_that_are_good_are_counted_by_whose_they_are() {
    for ground in Ground::each().await {
        let store = ground.open().await;
        let (at, revoked) = (NOON, Uuid::from_u128(1));
        let issued = |jti: u128| Record { at, jti: Some(Uuid::from_u128(jti)), ..record("") };
        let acted = Record { actor: Some("https://i.example#bot".into()), ..issued(2) };
        let bob = Record { role: "reader".into(), client: "gui".into(), ..issued(3) };
        let of_bob = Record {
            principal: crate::credential::Principal {
                issuer: "https://j.example".into(),
                subject: "b ob".into(),
            },
            ..bob
        };
        append(&store, &[issued(1), acted, of_bob]).await.unwrap();
        let used =
            Consumed { kind: Once::RevokedToken, id: revoked.to_string(), at, keep_until: NOON };
        assert!(commit(&store, vec![Effect::Consume(used)]).await);
        let count = async |whose: Whose, now: OffsetDateTime| {
            store.count_issued(&whose, (None, now), now).await.unwrap()
        };
        let soon = NOON + Duration::minutes(1);
        for (whose, good) in [
            (Whose::Everybodys, 2),
            (Whose::Issuer("https://i.example".into()), 1),
            (Whose::Subject("https://i.example#alice".into()), 1),
            (Whose::Subject("https://i.example#bot".into()), 1),
            (Whose::Subject("https://j.example#b%20ob".into()), 1),
            (Whose::Role("reader".into()), 1),
            (Whose::Client("gui".into()), 1),
            (Whose::Client("nobody".into()), 0),
        ] {
            assert_eq!(count(whose.clone(), soon).await, good, "{whose:?}");
            assert_eq!(count(whose, NOON).await, 0, "they were issued later");
        }
        assert_eq!(count(Whose::Everybodys, NOON + Duration::minutes(16)).await, 0);
    }
}

#[tokio::test]
async fn tokens_that_were_revoked_before_are_not_counted_again() {
    for ground in Ground::each().await {
        let store = ground.open().await;
        let issued = |jti: u128, seconds| Record {
            at: NOON + Duration::seconds(seconds) + Duration::milliseconds(500),
            jti: Some(Uuid::from_u128(jti)),
            ..record("")
        };
        let reader = Record { role: "reader".into(), ..issued(4, 30) };
        append(&store, &[issued(1, 0), issued(2, 10), issued(3, 20), reader]).await.unwrap();
        let (all, now) = (Whose::Everybodys, NOON + Duration::minutes(1));
        let count = async |since| store.count_issued(&all, (since, now), now).await.unwrap();
        assert_eq!(store.revoked_until(&all).await.unwrap(), None);
        assert_eq!(count(None).await, 4);
        // Its own cut is no reason not to count them: that is made before they are counted.
        let at = NOON + Duration::seconds(10) + Duration::MILLISECOND;
        assert!(commit(&store, vec![cutoff(&all, at)]).await);
        assert_eq!(store.revoked_until(&all).await.unwrap(), Some(at));
        assert_eq!(count(None).await, 4);
        // Of the second in which it was made all count as issued before.
        assert_eq!(count(Some(at)).await, 2);
        assert_eq!(count(Some(now)).await, 0);
        // Those of others are.
        assert!(commit(&store, vec![cutoff(&Whose::Role("reader".into()), now)]).await);
        assert_eq!((count(Some(at)).await, count(None).await), (1, 3));
        let role = Whose::Role(record("").role);
        assert_eq!(store.count_issued(&role, (None, now), now).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn tokens_that_are_good_are_counted_without_a_look_at_the_others() {
    for ground in Ground::each().await {
        let store = ground.open().await;
        let issued = |jti: u128, at| Record { at, jti: Some(Uuid::from_u128(jti)), ..record("") };
        let reader = |jti| Record { role: "reader".into(), ..issued(jti, NOON) };
        let denied = Record { decision: Decision::Denied, ..issued(5, NOON) };
        let acted = Record { actor: Some("https://i.example#bot".into()), ..issued(6, NOON) };
        let late = issued(7, NOON + Duration::minutes(10));
        append(
            &store,
            &[issued(1, NOON), issued(2, NOON), reader(3), reader(4), denied, acted, late],
        )
        .await
        .unwrap();
        let count =
            async |minutes| store.count_active(NOON + Duration::minutes(minutes)).await.unwrap();
        assert_eq!(count(1).await, 6);
        let revoked = Consumed {
            kind: Once::RevokedToken,
            id: Uuid::from_u128(1).to_string(),
            at: NOON,
            keep_until: NOON + DAY,
        };
        assert!(commit(&store, vec![Effect::Consume(revoked)]).await);
        assert_eq!(count(1).await, 5);
        let after = NOON + Duration::MICROSECOND;
        assert!(commit(&store, vec![cutoff(&Whose::Role("reader".into()), NOON)]).await);
        assert_eq!(count(1).await, 5, "they were not issued before that");
        assert!(commit(&store, vec![cutoff(&Whose::Role("reader".into()), after)]).await);
        assert_eq!(count(1).await, 3);
        let bot = Whose::Subject("https://i.example#bot".into());
        assert!(commit(&store, vec![cutoff(&bot, after)]).await);
        assert_eq!(count(1).await, 2);
        assert_eq!(count(16).await, 1, "the others have ended");
        let alice = Whose::Subject("https://i.example#alice".into());
        assert!(commit(&store, vec![cutoff(&alice, NOON + DAY)]).await);
        assert_eq!(count(1).await, 0);
        assert_eq!(count(26).await, 0);
        assert!(store.plan_of_active().await.contains("audit_record_end"));
    }
}

#[tokio::test]
async fn who_acted_is_in_the_record_and_in_the_tree() {
    for ground in Ground::each().await {
        let store = ground.open().await;
        let acted = Record { actor: Some("https://i.example#bot".into()), ..record("a") };
        append(&store, &[acted.clone(), record("b")]).await.unwrap();
        assert_eq!(store.records(0, 9).await.unwrap(), [(1, acted), (2, record("b"))]);
        let leaves = store.leaves(0, 9).await.unwrap();
        assert_eq!(leaves[0].version, WITH_ACTOR);
        assert!(leaves[1].version < WITH_ACTOR);
        let hashes: Vec<_> = leaves.iter().map(|leaf| leaf.hash().unwrap()).collect();
        let tree = hashes.iter().fold(
            crate::broker::audit::tree::Frontier::default(),
            |mut tree, leaf| {
                tree.push(*leaf);
                tree
            },
        );
        assert_eq!(store.root_at(2).await.unwrap(), tree.root());
    }
}

#[tokio::test]
async fn what_is_to_be_forgotten_is_found_without_a_look_at_the_rest() {
    for ground in Ground::each().await {
        let store = ground.open().await;
        let forget = super::super::FORGET_CONSUMED;
        let forget = forget.replace("$1", "'dpop-proof'").replace("$2", "5").replace("$3", "9");
        let plan = store.plan_of(&forget).await;
        assert!(plan.contains("consumed_due"), "{plan}");
    }
}

/// Whoever revokes the same anew is told that it is done; that the row was old when somebody
/// began to remove what is old must not undo it.
#[tokio::test]
async fn what_is_made_anew_while_the_old_goes_stays() {
    type Forget = for<'a> fn(&'a SqlStore) -> futures_util::future::BoxFuture<'a, Result<u64>>;
    const LATER: OffsetDateTime = NOON.saturating_add(Duration::days(30));
    let cases: [(&str, &str, Forget); 2] = [
        (
            "insert into revocation_cutoff (kind, id, before, made_at, keep_until)
             values ('role', 'deploy', 1, 1, 2)",
            "update revocation_cutoff set keep_until = $1",
            |store| store.forget_cutoffs(LATER, 9),
        ),
        (
            "insert into enrolled_key (fingerprint, id, public_key, person, issuer, subject, label,
                 state, enrolled_at, approver, approved_at, seen_at, counted, seal)
             values ('f', 'i', 'k', 'p', 'i', 's', 'l', 'pending', 1, '', 0, 1, 0, '\\x00')",
            "update enrolled_key set enrolled_at = $1",
            |store| store.forget_pending(LATER, 9),
        ),
    ];
    for ground in Ground::each().await.into_iter().filter(Ground::is_postgres) {
        let stores = ground.open_often(3).await;
        for (make, renew, forget) in cases {
            ground.execute(make).await;
            let mut renewing = stores[0].engine.begin().await.unwrap();
            let renewed = sqlx::query(renew).bind(micros(LATER)).execute(&mut *renewing).await;
            assert_eq!(renewed.unwrap().rows_affected(), 1);
            let other = stores[1].clone();
            let forgetting = tokio::spawn(async move { forget(&other).await });
            let waits = "select count(*) from pg_stat_activity
                where wait_event_type = 'Lock' and datname = current_database()";
            let looks_on = &stores[2].engine.pool;
            let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
            while sqlx::query_scalar::<_, i64>(waits).fetch_one(looks_on).await.unwrap() == 0 {
                assert!(!forgetting.is_finished(), "{make}: it waits for whoever changes the row");
                assert!(tokio::time::Instant::now() < deadline, "{make}: nobody waits");
            }
            renewing.commit().await.unwrap();
            assert_eq!(forgetting.await.unwrap().unwrap(), 0, "{make}");
        }
    }
}
