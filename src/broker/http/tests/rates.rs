//! How often somebody may ask.

mod whose;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::http::StatusCode;
use serde_json::json;
use time::{Duration, OffsetDateTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::header_of;
use crate::broker::config::{Endpoint, Limits, Rate};
use crate::broker::testbed::{Bed, json_of};
use crate::host::clock::{Clock, SystemClock};
use crate::host::http::Response;

pub(super) fn rate(per_minute: u32, burst: u32) -> Rate {
    Rate { per_minute: per_minute.try_into().unwrap(), burst: Some(burst.try_into().unwrap()) }
}

/// A clock whose machine has been running for as long as a test wants.
pub(super) struct Running(pub(super) AtomicI64);

impl Clock for Running {
    fn now(&self) -> OffsetDateTime {
        SystemClock.now()
    }

    fn uptime(&self) -> Duration {
        Duration::seconds(self.0.load(Ordering::Relaxed))
    }
}

async fn bed(limits: Limits) -> (Bed, Arc<Running>) {
    let clock = Arc::new(Running(AtomicI64::new(1000)));
    let bed = Bed::with(|options| {
        options.config.limits = limits;
        options.config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        options.clock = clock.clone();
    })
    .await;
    (bed, clock)
}

pub(super) fn limited(response: &Response, says: &str, retry_after: &str) {
    let body = json_of(response);
    assert_eq!(response.status, StatusCode::TOO_MANY_REQUESTS, "{body}");
    assert_eq!(header_of(response, "retry-after"), retry_after);
    assert_eq!(header_of(response, "cache-control"), "no-store");
    assert_eq!(body["error"], "temporarily_unavailable");
    assert!(body["error_description"].as_str().unwrap().contains(says), "{body}");
    assert_eq!(body["request_id"], header_of(response, "x-request-id"));
}

pub(super) async fn count(bed: &Bed, name: &str) -> String {
    let response = bed.admin.get("/metrics").await;
    assert_eq!(response.status, StatusCode::OK, "those who run it are not limited");
    let metrics = String::from_utf8(response.body.expose().clone()).unwrap();
    assert!(!metrics.contains("alice"));
    metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().into()
}

async fn turned_away(bed: &Bed, reason: &str, route: &str) -> String {
    let name = format!("tmpcred_rate_limited_total{{reason=\"{reason}\",route=\"{route}\"}}");
    count(bed, &name).await
}

#[tokio::test]
async fn one_caller_has_a_share_whatever_they_ask_for_and_others_have_theirs() {
    let limits = Limits { principal: Some(rate(2, 3)), ..Limits::default() };
    let (bed, clock) = bed(limits).await;
    let alice = || bed.key.token(json!({}));
    for _ in 0..2 {
        assert_eq!(bed.exchange(&alice(), &[]).await.status, StatusCode::OK);
    }
    // What is denied counts as well, and another token of theirs is no other caller.
    let denied = bed.exchange(&bed.key.token(json!({"azp": "x"})), &[("role", "none")]).await;
    assert_eq!(json_of(&denied)["error"], "access_denied");
    limited(&bed.exchange(&alice(), &[]).await, "this caller", "30");
    assert_eq!(bed.records(0, 9).await.len(), 3, "it leaves no row");
    let bob = bed.key.token(json!({"sub": "bob"}));
    assert_eq!(bed.exchange(&bob, &[]).await.status, StatusCode::OK);
    // Who has not proved to be Alice takes nothing from her.
    for _ in 0..9 {
        let forged = crate::broker::testbed::IssuerKey::new().token(json!({}));
        assert_eq!(bed.exchange(&forged, &[]).await.status, StatusCode::BAD_REQUEST);
    }
    clock.0.fetch_add(30, Ordering::Relaxed);
    assert_eq!(bed.exchange(&alice(), &[]).await.status, StatusCode::OK);
    limited(&bed.exchange(&alice(), &[]).await, "this caller", "30");
    assert_eq!(turned_away(&bed, "principal", "token").await, "2");
    let denials = "tmpcred_issuance_denials_total{reason=\"too_often\"}";
    assert_eq!(count(&bed, denials).await, "2");
}

#[tokio::test]
async fn one_caller_has_a_share_of_whatever_else_there_is_by_what_it_is() {
    let of_each = [(Endpoint::Introspect, rate(2, 2)), (Endpoint::Revoke, rate(1, 1))];
    let (bed, clock) = bed(Limits { principal_route: of_each.into(), ..Limits::default() }).await;
    let (one, two) = (bed.issued(json!({}), &[]).await, bed.issued(json!({}), &[]).await);
    let bob = bed.issued(json!({"sub": "bob"}), &[]).await;
    // Who shows a token that is asked about is whom it was issued to.
    let active = async |token: &str| {
        let answer = bed.introspect(Some(token), token).await;
        assert_eq!(answer.status, StatusCode::OK);
        json_of(&answer)["active"] == true
    };
    assert!(active(&one).await && active(&two).await);
    limited(&bed.introspect(Some(&one), &one).await, "this caller", "30");
    assert!(active(&bob).await);
    // Nobody is known by what proves nothing, and whoever asks about others is who they are.
    for token in ["x", &crate::broker::testbed::IssuerKey::new().token(json!({}))] {
        for _ in 0..3 {
            let answer = bed.introspect(Some(token), &one).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        }
    }
    let api = bed.key.token(json!({"sub": "api"}));
    for _ in 0..2 {
        assert_eq!(bed.introspect(Some(&api), &bob).await.status, StatusCode::OK);
    }
    limited(&bed.introspect(Some(&api), &bob).await, "this caller", "30");
    let outcome = "tmpcred_introspections_total{outcome=\"too_often\"}";
    assert_eq!(count(&bed, outcome).await, "2");

    for _ in 0..3 {
        assert_eq!(bed.revoke("x").await, 200, "there is nobody whose it could be");
    }
    assert_eq!(bed.revoke(&one).await, 200);
    let form = [("token".into(), two.clone())];
    limited(&bed.post("/revoke", &form).await, "this caller", "60");
    assert_eq!(bed.revoke(&bob).await, 200);
    clock.0.fetch_add(60, Ordering::Relaxed);
    assert!(!active(&one).await && active(&two).await && !active(&bob).await);
    assert_eq!(bed.revoke(&two).await, 200);
    assert_eq!(turned_away(&bed, "principal", "introspect").await, "2");
    assert_eq!(turned_away(&bed, "principal", "revoke").await, "1");
}

/// Asks what a broker has no parameters for, as somebody at this address.
async fn ask(to: SocketAddr, path: &str, from: &str) -> u16 {
    #[expect(clippy::disallowed_methods, reason = "no HTTP client says whom it speaks for")]
    let mut stream = tokio::net::TcpStream::connect(to).await.unwrap();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {from}\r\n\
         Content-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn an_address_has_a_share_of_all_that_is_asked_and_of_ipv6_a_network_is_one() {
    let (bed, clock) = bed(Limits { address: Some(rate(60, 2)), ..Limits::default() }).await;
    let ask = async |path: &str, from: &str| ask(bed.address, path, from).await;
    assert_eq!(ask("/token", "192.0.2.1").await, 400);
    assert_eq!(ask("/revoke", "192.0.2.1").await, 400);
    assert_eq!(ask("/introspect", "192.0.2.1").await, 429);
    assert_eq!(ask("/token", "192.0.2.2").await, 400);
    for (n, status) in [(1, 400), (2, 400), (3, 429)] {
        assert_eq!(ask("/token", &format!("2001:db8::{n}")).await, status);
    }
    assert_eq!(ask("/token", "2001:db8:0:1::1").await, 400);
    clock.0.fetch_add(1, Ordering::Relaxed);
    assert_eq!(ask("/token", "192.0.2.1").await, 400);
    assert_eq!(turned_away(&bed, "address", "introspect").await, "1");
    assert_eq!(turned_away(&bed, "address", "token").await, "1");
    // What anybody may read costs nothing.
    for _ in 0..9 {
        assert_eq!(bed.get("/jwks.json").await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_route_has_a_budget_and_the_others_are_not_affected() {
    let (bed, _) = bed(Limits {
        route: [(Endpoint::Token, rate(1, 1)), (Endpoint::Revoke, rate(60, 5))].into(),
        ..Limits::default()
    })
    .await;
    let token = bed.issued(json!({}), &[]).await;
    limited(&bed.exchange("x", &[]).await, "of this kind", "60");
    assert_eq!(bed.revoke(&token).await, 200);
    assert_eq!(bed.introspect(Some(&token), &token).await.status, StatusCode::OK);
    assert_eq!(turned_away(&bed, "route", "token").await, "1");
}

/// Its body may take a while.
#[tokio::test]
async fn a_request_goes_by_the_policies_that_its_rate_was_looked_up_with() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.cedar");
    let bed = Bed::with(|options| {
        options.config.limits.route = [(Endpoint::Token, rate(60, 9))].into();
        options.config.policy.files = vec![path.clone()];
    })
    .await;
    let form = bed.form(&bed.key.token(json!({})), &[]);
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    #[expect(clippy::disallowed_methods, reason = "no HTTP client sends half a request")]
    let mut stream = tokio::net::TcpStream::connect(bed.address).await.unwrap();
    let head = format!(
        "POST /token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 25];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
    let policies = b"@id(\"p\") forbid (principal, action, resource); @id(\"q\") @ttl(\"1m\") permit (principal, action == Action::\"issue\", resource);";
    crate::host::files::write_private(&path, policies).unwrap();
    let reloaded = bed.broker.reload_policies().unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    bed.refused(&bed.key.token(json!({})), &[]).await;
    let records = bed.records(0, 9).await;
    let by: Vec<_> = records.iter().map(|(_, record)| record.policy_hash.clone()).collect();
    assert_eq!(by, [reloaded.before, reloaded.now]);
}

#[tokio::test]
async fn nothing_is_limited_where_nobody_says_so() {
    let (bed, _) = bed(Limits::default()).await;
    for _ in 0..40 {
        assert_eq!(bed.exchange(&bed.key.token(json!({})), &[]).await.status, StatusCode::OK);
    }
}
