//! What the broker says of its endpoints, judged by those who know nothing of it: by what
//! knows the standard, and by what asks for everything that is described and looks whether
//! each answer is.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::support::aws::python_program;
use super::support::broker::{API, Broker, BrokerOptions};
use super::support::home::Home;
use super::support::http::Http;
use super::support::wait::free_port;
use super::support::workload::{Workloads, exchange};

#[test]
fn descriptions_are_valid() {
    let home = Home::new();
    for name in ["broker", "admin"] {
        let file = format!("{}/docs/openapi/{name}.json", env!("CARGO_MANIFEST_DIR"));
        home.command(python_program("openapi-spec-validator")).args([file]).run().ok();
    }
}

#[test]
fn nothing_can_be_asked_whose_answer_is_not_described() {
    let files = Home::new();
    let jobs = Workloads::of("https://jobs.example.com", &files);
    let admin = free_port();
    let mut options = BrokerOptions::trusting("http://127.0.0.1:9");
    options.policy = options.policy.replace(") @ttl", ") @any_issuer @ttl");
    // What is asked for at random must not end the tokens that are shown.
    options.policy += r#"
@id("operates")
permit (principal == User::"https://jobs.example.com#job", action == Action::"revoke", resource)
when { context.what == "client" };
@id("administers")
permit (principal == User::"https://jobs.example.com#job", action == Action::"administer", resource);
"#;
    options.more = format!(
        r#"
[trusted_issuer.jobs]
issuer = "https://jobs.example.com"
jwks_file = {:?}
[admin]
listen = "127.0.0.1:{admin}"
[authz]
proxy = "nginx"
proxies = ["127.0.0.1"]
[authz.route.api]
origins = ["{API}"]
audience = "{API}"
"#,
        jobs.jwks
    );
    let broker = Broker::start(&options);
    let admin = format!("http://127.0.0.1:{admin}");
    let assertion = jobs.assertion("job", broker.url(), &Value::Null);
    let form = exchange(&assertion, API, "reader");
    let granted = Http::new().form(&format!("{}/token", broker.url()), &form).unwrap().json();
    let token = granted["access_token"].as_str().unwrap();
    for url in [broker.url(), &admin] {
        // What is described may be refused all the same: whether a token is good is more than
        // its shape.
        let run = files
            .command(python_program("schemathesis"))
            .args(["run", &format!("{url}/openapi.json"), "--url", url])
            .args(["--exclude-checks", "positive_data_acceptance"])
            .args(["--phases", "coverage,fuzzing", "--max-examples", "10", "--seed", "1"])
            .args(["--continue-on-failure", "--no-color"])
            .env("SCHEMATHESIS_HOOKS", "schemathesis_hooks")
            .env("PYTHONPATH", Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("ASSERTION", &assertion)
            .env("TOKEN", token)
            .limit(Duration::from_secs(300));
        run.run().ok();
    }
    // It got so far that there was something to answer.
    let told = Http::new().get(&format!("{admin}/metrics")).unwrap().body;
    for counted in [
        "tmpcred_issuance_successes_total ",
        "tmpcred_introspections_total{outcome=\"active\"} ",
        "tmpcred_authz_decisions_total{route=\"api\",outcome=\"allowed\"} ",
        "tmpcred_revocations_total{outcome=\"unknown\"} ",
        "tmpcred_revocations_total{outcome=\"revoked\"} ",
        "tmpcred_administrations_total{outcome=\"done\"} ",
    ] {
        let count = told.lines().find_map(|line| line.strip_prefix(counted)).unwrap();
        assert!(count.parse::<u64>().unwrap() > 0, "{counted}{count}");
    }
}
