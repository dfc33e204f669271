//! People whom the directory knows at two issuers: each is one, wherever they log in.

use super::*;

const PARTNER: &str = "https://partner.example.com";

const EMERGENCY: [(&str, &str); 2] = [("emergency", "true"), ("ttl", "900")];

/// Alice and Bob are also at the partner's; somebody there who is called as Carol is here is Dave.
fn directory() -> String {
    let other = |subject: &str| format!("{{ issuer = \"{CORP}\", subject = \"{subject}\" }}");
    let there = |subject: &str| format!("{{ issuer = \"{PARTNER}\", subject = \"{subject}\" }}");
    people(&[])
        .replace(&other("alice-too"), &there("a-1"))
        .replace(&other("bob-too"), &there("b-2"))
        .replace(&other("dave"), &format!("{}, {}", other("dave"), there("carol")))
}

async fn place(change: impl FnOnce(&mut Role)) -> (Place, Another) {
    let partner = Another::new(PARTNER);
    let place = Place::built(None, change, |options| {
        partner.trusted(options);
        options.policies += &format!(
            "@id(\"on-call-at-the-partner-s\") permit (principal == User::\"{PARTNER}#a-1\", action == Action::\"elevate\", resource);\n"
        );
    })
    .await;
    assert!(place.directory(&directory()).await);
    (place, partner)
}

#[tokio::test]
async fn who_asks_at_one_issuer_approves_and_denies_at_neither() {
    let (place, partner) = place(|_| {}).await;
    let asked = place.requested("alice", &[]).await;
    for (what, form) in [("approve", &[][..]), ("deny", &[("reason", "no")])] {
        let (status, said) = partner.not_done(&place, "a-1", what, &asked, form).await;
        assert!(status == 403 && said.contains("for themselves"), "{what}: {said}");
    }
    place.done("alice", "withdraw", &asked, &[]).await;
    // The other way round.
    let asked = json_of(&partner.asks(&place, "a-1", &[]).await);
    assert_eq!(asked["requester"]["person"], "alice", "{asked}");
    assert_eq!(asked["needs"][0]["could"], json!(["bob", "carol", "erin"]));
    for (what, form) in [("approve", &[][..]), ("deny", &[("reason", "no")])] {
        let (status, said) = place.not_done("alice", what, &asked, form).await;
        assert!(status == 403 && said.contains("for themselves"), "{what}: {said}");
    }
    assert_eq!(place.shown("alice", &asked).await["approvals"], json!([]));
    // Whoever only has the same subject there as a lead has here is somebody else.
    assert_eq!(partner.not_done(&place, "carol", "approve", &asked, &[]).await.0, 404);
}

#[tokio::test]
async fn who_approves_at_both_issuers_counts_once() {
    let (place, partner) = place(|_| {}).await;
    let asked = place.requested("alice", &[]).await;
    let once = place.done("bob", "approve", &asked, &[]).await;
    let twice = partner.does(&place, "b-2", "approve", &asked, &[]).await;
    let twice = json_of(&twice);
    assert_eq!((&twice["access"], &twice["version"]), (&json!("pending"), &once["version"]));
    assert_eq!(twice["needs"][0]["have"], json!(["bob"]));
    let (status, said) = place.not_done("alice", "activate", &asked, &[]).await;
    assert!(status == 409 && said.starts_with("elevation_state"), "{said}");
    place.done("alice", "withdraw", &asked, &[]).await;
    // At once, too.
    let asked = place.requested("alice", &[]).await;
    let here = [(); 3].map(|()| place.does("bob", "approve", &asked, &[]));
    let there = [(); 3].map(|()| partner.does(&place, "b-2", "approve", &asked, &[]));
    let all = futures_util::future::join(
        futures_util::future::join_all(here),
        futures_util::future::join_all(there),
    );
    let (here, there) = all.await;
    for response in here.iter().chain(&there) {
        let answer = json_of(response);
        assert_eq!((response.status, &answer["access"]), (StatusCode::OK, &json!("pending")));
    }
    let shown = place.shown("alice", &asked).await;
    assert_eq!(shown["needs"][0]["have"], json!(["bob"]));
    assert_eq!(shown["approvals"].as_array().unwrap().len(), 1, "{shown}");
}

#[tokio::test]
async fn an_emergency_at_one_issuer_is_one_at_the_other() {
    let (place, partner) = place(|_| {}).await;
    let had = place.requested("alice", &EMERGENCY).await;
    let (status, said) = told(&partner.asks(&place, "a-1", &EMERGENCY[..1]).await);
    assert!(status == 409 && said.contains("already"), "{said}");
    // It is theirs there, too: they may give it back, and it is to be reviewed.
    let ended = json_of(&partner.does(&place, "a-1", "relinquish", &had, &[]).await);
    assert_eq!(ended["review"], "due", "{ended}");
    place.later(120);
    let (status, said) = told(&partner.asks(&place, "a-1", &EMERGENCY[..1]).await);
    assert!(status == 409 && said.contains("not reviewed"), "{said}");
    let (status, said) = partner.not_done(&place, "a-1", "review", &had, &REVIEW).await;
    assert!(status == 403 && said.contains("for themselves"), "{said}");
    let reviewed = json_of(&partner.does(&place, "b-2", "review", &had, &REVIEW).await);
    assert_eq!(reviewed["reviewed"]["by"]["person"], "bob", "{reviewed}");
    let again = json_of(&partner.asks(&place, "a-1", &EMERGENCY[..1]).await);
    assert_eq!(again["access"], "emergency-active", "{again}");
    let (status, said) = told(&place.request("alice", &EMERGENCY).await);
    assert!(status == 409 && said.contains("already"), "{said}");
    // What is had at one is had at the other.
    assert_eq!(place.issued("alice", &[]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn of_emergencies_at_both_issuers_at_once_there_is_one() {
    let (place, partner) = place(|_| {}).await;
    let here = [(); 3].map(|()| place.request("alice", &EMERGENCY));
    let there = [(); 3].map(|()| partner.asks(&place, "a-1", &EMERGENCY[..1]));
    let all = futures_util::future::join(
        futures_util::future::join_all(here),
        futures_util::future::join_all(there),
    );
    let (here, there) = all.await;
    let statuses: Vec<_> = here.iter().chain(&there).map(|one| one.status.as_u16()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 5, "{statuses:?}");
}

#[tokio::test]
async fn who_approved_at_one_issuer_reviews_at_neither() {
    let (place, partner) = place(|_| {}).await;
    let asked = place.requested("alice", &[]).await;
    partner.does(&place, "b-2", "approve", &asked, &[]).await;
    place.done("carol", "approve", &asked, &[]).await;
    place.done("alice", "activate", &asked, &[]).await;
    let ended = partner.does(&place, "a-1", "relinquish", &asked, &[]).await;
    assert_eq!(json_of(&ended)["access"], "relinquished");
    let (status, said) = place.not_done("bob", "review", &asked, &REVIEW).await;
    assert!(status == 403 && said.contains("who approved"), "{said}");
    let (status, said) = partner.not_done(&place, "b-2", "review", &asked, &REVIEW).await;
    assert!(status == 403 && said.contains("who approved"), "{said}");
    assert_eq!(place.listed("bob", "to-review").await.len(), 0);
    assert_eq!(place.listed("erin", "to-review").await.len(), 1);
    place.done("erin", "review", &asked, &REVIEW).await;
}

#[tokio::test]
async fn the_time_after_a_grant_at_one_issuer_goes_for_the_other() {
    let (place, partner) = place(|role| {
        role.elevation.as_mut().unwrap().cool_down = Duration::from_secs(600);
    })
    .await;
    let active = place.active().await;
    let (status, said) = told(&partner.asks(&place, "a-1", &[]).await);
    assert!(status == 409 && said.contains("you have the role already"), "{said}");
    place.done("alice", "relinquish", &active, &[]).await;
    let (status, said) = told(&partner.asks(&place, "a-1", &[]).await);
    assert!(status == 409 && said.contains("you had the role until"), "{said}");
    place.later(601);
    assert_eq!(partner.asks(&place, "a-1", &[]).await.status, StatusCode::CREATED);
}
