//! Tokens that are bound to the key of this device, and brokers that do not bind them.

use std::sync::Arc;

use super::*;
use crate::dpop::{DeviceKey, Expected, Proof, Shown, Target as Address, verify};
use crate::host::Host;
use crate::host::test_server::Arrived;

fn key() -> Arc<DeviceKey> {
    Arc::new(DeviceKey::from_pkcs8(&DeviceKey::generate().unwrap()).unwrap())
}

fn mint_bound(host: &Host, server: &TestServer, key: &Arc<DeviceKey>) -> Result<Credential> {
    let mut target = Broker::new(Server { dpop: true, ..at(server) });
    target.with_key(key.clone());
    run(target.mint(host, &assertion(), &request()))
}

/// The proof of a request, which has to be good for where it arrived.
fn proof(server: &TestServer, arrived: &Arrived) -> Proof {
    let targets = [Address::of(&server.url("/token")).unwrap()];
    let shown = Shown::Within("canary-assertion");
    let now = SystemClock.now();
    let expected = Expected { method: "POST", targets: &targets, shown, now };
    verify(arrived.headers["dpop"].to_str().unwrap(), &expected).unwrap()
}

fn wants_nonce(nonce: &str) -> Reply {
    Reply::json(400, &json!({ "error": "use_dpop_nonce" })).header("dpop-nonce", nonce.into())
}

fn bound() -> Reply {
    grant(&json!({ "token_type": "DPoP" }))
}

#[test]
fn a_nonce_that_is_asked_for_is_sent_in_a_second_request_and_kept_for_the_next_run() {
    let server = TestServer::start(|request, _| {
        let proof = request.headers["dpop"].to_str().unwrap();
        let claims = crate::oidc::jwt::decode_unverified(proof).unwrap().claims;
        match claims.get("nonce").and_then(Value::as_str) {
            Some("first") => bound().header("dpop-nonce", "second".into()),
            Some("second") => bound(),
            _ => wants_nonce("first"),
        }
    });
    let (dir, key) = (tempfile::tempdir().unwrap(), key());
    let host = test_server::host(dir.path(), time::Duration::ZERO);
    let credential = mint_bound(&host, &server, &key).unwrap();
    assert_eq!(credential.material.key(), Some(key.thumbprint()));
    mint_bound(&host, &server, &key).unwrap();
    let proofs: Vec<Proof> =
        server.arrived().iter().map(|arrived| proof(&server, arrived)).collect();
    let nonces: Vec<_> = proofs.iter().map(|proof| proof.nonce.as_deref()).collect();
    assert_eq!(nonces, [None, Some("first"), Some("second")]);
    assert!(proofs.iter().all(|proof| proof.thumbprint == key.thumbprint()));
    assert_ne!(proofs[0].id, proofs[1].id, "each request has a proof of its own");
}

#[test]
fn a_server_that_is_never_content_is_asked_twice_and_no_more() {
    let server = server(wants_nonce("another"));
    let dir = tempfile::tempdir().unwrap();
    let host = test_server::host(dir.path(), time::Duration::ZERO);
    let error = mint_bound(&host, &server, &key()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Verification);
    assert_eq!(server.arrived().len(), 2);
    // What is no nonce is neither sent nor kept.
    let server = self::server(wants_nonce("a \"b\""));
    assert!(mint_bound(&host, &server, &key()).is_err());
    assert_eq!(server.arrived().len(), 1);
}

#[test]
fn a_clock_that_turns_out_to_be_off_is_corrected_before_it_is_given_up() {
    // It looks at the time before it looks at the nonce, as brokers do.
    let server = TestServer::start(|request, _| {
        let proof = request.headers["dpop"].to_str().unwrap();
        let claims = crate::oidc::jwt::decode_unverified(proof).unwrap().claims;
        let off = SystemClock.now().unix_timestamp() - claims["iat"].as_i64().unwrap();
        match (off.abs() > 60, claims.get("nonce")) {
            (true, _) => Reply::json(400, &json!({ "error": "invalid_dpop_proof" })),
            (false, None) => wants_nonce("first"),
            (false, Some(_)) => bound(),
        }
    });
    for (ahead, requests) in [(0, 2), (10, 3), (-10, 3)] {
        let dir = tempfile::tempdir().unwrap();
        let host = test_server::host(dir.path(), time::Duration::minutes(ahead));
        let before = server.arrived().len();
        mint_bound(&host, &server, &key()).unwrap();
        assert_eq!(server.arrived().len() - before, requests, "{ahead}");
    }
    // One that refuses for another reason is not asked for ever.
    let server = self::server(Reply::json(400, &json!({ "error": "invalid_dpop_proof" })));
    let dir = tempfile::tempdir().unwrap();
    let host = test_server::host(dir.path(), time::Duration::minutes(10));
    let error = mint_bound(&host, &server, &key()).unwrap_err();
    assert!(error.hints().iter().all(|hint| !hint.contains("dpop = true")), "{error:?}");
    assert_eq!(server.arrived().len(), 2);
}

#[test]
fn a_token_that_is_not_bound_to_this_key_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let host = test_server::host(dir.path(), time::Duration::ZERO);
    let jwt = |cnf: Value| {
        use base64::Engine as _;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.AAAA", part(&json!({ "alg": "ES256" })), part(&cnf))
    };
    let key = key();
    let of_another = jwt(json!({ "cnf": { "jkt": self::key().thumbprint() } }));
    for (twist, says) in [
        (json!({ "token_type": "Bearer" }), "a 'Bearer' token, not a 'DPoP' token"),
        (json!({ "token_type": "DPoP", "access_token": of_another }), "not bound to the key"),
        (json!({ "token_type": "DPoP", "access_token": jwt(json!({})) }), "not bound to the key"),
    ] {
        let error = mint_bound(&host, &server(grant(&twist)), &key).unwrap_err();
        assert!(format!("{error} {:?}", error.causes()).contains(says), "{error:?}");
    }
    let own = jwt(json!({ "cnf": { "jkt": key.thumbprint() } }));
    let good = grant(&json!({ "token_type": "DPoP", "access_token": own }));
    mint_bound(&host, &server(good), &key).unwrap();
}

#[test]
fn a_broker_whose_tokens_are_not_to_be_bound_gets_no_proof() {
    let server = server(grant(&json!({})));
    let dir = tempfile::tempdir().unwrap();
    let host = test_server::host(dir.path(), time::Duration::ZERO);
    let mut target = Broker::new(at(&server));
    target.with_key(key());
    let credential = run(target.mint(&host, &assertion(), &request())).unwrap();
    assert_eq!(credential.material.key(), None);
    assert!(!server.arrived()[0].headers.contains_key("dpop"));
}

#[test]
fn what_a_role_wants_is_said_to_whoever_can_change_it() {
    let refusal = json!({ "error": "invalid_dpop_proof", "error_description": "the role" });
    let error = refused(Reply::json(400, &refusal));
    assert_eq!(error.kind(), ErrorKind::Verification);
    assert!(error.hints().iter().any(|hint| hint.contains("dpop = true")), "{error:?}");
}
