//! How often one caller may ask for what operators ask for.

use std::sync::atomic::{AtomicI64, Ordering};

use super::super::rates::{Running, count, limited, rate};
use super::*;

const PATHS: [(Endpoint, Method, &str); 6] = [
    (Endpoint::Revocations, Method::POST, "/v1/revocations"),
    (Endpoint::Keys, Method::GET, "/v1/keys"),
    (Endpoint::Audit, Method::GET, "/v1/audit/records"),
    (Endpoint::Elevations, Method::GET, "/v1/elevations"),
    (Endpoint::Enrollments, Method::GET, "/v1/enrollments"),
    (Endpoint::Roles, Method::GET, "/v1/roles"),
];

async fn bed(change: impl FnOnce(&mut Options)) -> (Bed, Arc<Running>) {
    let clock = Arc::new(Running(AtomicI64::new(1000)));
    let bed = bed_with(|options| {
        let each = PATHS.map(|(endpoint, ..)| (endpoint, rate(60, 1)));
        options.config.limits = Limits { principal_route: each.into(), ..Limits::default() };
        options.clock = clock.clone();
        change(options);
    })
    .await;
    (bed, clock)
}

#[tokio::test]
async fn each_has_a_share_of_each() {
    let (bed, clock) = bed(|_| {}).await;
    let eve = bed.key.token(json!({"sub": "eve"}));
    for who in [&ops(&bed), &eve] {
        for (_, method, path) in &PATHS {
            let header = format!("Bearer {who}");
            let headers = [("authorization", header.as_str())];
            let once =
                async || ask(&bed, (method.clone(), path), &headers, &[("role", "deploy")]).await;
            assert_ne!(once().await.status, StatusCode::TOO_MANY_REQUESTS, "{path}");
            let before = bed.store.size().await.unwrap();
            limited(&once().await, "this caller", "1");
            assert_eq!(bed.store.size().await.unwrap(), before, "it leaves no row");
            clock.0.fetch_add(1, Ordering::Relaxed);
            assert_ne!(once().await.status, StatusCode::TOO_MANY_REQUESTS, "{path}");
        }
    }
    for (endpoint, ..) in &PATHS {
        let name = endpoint.name();
        let counted =
            format!("tmpcred_rate_limited_total{{reason=\"principal\",route=\"{name}\"}}");
        assert_eq!(count(&bed, &counted).await, "2");
    }
    // Who shows nothing that proves who they are takes nothing from anybody.
    clock.0.fetch_add(60, Ordering::Relaxed);
    for _ in 0..3 {
        let forged = IssuerKey::new().token(json!({"sub": "ops", "groups": ["ops"]}));
        refused(&get(&bed, "/v1/keys", &forged).await, 401, "invalid_token");
    }
    ok(&get(&bed, "/v1/keys", &ops(&bed)).await);
}

#[tokio::test]
async fn what_is_good_once_is_not_used_up_by_who_comes_too_often() {
    let (bed, clock) = bed(|options| {
        options.config.trusted_issuer.get_mut("corp").unwrap().assertions = Assertions::Once;
    })
    .await;
    let unique = || {
        let id = uuid::Uuid::new_v4();
        bed.key.token(json!({"sub": "ops", "groups": ["ops"], "jti": id}))
    };
    let (first, second) = (unique(), unique());
    ok(&get(&bed, "/v1/keys", &first).await);
    limited(&get(&bed, "/v1/keys", &second).await, "this caller", "1");
    clock.0.fetch_add(1, Ordering::Relaxed);
    ok(&get(&bed, "/v1/keys", &second).await);
    clock.0.fetch_add(1, Ordering::Relaxed);
    assert_eq!(get(&bed, "/v1/keys", &second).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_client_that_shows_which_one_it_is_has_a_share_of_its_own() {
    let signer = Signer::new();
    let (bed, _) = bed(|options| signer.configure(options)).await;
    let ask = async || {
        let assertion = signer.assertion(json!({}));
        let [kind, shown] = by(&assertion);
        ask(&bed, (Method::POST, "/v1/revocations"), &[], &[kind, shown, ("role", "deploy")]).await
    };
    refused(&ask().await, 403, "access_denied");
    limited(&ask().await, "this caller", "1");
    ok(&post(&bed, "/v1/revocations", &ops(&bed), &[("role", "deploy")]).await);
}

/// One for which no time passes: whoever has been denied too much is not less so after a while.
async fn timeless() -> Bed {
    bed_with(|options| options.clock = Arc::new(Running(AtomicI64::new(1000)))).await
}

#[tokio::test]
async fn who_is_denied_again_and_again_is_counted_and_told_when_to_come_again() {
    let bed = timeless().await;
    let before = bed.store.size().await.unwrap();
    let alice = bed.key.token(json!({}));
    let mut answers = Vec::new();
    for _ in 0..40 {
        answers.push(post(&bed, "/v1/revocations", &alice, &[("role", "deploy")]).await);
    }
    for answer in &answers {
        refused(answer, 403, "access_denied");
    }
    let counted = answers.iter().filter(|answer| !header_of(answer, "retry-after").is_empty());
    assert_eq!(counted.count(), 10);
    assert_eq!(bed.store.size().await.unwrap(), before + 30);
    // That keeps nobody out who may.
    ok(&post(&bed, "/v1/revocations", &ops(&bed), &[("role", "deploy")]).await);
}

/// Whoever has a key can make as many proofs as they like, and each that is used up is kept.
#[tokio::test]
async fn who_is_denied_all_the_time_uses_up_no_more_proofs() {
    let bed = timeless().await;
    let device = Device::new();
    let jkt = device.0.thumbprint();
    let alice = bed.key.token(json!({"cnf": {"jkt": jkt}}));
    let (denied, used) = with_proof(&bed, &device, &alice, None).await;
    refused(&denied, 403, "access_denied");
    let again = with_proof(&bed, &device, &alice, Some(&used)).await.0;
    refused(&again, 401, "invalid_dpop_proof");
    for _ in 1..30 {
        let (denied, _) = with_proof(&bed, &device, &alice, None).await;
        refused(&denied, 403, "access_denied");
    }
    let (counted, unused) = with_proof(&bed, &device, &alice, None).await;
    for answer in [&counted, &with_proof(&bed, &device, &alice, Some(&unused)).await.0] {
        refused(answer, 403, "access_denied");
        assert_ne!(header_of(answer, "retry-after"), "");
    }
    // That is their own matter, and that of this key.
    let ops = json!({"sub": "ops", "groups": ["ops"], "cnf": {"jkt": jkt}});
    ok(&with_proof(&bed, &device, &bed.key.token(ops), None).await.0);
}

/// A thief who has a token of theirs, and not the key, cannot keep them from revoking.
#[tokio::test]
async fn what_others_are_denied_in_their_name_keeps_nobody_out_who_proves_a_key() {
    let bed = timeless().await;
    let device = Device::new();
    let of = |more: Value| {
        let mut claims = json!({"sub": "ops", "groups": ["ops"]});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        bed.key.token(claims)
    };
    for n in 0..40 {
        let denied = bed.exchange(&of(json!({})), &[("role", "none")]).await;
        let has_to_wait = denied.headers.contains_key("retry-after");
        assert_eq!((denied.status.as_u16(), has_to_wait), (400, n >= 30), "{n}");
    }
    let bound = of(json!({"cnf": {"jkt": device.0.thumbprint()}}));
    ok(&with_proof(&bed, &device, &bound, None).await.0);
}
