//! What whoever has the file of a signed request is told, and what nobody else uses up.

use std::collections::BTreeSet;

use super::*;

fn names(of: &Value) -> BTreeSet<&str> {
    of.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn whoever_brings_a_request_is_told_how_it_stands_and_nothing_that_is_not_in_it() {
    let down = Down::new().await;
    let alice = down.key_of("alice").await;
    let bob = down.key_of("bob").await;
    let wants = down.wants();
    let request = signed(wants.clone(), &alice);
    down.brought(&(request.clone() + &signed(down.approves("bob", &wants), &bob))).await;
    let seen = down.brought(&request).await;
    let all = [
        "id",
        "version",
        "path",
        "access",
        "review",
        "role",
        "audience",
        "ttl",
        "requester",
        "reason",
        "request",
        "asked_at",
        "lapses_at",
        "approvals",
        "needs",
        "may",
    ];
    assert_eq!(names(&seen), BTreeSet::from(all), "{seen}");
    assert_eq!(seen["requester"], json!({"person": "alice"}));
    assert_eq!((&seen["reason"], &seen["may"]), (&json!("INC-1 all is down"), &json!([])));
    let approval = &seen["approvals"][0];
    assert_eq!(approval["by"], json!({"person": "bob"}));
    assert_eq!(names(approval), BTreeSet::from(["by", "at", "counts"]));
    let need = &seen["needs"][0];
    assert_eq!((&need["have"], &need["could"]), (&json!(["bob"]), &json!(["carol", "erin"])));
    // Who is logged in is told all of it.
    let whole = down.place.shown("bob", &seen).await;
    for more in ["source", "hash"] {
        assert!(whole[more].is_string(), "{whole}");
    }
    assert_eq!(whole["requester"]["subject"], "alice");
    // What is said of its end is by whom and why, and of its review nothing but whether.
    let form = [("reason", "use the reader role")];
    down.place.done("carol", "deny", &whole, &form).await;
    let denied = down.brought(&request).await;
    assert_eq!(denied["ended"]["by"], json!({"person": "carol"}));
    assert_eq!(denied["ended"]["reason"], "use the reader role");
}

#[tokio::test]
async fn nobody_uses_up_the_nonce_of_somebody_else() {
    let down = Down::new().await;
    let (alice, bob) = (down.key_of("alice").await, down.key_of("bob").await);
    let (carol, dave) = (down.key_of("carol").await, down.key_of("dave").await);
    let wants = down.wants();
    down.brought(&signed(wants.clone(), &alice)).await;
    let approval = down.approves("bob", &wants);
    // Whoever sees it on its way has something of theirs taken with the same nonce before.
    let Said::Request { subject, rules, ticket, reason } = down.wants().said else { panic!() };
    let said = Said::Request { subject, rules, ticket, reason };
    let first = Statement { nonce: approval.nonce, ..down.says("dave", said) };
    down.brought(&signed(first, &dave)).await;
    let other = Statement { nonce: approval.nonce, ..down.approves("carol", &wants) };
    down.brought(&signed(other, &carol)).await;
    let approved = down.brought(&signed(approval.clone(), &bob)).await;
    assert_eq!(approved["access"], "approved");
    // One's own is good once all the same.
    let again = Statement { said: down.uses(&wants).said, ..approval.clone() };
    let denial = Said::Denial { request: wants.hash().unwrap(), reason: "no".into() };
    let (status, _) =
        told(&down.brings(&signed(Statement { said: denial, ..approval }, &bob)).await);
    assert!(status >= 400);
    assert!(told(&down.brings(&signed(again, &bob)).await).0 >= 400);
}
