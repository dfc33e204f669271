use std::time::Duration;

use tokio::task::JoinSet;

use super::super::SqlStore;
use super::super::revoked::tests::{NOON, commit, cutoff, issuance, used};
use super::super::tests::Ground;
use super::*;
use crate::broker::store::sqlite;
use crate::broker::store::{Once, Store as _, TokenStore as _, Whose};

fn tokens(ids: impl IntoIterator<Item = String>) -> Revocable {
    Revocable { tokens: ids.into_iter().collect(), ..Revocable::default() }
}

async fn revoke(store: &SqlStore, id: &str) {
    assert!(commit(store, vec![used(Once::RevokedToken, id)]).await);
}

/// Gives others a turn until this is so.
async fn until(is_so: impl Fn() -> bool) {
    let all = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();
}

#[tokio::test]
async fn of_many_who_ask_at_once_each_is_told_of_their_own() {
    for ground in Ground::each().await {
        let store = Arc::new(ground.open().await);
        for n in (0..200).step_by(7) {
            revoke(&store, &n.to_string()).await;
        }
        let cut = |n: usize| Whose::Role((n % 5).to_string());
        assert!(commit(&store, vec![cutoff(&cut(3), NOON)]).await);
        let mut asked = JoinSet::new();
        for n in 0..200 {
            let store = Arc::clone(&store);
            let before = NOON - time::Duration::SECOND;
            let these = Revocable {
                issued: vec![issuance(&cut(n), if n % 2 == 0 { before } else { NOON })],
                ..tokens([n.to_string(), format!("never {n}")])
            };
            asked.spawn(async move { (n, store.any_revoked(these).await.unwrap()) });
        }
        for (n, revoked) in asked.join_all().await {
            assert_eq!(revoked, n % 7 == 0 || (n % 5 == 3 && n % 2 == 0), "{n}");
        }
    }
}

#[tokio::test]
async fn who_asks_after_something_was_revoked_is_told_while_others_ask_all_the_time() {
    for ground in Ground::each().await {
        let stores = ground.open_often(2).await;
        let mut others = JoinSet::new();
        for n in 0..8 {
            let store = Arc::clone(&stores[1]);
            others.spawn(async move {
                loop {
                    let these = tokens([format!("other {n}")]);
                    assert!(!store.any_revoked(these).await.unwrap());
                }
            });
        }
        for n in 0..60 {
            let these = tokens([n.to_string()]);
            assert!(!stores[1].any_revoked(these.clone()).await.unwrap());
            revoke(&stores[0], &n.to_string()).await;
            assert!(stores[1].any_revoked(these).await.unwrap(), "{n}");
        }
        others.shutdown().await;
    }
}

#[tokio::test]
async fn those_who_wait_are_asked_for_together_and_who_has_given_up_is_not() {
    let store = Arc::new(sqlite::in_memory().await.unwrap());
    revoke(&store, "7").await;
    // Its only connection: now nobody is told anything.
    let held = store.engine.pool.begin().await.unwrap();
    let queue = || store.lookups.queue();
    let mut asked = JoinSet::new();
    let mut ask = |n: usize| {
        let store = Arc::clone(&store);
        asked.spawn(async move { (n, store.any_revoked(tokens([n.to_string()])).await.unwrap()) });
    };
    for n in 0..AT_ONCE {
        ask(n);
        until(|| queue().tasks == n + 1 && queue().waiting.is_empty()).await;
    }
    (AT_ONCE..100).for_each(ask);
    let gives_up = Arc::clone(&store);
    let gives_up = tokio::spawn(async move { gives_up.any_revoked(tokens(["x".into()])).await });
    let waiting = 101 - AT_ONCE;
    until(|| queue().waiting.len() == waiting).await;
    assert_eq!(queue().tasks, AT_ONCE, "no more than these ask");
    gives_up.abort();
    assert!(gives_up.await.unwrap_err().is_cancelled());
    let group = {
        let lookups = Arc::clone(&store.lookups);
        queue().tasks += 1;
        Task { lookups, has_left: false }.next().unwrap()
    };
    assert_eq!(group.len(), GROUP);
    assert_eq!(queue().waiting.len(), waiting - GROUP - 1, "without the one who has given up");
    assert_eq!(queue().tasks, AT_ONCE, "who ends early counts no more");
    for wanted in group {
        assert!(!store.lookups.wait_in_line(wanted));
    }
    held.rollback().await.unwrap();
    for (n, revoked) in asked.join_all().await {
        assert_eq!(revoked, n == 7, "{n}");
    }
    until(|| queue().tasks == 0).await;
    assert!(queue().waiting.is_empty());
}

#[tokio::test]
async fn nobody_waits_in_line_for_longer_than_a_question_may_take() {
    let store = sqlite::in_memory().await.unwrap();
    let limit = Duration::from_millis(50);
    let engine = Engine::postgres(store.engine.pool.clone(), limit, false, None);
    let lookups = Lookups::new(Arc::new(engine));
    // Those who ask have connections that hang.
    lookups.queue().tasks = AT_ONCE;
    let told = lookups.any_revoked(tokens(["x".into()])).await.unwrap_err();
    assert!(told.to_string().contains("did not answer within 50ms"), "{told}");
}

#[tokio::test]
async fn where_the_last_who_asks_ends_abnormally_those_who_wait_are_told_so() {
    let store = sqlite::in_memory().await.unwrap();
    let lookups = &store.lookups;
    lookups.queue().tasks = AT_ONCE;
    let task = || Task { lookups: Arc::clone(lookups), has_left: false };
    let told = lookups.any_revoked(tokens(["x".into()]));
    let all_end = async {
        until(|| lookups.queue().waiting.len() == 1).await;
        for left in (0..AT_ONCE).rev() {
            drop(task());
            assert_eq!(lookups.queue().waiting.len(), left.min(1), "somebody else asks still");
        }
    };
    let (told, ()) = tokio::join!(told, all_end);
    assert!(told.unwrap_err().to_string().contains("ended abnormally"));
    assert!(!lookups.any_revoked(tokens(["x".into()])).await.unwrap(), "and it goes on");
}

#[tokio::test]
async fn where_nothing_can_be_read_all_who_ask_are_told_so() {
    let store = Arc::new(sqlite::in_memory().await.unwrap());
    store.close().await;
    let mut asked = JoinSet::new();
    for n in 0..20 {
        let store = Arc::clone(&store);
        asked.spawn(async move { store.any_revoked(tokens([n.to_string()])).await });
    }
    for told in asked.join_all().await {
        assert!(told.unwrap_err().to_string().contains(UNREADABLE));
    }
    assert!(!store.any_revoked(Revocable::default()).await.unwrap(), "there is nothing to ask");
}
