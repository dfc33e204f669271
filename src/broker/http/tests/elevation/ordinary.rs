//! The ordinary way: asked for, approved by others, begun, had for a while, and ended.

use super::*;

#[tokio::test]
async fn two_leads_approve_and_the_role_is_had_for_a_while_and_no_longer() {
    let place = Place::new().await;
    // Without a grant nobody has it.
    let (status, said) = told(&place.issued("alice", &[]).await);
    assert!(status == 400 && said.contains("under a grant only"), "{status} {said}");
    let asked = place.requested("alice", &[]).await;
    assert_eq!((&asked["access"], &asked["needs"][0]["count"]), (&json!("pending"), &json!(2)));
    // Who asked is none of those who could.
    assert_eq!(asked["needs"][0]["could"], json!(["bob", "carol", "erin"]));
    assert_eq!(place.listed("bob", "to-approve").await.len(), 1);
    assert_eq!(place.listed("alice", "to-approve").await.len(), 0);
    let once = place.done("bob", "approve", &asked, &[]).await;
    assert_eq!((&once["access"], &once["needs"][0]["have"]), (&json!("pending"), &json!(["bob"])));
    // The same person by another name counts once; the same again changes nothing.
    let twice = place.done("bob-too", "approve", &asked, &[]).await;
    assert_eq!((&twice["access"], &twice["version"]), (&json!("pending"), &once["version"]));
    let (status, said) = place.not_done("alice", "activate", &asked, &[]).await;
    assert!(status == 409 && said.starts_with("elevation_state"), "{said}");
    place.done("carol", "approve", &asked, &[]).await;
    let active = place.done("alice", "activate", &asked, &[]).await;
    assert_eq!(active["access"], "active");
    let response = place.issued("alice", &[("requested_ttl", "3600")]).await;
    let token = json_of(&response)["access_token"].as_str().unwrap().to_string();
    let claims = claims_of(&token);
    assert_eq!(claims["elevation"]["id"], asked["id"]);
    assert_eq!(claims["elevation"]["path"], "ordinary");
    // It does not outlive the grant.
    let lives = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert!((1795..=1800).contains(&lives), "{lives}");
    place.later(1200);
    let grant = json_of(&place.issued("alice", &[]).await);
    assert!(grant["expires_in"].as_i64().unwrap() <= 600, "{grant}");
    place.later(601);
    let (status, said) = told(&place.issued("alice", &[]).await);
    assert!(status == 400 && said.contains("you have none"), "{said}");
    let named = [("elevation", asked["id"].as_str().unwrap())];
    let (status, said) = told(&place.issued("alice", &named).await);
    assert!(status == 400 && said.contains("is expired"), "{said}");
    // The clock puts it on record, once.
    assert_eq!(place.bed.broker.due_elevations().await.unwrap(), 1);
    assert_eq!(place.bed.broker.due_elevations().await.unwrap(), 0);
    let ended = place.shown("alice", &asked).await;
    assert_eq!((&ended["access"], &ended["review"]), (&json!("expired"), &json!("due")));
    // One id leads through all of it.
    let story: Vec<_> = place
        .records_of(&asked)
        .await
        .into_iter()
        .map(|record| format!("{} {}", record.action, record.principal.subject))
        .collect();
    assert_eq!(
        story,
        [
            "elevation.request alice",
            "elevation.approve bob",
            "elevation.approve carol",
            "elevation.activate alice",
            "issue alice",
            "issue alice",
            "elevation.expire broker",
        ]
    );
}

#[tokio::test]
async fn nobody_decides_about_their_own_and_no_machine_about_anything() {
    let place = Place::new().await;
    let asked = place.requested("alice", &[]).await;
    for (who, what, form) in [
        ("alice", "approve", vec![]),
        ("alice-too", "approve", vec![]),
        ("alice-too", "deny", vec![("reason", "no")]),
        ("dave", "approve", vec![]),
        ("bob", "withdraw", vec![]),
        ("bob", "activate", vec![]),
    ] {
        let (status, said) = place.not_done(who, what, &asked, &form).await;
        let expected = if who == "dave" { 404 } else { 403 };
        assert_eq!(status, expected, "{who} {what}: {said}");
    }
    // Who is in no directory is nobody's other name.
    let (status, said) = told(&place.request("stranger", &[]).await);
    assert!(status == 403 && said.contains("not in the directory"), "{said}");
    let records = place.records_of(&asked).await;
    let denied = records.iter().filter(|one| one.decision == Decision::Denied).count();
    assert_eq!(denied, 6, "{records:?}");
    assert_eq!(place.shown("alice", &asked).await["approvals"], json!([]));
}

#[tokio::test]
async fn what_was_shown_is_what_is_approved() {
    let place = Place::new().await;
    let asked = place.requested("alice", &[]).await;
    let wrong = "0".repeat(64);
    let (status, said) = place.not_done("bob", "approve", &asked, &[("hash", &wrong)]).await;
    assert!(status == 409 && said.contains("look at it again"), "{said}");
    place.done("bob", "approve", &asked, &[]).await;
    // Other rules: what was approved by those before does not count.
    let policy = place.dir.path().join("policy.cedar");
    let text = place.policies.clone() + "\n// another version\n";
    crate::host::files::write_private(&policy, text.as_bytes()).unwrap();
    place.bed.broker.reload_policies().unwrap();
    let (status, said) = place.not_done("carol", "approve", &asked, &[]).await;
    assert!(status == 409 && said.contains("look at it again"), "{said}");
    let shown = place.shown("carol", &asked).await;
    assert_ne!(shown["hash"], asked["hash"]);
    assert_eq!(
        (&shown["approvals"][0]["counts"], &shown["needs"][0]["have"]),
        (&json!(false), &json!([]))
    );
    place.done("carol", "approve", &shown, &[]).await;
    let approved = place.done("bob", "approve", &shown, &[]).await;
    assert_eq!(approved["access"], "approved");
}

#[tokio::test]
async fn approvals_are_counted_again_when_the_grant_begins() {
    let place = Place::new().await;
    let asked = place.requested("alice", &[]).await;
    place.done("bob", "approve", &asked, &[]).await;
    place.done("carol", "approve", &asked, &[]).await;
    // Whoever may approve no more does not count from then on.
    place.suspends(&["bob"]).await;
    let (status, said) = place.not_done("alice", "activate", &asked, &[]).await;
    assert!(status == 409 && said.contains("1 of 'leads'"), "{said}");
    let more = place.done("erin", "approve", &asked, &[]).await;
    assert_eq!(more["needs"][0]["have"], json!(["carol", "erin"]));
    assert_eq!(place.done("alice", "activate", &asked, &[]).await["access"], "active");
    let record = place.records_of(&asked).await.pop().unwrap();
    assert_eq!(record.reason, "began it, approved by carol, erin; not counted: bob");
}

#[tokio::test]
async fn what_is_revoked_is_refused_at_once_together_with_what_was_issued() {
    let place = Place::new().await;
    let active = place.active().await;
    let token = json_of(&place.issued("alice", &[]).await)["access_token"].clone();
    let token = token.as_str().unwrap();
    let answer = json_of(&place.bed.introspect(Some(token), token).await);
    assert_eq!((&answer["active"], &answer["elevation"]["id"]), (&json!(true), &active["id"]));
    let ended = place.done("erin", "revoke", &active, &[("reason", "enough")]).await;
    assert_eq!(
        (&ended["access"], &ended["revocation_reach"]),
        (&json!("revoked"), &json!("introspection"))
    );
    assert_eq!(ended["ended"]["reason"], "enough");
    let answer = json_of(&place.bed.introspect(Some(token), token).await);
    assert_eq!(answer, json!({"active": false}));
    let (status, said) = told(&place.issued("alice", &[]).await);
    assert!(status == 400 && said.contains("you have none"), "{said}");
    // Ended once: not again, by nobody.
    for (who, what, form) in [
        ("alice", "relinquish", vec![]),
        ("bob", "revoke", vec![("reason", "again")]),
        ("alice", "activate", vec![]),
        ("alice", "withdraw", vec![]),
    ] {
        let (status, said) = place.not_done(who, what, &active, &form).await;
        assert!(status == 409 && said.contains("revoked"), "{who} {what}: {said}");
    }
    // Who approved does not review, nor who had it.
    let note = [("outcome", "reviewed"), ("note", "all in order")];
    for who in ["bob", "alice", "alice-too"] {
        assert_eq!(place.not_done(who, "review", &active, &note).await.0, 403, "{who}");
    }
    assert_eq!(place.listed("erin", "to-review").await.len(), 1);
    let reviewed = place.done("erin", "review", &active, &note).await;
    assert_eq!(
        (&reviewed["review"], &reviewed["reviewed"]["by"]["person"]),
        (&json!("reviewed"), &json!("erin"))
    );
    assert_eq!(place.not_done("erin", "review", &active, &note).await.0, 409);
}

#[tokio::test]
async fn of_many_at_once_each_counts_once() {
    let place = Place::new().await;
    let asked = place.requested("alice", &[]).await;
    let all = ["bob", "bob-too", "carol", "bob", "carol", "erin", "bob-too", "erin"];
    let approving = all.map(|who| place.does(who, "approve", &asked, &[]));
    for response in futures_util::future::join_all(approving).await {
        assert_eq!(response.status, StatusCode::OK, "{}", json_of(&response));
    }
    let shown = place.shown("alice", &asked).await;
    assert_eq!(shown["needs"][0]["have"], json!(["bob", "carol", "erin"]));
    let beginning = [(); 5].map(|()| place.does("alice", "activate", &asked, &[]));
    let begun = futures_util::future::join_all(beginning).await;
    // Whoever comes second has it as well, and nothing happens.
    let versions: Vec<_> = begun.iter().map(|one| json_of(one)["version"].clone()).collect();
    assert!(versions.iter().all(|one| *one == versions[0] && !one.is_null()), "{versions:?}");
    let ending = [
        place.does("alice", "relinquish", &asked, &[]),
        place.does("bob", "revoke", &asked, &[("reason", "x")]),
        place.does("erin", "revoke", &asked, &[("reason", "x")]),
    ];
    let ended = futures_util::future::join_all(ending).await;
    assert_eq!(ended.iter().filter(|one| one.status == StatusCode::OK).count(), 1);
    let records = place.records_of(&asked).await;
    let ends = ["elevation.relinquish", "elevation.revoke"];
    let changed = || records.iter().filter(|one| one.decision == Decision::Changed);
    assert_eq!(changed().filter(|one| ends.contains(&&*one.action)).count(), 1);
    assert_eq!(changed().filter(|one| one.action == "elevation.activate").count(), 1);
    // Asking twice at once is asking once.
    let requests = [(); 6].map(|()| place.request("dave", &[]));
    let asked = futures_util::future::join_all(requests).await;
    assert_eq!(asked.iter().filter(|one| one.status == StatusCode::CREATED).count(), 1);
}

#[tokio::test]
async fn who_wants_an_end_is_told_what_brings_it() {
    let place = Place::new().await;
    let asked = place.requested("alice", &[]).await;
    let why = [("reason", "no")];
    let refused = async |who: &str, what: &str, form: &[(&str, &str)], by: &str| {
        let (status, said) = place.not_done(who, what, &asked, form).await;
        let says = format!("what ends it is `{by}`");
        assert!(status == 409 && said.contains(&says), "{who} {what}: {status} {said}");
    };
    refused("bob", "revoke", &why, "deny").await;
    refused("alice", "relinquish", &[], "withdraw").await;
    place.done("bob", "approve", &asked, &[]).await;
    place.done("carol", "approve", &asked, &[]).await;
    refused("bob", "deny", &why, "revoke").await;
    refused("alice", "relinquish", &[], "withdraw").await;
    // It was never had, so nobody is told that it is had no more.
    place.done("bob", "revoke", &asked, &why).await;
    let told = place.told().await;
    let ended = told.iter().find(|one| one.kind() == "grant-ended").unwrap();
    assert_eq!(ended.title(), "what was approved for alice as admin is ended, and had not begun");
    let (status, said) = place.not_done("bob", "deny", &asked, &why).await;
    assert!(status == 409 && said.ends_with("it is revoked"), "{said}");
    let had = place.requested("dave", &[]).await;
    place.done("bob", "approve", &had, &[]).await;
    place.done("carol", "approve", &had, &[]).await;
    place.done("dave", "activate", &had, &[]).await;
    let (status, said) = place.not_done("dave", "withdraw", &had, &[]).await;
    assert!(status == 409 && said.contains("what ends it is `relinquish`"), "{said}");
    place.done("bob", "revoke", &had, &why).await;
    let told = place.told().await;
    let titles = told.iter().filter(|one| one.kind() == "grant-ended").map(Message::title);
    assert!(titles.into_iter().any(|title| title == "dave has admin no more: revoked"));
}
