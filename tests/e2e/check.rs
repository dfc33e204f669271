//! `tmpcred broker check`: what a broker needs to start, looked at beforehand.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::support::broker::{Broker, BrokerOptions, KEK};
use super::support::home::{Home, tmpcred};
use super::support::oidc_provider::{Fault, OidcProvider};
use super::support::postgres::Postgres;
use super::support::run::{Output, Run};
use super::support::tls::Authority;
use super::support::wait::wait_until;

fn check(home: &Home, more: &[&str]) -> Run {
    let run = tmpcred(home).args(["broker", "check", "--config"]).args([home.path("broker.toml")]);
    run.args(more).env("TMPCRED_BROKER_KEK", KEK)
}

/// A broker whose policies nothing is to be said of.
fn trusting(issuer: &str) -> BrokerOptions {
    let permit = |role: &str| {
        format!(
            "@id(\"{role}\") @ttl(\"15m\") @scope(\"deploy:read\")
            permit (principal, action == Action::\"issue\", resource == Role::\"{role}\")
            when {{ principal.issuer == \"{issuer}\" }};"
        )
    };
    let policy = ["deploy", "reader"].map(permit).concat();
    BrokerOptions { policy, ..BrokerOptions::trusting(issuer) }
}

/// What is not good, by its name, with all that is said of it.
fn bad(output: &Output) -> Vec<(String, String)> {
    let told = output.json();
    let looks = told["checks"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let bad = looks.filter(|look| look["result"] != "ok");
    bad.map(|look| (text(&look["check"]), look.to_string())).collect()
}

#[track_caller]
fn only(output: &Output, name: &str, part: &str) {
    let bad = bad(output);
    let [(found, said)] = &bad[..] else { panic!("{bad:#?}") };
    assert!(found == name && said.contains(part), "{bad:#?}");
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_broker_that_runs_is_checked_and_left_alone() {
    let authority = Authority::new();
    let tls = authority.certify("127.0.0.1");
    let files = (tls.certificate.clone(), tls.key.clone());
    let options = BrokerOptions { tls: Some(tls), ..trusting("https://127.0.0.1:9") };
    let mut broker = Broker::start(&options);
    let home = &broker.home;
    // This certificate ends in a day.
    only(&check(home, &["--json"]).run().ok(), "certificate", "it is good until");
    let told = check(home, &[]).run().ok().stdout;
    let names: Vec<_> = told.lines().filter(|line| !line.starts_with(' ')).collect();
    let begin = |line: &&str| line.split(':').next().unwrap_or_default().to_string();
    let names: Vec<_> = names.iter().map(begin).collect();
    let expected = [
        "ok[issuers]",
        "ok[policies]",
        "warning[certificate]",
        "ok[addresses]",
        "ok[kek]",
        "ok[database]",
        "ok[keys]",
    ];
    assert_eq!(names, expected, "{told}");
    let strict = check(home, &["--strict"]).run().ended_with(3);
    assert!(strict.stderr.contains("0 errors and 1 warning"), "{}", strict.stderr);

    let expired = authority.certify_expired("127.0.0.1");
    std::fs::copy(&expired.certificate, &files.0).unwrap();
    std::fs::copy(&expired.key, &files.1).unwrap();
    only(&check(home, &["--json"]).run().ended_with(3), "certificate", "it was until");
    let other = check(home, &["--json"]).env("TMPCRED_BROKER_KEK", "Q".repeat(43)).run();
    let other = bad(&other.ended_with(3));
    assert!(
        other[1].0 == "keys" && other[1].1.contains("does not open this database"),
        "{other:?}"
    );

    // Nothing was done to it.
    broker.restart();
    assert!(broker.home.path("broker.db").exists());
}

#[test]
fn those_whom_a_broker_asks_are_asked_where_somebody_wants_that() {
    let mut provider = OidcProvider::start();
    let mut options = trusting(provider.issuer());
    let keys = provider.url("/jwks");
    // The broker itself need not run for that.
    options.more = format!(
        "\n[client.robot]\njwks_uri = {keys:?}\n\n[trusted_issuer.self]\nissuer = \"{{self}}\"\n"
    );
    let mut broker = Broker::start(&options);
    wait_until("it to have the keys", Duration::from_secs(60), || {
        (provider.count("GET", "/jwks") >= 1).then_some(())
    });
    broker.stop();
    let home = &broker.home;
    let before = provider.requests().len();
    check(home, &["--strict"]).run().ok();
    assert_eq!(provider.requests().len(), before, "nobody wanted that");

    let told = check(home, &["--strict", "--online"]).run().ok().stdout;
    for who in ["trusted_issuer.corp", "client.robot"] {
        let line = format!("ok[issuers]: [{who}] keys from {keys}: ");
        let number = told.lines().find_map(|told| told.strip_prefix(&line));
        assert!(number.is_some_and(|number| number.parse::<u8>().unwrap() > 0), "{told}");
    }
    assert!(!told.contains("trusted_issuer.self") && !told.contains("not asked"), "{told}");

    // What is fetched is looked at as what is in files is.
    let toml = std::fs::read_to_string(home.path("broker.toml")).unwrap();
    let table = "[client.robot]\n";
    home.write("broker.toml", toml.replace(table, &format!("{table}algorithms = [\"ES384\"]\n")));
    let output = check(home, &["--json", "--online"]).run().ended_with(3);
    only(&output, "issuers", "[client.robot] accepts nothing that its keys can sign");
    home.write("broker.toml", toml);

    let online = || bad(&check(home, &["--json", "--online"]).run().ended_with(3));
    provider.fault(&Fault::answer(404, "text/plain", "none").at("/jwks"));
    let told = online();
    assert_eq!(told.len(), 2, "{told:?}");
    for (one, table) in told.iter().zip(["trusted_issuer.corp", "client.robot"]) {
        let parts = [format!("[{table}] does not answer"), format!("{keys} answered 404")];
        assert!(one.0 == "issuers" && parts.iter().all(|part| one.1.contains(part)), "{one:?}");
    }
    provider.clear_faults();
    provider.fault(&Fault::answer(200, "application/json", "{\"keys\": []}").at("/jwks"));
    let none = online();
    let has_none = |(_, said): &(String, String)| said.contains("has no keys");
    assert!(none.len() == 2 && none.iter().all(has_none), "{none:?}");
    provider.clear_faults();
    // All at once, so that nobody waits for one after the other.
    provider.fault(&Fault::hangs());
    let hang = online();
    let late = |(_, said): &(String, String)| said.contains("the limit is 15 seconds");
    assert!(hang.len() == 2 && hang.iter().all(late), "{hang:?}");
    provider.kill();
    let gone = online();
    assert!(gone.len() == 2 && gone.iter().all(|(_, said)| said.contains("refused")), "{gone:?}");
}

#[test]
fn whoever_may_not_write_the_database_is_told() {
    let options = trusting("http://127.0.0.1:9");
    let mut broker = Broker::start_in(Home::nobody(), &options);
    broker.stop();
    let home = &broker.home;
    check(home, &["--strict"]).run().ok();
    let database = home.path("broker.db");
    set_mode(&database, 0o400);
    only(&check(home, &["--json"]).run().ended_with(3), "database", "nothing can be written at");
    set_mode(&database, 0o600);

    let toml = std::fs::read_to_string(home.path("broker.toml")).unwrap();
    let shut = home.path("shut");
    std::fs::create_dir(&shut).unwrap();
    set_mode(&shut, 0o500);
    home.write("broker.toml", toml.replace("\"broker.db\"", "\"shut/below/broker.db\""));
    only(&check(home, &["--json"]).run().ended_with(3), "database", "nothing can be written at");
    // Nor is it said that there is none where that cannot be told.
    let hidden = home.directory("hidden");
    std::fs::rename(&database, hidden.join("broker.db")).unwrap();
    home.write("broker.toml", toml.replace("\"broker.db\"", "\"hidden/broker.db\""));
    set_mode(&hidden, 0o000);
    for command in
        [&["audit", "query"][..], &["audit", "verify"], &["keys", "list"], &["backup", "copy.db"]]
    {
        let run = tmpcred(home).args(["broker"]).args(command).env("TMPCRED_BROKER_KEK", KEK);
        let refused = run.args(["--config"]).args([home.path("broker.toml")]).run().ended_with(3);
        for part in ["Permission denied", "tmpcred-broker-ctl"] {
            assert!(refused.stderr.contains(part), "{command:?}: {}", refused.stderr);
        }
    }
    set_mode(&hidden, 0o700);
    std::fs::rename(hidden.join("broker.db"), &database).unwrap();
    home.write("broker.toml", toml.replace("\"broker.db\"", "\"new/below/broker.db\""));
    check(home, &["--strict"]).run().ok();
    assert!(!home.path("new").exists());
    // What is wrong with the file itself is told with its place, as ever.
    home.write("broker.toml", format!("{toml}\n[nothing]\n"));
    let refused = check(home, &[]).run().ended_with(3);
    assert!(refused.stderr.contains("nothing"), "{}", refused.stderr);
}

/// Whoever runs a server as a service has none.
#[test]
fn no_home_directory_is_wanted_for_a_broker() {
    let mut broker = Broker::start(&trusting("http://127.0.0.1:9"));
    broker.stop();
    let home = &broker.home;
    let homeless = |words: &[&str]| {
        let variables = home.variables().keys();
        let about = |name: &&std::ffi::OsString| {
            *name == "HOME" || name.to_string_lossy().starts_with("XDG_")
        };
        let run = tmpcred(home).args(words).env("TMPCRED_BROKER_KEK", KEK);
        variables.filter(about).fold(run, |run, name| run.env_remove(name))
    };
    let toml = home.path("broker.toml");
    let file = ["--config", toml.to_str().unwrap()];
    for command in [&["check"][..], &["policy", "check"], &["audit", "query"], &["keys", "list"]] {
        homeless(&[&["broker"], command, &file].concat()).run().ok();
    }
    let mut serving = homeless(&[&["broker", "serve"], &file[..]].concat()).spawn();
    serving.line_on_stderr("listens on");
    serving.kill();
    for command in [&["status"][..], &["broker", "keys", "list", "--at", "any"]] {
        let refused = homeless(command).run().ended_with(3);
        assert!(refused.stderr.contains("the home directory cannot be told"), "{}", refused.stderr);
    }
}

#[test]
fn a_database_at_postgresql_is_looked_at_and_left_empty() {
    let postgres = Postgres::start();
    let options = trusting("http://127.0.0.1:9");
    let mut broker = Broker::start(&options);
    broker.stop();
    let home = &broker.home;
    let toml = std::fs::read_to_string(home.path("broker.toml")).unwrap();
    home.write("broker.toml", toml.replace(&options.store, &postgres.table(home)));
    let told = check(home, &["--strict"]).run().ok().stdout;
    assert!(told.contains("ok[database]: there is none yet"), "{told}");
    let tables = "select count(*) from information_schema.tables where table_schema = 'public'";
    assert_eq!(postgres.query(tables), ["0"]);
    postgres.end();
    only(&check(home, &["--json"]).run().ended_with(3), "database", "nobody answers");
}
