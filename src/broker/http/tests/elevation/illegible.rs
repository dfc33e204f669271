//! One elevation in the database that cannot be read keeps nobody from the others.

use super::*;
use crate::broker::store::{Effect, Unit, Unless};

impl Place {
    /// Adds some that are like this one, but that the broker did not write.
    async fn forges(&self, like: &Value, count: u128) {
        let id = uuid::Uuid::parse_str(like["id"].as_str().unwrap()).unwrap();
        let broker = &self.bed.broker;
        let like = broker.elevation_for_tests(id).await;
        let forged = (1..=count).map(|number| {
            let mut other = like.clone();
            other.id = uuid::Uuid::from_u128(number);
            other.asked.at += time::Duration::milliseconds(1);
            let mut stored = broker.elevations.over(&other, None).unwrap();
            stored.sealed.seal[0] ^= 1;
            Effect::AddElevation(stored, Unless::default())
        });
        let unit = Unit { records: Vec::new(), effects: forged.collect() };
        assert!(self.bed.store.commit(&[unit]).await.unwrap()[0].is_committed());
    }
}

#[tokio::test]
async fn a_grant_that_is_forged_gives_nothing_and_keeps_nobody_from_their_own() {
    let place = Place::new().await;
    let active = place.active().await;
    // More than are looked at together.
    place.forges(&active, 60).await;
    let issued = place.issued("alice", &[]).await;
    assert_eq!(issued.status, StatusCode::OK, "{}", json_of(&issued));
    let token = json_of(&issued)["access_token"].as_str().unwrap().to_string();
    assert_eq!(claims_of(&token)["elevation"]["id"], active["id"]);
    let response = place.request("alice", &[]).await;
    let (status, said) = told(&response);
    assert!(status == 409 && said.contains("you have the role already"), "{status} {said}");
    assert_eq!(json_of(&response)["elevation"], active["id"]);
    for (who, which) in [("alice", "mine"), ("erin", "active")] {
        let listed = place.listed(who, which).await;
        assert_eq!(listed.len(), 1, "{who} {which}");
        assert_eq!(listed[0]["id"], active["id"]);
    }
    place.done("alice", "relinquish", &active, &[]).await;
    let (status, said) = told(&place.issued("alice", &[]).await);
    assert!(status == 400 && said.starts_with("elevation_required"), "{status} {said}");
}

#[tokio::test]
async fn a_request_that_is_forged_is_waited_for_by_nobody() {
    let place = Place::new().await;
    let asked = place.requested("alice", &[]).await;
    place.forges(&asked, 1).await;
    let response = place.issued("alice", &[]).await;
    assert!(told(&response).1.starts_with("elevation_pending"), "{:?}", told(&response));
    assert_eq!(json_of(&response)["elevation"], asked["id"]);
    place.done("alice", "withdraw", &asked, &[]).await;
    let (status, said) = told(&place.issued("alice", &[]).await);
    assert!(status == 400 && said.starts_with("elevation_required"), "{status} {said}");
    // It is in the way, as far as the database goes; which one that is cannot be told.
    let response = place.request("alice", &[]).await;
    assert_eq!(response.status, StatusCode::CONFLICT, "{}", json_of(&response));
    assert_eq!(json_of(&response).get("elevation"), None);
}
