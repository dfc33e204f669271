use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use time::Duration;

use super::*;
use crate::host::test_server::host;

const AUDIENCE: &str = "https://broker.example.com";

fn token(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.c2lnbmF0dXJl", part(&json!({"alg": "ES256"})), part(claims))
}

fn given(claims: &Value) -> Given {
    Given::new(&token(claims), "the token in T")
}

/// Claims that are good for as many seconds.
fn claims(host: &Host, seconds: i64) -> Value {
    let now = host.clock.now().unix_timestamp();
    json!({
        "iss": "https://i.example", "sub": "repo:a/b", "aud": AUDIENCE, "run": "7",
        "iat": now - 10_000, "exp": now + seconds,
    })
}

fn world() -> (tempfile::TempDir, Host) {
    let root = tempfile::tempdir().unwrap();
    let host = host(root.path(), Duration::ZERO);
    (root, host)
}

#[test]
fn a_good_token_is_an_assertion_whatever_is_around_it() {
    let (_root, host) = world();
    let text = format!(" \n{}\r\n", token(&claims(&host, 60)));
    let given = Given::new(&text, "the token in T");
    assert_eq!(given.principal().unwrap().subject, "repo:a/b");
    assert!(given.suits(&host, AUDIENCE) && !given.suits(&host, "https://other.example"));
    let assertion = given.assertion(&host, AUDIENCE, "ask").unwrap();
    assert_eq!(assertion.token.expose(), text.trim());
    assert_eq!(assertion.principal.issuer, "https://i.example");
    assert_eq!(assertion.expires_at.unix_timestamp(), host.clock.now().unix_timestamp() + 60);
}

#[test]
fn what_may_not_be_sent_is_refused_with_a_reason() {
    let (_root, host) = world();
    let changed = |change: fn(&mut Value)| {
        let mut claims = claims(&host, 60);
        change(&mut claims);
        token(&claims)
    };
    for (text, says) in [
        (String::new(), "it is empty"),
        ("s3cr3t-opaque".into(), "it is not a signed JWT"),
        ("a.b.c".into(), "it is not a signed JWT"),
        ("x".repeat(MAX_TOKEN + 1), "it is too long"),
        (token(&claims(&host, -61)), "it expired 1m 1s ago"),
        (changed(|c| drop(c.as_object_mut().unwrap().remove("exp"))), "it has no expiry"),
        (changed(|c| c["aud"] = json!("x")), "it is for 'x', not for 'https://broker.example.com'"),
        (changed(|c| c["aud"] = json!(["x", "y"])), "it is for 'x', 'y', not for"),
        (changed(|c| c["aud"] = Value::Null), "it is for nobody, not for"),
        (changed(|c| c["iss"] = Value::Null), "it names no issuer"),
        (changed(|c| c["sub"] = json!(7)), "it names no subject"),
        (changed(|c| c["nbf"] = json!(99_999_999_999_i64)), "in the future"),
    ] {
        let error = Given::new(&text, "the token in T")
            .assertion(&host, AUDIENCE, "ask for it")
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Verification, "{error}");
        assert_eq!(error.message(), "the token in T cannot be used");
        assert!(error.to_string().contains(says), "{says}: {error}");
        assert!(!error.to_string().contains("s3cr3t"), "{error}");
        let other_audience = says.starts_with("it is for");
        assert_eq!(error.hints().contains(&"ask for it".to_string()), other_audience, "{error:?}");
    }
    let bytes = Secret::new(vec![0xff, 0xfe]);
    assert!(Given::from_bytes(&bytes, "the token in T").is_err());
}

#[test]
fn an_expiry_is_held_against_the_servers_clock() {
    let (_root, host) = world();
    // This machine is ten minutes ahead of everybody.
    host.skew.observe(host.clock.now() - Duration::minutes(10), host.clock.now());
    assert!(given(&claims(&host, -300)).assertion(&host, AUDIENCE, "").is_ok());
    let error = given(&claims(&host, -700)).assertion(&host, AUDIENCE, "").unwrap_err();
    assert!(error.to_string().contains("it expired 1m 40s ago"), "{error}");
}

#[test]
fn a_renewed_token_is_of_the_same_workload_and_another_pods_is_not() {
    let (_root, host) = world();
    let of = |pod: &str, seconds: i64| {
        let mut claims = claims(&host, seconds);
        claims["jti"] = json!(format!("{pod}{seconds}"));
        claims["kubernetes.io"] = json!({ "pod": { "uid": pod }, "warnafter": seconds });
        given(&claims).particular(Job::new("a job")).unwrap()
    };
    assert_eq!(of("a", 60), of("a", 3600));
    assert_ne!(of("a", 60), of("b", 60));
    let own = |seconds| given(&claims(&host, seconds)).own(Job::new("a job"));
    assert_eq!(own(60), own(60));
    assert_ne!(own(60), own(61));
}
