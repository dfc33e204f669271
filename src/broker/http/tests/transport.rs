//! Addresses, limits, health and TLS.

use super::header_of;
use crate::broker::store::{Store, sqlite};
use crate::broker::testbed::{Bed, Shifted, json_of};
use axum::http::StatusCode;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Another process may have revoked one of them meanwhile.
#[tokio::test]
async fn keys_that_nobody_could_look_at_for_an_hour_are_not_shown() {
    let clock = Arc::new(Shifted::default());
    let bed = Bed::with(|options| options.clock = clock.clone()).await;
    bed.broker.keys.close_its_eyes();
    for (seconds, status, caching) in [
        (0, StatusCode::OK, "public, max-age=300"),
        (3000, StatusCode::OK, "public, max-age=5"),
        (4000, StatusCode::SERVICE_UNAVAILABLE, "no-store"),
    ] {
        clock.0.store(seconds, Ordering::Relaxed);
        let answer = bed.get("/jwks.json").await;
        let said = answer.headers["cache-control"].to_str().unwrap();
        assert_eq!((answer.status, said), (status, caching), "{seconds}");
    }
}

#[tokio::test]
async fn tokens_are_signed_as_their_audience_wants_it() {
    use crate::broker::keys::SigningAlgorithm::{EdDsa, Rs256};
    let bed = Bed::with(|options| {
        let deploy = options.config.role.get_mut("deploy").unwrap();
        deploy
            .audiences
            .extend(["https://ed.example.com".into(), "https://rsa.example.com".into()]);
        let audiences = [("https://ed.example.com", EdDsa), ("https://rsa.example.com", Rs256)];
        options.config.keys.audiences = audiences.map(|(to, by)| (to.into(), by)).into();
    })
    .await;
    let metadata = json_of(&bed.get("/.well-known/openid-configuration").await);
    let all = serde_json::json!(["ES256", "EdDSA", "RS256"]);
    assert_eq!(metadata["id_token_signing_alg_values_supported"], all);
    let jwks = bed.get("/jwks.json").await;
    let keys = crate::oidc::Keys::parse(jwks.body.expose()).unwrap();
    for (audience, algorithm) in [
        (crate::broker::testbed::API, "ES256"),
        ("https://ed.example.com", "EdDSA"),
        ("https://rsa.example.com", "RS256"),
    ] {
        let token = bed.issued(serde_json::json!({}), &[("audience", audience)]).await;
        let header = crate::oidc::jwt::decode_unverified(&token).unwrap().header;
        assert_eq!(header["alg"], algorithm);
        let expected = crate::oidc::Expectations {
            issuer: bed.issuer.as_str(),
            audiences: &[audience.to_string()],
            algorithms: crate::oidc::jwt::ALGORITHMS,
            nonce: None,
            now: crate::broker::testbed::now(),
            leeway: crate::oidc::jwt::LEEWAY,
        };
        crate::oidc::jwt::verify(&token, &keys, &expected).unwrap();
        let told = json_of(&bed.introspect(Some(&token), &token).await);
        assert_eq!(told["active"], true, "{algorithm}");
    }
}

#[tokio::test]
async fn documents_say_where_everything_is() {
    let bed = Bed::new().await;
    for path in ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"] {
        let response = bed.get(path).await;
        assert!(header_of(&response, "cache-control").starts_with("public, max-age="));
        let metadata = json_of(&response);
        assert_eq!(metadata["issuer"], "https://broker.example.com");
        assert_eq!(metadata["token_endpoint"], "https://broker.example.com/token");
        assert_eq!(metadata["jwks_uri"], "https://broker.example.com/jwks.json");
        assert_eq!(metadata["grant_types_supported"], json!([crate::wire::GRANT_TYPE]));
    }
    let jwks = bed.get("/jwks.json").await;
    assert!(header_of(&jwks, "cache-control").contains("max-age=300"));
    assert_eq!(json_of(&jwks)["keys"][0]["alg"], "ES256");
    assert_eq!(bed.get("/healthz").await.status, StatusCode::OK);
    assert_eq!(bed.get("/readyz").await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_issuer_with_a_path_has_its_endpoints_below_it() {
    let bed = Bed::with(|options| {
        options.config.issuer =
            crate::oidc::Issuer::parse("https://broker.example.com/team/a").unwrap();
    })
    .await;
    let token = bed.key.token(json!({"aud": "https://broker.example.com/team/a"}));
    let form = bed.form(&token, &[]);
    assert_eq!(bed.post("/team/a/token", &form).await.status, StatusCode::OK);
    assert_eq!(bed.post("/token", &form).await.status, StatusCode::NOT_FOUND);
    for path in [
        "/team/a/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server/team/a",
    ] {
        let metadata = json_of(&bed.get(path).await);
        assert_eq!(metadata["token_endpoint"], "https://broker.example.com/team/a/token");
    }
    assert_eq!(bed.get("/team/a/jwks.json").await.status, StatusCode::OK);
    assert_eq!(bed.get("/healthz").await.status, StatusCode::OK);
}

#[tokio::test]
async fn other_methods_paths_versions_and_hosts_are_refused() {
    let bed = Bed::new().await;
    assert_eq!(bed.get("/token").await.status, StatusCode::METHOD_NOT_ALLOWED);
    for path in ["/", "/nothing", "/token/", "/../etc/passwd", "/.well-known/", "/%2e%2e/x"] {
        let response = bed.get(path).await;
        assert_eq!(response.status, StatusCode::NOT_FOUND, "{path}");
        assert!(json_of(&response)["request_id"].is_string());
    }
    let raw = async |head: &str| answer_to(&bed, head.as_bytes()).await;
    let ok = raw("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").await;
    assert!(ok.starts_with("HTTP/1.1 200"), "{ok}");
    // RFC 9112 section 3.2, and a host that is somebody else's.
    for (version, hosts, status) in [
        ("1.1", "Host: evil.example\r\n", 421),
        ("1.1", "Host: \r\n", 421),
        ("1.1", "", 400),
        ("1.1", "Host: 127.0.0.1\r\nHost: evil.example\r\n", 400),
        ("1.1", "Host: 127.0.0.1\r\nHost: 127.0.0.1\r\n", 400),
        ("1.1", "Host: a@127.0.0.1\r\n", 400),
        ("1.0", "", 421),
    ] {
        let head = format!("GET /healthz HTTP/{version}\r\n{hosts}Connection: close\r\n\r\n");
        let answer = raw(&head).await;
        let starts = format!("HTTP/{version} {status} ");
        assert!(answer.starts_with(&starts), "{head}: {answer}");
    }
    let version = raw(
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\ntmpcred-protocol: 2\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(version.starts_with("HTTP/1.1 400"), "{version}");
    assert!(version.contains("speaks version 1"), "{version}");
    for garbage in ["\x16\x03\x01\x02\x00", "GET / HTTP/9.9\r\n\r\n", "\0\0\0\0\r\n\r\n"] {
        let answer = raw(garbage).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    let huge =
        format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "a".repeat(100_000));
    let answer = raw(&huge).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(bed.get("/healthz").await.status, StatusCode::OK);
}

/// Sends bytes, and reads until the broker hangs up.
async fn answer_to(bed: &Bed, bytes: &[u8]) -> String {
    #[expect(clippy::disallowed_methods, reason = "what no HTTP client would send")]
    let mut stream = tokio::net::TcpStream::connect(bed.address).await.unwrap();
    // It may hang up before all of it is sent.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let bed = Bed::new().await;
    let body = "a=".to_string() + &"x".repeat(crate::broker::http::guard::MAX_BODY);
    // Announced, and in pieces of unknown number.
    let announced = format!(
        "POST /token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let answer = answer_to(&bed, announced.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("invalid_request"), "{answer}");
    let chunked = format!(
        "POST /token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    let answer = answer_to(&bed, chunked.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("too large"), "{answer}");
}

#[cfg(unix)]
#[tokio::test]
async fn it_is_not_ready_when_the_store_breaks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.db");
    let store: Arc<dyn Store> = Arc::new(sqlite::open(&path).await.unwrap());
    let bed = Bed::with(|options| options.store = store).await;
    let told = async |bed: &Bed| {
        let response = bed.admin.get("/metrics").await;
        let metrics = String::from_utf8(response.body.expose().clone()).unwrap();
        metrics.lines().find_map(|line| line.strip_prefix("tmpcred_ready ")).unwrap().to_string()
    };
    assert_eq!(told(&Bed::new().await).await, "1");
    crate::host::files::remove(&path).unwrap();
    assert_eq!(told(&bed).await, "0");
    let response = bed.get("/readyz").await;
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!String::from_utf8_lossy(response.body.expose()).contains("b.db"), "no internals");
    assert_eq!(bed.get("/healthz").await.status, StatusCode::OK);
    let refusal = bed.refused(&bed.key.token(json!({})), &[]).await;
    assert_eq!(refusal["error"], "temporarily_unavailable");
}

#[tokio::test]
async fn it_is_not_ready_while_it_cannot_tell_which_key_signs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.db");
    let store: Arc<dyn Store> = Arc::new(sqlite::open(&path).await.unwrap());
    let bed = Bed::with(|options| options.store = store).await;
    assert_eq!(bed.get("/readyz").await.status, StatusCode::OK);
    sqlite::tests::tamper(&path, "update signing_key set changed_at = changed_at + 1").await;
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while bed.get("/readyz").await.status == StatusCode::OK {
        assert!(tokio::time::Instant::now() < deadline, "it stays ready");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(!bed.exchange(&bed.key.token(json!({})), &[]).await.status.is_success());
}

/// Nobody has asked it for anything meanwhile: where it is not ready, nobody would.
#[tokio::test]
async fn it_is_not_ready_for_as_long_as_its_log_cannot_be_appended_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.db");
    let store: Arc<dyn Store> = Arc::new(sqlite::open(&path).await.unwrap());
    let bed = Bed::with(|options| options.store = store).await;
    let answers = async |status: StatusCode| {
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
        while bed.get("/readyz").await.status != status {
            assert!(tokio::time::Instant::now() < deadline, "it never answers {status}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    answers(StatusCode::OK).await;
    let broken = "create table kept as select seal from audit_head;
         update audit_head set seal = zeroblob(32)";
    sqlite::tests::tamper(&path, broken).await;
    answers(StatusCode::SERVICE_UNAVAILABLE).await;
    let mended = "update audit_head set seal = (select seal from kept)";
    sqlite::tests::tamper(&path, mended).await;
    answers(StatusCode::OK).await;
}

#[tokio::test]
async fn two_brokers_in_one_process_know_nothing_of_each_other() {
    let (a, b) = (Bed::new().await, Bed::new().await);
    let token = a.key.token(json!({}));
    assert_eq!(a.exchange(&token, &[]).await.status, StatusCode::OK);
    assert_eq!(b.refused(&token, &[]).await["error"], "invalid_request");
    assert_ne!(json_of(&a.get("/jwks.json").await), json_of(&b.get("/jwks.json").await));
    assert_eq!(a.records(0, 9).await.len(), 1);
    assert_eq!(b.records(0, 9).await.len(), 0);
}

#[tokio::test]
async fn it_speaks_tls() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let pem = made.cert.pem();
    let bed = Bed::over_tls(&pem, &made.signing_key.serialize_pem(), &pem).await;
    let response = bed.exchange(&bed.key.token(json!({})), &[]).await;
    assert_eq!(response.status, StatusCode::OK);
    // In the clear there is no answer.
    let plain = answer_to(&bed, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(!plain.contains("200 OK"), "{plain}");
}
