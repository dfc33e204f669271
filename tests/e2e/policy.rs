//! Policies as a tool: checked, tested, explained, and read anew while a broker serves.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::support::broker::Broker;
use super::support::home::{Home, tmpcred};
use super::support::http::Http;
use super::support::run::Run;
use super::support::services::{ISSUER, Services};

const CONFIG: &str = r#"
issuer = "https://broker.example.com"

[store]
path = "broker.db"

[trusted_issuer.services]
issuer = "https://services.example.com"

[policy]
files = ["policy.cedar"]

[role.reader]
audiences = ["https://api.example.com"]
scopes = ["read"]
max_ttl = "1h"
"#;

/// A permit for the role `reader` with this id and this condition.
fn permit(id: &str, condition: &str) -> String {
    format!(
        "@id(\"{id}\") @ttl(\"15m\")\npermit (principal, action == Action::\"issue\", resource == Role::\"reader\")\nwhen {{ principal.issuer == \"{ISSUER}\" && {condition} }};\n"
    )
}

fn home(policy: &str) -> Home {
    let home = Home::new();
    home.write("broker.toml", CONFIG);
    home.write("policy.cedar", policy);
    home
}

fn policy(home: &Home, command: &str) -> Run {
    let config = home.path("broker.toml");
    tmpcred(home).args(["broker", "policy", command, "--config"]).args([config])
}

#[test]
fn a_check_names_rule_and_place_and_fails_on_errors() {
    let open = permit("p", "principal.subject like \"*@example.com\"");
    let home = home(&open);
    let run = policy(&home, "check").run();
    assert_eq!(run.code, Some(3), "{}", run.stdout);
    let place = format!("at {}:3:", home.path("policy.cedar").display());
    for part in ["error[like-unanchored]", &place, "why: ", "do: "] {
        assert!(run.stdout.contains(part), "{part}\n{}", run.stdout);
    }
    assert!(run.stderr.contains("1 error and 0 warnings"), "{}", run.stderr);

    home.write("policy.cedar", permit("p", "principal.emial == \"x\""));
    let run = policy(&home, "check").args(["--json"]).run();
    let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let found = &report["findings"][0];
    assert_eq!(
        (run.code, &found["rule"], &found["policy"]),
        (Some(3), &json!("schema"), &json!("p"))
    );
    assert_eq!((&found["place"]["line"], &report["errors"]), (&json!(3), &json!(1)), "{report}");

    let warns = "principal.hasTag(\"email\") && principal.getTag(\"email\").contains(\"a@b\")";
    home.write("policy.cedar", permit("p", warns));
    let run = policy(&home, "check").run().ok();
    assert!(run.stdout.contains("warning[name-not-id]"), "{}", run.stdout);
    assert_eq!(policy(&home, "check").args(["--strict"]).run().code, Some(3));
}

#[test]
fn a_test_that_fails_shows_what_was_expected_and_what_came() {
    let home = home(&permit("readers", "principal.subject == \"job\""));
    let case = |expect: &str| {
        format!(
            "[[case]]\nname = \"a job reads\"\nexpect = {{ {expect} }}\nask = {{ role = \"reader\", caller = {{ issuer = \"services\", subject = \"job\" }} }}\n"
        )
    };
    let good = home.write("good.toml", case("permit = \"readers\", ttl = \"15m\""));
    let bad = home.write("bad.toml", case("permit = \"readers\", ttl = \"1h\""));
    let run = policy(&home, "test").args([&good]).run().ok();
    assert!(run.stdout.contains("1 case is as expected"), "{}", run.stdout);
    let run = policy(&home, "test").args([&good, &bad]).run();
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    let row = run.stdout.lines().find(|line| line.contains("bad.toml")).unwrap();
    assert!(row.contains("a job reads") && row.contains("1h") && row.contains("15m"), "{row}");
    assert!(!run.stdout.contains("good.toml"), "{}", run.stdout);
    let run = policy(&home, "test").args([&bad]).args(["--json"]).run();
    let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((run.code, &report["failed"]), (Some(1), &json!(1)));
    assert_eq!(report["results"][0]["result"]["got"]["ttl"], 900, "{report}");
}

#[test]
fn an_explanation_says_what_holds_and_what_would_have_to_change() {
    let home = home(&permit("readers", "principal.subject == \"job\""));
    let explain = |subject: &str| {
        policy(&home, "explain").args([
            "--issuer",
            ISSUER,
            "--subject",
            subject,
            "--role",
            "reader",
            "--ttl",
            "5m",
        ])
    };
    let said = explain("job").run().ok().stdout;
    assert!(said.contains("Permitted by 'readers', for 5m"), "{said}");
    let said = explain("somebody").run().ok().stdout;
    for part in
        ["Denied (no-permit)", "For a permit: 'readers'", "principal.subject is \"somebody\""]
    {
        assert!(said.contains(part), "{part}\n{said}");
    }
    let report = explain("somebody").args(["--json"]).run().ok().json();
    assert_eq!(report["outcome"]["reason"], "no-permit");
    let parts = report["considered"][0]["parts"].as_array().unwrap();
    let failing: Vec<_> = parts.iter().filter(|part| part["holds"] == "no").collect();
    assert_eq!(failing.len(), 1, "{report}");
    assert_eq!(failing[0]["text"], "principal.subject == \"job\"", "{report}");
    let cases = home.write("cases.toml", "[[case]]\nname = \"x\"\nexpect = { deny = \"scope\" }\nask = { role = \"reader\", scope = \"read\", caller = { issuer = \"services\", subject = \"job\" } }\n");
    let said = policy(&home, "explain").args(["--name", "x", "--cases"]).args([cases]).run().ok();
    assert!(said.stdout.contains("Denied (scope)"), "{}", said.stdout);
    let schema = tmpcred(&home).args(["broker", "policy", "schema"]).run().ok().stdout;
    assert_eq!(schema.trim_end(), tmpcred::broker::policy_schema().trim_end());
}

#[test]
fn an_explanation_goes_by_the_address_and_by_who_acts() {
    let inside = "context.source.isInRange(ip(\"192.0.2.0/24\"))";
    let acts = format!(
        "@id(\"acts\") permit (principal == User::\"{ISSUER}#bot\", action == Action::\"act\", resource);
         @id(\"bots\") permit (principal in Group::\"{ISSUER}#bots\", action == Action::\"act\", resource)
         when {{ principal.hasTag(\"team\") && principal.getTag(\"team\").contains(\"payments\") }};"
    );
    let home = home(&(permit("inside", inside) + &acts));
    let explain = |more: &[&str]| {
        let asks = ["--issuer", ISSUER, "--subject", "job", "--role", "reader"];
        policy(&home, "explain").args(asks).args(more).run().ok().stdout
    };
    let from = ["--source", "192.0.2.7"];
    assert!(explain(&[]).contains("Denied (no-permit)"));
    assert!(explain(&from).contains("Permitted by 'inside'"));
    let by = |who| {
        explain(&[&from[..], &["--actor-issuer", "services", "--actor-subject", who]].concat())
    };
    assert!(by("bot").contains("Permitted by 'inside'"), "{}", by("bot"));
    assert!(by("mallory").contains("Denied (actor)"), "{}", by("mallory"));
    let other = ["--actor-issuer", "services", "--actor-subject", "other"];
    let group = ["--actor-group", "bots"];
    let with = |more: &[&str]| explain(&[&from[..], &other, &group, more].concat());
    let (without, whole) = (with(&[]), with(&["--actor-claim", "team=payments"]));
    assert!(without.contains("Denied (actor)"), "{without}");
    assert!(whole.contains("Permitted by 'inside'"), "{whole}");
}

/// The policies that issued by each version.
fn policies_by_hash(broker: &Broker) -> BTreeMap<String, BTreeSet<String>> {
    let query = "import sqlite3,sys,json; print(json.dumps(sqlite3.connect(sys.argv[1]).execute(
        \"select distinct policy_hash, policy_id from audit_record where decision = 'issued'\").fetchall()))";
    let python = broker.home.command("python3").args(["-c", query]);
    let rows = python.args([broker.home.path("broker.db")]).run().ok().json();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in serde_json::from_value::<Vec<(String, String)>>(rows).unwrap() {
        found.entry(row.0).or_default().insert(row.1);
    }
    found
}

const NEW: &str = "other policies decide from now on";
const REFUSED: &str = "what was read anew is refused; what was there stays";

#[test]
fn policies_change_under_load_and_no_request_fails_or_goes_by_two_versions() {
    let version = |n: usize| permit(&format!("reader-{n}"), "true");
    let services = Services::start(&version(0));
    let statuses = services.under_load(|more| {
        for n in 1..=4 {
            services.reload(&version(n), NEW);
            more();
            services.reload("permit (principal", REFUSED);
            more();
        }
    });
    assert_eq!(statuses, BTreeSet::from([200]), "{}", services.broker.said());
    let found = policies_by_hash(&services.broker);
    let ids: Vec<_> = found.values().collect();
    assert_eq!(ids.len(), 5, "{found:?}");
    assert!(ids.iter().all(|ids| ids.len() == 1), "{found:?}");

    // And what is taken away is gone.
    services.reload(&permit("nobody", "principal.subject == \"other\""), NEW);
    assert_eq!(services.ask(&mut Http::new()), 400);
}
