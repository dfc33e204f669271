//! From where tokens are used: told of, counted, and never a reason to refuse.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, Method};
use serde_json::json;
use uuid::Uuid;

use super::authz::authz;
use super::lineage::{OWN, Site};
use crate::broker::config::{self, Proxy};
use crate::broker::metrics::Metrics;
use crate::broker::origins::{Origins, Place, Used};
use crate::broker::testbed::{Bed, CORP, Options, claims_of, json_of};
use crate::host::http::{Request, Response};
use crate::secret::Secret;

fn count(bed: &Bed, place: Place) -> u64 {
    bed.broker.metrics().elsewhere(place)
}

/// Posts a form as if a proxy had it from this address.
async fn from(bed: &Bed, source: &str, path: &str, form: &[(String, String)]) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/x-www-form-urlencoded".parse().unwrap());
    headers.insert("x-forwarded-for", source.parse().unwrap());
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let (method, body) = (Method::POST, Secret::new(body.into_bytes()));
    bed.client.send(Request { method, url: bed.url(path), headers, body }).await.unwrap()
}

/// Lets a resource owner ask about all tokens.
fn asked_by_api(options: &mut Options) {
    options.policies += &format!(
        r#"
@id("introspect")
permit (principal == User::"{CORP}#api", action == Action::"introspect", resource);
"#
    );
}

/// A token that is shown from this address, as whoever it was shown to says.
async fn shown(bed: &Bed, token: &str, source: &str) -> Response {
    told(bed, &bed.key.token(json!({"sub": "api"})), token, source).await
}

/// The same, as whoever shows this of themselves says.
async fn told(bed: &Bed, bearer: &str, token: &str, source: &str) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/x-www-form-urlencoded".parse().unwrap());
    headers.insert("authorization", format!("Bearer {bearer}").parse().unwrap());
    let form = [("token", token), ("source_address", source)];
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let body = Secret::new(body.into_bytes());
    let (method, url) = (Method::POST, bed.url("/introspect"));
    bed.client.send(Request { method, url, headers, body }).await.unwrap()
}

async fn until(what: &str, is: impl Fn() -> bool) {
    let waiting = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(30), waiting).await;
    ended.unwrap_or_else(|_| panic!("waited for {what}"));
}

#[tokio::test]
async fn a_token_that_a_resource_owner_was_shown_from_another_network_is_counted_once() {
    let bed = Bed::with(asked_by_api).await;
    let token = bed.issued(json!({}), &[]).await;
    for (source, told) in [
        ("127.0.0.1", 0),
        ("127.0.0.99", 0),
        ("198.51.100.7", 1),
        ("198.51.100.8", 1),
        ("::ffff:198.51.100.9", 1),
        ("2001:db8::1", 1),
        ("192.0.2.1", 2),
    ] {
        let answer = shown(&bed, &token, source).await;
        assert_eq!(json_of(&answer)["active"], true, "{source}: it refuses nothing");
        assert_eq!(count(&bed, Place::Introspection), told, "{source}");
    }
    for wrong in ["nowhere", "127.0.0.1:80", "127.0.0.0/8"] {
        let answer = shown(&bed, &token, wrong).await;
        let said = json_of(&answer);
        assert_eq!((answer.status.as_u16(), &said["error"]), (400, &json!("invalid_request")));
    }
    // Nothing is told of what is not good any more, nor to whoever may not know of it.
    bed.revoke(&token).await;
    assert_eq!(json_of(&shown(&bed, &token, "203.0.113.1").await), json!({"active": false}));
    assert_eq!(count(&bed, Place::Introspection), 2);
    assert_eq!(count(&bed, Place::Authz) + count(&bed, Place::Exchange), 0);
}

#[tokio::test]
async fn what_a_token_says_of_itself_neither_tells_of_it_nor_hides_where_it_is_used() {
    let bed = Bed::with(asked_by_api).await;
    let token = bed.issued(json!({}), &[]).await;
    // As many networks as are told of.
    for number in 0..8 {
        let answer = told(&bed, &token, &token, &format!("198.51.{number}.7")).await;
        assert_eq!(json_of(&answer)["active"], true);
    }
    assert_eq!(count(&bed, Place::Introspection), 0);
    shown(&bed, &token, "203.0.113.1").await;
    assert_eq!(count(&bed, Place::Introspection), 1);
    // What is no address is told to whoever asks, be it itself.
    assert_eq!(told(&bed, &token, &token, "nowhere").await.status.as_u16(), 400);
}

#[tokio::test]
async fn networks_that_are_expected_are_no_event_and_neither_is_anything_where_nobody_watches() {
    let expected = Bed::with(|options| {
        options.config.origins.expected = vec!["198.51.100.0/24".parse().unwrap()];
        options.config.origins.ipv4_bits = 32;
        asked_by_api(options);
    })
    .await;
    let token = expected.issued(json!({}), &[]).await;
    for (source, told) in [("198.51.100.7", 0), ("127.0.0.2", 1)] {
        shown(&expected, &token, source).await;
        assert_eq!(count(&expected, Place::Introspection), told, "{source}");
    }
    let blind = Bed::with(|options| {
        options.config.origins.watch = false;
        asked_by_api(options);
    })
    .await;
    let token = blind.issued(json!({}), &[]).await;
    assert_eq!(json_of(&shown(&blind, &token, "198.51.100.7").await)["active"], true);
    assert_eq!(count(&blind, Place::Introspection), 0);
}

#[tokio::test]
async fn a_token_that_is_exchanged_from_another_network_is_counted() {
    let site = Site::new();
    let bed = site
        .start_with(|options| {
            options.config.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
            asked_by_api(options);
        })
        .await;
    let assertion = bed.key.token(json!({}));
    let form = bed.form(&assertion, &[("audience", OWN)]);
    let issued = from(&bed, "203.0.113.7", "/token", &form).await;
    let token = json_of(&issued)["access_token"].as_str().unwrap().to_string();
    for (source, told) in [("203.0.113.8", 0), ("198.51.100.7", 1)] {
        let form = bed.form(&token, &[("role", "again")]);
        let exchanged = from(&bed, source, "/token", &form).await;
        assert_eq!(exchanged.status.as_u16(), 200, "{}", json_of(&exchanged));
        assert_eq!(count(&bed, Place::Exchange), told, "{source}");
        // What comes of it was issued to whoever exchanged it.
        let next = json_of(&exchanged)["access_token"].as_str().unwrap().to_string();
        shown(&bed, &next, source).await;
        assert_eq!(count(&bed, Place::Introspection), 0, "{source}");
    }
    // So it is also where policy refuses: whoever has the token tried.
    let form = bed.form(&token, &[("role", "deploy")]);
    assert_ne!(from(&bed, "192.0.2.1", "/token", &form).await.status.as_u16(), 200);
    assert_eq!(count(&bed, Place::Exchange), 2);
}

/// Traefik says in one header where a request comes from, and lets the others through.
#[tokio::test]
async fn whoever_shows_a_token_to_a_proxy_cannot_hide_where_they_are() {
    let bed = Bed::with(|options| authz(Proxy::Traefik, options)).await;
    let token = bed.issued(json!({}), &[]).await;
    for (told, source, forged) in [(1, "203.0.113.9", None), (2, "198.51.100.7", Some("x"))] {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", format!("Bearer {token}")),
            ("x-forwarded-method", "GET".into()),
            ("x-forwarded-proto", "http".into()),
            ("x-forwarded-host", "api.example.com".into()),
            ("x-forwarded-uri", "/a".into()),
            ("x-forwarded-for", source.into()),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        if let Some(forged) = forged {
            headers.insert("forwarded", forged.parse().unwrap());
        }
        let (method, url) = (Method::GET, bed.url("/v1/authz/api"));
        let body = Secret::new(Vec::new());
        let passes = bed.client.send(Request { method, url, headers, body }).await.unwrap();
        assert_eq!(passes.status.as_u16(), 200);
        until("the event", || count(&bed, Place::Authz) == told).await;
    }
}

#[tokio::test]
async fn what_another_process_issued_is_looked_up_once_beside_the_answer() {
    let bed = Bed::new().await;
    let token = bed.issued(json!({}), &[]).await;
    let jti: Uuid = claims_of(&token)["jti"].as_str().unwrap().parse().unwrap();
    let metrics = Arc::<Metrics>::default();
    let origins = Origins::start(bed.store.clone(), metrics.clone());
    let config = config::Origins::default();
    let source: IpAddr = "198.51.100.7".parse().unwrap();
    let other: IpAddr = "192.0.2.1".parse().unwrap();
    for _ in 0..100 {
        origins.used(&config, Used::token(jti, source, Place::Authz));
    }
    until("the record", || metrics.elsewhere(Place::Authz) == 1).await;
    // From now on it is known: nobody has to look, and nothing has to be waited for.
    origins.used(&config, Used::token(jti, other, Place::Authz));
    assert_eq!(metrics.elsewhere(Place::Authz), 2);
    // One that is on no record was issued to nobody knows whom.
    origins.used(&config, Used::token(Uuid::new_v4(), other, Place::Exchange));
    let again = bed.issued(json!({}), &[]).await;
    let jti = claims_of(&again)["jti"].as_str().unwrap().parse().unwrap();
    origins.used(&config, Used::token(jti, other, Place::Exchange));
    until("the one behind it", || metrics.elsewhere(Place::Exchange) == 1).await;
}
