//! Reviews, by a stand-in for an API server over TLS: none can be had as a package. It is
//! written by the API's published page, and knows nothing beyond that.

use std::sync::{Arc, Mutex};

use axum::Json;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum_server::tls_rustls::RustlsConfig;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::broker::config::{RequiredClaim, TokenReview, TrustedIssuer};
use crate::broker::testbed::{Bed, IssuerKey, Options, Served, claims_of, json_of, now};
use crate::host::files;
use crate::oidc::Issuer;

const CLUSTER: &str = "https://kubernetes.default.svc.cluster.local";
const BROKER: &str = "https://broker.example.com";
const ROBOT: &str = "system:serviceaccount:prod:robot";

/// An API server.
#[derive(Default)]
struct Api {
    /// The token of whoever may ask.
    own: Mutex<String>,
    /// What it was asked.
    asked: Mutex<Vec<Value>>,
    /// What it answers as `status`.
    status: Mutex<Value>,
    /// What it answers in place of that.
    instead: Mutex<Option<StatusCode>>,
    /// Held, it answers nothing until it is notified.
    hangs: Mutex<bool>,
    go_on: Notify,
}

impl Api {
    async fn answer(self: Arc<Self>, headers: HeaderMap, Json(review): Json<Value>) -> Response {
        let hangs = *self.hangs.lock().unwrap();
        if hangs {
            self.asked.lock().unwrap().push(Value::Null);
            self.go_on.notified().await;
        }
        if let Some(status) = *self.instead.lock().unwrap() {
            return status.into_response();
        }
        if headers["authorization"] != format!("Bearer {}", self.own.lock().unwrap()) {
            return StatusCode::UNAUTHORIZED.into_response();
        }
        self.asked.lock().unwrap().push(review.clone());
        let mut answer = review;
        answer["status"] = self.status.lock().unwrap().clone();
        (StatusCode::CREATED, Json(answer)).into_response()
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    fn says(&self, status: Value) {
        *self.status.lock().unwrap() = status;
    }
}

/// A status as it is of a pod's token.
fn good() -> Value {
    json!({
        "authenticated": true,
        "audiences": [BROKER],
        "user": {
            "username": ROBOT,
            "uid": "u-1",
            "groups": ["system:serviceaccounts", "system:serviceaccounts:prod"],
            "extra": {
                "authentication.kubernetes.io/pod-name": ["robot-7"],
                "authentication.kubernetes.io/pod-uid": ["p-1"],
                "authentication.kubernetes.io/node-name": ["n-1"],
                "sub": ["forged"],
            },
        },
    })
}

/// A broker that trusts a cluster, and the API server of that.
struct World {
    api: Arc<Api>,
    bed: Bed,
    /// Signs what looks like tokens of the cluster; nobody knows its key.
    key: IssuerKey,
    token_file: std::path::PathBuf,
    _root: tempfile::TempDir,
    _served: Served,
}

impl World {
    async fn start(change: impl FnOnce(&mut Options)) -> Self {
        let api = Arc::new(Api::default());
        *api.own.lock().unwrap() = "own-token".into();
        api.says(good());
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let (pem, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let tls = RustlsConfig::from_pem(pem.clone().into(), key.into()).await.unwrap();
        let for_api = api.clone();
        let answer = move |headers, review| for_api.answer(headers, review);
        let place = "/prefix/apis/authentication.k8s.io/v1/tokenreviews";
        let app = axum::Router::new().route(place, axum::routing::post(answer));
        let served = Served::start(|_| app, Some(tls));
        let root = tempfile::tempdir().unwrap();
        let [token_file, ca_file] = ["token", "ca.pem"].map(|name| root.path().join(name));
        files::write_private(&token_file, b"own-token\n").unwrap();
        files::write_private(&ca_file, pem.as_bytes()).unwrap();
        let server = format!("https://localhost:{}/prefix/", served.address.port());
        let bed = Bed::with(|options| {
            let mut cluster = TrustedIssuer::new(Issuer::parse(CLUSTER).unwrap());
            cluster.ca_file = Some(ca_file);
            cluster.token_review = Some(TokenReview {
                server: server.parse().unwrap(),
                token_file: token_file.clone(),
            });
            options.config.trusted_issuer.insert("cluster".into(), cluster);
            options.policies = format!(
                r#"
@id("pods")
@ttl("15m")
@scope("deploy:read")
permit (
    principal in Group::"{CLUSTER}#system:serviceaccounts:prod",
    action == Action::"issue",
    resource == Role::"deploy"
) when {{
    principal.hasTag("/kubernetes.io/pod/name")
        && principal.getTag("/kubernetes.io/pod/name").contains("robot-7")
}};
"#
            );
            change(options);
        })
        .await;
        Self { api, bed, key: IssuerKey::new(), token_file, _root: root, _served: served }
    }

    fn token(&self, changes: Value) -> String {
        let mut all = json!({"iss": CLUSTER, "sub": ROBOT, "groups": null, "azp": null});
        all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        self.key.token(all)
    }

    async fn ask(&self, token: &str) -> (u16, Value) {
        let response = self.bed.exchange(token, &[]).await;
        (response.status.as_u16(), json_of(&response))
    }
}

#[tokio::test]
async fn what_the_api_server_answers_is_who_calls_and_it_is_asked_each_time() {
    let world = World::start(|options| {
        let cluster = options.config.trusted_issuer.get_mut("cluster").unwrap();
        let uid = RequiredClaim::Text("u-1".into());
        cluster.required_claims = [("uid".to_string(), uid)].into();
    })
    .await;
    // What a token says of itself counts for nothing.
    let token = world.token(json!({"kubernetes.io": {"pod": {"name": "x"}}, "uid": "x"}));
    let (status, grant) = world.ask(&token).await;
    assert_eq!(status, 200, "{grant}");
    let claims = claims_of(grant["access_token"].as_str().unwrap());
    assert_eq!(claims["sub"], format!("{CLUSTER}#{ROBOT}"));
    assert_eq!(claims["client_id"], "cluster");
    let asked = world.api.asked.lock().unwrap()[0].clone();
    assert_eq!((&asked["kind"], &asked["spec"]["token"]), (&json!("TokenReview"), &json!(token)));
    assert_eq!(asked["apiVersion"], "authentication.k8s.io/v1");
    assert!(asked["spec"]["audiences"].as_array().unwrap().contains(&json!(BROKER)), "{asked}");

    // A pod that is gone is so at once.
    world.api.says(json!({"authenticated": false, "error": "pod not found, secret detail"}));
    let (status, refusal) = world.ask(&token).await;
    assert_eq!((status, &refusal["error"]), (400, &json!("invalid_request")));
    let said = refusal["error_description"].as_str().unwrap();
    assert!(said.contains("does not accept it") && !said.contains("secret detail"), "{said}");
    assert_eq!(world.api.asked(), 2);
}

#[tokio::test]
async fn whoever_wants_to_know_beforehand_is_told_whether_it_reviews_tokens() {
    let world = World::start(|_| {}).await;
    let ask = async || {
        let rules = world.bed.broker.policies();
        let asked = rules.authenticator().ask(&world.bed.issuer).await;
        let cluster = asked.into_iter().find(|one| one.table == "trusted_issuer.cluster");
        cluster.unwrap().answer.map_err(|error| error.to_string())
    };
    world.api.says(json!({"authenticated": false, "error": "invalid bearer token"}));
    let said = ask().await.unwrap();
    assert!(said.starts_with("tokens are reviewed at https://localhost:"), "{said}");
    assert_eq!(world.api.asked(), 1);
    *world.api.own.lock().unwrap() = "another".into();
    let said = ask().await.unwrap_err();
    assert!(said.contains("does not let the broker ask (401)"), "{said}");
    *world.api.own.lock().unwrap() = "own-token".into();
    world.api.says(good());
    let said = ask().await.unwrap_err();
    assert!(said.contains("whatever it is shown"), "{said}");
    *world.api.hangs.lock().unwrap() = true;
    let said = ask().await.unwrap_err();
    assert!(said.contains("did not answer within 5 seconds"), "{said}");
}

#[tokio::test]
async fn what_need_not_be_asked_is_not_and_other_answers_are_no_proof() {
    let world = World::start(|_| {}).await;
    let at = now().unix_timestamp();
    for (token, says) in [
        (world.token(json!({"iss": "https://evil.example"})), "not accepted here"),
        (world.token(json!({"exp": at - 90})), "expired"),
        (world.token(json!({"exp": null})), "no expiry"),
        (world.token(json!({"aud": "https://elsewhere.example"})), "it is for"),
        (world.token(json!({})) + "\"", "not a signed JWT"),
        (world.token(json!({})) + " x", "not a signed JWT"),
    ] {
        let (status, refusal) = world.ask(&token).await;
        let said = refusal["error_description"].as_str().unwrap();
        assert!(status == 400 && said.contains(says), "{says}: {refusal}");
    }
    assert_eq!(world.api.asked(), 0);
    let token = world.token(json!({}));
    let without = |pointer: &str, value: Value| {
        let mut status = good();
        *status.pointer_mut(pointer).unwrap() = value;
        status
    };
    for (status, says) in [
        (without("/audiences", json!([])), "has not verified its audience"),
        (without("/audiences", json!(["https://elsewhere.example"])), "has not verified"),
        (without("/authenticated", json!(false)), "does not accept it"),
        (without("/user/username", json!("")), "does not accept it"),
        (json!({}), "does not accept it"),
    ] {
        world.api.says(status);
        let (status, refusal) = world.ask(&token).await;
        let said = refusal["error_description"].as_str().unwrap();
        assert!(status == 400 && said.contains(says), "{says}: {refusal}");
    }
    // Another pod of the same account is somebody whom policy does not know.
    world.api.says(without("/user/extra/authentication.kubernetes.io~1pod-name", json!(["x"])));
    assert_eq!(world.ask(&token).await.1["error"], "access_denied");
    world.api.says(good());
    assert_eq!(world.ask(&token).await.0, 200);
}

#[tokio::test]
async fn the_own_token_is_read_anew_and_without_a_good_one_nobody_is_let_in() {
    let world = World::start(|_| {}).await;
    let token = world.token(json!({}));
    *world.api.own.lock().unwrap() = "another".into();
    let (status, refusal) = world.ask(&token).await;
    assert_eq!((status, &refusal["error"]), (503, &json!("temporarily_unavailable")));
    let said = refusal["error_description"].as_str().unwrap();
    assert!(said.contains("cannot be verified at present"), "{said}");
    assert!(!said.contains("localhost") && !said.contains("401"), "{said}");
    files::write_private(&world.token_file, b"another").unwrap();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while world.ask(&token).await.0 != 200 {
        assert!(tokio::time::Instant::now() < deadline, "it is never asked again");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn an_api_server_that_hangs_or_fails_keeps_nobody_waiting_for_long_and_no_others_out() {
    let world = World::start(|options| {
        options.policies += r#"
@id("corp") @ttl("5m")
permit (principal, action == Action::"issue", resource == Role::"deploy")
when { principal.issuer == "https://login.example.com" };
"#;
    })
    .await;
    let world = Arc::new(world);
    *world.api.hangs.lock().unwrap() = true;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let world = world.clone();
        tasks.spawn(async move { world.ask(&world.token(json!({}))).await.0 });
    }
    // Others are served meanwhile.
    let corp = world.bed.exchange(&world.bed.key.token(json!({})), &[]).await;
    assert_eq!(corp.status, StatusCode::OK, "{}", json_of(&corp));
    let statuses = tasks.join_all().await;
    assert!(statuses.iter().all(|status| *status == 503), "{statuses:?}");
    let asked = world.api.asked();
    assert!((1..=32).contains(&asked), "{asked} were sent on");
    // It is left alone then: nobody waits for it again.
    assert_eq!(world.ask(&world.token(json!({}))).await.0, 503);
    assert_eq!(world.api.asked(), asked);
    *world.api.hangs.lock().unwrap() = false;
    world.api.go_on.notify_waiters();
    *world.api.instead.lock().unwrap() = Some(StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(world.ask(&world.token(json!({}))).await.0, 503);
}
