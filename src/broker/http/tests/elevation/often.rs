//! Who asks again and again: others are told each time.

use super::*;
use crate::broker::http::tests::header_of;

#[tokio::test]
async fn nobody_is_asked_until_they_say_yes_to_have_it_end() {
    let place = Place::new().await;
    for _ in 0..10 {
        let asked = place.requested("alice", &[]).await;
        place.done("alice", "withdraw", &asked, &[]).await;
    }
    let records = async || place.bed.store.records(0, 1000).await.unwrap().len();
    let before = records().await;
    // By another name they are the same one, and whoever practises is heard by the same people.
    for (name, changes) in [("alice", &[][..]), ("alice-too", &[]), ("alice", &[("drill", "true")])]
    {
        let answer = place.request(name, changes).await;
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{}", json_of(&answer));
        let after: u64 = header_of(&answer, "retry-after").parse().unwrap();
        assert!((1..=60).contains(&after), "{after}");
        assert_eq!(json_of(&answer)["error"], "temporarily_unavailable");
    }
    assert_eq!(records().await, before, "nothing is kept of it");
    let told = place.bed.admin.get("/metrics").await;
    let told = String::from_utf8(told.body.expose().clone()).unwrap();
    assert!(told.contains("tmpcred_rate_limited_total{reason=\"elevation\"} 3"), "{told}");
    // Others may ask, and an emergency is one.
    place.requested("dave", &[]).await;
    let had = place.requested("alice", &[("emergency", "true"), ("ttl", "600")]).await;
    assert_eq!(had["access"], "emergency-active");
}
