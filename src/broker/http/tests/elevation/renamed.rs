//! People whom the directory comes to call otherwise: they stay who they are.

use super::*;

/// The directory, where this person is called otherwise.
fn renamed(person: &str, now: &str) -> String {
    people(&[]).replace(&format!("[person.{person}]"), &format!("[person.{now}]"))
}

const EMERGENCY: [(&str, &str); 2] = [("emergency", "true"), ("ttl", "900")];

/// A broker that lets Alice take it in an emergency by both of her ids.
async fn place(change: impl FnOnce(&mut Role)) -> Place {
    Place::built(None, change, |options| {
        let also = format!("principal == User::\"{CORP}#alice-too\"");
        options.policies += &format!(
            "@id(\"by-another-id\") permit ({also}, action == Action::\"elevate\", resource);\n"
        );
    })
    .await
}

#[tokio::test]
async fn no_second_emergency_before_the_review_by_another_name() {
    let place = place(|_| {}).await;
    let had = place.requested("alice", &EMERGENCY).await;
    assert!(place.directory(&renamed("alice", "alicia")).await);
    for subject in ["alice", "alice-too"] {
        let (status, said) = told(&place.request(subject, &EMERGENCY).await);
        assert!(status == 409 && said.contains("already"), "{subject}: {said}");
    }
    place.done("alice-too", "relinquish", &had, &[]).await;
    place.later(120);
    for subject in ["alice", "alice-too"] {
        let (status, said) = told(&place.request(subject, &EMERGENCY).await);
        assert!(status == 409 && said.contains("not reviewed"), "{subject}: {said}");
    }
    // Nor does she review it herself.
    let review = [("outcome", "reviewed"), ("note", "fine")];
    for subject in ["alice", "alice-too"] {
        assert_eq!(place.not_done(subject, "review", &had, &review).await.0, 403, "{subject}");
    }
    place.done("bob", "review", &had, &review).await;
    assert_eq!(place.requested("alice-too", &EMERGENCY).await["access"], "emergency-active");
}

#[tokio::test]
async fn who_is_called_otherwise_has_asked_and_has_what_they_had() {
    let place = place(|role| {
        role.elevation.as_mut().unwrap().cool_down = Duration::from_secs(600);
    })
    .await;
    let active = place.active().await;
    assert!(place.directory(&renamed("alice", "alicia")).await);
    for subject in ["alice", "alice-too"] {
        let (status, said) = told(&place.request(subject, &[]).await);
        assert!(status == 409 && said.contains("you have the role already"), "{said}");
        assert_eq!(place.listed(subject, "mine").await.len(), 1);
        assert_eq!(place.listed(subject, "active").await.len(), 1);
        assert_eq!(place.issued(subject, &[]).await.status, StatusCode::OK);
    }
    place.done("alice-too", "relinquish", &active, &[]).await;
    let told_of = place.told().await;
    let ended = told_of.into_iter().find(|one| one.kind() == "grant-ended").unwrap();
    assert!(ended.names().contains("alicia") && !ended.names().contains("alice"), "{ended:?}");
    let (status, said) = told(&place.request("alice-too", &[]).await);
    assert!(status == 409 && said.contains("you had the role until"), "{said}");
    place.later(601);
    place.requested("alice-too", &[]).await;
}

#[tokio::test]
async fn who_approved_does_not_review_by_another_name_and_id() {
    let place = Place::new().await;
    let active = place.active().await;
    place.done("alice", "relinquish", &active, &[]).await;
    assert!(place.directory(&renamed("bob", "robert")).await);
    let review = [("outcome", "reviewed"), ("note", "fine")];
    for subject in ["bob", "bob-too"] {
        let (status, said) = place.not_done(subject, "review", &active, &review).await;
        assert!(status == 403 && said.contains("who approved"), "{subject}: {said}");
        assert_eq!(place.listed(subject, "to-review").await.len(), 0, "{subject}");
        let may = place.shown(subject, &active).await["may"].clone();
        assert!(!may.as_array().unwrap().contains(&json!("review")), "{subject}: {may}");
    }
    place.done("erin", "review", &active, &review).await;
}

#[tokio::test]
async fn who_is_called_otherwise_approves_once() {
    let place = Place::new().await;
    let asked = place.requested("alice", &[]).await;
    place.done("bob", "approve", &asked, &[]).await;
    assert!(place.directory(&renamed("bob", "robert")).await);
    // Nobody of that name is there, so that he says so again by the one that he has.
    let again = place.done("bob-too", "approve", &asked, &[]).await;
    assert_eq!(again["access"], "pending");
    assert_eq!(again["needs"][0]["have"], json!(["robert"]));
    let (status, said) = place.not_done("alice", "activate", &asked, &[]).await;
    assert!(status == 409, "{said}");
}

#[tokio::test]
async fn a_cool_down_holds_for_who_asked_by_another_id_and_is_called_otherwise() {
    let place = place(|role| {
        let rules = role.elevation.as_mut().unwrap();
        (rules.renewable, rules.cool_down) = (true, Duration::from_secs(600));
    })
    .await;
    let mut approved = Vec::new();
    for subject in ["alice", "alice-too"] {
        let asked = place.requested(subject, &[]).await;
        place.done("bob", "approve", &asked, &[]).await;
        approved.push(place.done("carol", "approve", &asked, &[]).await);
    }
    place.done("alice", "activate", &approved[0], &[]).await;
    assert!(place.directory(&renamed("alice", "alicia")).await);
    let ended = place.done("alice-too", "relinquish", &approved[0], &[]).await;
    // Who ended it has the name of now.
    assert_eq!(ended["ended"]["by"]["person"], "alicia");
    for subject in ["alice", "alice-too"] {
        let (status, said) = place.not_done(subject, "activate", &approved[1], &[]).await;
        assert!(status == 409 && said.contains("you had the role until"), "{status} {said}");
    }
}

#[tokio::test]
async fn who_has_the_name_of_who_left_is_told_nothing_of_what_is_in_their_way() {
    let place = Place::with(|role| {
        let rules = role.elevation.as_mut().unwrap();
        (rules.renewable, rules.cool_down) = (true, Duration::from_secs(600));
    })
    .await;
    let active = place.active().await;
    let other =
        people(&[]).replace("\"alice\"", "\"robert\"").replace("\"alice-too\"", "\"robert-too\"");
    assert!(place.directory(&other).await);
    let asked = place.requested("robert", &[]).await;
    place.done("bob", "approve", &asked, &[]).await;
    place.done("carol", "approve", &asked, &[]).await;
    place.done("erin", "revoke", &active, &[("reason", "left")]).await;
    let response = place.does("robert", "activate", &asked, &[]).await;
    let (status, said) = told(&response);
    assert!(status == 409 && said.contains("whom the directory called as it calls you"), "{said}");
    let whole = json_of(&response).to_string();
    assert!(!whole.contains(active["id"].as_str().unwrap()), "{whole}");
    // Nor is it listed as what they asked for before.
    assert_eq!(place.listed("robert", "mine").await.len(), 1);
}
