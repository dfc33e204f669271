//! What is practised: as in earnest, but that nothing is had.

use super::*;

const DRILL: [(&str, &str); 2] = [("drill", "true"), ("reason", "to practise it")];

#[tokio::test]
async fn a_drill_is_approved_like_any_other_and_nothing_is_issued_under_it() {
    let place = Place::new().await;
    let asked = place.requested("alice", &DRILL).await;
    assert_eq!((&asked["drill"], &asked["access"]), (&json!(true), &json!("pending")));
    assert_eq!(place.listed("bob", "to-approve").await[0]["drill"], json!(true));
    place.later(60);
    place.done("bob", "approve", &asked, &[]).await;
    place.later(30);
    assert_eq!(place.done("carol", "approve", &asked, &[]).await["access"], "approved");
    place.later(5);
    assert_eq!(place.done("alice", "activate", &asked, &[]).await["access"], "active");
    // Nobody is alarmed by it.
    let counted = place.bed.store.count_elevations(now(), &[]).await.unwrap();
    assert!(counted.is_empty(), "{counted:?}");
    // Neither found, nor by its name.
    let (status, said) = told(&place.issued("alice", &[]).await);
    assert!(status == 400 && said.contains("you have none"), "{status} {said}");
    let named = [("elevation", asked["id"].as_str().unwrap())];
    let (status, said) = told(&place.issued("alice", &named).await);
    assert!(status == 400 && said.contains("nothing is issued under a drill"), "{status} {said}");
    let ended = place.done("alice", "relinquish", &asked, &[]).await;
    assert_eq!((&ended["access"], &ended["review"]), (&json!("relinquished"), &json!("due")));
    // Each record says that it is one, and the last one how it went.
    let records = place.records_of(&asked).await;
    let records = records.iter().filter(|one| one.decision == Decision::Changed);
    let said: Vec<_> = records.map(|record| record.reason.as_str()).collect();
    assert!(said.iter().all(|said| said.starts_with("DRILL: ")), "{said:?}");
    assert_eq!(
        said.last().unwrap(),
        &"DRILL: gave it back (first approval after 1m, approved after 1m 30s, begun after 1m 35s, relinquished after 1m 35s)"
    );
}

#[tokio::test]
async fn who_practises_can_have_it_in_earnest_and_the_other_way_round() {
    let place = Place::new().await;
    let drill = place.requested("alice", &DRILL).await;
    // A second drill is refused as a second request would be, and each on its own.
    assert_eq!(told(&place.request("alice", &DRILL).await).0, 409);
    let earnest = place.requested("alice", &[]).await;
    assert_eq!(told(&place.request("alice", &[]).await).0, 409);
    // What approves one does not approve the other.
    let hash = [("hash", drill["hash"].as_str().unwrap())];
    let (status, said) = place.not_done("bob", "approve", &earnest, &hash).await;
    assert_eq!(status, 409, "{said}");
    for who in ["bob", "carol"] {
        place.done(who, "approve", &drill, &[]).await;
    }
    place.done("alice", "activate", &drill, &[]).await;
    assert_eq!(place.issued("alice", &[]).await.status, StatusCode::BAD_REQUEST);
    for who in ["bob", "carol"] {
        place.done(who, "approve", &earnest, &[]).await;
    }
    place.done("alice", "activate", &earnest, &[]).await;
    let token = json_of(&place.issued("alice", &[]).await);
    let claims = claims_of(token["access_token"].as_str().unwrap());
    assert_eq!(claims["elevation"]["id"], earnest["id"]);
    // Its end is not that of the one in earnest.
    place.done("alice", "relinquish", &drill, &[]).await;
    assert_eq!(place.issued("alice", &[]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_practised_emergency_stands_in_the_way_of_no_other() {
    let place = Place::new().await;
    let emergency = [("emergency", "true"), ("ttl", "900")];
    let practised = [&DRILL[..], &emergency].concat();
    let drill = place.requested("alice", &practised).await;
    assert_eq!((&drill["access"], &drill["drill"]), (&json!("emergency-active"), &json!(true)));
    assert_eq!(place.issued("alice", &[]).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(place.requested("alice", &emergency).await["access"], "emergency-active");
    assert_eq!(place.issued("alice", &[]).await.status, StatusCode::OK);
    // Of drills there is one until it is reviewed, too.
    place.done("alice", "relinquish", &drill, &[]).await;
    place.later(120);
    let (status, said) = told(&place.request("alice", &practised).await);
    assert!(status == 409 && said.contains("not reviewed"), "{said}");
}
