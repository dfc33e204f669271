//! Somebody acts for somebody else (RFC 8693 sections 2.1 and 4).

use serde_json::{Value, json};

use super::lineage::{OWN, Site};
use crate::broker::audit::Decision;
use crate::broker::config::Assertions;
use crate::broker::testbed::{API, Bed, CORP, claims_of, json_of};
use crate::credential::TokenType;
use crate::wire;

/// Bots may act for the platform team where they deploy.
pub(super) fn policies() -> String {
    format!(
        r#"
@id("bots-act")
permit (principal in Group::"{CORP}#bots", action == Action::"act", resource == Role::"deploy")
when {{ context.subject in Group::"{CORP}#platform" }};

@id("named-acts")
permit (principal == User::"{CORP}#named", action == Action::"act", resource == Role::"deploy");

@id("not-when-evil-acts")
forbid (principal, action == Action::"issue", resource)
when {{ context has actor && context.actor == User::"{CORP}#evil" }};

@id("not-after-tainted")
forbid (principal, action == Action::"act", resource)
when {{ context.actors.contains(User::"{CORP}#tainted") }};
"#
    )
}

async fn bed() -> Bed {
    Bed::with(|options| options.policies += &policies()).await
}

pub(super) fn bot(bed: &Bed, sub: &str) -> String {
    bed.key.token(json!({"sub": sub, "groups": ["bots"], "azp": "bot-client"}))
}

pub(super) fn acting(token: &str) -> [(&str, &str); 2] {
    [("actor_token", token), ("actor_token_type", TokenType::Jwt.urn())]
}

async fn ask(bed: &Bed, subject: Value, actor: &str) -> (u16, Value) {
    let response = bed.exchange(&bed.key.token(subject), &acting(actor)).await;
    (response.status.as_u16(), json_of(&response))
}

#[tokio::test]
async fn who_acts_is_in_the_token_on_record_and_introspected() {
    let bed = bed().await;
    let (status, grant) = ask(&bed, json!({}), &bot(&bed, "bot")).await;
    assert_eq!(status, 200, "{grant}");
    let token = grant["access_token"].as_str().unwrap();
    let claims = claims_of(token);
    let act = json!({"iss": CORP, "sub": "bot"});
    assert_eq!(claims["sub"], format!("{CORP}#alice"));
    assert_eq!(claims["act"], act);
    assert_eq!(claims["client_id"], "bot-client");
    let told = json_of(&bed.introspect(Some(token), token).await);
    assert_eq!((&told["active"], &told["act"]), (&json!(true), &act));
    let records = bed.records(0, 9).await;
    assert_eq!(records[0].1.decision, Decision::Issued);
    assert_eq!(records[0].1.actor.as_deref(), Some("https://login.example.com#bot"));
    assert_eq!(records[0].1.principal.subject, "alice");
    assert_eq!(bed.revoke(token).await, 200);
    assert_eq!(bed.records(1, 9).await[0].1.actor, records[0].1.actor);
}

#[tokio::test]
async fn nobody_acts_without_a_permit_for_it() {
    let bed = bed().await;
    // Not a bot; a bot for somebody of another team; a bot that is forbidden to.
    let plain = bed.key.token(json!({"sub": "bob"}));
    let (_, refusal) = ask(&bed, json!({}), &plain).await;
    assert_eq!(refusal["error"], "access_denied");
    let said = refusal["error_description"].as_str().unwrap();
    assert!(said.contains("no policy lets somebody act") && said.contains("bob"), "{said}");
    let (_, refusal) = ask(&bed, json!({}), &bot(&bed, "evil")).await;
    assert!(refusal["error_description"].as_str().unwrap().contains("forbids"), "{refusal}");
    let (_, refusal) = ask(&bed, json!({}), &bot(&bed, "tainted")).await;
    assert!(refusal["error_description"].as_str().unwrap().contains("forbids"), "{refusal}");
    // What its subject may not have, nobody gets for them; nor who may not themselves.
    for (subject, actor) in [("mallory", "bot"), ("alice", "mallory")] {
        let (status, _) = ask(&bed, json!({"sub": subject}), &bot(&bed, actor)).await;
        assert_eq!(status, 400, "{subject} {actor}");
    }
    let records = bed.records(0, 9).await;
    assert!(records.iter().all(|(_, record)| record.decision == Decision::Denied));
    assert_eq!(records[0].1.actor.as_deref(), Some("https://login.example.com#bob"));
    assert_eq!(records[2].1.policy_id.as_deref(), Some("not-after-tainted"));
}

#[tokio::test]
async fn the_actors_token_and_its_type_come_together() {
    let bed = bed().await;
    let (subject, actor) = (bed.key.token(json!({})), bot(&bed, "bot"));
    for changes in [
        vec![("actor_token", actor.as_str())],
        vec![("actor_token_type", TokenType::Jwt.urn())],
        vec![("actor_token", actor.as_str()), ("actor_token_type", "urn:x")],
        acting("garbage").to_vec(),
    ] {
        let refusal = bed.refused(&subject, &changes).await;
        assert_eq!(refusal["error"], "invalid_request", "{changes:?}");
    }
    // As good as every token has to be.
    let expired = bed.key.token(json!({"sub": "bot", "groups": ["bots"], "exp": 1_000_000_000}));
    let refusal = bed.refused(&subject, &acting(&expired)).await;
    assert!(refusal["error_description"].as_str().unwrap().contains("expired"), "{refusal}");
}

#[tokio::test]
async fn who_the_subjects_token_lets_act_is_the_only_one() {
    let bed = bed().await;
    let subject = |may_act: Value| json!({ "may_act": may_act });
    let bot = bot(&bed, "bot");
    for (may_act, expected) in [
        (json!({"sub": "bot"}), 200),
        (json!({"iss": CORP, "sub": "bot", "azp": "bot-client"}), 200),
        (json!({"sub": "other"}), 400),
        (json!({"iss": "https://other.example.com", "sub": "bot"}), 400),
        (json!({"sub": "bot", "azp": "other"}), 400),
        (json!("bot"), 400),
    ] {
        let (status, answer) = ask(&bed, subject(may_act.clone()), &bot).await;
        assert_eq!(status, expected, "{may_act}: {answer}");
    }
    // It goes on to what is issued, with its issuer.
    let token = bed.issued(subject(json!({"sub": "bot"})), &[]).await;
    let may_act = json!({"iss": CORP, "sub": "bot"});
    assert_eq!(claims_of(&token)["may_act"], may_act);
    assert_eq!(json_of(&bed.introspect(Some(&token), &token).await)["may_act"], may_act);
}

#[tokio::test]
async fn who_acts_by_the_subjects_own_token_needs_a_permit_too() {
    let bed = bed().await;
    let acted = |sub: &str| bed.key.token(json!({"act": {"sub": sub}}));
    let response = bed.exchange(&acted("named"), &[]).await;
    assert_eq!(response.status.as_u16(), 200, "{}", json_of(&response));
    let token = json_of(&response)["access_token"].as_str().unwrap().to_string();
    assert_eq!(claims_of(&token)["act"], json!({"iss": CORP, "sub": "named"}));
    bed.refused(&acted("somebody"), &[]).await;
    // Nothing is known of its groups.
    bed.refused(&acted("bot"), &[]).await;
    // Who acted before is no reason to permit, and may be one to forbid.
    let before = |now: &str, before: &str| {
        bed.key.token(json!({"act": {"sub": now, "act": {"sub": before}}}))
    };
    let response = bed.exchange(&before("named", "somebody"), &[]).await;
    assert_eq!(response.status.as_u16(), 200, "{}", json_of(&response));
    bed.refused(&before("somebody", "named"), &[]).await;
    let refusal = bed.refused(&before("named", "tainted"), &[]).await;
    assert!(refusal["error_description"].as_str().unwrap().contains("forbids"), "{refusal}");
    // Nobody speaks for another issuer's users.
    let foreign = json!({"act": {"iss": "https://other.example.com", "sub": "named"}});
    bed.refused(&bed.key.token(foreign), &[]).await;
    // The chain grows at its head, and ends somewhere.
    let (status, grant) = ask(&bed, json!({"act": {"sub": "named"}}), &bot(&bed, "bot")).await;
    assert_eq!(status, 200, "{grant}");
    let act = claims_of(grant["access_token"].as_str().unwrap())["act"].clone();
    assert_eq!(act, json!({"iss": CORP, "sub": "bot", "act": {"iss": CORP, "sub": "named"}}));
    let four = (0..4).fold(json!(null), |act, n| json!({"sub": format!("a{n}"), "act": act}));
    let (status, refusal) = ask(&bed, json!({ "act": four }), &bot(&bed, "bot")).await;
    assert_eq!(status, 400);
    assert!(refusal["error_description"].as_str().unwrap().contains("more than 4"), "{refusal}");
    // Such a token asks about nothing but itself.
    let asked = bed.introspect(Some(&acted("named")), &token).await;
    assert_eq!(asked.status.as_u16(), 401);
}

#[tokio::test]
async fn where_policies_need_more_than_a_name_the_actor_has_to_show_a_token() {
    let bed = Bed::with(|options| {
        options.policies += &policies();
        options.policies += &format!(
            r#"@id("no-interns") forbid (principal in Group::"{CORP}#interns", action, resource);"#
        );
    })
    .await;
    let named = json!({"act": {"sub": "named"}});
    let refusal = bed.refused(&bed.key.token(named.clone()), &[]).await;
    assert!(refusal["error_description"].as_str().unwrap().contains("actor_token"), "{refusal}");
    // The same one, shown: not twice in the chain.
    let (status, grant) = ask(&bed, named.clone(), &bot(&bed, "named")).await;
    assert_eq!(status, 200, "{grant}");
    let act = claims_of(grant["access_token"].as_str().unwrap())["act"].clone();
    assert_eq!(act, json!({"iss": CORP, "sub": "named"}));
    let intern = bed.key.token(json!({"sub": "named", "groups": ["bots", "interns"]}));
    assert_eq!(ask(&bed, named, &intern).await.0, 400);
}

#[tokio::test]
async fn what_comes_of_the_actors_own_token_ends_with_it() {
    let site = Site::new();
    let bed = site
        .start_with(|options| {
            options.policies += &format!(
                r#"@id("own-acts") permit (principal, action == Action::"act", resource)
                when {{ principal.issuer == "{OWN}" }};"#
            );
        })
        .await;
    let changes = [("audience", OWN), ("requested_ttl", "600"), ("scope", "deploy:read")];
    let actor = bed.issued(json!({"sub": "bot"}), &changes).await;
    let response = bed.exchange(&bed.key.token(json!({})), &acting(&actor)).await;
    let grant = json_of(&response);
    assert_eq!(response.status.as_u16(), 200, "{grant}");
    let token = grant["access_token"].as_str().unwrap();
    let claims = claims_of(token);
    assert_eq!(claims["ancestors"], json!([claims_of(&actor)["jti"]]));
    assert!(claims["exp"].as_i64() <= claims_of(&actor)["exp"].as_i64());
    assert_eq!(claims["scope"], "deploy:read");
    // And once more, as the subject: who acts stays in it.
    let changes = [("audience", OWN), acting(&actor)[0], acting(&actor)[1]];
    let first = bed.exchange(&bed.key.token(json!({})), &changes).await;
    let first = json_of(&first)["access_token"].as_str().unwrap().to_string();
    let response = bed.exchange(&first, &[("role", "again"), ("audience", API)]).await;
    assert_eq!(response.status.as_u16(), 200, "{}", json_of(&response));
    let next = json_of(&response)["access_token"].as_str().unwrap().to_string();
    assert_eq!(claims_of(&next)["act"], claims_of(&first)["act"]);
    assert_eq!(claims_of(&next)["ancestors"].as_array().unwrap().len(), 2);

    assert_eq!(bed.revoke(&actor).await, 200);
    for token in [token, &first, &next] {
        assert_eq!(json_of(&bed.introspect(Some(token), token).await)["active"], false);
    }
    bed.refused(&bed.key.token(json!({})), &acting(&actor)).await;
}

#[tokio::test]
async fn an_actors_token_that_is_good_once_is_used_up_as_well() {
    let bed = Bed::with(|options| {
        options.policies += &policies();
        let corp = options.config.trusted_issuer.get_mut("corp").unwrap();
        corp.assertions = Assertions::Once;
    })
    .await;
    let bot = bot(&bed, "bot");
    assert_eq!(ask(&bed, json!({"jti": "1"}), &bot).await.0, 200);
    let (status, refusal) = ask(&bed, json!({"jti": "2"}), &bot).await;
    assert_eq!(status, 400);
    assert!(refusal["error_description"].as_str().unwrap().contains("used once"), "{refusal}");
}

#[tokio::test]
async fn a_token_that_is_good_once_may_be_shown_as_both() {
    let bed = Bed::with(|options| {
        options.policies += &policies();
        options.config.trusted_issuer.get_mut("corp").unwrap().assertions = Assertions::Once;
    })
    .await;
    let both = bed.key.token(json!({"sub": "named"}));
    let response = bed.exchange(&both, &acting(&both)).await;
    assert_eq!(response.status.as_u16(), 200, "{}", json_of(&response));
    // It is used up.
    let refusal = bed.refused(&both, &[]).await;
    assert!(refusal["error_description"].as_str().unwrap().contains("used once"), "{refusal}");
}

#[tokio::test]
async fn an_actor_without_a_subject_is_nobody() {
    let bed = bed().await;
    let bot = bot(&bed, "bot");
    let form: Vec<(String, String)> = bed
        .form("", &[("subject_token", ""), acting(&bot)[0], acting(&bot)[1]])
        .into_iter()
        .filter(|(name, _)| name != "subject_token")
        .collect();
    let response = bed.post(&format!("/{}", wire::TOKEN_PATH), &form).await;
    assert_eq!(json_of(&response)["error"], "invalid_request");
}
