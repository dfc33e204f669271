//! Requests at a broker whose clock is another one than its database's.

use super::*;
use crate::broker::store::sql::tests::Ground;
use crate::broker::store::sqlite;
use crate::broker::testbed::failing::Failing;

/// By a clock that is behind, logins would be good that have expired.
#[tokio::test]
async fn by_a_wrong_clock_nobody_is_given_anything_and_all_can_be_ended() {
    let store = Failing::over(Arc::new(sqlite::in_memory().await.unwrap()));
    let place = Place::built(None, |_| {}, |options| options.store = store.clone()).await;
    let is_set = async |behind: i64| {
        store.behind.store(behind, Ordering::Relaxed);
        place.bed.broker.store_clock.forget().await;
    };
    let asked = place.requested("alice", &[]).await;
    place.done("bob", "approve", &asked, &[]).await;
    let other = place.requested("dave", &[]).await;
    is_set(90).await;
    let answer = place.request("erin", &[]).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers.contains_key("retry-after"));
    let no = [("reason", "no")];
    for (what, to, form) in [("approve", &asked, &[][..]), ("deny", &other, &no)] {
        let (status, said) = place.not_done("carol", what, to, form).await;
        assert_eq!(status, 503, "{what}: {said}");
    }
    place.done("dave", "withdraw", &other, &[]).await;
    is_set(30).await;
    place.done("carol", "approve", &asked, &[]).await;
    place.done("alice", "activate", &asked, &[]).await;
    is_set(-90).await;
    let ended = place.done("alice", "relinquish", &asked, &[]).await;
    assert_eq!(ended["access"], "relinquished");
}

/// As where a process, or the machine that it is on, is stopped for a while: what it saw is from
/// before, and others have done this and that since.
#[tokio::test]
async fn what_was_looked_at_long_ago_gives_nobody_anything() {
    let grounds = Ground::each().await.into_iter().filter(Ground::is_postgres);
    for ground in grounds {
        let store = Failing::over(Arc::new(ground.open().await));
        let place = Place::built(None, |_| {}, |options| options.store = store.clone()).await;
        let shown = async |behind: i64| {
            place.clock.0.store(-behind, Ordering::Relaxed);
            store.behind.store(behind, Ordering::Relaxed);
            place.bed.broker.store_clock.forget().await;
        };
        // As somebody is about to commit, it is a minute and a half later than they saw.
        let stops = async || {
            shown(90).await;
            let (other, clock) = (store.clone(), place.clock.clone());
            store.before_moment(async move {
                clock.0.store(0, Ordering::Relaxed);
                // (With 0 it is the database that says it.)
                other.behind.store(0, Ordering::Relaxed);
            });
        };
        let in_time = async |answer: (u16, String)| {
            assert!(answer.0 == 503, "{answer:?}");
            shown(0).await;
        };
        let emergency = [("emergency", "true"), ("ttl", "900")];
        stops().await;
        in_time(told(&place.request("alice", &emergency).await)).await;
        stops().await;
        in_time(told(&place.request("alice", &[]).await)).await;
        let asked = place.requested("alice", &[]).await;
        stops().await;
        in_time(place.not_done("bob", "approve", &asked, &[]).await).await;
        place.done("bob", "approve", &asked, &[]).await;
        place.done("carol", "approve", &asked, &[]).await;
        stops().await;
        in_time(place.not_done("alice", "activate", &asked, &[]).await).await;
        assert_eq!(place.done("alice", "activate", &asked, &[]).await["access"], "active");
        // What only ends something does so whenever.
        shown(90).await;
        let ended = place.done("alice", "relinquish", &asked, &[]).await;
        assert_eq!(ended["access"], "relinquished");
    }
}
