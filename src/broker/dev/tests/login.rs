//! Codes, tokens, and what they are good for.

use super::*;
use reqwest::StatusCode;

#[tokio::test]
async fn an_approved_login_leads_all_the_way_to_a_credential() {
    let dev = Dev::start(true);
    let answer = dev.get(dev.authorize(&[])).await;
    assert_eq!(answer.status, StatusCode::FOUND);
    assert!(answer.header("location").starts_with(REDIRECT));
    assert_eq!(answer.parameter("state").as_deref(), Some("s t&a"));
    assert_eq!(answer.parameter("iss").unwrap(), dev.running.provider_issuer().as_str());

    let tokens = dev.redeem(&answer.parameter("code").unwrap(), &[]).await;
    assert_eq!(tokens.header("cache-control"), "no-store");
    let tokens = tokens.json();
    let id = tokens["id_token"].as_str().unwrap();
    let access = tokens["access_token"].as_str().unwrap();
    let claims = dev.verify(id, dev.running.client_id(), Some("n")).await;
    assert_eq!(claims.principal.subject, "tester");
    crate::oidc::id_token::check(id, &claims, dev.running.client_id(), Some(access)).unwrap();
    let claims = dev.verify(access, dev.running.issuer().as_str(), None).await;
    assert_eq!(claims.audience.len(), 1);
    assert_eq!(jwt::decode_unverified(access).unwrap().header["typ"], "at+jwt");

    let credential = dev.exchange(access, ROLE).await;
    assert_eq!(credential.status, StatusCode::OK, "{}", credential.text);
    let grant = credential.json();
    assert_eq!(grant["scope"], "dev:read dev:write");
    assert_eq!(claims_of(grant["access_token"].as_str().unwrap())["aud"], AUDIENCE);
    // The ID token is for the client, not for the broker.
    assert_eq!(dev.exchange(id, ROLE).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn without_proof_of_the_verifier_there_is_no_token() {
    let dev = Dev::start(true);
    for changes in [
        &[("code_challenge", "")][..],
        &[("code_challenge_method", "")],
        &[("code_challenge_method", "plain")],
        &[("code_challenge", "short")],
    ] {
        let answer = dev.get(dev.authorize(changes)).await;
        assert_eq!(answer.parameter("error").as_deref(), Some("invalid_request"), "{changes:?}");
        assert_eq!(answer.parameter("code"), None);
    }
    let wrong = URL_SAFE_NO_PAD.encode([7; 32]);
    for changes in [
        &[("code_verifier", "")][..],
        &[("code_verifier", wrong.as_str())],
        &[("code_verifier", CHALLENGE)],
        &[("redirect_uri", "http://127.0.0.1:9/other")],
        &[("client_id", "other")],
    ] {
        let code = dev.code().await;
        let answer = dev.redeem(&code, changes).await;
        assert!(answer.status.is_client_error(), "{changes:?}: {}", answer.text);
        assert!(answer.json().get("access_token").is_none());
    }
}

#[tokio::test]
async fn a_code_used_twice_ends_what_came_of_it() {
    let dev = Dev::start(true);
    let code = dev.code().await;
    let refresh =
        dev.redeem(&code, &[]).await.json()["refresh_token"].as_str().unwrap().to_string();
    assert_eq!(dev.redeem(&code, &[]).await.json()["error"], "invalid_grant");
    assert_eq!(dev.refresh(&refresh).await.json()["error"], "invalid_grant");
}

#[tokio::test]
async fn refresh_tokens_rotate_and_reuse_ends_the_family() {
    let dev = Dev::start(true);
    let first = dev.redeem(&dev.code().await, &[]).await.json();
    let first = first["refresh_token"].as_str().unwrap();
    let answer = dev.refresh(first).await.json();
    let second = answer["refresh_token"].as_str().unwrap();
    assert_ne!(first, second);
    let id = claims_of(answer["id_token"].as_str().unwrap());
    assert!(id.get("nonce").is_none() && id["auth_time"].is_i64());
    assert_eq!(
        claims_of(answer["access_token"].as_str().unwrap())["aud"],
        dev.running.issuer().as_str()
    );
    assert_eq!(dev.refresh(first).await.json()["error"], "invalid_grant");
    assert_eq!(dev.refresh(second).await.json()["error"], "invalid_grant", "the family is dead");
}

#[tokio::test]
async fn a_revoked_login_is_over() {
    let dev = Dev::start(true);
    let tokens = dev.redeem(&dev.code().await, &[]).await.json();
    let refresh = tokens["refresh_token"].as_str().unwrap();
    assert_eq!(dev.post("revoke", &[("token", "unknown")]).await.status, StatusCode::OK);
    assert_eq!(dev.post("revoke", &[("token", refresh)]).await.status, StatusCode::OK);
    assert_eq!(dev.refresh(refresh).await.json()["error"], "invalid_grant");
    assert_eq!(dev.post("revoke", &[]).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn what_was_not_asked_for_is_not_given() {
    let dev = Dev::start(true);
    let plain = dev.authorize(&[("scope", "openid email admin")]);
    let code = dev.get(plain).await.parameter("code").unwrap();
    let tokens = dev.redeem(&code, &[]).await.json();
    assert!(tokens.get("refresh_token").is_none());
    assert_eq!(tokens["scope"], "openid");
    // Without a resource the token is for the provider only, and no good at the broker.
    let code = dev.get(dev.authorize(&[("resource", "")])).await.parameter("code").unwrap();
    let tokens = dev.redeem(&code, &[]).await.json();
    let access = tokens["access_token"].as_str().unwrap();
    assert_eq!(claims_of(access)["aud"], dev.running.provider_issuer().as_str());
    assert_eq!(dev.exchange(access, ROLE).await.json()["error"], "invalid_request");
    let broker = dev.running.issuer().as_str();
    let code = dev.get(dev.authorize(&[("resource", "")])).await.parameter("code").unwrap();
    assert_eq!(dev.redeem(&code, &[("resource", broker)]).await.json()["error"], "invalid_target");
    let other = dev.get(dev.authorize(&[("resource", "https://other.example")])).await;
    assert_eq!(other.parameter("error").as_deref(), Some("invalid_target"));
}

#[tokio::test]
async fn nothing_is_sent_to_whoever_may_not_be_the_client() {
    let dev = Dev::start(true);
    for changes in [
        &[("client_id", "other")][..],
        &[("client_id", "")],
        &[("client_id", "tmpcred-dev")],
        &[("redirect_uri", "")],
        &[("redirect_uri", "https://evil.example/cb")],
        &[("redirect_uri", "http://127.0.0.1.evil.example/cb")],
    ] {
        let answer = dev.get(dev.authorize(changes)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{changes:?}");
        assert!(answer.headers.get("location").is_none());
    }
    let mut twice = dev.authorize(&[]);
    twice.query_pairs_mut().append_pair("state", "other");
    assert_eq!(dev.get(twice).await.status, StatusCode::BAD_REQUEST);
    for (changes, error) in [
        (&[("response_type", "token")][..], "unsupported_response_type"),
        (&[("response_type", "")], "invalid_request"),
        (&[("response_mode", "form_post")], "invalid_request"),
        (&[("request", "x")], "request_not_supported"),
        (&[("request_uri", "x")], "request_uri_not_supported"),
    ] {
        let answer = dev.get(dev.authorize(changes)).await;
        assert_eq!(answer.parameter("error").as_deref(), Some(error));
        assert_eq!(answer.parameter("iss").unwrap(), dev.running.provider_issuer().as_str());
    }
}
