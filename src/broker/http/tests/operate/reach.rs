//! Whom a revocation reaches, what lasts all the same, and whose issuer is meant.

use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::super::cutoff::{active, next_second};
use super::*;
use crate::broker::config::{Config, TokenFormat};
use crate::broker::cutoff::{Operator, What};
use crate::broker::store::Whose;
use crate::broker::testbed::now;
use crate::broker::told::aws;
use crate::host::clock::SystemClock;

const PATH: &str = "/v1/revocations";
const DRY_RUN: &str = "/v1/revocations/dry-run";

fn moment(text: &Value) -> OffsetDateTime {
    OffsetDateTime::parse(text.as_str().unwrap(), &Rfc3339).unwrap()
}

/// The id of what was issued last.
async fn newest_id(bed: &Bed) -> String {
    newest(bed).await.jti.unwrap().to_string()
}

#[tokio::test]
async fn one_token_is_told_by_what_the_store_has_of_it() {
    let bed = bed_with(|options| {
        options.config.role.get_mut("other").unwrap().token_format = TokenFormat::Opaque;
    })
    .await;
    let ops = ops(&bed);
    bed.issued(json!({}), &[]).await;
    let signed = newest_id(&bed).await;
    bed.issued(json!({}), &[("role", "other")]).await;
    let opaque = newest_id(&bed).await;
    for (jti, reach) in [(&signed, "introspection"), (&opaque, "everywhere")] {
        for path in [DRY_RUN, PATH] {
            let answer = ok(&post(&bed, path, &ops, &[("jti", jti)]).await);
            assert_eq!(answer["revocation_reach"], reach, "{path}");
        }
    }
}

#[tokio::test]
async fn a_role_is_told_by_what_it_is_and_by_what_its_permits_want() {
    let bed = bed_with(|options| {
        let other = options.config.role["other"].clone();
        options.config.role.insert("third".into(), other.clone());
        options.config.role.insert("fourth".into(), other);
        options.config.role.get_mut("other").unwrap().token_format = TokenFormat::Opaque;
        options.policies += r#"
            @id("third") @ttl("15m") @obligations("opaque")
            permit (principal, action == Action::"issue", resource == Role::"third");
            @id("fourth") @ttl("15m") @obligations("opaque")
            permit (principal, action == Action::"issue", resource == Role::"fourth");
            @id("fourth-plainly") @ttl("15m")
            permit (principal, action == Action::"issue", resource == Role::"fourth");
        "#;
    })
    .await;
    let ops = ops(&bed);
    for (form, reach) in [
        (vec![("role", "deploy")], "introspection"),
        (vec![("role", "other")], "everywhere"),
        (vec![("role", "third")], "everywhere"),
        // Some of them are signed.
        (vec![("role", "fourth")], "introspection"),
        (vec![("issuer", CORP)], "introspection"),
        (vec![("issuer", CORP), ("subject", "alice")], "introspection"),
        (vec![("client", "cli")], "introspection"),
    ] {
        let answer = ok(&post(&bed, DRY_RUN, &ops, &form).await);
        assert_eq!(answer["revocation_reach"], reach, "{form:?}");
        assert_eq!(answer.get("aws_sessions"), None, "{form:?}");
    }
}

#[tokio::test]
async fn sessions_of_aws_last_and_it_is_said_how_they_are_denied() {
    let bed = bed_with(|options| {
        options.config.role.get_mut("deploy").unwrap().aws = Some(aws::Settings::default());
    })
    .await;
    let ops = ops(&bed);
    bed.issued(json!({}), &[]).await;
    let issued = newest(&bed).await;
    let jti = issued.jti.unwrap().to_string();
    for form in [
        vec![("role", "deploy")],
        vec![("issuer", CORP)],
        vec![("issuer", CORP), ("subject", "alice")],
        vec![("client", "cli")],
    ] {
        for path in [DRY_RUN, PATH] {
            let answer = ok(&post(&bed, path, &ops, &form).await);
            let sessions = &answer["aws_sessions"];
            // Who is asked about one of them knows it; else it is nobody's business which there are.
            let of_role = form[0].0 == "role";
            let named = of_role.then(|| json!(["deploy"]));
            assert_eq!(sessions.get("roles"), named.as_ref(), "{form:?}");
            // AWS takes a token until it expires.
            let lasts = moment(&sessions["begun_before"]) - moment(&answer["issued_before"]);
            let longest = Duration::HOUR + crate::oidc::jwt::LEEWAY;
            assert!((longest..=longest + Duration::SECOND).contains(&lasts), "{answer}");
            assert_eq!(
                sessions["deny"]["Statement"][0]["Condition"],
                json!({ "DateLessThan": { "aws:TokenIssueTime": sessions["begun_before"] } })
            );
        }
    }
    // What the log has of one token is for those to read who may.
    let answer = ok(&post(&bed, DRY_RUN, &ops, &[("jti", &jti)]).await);
    assert!(answer["aws_sessions"]["deny"].is_object(), "{answer}");
    assert_eq!(answer["aws_sessions"].get("roles"), None);
    // That one is good for fifteen minutes, though its role may be had for an hour.
    let end = issued.at + Duration::minutes(15) + crate::oidc::jwt::LEEWAY;
    let lasts = moment(&answer["aws_sessions"]["begun_before"]) - end;
    assert!((Duration::ZERO..=Duration::SECOND).contains(&lasts), "{answer}");
    // Of another role, or of long ago, there are none.
    for form in
        [vec![("role", "other")], vec![("role", "deploy"), ("before", "2020-01-01T00:00:00Z")]]
    {
        let answer = ok(&post(&bed, DRY_RUN, &ops, &form).await);
        assert_eq!(answer.get("aws_sessions"), None, "{form:?}");
    }
}

#[tokio::test]
async fn tokens_of_a_role_that_is_no_more_may_have_been_read_by_aws() {
    let mut config = None;
    let bed = bed_with(|options| {
        options.config.role.get_mut("deploy").unwrap().aws = Some(aws::Settings {
            source_identity: Some("{subject}".to_string().try_into().unwrap()),
            ..aws::Settings::default()
        });
        config = Some(options.config.clone());
    })
    .await;
    bed.issued(json!({}), &[]).await;
    bed.issued(json!({}), &[("role", "other")]).await;
    let config = config.unwrap();
    let operator =
        Operator::beside(bed.store.clone(), Arc::new(SystemClock), config.issuer.clone());
    let before = now();
    let reached = async |config: &Config, role: &str| {
        let what = What::Many { whose: Whose::Role(role.into()), before: None };
        operator.reached(config, None, &what, before).await.aws_sessions
    };
    let mut without = config.clone();
    without.role.remove("deploy");
    without.role.remove("other");
    // Its record says so.
    let sessions = reached(&without, "deploy").await.unwrap();
    assert_eq!(sessions.roles, ["deploy"]);
    let lasts = moment(&json!(sessions.begun_before)) - before;
    assert!(lasts >= Duration::DAY, "nobody knows how long such tokens were good: {lasts}");
    // Of another, one only knows whether AWS reads any.
    assert_eq!(reached(&without, "other").await, None);
    let mut beside = config.clone();
    beside.role.remove("other");
    assert!(reached(&beside, "other").await.is_some());
    assert_eq!(reached(&beside, "third").await, None, "there was none of late");
}

#[tokio::test]
async fn an_issuer_is_meant_by_its_table_too_and_none_by_what_names_nobody() {
    let bed = bed().await;
    let ops = ops(&bed);
    let token = bed.issued(json!({}), &[]).await;
    next_second().await;
    for form in [vec![("issuer", "crop")], vec![("issuer", "crop"), ("subject", "alice")]] {
        for path in [DRY_RUN, PATH] {
            let said = refused(&post(&bed, path, &ops, &form).await, 400, "invalid_request");
            assert!(said.contains("trusts no issuer 'crop'"), "{said}");
        }
        // Whoever may not is not told.
        let leo = bed.key.token(json!({"sub": "leo"}));
        refused(&post(&bed, PATH, &leo, &form).await, 403, "access_denied");
    }
    assert!(active(&bed, &token).await);
    let form = [("issuer", "corp"), ("subject", "alice")];
    let answer = ok(&post(&bed, PATH, &ops, &form).await);
    assert_eq!((&answer["issuer"], &answer["tokens"]), (&json!(CORP), &json!(1)));
    assert!(!active(&bed, &token).await);
    assert!(newest(&bed).await.reason.contains(&format!("(subject {CORP}#alice)")));
}
