//! What is asked for, and what is granted.

use super::header_of;
use crate::broker::audit::Decision;
use crate::broker::store::{Store, sqlite};
use crate::broker::testbed::{API, Bed, CORP, claims_of, json_of, now};
use crate::host::clock::{Clock, FixedClock};
use crate::host::http::Request;
use crate::oidc::{Expectations, Keys, jwt};
use crate::secret::Secret;
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use time::{Duration, OffsetDateTime};

#[tokio::test]
async fn a_token_is_issued_and_says_what_was_granted() {
    let bed = Bed::with(|options| options.clock = Arc::new(FixedClock(now()))).await;
    let response = bed.exchange(&bed.key.token(json!({})), &[("requested_ttl", "600")]).await;
    assert_eq!(response.status, StatusCode::OK, "{}", json_of(&response));
    assert_eq!(header_of(&response, "cache-control"), "no-store");
    assert_eq!(header_of(&response, "pragma"), "no-cache", "RFC 6749 section 5.1");
    assert_eq!(header_of(&response, "tmpcred-protocol"), "1");
    let grant = json_of(&response);
    assert_eq!(grant["token_type"], "Bearer");
    assert_eq!(grant["issued_token_type"], "urn:ietf:params:oauth:token-type:access_token");
    assert_eq!(grant["expires_in"], 600);
    assert_eq!(grant["scope"], "deploy:read deploy:write");
    assert_eq!(grant["role"], "deploy");
    assert_eq!(grant["subject"], format!("{CORP}#alice"));

    // A resource owner verifies it by the published keys.
    let keys = Keys::parse(bed.get("/jwks.json").await.body.expose()).unwrap();
    let token = grant["access_token"].as_str().unwrap();
    let expected = Expectations {
        issuer: bed.issuer.as_str(),
        audiences: &[API.to_string()],
        algorithms: &[jwt::Algorithm::ES256],
        nonce: None,
        now: now(),
        leeway: Duration::ZERO,
    };
    let claims = jwt::verify(token, &keys, &expected).unwrap();
    assert_eq!(claims.principal.subject, format!("{CORP}#alice"));
    let all = Value::Object(claims.all);
    assert_eq!(all["aud"], API, "a string, not a list");
    assert_eq!(all["exp"].as_i64().unwrap() - all["iat"].as_i64().unwrap(), 600);
    assert_eq!(all["sub_id"], json!({"format": "iss_sub", "iss": CORP, "sub": "alice"}));
    assert_eq!((&all["role"], &all["client_id"]), (&json!("deploy"), &json!("cli")));
    let header = jwt::decode_unverified(token).unwrap().header;
    assert_eq!(header["typ"], "at+jwt");
    assert!(header["kid"].is_string());

    let (sequence, record) = bed.records(0, 9).await.pop().unwrap();
    assert_eq!(all["log_sequence"], sequence);
    assert_eq!(record.decision, Decision::Issued);
    assert_eq!(record.request_id.to_string(), header_of(&response, "x-request-id"));
    assert_eq!(record.jti.unwrap().to_string(), all["jti"]);
    assert_eq!(record.policy_id.as_deref(), Some("deployers"));
    assert_eq!((record.ttl, record.scope.as_str()), (600, "deploy:read deploy:write"));
    assert_eq!((record.source.as_str(), record.client.as_str()), ("127.0.0.1", "cli"));
    assert!(!format!("{record:?}").contains(token));
}

#[tokio::test]
async fn scope_is_narrowed_and_never_widened() {
    let bed = Bed::new().await;
    let token = bed.key.token(json!({"scope": "deploy:admin"}));
    let response = bed.exchange(&token, &[("scope", "deploy:read")]).await;
    let grant = json_of(&response);
    assert_eq!(grant["scope"], "deploy:read");
    assert_eq!(claims_of(grant["access_token"].as_str().unwrap())["scope"], "deploy:read");
    for wider in ["deploy:admin", "deploy:read deploy:admin", "deploy:*", "Deploy:read", "a\"b"] {
        let refusal = bed.refused(&token, &[("scope", wider)]).await;
        assert_eq!(refusal["error"], "invalid_scope", "{wider}: {refusal}");
    }
}

/// RFC 6749 sections 3.3 and 5.1: a scope has a word at least.
#[tokio::test]
async fn where_no_scope_is_granted_the_answer_and_the_token_have_none() {
    let bed = Bed::with(|options| {
        options.config.role.insert("bare".into(), options.config.role["deploy"].clone());
        options.policies += r#"@id("bare") @ttl("15m")
            permit (principal, action == Action::"issue", resource == Role::"bare");"#;
    })
    .await;
    let response = bed.exchange(&bed.key.token(json!({})), &[("role", "bare")]).await;
    let grant = json_of(&response);
    assert_eq!((response.status, grant.get("scope")), (StatusCode::OK, None), "{grant}");
    let token = grant["access_token"].as_str().unwrap();
    assert_eq!(claims_of(token).get("scope"), None);
    assert_eq!(json_of(&bed.introspect(Some(token), token).await).get("scope"), None);
    let refusal = bed.refused(token, &[("role", "bare"), ("scope", "deploy:read")]).await;
    assert!(refusal["error"].is_string(), "{refusal}");
}

#[tokio::test]
async fn the_audience_is_exact() {
    let bed = Bed::new().await;
    let token = bed.key.token(json!({}));
    for other in
        ["https://api.example.com/", "https://API.example.com", "https://evil.example", "*"]
    {
        let refusal = bed.refused(&token, &[("audience", other)]).await;
        assert_eq!(refusal["error"], "invalid_target", "{refusal}");
        let description = refusal["error_description"].as_str().unwrap();
        assert!(description.contains(API) && description.contains(other), "{description}");
        // So it is by the other name.
        let resource = [("audience", ""), ("resource", other)];
        assert_eq!(bed.refused(&token, &resource).await["error"], "invalid_target", "{other}");
    }
    let response = bed.exchange(&token, &[("audience", ""), ("resource", API)]).await;
    assert_eq!(response.status, StatusCode::OK);
    let both = bed.refused(&token, &[("resource", "https://other.example")]).await;
    assert_eq!(both["error"], "invalid_target");
}

#[tokio::test]
async fn what_policy_does_not_permit_is_denied_and_recorded() {
    let bed = Bed::new().await;
    let cases = [
        (json!({"groups": ["others"]}), "deploy", "no policy permits"),
        (json!({"groups": null}), "deploy", "no policy permits"),
        (json!({"sub": "mallory"}), "deploy", "a policy forbids"),
        (json!({}), "admin", "there is no role 'admin'"),
    ];
    for (claims, role, says) in &cases {
        let refusal = bed.refused(&bed.key.token(claims.clone()), &[("role", role)]).await;
        assert_eq!(refusal["error"], "access_denied", "{refusal}");
        assert!(refusal["error_description"].as_str().unwrap().contains(says), "{refusal}");
    }
    let records = bed.records(0, 9).await;
    assert_eq!(records.len(), cases.len());
    for ((_, record), (_, role, says)) in records.iter().zip(&cases) {
        assert_eq!(record.decision, Decision::Denied);
        assert!(record.reason.contains(says) && record.jti.is_none());
        // Anybody can ask for a role of any name: that is in the reason, which can be erased.
        assert_eq!(record.role, if *role == "admin" { "(unknown)" } else { role });
    }
    assert_eq!(records[2].1.policy_id.as_deref(), Some("not-mallory"));
}

#[tokio::test]
async fn malformed_requests_are_refused_as_the_rfc_says() {
    let bed = Bed::new().await;
    let token = bed.key.token(json!({}));
    for (changes, code, says) in [
        (&[("grant_type", "")][..], "invalid_request", "'grant_type' is missing"),
        (&[("grant_type", "authorization_code")], "unsupported_grant_type", "token-exchange"),
        (&[("subject_token", "")], "invalid_request", "'subject_token' is missing"),
        (&[("subject_token_type", "")], "invalid_request", "'subject_token_type' is missing"),
        (&[("subject_token_type", "jwt")], "invalid_request", "'subject_token_type' must be"),
        (&[("audience", "")], "invalid_request", "'audience' is missing"),
        (&[("audience", "a\nb")], "invalid_target", "not text"),
        (&[("role", "")], "invalid_request", "'role' is missing"),
        (&[("role", "a b")], "invalid_request", "not the name of a role"),
        (&[("role", "../x")], "invalid_request", "not the name of a role"),
        (&[("requested_ttl", "0")], "invalid_request", "'requested_ttl'"),
        (&[("requested_ttl", "-1")], "invalid_request", "'requested_ttl'"),
        (&[("requested_ttl", "+9")], "invalid_request", "'requested_ttl'"),
        (&[("requested_ttl", "1h")], "invalid_request", "'requested_ttl'"),
        (&[("requested_ttl", "99999999999999999999")], "invalid_request", "'requested_ttl'"),
        (&[("requested_token_type", "x")], "invalid_request", "'requested_token_type'"),
        (&[("actor_token", "x")], "invalid_request", "'actor_token_type' is missing"),
    ] {
        let response = bed.exchange(&token, changes).await;
        assert_eq!(response.status, StatusCode::BAD_REQUEST, "{changes:?}");
        assert_eq!(header_of(&response, "cache-control"), "no-store");
        assert_eq!(header_of(&response, "pragma"), "no-cache");
        assert_eq!(header_of(&response, "content-type"), "application/json");
        let refusal = json_of(&response);
        assert_eq!(refusal["error"], code, "{changes:?}: {refusal}");
        assert!(refusal["error_description"].as_str().unwrap().contains(says), "{refusal}");
        assert_eq!(refusal["request_id"], header_of(&response, "x-request-id"));
    }
    for name in ["grant_type", "subject_token", "role", "unheard_of"] {
        let mut form = bed.form(&token, &[("unheard_of", "1")]);
        let again = form.iter().find(|(n, _)| n == name).unwrap().clone();
        form.push(again);
        let refusal = json_of(&bed.post("/token", &form).await);
        assert_eq!(refusal["error"], "invalid_request", "{name}");
        assert!(refusal["error_description"].as_str().unwrap().contains("repeated"), "{refusal}");
    }
    let form = bed.form(&token, &[]);
    let query = bed.post("/token?role=deploy", &form).await;
    assert_eq!(query.status, StatusCode::BAD_REQUEST);
    let body = json!({"grant_type": "x"}).to_string();
    let response = bed.post_raw("/token", "application/json", body.as_bytes()).await;
    assert!(json_of(&response)["error_description"].as_str().unwrap().contains("x-www-form"));
    let unknown = bed.exchange(&token, &[("unheard_of", "1")]).await;
    assert_eq!(unknown.status, StatusCode::OK, "RFC 6749 section 3.2: ignored");
}

#[tokio::test]
async fn a_lifetime_longer_than_allowed_is_shortened() {
    let bed = Bed::with(|options| options.clock = Arc::new(FixedClock(now()))).await;
    let token = bed.key.token(json!({}));
    for (asked, got) in [("1", 1), ("900", 900), ("901", 900), ("18446744073709551615", 900)] {
        let grant = json_of(&bed.exchange(&token, &[("requested_ttl", asked)]).await);
        assert_eq!(grant["expires_in"], got, "{grant}");
    }
}

/// A clock that goes on by this much whenever it is looked at.
struct Hurried(Duration, AtomicI32);

impl Clock for Hurried {
    fn now(&self) -> OffsetDateTime {
        now() + self.0 * self.1.fetch_add(1, Ordering::Relaxed)
    }
}

#[tokio::test]
async fn the_lifetime_counts_from_the_answer() {
    let clock = Arc::new(Hurried(Duration::seconds(3), AtomicI32::new(0)));
    let bed = Bed::with(|options| options.clock = clock).await;
    let grant = json_of(&bed.exchange(&bed.key.token(json!({})), &[]).await);
    let claims = claims_of(grant["access_token"].as_str().unwrap());
    let ttl = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    let left = grant["expires_in"].as_i64().unwrap();
    assert!(ttl == 900 && (1..=897).contains(&left), "{left} of {ttl}");
    // Nothing is left of one that lives for shorter than the answer takes.
    let late = bed.refused(&bed.key.token(json!({})), &[("requested_ttl", "1")]).await;
    assert_eq!(late["error"], "temporarily_unavailable", "{late}");
}

#[tokio::test]
async fn a_role_is_named_letter_by_letter() {
    let bed = Bed::with(|options| {
        let deploy = options.config.role["deploy"].clone();
        options.config.role.insert("Deploy".into(), deploy);
    })
    .await;
    let token = bed.key.token(json!({}));
    assert_eq!(json_of(&bed.exchange(&token, &[]).await)["role"], "deploy");
    for (role, says) in [
        ("Deploy", "no policy permits the role 'Deploy'"),
        ("DEPLOY", "there is no role 'DEPLOY'"),
        ("deploy.", "there is no role 'deploy.'"),
    ] {
        let refusal = bed.refused(&token, &[("role", role)]).await;
        assert_eq!(refusal["error"], "access_denied");
        assert!(refusal["error_description"].as_str().unwrap().contains(says), "{refusal}");
    }
}

#[tokio::test]
async fn records_name_whom_a_trusted_proxy_speaks_for() {
    for (proxies, source) in [(&[][..], "127.0.0.1"), (&["127.0.0.0/8"], "203.0.113.7")] {
        let bed = Bed::with(|options| {
            options.config.trusted_proxies = proxies.iter().map(|p| p.parse().unwrap()).collect();
        })
        .await;
        let form = bed.form(&bed.key.token(json!({})), &[]);
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let post = async |path: &str, body: String| {
            let mut headers = axum::http::HeaderMap::new();
            headers.insert("content-type", "application/x-www-form-urlencoded".parse().unwrap());
            headers.insert("x-forwarded-for", "10.9.8.7, 203.0.113.7".parse().unwrap());
            let body = Secret::new(body.into_bytes());
            let url = bed.url(path);
            bed.client.send(Request { method: Method::POST, url, headers, body }).await.unwrap()
        };
        let grant = json_of(&post("/token", body).await);
        let token = grant["access_token"].as_str().unwrap();
        assert_eq!(post("/revoke", format!("token={token}")).await.status, StatusCode::OK);
        let records = bed.records(0, 9).await;
        let sources: Vec<_> = records.iter().map(|(_, record)| record.source.as_str()).collect();
        assert_eq!(sources, [source, source]);
    }
}

/// Policies that go by where requests come from are for those who are there, and not for whoever
/// makes the broker doubt what its proxy says.
#[tokio::test]
async fn nobody_comes_in_the_name_of_the_proxy_by_what_they_write_themselves() {
    let bed = Bed::with(|options| {
        options.config.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
        options.policies = options.policies.replacen(
            "resource == Role::\"deploy\");",
            "resource == Role::\"deploy\")
                when { context.source.isInRange(ip(\"127.0.0.0/8\")) };",
            1,
        );
    })
    .await;
    let form = bed.form(&bed.key.token(json!({})), &[]);
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let ask = async |lines: &[(&'static str, &str)]| {
        let mut headers = axum::http::HeaderMap::new();
        headers.insert("content-type", "application/x-www-form-urlencoded".parse().unwrap());
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        let (url, body) = (bed.url("/token"), Secret::new(body.clone().into_bytes()));
        let answer =
            bed.client.send(Request { method: Method::POST, url, headers, body }).await.unwrap();
        json_of(&answer)["error"].as_str().map(String::from)
    };
    let (x, other) = ("x-forwarded-for", "forwarded");
    assert_eq!(ask(&[]).await, None, "whoever is there");
    let denied = Some("access_denied".to_string());
    assert_eq!(ask(&[(x, "203.0.113.7")]).await, denied);
    for forged in ["x", "for=127.0.0.1", "for=unknown", ""] {
        assert_eq!(ask(&[(other, forged), (x, "203.0.113.7")]).await, denied, "{forged}");
    }
    assert_eq!(ask(&[(x, "127.0.0.1, 203.0.113.7")]).await, denied);
    for unreadable in ["unknown", "203.0.113.7, unknown", ""] {
        let refused = ask(&[(x, unreadable)]).await;
        assert_eq!(refused.as_deref(), Some("invalid_request"), "{unreadable}");
    }
}

#[tokio::test]
async fn nothing_is_issued_when_it_cannot_be_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(sqlite::tests::small(&dir.path().join("b.db"), 80).await);
    let bed = Bed::with(|options| options.store = store).await;
    let token = bed.key.token(json!({"sub": "x".repeat(1000)}));
    let mut issued = 0;
    let refused = loop {
        let response = bed.exchange(&token, &[]).await;
        if !response.status.is_success() {
            break response;
        }
        issued += 1;
        assert!(issued < 500, "it never fills");
    };
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(json_of(&refused)["error"], "temporarily_unavailable");
    assert!(!header_of(&refused, "retry-after").is_empty());
    assert!(!String::from_utf8_lossy(refused.body.expose()).contains("full"), "no internals");
    // A denial that cannot be recorded is not told as one.
    let denied = bed.key.token(json!({"sub": "y".repeat(1000), "groups": []}));
    assert_eq!(bed.refused(&denied, &[]).await["error"], "temporarily_unavailable");
    assert_eq!(bed.records(0, 1000).await.len(), issued);
}

#[tokio::test]
async fn many_at_once_are_all_recorded_before_they_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(sqlite::open(&dir.path().join("b.db")).await.unwrap());
    let bed = Arc::new(Bed::with(|options| options.store = store).await);
    let token = bed.key.token(json!({}));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (bed, token) = (bed.clone(), token.clone());
        tasks.spawn(async move {
            let grant = json_of(&bed.exchange(&token, &[]).await);
            let jti = claims_of(grant["access_token"].as_str().unwrap())["jti"].clone();
            let kept = bed.records(0, 1000).await;
            assert!(kept.iter().any(|(_, r)| json!(r.jti.unwrap().to_string()) == jti));
        });
    }
    tasks.join_all().await;
    assert_eq!(bed.records(0, 1000).await.len(), 100);
}
