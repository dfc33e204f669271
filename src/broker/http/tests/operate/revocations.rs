//! Revoking tokens of others.

use std::sync::atomic::Ordering;

use super::super::cutoff::{active, next_second};
use super::*;
use crate::broker::testbed::claims_of;
use crate::broker::testbed::failing::{BEFORE, Failing, WELL};

const PATH: &str = "/v1/revocations";
const DRY_RUN: &str = "/v1/revocations/dry-run";

async fn good(bed: &Bed, tokens: &[&String]) -> Vec<bool> {
    let mut good = Vec::new();
    for token in tokens {
        good.push(active(bed, token).await);
    }
    good
}

#[tokio::test]
async fn those_of_a_subject_a_role_a_client_an_issuer_or_all_end_at_once() {
    let bed = bed_with(|options| {
        options.policies += &format!(
            r#"@id("root") permit (principal == User::"{CORP}#root", action == Action::"revoke", resource);"#
        );
    })
    .await;
    let ops = ops(&bed);
    let alice = bed.issued(json!({}), &[]).await;
    let bob = bed.issued(json!({"sub": "bob", "azp": "gui"}), &[]).await;
    let other = bed.issued(json!({"sub": "carol"}), &[("role", "other")]).await;
    let tokens = [&alice, &bob, &other];
    assert_eq!(good(&bed, &tokens).await, [true; 3]);
    next_second().await;

    let of_alice = [("issuer", CORP), ("subject", "alice"), ("reason", "left")];
    let answer = ok(&post(&bed, PATH, &ops, &of_alice).await);
    let before = answer["issued_before"].clone();
    assert_eq!(
        answer,
        json!({
            "revoked": "subject", "issuer": CORP, "subject": "alice", "tokens": 1, "on_record": true,
            "issued_before": before, "revocation_reach": "introspection", "dry_run": false,
        })
    );
    assert_eq!(good(&bed, &tokens).await, [false, true, true]);
    let record = newest(&bed).await;
    assert_eq!((record.action.as_str(), record.decision), ("revoke-many", Decision::Revoked));
    assert_eq!(
        (record.principal.issuer.as_str(), record.principal.subject.as_str()),
        (CORP, "ops")
    );
    assert_eq!((record.client.as_str(), record.source.as_str()), ("cli", "127.0.0.1"));
    assert_eq!(record.policy_id.as_deref(), Some("ops-revoke"));
    let says = format!("'{CORP}#ops' revoked what was issued before ");
    assert!(record.reason.starts_with(&says), "{}", record.reason);
    assert!(record.reason.ends_with(&format!("(subject {CORP}#alice): left")), "{}", record.reason);

    let answer = ok(&post(&bed, PATH, &ops, &[("role", "other")]).await);
    assert_eq!(
        (&answer["revoked"], &answer["role"], &answer["tokens"]),
        (&json!("role"), &json!("other"), &json!(1))
    );
    assert_eq!(good(&bed, &tokens).await, [false, true, false]);
    assert_eq!(newest(&bed).await.role, "other");
    let answer = ok(&post(&bed, PATH, &ops, &[("client", "gui")]).await);
    assert_eq!((&answer["client"], &answer["tokens"]), (&json!("gui"), &json!(1)));
    assert_eq!(good(&bed, &tokens).await, [false; 3]);
    // Whoever may have a new one has it.
    next_second().await;
    let again = bed.issued(json!({}), &[]).await;
    assert_eq!(good(&bed, &[&again]).await, [true]);
    next_second().await;
    ok(&post(&bed, PATH, &ops, &[("issuer", CORP)]).await);
    assert_eq!(good(&bed, &[&again]).await, [false]);
    next_second().await;
    let last = bed.issued(json!({}), &[]).await;
    next_second().await;
    let root = bed.key.token(json!({"sub": "root"}));
    let answer = ok(&post(&bed, PATH, &root, &[("all", "true")]).await);
    assert_eq!(answer["revoked"], "all");
    assert_eq!(good(&bed, &[&last]).await, [false]);
    assert_eq!(counted(&bed, "revocations", "revoked").await, 5);
}

#[tokio::test]
async fn one_token_ends_by_its_id_or_by_itself_and_a_second_time_changes_nothing() {
    let bed = bed().await;
    let ops = ops(&bed);
    let (one, two) = (bed.issued(json!({}), &[]).await, bed.issued(json!({}), &[]).await);
    let jti = claims_of(&one)["jti"].as_str().unwrap().to_string();
    for tokens in [1, 0, 0] {
        let answer = ok(&post(&bed, PATH, &ops, &[("jti", &jti), ("reason", "leaked")]).await);
        assert_eq!((&answer["revoked"], &answer["jti"]), (&json!("token"), &json!(jti)));
        assert_eq!(answer["tokens"], tokens);
        // What the log has of it is for those who may read that.
        assert!(answer.get("subject").is_none() && answer.get("role").is_none(), "{answer}");
    }
    assert_eq!(good(&bed, &[&one, &two]).await, [false, true]);
    let record = newest(&bed).await;
    assert_eq!((record.action.as_str(), record.decision), ("revoke", Decision::Revoked));
    assert_eq!((record.principal.subject.as_str(), record.role.as_str()), ("ops", "deploy"));
    assert_eq!(record.jti.map(|jti| jti.to_string()), Some(jti));
    assert_eq!(record.reason, format!("'{CORP}#ops' revoked it: leaked"));
    ok(&post(&bed, PATH, &ops, &[("token", &two)]).await);
    assert_eq!(good(&bed, &[&two]).await, [false]);
    assert_eq!(counted(&bed, "revocations", "repeated").await, 2);
    // The same many twice.
    for _ in 0..2 {
        ok(&post(&bed, PATH, &ops, &[("role", "deploy")]).await);
    }
}

#[tokio::test]
async fn an_opaque_token_that_is_shown_ends_everywhere() {
    let bed = bed_with(|options| {
        let deploy = options.config.role.get_mut("deploy").unwrap();
        deploy.token_format = crate::broker::config::TokenFormat::Opaque;
    })
    .await;
    let token = bed.issued(json!({}), &[]).await;
    let answer = ok(&post(&bed, PATH, &ops(&bed), &[("token", &token)]).await);
    assert_eq!((&answer["tokens"], &answer["revocation_reach"]), (&json!(1), &json!("everywhere")));
    assert!(!active(&bed, &token).await);
}

#[tokio::test]
async fn who_may_revoke_of_one_role_revokes_nothing_else() {
    let bed = bed().await;
    let leo = bed.key.token(json!({"sub": "leo"}));
    let (mine, other) =
        (bed.issued(json!({}), &[]).await, bed.issued(json!({}), &[("role", "other")]).await);
    let unknown = uuid::Uuid::new_v4().to_string();
    for form in [
        vec![("token", other.as_str())],
        vec![("role", "other")],
        vec![("issuer", CORP), ("subject", "alice")],
        vec![("issuer", CORP)],
        vec![("client", "cli")],
        vec![("all", "true")],
        // Nor is one told what there is.
        vec![("jti", unknown.as_str())],
        vec![("token", "garbage")],
    ] {
        refused(&post(&bed, PATH, &leo, &form).await, 403, "access_denied");
    }
    assert_eq!(good(&bed, &[&mine, &other]).await, [true, true]);
    ok(&post(&bed, PATH, &leo, &[("token", &mine)]).await);
    assert_eq!(good(&bed, &[&mine, &other]).await, [false, true]);
    next_second().await;
    let again = bed.issued(json!({}), &[]).await;
    next_second().await;
    ok(&post(&bed, PATH, &leo, &[("role", "deploy")]).await);
    assert_eq!(good(&bed, &[&again, &other]).await, [false, true]);
}

#[tokio::test]
async fn policy_is_told_whose_they_are() {
    let bed = bed_with(|options| {
        options.policies += &format!(
            r#"
@id("not-of-roots")
forbid (principal, action == Action::"revoke", resource)
when {{ context has of_subject && context.of_subject.subject == "root" }};

@id("gui-only")
permit (principal == User::"{CORP}#gus", action == Action::"revoke", resource)
when {{
    context has of_client && context.of_client == "gui"
    && (if context has of_issuer then context.of_issuer == "{CORP}" else true)
}};
"#
        );
    })
    .await;
    let (ops, gus) = (ops(&bed), bed.key.token(json!({"sub": "gus"})));
    let root = bed.issued(json!({"sub": "root"}), &[]).await;
    let gui = bed.issued(json!({"azp": "gui"}), &[]).await;
    for form in
        [[("token", root.as_str())].to_vec(), [("issuer", CORP), ("subject", "root")].to_vec()]
    {
        refused(&post(&bed, PATH, &ops, &form).await, 403, "access_denied");
        assert_eq!(newest(&bed).await.policy_id.as_deref(), Some("not-of-roots"));
    }
    refused(&post(&bed, PATH, &gus, &[("token", &root)]).await, 403, "access_denied");
    refused(&post(&bed, PATH, &gus, &[("client", "cli")]).await, 403, "access_denied");
    ok(&post(&bed, PATH, &gus, &[("client", "gui")]).await);
    ok(&post(&bed, PATH, &gus, &[("token", &gui)]).await);
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused() {
    let bed = bed().await;
    let ops = ops(&bed);
    let token = bed.issued(json!({}), &[]).await;
    let later = "2100-01-01T00:00:00Z";
    let (long, unknown) = ("x".repeat(1100), uuid::Uuid::new_v4().to_string());
    let before = bed.store.size().await.unwrap();
    for (form, says) in [
        (vec![], "one of"),
        (vec![("reason", "none")], "one of"),
        (vec![("role", "deploy"), ("client", "cli")], "one of"),
        (vec![("role", "deploy"), ("all", "true")], "one of"),
        (vec![("token", token.as_str()), ("jti", &unknown)], "one of"),
        (vec![("subject", "alice")], "one of"),
        (vec![("subject", "alice"), ("role", "deploy")], "its 'issuer'"),
        (vec![("all", "yes")], "'true'"),
        (vec![("role", "no role")], "name of a role"),
        (vec![("jti", "x")], "no id of a token"),
        (vec![("jti", &unknown)], "no such token"),
        (vec![("token", "garbage")], "no such token"),
        (vec![("jti", &unknown), ("before", "2026-01-01T00:00:00Z")], "of one token"),
        (vec![("role", "deploy"), ("before", "yesterday")], "no moment"),
        (vec![("role", "deploy"), ("before", later)], "yet to come"),
        (vec![("client", &long)], "at most 1024"),
        (vec![("client", "a\nb")], "a line"),
        (vec![("role", "deploy"), ("reason", &long)], "at most 1000"),
        (vec![("role", "deploy"), ("role", "deploy")], "repeated"),
    ] {
        let said = refused(&post(&bed, PATH, &ops, &form).await, 400, "invalid_request");
        assert!(said.contains(says), "{form:?}: {said}");
        let tried = refused(&post(&bed, DRY_RUN, &ops, &form).await, 400, "invalid_request");
        assert_eq!(tried, said);
    }
    assert!(active(&bed, &token).await);
    assert_eq!(bed.store.size().await.unwrap(), before);
    assert_eq!(counted(&bed, "revocations", "malformed").await, 2 * 17);
    assert_eq!(counted(&bed, "revocations", "unknown").await, 2 * 2);
    // What was issued later stays.
    let early = [("role", "deploy"), ("before", "2020-01-01T00:00:00Z")];
    let answer = ok(&post(&bed, PATH, &ops, &early).await);
    assert_eq!(
        (&answer["tokens"], &answer["issued_before"]),
        (&json!(0), &json!("2020-01-01T00:00:00Z"))
    );
    assert!(active(&bed, &token).await);
}

#[tokio::test]
async fn what_would_be_revoked_is_told_and_nothing_is_changed() {
    let bed = bed().await;
    let ops = ops(&bed);
    let token = bed.issued(json!({}), &[]).await;
    let bob = bed.issued(json!({"sub": "bob", "azp": "gui"}), &[]).await;
    let jti = claims_of(&bob)["jti"].as_str().unwrap().to_string();
    next_second().await;
    let size = bed.store.size().await.unwrap();
    for (form, tokens, on_record) in [
        (vec![("role", "deploy")], 2, json!(true)),
        (vec![("role", "other")], 0, Value::Null),
        (vec![("issuer", CORP)], 2, json!(true)),
        (vec![("issuer", CORP), ("subject", "alice")], 1, json!(true)),
        (vec![("issuer", CORP), ("subject", "alcie")], 0, json!(false)),
        (vec![("client", "gui"), ("before", "2020-01-01T00:00:00Z")], 0, json!(true)),
        (vec![("jti", jti.as_str())], 1, json!(true)),
        (vec![("token", token.as_str()), ("reason", "left")], 1, json!(true)),
    ] {
        let told = ok(&post(&bed, DRY_RUN, &ops, &form).await);
        let seen = (&told["dry_run"], &told["tokens"], &told["on_record"]);
        assert_eq!(seen, (&json!(true), &json!(tokens), &on_record), "{form:?}");
    }
    assert_eq!(good(&bed, &[&token, &bob]).await, [true, true]);
    assert_eq!(bed.store.size().await.unwrap(), size);
    assert_eq!(counted(&bed, "revocations", "revoked").await, 0);
    // Whoever may not revoke it is told nothing of it, and that is on record.
    let leo = bed.key.token(json!({"sub": "leo"}));
    let of_leo = ok(&post(&bed, DRY_RUN, &leo, &[("jti", &jti)]).await);
    assert_eq!((&of_leo["tokens"], of_leo.get("subject")), (&json!(1), None));
    refused(&post(&bed, DRY_RUN, &leo, &[("client", "gui")]).await, 403, "access_denied");
    let record = newest(&bed).await;
    assert_eq!((record.action.as_str(), record.decision), ("revoke", Decision::Denied));
    // What was told is what is revoked then.
    ok(&post(&bed, PATH, &ops, &[("jti", &jti)]).await);
    let again = ok(&post(&bed, DRY_RUN, &ops, &[("jti", &jti)]).await);
    assert_eq!(again["tokens"], 0);
    let done = ok(&post(&bed, PATH, &ops, &[("role", "deploy")]).await);
    assert_eq!(done["tokens"], 1);
}

#[tokio::test]
async fn it_is_durable_before_it_is_answered() {
    let (bed, store) = Failing::bed(|options| options.policies += &permits()).await;
    let token = bed.issued(json!({}), &[]).await;
    next_second().await;
    store.writes(BEFORE);
    let answer = post(&bed, PATH, &ops(&bed), &[("role", "deploy")]).await;
    refused(&answer, 503, "temporarily_unavailable");
    assert!(!header_of(&answer, "retry-after").is_empty());
    // Nor is a denial told that is not on record.
    let denied = post(&bed, PATH, &bed.key.token(json!({})), &[("role", "deploy")]).await;
    refused(&denied, 503, "temporarily_unavailable");
    store.writes(WELL);
    assert!(active(&bed, &token).await);
    // They end also where nobody can count them.
    store.scans.store(false, Ordering::Relaxed);
    let answer = ok(&post(&bed, PATH, &ops(&bed), &[("role", "deploy")]).await);
    assert_eq!(answer["tokens"], Value::Null);
    assert!(!active(&bed, &token).await);
}

#[tokio::test]
async fn whoever_waits_for_an_answer_has_one_though_nobody_can_count_in_time() {
    let (bed, store) = Failing::bed(|options| options.policies += &permits()).await;
    let token = bed.issued(json!({}), &[]).await;
    next_second().await;
    store.counts_for_ever.store(true, Ordering::Relaxed);
    let ops = ops(&bed);
    let form = [("role", "deploy")];
    let told = ok(&post(&bed, DRY_RUN, &ops, &form).await);
    assert_eq!((&told["dry_run"], &told["tokens"]), (&json!(true), &Value::Null));
    assert!(active(&bed, &token).await);
    let done = ok(&post(&bed, PATH, &ops, &form).await);
    assert_eq!((&done["dry_run"], &done["tokens"]), (&json!(false), &Value::Null));
    assert!(!active(&bed, &token).await);
}

#[tokio::test]
async fn it_counts_at_every_process_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.db");
    let key = super::super::lineage::root_key();
    let mut beds = Vec::new();
    for _ in 0..2 {
        let store: Arc<dyn Store> = Arc::new(sqlite::open(&path).await.unwrap());
        beds.push(
            bed_with(|options| (options.store, options.root_key) = (store, key.clone())).await,
        );
    }
    let token = beds[1].issued(json!({}), &[]).await;
    assert!(active(&beds[0], &token).await && active(&beds[1], &token).await);
    next_second().await;
    ok(&post(&beds[0], PATH, &ops(&beds[0]), &[("role", "deploy")]).await);
    assert!(!active(&beds[1], &token).await && !active(&beds[0], &token).await);
}

#[tokio::test]
async fn a_role_that_there_is_not_is_refused() {
    let bed = bed().await;
    bed.issued(json!({}), &[]).await;
    let answer = post(&bed, "/v1/revocations", &ops(&bed), &[("role", "deplyo")]).await;
    let said = refused(&answer, 400, "invalid_request");
    assert!(said.contains("there is no role 'deplyo'"), "{said}");
    // An issuer may have been taken out, and act in tokens that are good.
    let gone = [("issuer", "https://gone.example.com")];
    ok(&post(&bed, "/v1/revocations", &ops(&bed), &gone).await);
    // Whoever may not is not told.
    let alice = bed.key.token(json!({}));
    let denied = post(&bed, "/v1/revocations", &alice, &[("role", "deplyo")]).await;
    refused(&denied, 403, "access_denied");
    // Nobody need have had any yet.
    ok(&post(&bed, "/v1/revocations", &ops(&bed), &[("role", "other")]).await);
}

#[tokio::test]
async fn a_flood_of_others_keeps_nobody_from_it() {
    let bed = bed().await;
    let (token, by) = (bed.issued(json!({}), &[]).await, ops(&bed));
    let _full = bed.guard.fill();
    for busy in [
        bed.exchange(&bed.key.token(json!({})), &[]).await,
        bed.introspect(Some(&token), &token).await,
    ] {
        assert_eq!(busy.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    ok(&get(&bed, "/v1/keys", &by).await);
    ok(&get(&bed, "/v1/audit/records", &by).await);
    ok(&post(&bed, DRY_RUN, &by, &[("role", "deploy")]).await);
    ok(&post(&bed, "/v1/revocations", &by, &[("role", "deploy")]).await);
    // There is an end to that, too.
    let _kept = bed.guard.fill_kept();
    assert_eq!(get(&bed, "/v1/keys", &by).await.status, StatusCode::SERVICE_UNAVAILABLE);
}
