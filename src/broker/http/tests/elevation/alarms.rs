//! Emergencies of which it cannot be put on record that people are to be told: they give nothing.

use super::receivers::{Site, is_alarmed};
use super::*;
use crate::broker::store::sqlite;
use crate::broker::testbed::failing::{AFTER, BEFORE, Failing, WELL};

/// The same each time, as whoever lost the answer asks for it.
const EMERGENCY: [(&str, &str); 3] =
    [("emergency", "true"), ("ttl", "900"), ("idempotency_key", "k-1")];

/// A broker that nobody takes messages from, so that what is on record for people stays, and its
/// store.
async fn place() -> (Site, Arc<Failing>) {
    let store = Failing::over(Arc::new(sqlite::in_memory().await.unwrap()));
    let site = Site::with(|options| options.store = store.clone()).await;
    (site, store)
}

/// Alice asks, and is told that it came to nothing.
async fn is_refused(place: &Place) {
    let (status, said) = told(&place.request("alice", &EMERGENCY).await);
    assert!(status == 503 && said.contains("cannot be done, or not be recorded"), "{said}");
    let (status, said) = told(&place.issued("alice", &[]).await);
    assert_eq!(status, 503, "{said}");
}

#[tokio::test]
async fn an_emergency_that_nobody_can_be_told_of_is_none() {
    let (site, store) = place().await;
    let place = &site.place;
    store.writes(BEFORE);
    is_refused(place).await;
    store.writes(WELL);
    // Neither is there, and no token is had.
    assert_eq!(place.listed("alice", "mine").await, Vec::<Value>::new());
    assert_eq!(place.listed("erin", "active").await, Vec::<Value>::new());
    assert!(!is_alarmed(place).await);
    let (status, said) = told(&place.issued("alice", &[]).await);
    assert!(status == 400 && said.contains("you have none"), "{said}");
    // Afterwards it is had, and told of.
    let had = place.requested("alice", &EMERGENCY).await;
    assert_eq!(had["access"], "emergency-active");
    assert!(is_alarmed(place).await);
    assert_eq!(place.issued("alice", &[]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_emergency_of_which_nobody_knows_whether_it_is_on_record_gives_nothing_that_is_not_told()
{
    let (site, store) = place().await;
    let place = &site.place;
    store.writes(AFTER);
    is_refused(place).await;
    store.writes(WELL);
    // It was: then so is the alarm, and whoever asks again has what they asked for.
    assert!(is_alarmed(place).await);
    let had = place.requested("alice", &EMERGENCY).await;
    assert_eq!((&had["access"], &had["version"]), (&json!("emergency-active"), &json!(1)));
    let begun = place.records_of(&had).await.into_iter();
    let begun = begun.filter(|one| one.action == "elevation.emergency");
    assert_eq!(begun.filter(|one| one.decision == Decision::Changed).count(), 1);
    assert_eq!(place.issued("alice", &[]).await.status, StatusCode::OK);
}
