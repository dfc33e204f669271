//! Whose rate it is that a request uses up: nobody's who has nothing to do with it.

use tokio::net::TcpSocket;

use super::super::authz::{authz, with_bearer};
use super::super::lineage::{OWN, Site, first, next};
use super::super::once::strict;
use super::*;
use crate::broker::config::Proxy;
use crate::broker::testbed::CORP;

fn of_principals(rate: Rate) -> Limits {
    Limits { principal: Some(rate), ..Limits::default() }
}

#[tokio::test]
async fn who_acts_by_what_a_token_says_asks_in_their_own_name() {
    let bed = Bed::with(|options| {
        options.config.limits = of_principals(rate(2, 2));
        options.policies += &super::super::delegation::policies();
        options.clock = Arc::new(Running(AtomicI64::new(1000)));
    })
    .await;
    let acted = || bed.key.token(json!({"act": {"iss": CORP, "sub": "named"}}));
    for _ in 0..2 {
        let answer = bed.exchange(&acted(), &[]).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", json_of(&answer));
    }
    limited(&bed.exchange(&acted(), &[]).await, "this caller", "30");
    let named = bed.key.token(json!({"sub": "named"}));
    limited(&bed.exchange(&named, &[]).await, "this caller", "30");
    assert_eq!(bed.exchange(&bed.key.token(json!({})), &[]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn what_is_exchanged_again_and_again_is_asked_for_by_one() {
    let site = Site::new();
    let bed = site.start_with(|options| options.config.limits = of_principals(rate(1, 3))).await;
    let one = first(&bed).await;
    let two = next(&bed, &one, OWN).await;
    let three = next(&bed, &two, OWN).await;
    let answer = bed.exchange(&three, &[("role", "again"), ("audience", OWN)]).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{}", json_of(&answer));
    let answer = bed.exchange(&bed.key.token(json!({})), &[]).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{}", json_of(&answer));
}

/// It may be in a log that anybody reads.
#[tokio::test]
async fn by_an_assertion_that_was_used_nobody_uses_up_the_rate_of_whose_it_was() {
    let clock = Arc::new(Running(AtomicI64::new(1000)));
    let bed = Bed::with(|options| {
        strict(options);
        options.config.limits = of_principals(rate(2, 2));
        options.config.limits.principal_route = [(Endpoint::Introspect, rate(1, 1))].into();
        options.clock = clock.clone();
    })
    .await;
    let fresh = || bed.key.token(json!({"jti": uuid::Uuid::new_v4()}));
    let used = fresh();
    assert_eq!(bed.exchange(&used, &[]).await.status, StatusCode::OK);
    for _ in 0..5 {
        for other in [("scope", "deploy:read"), ("role", "none")] {
            let again = bed.exchange(&used, &[other]).await;
            assert_eq!(again.status, StatusCode::BAD_REQUEST, "{}", json_of(&again));
        }
    }
    assert_eq!(bed.exchange(&fresh(), &[]).await.status, StatusCode::OK);
    limited(&bed.exchange(&fresh(), &[]).await, "this caller", "30");
    // Nor does anybody ask about others by it.
    for _ in 0..3 {
        assert_eq!(bed.introspect(Some(&used), "x").await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(bed.introspect(Some(&fresh()), "x").await.status, StatusCode::OK);
    limited(&bed.introspect(Some(&fresh()), "x").await, "this caller", "60");
}

#[tokio::test]
async fn by_a_token_that_was_revoked_nobody_uses_up_the_rate_of_whose_it_was() {
    let each = [(Endpoint::Introspect, rate(1, 2)), (Endpoint::Revoke, rate(1, 2))];
    let (bed, _) = bed(Limits { principal_route: each.into(), ..Limits::default() }).await;
    let mut tokens = Vec::new();
    for _ in 0..3 {
        tokens.push(bed.issued(json!({}), &[]).await);
    }
    let [one, two, three] = &tokens[..] else { panic!() };
    for _ in 0..5 {
        assert_eq!(bed.revoke(one).await, 200);
        let answer = bed.introspect(Some(one), one).await;
        assert_eq!((answer.status, json_of(&answer)), (StatusCode::OK, json!({"active": false})));
    }
    for _ in 0..2 {
        assert_eq!(json_of(&bed.introspect(Some(two), two).await)["active"], true);
    }
    limited(&bed.introspect(Some(two), two).await, "this caller", "60");
    assert_eq!(bed.revoke(two).await, 200);
    assert_eq!(bed.revoke(three).await, 429);
}

/// Wherever the broker has one address for both.
#[tokio::test]
async fn strangers_use_up_nothing_of_what_proxies_may_ask() {
    let bed = Bed::with(|options| {
        authz(Proxy::Nginx, options);
        options.config.limits.route = [(Endpoint::Authz, rate(60, 2))].into();
        options.clock = Arc::new(Running(AtomicI64::new(1000)));
    })
    .await;
    let token = bed.issued(json!({}), &[]).await;
    for _ in 0..5 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut stream = socket.connect(bed.address).await.unwrap();
        let request = "GET /v1/authz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    }
    for status in [200, 200, 429] {
        assert_eq!(with_bearer(&bed, &token).await.status.as_u16(), status);
    }
}
