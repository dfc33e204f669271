//! Revocation (RFC 7009).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::http::StatusCode;
use oauth2::basic::BasicClient;
use oauth2::{AccessToken, ClientId, IntrospectionUrl, RevocationUrl, TokenIntrospectionResponse};
use serde_json::json;

use super::header_of;
use crate::broker::audit::Decision;
use crate::broker::keys::RootKey;
use crate::broker::store::{Store, sqlite};
use crate::broker::testbed::failing::{AFTER, BEFORE, Failing, WELL};
use crate::broker::testbed::{API, Bed, CORP, claims_of, json_of};
use crate::error::Error;
use crate::host::http::Request;
use crate::secret::Secret;

async fn active(bed: &Bed, token: &str) -> bool {
    let response = bed.introspect(Some(token), token).await;
    assert_eq!(response.status, StatusCode::OK);
    json_of(&response)["active"].as_bool().unwrap()
}

#[tokio::test]
async fn whoever_holds_a_token_may_end_it_and_that_is_on_record_once() {
    let bed = Bed::new().await;
    let (token, other) = (
        bed.issued(json!({}), &[("requested_ttl", "600")]).await,
        bed.issued(json!({}), &[]).await,
    );
    assert!(active(&bed, &token).await);
    // What nobody knows is ignored (RFC 6749 section 3.1), and so is a hint that means nothing.
    let form = [("more", "x"), ("token", &token), ("token_type_hint", "nonsense")]
        .map(|(name, value)| (name.to_string(), value.to_string()));
    let response = bed.post("/revoke", &form).await;
    assert_eq!(response.status, StatusCode::OK);
    assert_eq!(header_of(&response, "cache-control"), "no-store");
    assert!(response.body.expose().is_empty());
    assert!(!active(&bed, &token).await);
    assert!(active(&bed, &other).await, "of the same person, for the same");
    assert_eq!(bed.revoke(&token).await, 200, "a second time");

    let records = bed.records(2, 9).await;
    let [(_, record)] = &records[..] else { panic!("{records:?}") };
    assert_eq!((record.decision, record.action.as_str()), (Decision::Revoked, "revoke"));
    assert_eq!(record.request_id.to_string(), header_of(&response, "x-request-id"));
    assert_eq!(record.jti.unwrap().to_string(), claims_of(&token)["jti"]);
    assert_eq!((record.principal.issuer.as_str(), &record.principal.subject[..]), (CORP, "alice"));
    assert_eq!((record.role.as_str(), record.audience.as_str(), record.ttl), ("deploy", API, 600));
    assert!(!format!("{record:?}").contains(&token));
}

#[tokio::test]
async fn a_storm_of_requests_leaves_one_record() {
    let bed = Arc::new(Bed::new().await);
    let token = bed.issued(json!({}), &[]).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (bed, token) = (bed.clone(), token.clone());
        tasks.spawn(async move { bed.revoke(&token).await });
    }
    assert_eq!(tasks.join_all().await, [200; 50]);
    assert_eq!(bed.records(1, 99).await.len(), 1);
    assert!(!active(&bed, &token).await);
}

#[tokio::test]
async fn what_is_no_token_of_ours_is_answered_and_changes_nothing() {
    let (bed, stranger) = (Bed::new().await, Bed::new().await);
    let own = bed.issued(json!({}), &[]).await;
    let (head, tail) = own.split_at(own.rfind('.').unwrap());
    let forged = format!("{head}{}", tail.replace(&tail[5..9], "AAAA"));
    for token in [
        "x",
        "a.b.c",
        &forged,
        &stranger.issued(json!({}), &[]).await,
        &bed.key.token(json!({})),
        &bed.key.token(json!({"iss": "https://broker.example.com"})),
    ] {
        assert_eq!(bed.revoke(token).await, 200, "{token}");
    }
    assert_eq!(bed.records(1, 9).await, []);
    assert!(active(&bed, &own).await);
}

#[tokio::test]
async fn malformed_requests_are_refused() {
    let bed = Bed::new().await;
    let token = bed.issued(json!({}), &[]).await;
    let twice = format!("token={token}&token={token}");
    for body in ["", "token=", "token_type_hint=access_token", &twice] {
        let kind = "application/x-www-form-urlencoded";
        let response = bed.post_raw("/revoke", kind, body.as_bytes()).await;
        assert_eq!(response.status, StatusCode::BAD_REQUEST);
        assert_eq!(json_of(&response)["error"], "invalid_request");
    }
    let json = bed.post_raw("/revoke", "application/json", b"{}").await;
    assert_eq!(json.status, StatusCode::BAD_REQUEST);
    assert_eq!(bed.get("/revoke").await.status, StatusCode::METHOD_NOT_ALLOWED);
    let large = "x".repeat(crate::broker::http::guard::MAX_BODY);
    assert_eq!(bed.revoke(&large).await, 413);
    assert!(active(&bed, &token).await);
}

async fn failing() -> (Bed, Arc<Failing>) {
    Failing::bed(|_| {}).await
}

#[tokio::test]
async fn where_it_cannot_be_kept_nothing_is_claimed() {
    let (bed, store) = failing().await;
    let token = bed.issued(json!({}), &[]).await;
    store.writes(BEFORE);
    let refused = bed.post("/revoke", &[("token".into(), token.clone())]).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(json_of(&refused)["error"], "temporarily_unavailable");
    assert_eq!(header_of(&refused, "retry-after"), "5");
    assert!(active(&bed, &token).await);
    assert_eq!(bed.records(1, 9).await, []);

    store.reads.store(false, Ordering::Relaxed);
    assert_eq!(bed.revoke(&token).await, 503);
    let cannot_tell = bed.introspect(Some(&token), &token).await;
    assert_eq!(cannot_tell.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!json_of(&cannot_tell).to_string().contains("active"));

    store.reads.store(true, Ordering::Relaxed);
    store.writes(WELL);
    assert_eq!(bed.revoke(&token).await, 200);
    assert!(!active(&bed, &token).await);
}

#[tokio::test]
async fn where_the_disk_fails_too_late_the_token_is_what_its_record_says() {
    let (bed, store) = failing().await;
    let token = bed.issued(json!({}), &[]).await;
    store.writes(AFTER);
    assert_eq!(bed.revoke(&token).await, 503);
    store.writes(WELL);
    assert!(!active(&bed, &token).await);
    assert_eq!(bed.revoke(&token).await, 200);
    let records = bed.records(1, 9).await;
    let decisions: Vec<_> = records.iter().map(|(_, record)| record.decision).collect();
    assert_eq!(decisions, [Decision::Revoked]);
}

#[tokio::test]
async fn a_storm_at_two_processes_leaves_one_record() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.db");
    let root_key = || RootKey::new(Secret::new([7; 32]));
    let start = async || {
        let store: Arc<dyn Store> = Arc::new(sqlite::open(&path).await.unwrap());
        Arc::new(Bed::with(|options| (options.store, options.root_key) = (store, root_key())).await)
    };
    let beds = [start().await, start().await];
    let token = beds[0].issued(json!({}), &[]).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..40 {
        let (bed, token) = (beds[n % 2].clone(), token.clone());
        tasks.spawn(async move { bed.revoke(&token).await });
    }
    assert_eq!(tasks.join_all().await, [200; 40]);
    assert_eq!(beds[0].records(1, 99).await.len(), 1);
    assert!(!active(&beds[0], &token).await && !active(&beds[1], &token).await);
}

#[tokio::test]
async fn a_revocation_goes_on_though_nobody_waits_for_the_answer() {
    let bed = Bed::new().await;
    let token = bed.issued(json!({}), &[]).await;
    let body = format!("token={token}");
    let request = format!(
        "POST /revoke HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\n{body}",
        body.len()
    );
    for _ in 0..20 {
        use tokio::io::AsyncWriteExt as _;
        let mut stream =
            tokio::net::TcpSocket::new_v4().unwrap().connect(bed.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        drop(stream);
    }
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while active(&bed, &token).await {
        assert!(tokio::time::Instant::now() < deadline, "it is never revoked");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let records = bed.records(1, 99).await;
    assert!(records.iter().all(|(_, record)| record.decision == Decision::Revoked), "{records:?}");
}

/// The `oauth2` crate knows nothing of this broker.
#[tokio::test]
async fn an_independent_client_gets_along() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let pem = made.cert.pem();
    let bed = Bed::over_tls(&pem, &made.signing_key.serialize_pem(), &pem).await;
    let token = bed.issued(json!({}), &[("requested_ttl", "600")]).await;
    let url = |path: &str| bed.url(path).to_string();
    let oauth = BasicClient::new(ClientId::new("cli".into()))
        .set_introspection_url(IntrospectionUrl::new(url("/introspect")).unwrap())
        .set_revocation_url(RevocationUrl::new(url("/revoke")).unwrap());
    let send = |request: oauth2::HttpRequest| {
        let (parts, body) = request.into_parts();
        let mut headers = parts.headers;
        headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        let url = parts.uri.to_string().parse().unwrap();
        let request = Request { method: parts.method, url, headers, body: Secret::new(body) };
        let client = bed.client.clone();
        async move {
            let response = client.send(request).await?;
            let mut answer = oauth2::HttpResponse::new(response.body.expose().clone());
            *answer.status_mut() = response.status;
            *answer.headers_mut() = response.headers;
            Ok::<_, Error>(answer)
        }
    };
    let access = AccessToken::new(token.clone());
    let told = oauth.introspect(&access).request_async(&send).await.unwrap();
    let claims = claims_of(&token);
    assert!(told.active());
    assert_eq!(told.client_id().unwrap().as_str(), "cli");
    assert_eq!(told.iss(), claims["iss"].as_str());
    assert_eq!(told.sub(), Some(format!("{CORP}#alice").as_str()));
    assert_eq!(told.jti(), claims["jti"].as_str());
    assert_eq!(told.exp().unwrap().timestamp(), claims["exp"].as_i64().unwrap());
    assert_eq!(told.scopes().unwrap().len(), 2);
    oauth.revoke_token((&access).into()).unwrap().request_async(&send).await.unwrap();
    assert!(!oauth.introspect(&access).request_async(&send).await.unwrap().active());
    oauth.revoke_token((&access).into()).unwrap().request_async(&send).await.unwrap();
}
