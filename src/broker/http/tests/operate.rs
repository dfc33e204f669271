//! Operating a broker from elsewhere: who may, and what comes of it.

mod clocks;
mod enrollments;
mod keys;
mod limits;
mod reach;
mod records;
mod revocations;
mod unknown;

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use super::client::{Signer, by};
use super::dpop::Device;
use super::header_of;
use crate::broker::audit::{Decision, Record};
use crate::broker::config::{Assertions, Endpoint, Limits, Nonces};
use crate::broker::store::{Store, sqlite};
use crate::broker::testbed::{Bed, CORP, IssuerKey, Options, json_of};
use crate::host::http::{Request, Response};
use crate::secret::Secret;

const BROKER: &str = "https://broker.example.com";

/// What operators may: those of the group `ops` everything but to revoke all, Leo what has the
/// role `deploy`.
fn permits() -> String {
    format!(
        r#"
@id("ops-revoke")
permit (principal in Group::"{CORP}#ops", action == Action::"revoke", resource);

@id("never-all")
forbid (principal, action == Action::"revoke", resource) when {{ context.what == "all" }}
unless {{ principal == User::"{CORP}#root" }};

@id("leo-revokes-what-deploys")
permit (
    principal == User::"{CORP}#leo",
    action == Action::"revoke",
    resource == Role::"deploy"
);

@id("ops-administer")
permit (
    principal in Group::"{CORP}#ops",
    action == Action::"administer",
    resource == Broker::"{BROKER}"
);
"#
    )
}

async fn bed() -> Bed {
    bed_with(|_| {}).await
}

async fn bed_with(change: impl FnOnce(&mut Options)) -> Bed {
    Bed::with(|options| {
        let other = options.config.role["deploy"].clone();
        options.config.role.insert("other".into(), other);
        options.policies += r#"@id("other") @ttl("15m")
            permit (principal, action == Action::"issue", resource == Role::"other");"#;
        options.policies += &permits();
        change(options);
    })
    .await
}

/// An assertion of somebody who operates the broker.
fn ops(bed: &Bed) -> String {
    bed.key.token(json!({"sub": "ops", "groups": ["ops"]}))
}

/// Asks with these headers: a form, or nothing where the method is GET.
async fn ask(
    bed: &Bed,
    (method, path): (Method, &str),
    headers: &[(&'static str, &str)],
    form: &[(&str, &str)],
) -> Response {
    let mut all = HeaderMap::new();
    for (name, value) in headers {
        all.append(*name, HeaderValue::from_str(value).unwrap());
    }
    let mut body = String::new();
    if method == Method::POST {
        all.insert("content-type", "application/x-www-form-urlencoded".parse().unwrap());
        body = url::form_urlencoded::Serializer::new(body).extend_pairs(form).finish();
    }
    let url = bed.url("/").join(path).unwrap();
    let body = Secret::new(body.into_bytes());
    bed.client.send(Request { method, url, headers: all, body }).await.unwrap()
}

async fn post(bed: &Bed, path: &str, bearer: &str, form: &[(&str, &str)]) -> Response {
    ask(bed, (Method::POST, path), &[("authorization", &format!("Bearer {bearer}"))], form).await
}

async fn get(bed: &Bed, path: &str, bearer: &str) -> Response {
    ask(bed, (Method::GET, path), &[("authorization", &format!("Bearer {bearer}"))], &[]).await
}

/// The answer where all went well.
#[track_caller]
fn ok(response: &Response) -> Value {
    let answer = json_of(response);
    assert_eq!(response.status, StatusCode::OK, "{answer}");
    assert_eq!(header_of(response, "cache-control"), "no-store");
    answer
}

/// What is said where it did not.
#[track_caller]
fn refused(response: &Response, status: u16, code: &str) -> String {
    let answer = json_of(response);
    assert_eq!(
        (response.status.as_u16(), answer["error"].as_str()),
        (status, Some(code)),
        "{answer}"
    );
    assert_eq!(answer["request_id"], header_of(response, "x-request-id"));
    // RFC 6750 section 3, RFC 9449 section 7.1: by whichever scheme it was shown.
    let challenge = header_of(response, "www-authenticate");
    let lacking = "Bearer realm=\"tmpcred\", error=\"insufficient_scope\", \
                   DPoP algs=\"ES256 Ed25519 EdDSA RS256\", error=\"insufficient_scope\"";
    assert_eq!(challenge == lacking, status == 403, "{challenge}");
    answer["error_description"].as_str().unwrap().to_string()
}

async fn newest(bed: &Bed) -> Record {
    let last = bed.store.size().await.unwrap();
    bed.store.records(last - 1, 1).await.unwrap().pop().unwrap().1
}

async fn counted(bed: &Bed, name: &str, outcome: &str) -> u64 {
    let metrics = bed.admin.get("/metrics").await.body;
    let metrics = String::from_utf8(metrics.expose().clone()).unwrap();
    let line = format!("tmpcred_{name}_total{{outcome=\"{outcome}\"}} ");
    metrics.lines().find_map(|l| l.strip_prefix(&line)).unwrap().parse().unwrap()
}

/// Asks each endpoint for what is as it should be.
async fn ask_all(bed: &Bed, headers: &[(&'static str, &str)], kid: &str) -> Vec<Response> {
    let mut answers = Vec::new();
    for (method, path, form) in [
        (Method::POST, "/v1/revocations", &[("role", "deploy")][..]),
        (Method::GET, "/v1/keys", &[]),
        (Method::POST, "/v1/keys/rotate", &[]),
        (Method::POST, "/v1/keys/revoke", &[("kid", kid)]),
        (Method::GET, "/v1/audit/records", &[]),
        (Method::POST, "/v1/revocations/dry-run", &[("role", "deploy")]),
    ] {
        answers.push(ask(bed, (method, path), headers, form).await);
    }
    answers
}

#[tokio::test]
async fn who_does_not_show_who_they_are_is_refused_and_leaves_no_record() {
    let bed = bed().await;
    let own = bed.issued(json!({"sub": "ops", "groups": ["platform", "ops"]}), &[]).await;
    let before = bed.store.size().await.unwrap();
    let kid = bed.broker.keys.current().await.unwrap().active().kid().to_string();
    for answer in ask_all(&bed, &[], &kid).await {
        refused(&answer, 401, "unauthorized");
        let challenge = header_of(&answer, "www-authenticate");
        assert!(challenge.starts_with("Bearer realm=\"tmpcred\", DPoP algs="), "{challenge}");
    }
    let elsewhere = json!({"sub": "ops", "groups": ["ops"], "aud": "https://elsewhere.example"});
    for bearer in [
        "x".to_string(),
        bed.key.token(elsewhere),
        IssuerKey::new().token(json!({"sub": "ops", "groups": ["ops"]})),
        // Whoever holds a token of the broker's has nothing to say here.
        own,
    ] {
        let bearer = format!("Bearer {bearer}");
        for answer in ask_all(&bed, &[("authorization", &bearer)], &kid).await {
            refused(&answer, 401, "invalid_token");
            assert!(header_of(&answer, "www-authenticate").contains("error=\"invalid_token\""));
        }
    }
    assert_eq!(bed.store.size().await.unwrap(), before);
    assert_eq!(counted(&bed, "revocations", "unauthenticated").await, 10);
    assert_eq!(counted(&bed, "administrations", "unauthenticated").await, 20);
}

#[tokio::test]
async fn what_is_not_permitted_is_refused_counted_and_on_record() {
    let bed = bed().await;
    let kid = bed.broker.keys.current().await.unwrap().active().kid().to_string();
    let before = bed.store.size().await.unwrap();
    let alice = format!("Bearer {}", bed.key.token(json!({})));
    for (n, answer) in ask_all(&bed, &[("authorization", &alice)], &kid).await.iter().enumerate() {
        let said = refused(answer, 403, "access_denied");
        assert!(said.starts_with("no policy permits"), "{said}");
        let (_, record) = bed.store.records(before + n as u64, 1).await.unwrap().pop().unwrap();
        assert_eq!((record.decision, record.policy_id), (Decision::Denied, None));
        assert_eq!((record.principal.subject.as_str(), record.client.as_str()), ("alice", "cli"));
        let of_revoking = matches!(n, 0 | 5);
        assert_eq!(record.action, if of_revoking { "revoke" } else { "administer" });
        assert_eq!(record.role, if of_revoking { "deploy" } else { "" });
        assert_eq!(record.request_id.to_string(), header_of(answer, "x-request-id"));
        assert_eq!(record.reason, said);
    }
    assert_eq!(counted(&bed, "revocations", "denied").await, 2);
    assert_eq!(counted(&bed, "administrations", "denied").await, 4);
    // What forbids is named, and so is nobody else.
    let root = ops(&bed);
    let said = refused(
        &post(&bed, "/v1/revocations", &root, &[("all", "true")]).await,
        403,
        "access_denied",
    );
    assert_eq!(said, "a policy forbids to revoke the tokens of everybody");
    assert_eq!(newest(&bed).await.policy_id.as_deref(), Some("never-all"));
    let of_bob = [("issuer", CORP), ("subject", "bob")];
    refused(
        &post(&bed, "/v1/revocations", &bed.key.token(json!({})), &of_bob).await,
        403,
        "access_denied",
    );
    assert!(!newest(&bed).await.reason.contains("bob"));
    // The broker is as it was.
    assert_eq!(bed.broker.keys.current().await.unwrap().active().kid(), kid);
}

#[tokio::test]
async fn a_policy_that_cannot_be_evaluated_denies() {
    let bed = bed_with(|options| {
        options.policies += r#"
@id("fails")
forbid (principal, action in [Action::"revoke", Action::"administer"], resource)
when { 9223372036854775807 + 1 == (if context.time == datetime("2026-01-01") then 1 else 2) };
"#;
    })
    .await;
    let ops = ops(&bed);
    for answer in [
        post(&bed, "/v1/revocations", &ops, &[("role", "deploy")]).await,
        get(&bed, "/v1/keys", &ops).await,
    ] {
        let said = refused(&answer, 403, "access_denied");
        assert!(said.starts_with("a policy failed, which denies"), "{said}");
        assert_eq!(newest(&bed).await.decision, Decision::Denied);
    }
}

#[tokio::test]
async fn what_may_be_used_once_is_used_up_whatever_comes_of_it() {
    let bed = bed_with(|options| {
        let corp = options.config.trusted_issuer.get_mut("corp").unwrap();
        corp.assertions = Assertions::Once;
    })
    .await;
    let (first, second) =
        (ops(&bed), bed.key.token(json!({"sub": "x", "groups": ["ops"], "n": 1})));
    ok(&get(&bed, "/v1/keys", &first).await);
    let said = refused(&get(&bed, "/v1/keys", &first).await, 401, "invalid_token");
    assert!(said.contains("may be used once"), "{said}");
    refused(
        &post(&bed, "/v1/revocations", &second, &[("all", "true")]).await,
        403,
        "access_denied",
    );
    refused(&post(&bed, "/v1/revocations", &second, &[("role", "x")]).await, 401, "invalid_token");
    // Nor is it good for a token then.
    bed.refused(&second, &[]).await;
}

#[tokio::test]
async fn an_assertion_that_is_bound_to_a_key_takes_a_proof_for_this_very_request() {
    let bed = bed().await;
    let device = Device::new();
    let bound = bed.key.token(json!({
        "sub": "ops", "groups": ["ops"], "cnf": {"jkt": device.0.thumbprint()},
    }));
    refused(&get(&bed, "/v1/keys", &bound).await, 401, "invalid_token");
    let shown = format!("DPoP {bound}");
    let at = async |(method, path): (Method, &str), proof: Option<&str>| {
        let headers: Vec<_> = [("authorization", shown.as_str())]
            .into_iter()
            .chain(proof.map(|proof| ("dpop", proof)))
            .collect();
        ask(&bed, (method, path), &headers, &[("role", "deploy")]).await
    };
    let keys = (Method::GET, "/v1/keys");
    refused(&at(keys.clone(), None).await, 401, "invalid_dpop_proof");
    let of_keys = ("GET", "https://broker.example.com/v1/keys");
    let asked = at(keys.clone(), Some(&device.proof_with(of_keys, &bound, None))).await;
    refused(&asked, 401, "use_dpop_nonce");
    let nonce = header_of(&asked, "dpop-nonce");
    let proof = device.proof_with(of_keys, &bound, Some(&nonce));
    ok(&at(keys.clone(), Some(&proof)).await);
    let said = refused(&at(keys.clone(), Some(&proof)).await, 401, "invalid_dpop_proof");
    assert!(said.contains("used before"), "{said}");
    for wrong in [
        device.proof_with(("POST", of_keys.1), &bound, Some(&nonce)),
        device.proof_with(
            ("GET", "https://broker.example.com/v1/keys/rotate"),
            &bound,
            Some(&nonce),
        ),
        device.proof_with(of_keys, "another", Some(&nonce)),
    ] {
        refused(&at(keys.clone(), Some(&wrong)).await, 401, "invalid_dpop_proof");
    }
    let other = Device::new().proof_with(of_keys, &bound, Some(&nonce));
    refused(&at(keys.clone(), Some(&other)).await, 401, "invalid_token");
    // What is tried is proven by itself.
    let (real, dry) = ("/v1/revocations", "/v1/revocations/dry-run");
    for (path, of) in [(dry, real), (real, dry), (dry, dry), (real, real)] {
        let url = format!("{BROKER}{of}");
        let proof = device.proof_with(("POST", &url), &bound, Some(&nonce));
        let answer = at((Method::POST, path), Some(&proof)).await;
        match path == of {
            true => assert_eq!(ok(&answer)["dry_run"], path == dry),
            false => drop(refused(&answer, 401, "invalid_dpop_proof")),
        }
    }
    // One that is not bound is not shown as if it was.
    let plain = format!("DPoP {}", ops(&bed));
    let proof = device.proof_with(of_keys, &plain[5..], Some(&nonce));
    let headers = [("authorization", plain.as_str()), ("dpop", proof.as_str())];
    let answer = ask(&bed, keys, &headers, &[]).await;
    refused(&answer, 401, "invalid_token");
    // RFC 9449 section 7.1: the scheme is told that it was shown by.
    let told = header_of(&answer, "www-authenticate");
    assert!(told.ends_with("EdDSA RS256\", error=\"invalid_token\""), "{told}");
    assert_eq!(told.matches("error").count(), 1, "{told}");
}

#[tokio::test]
async fn a_client_operates_in_its_own_name_where_policy_lets_it() {
    let signer = Signer::new();
    let bed = bed_with(|options| {
        signer.configure(options);
        options.policies += &format!(
            r#"
@id("deployer-revokes")
permit (principal == User::"{BROKER}#deployer", action == Action::"revoke", resource == Role::"deploy");
"#
        );
    })
    .await;
    let assertion = signer.assertion(json!({}));
    let form = [&by(&assertion)[..], &[("role", "deploy"), ("reason", "stolen")]].concat();
    let asked = (Method::POST, "/v1/revocations");
    ok(&ask(&bed, asked.clone(), &[], &form).await);
    let record = newest(&bed).await;
    assert_eq!(
        (record.principal.issuer.as_str(), record.principal.subject.as_str()),
        (BROKER, "deployer")
    );
    assert_eq!(record.policy_id.as_deref(), Some("deployer-revokes"));
    refused(&ask(&bed, asked.clone(), &[], &form).await, 401, "invalid_client");
    let again = signer.assertion(json!({}));
    let form = [&by(&again)[..], &[("role", "other")]].concat();
    refused(&ask(&bed, asked.clone(), &[], &form).await, 403, "access_denied");
    // To name a client is no proof; to come in two ways is none either.
    let named = [("client_id", "deployer"), ("role", "deploy")];
    refused(&ask(&bed, asked.clone(), &[], &named).await, 401, "invalid_client");
    let both = signer.assertion(json!({}));
    let form = [&by(&both)[..], &[("role", "deploy")]].concat();
    let bearer = format!("Bearer {}", ops(&bed));
    refused(&ask(&bed, asked, &[("authorization", &bearer)], &form).await, 400, "invalid_request");
}

#[tokio::test]
async fn a_token_of_a_clients_name_proves_nothing_where_that_client_has_to_authenticate() {
    let signer = Signer::new();
    let bed = bed_with(|options| {
        signer.configure(options);
        options.config.dpop.nonces = Nonces::Required;
    })
    .await;
    let kid = bed.broker.keys.current().await.unwrap().active().kid().to_string();
    let before = bed.store.size().await.unwrap();
    for name in ["azp", "client_id"] {
        let mut claims = json!({"sub": "ops", "groups": ["ops"], "azp": "deployer"});
        claims[name] = json!("deployer");
        let bearer = format!("Bearer {}", bed.key.token(claims));
        for answer in ask_all(&bed, &[("authorization", &bearer)], &kid).await {
            let said = refused(&answer, 401, "invalid_token");
            assert!(said.contains("'deployer' has to authenticate"), "{said}");
        }
    }
    assert_eq!(bed.store.size().await.unwrap(), before);
    // One that is known by a key alone has to prove that.
    let claims = json!({"sub": "ops", "groups": ["ops"], "azp": "public"});
    let said =
        refused(&get(&bed, "/v1/keys", &bed.key.token(claims.clone())).await, 401, "invalid_token");
    assert!(said.contains("'public' has to prove a key"), "{said}");
    let device = Device::new();
    let mut bound = claims;
    bound["cnf"] = json!({"jkt": device.0.thumbprint()});
    let bound = bed.key.token(bound);
    ok(&with_proof(&bed, &device, &bound, None).await.0);
}

/// Asks for the keys with a token that is bound to the key of this device, and a proof, which is
/// a new one where there is none. Returns that, too.
async fn with_proof(
    bed: &Bed,
    device: &Device,
    bound: &str,
    proof: Option<&str>,
) -> (Response, String) {
    let (shown, of_keys) = (format!("DPoP {bound}"), ("GET", "https://broker.example.com/v1/keys"));
    let at = async |proof: &str| {
        let headers = [("authorization", shown.as_str()), ("dpop", proof)];
        ask(bed, (Method::GET, "/v1/keys"), &headers, &[]).await
    };
    let proof = match proof {
        Some(proof) => proof.to_string(),
        None => {
            let asked = at(&device.proof_with(of_keys, bound, None)).await;
            let nonce = header_of(&asked, "dpop-nonce");
            device.proof_with(of_keys, bound, Some(&nonce))
        }
    };
    (at(&proof).await, proof)
}

#[tokio::test]
async fn how_often_they_may_be_asked_is_limited_each_by_itself() {
    let bed = bed_with(|options| {
        let rate = || super::rates::rate(1, 1);
        let route =
            [(Endpoint::Revocations, rate()), (Endpoint::Keys, rate()), (Endpoint::Audit, rate())];
        options.config.limits = Limits { route: route.into(), ..Limits::default() };
    })
    .await;
    let ops = ops(&bed);
    for (method, path) in [
        (Method::POST, "/v1/revocations"),
        (Method::GET, "/v1/keys"),
        (Method::GET, "/v1/audit/records"),
    ] {
        let bearer = format!("Bearer {ops}");
        let headers = [("authorization", bearer.as_str())];
        let asked =
            async || ask(&bed, (method.clone(), path), &headers, &[("role", "other")]).await;
        ok(&asked().await);
        refused(&asked().await, 429, "temporarily_unavailable");
    }
    // What is tried counts as what is done.
    let tried = post(&bed, "/v1/revocations/dry-run", &ops, &[("role", "other")]).await;
    refused(&tried, 429, "temporarily_unavailable");
    let large = [("reason", "x".repeat(70_000))];
    let large: Vec<_> = large.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let free = super::operate::bed().await;
    let answer = post(&free, "/v1/revocations", &ops, &large).await;
    refused(&answer, 413, "invalid_request");
}
