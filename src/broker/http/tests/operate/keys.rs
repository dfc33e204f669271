//! Listing, rotating and revoking keys.

use super::*;

async fn active_kid(bed: &Bed) -> String {
    bed.broker.keys.current().await.unwrap().active().kid().to_string()
}

#[tokio::test]
async fn keys_are_listed_rotated_and_revoked_in_the_name_of_who_asks() {
    let bed = bed().await;
    let ops = ops(&bed);
    let token = bed.issued(json!({}), &[]).await;
    let kid = active_kid(&bed).await;
    let before = bed.store.size().await.unwrap();
    let listed = ok(&get(&bed, "/v1/keys", &ops).await);
    let keys = listed["keys"].as_array().unwrap();
    let of = |keys: &[Value], kid: &str| keys.iter().find(|key| key["kid"] == kid).unwrap().clone();
    assert_eq!(of(keys, &kid)["state"], "active");
    assert!(
        keys.iter().any(|key| key["purpose"] == "audit-checkpoint" && key["log_key"].is_string())
    );
    assert!(!listed.to_string().contains("sealed"));
    assert_eq!(bed.store.size().await.unwrap(), before, "who looks is in the log of the broker");

    let rotated = ok(&post(&bed, "/v1/keys/rotate", &ops, &[]).await);
    let [begun] = &rotated["begun"].as_array().unwrap()[..] else { panic!("{rotated}") };
    let next = begun.as_str().unwrap().to_string();
    assert_eq!(of(rotated["keys"].as_array().unwrap(), &next)["state"], "published");
    let record = newest(&bed).await;
    assert_eq!((record.action.as_str(), record.decision), ("key", Decision::Changed));
    assert_eq!(
        (record.principal.issuer.as_str(), record.principal.subject.as_str()),
        (CORP, "ops")
    );
    assert_eq!(record.policy_id.as_deref(), Some("ops-administer"));
    assert!(record.reason.contains(&next) && record.reason.contains("a rotation was asked for"));
    // It is seen here at once.
    let jwks = json_of(&bed.get("/jwks.json").await).to_string();
    assert!(jwks.contains(&next) && jwks.contains(&kid));
    let again = ok(&post(&bed, "/v1/keys/rotate", &ops, &[]).await);
    assert_eq!((&again["begun"], &again["under_way"]), (&json!([]), &json!([next])));

    let form = [("kid", kid.as_str()), ("reason", "it leaked")];
    let revoked = ok(&post(&bed, "/v1/keys/revoke", &ops, &form).await);
    assert_eq!(of(revoked["keys"].as_array().unwrap(), &kid)["state"], "revoked");
    assert_ne!(active_kid(&bed).await, kid);
    let introspected = bed.introspect(Some(&token), &token).await;
    assert_eq!(json_of(&introspected), json!({"active": false}));
    let all = bed.store.records(before, 99).await.unwrap();
    let says = format!("is revoked: '{CORP}#ops' asked for it: it leaked");
    let (_, record) = all.iter().find(|(_, record)| record.reason.ends_with(&says)).unwrap();
    assert_eq!((record.principal.subject.as_str(), record.source.as_str()), ("ops", "127.0.0.1"));
    // A second time changes nothing.
    let size = bed.store.size().await.unwrap();
    let again = ok(&post(&bed, "/v1/keys/revoke", &ops, &form).await);
    assert_eq!((&revoked["was_revoked"], &again["was_revoked"]), (&json!(false), &json!(true)));
    assert_eq!(bed.store.size().await.unwrap(), size);
    assert!(counted(&bed, "administrations", "done").await == 5);
}

#[tokio::test]
async fn which_keys_are_meant_is_said_or_refused() {
    let bed = bed().await;
    let ops = ops(&bed);
    for (path, form) in [
        ("/v1/keys/rotate", vec![("algorithm", "none")]),
        // There is such an algorithm, and nothing is signed by it here.
        ("/v1/keys/rotate", vec![("algorithm", "RS256")]),
        ("/v1/keys/rotate", vec![("all", "true"), ("log", "true")]),
        ("/v1/keys/rotate", vec![("log", "1")]),
        ("/v1/keys/revoke", vec![]),
        ("/v1/keys/revoke", vec![("kid", "nobody's")]),
    ] {
        refused(&post(&bed, path, &ops, &form).await, 400, "invalid_request");
    }
    assert_eq!(counted(&bed, "administrations", "malformed").await, 6);
    let rotated = ok(&post(&bed, "/v1/keys/rotate", &ops, &[("log", "true")]).await);
    assert_eq!(rotated["begun"].as_array().unwrap().len(), 1);
    let record = newest(&bed).await;
    assert!(record.reason.starts_with("the key of the log"), "{}", record.reason);
    assert!(record.scope.starts_with("published "), "whoever checks the log learns of it");
    let rotated = ok(&post(&bed, "/v1/keys/rotate", &ops, &[("all", "true")]).await);
    assert_eq!(rotated["begun"].as_array().unwrap().len(), 1);
    assert_eq!(rotated["under_way"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_permit_for_one_operation_is_for_no_other() {
    let bed = bed_with(|options| {
        options.policies += &format!(
            r#"
@id("lena-lists")
permit (principal == User::"{CORP}#lena", action == Action::"administer", resource)
when {{ ["keys.list", "audit.read"].contains(context.operation) }};
"#
        );
    })
    .await;
    let lena = bed.key.token(json!({"sub": "lena"}));
    let kid = active_kid(&bed).await;
    ok(&get(&bed, "/v1/keys", &lena).await);
    ok(&get(&bed, "/v1/audit/records", &lena).await);
    refused(&post(&bed, "/v1/keys/rotate", &lena, &[]).await, 403, "access_denied");
    refused(&post(&bed, "/v1/keys/revoke", &lena, &[("kid", &kid)]).await, 403, "access_denied");
    refused(
        &post(&bed, "/v1/revocations", &lena, &[("role", "deploy")]).await,
        403,
        "access_denied",
    );
    assert_eq!(active_kid(&bed).await, kid);
}
