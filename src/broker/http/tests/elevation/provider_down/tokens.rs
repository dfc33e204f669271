//! Tokens for what somebody signed.

use super::*;
use crate::broker::http::tests::dpop::{Device, ask, nonce};

#[tokio::test]
async fn a_signature_yields_tokens_under_its_own_grant_alone() {
    let down = Down::new().await;
    let (alice, bob) = (down.key_of("alice").await, down.key_of("bob").await);
    let carol = down.key_of("carol").await;
    let wants = down.wants();
    // There is a grant by logins, which a signature is not for; nor is any role without one.
    let ordinary = down.place.requested("alice", &[]).await;
    down.place.done("bob", "approve", &ordinary, &[]).await;
    down.place.done("carol", "approve", &ordinary, &[]).await;
    down.place.done("alice", "activate", &ordinary, &[]).await;
    for changes in
        [&[][..], &[("elevation", ordinary["id"].as_str().unwrap())], &[("role", "deploy")]]
    {
        let (status, said) = told(&down.token(&signed(down.uses(&wants), &alice), changes).await);
        assert!(status == 400, "{said}");
    }
    down.place.done("alice", "relinquish", &ordinary, &[]).await;
    let bundle = [
        signed(wants.clone(), &alice),
        signed(down.approves("bob", &wants), &bob),
        signed(down.approves("carol", &wants), &carol),
        signed(down.uses(&wants), &alice),
    ];
    assert_eq!(down.brought(&bundle.concat()).await["access"], "active");
    // It is hers alone; for that role and audience; not what says something else.
    let bobs = Statement { person: "bob".into(), ..down.uses(&wants) };
    let (_, said) = told(&down.token(&signed(bobs, &bob), &[]).await);
    assert!(said.contains("you have none"), "{said}");
    for (text, changes) in [
        (signed(down.uses(&wants), &alice), &[("role", "deploy")][..]),
        (signed(down.uses(&wants), &alice), &[("audience", "https://other.example")]),
        (signed(wants.clone(), &alice), &[]),
        (signed(down.approves("bob", &wants), &bob), &[]),
        (signed(down.uses(&wants), &key()), &[]),
        (signed(down.uses(&wants), &alice).repeat(2), &[]),
        (down.place.token("alice"), &[]),
        (bundle[3].clone(), &[]),
    ] {
        let (status, said) = told(&down.token(&text, changes).await);
        assert!(status == 400, "{said}: {text}");
    }
    // As another kind of token, or as whoever acts for somebody, it is nothing.
    let text = signed(down.uses(&wants), &alice);
    let jwt = [("subject_token_type", TokenType::Jwt.urn())];
    assert_eq!(told(&down.token(&text, &jwt).await).0, 400);
    let acting = [("actor_token", &text[..]), ("actor_token_type", TokenType::Statement.urn())];
    assert_eq!(told(&down.place.issued("alice", &acting).await).0, 400);
    let token = down.place.token("bob");
    let acted = [("actor_token", &token[..]), ("actor_token_type", TokenType::Jwt.urn())];
    assert_eq!(told(&down.token(&text, &acted).await).0, 400);
    // Each is good once, for whoever is first; the same again soon is a lost answer.
    assert_eq!(down.token(&text, &[]).await.status, StatusCode::OK);
    down.place.later(120);
    let (_, said) = told(&down.token(&text, &[]).await);
    assert!(said.contains("used"), "{said}");
}

#[tokio::test]
async fn a_token_is_bound_to_the_key_that_was_signed_for_and_to_no_other() {
    let down = Down::new().await;
    let (alice, bob) = (down.key_of("alice").await, down.key_of("bob").await);
    let carol = down.key_of("carol").await;
    let (device, thief) = (Device::new(), Device::new());
    let wants = down.wants();
    let bundle = [
        signed(wants.clone(), &alice),
        signed(down.approves("bob", &wants), &bob),
        signed(down.approves("carol", &wants), &carol),
        signed(down.uses(&wants), &alice),
    ];
    down.brought(&bundle.concat()).await;
    let bound = |device: &Device| {
        let bound_to = Some(device.0.thumbprint().to_string());
        signed(down.says("alice", Said::Use { request: wants.hash().unwrap(), bound_to }), &alice)
    };
    let form =
        [("subject_token_type", TokenType::Statement.urn()), ("role", "admin"), ("audience", API)];
    let text = bound(&device);
    let nonce = nonce(&down.place.bed).await;
    for (text, proofs) in [
        (&text, vec![]),
        (&text, vec![thief.proof(Some(&nonce))]),
        (&signed(down.uses(&wants), &alice), vec![thief.proof(Some(&nonce))]),
    ] {
        let proofs: Vec<_> = proofs.iter().map(String::as_str).collect();
        let response = ask(&down.place.bed, text, &proofs, &form);
        let (status, said) = told(&response.await);
        assert!(status == 400 && said.contains("invalid_dpop_proof"), "{said}");
    }
    let proof = device.proof(Some(&nonce));
    let response = ask(&down.place.bed, &text, &[&proof], &form).await;
    let answer = json_of(&response);
    assert_eq!(response.status, StatusCode::OK, "{answer}");
    let claims = claims_of(answer["access_token"].as_str().unwrap());
    assert_eq!(claims["cnf"]["jkt"], device.0.thumbprint());
}
