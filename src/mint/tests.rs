//! Token exchange with a broker that does not play by the rules.

mod dpop;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::broker::{Broker, Server};
use super::{Exchange, Request, Target};
use crate::credential::{Assertion, Credential, Principal, TokenType};
use crate::error::{Error, ErrorKind, Result};
use crate::host::clock::{Clock, SystemClock};
use crate::host::test_server::{self, Reply, TestServer, run};
use crate::oidc::Issuer;
use crate::reach::Effort;
use crate::secret::Secret;

fn assertion() -> Assertion {
    Assertion {
        token: Secret::new("canary-assertion".into()),
        token_type: TokenType::IdToken,
        principal: Principal { issuer: "https://i.example".into(), subject: "alice".into() },
        expires_at: SystemClock.now(),
        grant_ends: None,
    }
}

fn request() -> Request {
    Request {
        role: "deploy".into(),
        scope: vec!["read".into(), "write".into()],
        audience: "https://api.example".into(),
        ttl: Some(Duration::from_secs(900)),
        elevation: None,
    }
}

fn grant(twist: &Value) -> Reply {
    let mut answer = json!({
        "access_token": "canary-token",
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "token_type": "bearer", "expires_in": 900, "scope": "read",
        "role": "deploy", "subject": "https://i.example#alice",
    });
    for (name, value) in twist.as_object().unwrap() {
        answer[name] = value.clone();
    }
    Reply::json(200, &answer)
}

fn server(reply: Reply) -> TestServer {
    TestServer::start(move |_, _| reply.clone())
}

fn at(server: &TestServer) -> Server {
    Issuer::parse(&server.origin).unwrap().into()
}

fn mint_ahead(server: &TestServer, request: &Request, ahead: time::Duration) -> Result<Credential> {
    let dir = tempfile::tempdir().unwrap();
    let host = test_server::host(dir.path(), ahead);
    run(Broker::new(at(server)).mint(&host, &assertion(), request))
}

fn mint(reply: Reply) -> Result<Credential> {
    mint_ahead(&server(reply), &request(), time::Duration::ZERO)
}

fn refused(reply: Reply) -> Error {
    let error = mint(reply).unwrap_err();
    assert!(error.message().contains("gives no credential for the role 'deploy'"), "{error}");
    assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    error
}

#[test]
fn one_request_mints() {
    let server = server(grant(&json!({})));
    let credential = mint_ahead(&server, &request(), time::Duration::ZERO).unwrap();
    assert_eq!(credential.material.secret().expose(), "canary-token");
    assert_eq!(
        (credential.role.as_str(), credential.scope.as_slice()),
        ("deploy", &["read".into()][..])
    );
    assert_eq!(credential.principal, assertion().principal);
    assert_eq!(credential.lifetime.ttl(), time::Duration::minutes(15));
    let [request] = &server.arrived()[..] else { panic!("one request") };
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/token"));
    assert_eq!(request.headers["tmpcred-protocol"], "1");
    let mut form: Vec<_> = request.form.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let key = form.iter().position(|(name, _)| *name == "idempotency_key").unwrap();
    assert!(uuid::Uuid::parse_str(form.remove(key).1).is_ok());
    assert_eq!(
        form,
        [
            ("audience", "https://api.example"),
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("requested_ttl", "900"),
            ("role", "deploy"),
            ("scope", "read write"),
            ("subject_token", "canary-assertion"),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:id_token"),
        ]
    );
}

#[test]
fn revoking_takes_the_token_alone_and_failing_is_told() {
    for (reply, outcome) in [
        (Reply::text(200, ""), Ok(())),
        (Reply::json(400, &json!({"error": "canary-echo"})), Err(ErrorKind::Denied)),
        (Reply::json(503, &json!({})), Err(ErrorKind::Unreachable)),
        (Reply::text(302, "").header("location", "/x".into()), Err(ErrorKind::Verification)),
        (Reply::gone(), Err(ErrorKind::Unreachable)),
    ] {
        let server = TestServer::start(move |request, _| match request.path.as_str() {
            "/token" => grant(&json!({})),
            _ => reply.clone(),
        });
        let credential = mint_ahead(&server, &request(), time::Duration::ZERO).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let host = test_server::host(dir.path(), time::Duration::ZERO);
        let broker = Broker::new(at(&server));
        let revoked = run(broker.revocation().unwrap().revoke(&host, &credential));
        let error = revoked.as_ref().err().map(|error| format!("{error:?}")).unwrap_or_default();
        assert!(!error.contains("canary"), "{error}");
        assert_eq!(revoked.map_err(|error| error.kind()), outcome);
        let [request] = &server.at("/revoke")[..] else { panic!("one request") };
        assert_eq!((request.method.as_str(), &request.form["token"][..]), ("POST", "canary-token"));
        assert_eq!(request.form["token_type_hint"], "access_token");
    }
}

#[test]
fn what_is_left_to_the_broker_is_not_asked_for() {
    let server = server(grant(&json!({"expires_in": 60, "scope": "read other"})));
    let request = Request { scope: Vec::new(), ttl: None, ..request() };
    let credential = mint_ahead(&server, &request, time::Duration::ZERO).unwrap();
    assert_eq!(credential.scope, ["read", "other"]);
    assert_eq!(credential.lifetime.ttl(), time::Duration::MINUTE);
    let form = &server.arrived()[0].form;
    assert!(!form.contains_key("scope") && !form.contains_key("requested_ttl"));
}

/// RFC 6749 section 5.1.
#[test]
fn a_scope_that_is_not_told_is_the_one_that_was_asked_for() {
    for (asked, told, has) in [
        (&["read", "write"][..], json!({"scope": null}), &["read", "write"][..]),
        (&[], json!({"scope": null}), &[]),
        (&["read"], json!({"scope": ""}), &[]),
    ] {
        let server = server(grant(&told));
        let scope = asked.iter().map(|scope| scope.to_string()).collect();
        let request = Request { scope, ..request() };
        let credential = mint_ahead(&server, &request, time::Duration::ZERO).unwrap();
        assert_eq!(credential.scope, has, "{asked:?} {told}");
    }
}

#[test]
fn a_clock_ten_minutes_off_shortens_no_credential() {
    for minutes in [-10, 10] {
        let ahead = time::Duration::minutes(minutes);
        let server = server(grant(&json!({})));
        let credential = mint_ahead(&server, &request(), ahead).unwrap();
        let local = SystemClock.now() + ahead;
        let left = credential.lifetime.remaining(local);
        assert!(left > time::Duration::minutes(14), "{left}");
        assert!((credential.lifetime.skew_seconds + minutes * 60).abs() <= 10);
        assert!((credential.lifetime.expires_at - SystemClock.now()) > time::Duration::minutes(14));
    }
}

#[test]
fn answers_that_are_not_what_was_asked_for_are_refused() {
    for (twist, says) in [
        (json!({"expires_in": null}), "does not say when the credential ends"),
        (json!({"expires_in": 0}), "it ends in 0 seconds"),
        (json!({"expires_in": 901}), "it lasts for 901 seconds instead of 900"),
        (json!({"expires_in": -1}), "of the wrong type"),
        (json!({"expires_in": "900"}), "of the wrong type"),
        (json!({"token_type": "DPoP"}), "a 'DPoP' token"),
        (json!({"token_type": null}), "of the wrong type"),
        (json!({"issued_token_type": "urn:x"}), "of the type 'urn:x'"),
        (json!({"role": "admin"}), "for the role 'admin'"),
        (json!({"role": "Deploy"}), "for the role 'Deploy'"),
        (json!({"scope": "read delete"}), "the scope 'delete' besides"),
        (json!({"access_token": ""}), "the token is empty"),
        (json!({"access_token": "canary\r\nx: y"}), "characters that no token has"),
        (json!({"access_token": null}), "of the wrong type"),
    ] {
        let error = refused(grant(&twist));
        assert_eq!(error.kind(), ErrorKind::Verification, "{error}");
        assert!(error.to_string().contains(says), "{says}: {error}");
    }
    let never = Request { ttl: None, ..request() };
    let error =
        mint_ahead(&server(grant(&json!({"expires_in": u64::MAX}))), &never, time::Duration::ZERO);
    assert!(error.unwrap_err().to_string().contains("it ends in 18446744073709551615 seconds"));
}

#[test]
fn a_token_that_was_asked_for_under_a_grant_has_to_be_under_that_one() {
    let id = uuid::Uuid::new_v4();
    let under = Request { elevation: Some(id), ..request() };
    let told = |twist: Value| mint_ahead(&server(grant(&twist)), &under, time::Duration::ZERO);
    let token = |claims: &Value| {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.c2ln", part(&json!({"alg": "ES256", "typ": "at+jwt"})), part(claims))
    };
    let own = token(&json!({"elevation": {"id": id.to_string()}}));
    told(json!({"access_token": own})).unwrap();
    // What says nothing has its end told beside it.
    told(json!({"elevation_expires_in": 900})).unwrap();
    let other = token(&json!({"elevation": {"id": uuid::Uuid::new_v4().to_string()}}));
    let none = token(&json!({"sub": "alice"}));
    for (twist, says) in [
        (json!({"access_token": other}), "it is under another grant"),
        (json!({"access_token": none}), "it is under no grant"),
        (json!({"access_token": none, "elevation_expires_in": 900}), "it is under no grant"),
        (json!({}), "it is under no grant"),
    ] {
        let error = told(twist).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Verification, "{error}");
        assert!(error.to_string().contains(says), "{says}: {error}");
    }
}

#[test]
fn refusals_have_the_brokers_words_and_the_id_of_the_request() {
    for (code, kind) in [
        ("access_denied", ErrorKind::Denied),
        ("elevation_required", ErrorKind::Denied),
        ("elevation_pending", ErrorKind::ApprovalPending),
        ("unauthorized_client", ErrorKind::Denied),
        ("invalid_scope", ErrorKind::Denied),
        ("invalid_target", ErrorKind::Denied),
        ("invalid_grant", ErrorKind::Verification),
        ("invalid_request", ErrorKind::Verification),
        ("unsupported_grant_type", ErrorKind::Verification),
        ("temporarily_unavailable", ErrorKind::Unreachable),
        ("something_new", ErrorKind::Other),
    ] {
        let body =
            json!({"error": code, "error_description": "no \u{1b}[2Jpolicy", "request_id": "r-1"});
        let error = refused(Reply::json(400, &body));
        assert_eq!(error.kind(), kind, "{code}");
        let causes = error.causes();
        assert_eq!(causes[causes.len() - 2..], ["no \u{fffd}[2Jpolicy", "the request is r-1"]);
    }
    let error = refused(Reply::json(400, &json!({"error": "invalid_grant"})));
    assert_eq!(error.causes(), ["the broker does not accept the assertion"]);
    assert!(error.hints()[0].contains("https://i.example"), "{:?}", error.hints());
    // Trust is spoken of only where it is the assertion that was refused.
    for (says, what, hints) in [
        ("the token is not acceptable: it has no expiry", "the assertion", 1),
        ("the parameter 'audience' is missing", "the request", 0),
    ] {
        let body = json!({"error": "invalid_request", "error_description": says});
        let error = refused(Reply::json(400, &body));
        let causes = [format!("the broker does not accept {what}"), says.to_string()];
        assert_eq!((error.causes(), error.hints().len()), (&causes[..], hints));
    }
}

#[test]
fn who_has_no_grant_is_told_how_to_ask_for_one_or_to_wait_for_it() {
    let body = json!({"error": "elevation_required", "error_description": "you have none"});
    let error = refused(Reply::json(400, &body));
    assert_eq!(error.kind(), ErrorKind::Denied);
    let [hint] = error.hints() else { panic!("{error:?}") };
    for says in ["tmpcred elevate request deploy --reason", "tmpcred exec --elevate deploy"] {
        assert!(hint.contains(says), "{hint}");
    }
    let body = json!({"error": "elevation_pending", "elevation": "018f6a0e"});
    let error = refused(Reply::json(400, &body));
    assert_eq!(error.kind(), ErrorKind::ApprovalPending);
    assert_eq!(
        error.hints(),
        ["`tmpcred elevate status 018f6a0e --wait` waits for it, and begins"]
    );
}

#[test]
fn who_is_denied_for_a_while_hears_for_how_long() {
    let why = "all such tokens that are issued before 2026-01-01T00:10:00Z were revoked";
    let body = json!({"error": "access_denied", "error_description": why});
    let error = refused(Reply::json(400, &body).header("retry-after", "600".into()));
    assert_eq!(error.kind(), ErrorKind::Denied);
    let told = error.to_string();
    assert!(told.contains(why) && told.contains("it is denied"), "{told}");
    assert!(!told.contains("policy says no"), "{told}");
    assert_eq!(
        error.hints(),
        [
            "it asks to be tried again in 600 seconds",
            "ask those who write the broker's policy, and name the request",
        ]
    );
}

#[test]
fn outages_tell_when_to_ask_again() {
    let body = json!({"error": "temporarily_unavailable", "error_description": "the log is full"});
    for status in [503, 429, 500] {
        let error = refused(Reply::json(status, &body).header("retry-after", "5".into()));
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        assert!(error.to_string().contains("the log is full"), "{error}");
        assert_eq!(error.hints(), ["it asks to be tried again in 5 seconds"]);
    }
    assert_eq!(refused(Reply::text(502, "<html>canary")).kind(), ErrorKind::Unreachable);
    assert_eq!(refused(Reply::gone()).kind(), ErrorKind::Unreachable);
}

#[test]
fn what_is_no_broker_is_explained() {
    for (reply, says) in [
        (Reply::text(200, "<html>canary"), "looks like a web page"),
        (Reply::text(404, "<html>canary"), "the status is 404"),
        (Reply::text(403, ""), "the status is 403"),
        (Reply::text(200, "{\"canary\""), "it is not JSON"),
        (Reply::text(200, "\"text\""), "cannot be understood"),
        (Reply::text(200, &"x".repeat(50_000_000)), "too large"),
        (Reply::text(307, "").header("location", "/".into()), "redirect"),
        (grant(&json!({})).header("tmpcred-protocol", "2".into()), "it speaks version '2'"),
    ] {
        let error = refused(reply);
        assert_eq!(error.kind(), ErrorKind::Verification, "{error}");
        assert!(error.to_string().contains(says), "{says}: {error}");
    }
}

#[test]
fn an_exchange_yields_the_next_assertion() {
    let server = server(grant(&json!({
        "issued_token_type": "urn:ietf:params:oauth:token-type:jwt", "scope": "",
    })));
    let step = Exchange {
        server: at(&server),
        role: "deploy".into(),
        scope: Vec::new(),
        audience: "https://next.example".into(),
        elevation: None,
    };
    let dir = tempfile::tempdir().unwrap();
    let host = test_server::host(dir.path(), time::Duration::ZERO);
    let next = run(step.perform(&host, &assertion(), None, Effort::MINT)).unwrap();
    assert_eq!(next.token.expose(), "canary-token");
    assert_eq!(next.token_type, TokenType::Jwt);
    assert_eq!(next.principal, assertion().principal);
    assert!(next.expires_at > SystemClock.now());
    assert_eq!(server.arrived()[0].form["audience"], "https://next.example");
}

#[test]
fn access_keys_are_sent_to_no_broker_whatever_was_planned() {
    let server = server(grant(&json!({})));
    let dir = tempfile::tempdir().unwrap();
    let host = test_server::host(dir.path(), time::Duration::ZERO);
    let keys = Assertion { token_type: TokenType::AwsAccessKeys, ..assertion() };
    let error = run(Broker::new(at(&server)).mint(&host, &keys, &request())).unwrap_err();
    assert!(error.to_string().contains("no token to show"), "{error}");
    assert!(server.arrived().is_empty());
}

#[test]
fn a_missing_file_of_authorities_is_said() {
    let server = server(grant(&json!({})));
    let dir = tempfile::tempdir().unwrap();
    let host = test_server::host(dir.path(), time::Duration::ZERO);
    let server = Server { ca_file: Some(dir.path().join("missing.pem")), ..at(&server) };
    let error = run(Broker::new(server).mint(&host, &assertion(), &request())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("missing.pem"), "{error}");
}
