//! Assertions that may be used once.

mod same;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::http::StatusCode;
use serde_json::json;
use time::Duration;

use super::dpop::{Device, ask, nonce, refusal, rejected, twins_with};
use crate::broker::audit::Decision;
use crate::broker::config::Assertions;
use crate::broker::store::sql::tests::Ground;
use crate::broker::store::{Once, Store, sqlite};
use crate::broker::testbed::failing::{AFTER, BEFORE, Failing, WELL};
use crate::broker::testbed::{API, Bed, Options, Shifted, claims_of, json_of, now, set};
use crate::secret::Secret;

pub(super) const OTHER: &str = "https://other.example.com";

pub(super) fn strict(options: &mut Options) {
    let corp = options.config.trusted_issuer.get_mut("corp").unwrap();
    corp.assertions = Assertions::Once;
    let deploy = options.config.role.get_mut("deploy").unwrap();
    deploy.audiences = set(&format!("{API} {OTHER}"));
}

async fn active(bed: &Bed, token: &str) -> bool {
    json_of(&bed.introspect(Some(token), token).await)["active"].as_bool().unwrap()
}

async fn outcome(bed: &Bed, name: &str) -> u64 {
    let text = bed.admin.get("/metrics").await;
    let text = String::from_utf8(text.body.expose().clone()).unwrap();
    let line = format!("reason=\"{name}\"}} ");
    text.lines().find_map(|l| Some(l.split_once(&line)?.1.parse().unwrap())).unwrap()
}

#[tokio::test]
async fn an_assertion_is_used_up_by_the_first_thing_that_it_is_exchanged_for() {
    let bed = Bed::with(strict).await;
    let assertion = bed.key.token(json!({}));
    // What is denied uses nothing up.
    bed.refused(&assertion, &[("role", "nothing")]).await;
    let response = bed.exchange(&assertion, &[]).await;
    assert_eq!(response.status.as_u16(), 200);
    let first = json_of(&response)["access_token"].as_str().unwrap().to_string();
    for other in [("audience", OTHER), ("scope", "deploy:read"), ("requested_ttl", "60")] {
        let refusal = bed.refused(&assertion, &[other]).await;
        assert_eq!(refusal["error"], "invalid_request");
        let why = refusal["error_description"].as_str().unwrap();
        assert!(why.contains("it may be used once, and was"), "{why}");
    }
    assert_eq!(outcome(&bed, "reused").await, 3);
    assert!(active(&bed, &first).await);
    let records = bed.records(2, 9).await;
    assert_eq!(records.len(), 3);
    for (_, record) in records {
        assert_eq!(record.decision, Decision::Denied);
        assert!(record.reason.contains("it may be used once"), "{}", record.reason);
    }
    // Another one of the same person is another one.
    bed.issued(json!({"jti": "2"}), &[("audience", OTHER)]).await;
}

#[tokio::test]
async fn a_request_that_is_sent_again_with_its_key_leaves_one_token() {
    let clock = Arc::new(Shifted::default());
    let bed = Bed::with(|options| {
        let deploy = options.config.role.get_mut("deploy").unwrap();
        deploy.audiences = set(&format!("{API} {OTHER}"));
        options.clock = clock.clone();
    })
    .await;
    let assertion = bed.key.token(json!({}));
    let ask = async |who: &str, key: &str, more: &[(&str, &str)]| {
        let fields = [&[("idempotency_key", key)], more].concat();
        let answer = json_of(&bed.exchange(who, &fields).await);
        answer["access_token"].as_str().map(String::from).ok_or(answer)
    };
    // Without one, each is a token of its own.
    let apart = [bed.issued(json!({}), &[]).await, bed.issued(json!({}), &[]).await];
    let lost = ask(&assertion, "k1", &[]).await.unwrap();
    let got = ask(&assertion, "k1", &[]).await.unwrap();
    let other = ask(&assertion, "k2", &[]).await.unwrap();
    for token in [&apart[0], &apart[1], &got, &other] {
        assert!(active(&bed, token).await);
    }
    assert!(!active(&bed, &lost).await);
    // It is not another caller's, and for this one request.
    let bob = ask(&bed.key.token(json!({"sub": "bob"})), "k1", &[]).await.unwrap();
    assert!(active(&bed, &bob).await && active(&bed, &got).await);
    let refusal = ask(&assertion, "k1", &[("audience", OTHER)]).await.unwrap_err();
    assert_eq!(refusal["error"], "invalid_request");
    let why = refusal["error_description"].as_str().unwrap();
    assert!(why.contains("'idempotency_key' was used for another request"), "{why}");
    // An answer that was lost is asked for again soon, or never.
    clock.0.store(61, Ordering::Relaxed);
    assert_eq!(ask(&assertion, "k1", &[]).await.unwrap_err()["error"], "invalid_request");
    assert!(active(&bed, &got).await);
    for (key, good) in [("k".repeat(128), true), ("k".repeat(129), false), ("a b".into(), false)] {
        assert_eq!(ask(&assertion, &key, &[]).await.is_ok(), good, "{key}");
    }
    assert_eq!(outcome(&bed, "reused").await, 0);
}

/// Nobody knows for ever which keys were used, and a client may have one for each night.
#[tokio::test]
async fn a_key_that_comes_again_when_it_is_forgotten_is_for_another_token() {
    let clock = Arc::new(Shifted::default());
    let bed = Bed::with(|options| options.clock = clock.clone()).await;
    let assertion = bed.key.token(json!({}));
    let nightly = [("idempotency_key", "nightly")];
    let ask = async || {
        let answer = json_of(&bed.exchange(&assertion, &nightly).await);
        answer["access_token"].as_str().map(String::from).ok_or(answer)
    };
    let first = ask().await.unwrap();
    // It was asked for once more then, too: that is no try of the one that comes later.
    assert_eq!(bed.revoke(&ask().await.unwrap()).await, 200);
    let later = now() + Duration::HOUR;
    assert_eq!(bed.store.forget_consumed(Once::Assertion, later, 9).await.unwrap(), 1);
    let second = ask().await.unwrap();
    assert_ne!(claims_of(&first)["jti"], claims_of(&second)["jti"]);
    assert!(!active(&bed, &first).await && active(&bed, &second).await);
    // Who asks again for that one has that one revoked.
    clock.0.store(9, Ordering::Relaxed);
    let third = ask().await.unwrap();
    assert!(!active(&bed, &second).await && active(&bed, &third).await);
}

/// Policies and chance may give the other token less time than the one before has.
#[tokio::test]
async fn what_was_revoked_for_another_stays_so_until_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.cedar");
    let policy = |ttl: &str| {
        let text = format!(
            "@id(\"p\") @ttl(\"{ttl}\") permit (principal, action == Action::\"issue\", resource == Role::\"deploy\");"
        );
        crate::host::files::write_private(&path, text.as_bytes()).unwrap();
        text
    };
    let bed = Bed::with(|options| {
        options.policies = policy("1h");
        options.config.policy.files = vec![path.clone()];
    })
    .await;
    let key = [("idempotency_key", "k")];
    let lost = bed.issued(json!({}), &key).await;
    policy("5m");
    bed.broker.reload_policies().unwrap();
    bed.issued(json!({}), &key).await;
    let before = now() + Duration::minutes(59);
    assert_eq!(bed.store.forget_consumed(Once::RevokedToken, before, 9).await.unwrap(), 0);
    assert!(!active(&bed, &lost).await);
}

/// A signature of ECDSA can be changed into another good one by everybody.
#[tokio::test]
async fn another_signature_makes_no_other_assertion() {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let bed = Bed::with(strict).await;
    let assertion = bed.key.token(json!({}));
    assert_eq!(bed.exchange(&assertion, &[]).await.status.as_u16(), 200);
    let (signed, signature) = assertion.rsplit_once('.').unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    // The order of P-256, less the second half.
    let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let mut borrow = 0i16;
    for at in (0..32).rev() {
        let digit = i16::from_str_radix(&order[2 * at..2 * at + 2], 16).unwrap();
        let left = digit - i16::from(bytes[32 + at]) - borrow;
        borrow = i16::from(left < 0);
        bytes[32 + at] = left.rem_euclid(256) as u8;
    }
    let changed = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(bytes));
    assert_ne!(changed, assertion);
    let refusal = bed.refused(&changed, &[("audience", OTHER)]).await;
    let why = refusal["error_description"].as_str().unwrap();
    assert!(why.contains("it may be used once, and was"), "{why}");
}

#[tokio::test]
async fn the_same_request_again_gets_another_token_and_the_one_before_ends() {
    let clock = Arc::new(Shifted::default());
    let bed = Bed::with(|options| {
        strict(options);
        options.clock = clock.clone();
    })
    .await;
    let assertion = bed.key.token(json!({}));
    let mut tokens = Vec::new();
    for _ in 0..4 {
        let response = bed.exchange(&assertion, &[]).await;
        assert_eq!(response.status.as_u16(), 200, "{}", json_of(&response));
        tokens.push(json_of(&response)["access_token"].as_str().unwrap().to_string());
        for (at, token) in tokens.iter().enumerate() {
            assert_eq!(active(&bed, token).await, at + 1 == tokens.len());
        }
    }
    let records = bed.records(0, 9).await;
    let decisions: Vec<_> = records.iter().map(|(_, record)| record.decision).collect();
    let (issued, revoked) = (Decision::Issued, Decision::Revoked);
    assert_eq!(decisions, [issued, issued, revoked, issued, revoked, issued, revoked]);
    assert_eq!(records[2].1.jti.unwrap().to_string(), claims_of(&tokens[0])["jti"]);
    bed.refused(&assertion, &[]).await;

    let assertion = bed.key.token(json!({"jti": "2"}));
    assert_eq!(bed.exchange(&assertion, &[]).await.status.as_u16(), 200);
    clock.0.store(61, Ordering::Relaxed);
    bed.refused(&assertion, &[]).await;
}

#[tokio::test]
async fn of_what_its_holder_has_ended_nothing_more_comes() {
    let bed = Bed::with(strict).await;
    let assertion = bed.key.token(json!({}));
    let response = bed.exchange(&assertion, &[]).await;
    let token = json_of(&response)["access_token"].as_str().unwrap().to_string();
    assert_eq!(bed.revoke(&token).await, 200);
    bed.refused(&assertion, &[]).await;
}

#[tokio::test]
async fn of_requests_at_once_for_different_things_one_wins() {
    let bed = Bed::with(strict).await;
    for round in 0..5 {
        let assertion = bed.key.token(json!({"jti": round}));
        let ask = async |audience: &'static str, scope: &'static str| {
            let changes = [("audience", audience), ("scope", scope)];
            bed.exchange(&assertion, &changes).await.status.as_u16()
        };
        let (a, b, c, d) = tokio::join!(
            ask(API, "deploy:read"),
            ask(OTHER, "deploy:read"),
            ask(API, "deploy:write"),
            ask(OTHER, "deploy:write"),
        );
        let won = [a, b, c, d].into_iter().filter(|status| *status == 200).count();
        assert_eq!(won, 1, "{a} {b} {c} {d}");
    }
}

/// However many ask for the very same thing at once, one token is good in the end.
#[tokio::test]
async fn of_the_same_request_many_times_at_once_one_token_is_good() {
    let bed = Bed::with(strict).await;
    let assertion = bed.key.token(json!({}));
    let ask = async || {
        let response = bed.exchange(&assertion, &[]).await;
        json_of(&response)["access_token"].as_str().map(String::from)
    };
    let tokens: [Option<String>; 6] = tokio::join!(ask(), ask(), ask(), ask(), ask(), ask()).into();
    let tokens: Vec<_> = tokens.into_iter().flatten().collect();
    assert!((1..=4).contains(&tokens.len()), "{}", tokens.len());
    let mut good = 0;
    for token in &tokens {
        good += usize::from(active(&bed, token).await);
    }
    assert_eq!(good, 1);
}

#[tokio::test]
async fn what_was_used_stays_used_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.db");
    let open = async || Arc::new(sqlite::open(&path).await.unwrap()) as Arc<dyn Store>;
    let store = open().await;
    let root_key = || crate::broker::keys::RootKey::new(Secret::new([7; 32]));
    let bed = Bed::with(|options| {
        strict(options);
        (options.store, options.root_key) = (store, root_key());
    })
    .await;
    let assertion = bed.key.token(json!({}));
    assert_eq!(bed.exchange(&assertion, &[]).await.status.as_u16(), 200);
    let jwks = bed.key.jwks();
    // As after a power cut: nothing was closed.
    let store = open().await;
    let again = Bed::with(|options| {
        strict(options);
        let keys = dir.path().join("corp.json");
        crate::host::files::write_private(&keys, jwks.to_string().as_bytes()).unwrap();
        options.config.trusted_issuer.get_mut("corp").unwrap().jwks_file = Some(keys);
        (options.store, options.root_key) = (store, root_key());
    })
    .await;
    let refusal = again.refused(&assertion, &[("audience", OTHER)]).await;
    assert!(refusal["error_description"].as_str().unwrap().contains("used once"), "{refusal}");
}

/// What is in doubt is one attempt, not its token: the next attempt has the same.
#[tokio::test]
async fn a_token_stays_good_that_an_attempt_before_was_in_doubt_about() {
    let (bed, store) = Failing::bed(strict).await;
    let assertion = bed.key.token(json!({}));
    store.writes(BEFORE);
    assert_eq!(bed.exchange(&assertion, &[]).await.status, StatusCode::SERVICE_UNAVAILABLE);
    store.writes(WELL);
    let token = issued(&bed, &assertion).await;
    is_issued_once_and_good(&bed, &bed, &token).await;
}

#[tokio::test]
async fn nor_does_a_process_take_back_what_another_one_issued() {
    let store: Arc<dyn Store> = Arc::new(sqlite::in_memory().await.unwrap());
    let cut_off = Failing::over(store.clone());
    let root_key = || crate::broker::keys::RootKey::new(Secret::new([7; 32]));
    let one = Bed::with(|options| {
        strict(options);
        (options.store, options.root_key) = (cut_off.clone(), root_key());
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("corp.json");
    crate::host::files::write_private(&keys, one.key.jwks().to_string().as_bytes()).unwrap();
    let other = Bed::with(|options| {
        strict(options);
        options.config.trusted_issuer.get_mut("corp").unwrap().jwks_file = Some(keys);
        (options.store, options.root_key) = (store, root_key());
    })
    .await;
    let assertion = one.key.token(json!({}));
    cut_off.writes(BEFORE);
    assert_eq!(one.exchange(&assertion, &[]).await.status, StatusCode::SERVICE_UNAVAILABLE);
    let token = issued(&other, &assertion).await;
    cut_off.writes(WELL);
    is_issued_once_and_good(&one, &other, &token).await;
}

/// The commit was kept, the process learned of nothing and was killed: what it has in doubt is
/// gone with it. Nobody has a token of it, for none was signed; and the same request says what
/// became of it.
#[tokio::test]
async fn what_a_killed_process_had_in_doubt_the_next_request_settles_at_another() {
    for ground in Ground::each().await {
        let stores = ground.open_often(2).await;
        let cut_off = Failing::over(stores[0].clone());
        let root_key = || crate::broker::keys::RootKey::new(Secret::new([7; 32]));
        let one = Bed::with(|options| {
            strict(options);
            (options.store, options.root_key) = (cut_off.clone(), root_key());
        })
        .await;
        let assertion = one.key.token(json!({}));
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("corp.json");
        crate::host::files::write_private(&keys, one.key.jwks().to_string().as_bytes()).unwrap();
        cut_off.writes(AFTER);
        assert_eq!(one.exchange(&assertion, &[]).await.status, StatusCode::SERVICE_UNAVAILABLE);
        cut_off.writes(BEFORE);
        drop(one);
        let other = Bed::with(|options| {
            strict(options);
            options.config.trusted_issuer.get_mut("corp").unwrap().jwks_file = Some(keys);
            (options.store, options.root_key) = (stores[1].clone(), root_key());
        })
        .await;
        let token = issued(&other, &assertion).await;
        assert!(active(&other, &token).await);
        let records = other.records(0, 99).await;
        let told: Vec<_> =
            records.iter().map(|(_, record)| (record.decision, record.jti)).collect();
        let [(Decision::Issued, lost), (Decision::Issued, had), (Decision::Revoked, gone)] =
            told[..]
        else {
            panic!("{told:?}")
        };
        assert_eq!(
            (gone, had.unwrap().to_string()),
            (lost, claims_of(&token)["jti"].as_str().unwrap().to_string())
        );
        assert_ne!(lost, had);
    }
}

async fn issued(bed: &Bed, assertion: &str) -> String {
    let response = bed.exchange(assertion, &[]).await;
    let grant = json_of(&response);
    assert_eq!(response.status, StatusCode::OK, "{grant}");
    grant["access_token"].as_str().unwrap().to_string()
}

/// Has the doubts settled of the one who had some, and looks what became of a token.
async fn is_issued_once_and_good(doubter: &Bed, bed: &Bed, token: &str) {
    // What is in doubt is settled after one commit and before the next.
    for jti in ["2", "3"] {
        issued(doubter, &doubter.key.token(json!({"jti": jti}))).await;
    }
    assert!(active(bed, token).await);
    let records = bed.records(0, 9).await;
    let decisions: Vec<_> = records.iter().map(|(_, record)| record.decision).collect();
    assert_eq!(decisions, [Decision::Issued; 3]);
    assert_eq!(records[0].1.jti.unwrap().to_string(), claims_of(token)["jti"]);
}

#[tokio::test]
async fn those_of_other_issuers_are_good_until_they_expire() {
    let bed = Bed::with(|options| {
        strict(options);
        let corp = options.config.trusted_issuer.get_mut("corp").unwrap();
        corp.assertions = Assertions::UntilExpiry;
    })
    .await;
    let assertion = bed.key.token(json!({}));
    for audience in [API, OTHER, API] {
        let response = bed.exchange(&assertion, &[("audience", audience)]).await;
        assert_eq!(response.status.as_u16(), 200);
    }
}

#[tokio::test]
async fn the_same_request_again_is_one_with_another_proof_by_the_same_key() {
    let bed = Bed::with(strict).await;
    let (assertion, device) = (bed.key.token(json!({"jti": "1"})), Device::new());
    let fresh = nonce(&bed).await;
    let granted = async |proof: &str| {
        let response = ask(&bed, &assertion, &[proof], &[]).await;
        let grant = json_of(&response);
        assert_eq!(response.status, StatusCode::OK, "{grant}");
        assert_eq!(grant["token_type"], "DPoP");
        grant["access_token"].as_str().unwrap().to_string()
    };
    let proof = device.proof(Some(&fresh));
    let first = granted(&proof).await;
    // Whoever has overheard all of it can do nothing with it, nor end the token.
    assert_eq!(refusal(&ask(&bed, &assertion, &[&proof], &[]).await), "invalid_dpop_proof");
    assert_eq!(rejected(&bed, "replayed").await, "1");
    assert!(active(&bed, &first).await);
    let second = granted(&device.proof(Some(&fresh))).await;
    assert!(!active(&bed, &first).await && active(&bed, &second).await);
    assert_eq!(claims_of(&second)["cnf"], json!({ "jkt": device.0.thumbprint() }));
    // With another key, or none, it is another request.
    let other = Device::new().proof(Some(&fresh));
    for proofs in [&[other.as_str()][..], &[]] {
        let response = ask(&bed, &assertion, proofs, &[]).await;
        assert_eq!(refusal(&response), "invalid_request");
        let why = json_of(&response)["error_description"].as_str().unwrap().to_string();
        assert!(why.contains("it may be used once, and was"), "{why}");
    }
    assert!(active(&bed, &second).await);
    // A proof that went with a denial is used up with it.
    let next = bed.key.token(json!({"jti": "2"}));
    assert_eq!(refusal(&ask(&bed, &next, &[&other], &[]).await), "invalid_dpop_proof");
}

#[tokio::test]
async fn of_the_same_assertion_with_the_same_proof_at_all_processes_one_token_comes() {
    let beds = Arc::new(twins_with(strict).await);
    let proof = Device::new().proof(Some(&nonce(&beds[0]).await));
    // Each has an issuer of its own, with a key of its own.
    let assertions = [beds[0].key.token(json!({})), beds[1].key.token(json!({}))];
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..20 {
        let (beds, proof, assertion) = (beds.clone(), proof.clone(), assertions[n % 2].clone());
        tasks.spawn(async move { ask(&beds[n % 2], &assertion, &[&proof], &[]).await.status });
    }
    let statuses = tasks.join_all().await;
    assert_eq!(statuses.iter().filter(|status| status.is_success()).count(), 1, "{statuses:?}");
    let records = beds[0].records(0, 99).await;
    let issued = records.iter().filter(|(_, record)| record.decision == Decision::Issued).count();
    assert_eq!(issued, 1);
}
