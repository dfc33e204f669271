//! What an operator revokes beside a running broker, and tokens that only their issuer can
//! tell the worth of.

use std::time::Duration;

use serde_json::json;

use super::journey::Journey;
use super::revocation::{ISSUER, OTHER, Services, cached, is_active};
use super::support::broker::{API, Broker, KEK};
use super::support::home::{Home, tmpcred};
use super::support::run::Output;

/// Revokes what this says, as whoever runs the broker does beside it.
fn operate(broker: &Broker, what: &[&str]) -> Output {
    let run = tmpcred(&broker.home).args(["broker", "revoke", "--json", "--config"]);
    let run = run.args([broker.home.path("broker.toml")]).args(what);
    run.env("TMPCRED_BROKER_KEK", KEK).run()
}

/// Revokes until the token is good no more: what is issued in the same second as a
/// revocation can be later than it.
#[track_caller]
fn operate_until_ended(broker: &Broker, token: &str, what: &[&str]) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while is_active(broker, token) {
        assert!(std::time::Instant::now() < deadline, "{what:?} does not reach the token");
        operate(broker, what).ok();
    }
}

#[test]
fn an_operator_ends_what_was_issued_beside_the_running_broker() {
    let journey = Journey::start();
    let broker = &journey.broker;
    let token = cached(&journey);
    let jti = super::stores::claims(&token)["jti"].as_str().unwrap().to_string();
    let before = ["--all", "--before", "2026-01-01T12:00:00Z"];
    let report = operate(broker, &before).ok().json();
    assert_eq!(
        report,
        json!({
            "revoked": "all", "tokens": 0, "issued_before": "2026-01-01T12:00:00Z",
            "on_record": null, "revocation_reach": "introspection", "dry_run": false,
        })
    );
    let nothing = tmpcred(&broker.home).args(["broker", "revoke", "--config"]);
    let nothing = nothing.args([broker.home.path("broker.toml")]).args(before);
    let said = nothing.env("TMPCRED_BROKER_KEK", KEK).run().ok().stderr;
    let says = "Whatever else was issued before 2026-01-01T12:00:00Z is revoked, too";
    assert!(said.contains("None that is on record was good") && said.contains(says), "{said}");
    // As it goes on record, here and where a running broker is asked.
    let (long, line) = ("x".repeat(1001), "two\nlines");
    for reason in [long.as_str(), line] {
        let refused = operate(broker, &["--role", "deploy", "--reason", reason]).ended_with(2);
        let says = "--reason must be a line of at most 1000 bytes";
        assert!(refused.stderr.contains(says), "{}", refused.stderr);
    }
    let refused = operate(broker, &["--issuer", "crop"]).ended_with(2).stderr;
    assert!(refused.contains("trusts no issuer 'crop'"), "{refused}");
    assert!(is_active(broker, &token));
    let report = operate(broker, &["--jti", &jti, "--reason", "a test"]).ok().json();
    assert_eq!(report["tokens"], 1);
    assert!(!is_active(broker, &token));
    let refused = journey.tmpcred(&["verify", "--audience", API, "--online"]);
    assert_ne!(refused.stdin(token.clone()).run().code, Some(0));

    for what in [["--role", "deploy"], ["--client", "cli"], ["--issuer", &broker_issuer(&journey)]]
    {
        let token = journey.tmpcred(&["token", "--refresh"]).run().ok().stdout.trim().to_string();
        operate_until_ended(broker, &token, &what);
    }
    // Who only looks changes nothing.
    let token = journey.tmpcred(&["token", "--refresh"]).run().ok().stdout.trim().to_string();
    let report = operate(broker, &["--client", "cli", "--dry-run"]).ok().json();
    assert!(report["tokens"].as_u64() >= Some(1) && report["dry_run"] == true, "{report}");
    assert!(is_active(broker, &token));
    // Whoever is spelt otherwise is told of, and revoked all the same.
    let issuer = broker_issuer(&journey);
    let alcie = ["--issuer", &issuer, "--subject", "alcie"];
    let report = operate(broker, &alcie).ok().json();
    assert_eq!((&report["tokens"], &report["on_record"]), (&json!(0), &json!(false)), "{report}");
    for (more, says) in [
        (&[][..], "0 tokens that were good are revoked"),
        (&["--dry-run"], "0 tokens that are good would be revoked. Nothing was changed."),
    ] {
        let run = tmpcred(&broker.home).args(["broker", "revoke", "--config"]);
        let run = run.args([broker.home.path("broker.toml")]).args(alcie).args(more);
        let said = run.env("TMPCRED_BROKER_KEK", KEK).run().ok().stderr;
        let note =
            format!("No token of late is on record for the subject \"alcie\" of {:?}", issuer);
        assert!(said.contains(&note) && said.contains(says), "{said}");
        assert!(!said.contains("Nothing changes"), "{said}");
    }
    // What is misspelt is no success.
    let said = operate(broker, &["--role", "deplyo"]).ended_with(2).stderr;
    assert!(said.contains("there is no role 'deplyo'"), "{said}");
    let subject = ["--issuer", "https://login.exampel.com", "--subject", "alice"];
    let said = operate(broker, &subject).ok().stderr;
    assert!(said.contains("trusts no issuer \"https://login.exampel.com\""), "{said}");
    // Nothing at all, or two things, is nothing to do; a token is never an argument.
    for wrong in [vec![], vec!["--all", "--role", "deploy"], vec!["--subject", "alice"]] {
        assert_ne!(operate(broker, &wrong).code, Some(0), "{wrong:?}");
    }
    let token = journey.tmpcred(&["token", "--refresh"]).run().ok().stdout.trim().to_string();
    let run = tmpcred(&broker.home).args(["broker", "revoke", "--token", "-", "--config"]);
    let run = run.args([broker.home.path("broker.toml")]).env("TMPCRED_BROKER_KEK", KEK);
    run.stdin(token.clone()).run().ok();
    assert!(!is_active(broker, &token));
}

fn broker_issuer(journey: &Journey) -> String {
    journey.provider.issuer().to_string()
}

#[test]
fn sessions_of_aws_are_told_of_where_their_tokens_are_revoked() {
    let services = Services::with("\n[role.reader.aws]\n");
    let broker = &services.broker;
    services.token("job", API);
    let report = operate(broker, &["--role", "reader", "--dry-run"]).ok().json();
    assert_eq!(report["aws_sessions"]["roles"], json!(["reader"]), "{report}");
    let other = operate(broker, &["--role", "handle", "--dry-run"]).ok().json();
    assert_eq!(other.get("aws_sessions"), None, "{other}");
    let people = tmpcred(&broker.home).args(["broker", "revoke", "--all", "--config"]);
    let people = people.args([broker.home.path("broker.toml")]).env("TMPCRED_BROKER_KEK", KEK);
    let said = people.run().ok().stderr;
    assert!(said.contains("Sessions of AWS that were had for tokens of the role reader"), "{said}");
    assert!(said.contains("\"aws:TokenIssueTime\""), "{said}");
}

#[test]
fn an_opaque_token_is_verified_by_its_issuer_and_by_nobody_else() {
    let services = Services::start();
    let (broker, home) = (&services.broker, Home::new());
    let token = services.token_of("handle", "job", API);
    assert!(token.starts_with("tmpcred_o_"), "{}", token.len());
    let verify = |audience: &str, more: &[&str]| {
        let issuer = ["verify", "--issuer", broker.url(), "--audience", audience];
        tmpcred(&home).args(issuer).args(more).stdin(token.clone()).run()
    };
    let report = verify(API, &["--online", "--json"]).ok().json();
    assert_eq!((&report["verified"], &report["claims"]["role"]), (&json!(true), &json!("handle")));
    assert_eq!(report["claims"]["sub"], format!("{ISSUER}#job"));
    let refused = verify(OTHER, &["--online"]).ended_with(9).stderr;
    assert!(refused.contains("it is for"), "{refused}");
    let refused = verify(API, &[]).ended_with(9).stderr;
    assert!(refused.contains("not a signed JWT") && refused.contains("--online"), "{refused}");
    // Neither is an opaque token of somebody else, nor one that was cut off.
    let garbage = tmpcred(&home).args(["verify", "--issuer", broker.url(), "--audience", API]);
    let garbage = garbage.args(["--online"]).stdin("tmpcred_o_x").run().code;
    assert_ne!(garbage, Some(0));
    let report = operate(broker, &["--role", "handle", "--dry-run"]).ok().json();
    assert_eq!(
        (&report["revoked"], &report["tokens"], &report["revocation_reach"]),
        (&json!("role"), &json!(1), &json!("everywhere"))
    );
    let jti = super::stores::claims(&services.token("job", API))["jti"].clone();
    let people = tmpcred(&broker.home).args(["broker", "revoke", "--config"]);
    let people = people.args([broker.home.path("broker.toml")]).args(["--jti"]);
    let people = people.args([jti.as_str().unwrap()]).env("TMPCRED_BROKER_KEK", KEK);
    let said = people.run().ok().stderr;
    assert!(said.contains("Whoever checks tokens on their own accepts them"), "{said}");
    let people = tmpcred(&broker.home).args(["broker", "revoke", "--config"]);
    let people = people.args([broker.home.path("broker.toml")]).args(["--role", "handle"]);
    let said = people.env("TMPCRED_BROKER_KEK", KEK).run().ok().stderr;
    assert!(said.contains("1 token that was good is revoked."), "{said}");
    assert!(said.contains("Everybody refuses them") && !said.contains("on their own"), "{said}");
    let refused = verify(API, &["--online"]).ended_with(9).stderr;
    assert!(refused.contains("the token is not good any more"), "{refused}");
}
