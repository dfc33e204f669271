//! Issuers that are elsewhere: slow, down, lying, or not on the list.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::broker::config::TrustedIssuer;
use crate::broker::testbed::{Bed, CORP, IssuerKey, Served, json_of, now};
use crate::host::clock::Clock;
use crate::oidc::Issuer;

/// An issuer on a socket, which counts what it is asked.
struct FakeIssuer {
    issuer: Issuer,
    state: Arc<FakeState>,
    _served: Served,
}

struct FakeState {
    key: Mutex<IssuerKey>,
    documents: AtomicUsize,
    keys: AtomicUsize,
    down: AtomicBool,
    /// What it says its identifier is; its own where `None`.
    says: Mutex<Option<String>>,
}

impl FakeIssuer {
    fn start() -> Self {
        let state = Arc::new(FakeState {
            key: Mutex::new(IssuerKey::new()),
            documents: AtomicUsize::new(0),
            keys: AtomicUsize::new(0),
            down: AtomicBool::new(false),
            says: Mutex::default(),
        });
        let (for_documents, for_keys) = (state.clone(), state.clone());
        let app = |address: SocketAddr| {
            let document =
                move || async move { for_documents.document(&format!("http://{address}")) };
            let keys = move || async move { for_keys.jwks() };
            Router::new()
                .route("/.well-known/openid-configuration", axum::routing::get(document))
                .route("/keys", axum::routing::get(keys))
        };
        let served = Served::start(app, None);
        let issuer = Issuer::parse(&format!("http://{}", served.address)).unwrap();
        Self { issuer, state, _served: served }
    }

    fn token(&self, claims: Value) -> String {
        let mut all = json!({"iss": self.issuer.as_str(), "groups": []});
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        self.state.key.lock().unwrap().token(all)
    }

    fn asked(&self) -> (usize, usize) {
        let state = &self.state;
        (state.documents.load(Ordering::SeqCst), state.keys.load(Ordering::SeqCst))
    }

    fn down(&self, down: bool) {
        self.state.down.store(down, Ordering::SeqCst);
    }
}

impl FakeState {
    fn answer(&self, counter: &AtomicUsize, body: Value) -> Response {
        counter.fetch_add(1, Ordering::SeqCst);
        if self.down.load(Ordering::SeqCst) {
            return StatusCode::BAD_GATEWAY.into_response();
        }
        ([("cache-control", "max-age=60")], axum::Json(body)).into_response()
    }

    fn document(&self, own: &str) -> Response {
        let issuer = self.says.lock().unwrap().clone().unwrap_or_else(|| own.to_string());
        self.answer(&self.documents, json!({"issuer": issuer, "jwks_uri": format!("{own}/keys")}))
    }

    fn jwks(&self) -> Response {
        let keys = self.key.lock().unwrap().jwks();
        self.answer(&self.keys, keys)
    }
}

/// A clock that a test moves.
struct Hand(Mutex<Duration>);

impl Clock for Hand {
    fn now(&self) -> OffsetDateTime {
        now() + *self.0.lock().unwrap()
    }
}

impl Hand {
    fn forward(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }
}

/// A broker that trusts this issuer, and its clock. Its policy permits nothing to
/// it, so that a token that is accepted ends in `access_denied`.
async fn trusting(issuer: &FakeIssuer) -> (Bed, Arc<Hand>) {
    let clock = Arc::new(Hand(Mutex::default()));
    let bed = Bed::with(|options| {
        let trusted = TrustedIssuer::new(issuer.issuer.clone());
        options.config.trusted_issuer.insert("fake".into(), trusted);
        options.clock = clock.clone();
    })
    .await;
    (bed, clock)
}

async fn code(bed: &Bed, token: &str) -> String {
    json_of(&bed.exchange(token, &[]).await)["error"].as_str().unwrap().to_string()
}

#[tokio::test]
async fn an_issuer_is_asked_once_for_all_who_wait() {
    let issuer = FakeIssuer::start();
    let (bed, _) = trusting(&issuer).await;
    let bed = Arc::new(bed);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..20 {
        let (bed, token) = (bed.clone(), issuer.token(json!({"sub": n.to_string()})));
        tasks.spawn(async move { code(&bed, &token).await });
    }
    for code in tasks.join_all().await {
        assert_eq!(code, "access_denied");
    }
    assert_eq!(issuer.asked(), (1, 1));
}

#[tokio::test]
async fn nobody_is_asked_for_a_token_of_a_stranger() {
    let (stranger, known) = (FakeIssuer::start(), FakeIssuer::start());
    let (bed, _) = trusting(&known).await;
    assert_eq!(code(&bed, &stranger.token(json!({}))).await, "invalid_request");
    assert_eq!(stranger.asked(), (0, 0));
    assert_eq!(known.asked(), (0, 0));
}

#[tokio::test]
async fn new_keys_are_found_and_made_up_ones_ask_seldom() {
    let issuer = FakeIssuer::start();
    let (bed, clock) = trusting(&issuer).await;
    assert_eq!(code(&bed, &issuer.token(json!({}))).await, "access_denied");
    *issuer.state.key.lock().unwrap() = IssuerKey::new();
    clock.forward(Duration::seconds(31));
    assert_eq!(code(&bed, &issuer.token(json!({}))).await, "access_denied");
    assert_eq!(issuer.asked().1, 2);
    let made_up = IssuerKey::new();
    for _ in 0..20 {
        let token = made_up.token(json!({"iss": issuer.issuer.as_str()}));
        assert_eq!(code(&bed, &token).await, "invalid_request");
    }
    assert_eq!(issuer.asked().1, 2);
}

#[tokio::test]
async fn an_issuer_that_is_down_is_not_hammered_and_its_keys_are_kept() {
    let issuer = FakeIssuer::start();
    issuer.down(true);
    let (bed, clock) = trusting(&issuer).await;
    for _ in 0..10 {
        let response = bed.exchange(&issuer.token(json!({})), &[]).await;
        assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
        let refusal = json_of(&response);
        assert_eq!(refusal["error"], "temporarily_unavailable");
        let description = refusal["error_description"].as_str().unwrap();
        assert!(description.contains(issuer.issuer.as_str()) && !description.contains("502"));
    }
    assert_eq!(issuer.asked(), (1, 0));
    // Other issuers are not affected.
    assert!(bed.exchange(&bed.key.token(json!({})), &[]).await.status.is_success());

    issuer.down(false);
    clock.forward(Duration::seconds(6));
    assert_eq!(code(&bed, &issuer.token(json!({}))).await, "access_denied");
    issuer.down(true);
    for _ in 0..10 {
        // Beyond what it allowed to keep them.
        clock.forward(Duration::minutes(2));
        let token = issuer.token(json!({"exp": now().unix_timestamp() + 100_000}));
        assert_eq!(code(&bed, &token).await, "access_denied");
    }
    assert_eq!(issuer.asked().0, 12);
}

#[tokio::test]
async fn a_document_of_another_issuer_is_not_believed() {
    let issuer = FakeIssuer::start();
    *issuer.state.says.lock().unwrap() = Some(CORP.into());
    let (bed, _) = trusting(&issuer).await;
    assert_eq!(code(&bed, &issuer.token(json!({}))).await, "temporarily_unavailable");
    assert_eq!(issuer.asked(), (1, 0));
}
