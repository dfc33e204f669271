//! Issuers that are elsewhere: slow, down, lying, or not on the list.

mod ahead;
mod moved;
mod once;

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
use crate::host::listener::{self, Exposure};
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
    /// Whoever holds it to write keeps it from answering.
    gate: tokio::sync::RwLock<()>,
    /// What is found instead of its keys.
    instead: Mutex<Option<fn() -> Response>>,
    /// What it says its identifier is; its own where `None`.
    says: Mutex<Option<String>>,
    /// Where it says that its keys are.
    place: Mutex<&'static str>,
    /// What is found elsewhere.
    elsewhere: Mutex<Elsewhere>,
    /// How often it was asked for there.
    asked_elsewhere: AtomicUsize,
}

enum Elsewhere {
    /// Nobody serves.
    Nothing,
    /// Whoever serves says that there is nothing.
    Gone,
    /// Whoever serves never answers.
    Silence,
    /// A key.
    Key(Box<IssuerKey>),
}

impl FakeIssuer {
    fn start() -> Self {
        let state = Arc::new(FakeState {
            key: Mutex::new(IssuerKey::new()),
            documents: AtomicUsize::new(0),
            keys: AtomicUsize::new(0),
            down: AtomicBool::new(false),
            gate: tokio::sync::RwLock::default(),
            instead: Mutex::default(),
            says: Mutex::default(),
            place: Mutex::new("keys"),
            elsewhere: Mutex::new(Elsewhere::Nothing),
            asked_elsewhere: AtomicUsize::new(0),
        });
        let (for_documents, for_keys, moved) = (state.clone(), state.clone(), state.clone());
        let app = |address: SocketAddr| {
            let document = move || async move {
                let answer = for_documents.document(&format!("http://{address}"));
                let _open = for_documents.gate.read().await;
                answer
            };
            let keys = move || async move {
                let answer = for_keys.jwks();
                let _open = for_keys.gate.read().await;
                answer
            };
            let elsewhere = move || async move {
                let answer = match &*moved.elsewhere.lock().unwrap() {
                    Elsewhere::Key(key) => Some(axum::Json(key.jwks()).into_response()),
                    Elsewhere::Nothing => Some(StatusCode::BAD_GATEWAY.into_response()),
                    Elsewhere::Gone => Some(StatusCode::NOT_FOUND.into_response()),
                    Elsewhere::Silence => None,
                };
                moved.asked_elsewhere.fetch_add(1, Ordering::SeqCst);
                match answer {
                    Some(answer) => answer,
                    None => std::future::pending().await,
                }
            };
            Router::new()
                .route("/.well-known/openid-configuration", axum::routing::get(document))
                .route("/keys", axum::routing::get(keys))
                .route("/elsewhere", axum::routing::get(elsewhere))
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

    /// A token that is good for long by this clock.
    fn token_at(&self, clock: &Hand) -> String {
        let now = clock.now().unix_timestamp();
        self.token(json!({"iat": now, "exp": now + 300_000}))
    }

    fn keys_are(&self, instead: Option<fn() -> Response>) {
        *self.state.instead.lock().unwrap() = instead;
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
        let place = *self.place.lock().unwrap();
        self.answer(
            &self.documents,
            json!({"issuer": issuer, "jwks_uri": format!("{own}/{place}")}),
        )
    }

    fn jwks(&self) -> Response {
        if let Some(instead) = *self.instead.lock().unwrap() {
            self.keys.fetch_add(1, Ordering::SeqCst);
            return instead();
        }
        let keys = self.key.lock().unwrap().jwks();
        self.answer(&self.keys, keys)
    }
}

/// A clock that a test moves, or sets.
#[derive(Default)]
struct Hand {
    passed: Mutex<Duration>,
    set: Mutex<Duration>,
}

impl Clock for Hand {
    fn now(&self) -> OffsetDateTime {
        now() + *self.passed.lock().unwrap() + *self.set.lock().unwrap()
    }

    fn uptime(&self) -> Duration {
        Duration::hours(1) + *self.passed.lock().unwrap()
    }
}

impl Hand {
    /// Lets time pass.
    fn forward(&self, by: Duration) {
        *self.passed.lock().unwrap() += by;
    }

    /// Sets the clock.
    fn set(&self, by: Duration) {
        *self.set.lock().unwrap() += by;
    }
}

/// A broker that trusts this issuer, and its clock. Its policy permits nothing to
/// it, so that a token that is accepted ends in `access_denied`.
async fn trusting(issuer: &FakeIssuer) -> (Bed, Arc<Hand>) {
    trusting_with(issuer, |_| {}).await
}

async fn trusting_with(
    issuer: &FakeIssuer,
    change: impl FnOnce(&mut TrustedIssuer),
) -> (Bed, Arc<Hand>) {
    let clock = Arc::new(Hand::default());
    let bed = Bed::with(|options| {
        let mut trusted = TrustedIssuer::new(issuer.issuer.clone());
        change(&mut trusted);
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

/// Asks for a token, is told to come back later, and learns nothing of why.
async fn turned_away(bed: &Bed, token: &str, issuer: &Issuer) {
    let response = bed.exchange(token, &[]).await;
    let refusal = json_of(&response);
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE, "{refusal}");
    assert_eq!(refusal["error"], "temporarily_unavailable");
    let description = refusal["error_description"].as_str().unwrap();
    assert_eq!(description, format!("the keys of the issuer '{issuer}' cannot be had at present"));
}

type Lie = (&'static str, fn() -> Response);

/// What may be found where keys should be.
const LIES: [Lie; 6] = [
    ("a web page", || axum::response::Html("<html>internal.example</html>").into_response()),
    ("another document", || axum::Json(json!({"keys": "internal.example"})).into_response()),
    ("nothing", || StatusCode::NO_CONTENT.into_response()),
    ("too much", || "[".repeat(crate::host::http::MAX_BODY + 1).into_response()),
    ("no entry", || StatusCode::FORBIDDEN.into_response()),
    ("a way to elsewhere", || {
        axum::response::Redirect::temporary("http://internal.example/keys").into_response()
    }),
];

#[tokio::test]
async fn what_is_wrong_with_the_keys_is_not_the_callers_fault_nor_their_business() {
    for (what, lie) in LIES {
        let issuer = FakeIssuer::start();
        let (bed, clock) = trusting(&issuer).await;
        issuer.keys_are(Some(lie));
        turned_away(&bed, &issuer.token(json!({})), &issuer.issuer).await;
        clock.forward(Duration::seconds(6));
        issuer.keys_are(None);
        assert_eq!(code(&bed, &issuer.token(json!({}))).await, "access_denied", "{what}");
        // Those at hand serve on, while a token by another key cannot be judged.
        issuer.keys_are(Some(lie));
        clock.forward(Duration::minutes(2));
        assert_eq!(code(&bed, &issuer.token_at(&clock)).await, "access_denied", "{what}");
        clock.forward(Duration::minutes(2));
        *issuer.state.key.lock().unwrap() = IssuerKey::new();
        turned_away(&bed, &issuer.token_at(&clock), &issuer.issuer).await;
    }
}

#[tokio::test]
async fn a_bad_certificate_is_not_the_callers_fault_nor_their_business() {
    let made = |name: &str, year| {
        let mut params = rcgen::CertificateParams::new(vec![name.to_string()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    };
    let dir = tempfile::tempdir().unwrap();
    for (what, name, year, trusted) in [
        ("expired", "localhost", 2020, true),
        ("for another name", "internal.example", 4000, true),
        ("nobody's", "localhost", 4000, false),
    ] {
        let (certificate, key) = made(name, year);
        let tls = axum_server::tls_rustls::RustlsConfig::from_pem(
            certificate.clone().into_bytes(),
            key.into_bytes(),
        );
        let there = Served::start(|_| Router::new(), Some(tls.await.unwrap()));
        let ca = dir.path().join(what);
        crate::host::files::write_private(&ca, certificate.as_bytes()).unwrap();
        let issuer = FakeIssuer::start();
        let (bed, _) = trusting_with(&issuer, |config| {
            let address = format!("https://localhost:{}/keys", there.address.port());
            config.jwks_uri = Some(address.parse().unwrap());
            config.ca_file = trusted.then_some(ca);
        })
        .await;
        turned_away(&bed, &issuer.token(json!({})), &issuer.issuer).await;
    }
}

#[tokio::test]
async fn keys_that_are_withdrawn_are_used_no_more() {
    for gone in [|| StatusCode::NOT_FOUND.into_response(), || StatusCode::GONE.into_response()] {
        let issuer = FakeIssuer::start();
        let (bed, clock) = trusting(&issuer).await;
        assert_eq!(code(&bed, &issuer.token(json!({}))).await, "access_denied");
        issuer.keys_are(Some(gone));
        clock.forward(Duration::minutes(2));
        turned_away(&bed, &issuer.token_at(&clock), &issuer.issuer).await;
    }
}

#[tokio::test]
async fn keys_outlast_their_issuer_for_as_long_as_is_said() {
    for (said, short, beyond) in [
        (None, Duration::hours(23), Duration::hours(2)),
        (Some(600), Duration::minutes(9), Duration::minutes(2)),
    ] {
        let issuer = FakeIssuer::start();
        let (bed, clock) = trusting_with(&issuer, |config| {
            if let Some(seconds) = said {
                config.max_key_age = std::time::Duration::from_secs(seconds);
            }
        })
        .await;
        assert_eq!(code(&bed, &issuer.token_at(&clock)).await, "access_denied");
        issuer.down(true);
        clock.forward(short);
        assert_eq!(code(&bed, &issuer.token_at(&clock)).await, "access_denied");
        clock.forward(beyond);
        turned_away(&bed, &issuer.token_at(&clock), &issuer.issuer).await;
        issuer.down(false);
        clock.forward(Duration::seconds(6));
        assert_eq!(code(&bed, &issuer.token_at(&clock)).await, "access_denied");
    }
}

#[tokio::test]
async fn a_clock_that_is_set_changes_nothing_about_keys() {
    for by in [Duration::days(-3650), Duration::days(3650)] {
        let issuer = FakeIssuer::start();
        let (bed, clock) = trusting(&issuer).await;
        assert_eq!(code(&bed, &issuer.token_at(&clock)).await, "access_denied");
        clock.set(by);
        assert_eq!(code(&bed, &issuer.token_at(&clock)).await, "access_denied");
        assert_eq!(issuer.asked(), (1, 1), "they are as old as before");
        *issuer.state.key.lock().unwrap() = IssuerKey::new();
        clock.forward(Duration::seconds(31));
        assert_eq!(code(&bed, &issuer.token_at(&clock)).await, "access_denied");
        assert_eq!(issuer.asked(), (1, 2), "new keys are found");
        clock.forward(Duration::seconds(61));
        assert_eq!(code(&bed, &issuer.token_at(&clock)).await, "access_denied");
        assert_eq!(issuer.asked(), (2, 3), "old ones are fetched again");
        issuer.down(true);
        clock.forward(Duration::hours(25));
        turned_away(&bed, &issuer.token_at(&clock), &issuer.issuer).await;
        // It is asked again once it is back.
        issuer.down(false);
        clock.set(-by);
        clock.forward(Duration::seconds(6));
        assert_eq!(code(&bed, &issuer.token_at(&clock)).await, "access_denied");
    }
}

#[tokio::test]
async fn an_issuer_that_hangs_keeps_only_a_few_waiting_and_nobody_else_out() {
    // They take connections in, and say nothing.
    let silent: Vec<_> = (0..5)
        .map(|_| listener::bind(([127, 0, 0, 1], 0).into(), Exposure::LoopbackOnly).unwrap())
        .collect();
    let issuers: Vec<_> =
        silent.iter().map(|l| format!("http://{}", l.local_addr().unwrap())).collect();
    let bed = Bed::with(|options| {
        for (n, issuer) in issuers.iter().enumerate() {
            let trusted = TrustedIssuer::new(Issuer::parse(issuer).unwrap());
            options.config.trusted_issuer.insert(format!("silent-{n}"), trusted);
        }
    })
    .await;
    let bed = Arc::new(bed);
    let mut strangers = tokio::task::JoinSet::new();
    let nobody = IssuerKey::new();
    // Made before anybody waits: that is slow.
    let tokens: Vec<_> =
        issuers.iter().map(|issuer| nobody.token(json!({"iss": issuer}))).collect();
    for n in 0..200 {
        let (bed, token) = (bed.clone(), tokens[n % 5].clone());
        strangers.spawn(async move { code(&bed, &token).await });
    }
    // Of one issuer 32 wait, of all 128.
    for _ in 0..72 {
        assert_eq!(strangers.join_next().await.unwrap().unwrap(), "temporarily_unavailable");
    }
    let gave_up: u64 = bed.broker.policies().authenticator().keys().map(|keys| keys.failures).sum();
    assert_eq!((gave_up, strangers.len()), (0, 128), "no issuer was given up yet");
    assert_eq!(bed.exchange(&bed.key.token(json!({})), &[]).await.status, StatusCode::OK);
}
