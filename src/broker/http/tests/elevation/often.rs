//! Who asks again and again: others are told each time.

use futures_util::future::join_all;

use super::*;
use crate::broker::http::tests::header_of;

/// Who has asked as often as they may at once.
async fn worn_out(place: &Place) {
    for _ in 0..10 {
        let asked = place.requested("alice", &[]).await;
        place.done("alice", "withdraw", &asked, &[]).await;
    }
}

fn is_too_often(answer: &Response) {
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{}", json_of(answer));
    let after: u64 = header_of(answer, "retry-after").parse().unwrap();
    assert!((1..=60).contains(&after), "{after}");
    assert_eq!(json_of(answer)["error"], "temporarily_unavailable");
}

#[tokio::test]
async fn nobody_is_asked_until_they_say_yes_to_have_it_end() {
    let place = Place::new().await;
    // An emergency is one, and does not count.
    let had = place.requested("alice", &[("emergency", "true"), ("ttl", "600")]).await;
    assert_eq!(had["access"], "emergency-active");
    place.done("alice", "relinquish", &had, &[]).await;
    worn_out(&place).await;
    let records = async || place.bed.store.records(0, 1000).await.unwrap().len();
    let before = records().await;
    // By another name they are the same one, and whoever practises is heard by the same people.
    let drill = [("drill", "true")];
    for (name, changes) in [("alice", &[][..]), ("alice-too", &[]), ("alice", &drill)] {
        is_too_often(&place.request(name, changes).await);
    }
    assert_eq!(records().await, before, "nothing is kept of it");
    let told = place.bed.admin.get("/metrics").await;
    let told = String::from_utf8(told.body.expose().clone()).unwrap();
    assert!(
        told.contains("tmpcred_rate_limited_total{reason=\"elevation\",route=\"elevations\"} 3"),
        "{told}"
    );
    // Others may ask.
    place.requested("dave", &[]).await;
}

#[tokio::test]
async fn what_comes_to_nothing_does_not_count_and_what_is_kept_is_not_asked_again() {
    let place = Place::new().await;
    let asked = place.requested("alice", &[("idempotency_key", "k-1")]).await;
    for _ in 0..20 {
        // It is in the way of another one; policy and rules refuse others.
        assert_eq!(place.request("alice", &[]).await.status, StatusCode::CONFLICT);
        assert_eq!(
            place.request("alice", &[("reason", "x")]).await.status,
            StatusCode::BAD_REQUEST
        );
    }
    place.done("alice", "withdraw", &asked, &[]).await;
    for _ in 0..9 {
        let other = place.requested("alice", &[]).await;
        place.done("alice", "withdraw", &other, &[]).await;
    }
    is_too_often(&place.request("alice", &[]).await);
    // Whoever lost the answer to the first is told the same still.
    let again = place.request("alice", &[("idempotency_key", "k-1")]).await;
    assert_eq!(json_of(&again)["id"], asked["id"], "{}", json_of(&again));
}

#[tokio::test]
async fn many_at_once_are_no_more_than_one_after_the_other() {
    let place = Place::with(|role| role.elevation.as_mut().unwrap().renewable = true).await;
    let all = (0..40).map(|_| place.request("alice", &[]));
    let statuses: Vec<_> = join_all(all).await.iter().map(|answer| answer.status).collect();
    let kept = statuses.iter().filter(|status| **status == StatusCode::CREATED).count();
    assert_eq!(kept, 10, "{statuses:?}");
}
