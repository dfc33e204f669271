//! What was asked for by a login does not lock anybody out, and is ended by a signature, too.

use super::*;
use crate::broker::told::aws;

impl Down {
    /// The end of what has this id.
    fn ends(&self, person: &str, of: &Value) -> Statement {
        let id = of["id"].as_str().unwrap().parse().unwrap();
        let said = Said::Ending { of: Named::Elevation(id), reason: "the provider died".into() };
        self.says(person, said)
    }

    /// Brings something to what it is about.
    async fn brings_to(&self, what: &str, of: &Value, text: &str) -> Response {
        let path = format!("/v1/elevations/{}/{what}", of["id"].as_str().unwrap());
        self.post(&path, &[("statement", text)]).await
    }
}

#[tokio::test]
async fn who_has_or_asked_for_a_role_by_a_login_asks_by_a_signature_once() {
    let down = Down::new().await;
    let alice = down.key_of("alice").await;
    for is_active in [false, true] {
        let before = match is_active {
            true => down.place.active().await,
            false => down.place.requested("alice", &[]).await,
        };
        // One of those that are signed, however many come at once.
        let asking = [(); 6].map(|()| signed(down.wants(), &alice));
        let asked = asking.each_ref().map(|text| down.brings(text));
        let asked = futures_util::future::join_all(asked).await;
        let new: Vec<_> = asked.iter().filter(|one| one.status == StatusCode::CREATED).collect();
        assert_eq!(new.len(), 1);
        let (status, said) = down.refused(&signed(down.wants(), &alice)).await;
        assert!(status == 409 && said.contains("by a signature already"), "{status} {said}");
        // Which one that is, is told to nobody who does not show that it is theirs.
        let refused = json_of(&down.brings(&signed(down.wants(), &alice)).await);
        assert_eq!(refused.get("elevation"), None, "{refused}");
        let theirs = json_of(&down.place.request("alice", &[]).await);
        assert_eq!(theirs["elevation"], json_of(new[0])["id"], "{theirs}");
        // By a login it is as it was: what waits in any way is in the way.
        assert_eq!(told(&down.place.request("alice", &[]).await).0, 409);
        let asked = json_of(new[0]);
        down.place.done("alice", "withdraw", &asked, &[]).await;
        let what = if is_active { "relinquish" } else { "withdraw" };
        down.place.done("alice", what, &before, &[]).await;
    }
}

#[tokio::test]
async fn who_had_the_role_by_a_login_just_now_cools_down_before_they_ask_by_a_signature() {
    let down = Down::with(|rules| rules.cool_down = Duration::from_secs(600)).await;
    let alice = down.key_of("alice").await;
    let active = down.place.active().await;
    down.place.done("alice", "relinquish", &active, &[]).await;
    let (status, said) = down.refused(&signed(down.wants(), &alice)).await;
    assert!(status == 409 && said.contains("you had the role until"), "{status} {said}");
    down.place.later(601);
    down.brought(&signed(down.wants(), &alice)).await;
}

#[tokio::test]
async fn who_may_approve_revokes_by_a_signature_what_is_had_by_a_login() {
    let down = Down::new().await;
    let (alice, bob) = (down.key_of("alice").await, down.key_of("bob").await);
    let dave = down.key_of("dave").await;
    let (pending, _) = down.enrolled("carol", "carol").await;
    let active = down.place.active().await;
    let token = json_of(&down.place.issued("alice", &[]).await)["access_token"].clone();
    let token = token.as_str().unwrap();
    // Who may not by a login may not by a key, and learns nothing of it.
    let of_dave = signed(down.ends("dave", &active), &dave);
    assert_eq!(down.refused(&of_dave).await.0, 404);
    assert_eq!(down.refused(&signed(down.ends("bob", &active), &key())).await.0, 403);
    assert_eq!(down.refused(&signed(down.ends("carol", &active), &pending)).await.0, 403);
    let nothing = json!({"id": uuid::Uuid::nil().to_string()});
    assert_eq!(down.refused(&signed(down.ends("bob", &nothing), &bob)).await.0, 404);
    // Nobody makes another thing of it than it is, or brings it to another one.
    let ends = signed(down.ends("bob", &active), &bob);
    for what in ["withdraw", "relinquish"] {
        let (status, said) = told(&down.brings_to(what, &active, &ends).await);
        assert!(status == 409 && said.contains("to revoke it"), "{status} {said}");
    }
    assert_eq!(told(&down.brings_to("deny", &active, &ends).await).0, 400);
    let other = down.place.requested("dave", &[]).await;
    assert_eq!(told(&down.brings_to("revoke", &other, &ends).await).0, 400);
    let both = ends.clone() + &signed(down.ends("bob", &other), &bob);
    assert!(down.refused(&both).await.1.contains("not about one request"));
    let response = down.brings_to("revoke", &active, &ends).await;
    let ended = json_of(&response);
    assert_eq!(response.status, StatusCode::OK, "{ended}");
    assert_eq!(
        (&ended["access"], &ended["ended"]["by"]["person"]),
        (&json!("revoked"), &json!("bob"))
    );
    assert_eq!(ended["ended"]["reason"], "the provider died");
    // Of what was asked for by a login whoever brings it is told nothing but how it stands.
    for nothing in ["reason", "source", "hash", "ticket", "request"] {
        assert_eq!(ended.get(nothing), None, "{ended}");
    }
    let seen = down.place.bed.introspect(Some(&down.place.token("carol")), token).await;
    assert_eq!(json_of(&seen)["active"], false);
    let record = down.place.records_of(&active).await.pop().unwrap();
    assert_eq!(
        (record.action.as_str(), record.principal.subject.as_str()),
        ("elevation.revoke", "bob")
    );
    let by = format!("by a signature of the key {}", bob.public().fingerprint());
    assert!(record.reason.contains("the provider died") && record.reason.contains(&by));
    // The same again changes nothing, and is told how it stands; another one does nothing.
    let before = down.size().await;
    for again in [down.brings(&ends).await, down.brings_to("revoke", &active, &ends).await] {
        assert_eq!(again.status, StatusCode::OK, "{}", json_of(&again));
        assert_eq!(json_of(&again), ended);
    }
    assert_eq!(told(&down.brings_to("relinquish", &active, &ends).await).0, 409);
    assert_eq!(told(&down.brings(&signed(down.ends("bob", &active), &bob)).await).0, 409);
    assert_eq!(told(&down.brings(&signed(down.ends("alice", &active), &alice)).await).0, 409);
    assert_eq!(down.size().await, before);
}

#[tokio::test]
async fn who_asked_by_a_login_takes_it_back_and_gives_it_back_by_a_signature() {
    let down = Down::new().await;
    let alice = down.key_of("alice").await;
    let asked = down.place.requested("alice", &[]).await;
    let ends = signed(down.ends("alice", &asked), &alice);
    let taken = json_of(&down.brings_to("withdraw", &asked, &ends).await);
    assert_eq!(taken["access"], "withdrawn");
    assert_eq!(json_of(&down.brings_to("withdraw", &asked, &ends).await), taken);
    let active = down.place.active().await;
    let ends = signed(down.ends("alice", &active), &alice);
    let (status, said) = told(&down.brings_to("revoke", &active, &ends).await);
    assert!(status == 409 && said.contains("to relinquish it"), "{status} {said}");
    let given = json_of(&down.brings_to("relinquish", &active, &ends).await);
    assert_eq!((&given["access"], &given["review"]), (&json!("relinquished"), &json!("due")));
    assert_eq!(json_of(&down.brings(&ends).await), given);
    // What was asked for by a signature has an id, too.
    let asked = down.brought(&signed(down.wants(), &alice)).await;
    let ended = down.brought(&signed(down.ends("alice", &asked), &alice)).await;
    assert_eq!((&ended["id"], &ended["access"]), (&asked["id"], &json!("withdrawn")));
    // An emergency is had by a login, and ends by a signature as well.
    let active = down.place.requested("alice", &[("emergency", "true"), ("ttl", "600")]).await;
    assert_eq!(active["access"], "emergency-active");
    let ended = down.brought(&signed(down.ends("alice", &active), &alice)).await;
    assert_eq!((&ended["access"], &ended["review"]), (&json!("relinquished"), &json!("due")));
}

#[tokio::test]
async fn a_role_that_is_not_had_by_signatures_is_not_ended_by_one() {
    let down = Down::with(|rules| rules.provider_down = None).await;
    let alice = down.key_of("alice").await;
    let active = down.place.active().await;
    let (status, said) = down.refused(&signed(down.ends("alice", &active), &alice)).await;
    assert!(status == 409 && said.contains("not had by signatures"), "{status} {said}");
}

#[tokio::test]
async fn a_key_that_is_gone_ends_nothing() {
    let down = Down::new().await;
    let (bob, id) = down.key_with_id("bob", "bob").await;
    let active = down.place.active().await;
    let form = [("reason", "stolen")];
    assert_eq!(down.operates("bob", &format!("/{id}/remove"), &form).await.status, StatusCode::OK);
    assert_eq!(down.refused(&signed(down.ends("bob", &active), &bob)).await.0, 403);
    assert_eq!(down.place.shown("alice", &active).await["access"], "active");
}

#[tokio::test]
async fn who_ends_by_a_signature_what_sessions_of_aws_outlast_is_told_how_they_are_denied() {
    let place = Place::with(|role| {
        role.aws = Some(aws::Settings::default());
        role.elevation.as_mut().unwrap().provider_down = Some(ProviderDown::default());
    });
    let down = Down { place: place.await };
    let bob = down.key_of("bob").await;
    let active = down.place.active().await;
    let ends = signed(down.ends("bob", &active), &bob);
    let ended = json_of(&down.brings_to("revoke", &active, &ends).await);
    assert!(ended["aws_sessions"]["deny"].is_object(), "{ended}");
    assert_eq!(ended.get("reason"), None, "{ended}");
}
