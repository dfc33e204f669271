//! Clients, where more goes with a request than who calls: who acts for them, assertions
//! that are good once, and what is revoked by a client's name.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::super::cutoff::{Place, active, next_second};
use super::super::delegation::{acting, bot, policies};
use super::super::once::strict;
use super::{BROKER, Signer, by, count, proved, revoke};
use crate::broker::audit::Decision;
use crate::broker::config::{Client, Limits};
use crate::broker::http::tests::dpop::Device;
use crate::broker::http::tests::rates::rate;
use crate::broker::store::Whose;
use crate::broker::testbed::{Bed, CORP, Options, claims_of, json_of, set};

/// Two clients that sign, `deployer` and `gui`, and one that only proves a key.
fn configure(signer: &Signer, options: &mut Options) {
    signer.configure(options);
    let deployer = options.config.client["deployer"].clone();
    let gui = Client { tokens_of: set("deployer"), ..deployer.clone() };
    options.config.client.extend([("gui".into(), gui), ("stranger".into(), deployer)]);
}

async fn bed(change: impl FnOnce(&mut Options)) -> (Bed, Signer) {
    let signer = Signer::new();
    let bed = Bed::with(|options| {
        configure(&signer, options);
        options.policies += &policies();
        change(options);
    })
    .await;
    (bed, signer)
}

/// An assertion of this client.
fn of(signer: &Signer, client: &str) -> String {
    signer.assertion(json!({"iss": client, "sub": client}))
}

/// Asks for a token with these tokens of the subject and of who acts.
async fn ask(bed: &Bed, subject: &str, actor: &str, more: &[(&str, &str)]) -> (u16, Value) {
    let response = bed.exchange(subject, &[&acting(actor)[..], more].concat()).await;
    (response.status.as_u16(), json_of(&response))
}

#[tokio::test]
async fn who_acts_comes_under_no_name_of_a_client_that_has_not_authenticated() {
    let (bed, signer) = bed(|_| {}).await;
    let (alice, plain) = (bed.key.token(json!({})), bot(&bed, "bot"));
    let named = |name: &str, client: &str, claims: Value| {
        let mut claims = claims;
        claims[name] = client.into();
        // The one that counts comes first.
        claims["azp"] = client.into();
        bed.key.token(claims)
    };
    let acts = json!({"sub": "bot", "groups": ["bots"]});
    for name in ["azp", "client_id"] {
        // Be it the token of who acts, or that of whom they act for.
        for (subject, actor) in [
            (alice.clone(), named(name, "deployer", acts.clone())),
            (named(name, "deployer", json!({})), plain.clone()),
        ] {
            let (status, refusal) = ask(&bed, &subject, &actor, &[]).await;
            assert_eq!((status, &refusal["error"]), (401, &json!("invalid_client")));
            let said = refusal["error_description"].as_str().unwrap();
            assert!(said.contains("'deployer' has to authenticate"), "{said}");
            // Nor through another one, but where that is said of it. It is the token then that
            // is not acceptable (RFC 8693 section 2.2.2).
            let stranger = of(&signer, "stranger");
            let (status, refusal) = ask(&bed, &subject, &actor, &by(&stranger)).await;
            assert_eq!((status, &refusal["error"]), (400, &json!("invalid_request")));
            let said = refusal["error_description"].as_str().unwrap();
            assert!(said.contains("issued to the client 'deployer', and 'stranger'"), "{said}");
            let (status, grant) = ask(&bed, &subject, &actor, &by(&of(&signer, "gui"))).await;
            assert_eq!(status, 200, "{grant}");
            assert_eq!(claims_of(grant["access_token"].as_str().unwrap())["client_id"], "gui");
        }
    }
    assert_eq!(count(&bed, "missing").await, 4);
    let metrics = bed.admin.get("/metrics").await.body;
    let metrics = String::from_utf8(metrics.expose().clone()).unwrap();
    for (reason, times) in [("invalid", 4), ("client", 4)] {
        let line = format!("tmpcred_issuance_denials_total{{reason=\"{reason}\"}} {times}\n");
        assert!(metrics.contains(&line), "{line}");
    }
    // One that only proves a key has to do that.
    let public = named("azp", "public", acts);
    let (status, refusal) = ask(&bed, &alice, &public, &[]).await;
    assert_eq!((status, &refusal["error"]), (401, &json!("invalid_client")));
    let changes = acting(&public);
    let bound = proved(&bed, &Device::new(), &changes, "cli").await;
    assert_eq!(json_of(&bound)["token_type"], "DPoP", "{}", json_of(&bound));
    // None of them is there without a record, and none that was refused has one.
    let decisions: Vec<_> = bed.records(0, 99).await.iter().map(|(_, r)| r.decision).collect();
    assert_eq!(decisions, [Decision::Issued; 5]);
}

#[tokio::test]
async fn the_client_that_has_authenticated_is_the_one_on_record_whoever_acts() {
    let (bed, signer) = bed(|options| {
        // Both of whom policy is asked come through it.
        options.policies += r#"
@id("by-the-deployer")
forbid (principal, action == Action::"issue", resource)
unless { context has client && context.client == "deployer" };
@id("acts-by-the-deployer")
forbid (principal, action == Action::"act", resource)
unless { context has client && context.client == "deployer" };
"#;
    })
    .await;
    let (alice, bot) = (bed.key.token(json!({})), bot(&bed, "bot"));
    let (status, grant) = ask(&bed, &alice, &bot, &by(&of(&signer, "deployer"))).await;
    assert_eq!(status, 200, "{grant}");
    let token = grant["access_token"].as_str().unwrap();
    let claims = claims_of(token);
    assert_eq!(claims["client_id"], "deployer");
    assert_eq!(claims["sub"], format!("{CORP}#alice"));
    assert_eq!(claims["act"], json!({"iss": CORP, "sub": "bot"}));
    let (_, record) = bed.records(0, 9).await.pop().unwrap();
    assert_eq!((record.decision, record.client.as_str()), (Decision::Issued, "deployer"));
    assert_eq!(record.actor, Some(format!("{CORP}#bot")));
    let told = json_of(&bed.introspect(Some(token), token).await);
    assert_eq!((&told["client_id"], &told["active"]), (&json!("deployer"), &json!(true)));
    for more in [&by(&of(&signer, "gui"))[..], &[]] {
        let (_, refusal) = ask(&bed, &alice, &bot, more).await;
        assert_eq!(refusal["error"], "access_denied");
    }
}

#[tokio::test]
async fn who_acts_asks_and_takes_nothing_from_whom_they_act_for() {
    let limits = Limits { principal: Some(rate(1, 1)), ..Limits::default() };
    let (bed, _) = bed(|options| options.config.limits = limits).await;
    let (alice, bob) = (bed.key.token(json!({})), bed.key.token(json!({"sub": "bob"})));
    let bot = bot(&bed, "bot");
    assert_eq!(ask(&bed, &alice, &bot, &[]).await.0, 200);
    assert_eq!(ask(&bed, &bob, &bot, &[]).await.0, 429, "whoever it acts for");
    assert_eq!(bed.exchange(&alice, &[]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_client_that_is_refused_uses_up_no_assertion_of_a_caller() {
    let (bed, signer) = bed(strict).await;
    let assertion = bed.key.token(json!({}));
    let refused = async |changes: &[(&str, &str)]| {
        let response = bed.exchange(&assertion, changes).await;
        assert_eq!(response.status, StatusCode::UNAUTHORIZED);
        assert_eq!(json_of(&response)["error"], "invalid_client");
    };
    refused(&[("client_id", "deployer")]).await;
    refused(&by(&signer.assertion(json!({"aud": "x"})))).await;
    refused(&by(&Signer::new().assertion(json!({})))).await;
    // Before the caller's token is looked at.
    let response = bed.exchange("no token", &[("client_id", "deployer")]).await;
    assert_eq!(json_of(&response)["error"], "invalid_client");
    assert_eq!(bed.records(0, 9).await, []);
    assert_eq!(bed.exchange(&assertion, &by(&of(&signer, "gui"))).await.status, StatusCode::OK);
}

/// What one client was given for an assertion, no other ends or gets by sending the rest of
/// the request again.
#[tokio::test]
async fn the_same_request_again_is_one_through_the_same_client() {
    let (bed, signer) = bed(strict).await;
    let (assertion, bot) = (bed.key.token(json!({"jti": "1"})), bot(&bed, "bot"));
    let granted = async |client: &str| {
        let (status, grant) = ask(&bed, &assertion, &bot, &by(&of(&signer, client))).await;
        assert_eq!(status, 200, "{grant}");
        grant["access_token"].as_str().unwrap().to_string()
    };
    let first = granted("deployer").await;
    for more in [&by(&of(&signer, "gui"))[..], &[]] {
        let (status, refusal) = ask(&bed, &assertion, &bot, more).await;
        assert_eq!((status, &refusal["error"]), (400, &json!("invalid_request")));
        let said = refusal["error_description"].as_str().unwrap();
        assert!(said.contains("it may be used once, and was"), "{said}");
    }
    assert!(active(&bed, &first).await);
    // What it signs for each request is another one each time.
    let second = granted("deployer").await;
    assert!(!active(&bed, &first).await && active(&bed, &second).await);
    // Nor does one that authenticates get what nobody in particular was given.
    let assertion = bed.key.token(json!({"jti": "2"}));
    let token = bed.issued(json!({"jti": "2"}), &[]).await;
    let response = bed.exchange(&assertion, &by(&of(&signer, "deployer"))).await;
    assert_eq!(json_of(&response)["error"], "invalid_request");
    assert!(active(&bed, &token).await);
}

#[tokio::test]
async fn tokens_are_cut_off_by_the_client_on_record() {
    let signer = Signer::new();
    let place = Place::new(|options| {
        configure(&signer, options);
        options.policies += &policies();
    })
    .await;
    let bed = &place.bed;
    let alice = bed.key.token(json!({}));
    let by_deployer = bed.issued(json!({}), &by(&of(&signer, "deployer"))).await;
    let plain = bed.issued(json!({}), &[]).await;
    let acted = ask(bed, &alice, &bot(bed, "bot"), &by(&of(&signer, "deployer"))).await.1;
    let acted = acted["access_token"].as_str().unwrap();
    next_second().await;
    // Those whose tokens were shown are on record nowhere.
    assert_eq!(place.revoke(Whose::Client("bot-client".into())).await.tokens, Some(0));
    assert_eq!(place.revoke(Whose::Client("cli".into())).await.tokens, Some(1));
    assert!(!active(bed, &plain).await);
    assert!(active(bed, &by_deployer).await && active(bed, acted).await);
    assert_eq!(place.revoke(Whose::Client("deployer".into())).await.tokens, Some(2));
    assert!(!active(bed, &by_deployer).await && !active(bed, acted).await);
}

#[tokio::test]
async fn a_client_revokes_and_introspects_opaque_tokens_as_all_others() {
    let (bed, signer) = bed(|options| {
        let deploy = options.config.role.get_mut("deploy").unwrap();
        deploy.token_format = crate::broker::config::TokenFormat::Opaque;
        options.policies += &format!(
            r#"@id("deployer-introspects")
            permit (principal == User::"{BROKER}#deployer", action == Action::"introspect", resource);"#
        );
    })
    .await;
    let token = bed.issued(json!({}), &by(&of(&signer, "deployer"))).await;
    let told = async |client: &str| {
        let assertion = of(&signer, client);
        let form = [&by(&assertion)[..], &[("token", &*token)]].concat();
        let form: Vec<_> = form.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        json_of(&bed.post("/introspect", &form).await)
    };
    let known = told("deployer").await;
    assert_eq!((&known["active"], &known["client_id"]), (&json!(true), &json!("deployer")));
    assert_eq!(told("gui").await, json!({"active": false}));
    let response = revoke(&bed, &of(&signer, "gui"), &token).await;
    assert_eq!(response.status, StatusCode::OK, "whoever holds it may");
    assert_eq!(told("deployer").await, json!({"active": false}));
}
