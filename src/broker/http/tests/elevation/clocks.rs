//! Requests at a broker whose clock is another one than its database's.

use super::*;
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
