//! Tokens that are bound to a key (RFC 9449), and proofs that are not good enough.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::header_of;
use crate::broker::audit::Decision;
use crate::broker::config::{Assertions, Binding, Nonces};
use crate::broker::proof;
use crate::broker::store::sql::tests::Ground;
use crate::broker::store::{Store, sqlite};
use crate::broker::testbed::{Bed, Options, claims_of, json_of, now};
use crate::dpop::{DeviceKey, Signing, Target};
use crate::host::files;
use crate::host::http::{Request, Response};
use crate::oidc::Issuer;
use crate::secret::Secret;

const TOKEN: &str = "https://broker.example.com/token";

/// Somebody with a key.
pub(super) struct Device(pub(super) DeviceKey);

impl Device {
    pub(super) fn new() -> Self {
        Self(DeviceKey::from_pkcs8(&DeviceKey::generate().unwrap()).unwrap())
    }

    /// A proof for the token endpoint.
    pub(super) fn proof(&self, nonce: Option<&str>) -> String {
        self.proof_at(TOKEN, nonce, now())
    }

    /// A proof for a request to this address with this token.
    pub(super) fn proof_with(
        &self,
        (method, url): (&str, &str),
        token: &str,
        nonce: Option<&str>,
    ) -> String {
        let target = Target::parse(url).unwrap();
        let token = Secret::new(token.to_string());
        let signing = Signing { method, target: &target, token: Some(&token), nonce };
        self.0.sign(signing, now()).unwrap().expose().clone()
    }

    fn proof_at(&self, url: &str, nonce: Option<&str>, at: OffsetDateTime) -> String {
        let target = Target::parse(url).unwrap();
        let signing = Signing { method: "POST", target: &target, token: None, nonce };
        self.0.sign(signing, at).unwrap().expose().clone()
    }
}

/// Asks for a token, with these headers `DPoP`.
pub(super) async fn ask(
    bed: &Bed,
    token: &str,
    proofs: &[&str],
    changes: &[(&str, &str)],
) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/x-www-form-urlencoded".parse().unwrap());
    for proof in proofs {
        headers.append("dpop", HeaderValue::from_str(proof).unwrap());
    }
    let form = bed.form(token, changes);
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let body = Secret::new(body.into_bytes());
    let request = Request { method: Method::POST, url: bed.url("/token"), headers, body };
    bed.client.send(request).await.unwrap()
}

/// The nonce that the broker gives.
pub(super) async fn nonce(bed: &Bed) -> String {
    let response = ask(bed, &bed.key.token(json!({})), &[&Device::new().proof(None)], &[]).await;
    assert_eq!(response.status, StatusCode::BAD_REQUEST);
    assert_eq!(json_of(&response)["error"], "use_dpop_nonce");
    let nonce = header_of(&response, "dpop-nonce");
    assert!(crate::dpop::is_nonce(&nonce), "{nonce}");
    nonce
}

/// A token that is bound to this key.
pub(super) async fn bound(bed: &Bed, device: &Device, changes: &[(&str, &str)]) -> String {
    let proof = device.proof(Some(&nonce(bed).await));
    let response = ask(bed, &bed.key.token(json!({})), &[&proof], changes).await;
    let grant = json_of(&response);
    assert_eq!(response.status, StatusCode::OK, "{grant}");
    assert_eq!(grant["token_type"], "DPoP");
    grant["access_token"].as_str().unwrap().to_string()
}

pub(super) async fn rejected(bed: &Bed, reason: &str) -> String {
    let metrics = bed.admin.get("/metrics").await.body;
    let metrics = String::from_utf8(metrics.expose().clone()).unwrap();
    let name = format!("tmpcred_dpop_proofs_rejected_total{{reason=\"{reason}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap().to_string()
}

pub(super) fn refusal(response: &Response) -> String {
    assert_eq!(response.status, StatusCode::BAD_REQUEST, "{}", json_of(response));
    assert_eq!(header_of(response, "cache-control"), "no-store");
    json_of(response)["error"].as_str().unwrap().to_string()
}

#[tokio::test]
async fn a_token_is_bound_to_the_key_that_was_proved_and_says_so() {
    let bed = Bed::new().await;
    let device = Device::new();
    let token = bound(&bed, &device, &[]).await;
    assert_eq!(claims_of(&token)["cnf"], json!({ "jkt": device.0.thumbprint() }));
    let told = json_of(&bed.introspect(Some(&token), &token).await);
    assert_eq!(told["token_type"], "DPoP");
    assert_eq!(told["cnf"]["jkt"], device.0.thumbprint());
    let (_, record) = bed.records(0, 9).await.pop().unwrap();
    assert_eq!(record.decision, Decision::Issued);
    assert!(record.reason.ends_with(device.0.thumbprint()), "{}", record.reason);
    // Whoever proves nothing gets what they always got.
    let plain = bed.issued(json!({}), &[]).await;
    assert!(claims_of(&plain).get("cnf").is_none());
    let metadata = json_of(&bed.get("/.well-known/oauth-authorization-server").await);
    assert_eq!(
        metadata["dpop_signing_alg_values_supported"],
        json!(["ES256", "Ed25519", "EdDSA", "RS256"])
    );
}

#[tokio::test]
async fn a_proof_is_good_once_and_a_second_one_is_refused_counted_and_on_record() {
    let bed = Bed::new().await;
    let proof = Device::new().proof(Some(&nonce(&bed).await));
    let token = bed.key.token(json!({}));
    assert_eq!(ask(&bed, &token, &[&proof], &[]).await.status, StatusCode::OK);
    let again = ask(&bed, &token, &[&proof], &[]).await;
    assert_eq!(refusal(&again), "invalid_dpop_proof");
    assert_eq!(rejected(&bed, "replayed").await, "1");
    let records = bed.records(0, 9).await;
    let [.., (_, issued), (_, denied)] = &records[..] else { panic!("{records:?}") };
    assert_eq!((issued.decision, denied.decision), (Decision::Issued, Decision::Denied));
    assert!(denied.reason.contains("used before"), "{}", denied.reason);
    // Nor does another assertion make it good, or another thing to ask for.
    let other = bed.key.token(json!({"sub": "bob"}));
    assert_eq!(refusal(&ask(&bed, &other, &[&proof], &[]).await), "invalid_dpop_proof");
    let mallory = bed.key.token(json!({"sub": "mallory"}));
    assert_eq!(refusal(&ask(&bed, &mallory, &[&proof], &[]).await), "invalid_dpop_proof");
}

#[tokio::test]
async fn a_proof_that_went_with_a_denial_is_used_up_too() {
    let bed = Bed::new().await;
    let proof = Device::new().proof(Some(&nonce(&bed).await));
    let mallory = bed.key.token(json!({"sub": "mallory"}));
    assert_eq!(refusal(&ask(&bed, &mallory, &[&proof], &[]).await), "access_denied");
    let alice = bed.key.token(json!({}));
    assert_eq!(refusal(&ask(&bed, &alice, &[&proof], &[]).await), "invalid_dpop_proof");
}

/// Two brokers with one store, as two processes of one broker have it.
async fn twins() -> [Bed; 2] {
    twins_with(|_| {}).await
}

/// The same, changed.
pub(super) async fn twins_with(change: fn(&mut Options)) -> [Bed; 2] {
    let store: Arc<dyn Store> = Arc::new(sqlite::in_memory().await.unwrap());
    [process(store.clone(), change).await, process(store, change).await]
}

/// One that works with this store.
async fn process(store: Arc<dyn Store>, change: impl FnOnce(&mut Options)) -> Bed {
    Bed::with(move |options| {
        options.store = store;
        options.root_key = crate::broker::keys::RootKey::new(Secret::new([7; 32]));
        change(options);
    })
    .await
}

/// Each has connections of its own, and they know nothing of one another.
#[tokio::test]
async fn processes_that_share_a_database_know_proofs_and_nonces_of_one_another() {
    for ground in Ground::each().await {
        let stores = ground.open_often(2).await;
        let beds =
            [process(stores[0].clone(), |_| {}).await, process(stores[1].clone(), |_| {}).await];
        let device = Device::new();
        // A nonce of the one is good at the other; so a proof is used up at both.
        let proof = device.proof(Some(&nonce(&beds[0]).await));
        let token = || beds[0].key.token(json!({}));
        let assertions = [token(), beds[1].key.token(json!({}))];
        let first = ask(&beds[1], &assertions[1], &[&proof], &[]).await;
        assert_eq!(first.status, StatusCode::OK, "{}", json_of(&first));
        for (bed, assertion) in beds.iter().zip(&assertions) {
            let again = ask(bed, assertion, &[&proof], &[]).await;
            assert_eq!(refusal(&again), "invalid_dpop_proof");
            assert_eq!(rejected(bed, "replayed").await, "1");
        }
        // Nor is one good elsewhere that went with a denial.
        let proof = device.proof(Some(&nonce(&beds[1]).await));
        let denied = ask(&beds[0], &assertions[0], &[&proof], &[("role", "unheard-of")]).await;
        assert_eq!(refusal(&denied), "access_denied");
        let again = ask(&beds[1], &assertions[1], &[&proof], &[]).await;
        assert_eq!(refusal(&again), "invalid_dpop_proof");
        let records = beds[0].records(0, 99).await;
        let issued = records.iter().filter(|(_, record)| record.decision == Decision::Issued);
        assert_eq!(issued.count(), 1);
    }
}

/// The answer of the one got lost: the other gives another token for the same request, with
/// another proof by the same key, and the one before is good no more.
#[tokio::test]
async fn a_request_with_a_proof_is_sent_again_to_another_process() {
    for ground in Ground::each().await {
        let stores = ground.open_often(2).await;
        let once = |options: &mut Options| {
            options.config.trusted_issuer.get_mut("corp").unwrap().assertions = Assertions::Once;
        };
        let one = process(stores[0].clone(), once).await;
        let assertion = one.key.token(json!({}));
        let dir = tempfile::tempdir().unwrap();
        let jwks = dir.path().join("jwks.json");
        files::write_private(&jwks, one.key.jwks().to_string().as_bytes()).unwrap();
        let other = process(stores[1].clone(), |options| {
            once(options);
            options.config.trusted_issuer.get_mut("corp").unwrap().jwks_file = Some(jwks);
        });
        let other = other.await;
        let device = Device::new();
        let nonce = nonce(&one).await;
        let first = ask(&one, &assertion, &[&device.proof(Some(&nonce))], &[]).await;
        assert_eq!(first.status, StatusCode::OK, "{}", json_of(&first));
        let first = json_of(&first)["access_token"].as_str().unwrap().to_string();
        // With a proof by another key it is another request.
        let stolen = ask(&other, &assertion, &[&Device::new().proof(Some(&nonce))], &[]).await;
        assert_eq!(refusal(&stolen), "invalid_request");
        let again = ask(&other, &assertion, &[&device.proof(Some(&nonce))], &[]).await;
        assert_eq!(again.status, StatusCode::OK, "{}", json_of(&again));
        let again = json_of(&again)["access_token"].as_str().unwrap().to_string();
        for bed in [&one, &other] {
            for (token, good) in [(&first, false), (&again, true)] {
                let told = json_of(&bed.introspect(Some(token), token).await);
                assert_eq!(told["active"], good, "{told}");
            }
        }
    }
}

#[tokio::test]
async fn of_many_at_once_at_all_processes_of_a_broker_one_is_served() {
    let beds = Arc::new(twins().await);
    // What one has given, the other knows.
    let proof = Device::new().proof(Some(&nonce(&beds[0]).await));
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..20 {
        let (beds, proof) = (beds.clone(), proof.clone());
        tasks.spawn(async move {
            let bed = &beds[n % 2];
            ask(bed, &bed.key.token(json!({})), &[&proof], &[]).await.status
        });
    }
    let statuses = tasks.join_all().await;
    assert_eq!(statuses.iter().filter(|status| status.is_success()).count(), 1, "{statuses:?}");
    let issued = beds[0].records(0, 99).await;
    let issued = issued.iter().filter(|(_, record)| record.decision == Decision::Issued).count();
    assert_eq!(issued, 1);
}

#[tokio::test]
async fn a_nonce_is_wanted_of_late_and_of_this_broker_and_a_new_one_comes_with_each_answer() {
    let bed = Bed::new().await;
    let token = bed.key.token(json!({}));
    let device = Device::new();
    let nonces = |bed: &Bed| {
        let root_key = crate::broker::keys::RootKey::random().unwrap();
        proof::Nonces::new(&root_key, &bed.issuer)
    };
    let foreign = nonces(&bed).give(proof::Place::Token, now());
    let stale = bed.broker.proofs.nonces();
    let stale = stale.give(proof::Place::Token, now() - time::Duration::seconds(301));
    let elsewhere = bed.broker.proofs.nonces().give(proof::Place::Resource, now());
    for bad in [&foreign, &stale, &elsewhere, "made-up"] {
        let response = ask(&bed, &token, &[&device.proof(Some(bad))], &[]).await;
        assert_eq!(refusal(&response), "use_dpop_nonce", "{bad}");
        let fresh = header_of(&response, "dpop-nonce");
        let response = ask(&bed, &token, &[&device.proof(Some(&fresh))], &[]).await;
        assert_eq!(response.status, StatusCode::OK);
        assert!(!header_of(&response, "dpop-nonce").is_empty());
    }
    assert_eq!(rejected(&bed, "nonce").await, "4");
    assert!(header_of(&bed.exchange(&token, &[]).await, "dpop-nonce").is_empty());
}

#[tokio::test]
async fn a_broker_may_do_without_nonces_but_never_take_a_bad_one() {
    let bed = Bed::with(|options| options.config.dpop.nonces = Nonces::Optional).await;
    let token = bed.key.token(json!({}));
    let device = Device::new();
    let good = ask(&bed, &token, &[&device.proof(None)], &[]).await;
    assert_eq!(good.status, StatusCode::OK);
    // RFC 9449 section 11.3: who was given one may not do without it any more.
    assert_eq!(header_of(&good, "dpop-nonce"), "");
    let elsewhere = device.proof_at("https://broker.example.com/revoke", None, now());
    let refused = ask(&bed, &token, &[&elsewhere], &[]).await;
    assert_eq!(refusal(&refused), "invalid_dpop_proof");
    assert_eq!(header_of(&refused, "dpop-nonce"), "");
    let bad = ask(&bed, &token, &[&device.proof(Some("made-up"))], &[]).await;
    assert_eq!(refusal(&bad), "use_dpop_nonce");
    let given = header_of(&bad, "dpop-nonce");
    let good = ask(&bed, &token, &[&device.proof(Some(&given))], &[]).await;
    assert_eq!(good.status, StatusCode::OK);
}

#[tokio::test]
async fn proofs_that_are_not_for_this_request_are_refused_and_counted_by_reason() {
    let bed = Bed::new().await;
    let token = bed.key.token(json!({}));
    let (device, fresh) = (Device::new(), nonce(&bed).await);
    let nonce = Some(fresh.as_str());
    let good = || device.proof(nonce);
    let second = time::Duration::SECOND;
    let huge = good() + &"A".repeat(9000);
    for (what, proofs, reason) in [
        (
            "the address that the request went to",
            vec![device.proof_at(bed.url("/token").as_str(), nonce, now())],
            "request",
        ),
        (
            "another endpoint",
            vec![device.proof_at("https://broker.example.com/revoke", nonce, now())],
            "request",
        ),
        ("old", vec![device.proof_at(TOKEN, nonce, now() - 70 * second)], "time"),
        ("of the future", vec![device.proof_at(TOKEN, nonce, now() + 70 * second)], "time"),
        ("two of them", vec![good(), good()], "malformed"),
        ("the same twice", vec![good(); 2], "malformed"),
        ("two in one", vec![format!("{}, {}", good(), good())], "malformed"),
        ("nothing", vec![String::new()], "malformed"),
        ("huge", vec![huge], "malformed"),
        ("another signature", vec![good() + "A"], "signature"),
    ] {
        let before: u32 = rejected(&bed, reason).await.parse().unwrap();
        let proofs: Vec<&str> = proofs.iter().map(String::as_str).collect();
        let response = ask(&bed, &token, &proofs, &[]).await;
        assert_eq!(refusal(&response), "invalid_dpop_proof", "{what}");
        let after: u32 = rejected(&bed, reason).await.parse().unwrap();
        assert_eq!(after, before + 1, "{what}");
    }
    assert_eq!(ask(&bed, &token, &[&good()], &[]).await.status, StatusCode::OK);
    let issued = bed.records(0, 99).await.len();
    assert_eq!(issued, 1, "what is no proof of anything is not on record");
}

#[tokio::test]
async fn a_proof_may_name_any_address_of_the_broker_and_no_other() {
    let bed = Bed::with(|options| {
        options.config.dpop.urls = vec![Issuer::parse("https://b.example.com/x").unwrap()];
    })
    .await;
    // By that name the broker is reached, too.
    for (host, status) in [("b.example.com", 200), ("c.example.com", 421)] {
        let mut headers = HeaderMap::new();
        headers.insert("host", host.parse().unwrap());
        let (method, url, body) = (Method::GET, bed.url("/jwks.json"), Secret::new(Vec::new()));
        let shown = bed.client.send(Request { method, url, headers, body }).await.unwrap();
        assert_eq!(shown.status.as_u16(), status, "{host}");
    }
    let token = bed.key.token(json!({}));
    let (device, fresh) = (Device::new(), nonce(&bed).await);
    for (url, good) in [
        (TOKEN, true),
        ("https://b.example.com/x/token", true),
        ("https://b.example.com/x/token?a=b", true),
        ("https://b.example.com/token", false),
        ("https://c.example.com/token", false),
    ] {
        let proof = device.proof_at(url, Some(&fresh), now());
        let response = ask(&bed, &token, &[&proof], &[]).await;
        assert_eq!(response.status.is_success(), good, "{url}");
    }
}

fn required(options: &mut Options) {
    options.config.role.get_mut("deploy").unwrap().dpop = Binding::Required;
}

#[tokio::test]
async fn a_role_may_be_given_only_to_those_who_prove_a_key() {
    let bed = Bed::with(required).await;
    let refusal = bed.refused(&bed.key.token(json!({})), &[]).await;
    assert_eq!(refusal["error"], "invalid_dpop_proof");
    assert!(refusal["error_description"].as_str().unwrap().contains("'deploy'"), "{refusal}");
    assert_eq!(rejected(&bed, "missing").await, "1");
    let (_, record) = bed.records(0, 9).await.pop().unwrap();
    assert_eq!(record.decision, Decision::Denied);
    bound(&bed, &Device::new(), &[]).await;
}

#[tokio::test]
async fn a_policy_may_demand_a_key() {
    let bed = Bed::with(|options| {
        options.policies += r#"
@id("bound-only")
forbid (principal, action == Action::"issue", resource)
unless { context.key_bound };
"#;
    })
    .await;
    let refusal = bed.refused(&bed.key.token(json!({})), &[]).await;
    assert_eq!(refusal["error"], "access_denied");
    bound(&bed, &Device::new(), &[]).await;
}

/// Another issuer's token, bound to this key.
fn assertion(bed: &Bed, cnf: Value) -> String {
    bed.key.token(json!({ "cnf": cnf }))
}

#[tokio::test]
async fn an_assertion_that_is_bound_is_exchanged_only_with_a_proof_by_its_key() {
    let bed = Bed::new().await;
    let (device, other) = (Device::new(), Device::new());
    let token = assertion(&bed, json!({ "jkt": device.0.thumbprint() }));
    let fresh = nonce(&bed).await;
    let target = Target::parse(TOKEN).unwrap();
    let with_token = |token: &str| {
        let token = Secret::new(token.to_string());
        let signing =
            Signing { method: "POST", target: &target, token: Some(&token), nonce: Some(&fresh) };
        device.0.sign(signing, now()).unwrap().expose().clone()
    };
    for (what, proofs) in [
        ("without", vec![]),
        ("by another key", vec![other.proof(Some(&fresh))]),
        ("for another token", vec![with_token("another")]),
    ] {
        let proofs: Vec<&str> = proofs.iter().map(String::as_str).collect();
        let response = ask(&bed, &token, &proofs, &[]).await;
        assert_eq!(refusal(&response), "invalid_dpop_proof", "{what}: {}", json_of(&response));
    }
    assert_eq!(
        (rejected(&bed, "missing").await, rejected(&bed, "key").await),
        ("1".into(), "1".into())
    );
    for proof in [device.proof(Some(&fresh)), with_token(&token)] {
        let grant = json_of(&ask(&bed, &token, &[&proof], &[]).await);
        let claims = claims_of(grant["access_token"].as_str().unwrap());
        assert_eq!(claims["cnf"]["jkt"], device.0.thumbprint());
    }
    // What it is bound to otherwise, nobody can prove here.
    for cnf in [json!({ "x5t#S256": device.0.thumbprint() }), json!({ "kid": "k" }), json!(1)] {
        let proof = device.proof(Some(&fresh));
        let response = ask(&bed, &assertion(&bed, cnf.clone()), &[&proof], &[]).await;
        assert_eq!(refusal(&response), "invalid_request", "{cnf}");
    }
}

#[tokio::test]
async fn who_asks_about_tokens_is_not_taken_at_the_word_of_a_token_that_is_bound() {
    let bed = Bed::with(|options| {
        options.policies += r#"
@id("introspect")
permit (principal, action == Action::"introspect", resource) when { principal.subject == "alice" };
"#;
    })
    .await;
    let token = bed.issued(json!({}), &[]).await;
    let plain = bed.key.token(json!({}));
    assert_eq!(json_of(&bed.introspect(Some(&plain), &token).await)["active"], true);
    let stolen = assertion(&bed, json!({ "jkt": Device::new().0.thumbprint() }));
    let response = bed.introspect(Some(&stolen), &token).await;
    assert_eq!(response.status, StatusCode::UNAUTHORIZED);
}
