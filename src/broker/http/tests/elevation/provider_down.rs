//! By signatures, while no provider can say who somebody is: what holds on the ordinary path holds
//! here, and what was signed is good for what it says and nothing else.

mod down;
mod ending;
mod keys;
mod overtaken;
mod policies;
mod strangers;
mod tokens;

use data_encoding::HEXLOWER;
use down::{Down, key, signed};
use time::OffsetDateTime;

use super::*;
use crate::broker::config::{Login, ProviderDown};
use crate::credential::TokenType;
use crate::oidc::Issuer;
use crate::sshsig::{Named, Nonce, OwnKey, Said, Signed, Statement, Subject, write};

#[tokio::test]
async fn a_request_and_its_approvals_are_brought_at_once_by_a_stranger_and_a_token_is_had() {
    let down = Down::new().await;
    let (alice, bob, carol) =
        (down.key_of("alice").await, down.key_of("bob").await, down.key_of("carol").await);
    let wants = down.wants();
    let bundle = [
        signed(wants.clone(), &alice),
        signed(down.approves("bob", &wants), &bob),
        signed(down.approves("carol", &wants), &carol),
    ];
    let approved = down.brought(&bundle.concat()).await;
    assert_eq!(
        (&approved["access"], &approved["path"]),
        (&json!("approved"), &json!("provider-down"))
    );
    assert_eq!(approved["request"], HEXLOWER.encode(&wants.hash().unwrap()));
    assert_eq!(approved["requester"]["person"], "alice");
    let shown = down.place.shown("bob", &approved).await;
    assert_eq!(shown["approvals"][0]["key"], bob.public().fingerprint());
    // It is told to the same people, and on record in the same way, with the key.
    let records = down.place.records_of(&approved).await;
    let actions: Vec<_> = records.iter().map(|record| record.action.as_str()).collect();
    assert_eq!(actions, ["elevation.request", "elevation.approve", "elevation.approve"]);
    let subjects: Vec<_> = records.iter().map(|one| one.principal.subject.as_str()).collect();
    assert_eq!(subjects, ["alice", "bob", "carol"]);
    for (record, key) in records.iter().zip([&alice, &bob, &carol]) {
        let by = format!("by a signature of the key {}", key.public().fingerprint());
        assert!(record.reason.contains(&by), "{}", record.reason);
    }
    // No token before it has begun.
    let (status, said) = told(&down.token(&signed(down.uses(&wants), &alice), &[]).await);
    assert!(
        status == 400 && said.contains("your grant for the role 'admin' is approved"),
        "{said}"
    );
    let active = down.brought(&signed(down.uses(&wants), &alice)).await;
    assert_eq!(active["access"], "active");
    let used = signed(down.uses(&wants), &alice);
    let response = down.token(&used, &[]).await;
    let answer = json_of(&response);
    assert_eq!(response.status, StatusCode::OK, "{answer}");
    let token = answer["access_token"].as_str().unwrap().to_string();
    let claims = claims_of(&token);
    assert_eq!(
        claims["elevation"],
        json!({
            "id": active["id"], "path": "provider-down",
            "reason_sha256": claims["elevation"]["reason_sha256"],
        })
    );
    assert_eq!((&claims["sub_id"]["sub"], &claims["role"]), (&json!("alice"), &json!("admin")));
    assert!(answer["expires_in"].as_u64().unwrap() <= 1800);
    let issued = down.place.records_of(&approved).await.pop().unwrap();
    assert!(issued.reason.contains(&alice.public().fingerprint()), "{}", issued.reason);
    // She gives it back, and all that was issued under it ends.
    let of = Named::Request(wants.hash().unwrap());
    let ending = Said::Ending { of, reason: "done".into() };
    let ended = down.brought(&signed(down.says("alice", ending), &alice)).await;
    assert_eq!((&ended["access"], &ended["review"]), (&json!("relinquished"), &json!("due")));
    let (status, said) = told(&down.token(&signed(down.uses(&wants), &alice), &[]).await);
    assert!(status == 400 && said.contains("relinquished"), "{said}");
    let seen = down.place.bed.introspect(Some(&down.place.token("bob")), &token).await;
    assert_eq!(json_of(&seen)["active"], false);
    // Signing is no login: what lapses by logins lapses all the same.
    let known = down.enrollment(&alice).await;
    assert!(known.seen_at <= known.enrolled_at, "{known:?}");
}

#[tokio::test]
async fn no_threshold_is_lower_and_whoever_asks_approves_by_no_key() {
    let down = Down::new().await;
    let alice = down.key_of("alice").await;
    let (too, _) = down.key_with_id("alice-too", "alice").await;
    let (bob, bobs) = (down.key_of("bob").await, down.key_with_id("bob-too", "bob").await.0);
    let dave = down.key_of("dave").await;
    let wants = down.wants();
    let asked = down.brought(&signed(wants.clone(), &alice)).await;
    assert_eq!((&asked["access"], &asked["needs"][0]["count"]), (&json!("pending"), &json!(2)));
    for own in [&alice, &too] {
        let text = signed(down.approves("alice", &wants), own);
        let (status, said) = told(&down.brings(&text).await);
        assert!(status == 403 && said.contains("for themselves"), "{status} {said}");
        // It is on record once, however often somebody brings it.
        assert!(down.refused(&text).await.1.contains("used before"));
    }
    // Who may not approve by logging in may not by signing.
    let (status, _) = told(&down.brings(&signed(down.approves("dave", &wants), &dave)).await);
    assert_eq!(status, 404);
    // Two keys of one person are one person.
    for key in [&bob, &bobs] {
        let once = down.brought(&signed(down.approves("bob", &wants), key)).await;
        assert_eq!(
            (&once["access"], &once["needs"][0]["have"]),
            (&json!("pending"), &json!(["bob"]))
        );
    }
    let (status, said) = told(&down.brings(&signed(down.uses(&wants), &alice)).await);
    assert!(status == 409, "{said}");
    // Somebody who can still log in approves what they are shown.
    let shown = down.place.shown("carol", &asked).await;
    let approved = down.place.done("carol", "approve", &shown, &[]).await;
    assert_eq!(approved["access"], "approved");
}

#[tokio::test]
async fn whoever_signs_with_no_key_that_counts_writes_nothing() {
    let down = Down::new().await;
    let (alice, id) = down.key_with_id("alice", "alice").await;
    let bob = down.key_of("bob").await;
    let (pending, _) = down.enrolled("carol", "carol").await;
    let wants = down.wants();
    let (status, said) = down.refused(&signed(wants.clone(), &key())).await;
    assert!(status == 403 && said.contains("does not count"), "{said}");
    // Not approved; of another person than it says; by two keys.
    let by = |person: &str| Statement { person: person.into(), ..down.wants() };
    assert_eq!(down.refused(&signed(by("carol"), &pending)).await.0, 403);
    assert_eq!(down.refused(&signed(by("bob"), &alice)).await.0, 403);
    let both = {
        let text = wants.text().unwrap();
        let signatures = [&alice, &bob].map(|key| key.sign(text.as_bytes()).unwrap()).to_vec();
        write(&[Signed { statement: wants.clone(), signatures }]).unwrap()
    };
    assert!(down.refused(&both).await.1.contains("more than one key"));
    let elsewhere = Issuer::parse("https://other.example").unwrap();
    let long_ago = down.now() - time::Duration::hours(2);
    let late =
        Statement { made: long_ago, expires: long_ago + time::Duration::HOUR, ..down.wants() };
    for (text, says) in [
        (signed(Statement { broker: elsewhere, ..down.wants() }, &alice), "for the broker"),
        (signed(late, &alice), "expired"),
        (signed(down.wants(), &alice).replace("seconds: 1800", "seconds: 1801"), "did not sign"),
        ("hello".into(), "no statements"),
        (signed(down.wants(), &alice).repeat(2), "only the first"),
        (
            signed(down.wants(), &alice) + &signed(down.approves("bob", &down.wants()), &bob),
            "not about one request",
        ),
    ] {
        let (status, said) = down.refused(&text).await;
        assert!(status == 400 && said.contains(says), "{said}");
    }
    // Nobody shows a token with it, or asks for something besides.
    let text = signed(down.wants(), &alice);
    let token = down.place.token("alice");
    let shown = down.place.ask(&token, (Method::POST, ""), &[("statement", &text)]).await;
    assert_eq!(told(&shown).0, 400);
    let besides = down.post("/v1/elevations", &[("statement", &text), ("role", "admin")]).await;
    assert_eq!(told(&besides).0, 400);
    // Removed.
    let response = down.operates("alice", &format!("/{id}/remove"), &[("reason", "lost")]).await;
    assert_eq!(response.status, StatusCode::OK);
    assert_eq!(down.refused(&text).await.0, 403);
}

#[tokio::test]
async fn a_key_counts_no_longer_than_its_owner_logs_in_and_is_in_the_directory() {
    let down = Down::new().await;
    let (alice, bob) = (down.key_of("alice").await, down.key_of("bob").await);
    down.place.later(31 * 24 * 3600);
    assert_eq!(down.refused(&signed(down.wants(), &alice)).await.0, 403);
    drop(bob);
    let down = Down::new().await;
    let alice = down.key_of("alice").await;
    let file = down.place.dir.path().join("people.toml");
    let text = people(&[]).replace("\"alice\"", "\"alice-left\"");
    crate::host::files::write_private(&file, text.as_bytes()).unwrap();
    down.place.bed.broker.reload_policies().unwrap();
    assert_eq!(down.refused(&signed(down.wants(), &alice)).await.0, 403);
}

#[tokio::test]
async fn a_directory_that_is_out_of_date_knows_nobody_by_their_key() {
    let place = Place::dated(Some(Duration::from_secs(600)), |role| {
        role.elevation.as_mut().unwrap().provider_down = Some(ProviderDown::default());
    });
    let down = Down { place: place.await };
    let alice = down.key_of("alice").await;
    down.place.later(3600);
    let (status, said) = down.refused(&signed(down.wants(), &alice)).await;
    assert!(status == 403 && said.contains("out of date"), "{said}");
}

#[tokio::test]
async fn what_was_signed_is_good_once_and_bringing_it_again_changes_nothing() {
    let down = Down::new().await;
    let (alice, bob) = (down.key_of("alice").await, down.key_of("bob").await);
    let carol = down.key_of("carol").await;
    let wants = down.wants();
    let request = signed(wants.clone(), &alice);
    let approval = signed(down.approves("bob", &wants), &bob);
    let asked = down.brought(&request).await;
    let once = down.brought(&approval).await;
    let before = down.size().await;
    for again in [&request, &approval] {
        let same = down.brought(again).await;
        assert_eq!((&same["id"], &same["version"]), (&asked["id"], &once["version"]));
    }
    assert_eq!(down.size().await, before);
    // Another one with the same nonce is no other.
    let Said::Request { subject, rules, ticket, .. } = wants.said.clone() else { panic!() };
    let other = Said::Request { subject, rules, ticket, reason: "INC-2 another".into() };
    let (status, said) =
        told(&down.brings(&signed(Statement { said: other, ..wants.clone() }, &alice)).await);
    assert!(status == 400 && said.contains("used before"), "{status} {said}");
    let denial = Said::Denial { request: wants.hash().unwrap(), reason: "no".into() };
    let denied = signed(down.says("carol", denial), &carol);
    assert_eq!(down.brought(&denied).await["access"], "denied");
    // Whatever comes after, what was asked for is denied.
    assert_eq!(down.brought(&request).await["access"], "denied");
    assert_eq!(told(&down.brings(&approval).await).0, 200);
    let late = signed(down.approves("carol", &wants), &carol);
    assert_eq!(told(&down.brings(&late).await).0, 409);
    // It can be asked for anew.
    assert_eq!(down.brought(&signed(down.wants(), &alice)).await["access"], "pending");
}

#[tokio::test]
async fn an_approval_is_for_one_request_by_the_rules_that_it_names() {
    let down = Down::new().await;
    let (alice, bob) = (down.key_of("alice").await, down.key_of("bob").await);
    let carol = down.key_of("carol").await;
    // Of a request that nobody brought, or that was not signed, nothing is known.
    let (wants, other) = (down.wants(), down.wants());
    let (status, _) = told(&down.brings(&signed(down.approves("bob", &other), &bob)).await);
    assert_eq!(status, 404);
    let ordinary = down.place.requested("dave", &[]).await;
    let asked = down.brought(&signed(wants.clone(), &alice)).await;
    let path =
        |of: &Value, what: &str| format!("/v1/elevations/{}/{what}", of["id"].as_str().unwrap());
    let approval = signed(down.approves("bob", &wants), &bob);
    for (of, what) in
        [(&ordinary, "approve"), (&asked, "deny"), (&asked, "activate"), (&asked, "review")]
    {
        let (status, said) = told(&down.post(&path(of, what), &[("statement", &approval)]).await);
        assert!(status == 400, "{what}: {said}");
    }
    let response = down.post(&path(&asked, "approve"), &[("statement", &approval)]).await;
    assert_eq!(json_of(&response)["needs"][0]["have"], json!(["bob"]));
    // Other rules: what was approved is void, and what was signed is for others.
    let policy = down.place.dir.path().join("policy.cedar");
    let text = down.place.policies.clone() + "\n// changed\n";
    crate::host::files::write_private(&policy, text.as_bytes()).unwrap();
    down.place.bed.broker.reload_policies().unwrap();
    let seen = down.brought(&signed(wants.clone(), &alice)).await;
    assert_eq!(seen["needs"][0]["have"], json!([]));
    assert_eq!(seen["approvals"][0]["counts"], false);
    let (status, said) = told(&down.brings(&signed(down.approves("carol", &wants), &carol)).await);
    assert!(
        status == 409 && said.contains("other rules") && said.contains(&down.rules()),
        "{said}"
    );
    // The same of a request that was signed before.
    let stale = {
        let Said::Request { subject, ticket, reason, .. } = down.wants().said else { panic!() };
        let rules = "ab".repeat(32);
        down.says("alice", Said::Request { subject, rules, ticket, reason })
    };
    assert_eq!(down.refused(&signed(stale, &alice)).await.0, 409);
}

#[tokio::test]
async fn a_key_that_is_removed_takes_along_what_it_approved() {
    let down = Down::new().await;
    let alice = down.key_of("alice").await;
    let (bob, id) = down.key_with_id("bob", "bob").await;
    let carol = down.key_of("carol").await;
    let wants = down.wants();
    let bundle = [
        signed(wants.clone(), &alice),
        signed(down.approves("bob", &wants), &bob),
        signed(down.approves("carol", &wants), &carol),
    ];
    assert_eq!(down.brought(&bundle.concat()).await["access"], "approved");
    let form = [("reason", "stolen")];
    assert_eq!(down.operates("bob", &format!("/{id}/remove"), &form).await.status, StatusCode::OK);
    let (status, said) = told(&down.brings(&signed(down.uses(&wants), &alice)).await);
    assert!(status == 409 && said.starts_with("elevation_short"), "{said}");
    let again = down.key_of("bob").await;
    down.brought(&signed(down.approves("bob", &wants), &again)).await;
    assert_eq!(down.brought(&signed(down.uses(&wants), &alice)).await["access"], "active");
}

#[tokio::test]
async fn one_bad_approval_of_several_spoils_nothing_and_is_told() {
    let down = Down::new().await;
    let (alice, bob) = (down.key_of("alice").await, down.key_of("bob").await);
    let (pending, _) = down.enrolled("carol", "carol").await;
    let wants = down.wants();
    let bundle = [
        signed(wants.clone(), &alice),
        signed(down.approves("carol", &wants), &pending),
        signed(down.approves("bob", &wants), &bob),
    ];
    let told = down.brought(&bundle.concat()).await;
    assert_eq!((&told["access"], &told["needs"][0]["have"]), (&json!("pending"), &json!(["bob"])));
    assert_eq!(told["not_taken"][0]["person"], "carol");
    assert!(told["not_taken"][0]["why"].as_str().unwrap().contains("does not count"));
}

#[tokio::test]
async fn a_role_that_does_not_say_so_is_not_had_by_signatures() {
    let down = Down::with(|rules| rules.provider_down = None).await;
    let alice = down.key_of("alice").await;
    let (status, said) = down.refused(&signed(down.wants(), &alice)).await;
    assert!(status == 400 && said.contains("not had by signatures"), "{said}");
    // Nor is one that is not had by elevation.
    let Said::Request { mut subject, rules, ticket, reason } = down.wants().said else { panic!() };
    subject.role = "deploy".into();
    let deploy = down.says("alice", Said::Request { subject, rules, ticket, reason });
    assert_eq!(down.refused(&signed(deploy, &alice)).await.0, 400);
}

#[tokio::test]
async fn nobody_is_asked_for_tickets_while_things_are_down() {
    let down = Down::with(|rules| tickets::looked_up(rules, &["/nonexistent/tickets"])).await;
    let alice = down.key_of("alice").await;
    let mut wants = down.wants();
    let asks = |wants: &mut Statement, number: &str| match &mut wants.said {
        Said::Request { ticket, .. } => *ticket = Some(number.into()),
        other => panic!("{other:?}"),
    };
    asks(&mut wants, "INC-1");
    let (status, said) = down.refused(&signed(wants.clone(), &alice)).await;
    assert!(status == 400 && said.contains("has to be like"), "{said}");
    asks(&mut wants, "CHG-1");
    let asked = down.brought(&signed(wants, &alice)).await;
    assert_eq!((&asked["ticket"], &asked["ticket_unchecked"]), (&json!("CHG-1"), &json!(true)));
    let said = &down.place.records_of(&asked).await[0].reason;
    assert!(said.contains("(CHG-1, not checked)"), "{said}");
}
