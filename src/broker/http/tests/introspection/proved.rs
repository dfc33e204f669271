//! Who asks with a token that is bound to a key.

use axum::http::{HeaderMap, Method};

use super::*;
use crate::broker::http::tests::dpop::{Device, bound, rejected};
use crate::host::http::{Request, Response};
use crate::secret::Secret;

const HERE: (&str, &str) = ("POST", "https://broker.example.com/introspect");

async fn ask(bed: &Bed, shown: &str, proofs: &[&str], token: &str) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/x-www-form-urlencoded".parse().unwrap());
    headers.insert("authorization", format!("DPoP {shown}").parse().unwrap());
    for proof in proofs {
        headers.append("dpop", proof.parse().unwrap());
    }
    let body = Secret::new(format!("token={token}").into_bytes());
    let url = bed.url("/introspect");
    bed.client.send(Request { method: Method::POST, url, headers, body }).await.unwrap()
}

#[track_caller]
fn refused(answer: &Response, code: &str) {
    let said = json_of(answer);
    assert_eq!((answer.status, &said["error"]), (StatusCode::UNAUTHORIZED, &json!(code)), "{said}");
    let challenge = header_of(answer, "www-authenticate");
    assert!(challenge.contains(&format!("error=\"{code}\"")), "{challenge}");
    assert!(said.get("active").is_none(), "{said}");
}

#[tokio::test]
async fn a_resource_owner_with_a_bound_assertion_proves_the_key_for_each_request() {
    let bed = bed().await;
    let token = bed.issued(json!({}), &[]).await;
    let device = Device::new();
    let jkt = device.0.thumbprint();
    let api = bed.key.token(json!({"sub": "api", "cnf": {"jkt": jkt}}));
    // As a bearer token it proves nothing.
    assert_eq!(bed.introspect(Some(&api), &token).await.status, StatusCode::UNAUTHORIZED);
    refused(&ask(&bed, &api, &[], &token).await, "invalid_dpop_proof");
    let asked = ask(&bed, &api, &[&device.proof_with(HERE, &api, None)], &token).await;
    refused(&asked, "use_dpop_nonce");
    let nonce = header_of(&asked, "dpop-nonce");
    let with = |place, shown: &str| device.proof_with(place, shown, Some(&nonce));
    let proof = with(HERE, &api);
    let told = ask(&bed, &api, &[&proof], &token).await;
    assert_eq!((told.status, &json_of(&told)["active"]), (StatusCode::OK, &json!(true)));
    refused(&ask(&bed, &api, &[&proof], &token).await, "invalid_dpop_proof");
    for wrong in [
        with(("GET", HERE.1), &api),
        with(("POST", "https://broker.example.com/v1/keys"), &api),
        with(("POST", "https://broker.example.com/token"), &api),
        with(HERE, "another"),
        "x".into(),
    ] {
        refused(&ask(&bed, &api, &[&wrong], &token).await, "invalid_dpop_proof");
    }
    let (one, two) = (with(HERE, &api), with(HERE, &api));
    refused(&ask(&bed, &api, &[&one, &two], &token).await, "invalid_dpop_proof");
    let other = Device::new().proof_with(HERE, &api, Some(&nonce));
    refused(&ask(&bed, &api, &[&other], &token).await, "invalid_token");
    // One that is not bound is not shown as if it was.
    let plain = bed.key.token(json!({"sub": "api"}));
    refused(&ask(&bed, &plain, &[&with(HERE, &plain)], &token).await, "invalid_token");
    assert_ne!(rejected(&bed, "replayed").await, "0");
}

#[tokio::test]
async fn a_bound_token_that_asks_about_itself_with_a_proof_has_to_have_the_right_one() {
    let bed = bed().await;
    let device = Device::new();
    let token = bound(&bed, &device, &[]).await;
    // Those to whom it was shown have no key, and may look whether it was revoked.
    assert_eq!(told(&bed, &token, &token).await["active"], true);
    let nonce = header_of(
        &ask(&bed, &token, &[&device.proof_with(HERE, &token, None)], &token).await,
        "dpop-nonce",
    );
    let proof = device.proof_with(HERE, &token, Some(&nonce));
    let answer = ask(&bed, &token, &[&proof], &token).await;
    assert_eq!(json_of(&answer)["cnf"]["jkt"], device.0.thumbprint());
    refused(&ask(&bed, &token, &[&proof], &token).await, "invalid_dpop_proof");
    let other = Device::new().proof_with(HERE, &token, Some(&nonce));
    refused(&ask(&bed, &token, &[&other], &token).await, "invalid_dpop_proof");
    assert_ne!(rejected(&bed, "key").await, "0");
    // With all the proof there is, a token of the broker's is none of who asks about others.
    let another = bed.issued(json!({}), &[]).await;
    let proof = device.proof_with(HERE, &token, Some(&nonce));
    refused(&ask(&bed, &token, &[&proof], &another).await, "invalid_token");
}

#[tokio::test]
async fn an_assertion_that_is_good_once_may_ask_until_it_is_used_and_each_proof_once() {
    let bed = Bed::with(|options| {
        let corp = options.config.trusted_issuer.get_mut("corp").unwrap();
        corp.assertions = crate::broker::config::Assertions::Once;
        options.policies += r#"
@id("introspects")
permit (principal, action == Action::"introspect", resource) when { principal.subject == "api" };
"#;
    })
    .await;
    let token = bed.issued(json!({}), &[]).await;
    let device = Device::new();
    let api = bed.key.token(json!({"sub": "api", "cnf": {"jkt": device.0.thumbprint()}}));
    let first = ask(&bed, &api, &[&device.proof_with(HERE, &api, None)], &token).await;
    let nonce = header_of(&first, "dpop-nonce");
    for _ in 0..2 {
        let proof = device.proof_with(HERE, &api, Some(&nonce));
        assert_eq!(json_of(&ask(&bed, &api, &[&proof], &token).await)["active"], true);
    }
    // What was used may be in a log that anybody reads.
    let used = bed.key.token(json!({"sub": "api"}));
    assert_eq!(json_of(&bed.introspect(Some(&used), &token).await)["active"], true);
    assert_eq!(bed.exchange(&used, &[]).await.status, StatusCode::OK);
    let answer = bed.introspect(Some(&used), &token).await;
    let said = json_of(&answer);
    assert_eq!(
        (answer.status, &said["error"]),
        (StatusCode::UNAUTHORIZED, &json!("invalid_token"))
    );
    assert!(said["error_description"].as_str().unwrap().contains("may be used once"), "{said}");
}
