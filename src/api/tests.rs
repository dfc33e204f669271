//! A broker's API that does not play by the rules, and one that does.

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::datetime;

use super::operate::{Keys, Query, Records, Revoke, Revoked};
use super::*;
use crate::credential::Principal;
use crate::dpop::{Expected, Shown, Target, verify};
use crate::host::clock::{Clock, SystemClock};
use crate::host::http::MAX_BODY;
use crate::host::test_server::{self, Arrived, Reply, TestServer, run};
use crate::wire::NO_SUCH_ADDRESS;

fn assertion(token: &str) -> Assertion {
    Assertion {
        token: Secret::new(token.into()),
        token_type: TokenType::AccessToken,
        principal: Principal { issuer: "https://i.example".into(), subject: "alice".into() },
        expires_at: SystemClock.now() + time::Duration::HOUR,
        grant_ends: None,
    }
}

fn at(origins: &[&str]) -> Server {
    serde_json::from_value(json!({ "url": origins, "issuer": "https://broker.example.com" }))
        .unwrap()
}

/// What comes of a request to a server that answers like this, and the requests that it got.
fn asked<T>(
    reply: Reply,
    ask: impl AsyncFn(&Client<'_>) -> Result<T, Failure>,
) -> (Result<T, Failure>, Vec<Arrived>) {
    let server = TestServer::start(move |_, _| reply.clone());
    let dir = tempfile::tempdir().unwrap();
    let host = test_server::host(dir.path(), time::Duration::ZERO);
    let broker = at(&[&server.origin]);
    let client = Client::new(&host, &broker, assertion("canary-assertion"));
    (run(ask(&client)), server.arrived())
}

fn keys(reply: Reply) -> Result<Keys, Failure> {
    asked(reply, async |client| client.get("v1/keys", &()).await).0
}

fn failed(reply: Reply) -> Error {
    let error = Error::from(keys(reply).map(|_| ()).unwrap_err());
    assert!(error.message().contains("the broker https://broker.example.com"), "{error}");
    assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    error
}

#[test]
fn what_is_asked_for_is_asked_with_the_token_and_read() {
    let moment = "2026-01-01T12:00:00.123456789Z";
    let key = json!({
        "kid": "k", "purpose": "access-token", "log_key": null, "algorithm": "ES256",
        "state": "active", "shown": true, "created_at": moment, "changed_at": moment,
        "signs_from": null, "shown_until": moment, "something_new": 1,
    });
    let reply = Reply::json(200, &json!({ "keys": [key] }));
    let (keys, arrived) = asked(reply, async |client| client.get("v1/keys", &()).await);
    let keys: Keys = keys.map_err(Error::from).unwrap();
    let at: OffsetDateTime = datetime!(2026-01-01 12:00:00.123456789 UTC);
    assert_eq!((keys.keys[0].kid.as_str(), keys.keys[0].shown_until), ("k", Some(at)));
    let [request] = &arrived[..] else { panic!("one request") };
    assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/v1/keys"));
    assert_eq!(request.headers["authorization"], "Bearer canary-assertion");
    assert_eq!(request.headers["tmpcred-protocol"], "1");
    assert!(!request.headers.contains_key("dpop"));
}

#[test]
fn what_is_not_said_is_not_sent() {
    let page = Reply::json(200, &json!({ "records": [{"sequence": 7}], "next_below": 7 }));
    let query = Query { role: Some("a b&c"), limit: 20, below: Some(9), ..Query::default() };
    assert_eq!(encoded(&query).unwrap(), "role=a+b%26c&limit=20&below=9");
    let (records, _) = asked(page, async |client| client.get("v1/audit/records", &query).await);
    let records: Records = records.map_err(Error::from).unwrap();
    assert_eq!((records.records[0]["sequence"].as_u64(), records.next_below), (Some(7), Some(7)));

    let token = Secret::new("canary-token".to_string());
    let form = Revoke { token: Some(&token), reason: "it leaked", ..Revoke::default() };
    let done = json!({ "tokens": null, "issued_before": "2026-01-01T12:00:00Z" });
    let reply = Reply::json(200, &done);
    let (revoked, arrived) =
        asked(reply, async |client| client.post("v1/revocations", &form).await);
    let revoked: Revoked = revoked.map_err(Error::from).unwrap();
    assert_eq!(revoked.tokens, None);
    let sent: Vec<_> = arrived[0].form.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(sent, [("reason", "it leaked"), ("token", "canary-token")]);
    assert_eq!(arrived[0].headers["content-type"], "application/x-www-form-urlencoded");

    let reply = Reply::json(200, &json!({}));
    let (done, arrived) =
        asked(reply, async |client| client.post_json("v1/x", &json!({ "a": 1 })).await);
    let _: Value = done.map_err(Error::from).unwrap();
    assert_eq!(arrived[0].headers["content-type"], "application/json");
}

#[test]
fn an_assertion_that_is_bound_is_shown_with_a_proof_and_the_nonce_that_is_wanted() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let key = Arc::new(DeviceKey::from_pkcs8(&DeviceKey::generate().unwrap()).unwrap());
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({ "cnf": { "jkt": key.thumbprint() } });
    let token = format!("{}.{}.AAAA", part(json!({ "alg": "ES256" })), part(claims));
    let server = TestServer::start(|request, _| {
        let proof = request.headers["dpop"].to_str().unwrap();
        let claims = crate::oidc::jwt::decode_unverified(proof).unwrap().claims;
        match claims.get("nonce").and_then(Value::as_str) {
            Some("first") => Reply::json(200, &json!({ "keys": [] })),
            _ => Reply::json(401, &json!({ "error": "use_dpop_nonce" }))
                .header("dpop-nonce", "first".into()),
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let host = test_server::host(dir.path(), time::Duration::ZERO);
    let broker = at(&[&server.origin]);
    let client = Client::new(&host, &broker, assertion(&token)).with_key(Some(key.clone()));
    let keys: Keys = run(client.get("v1/keys", &[("a", "b")])).map_err(Error::from).unwrap();
    assert!(keys.keys.is_empty());
    let arrived = server.arrived();
    assert_eq!(arrived.len(), 2);
    let targets = [Target::of(&server.url("/v1/keys")).unwrap()];
    for request in &arrived {
        assert_eq!(request.headers["authorization"], format!("DPoP {token}"));
        // It is for this token too.
        let shown = Shown::With(&token);
        let expected = Expected { method: "GET", targets: &targets, shown, now: SystemClock.now() };
        verify(request.headers["dpop"].to_str().unwrap(), &expected).unwrap();
    }
    // A key that the token is not bound to proves nothing.
    let other = Client::new(&host, &broker, assertion("canary-assertion")).with_key(Some(key));
    let server = TestServer::start(|_, _| Reply::json(200, &json!({ "keys": [] })));
    let broker = at(&[&server.origin]);
    let other = Client { server: &broker, ..other };
    run(other.get::<Keys>("v1/keys", &())).map_err(Error::from).unwrap();
    assert!(!server.arrived()[0].headers.contains_key("dpop"));
}

#[test]
fn refusals_end_as_scripts_expect_and_say_what_to_do() {
    let refusal = |code: &str| {
        json!({
            "error": code, "error_description": "because\u{1b}[2J", "request_id": "r-1",
        })
    };
    for (status, code, kind, says) in [
        (400, "invalid_request", ErrorKind::Usage, "does not accept the request"),
        (401, "invalid_token", ErrorKind::Verification, "does not accept who asks"),
        (401, "unauthorized", ErrorKind::Verification, "does not accept who asks"),
        (401, "invalid_dpop_proof", ErrorKind::Verification, "this device's key"),
        (403, "access_denied", ErrorKind::Denied, "policy says no"),
        (404, "not_found", ErrorKind::Usage, "there is no such thing"),
        (409, "conflict", ErrorKind::Other, "it refuses: conflict"),
        (429, "temporarily_unavailable", ErrorKind::Unreachable, "cannot serve"),
        (503, "temporarily_unavailable", ErrorKind::Unreachable, "cannot serve"),
    ] {
        let error = failed(Reply::json(status, &refusal(code)));
        let told = format!("{error}");
        assert_eq!(error.kind(), kind, "{status} {code}: {told}");
        assert!(told.contains(says) && told.contains("because") && told.contains("r-1"), "{told}");
        assert!(!told.contains('\u{1b}'), "{told}");
    }
    let unknown = json!({ "error": "not_found", "error_description": NO_SUCH_ADDRESS });
    let error = failed(Reply::json(404, &unknown));
    assert!(error.to_string().contains("does not know this request"), "{error}");
    assert!(error.hints()[0].contains("older than this program"), "{error:?}");
    let error = failed(Reply::json(401, &refusal("invalid_token")));
    assert!(error.hints()[0].contains("https://i.example"), "{error:?}");
    let counted = Reply::json(403, &refusal("access_denied")).header("retry-after", "5".into());
    assert!(failed(counted).hints()[0].contains("in 5 seconds"));
}

#[test]
fn a_login_that_is_wanted_anew_is_told_apart_and_how() {
    let challenge = r#"Bearer realm="tmpcred", error="insufficient_user_authentication", acr_values="phr mfa", max_age="300", DPoP algs="ES256""#;
    let body = json!({ "error": "insufficient_user_authentication", "request_id": "r-1" });
    let reply = Reply::json(401, &body).header("www-authenticate", challenge.into());
    let Err(Failure::StepUp(wanted)) = keys(reply) else { panic!("a login is wanted") };
    assert_eq!(wanted.strength.max_age, Some(std::time::Duration::from_secs(300)));
    assert_eq!(wanted.strength.acr_values, ["phr", "mfa"]);
    assert_eq!(wanted.error.kind(), ErrorKind::LoginRequired);
    let told = wanted.error.to_string();
    assert!(told.contains("5m ago at most") && told.contains("phr, mfa"), "{told}");
    // Neither is one without parameters, nor one that only the body tells.
    let bare = Reply::json(401, &body);
    assert!(matches!(keys(bare), Err(Failure::StepUp(wanted)) if wanted.strength.is_any()));
    // Nobody is asked to log in because of an answer that is about something else.
    let denied = Reply::json(403, &json!({ "error": "access_denied" }));
    let denied = denied.header("www-authenticate", challenge.into());
    assert!(matches!(keys(denied), Err(Failure::Other(_))));
}

#[test]
fn an_answer_that_is_none_is_no_panic_and_shows_nothing() {
    for reply in [
        Reply::text(200, ""),
        Reply::text(200, "<html>canary</html>"),
        Reply::json(200, &json!({ "keys": [{ "kid": "canary" }] })),
        Reply::json(200, &json!({ "keys": "canary" })),
        Reply::text(200, &"x".repeat(MAX_BODY + 1)),
        Reply::text(404, "canary"),
        Reply::text(302, "").header("location", "https://canary.example".into()),
        Reply::json(200, &json!({ "keys": [] })).header("tmpcred-protocol", "2".into()),
    ] {
        assert_eq!(failed(reply.clone()).kind(), ErrorKind::Verification, "{reply:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let host = test_server::host(dir.path(), time::Duration::ZERO);
    let broker = at(&["http://127.0.0.1:9"]);
    let client = Client::new(&host, &broker, assertion("canary\nassertion"));
    let error = Error::from(run(client.get::<Value>("v1/keys", &())).unwrap_err());
    assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    let keys = Assertion { token_type: TokenType::AwsAccessKeys, ..assertion("canary") };
    let error = run(Client::new(&host, &broker, keys).get::<Value>("v1/keys", &())).unwrap_err();
    assert_eq!(Error::from(error).kind(), ErrorKind::Config);
}

#[test]
fn another_address_is_asked_where_one_cannot_serve_and_what_changes_something_once_each() {
    let gone = TestServer::start(|_, _| Reply::json(503, &json!({})));
    let good = TestServer::start(|_, _| Reply::json(200, &json!({ "keys": [] })));
    let dir = tempfile::tempdir().unwrap();
    let host = test_server::host(dir.path(), time::Duration::ZERO);
    let broker = at(&[&gone.origin, &good.origin]);
    let client = Client::new(&host, &broker, assertion("canary-assertion"));
    run(client.get::<Keys>("v1/keys", &())).map_err(Error::from).unwrap();
    assert_eq!((gone.arrived().len(), good.arrived().len()), (1, 1));
    let only = at(&[&gone.origin]);
    let client = Client::new(&host, &only, assertion("canary-assertion"));
    let before = gone.arrived().len();
    let error = Error::from(run(client.post::<Keys>("v1/keys/revoke", &())).unwrap_err());
    assert_eq!((error.kind(), gone.arrived().len() - before), (ErrorKind::Unreachable, 1));
    // What changes nothing is asked for again.
    crate::mint::Plan::Broker(only.clone()).insist(&host, reach::Wish::Overridden);
    run(client.get::<Keys>("v1/keys", &())).unwrap_err();
    assert_eq!(gone.arrived().len() - before, 4);
}

#[test]
fn a_request_whose_answer_is_lost_is_asked_for_again_by_the_same_key_and_not_for_ever() {
    use super::elevations::{Event, Wanted};
    let wanted =
        Wanted { role: "admin", reason: "INC-1", idempotency_key: "k", ..Wanted::default() };
    let lost = std::sync::atomic::AtomicUsize::new(1);
    let server = TestServer::start(move |_, _| {
        use std::sync::atomic::Ordering::Relaxed;
        match lost.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)) {
            Ok(_) => Reply::gone(),
            Err(_) => Reply::json(403, &json!({ "error": "access_denied" })),
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let host = test_server::host(dir.path(), time::Duration::ZERO);
    let broker = at(&[&server.origin]);
    let client = Client::new(&host, &broker, assertion("canary-assertion"));
    let error = Error::from(run(client.elevate(&wanted)).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Denied, "somebody has answered");
    let keys: Vec<_> =
        server.arrived().iter().map(|one| one.form["idempotency_key"].clone()).collect();
    assert_eq!(keys, ["k", "k"]);
    // So is what is so already the second time; what is not, is sent once.
    let tried = |what: &str| {
        let settle = async |client: &Client<'_>| {
            client.settle(uuid::Uuid::nil(), what, &Event::default()).await
        };
        let (answer, arrived) = asked(Reply::json(503, &json!({})), settle);
        assert_eq!(Error::from(answer.unwrap_err()).kind(), ErrorKind::Unreachable);
        arrived.len()
    };
    assert!(tried("activate") > 1 && tried("approve") > 1 && tried("relinquish") == 1);
}

#[test]
fn an_assertion_that_is_not_accepted_is_told_apart_and_so_is_what_is_in_the_way() {
    let body = json!({ "error": "invalid_token", "error_description": "it has expired" });
    assert!(matches!(keys(Reply::json(401, &body)), Err(Failure::Unaccepted(_))));
    let body = json!({ "error": "elevation_short", "error_description": "missing are 1" });
    assert!(matches!(keys(Reply::json(409, &body)), Err(Failure::Short(_))));
    // Another proof of the key is asked for in another way.
    let body = json!({ "error": "invalid_dpop_proof" });
    assert!(matches!(keys(Reply::json(401, &body)), Err(Failure::Other(_))));
    let body = json!({
        "error": "elevation_conflict", "elevation": "018f\u{1b}[2J",
        "error_description": "you have asked for the role already",
    });
    let error = failed(Reply::json(409, &body));
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("asked for the role already"), "{error}");
    let hints = error.hints().join(" ");
    for says in ["tmpcred elevate status 018f\u{fffd}[2J", "tmpcred elevate withdraw"] {
        assert!(hints.contains(says), "{hints}");
    }
    assert!(!hints.contains("policy"), "{hints}");
}
