//! Requests that a proxy holds up: who may pass, and as whose.

mod counted;
mod wanted;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::json;
use time::OffsetDateTime;

use super::dpop::{Device, bound, rejected};
use super::header_of;
use super::rates::rate;
use crate::broker::config::{Authz, Binding, Endpoint, Nonces, Proxy, Route};
use crate::broker::testbed::failing::{BEFORE, Failing};
use crate::broker::testbed::{API, Bed, CORP, Options, claims_of, now, set};
use crate::dpop::{Signing, Target};
use crate::host::http::{Request, Response};
use crate::secret::Secret;

const ORIGIN: &str = "https://api.example.com";

fn route(origin: &str) -> Route {
    Route {
        origins: vec![origin.parse().unwrap()],
        audience: API.into(),
        roles: set("deploy"),
        scopes: set("deploy:read"),
        dpop: Binding::Optional,
        headers: BTreeMap::new(),
    }
}

pub(super) fn authz(proxy: Proxy, options: &mut Options) {
    options.config.authz = Some(Authz {
        proxy,
        listen: None,
        expose: false,
        proxies: Some(vec!["127.0.0.1".parse().unwrap()]),
        // Longer than any answer takes, however slow the machine is.
        revocations_within: Duration::from_secs(60),
        nonces: Nonces::Optional,
        route: [
            ("api".to_string(), route(ORIGIN)),
            ("other".into(), route("https://other.example.com:8443")),
        ]
        .into(),
    });
}

async fn nginx() -> Bed {
    Bed::with(|options| authz(Proxy::Nginx, options)).await
}

/// Asks as a proxy does, at this path and with these headers.
async fn ask(bed: &Bed, method: Method, path: &str, lines: &[(&'static str, &str)]) -> Response {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    let body = Secret::new(Vec::new());
    bed.client.send(Request { method, url: bed.url(path), headers, body }).await.unwrap()
}

/// What nginx says of `GET https://api.example.com/a?b=c`, and what the caller said.
fn of_nginx<'a>(more: &[(&'static str, &'a str)]) -> Vec<(&'static str, &'a str)> {
    let own = [
        ("x-original-method", "GET"),
        ("x-original-host", "api.example.com"),
        ("x-original-uri", "/a?b=c"),
    ];
    own.into_iter().chain(more.iter().copied()).collect()
}

async fn as_nginx(bed: &Bed, more: &[(&'static str, &str)]) -> Response {
    ask(bed, Method::GET, "/v1/authz", &of_nginx(more)).await
}

pub(super) async fn with_bearer(bed: &Bed, token: &str) -> Response {
    as_nginx(bed, &[("authorization", &format!("Bearer {token}"))]).await
}

pub(super) fn challenge(response: &Response) -> String {
    assert_eq!(response.status, StatusCode::UNAUTHORIZED);
    header_of(response, "www-authenticate")
}

#[tokio::test]
async fn a_token_lets_pass_and_says_as_whose() {
    let bed = nginx().await;
    let token = bed.issued(json!({"sub": "al ice\u{e9}"}), &[]).await;
    let response = with_bearer(&bed, &token).await;
    assert_eq!(response.status, StatusCode::OK);
    assert_eq!(header_of(&response, "tmpcred-subject"), format!("{CORP}#al%20ice%C3%A9"));
    assert_eq!(header_of(&response, "tmpcred-issuer"), CORP);
    assert_eq!(header_of(&response, "tmpcred-actor"), "", "nobody acts, whatever the caller says");
    assert_eq!(header_of(&response, "tmpcred-role"), "deploy");
    assert_eq!(header_of(&response, "tmpcred-scope"), "deploy:read deploy:write");
    assert_eq!(header_of(&response, "tmpcred-jti"), claims_of(&token)["jti"].as_str().unwrap());
    assert_eq!(header_of(&response, "cache-control"), "no-store");
    let authorization = format!("bearer {token}");
    let lines = of_nginx(&[("authorization", &authorization)]);
    let named = ask(&bed, Method::GET, "/v1/authz/api", &lines).await;
    assert_eq!(named.status, StatusCode::OK);
}

#[tokio::test]
async fn what_is_no_good_token_for_this_is_told_what_would_be() {
    let bed = nginx().await;
    let nothing = challenge(&as_nginx(&bed, &[]).await);
    assert_eq!(nothing, "Bearer realm=\"tmpcred\", DPoP algs=\"ES256 Ed25519 EdDSA RS256\"");
    assert_eq!(challenge(&as_nginx(&bed, &[("authorization", "Basic eDp5")]).await), nothing);
    let revoked = bed.issued(json!({}), &[]).await;
    bed.revoke(&revoked).await;
    let foreign = bed.key.token(json!({}));
    for bad in [revoked.as_str(), &foreign, "x", "x.y.z"] {
        let said = challenge(&with_bearer(&bed, bad).await);
        assert!(said.starts_with("Bearer realm=\"tmpcred\", error=\"invalid_token\""), "{said}");
    }
    let token = bed.issued(json!({}), &[]).await;
    let twice = format!("Bearer {token}");
    let response = as_nginx(&bed, &[("authorization", &twice), ("authorization", &twice)]).await;
    assert!(challenge(&response).contains("invalid_request"));
}

#[tokio::test]
async fn a_good_token_for_something_else_does_not_pass() {
    let bed = Bed::with(|options| {
        authz(Proxy::Nginx, options);
        let deploy = options.config.role.get_mut("deploy").unwrap();
        deploy.audiences.insert("https://elsewhere.example.com".into());
        let routes = &mut options.config.authz.as_mut().unwrap().route;
        let changed = |change: fn(&mut Route)| {
            let mut route = route(ORIGIN);
            change(&mut route);
            route
        };
        options.config.role.insert("admin".into(), options.config.role["deploy"].clone());
        routes.insert("admin".into(), changed(|route| route.roles = set("admin")));
        routes.insert("more".into(), changed(|route| route.scopes = set("deploy:admin")));
        routes.insert("bound".into(), changed(|route| route.dpop = Binding::Required));
    })
    .await;
    let token = format!("Bearer {}", bed.issued(json!({}), &[]).await);
    let at = async |path: &str| {
        ask(&bed, Method::GET, path, &of_nginx(&[("authorization", &token)])).await
    };
    assert_eq!(at("/v1/authz/api").await.status, StatusCode::OK);
    let role = at("/v1/authz/admin").await;
    assert_eq!(role.status, StatusCode::FORBIDDEN);
    let scope = at("/v1/authz/more").await;
    assert_eq!(scope.status, StatusCode::FORBIDDEN);
    assert_eq!(
        header_of(&scope, "www-authenticate"),
        "Bearer error=\"insufficient_scope\", scope=\"deploy:admin\""
    );
    let device = Device::new();
    let held = bound(&bed, &device, &[]).await;
    let (proof, held) = (proof_of(&device, &held), format!("DPoP {held}"));
    let lines = of_nginx(&[("authorization", &held), ("dpop", &proof)]);
    let scope = ask(&bed, Method::GET, "/v1/authz/more", &lines).await;
    assert_eq!(scope.status, StatusCode::FORBIDDEN);
    assert_eq!(
        header_of(&scope, "www-authenticate"),
        "DPoP algs=\"ES256 Ed25519 EdDSA RS256\", error=\"insufficient_scope\", scope=\"deploy:admin\""
    );
    assert!(challenge(&at("/v1/authz/bound").await).contains("DPoP algs"));
    let elsewhere = [("audience", "https://elsewhere.example.com")];
    let elsewhere = format!("Bearer {}", bed.issued(json!({}), &elsewhere).await);
    let lines = of_nginx(&[("authorization", &elsewhere)]);
    let response = ask(&bed, Method::GET, "/v1/authz/api", &lines).await;
    assert!(challenge(&response).contains("another audience"));
    let told = bed.admin.get("/metrics").await.body;
    let told = String::from_utf8(told.expose().clone()).unwrap();
    assert!(told.contains("tmpcred_own_tokens_refused_total{reason=\"audience\"} 1\n"), "{told}");
    // Without a name there are several, and none is guessed.
    assert_eq!(at("/v1/authz").await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn what_the_proxy_does_not_say_clearly_does_not_pass() {
    let bed = nginx().await;
    let token = format!("Bearer {}", bed.issued(json!({}), &[]).await);
    let token = token.as_str();
    let good = of_nginx(&[("authorization", token)]);
    let without = |name: &str| good.iter().copied().filter(|(n, _)| *n != name).collect::<Vec<_>>();
    let with =
        |name: &'static str, value: &'static str| [without(name), vec![(name, value)]].concat();
    for (what, lines) in [
        ("no method", without("x-original-method")),
        ("no host", without("x-original-host")),
        ("no path", without("x-original-uri")),
        ("two paths", [good.clone(), vec![("x-original-uri", "/b")]].concat()),
        ("two hosts", [good.clone(), vec![("x-original-host", "api.example.com")]].concat()),
        ("another host", with("x-original-host", "evil.example.com")),
        ("another port", with("x-original-host", "api.example.com:8443")),
        ("a host with more", with("x-original-host", "evil.example.com@api.example.com")),
        ("no host at all", with("x-original-host", "")),
        ("an address for a path", with("x-original-uri", "https://api.example.com/a")),
        ("no path in it", with("x-original-uri", "")),
        (
            "the words of another proxy",
            vec![
                ("authorization", token),
                ("x-forwarded-method", "GET"),
                ("x-forwarded-host", "api.example.com"),
                ("x-forwarded-uri", "/a"),
            ],
        ),
    ] {
        let response = ask(&bed, Method::GET, "/v1/authz", &lines).await;
        assert_eq!(response.status, StatusCode::FORBIDDEN, "{what}");
    }
    for path in ["/v1/authz/none", "/v1/authz/other", "/v1/authz/api/a", "/v1/authz/"] {
        let response = ask(&bed, Method::GET, path, &good).await;
        assert_ne!(response.status, StatusCode::OK, "{path}");
    }
    let capitals = with("x-original-host", "API.example.com:443");
    let response = ask(&bed, Method::GET, "/v1/authz", &capitals).await;
    assert_eq!(response.status, StatusCode::OK);
}

#[tokio::test]
async fn nobody_but_the_proxy_may_ask() {
    let bed = Bed::with(|options| {
        authz(Proxy::Nginx, options);
        options.config.authz.as_mut().unwrap().proxies = Some(vec!["10.0.0.1".parse().unwrap()]);
        // Nor may whoever comes by a proxy in front.
        options.config.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    })
    .await;
    let token = bed.issued(json!({}), &[]).await;
    let authorization = format!("Bearer {token}");
    let more = [("authorization", authorization.as_str()), ("x-forwarded-for", "10.0.0.1")];
    assert_eq!(as_nginx(&bed, &more).await.status, StatusCode::FORBIDDEN);
    let bed = Bed::new().await;
    let token = bed.issued(json!({}), &[]).await;
    assert_eq!(with_bearer(&bed, &token).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn other_proxies_speak_in_their_own_way() {
    let bed = Bed::with(|options| authz(Proxy::Traefik, options)).await;
    let token = format!("Bearer {}", bed.issued(json!({}), &[]).await);
    let lines = [
        ("authorization", token.as_str()),
        ("x-forwarded-method", "POST"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "api.example.com"),
        ("x-forwarded-uri", "/a"),
        // Traefik lets through what callers wrote.
        ("x-original-uri", "/public"),
    ];
    assert_eq!(ask(&bed, Method::GET, "/v1/authz", &lines).await.status, StatusCode::OK);

    let bed = Bed::with(|options| authz(Proxy::Envoy, options)).await;
    let token = format!("Bearer {}", bed.issued(json!({}), &[]).await);
    for (path, host, status) in [
        ("/v1/authz/api/a/b?c=d", "api.example.com", 200),
        ("/v1/authz/api/", "api.example.com", 200),
        ("/v1/authz/api//a", "api.example.com", 200),
        ("/v1/authz/api", "api.example.com", 403),
        ("/v1/authz/other/a", "api.example.com", 403),
        ("/v1/authz/a/b", "api.example.com", 403),
        ("/v1/authz/api/a", "evil.example.com", 421),
    ] {
        let lines = [("authorization", token.as_str()), ("host", host)];
        let response = ask(&bed, Method::PUT, path, &lines).await;
        assert_eq!(response.status.as_u16(), status, "{path} {host}");
    }
}

/// A proof for this request.
struct Proving<'a> {
    device: &'a Device,
    token: &'a str,
    method: &'a str,
    url: &'a str,
    at: OffsetDateTime,
    nonce: Option<&'a str>,
}

/// A proof for what nginx asks about.
pub(super) fn proof_of(device: &Device, token: &str) -> String {
    let (method, url) = ("GET", "https://api.example.com/a");
    Proving { device, token, method, url, at: now(), nonce: None }.proof()
}

impl Proving<'_> {
    fn proof(&self) -> String {
        let (target, token) = (Target::parse(self.url).unwrap(), Secret::new(self.token.into()));
        let (method, nonce) = (self.method, self.nonce);
        let signing = Signing { method, target: &target, token: Some(&token), nonce };
        self.device.0.sign(signing, self.at).unwrap().expose().clone()
    }
}

pub(super) async fn proved(bed: &Bed, token: &str, proofs: &[&str]) -> Response {
    let authorization = format!("DPoP {token}");
    let mut more = vec![("authorization", authorization.as_str())];
    more.extend(proofs.iter().map(|proof| ("dpop", *proof)));
    as_nginx(bed, &more).await
}

#[tokio::test]
async fn a_proof_may_be_for_each_origin_of_the_host() {
    let bed = Bed::with(|options| {
        authz(Proxy::Nginx, options);
        let route = options.config.authz.as_mut().unwrap().route.get_mut("api").unwrap();
        let other = ["http://api.example.com", "https://api.example.com:8443"];
        route.origins.extend(other.map(|origin| origin.parse().unwrap()));
    })
    .await;
    let device = Device::new();
    let token = bound(&bed, &device, &[]).await;
    for (scheme, port, status) in [
        ("https", "", StatusCode::OK),
        ("http", "", StatusCode::OK),
        // That is another host.
        ("https", ":8443", StatusCode::UNAUTHORIZED),
    ] {
        let url = format!("{scheme}://api.example.com{port}/a");
        let (method, at, nonce) = ("GET", now(), None);
        let proving = Proving { device: &device, token: &token, method, url: &url, at, nonce };
        assert_eq!(proved(&bed, &token, &[&proving.proof()]).await.status, status, "{url}");
    }
}

#[tokio::test]
async fn a_token_that_is_bound_passes_with_a_proof_for_this_request_and_once() {
    let bed = nginx().await;
    let device = Device::new();
    let token = bound(&bed, &device, &[]).await;
    let other = bound(&bed, &device, &[]).await;
    let url = "https://api.example.com/a";
    let good =
        Proving { device: &device, token: &token, method: "GET", url, at: now(), nonce: None };
    let proof = good.proof();
    assert_eq!(proved(&bed, &token, &[&proof]).await.status, StatusCode::OK);
    let again = challenge(&proved(&bed, &token, &[&proof]).await);
    assert!(again.starts_with("DPoP algs=") && again.contains("invalid_dpop_proof"), "{again}");
    assert_eq!(rejected(&bed, "replayed").await, "1");

    let stolen = with_bearer(&bed, &token).await;
    assert!(challenge(&stolen).contains("error=\"invalid_token\""));
    let stranger = Device::new();
    let second = time::Duration::SECOND;
    let fresh = good.proof();
    for (what, proofs, reason) in [
        ("none", vec![], "missing"),
        ("two", vec![fresh.clone(), good.proof()], "malformed"),
        ("another method", vec![Proving { method: "POST", ..good }.proof()], "request"),
        (
            "another path",
            vec![Proving { url: "https://api.example.com/b", ..good }.proof()],
            "request",
        ),
        (
            "another host",
            vec![Proving { url: "https://evil.example.com/a", ..good }.proof()],
            "request",
        ),
        ("another token", vec![Proving { token: &other, ..good }.proof()], "token"),
        ("another key", vec![Proving { device: &stranger, ..good }.proof()], "key"),
        ("old", vec![Proving { at: now() - 70 * second, ..good }.proof()], "time"),
        ("a made-up nonce", vec![Proving { nonce: Some("x"), ..good }.proof()], "nonce"),
    ] {
        let before: u32 = rejected(&bed, reason).await.parse().unwrap();
        let proofs: Vec<&str> = proofs.iter().map(String::as_str).collect();
        let said = challenge(&proved(&bed, &token, &proofs).await);
        assert!(
            said.starts_with("DPoP algs=\"ES256 Ed25519 EdDSA RS256\", error="),
            "{what}: {said}"
        );
        let after: u32 = rejected(&bed, reason).await.parse().unwrap();
        assert_eq!(after, before + 1, "{what}");
    }
    // A token that is not bound is not made better by a proof.
    let plain = bed.issued(json!({}), &[]).await;
    let proof = Proving { token: &plain, ..good }.proof();
    assert!(challenge(&proved(&bed, &plain, &[&proof]).await).contains("not bound"));
    assert_eq!(proved(&bed, &token, &[&fresh]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn of_many_at_once_with_one_proof_one_passes() {
    let bed = Arc::new(nginx().await);
    let device = Device::new();
    let token = bound(&bed, &device, &[]).await;
    let url = "https://api.example.com/a";
    let proof =
        Proving { device: &device, token: &token, method: "GET", url, at: now(), nonce: None };
    let proof = proof.proof();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (bed, token, proof) = (bed.clone(), token.clone(), proof.clone());
        tasks.spawn(async move { proved(&bed, &token, &[&proof]).await.status });
    }
    let statuses = tasks.join_all().await;
    assert_eq!(statuses.iter().filter(|status| status.is_success()).count(), 1, "{statuses:?}");
}

#[tokio::test]
async fn a_nonce_may_be_wanted_of_proofs_here_too() {
    let bed = Bed::with(|options| {
        authz(Proxy::Nginx, options);
        options.config.authz.as_mut().unwrap().nonces = Nonces::Required;
    })
    .await;
    let device = Device::new();
    let token = bound(&bed, &device, &[]).await;
    let url = "https://api.example.com/a";
    let proving =
        Proving { device: &device, token: &token, method: "GET", url, at: now(), nonce: None };
    let response = proved(&bed, &token, &[&proving.proof()]).await;
    assert!(challenge(&response).contains("use_dpop_nonce"));
    let nonce = header_of(&response, "dpop-nonce");
    let proof = Proving { nonce: Some(&nonce), ..proving }.proof();
    assert_eq!(proved(&bed, &token, &[&proof]).await.status, StatusCode::OK);

    // RFC 9449 section 11.3: where none is wanted none is given, as who was given one may
    // not do without it any more.
    let bed = nginx().await;
    let token = bound(&bed, &device, &[]).await;
    let proving = Proving { token: &token, ..proving };
    let elsewhere = Proving { url: "https://api.example.com/b", ..proving };
    let refused = proved(&bed, &token, &[&elsewhere.proof()]).await;
    assert!(challenge(&refused).contains("invalid_dpop_proof"));
    assert_eq!(header_of(&refused, "dpop-nonce"), "");
    let stale = Proving { nonce: Some(&nonce), ..proving };
    let refused = proved(&bed, &token, &[&stale.proof()]).await;
    assert!(challenge(&refused).contains("use_dpop_nonce"));
    assert_ne!(header_of(&refused, "dpop-nonce"), "");
}

#[tokio::test]
async fn where_it_cannot_be_known_in_time_whether_a_token_was_revoked_nobody_passes() {
    let (bed, store) = Failing::bed(|options| authz(Proxy::Nginx, options)).await;
    let token = bed.issued(json!({}), &[]).await;
    assert_eq!(with_bearer(&bed, &token).await.status, StatusCode::OK);
    store.reads.store(false, Ordering::Relaxed);
    assert_eq!(with_bearer(&bed, &token).await.status, StatusCode::SERVICE_UNAVAILABLE);
    store.reads.store(true, Ordering::Relaxed);
    assert_eq!(with_bearer(&bed, &token).await.status, StatusCode::OK);
    // A proof that cannot be used up is none.
    let device = Device::new();
    let bound = bound(&bed, &device, &[]).await;
    let url = "https://api.example.com/a";
    let proving =
        Proving { device: &device, token: &bound, method: "GET", url, at: now(), nonce: None };
    store.writes(BEFORE);
    let response = proved(&bed, &bound, &[&proving.proof()]).await;
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
}

/// The store never answers: what it said one day would be older than is allowed.
#[tokio::test]
async fn what_is_known_of_revocations_too_late_is_not_known() {
    let (bed, store) = Failing::bed(|options| {
        authz(Proxy::Nginx, options);
        options.config.authz.as_mut().unwrap().revocations_within = Duration::from_secs(1);
    })
    .await;
    let token = bed.issued(json!({}), &[]).await;
    store.hangs.store(true, Ordering::Relaxed);
    let response = with_bearer(&bed, &token).await;
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(header_of(&response, "retry-after"), "5");
}

#[tokio::test]
async fn decisions_have_a_budget_of_their_own_and_none_by_address() {
    let bed = Bed::with(|options| {
        authz(Proxy::Nginx, options);
        let rate = |burst| rate(1, burst);
        options.config.limits.address = Some(rate(1));
        options.config.limits.route = [(Endpoint::Authz, rate(3))].into();
    })
    .await;
    let token = bed.issued(json!({}), &[]).await;
    for _ in 0..3 {
        assert_eq!(with_bearer(&bed, &token).await.status, StatusCode::OK);
    }
    let limited = with_bearer(&bed, &token).await;
    assert_eq!(limited.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(header_of(&limited, "retry-after"), "60");
}
