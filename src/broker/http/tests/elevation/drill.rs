//! What is practised: as in earnest, but that nothing is had.

use super::*;
use crate::broker::store::Filter;
use crate::broker::testbed::Standing;

const REVIEW: [(&str, &str); 2] = [("outcome", "reviewed"), ("note", "as asked")];

const DRILL: [(&str, &str); 2] = [("drill", "true"), ("reason", "to practise it")];

#[tokio::test]
async fn a_drill_is_approved_like_any_other_and_nothing_is_issued_under_it() {
    // How long each part took is told to the second.
    let clock = Arc::new(Standing::default());
    let place = Place::built(None, |_| {}, |options| options.clock = clock.clone()).await;
    let later = |seconds| clock.set(clock.seconds() + seconds);
    let asked = place.requested("alice", &DRILL).await;
    assert_eq!((&asked["drill"], &asked["access"]), (&json!(true), &json!("pending")));
    assert_eq!(place.listed("bob", "to-approve").await[0]["drill"], json!(true));
    later(60);
    place.done("bob", "approve", &asked, &[]).await;
    later(30);
    assert_eq!(place.done("carol", "approve", &asked, &[]).await["access"], "approved");
    later(5);
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
    // For as long as the grant goes on, in whole seconds.
    let tried = ended["tried"]["said"].as_str().unwrap();
    let lasting = tried.strip_prefix("the policy 'admins' permits it for ");
    let lasting = humantime::parse_duration(lasting.unwrap()).unwrap().as_secs();
    assert!((1700..=1800).contains(&lasting) && ended["tried"]["issued"] == true, "{tried}");
    // Each record says that it is one, and the last one how it went.
    let records = place.records_of(&asked).await;
    let records = records.iter().filter(|one| one.decision == Decision::Changed);
    let said: Vec<_> = records.map(|record| record.reason.as_str()).collect();
    assert!(said.iter().all(|said| said.starts_with("DRILL: ")), "{said:?}");
    let last = said.last().unwrap();
    assert_eq!(
        **last,
        format!(
            "DRILL: gave it back (first approval after 1m, approved after 1m 30s, begun after 1m 35s, relinquished after 1m 35s; a token would have been issued: {tried})"
        )
    );
}

#[tokio::test]
async fn what_is_denied_of_a_drill_says_that_it_is_one_and_counts_for_nothing_in_earnest() {
    let place = Place::new().await;
    let asked = place.requested("alice", &DRILL).await;
    place.shown("alice", &asked).await;
    assert_eq!(place.not_done("alice", "approve", &asked, &[]).await.0, 403);
    assert_eq!(place.not_done("dave", "deny", &asked, &[("reason", "no")]).await.0, 404);
    assert_eq!(place.not_done("bob", "review", &asked, &REVIEW).await.0, 409);
    assert_eq!(told(&place.request("mallory", &DRILL).await).0, 403);
    place.done("bob", "deny", &asked, &[("reason", "not today")]).await;
    let filter = Filter { drill: true, ..Filter::default() };
    let found = place.bed.store.find(&filter, 99).await.unwrap();
    let found: Vec<_> = found.into_iter().filter_map(|(_, record)| record).collect();
    let actions: Vec<_> =
        found.iter().map(|one| (one.action.as_str(), one.decision.as_str())).collect();
    assert_eq!(
        actions,
        [
            ("elevation.request", "changed"),
            ("elevation.approve", "denied"),
            ("elevation.deny", "denied"),
            ("elevation.request", "denied"),
            ("elevation.deny", "changed"),
        ]
    );
    assert!(found.iter().all(|one| one.reason.starts_with("DRILL: ")), "{found:?}");
    let counted = |event, outcome| place.bed.broker.metrics.counted_elevated(event, outcome);
    for (event, outcome) in [
        ("request", "done"),
        ("request", "denied"),
        ("show", "done"),
        ("approve", "denied"),
        ("deny", "done"),
        ("deny", "unknown"),
        ("review", "denied"),
    ] {
        assert_eq!(counted(event, outcome), 0, "{event} {outcome}");
    }
    // What is in earnest is counted, and is none of them, whatever its reason says.
    let lie = [("reason", "INC-1 DRILL: not at all")];
    let earnest = place.requested("alice", &lie).await;
    place.done("alice", "withdraw", &earnest, &[]).await;
    assert_eq!((counted("request", "done"), counted("withdraw", "done")), (1, 1));
    assert_eq!(place.bed.store.find(&filter, 99).await.unwrap().len(), found.len());
}

#[tokio::test]
async fn a_drill_tells_where_no_token_would_have_been_issued() {
    let forbids = r#"
        @id("no-tokens-at-night")
        forbid (principal, action == Action::"issue", resource == Role::"admin");
    "#;
    let place = Place::built(None, |_| {}, |options| options.policies += forbids).await;
    let emergency = [&DRILL[..], &[("emergency", "true"), ("ttl", "900")]].concat();
    let drill = place.requested("alice", &emergency).await;
    let ended = place.done("alice", "relinquish", &drill, &[]).await;
    let said = "a policy forbids the role 'admin'";
    assert_eq!(ended["tried"], json!({ "issued": false, "said": said }));
    assert_eq!(place.shown("alice", &drill).await["tried"], ended["tried"]);
    let records = place.records_of(&drill).await;
    let last = &records.last().unwrap().reason;
    assert!(last.contains("no token would have been issued: a policy forbids"), "{last}");
    assert!(!records.iter().any(|one| one.action == "issue"), "it is asked, and no more");
    // One that somebody else ended says nothing: who had it is not there.
    let place = Place::new().await;
    let drill = place.requested("alice", &emergency).await;
    let ended = place.done("bob", "revoke", &drill, &[("reason", "enough")]).await;
    assert_eq!((&ended["access"], &ended["tried"]), (&json!("revoked"), &json!(null)));
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
