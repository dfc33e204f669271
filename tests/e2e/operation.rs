//! The broker as those see it who run it: metrics, alerts, its unit, its certificate.

mod alertmanager;
mod dashboards;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::journey::Journey;
use super::support::broker::{Broker, BrokerOptions};
use super::support::browser::Browser;
use super::support::home::{Home, under_test};
use super::support::http::Http;
use super::support::oidc_provider::OidcProvider;
use super::support::tls::{Authority, ServerCertificate};
use super::support::wait::{free_port, wait_until};

const LONG: Duration = Duration::from_secs(60);

fn ours(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(ours(path)).unwrap()
}

#[test]
fn prometheus_understands_what_the_broker_tells_and_it_names_nobody() {
    let provider = OidcProvider::start();
    let admin = free_port();
    let mut options = BrokerOptions::trusting(provider.issuer());
    options.more = format!("\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n");
    let broker = Broker::start(&options);
    let mut home = Home::stranger();
    Browser::http().user("alice", "x").install(&mut home);
    let journey = Journey::of(provider, broker, home);
    let token = journey.tmpcred(&["token"]).run().ok().stdout;
    let scrape = || Http::new().get(&format!("http://127.0.0.1:{admin}/metrics")).unwrap().body;
    let told = scrape();
    for line in [
        "tmpcred_issuance_successes_total 1",
        "tmpcred_jwks_fetch_failures_total{issuer=\"corp\"} 0",
        "tmpcred_signing_keys{state=\"active\"} 1",
    ] {
        assert!(told.lines().any(|other| other == line), "{line}\n{told}");
    }
    assert!(told.contains("tmpcred_jwks_age_seconds{issuer=\"corp\"} "), "{told}");
    for secret in ["alice", "\"cli\"", "example.com", token.trim()] {
        assert!(!told.contains(secret), "{secret}\n{told}");
    }
    let checked =
        journey.home.command("promtool").args(["check", "metrics"]).stdin(told).run().ok();
    assert_eq!(checked.stdout + &checked.stderr, "", "promtool has nothing to say against it");
    // It is not for everybody.
    let public = Http::new().get(&format!("{}/metrics", journey.broker.url())).unwrap();
    assert_eq!(public.status, 404);
}

#[test]
fn each_alert_is_about_what_there_is_and_has_a_runbook() {
    let home = Home::new();
    let file = home.write("alerts.yml", read("deploy/prometheus/alerts.yml"));
    home.command("promtool").args(["check", "rules"]).args([file]).run().ok();
    let (alerts, page) = (read("deploy/prometheus/alerts.yml"), read("docs/metrics.md"));
    let known: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let mut used = 0;
    for word in alerts.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        if word.starts_with("tmpcred_") {
            let base = word.trim_end_matches("_bucket").trim_end_matches("_count");
            assert!(known.contains(base), "there is no metric {word}");
            used += 1;
        }
    }
    assert!(used >= 10, "only {used} metrics were found");
    let lines = |prefix: &str| -> Vec<String> {
        let found = alerts.lines().filter_map(|line| line.trim().strip_prefix(prefix));
        found.map(|rest| rest.trim().to_string()).collect()
    };
    let names = lines("- alert:");
    let wanted: Vec<_> =
        names.iter().map(|name| format!("docs/runbooks.md#{}", name.to_lowercase())).collect();
    assert_eq!(lines("runbook_url:"), wanted);
    let runbooks = read("docs/runbooks.md");
    let titles: Vec<_> = runbooks.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(titles, names);
}

#[test]
fn each_alert_fires_when_it_should_and_at_no_other_time() {
    let home = Home::new();
    let alerts = read("deploy/prometheus/alerts.yml");
    home.write("work/alerts.yml", &alerts);
    let files = ["alerts.test.yml", "alerts.long.test.yml"];
    let cases = files.map(|name| {
        let cases = read(&format!("deploy/prometheus/{name}"));
        home.write(format!("work/{name}"), &cases);
        cases
    });
    let tests = home.command("promtool").args(["test", "rules"]).args(files);
    tests.limit(Duration::from_secs(280)).run().ok();
    let cases = cases.concat();
    for name in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let about = format!("alertname: {name}\n");
        let tried: Vec<&str> = cases.split("  - name: ").filter(|c| c.contains(&about)).collect();
        let silent = tried.iter().filter(|case| case.contains("exp_alerts: []")).count();
        assert!(silent >= 1 && tried.len() > silent, "{name}: {} cases", tried.len());
    }
}

/// The expressions of a dashboard.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("expr").and_then(Value::as_str).map(String::from));
            members.values().for_each(|value| expressions(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

/// The metrics and their labels, as the page has them.
fn metrics() -> BTreeMap<String, BTreeSet<String>> {
    let page = read("docs/metrics.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `tmpcred_"));
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(String::from).collect();
    rows.filter_map(|row| {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [name, kind, labels, _] = cells[..] else { return None };
        let mut labels: BTreeSet<String> = quoted(labels);
        labels.extend(["job", "instance"].map(String::from));
        if kind == "histogram" {
            labels.insert("le".into());
        }
        Some((format!("tmpcred_{}", name.trim_end_matches('`')), labels))
    })
    .collect()
}

/// What of an expression is wrong: metrics that are not there, and labels that they lack.
fn wrong(expression: &str, metrics: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (mut wrong, mut known) = (Vec::new(), BTreeSet::new());
    let mut rest = expression;
    while let Some(at) = rest.find("tmpcred_") {
        let named = &rest[at..];
        let name = &named[..named.find(|c| !is_word(c)).unwrap_or(named.len())];
        rest = &named[name.len()..];
        let base = ["_bucket", "_count", "_sum"].into_iter().find_map(|end| name.strip_suffix(end));
        let Some(labels) = metrics.get(name).or_else(|| metrics.get(base?)) else {
            wrong.push(format!("there is no metric {name}"));
            continue;
        };
        known.extend(labels.iter().cloned());
        let selected = rest.strip_prefix('{').and_then(|rest| rest.split('}').next());
        for matcher in selected.unwrap_or_default().split(',').filter(|one| !one.is_empty()) {
            let label = matcher.trim().split(|c| !is_word(c)).next().unwrap_or_default();
            if !labels.contains(label) {
                wrong.push(format!("{name} has no label {label}"));
            }
        }
    }
    for list in expression.split(" by (").skip(1) {
        for label in list.split(')').next().unwrap_or_default().split(',').map(str::trim) {
            if !known.is_empty() && !known.contains(label) {
                wrong.push(format!("no metric there has a label {label}"));
            }
        }
    }
    wrong
}

#[test]
fn each_dashboard_shows_what_there_is_in_expressions_that_prometheus_understands() {
    let metrics = metrics();
    assert!(metrics.len() >= 40, "{metrics:?}");
    let (mut rules, mut shown) = (String::from("groups:\n- name: all\n  rules:\n"), String::new());
    for name in ["executive", "on-call", "debug"] {
        let board: Value =
            serde_json::from_str(&read(&format!("deploy/grafana/{name}.json"))).unwrap();
        assert_eq!(board["uid"], format!("tmpcred-{name}"));
        let mut found = Vec::new();
        expressions(&board, &mut found);
        assert!(found.len() >= 10, "{name}: {found:?}");
        for expression in found {
            let wrong = wrong(&expression, &metrics);
            assert!(wrong.is_empty(), "{name}: {expression}: {wrong:?}");
            let filled = expression.replace("$__rate_interval", "5m");
            let filled = filled.replace("$job", ".*").replace("$instance", ".*");
            assert!(!filled.contains('$'), "{name}: {expression}");
            let quoted = serde_json::to_string(&filled).unwrap();
            let number = rules.matches("record:").count();
            rules += &format!("  - record: shown:{number}\n    expr: {quoted}\n");
            shown += &expression;
        }
        let mut ids = BTreeSet::new();
        for panel in board["panels"].as_array().unwrap() {
            assert!(ids.insert(panel["id"].as_u64()), "{name}: {panel}");
            assert!(panel["title"].as_str().is_some_and(|title| !title.is_empty()), "{name}");
        }
    }
    let home = Home::new();
    let file = home.write("shown.yml", rules);
    home.command("promtool").args(["check", "rules"]).args([file]).run().ok();
    let missing: Vec<_> = metrics.keys().filter(|name| !shown.contains(*name)).collect();
    assert!(missing.is_empty(), "no dashboard shows {missing:?}");
    for alert in read("deploy/prometheus/alerts.yml").split("- alert:").skip(1) {
        let expression = alert.split("expr:").nth(1).unwrap().split("labels:").next().unwrap();
        let wrong = wrong(expression, &metrics);
        assert!(wrong.is_empty(), "{alert}: {wrong:?}");
    }
}

#[test]
fn systemd_understands_the_units_and_finds_them_hardened() {
    let home = Home::new();
    let programs = [
        ("/usr/local/bin/tmpcred", under_test().to_str().unwrap()),
        (
            "/usr/local/sbin/tmpcred-broker-keep",
            concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/systemd/tmpcred-broker-keep"),
        ),
    ];
    let analyze = |args: &[&str], file: &Path| {
        let run = home.command("systemd-analyze").args(args).args([file]).run().ok();
        run.stdout + &run.stderr
    };
    let put = |name: &str| {
        let unit = read(&format!("deploy/systemd/{name}"));
        let unit = programs.iter().fold(unit, |unit, (place, ours)| unit.replace(place, ours));
        home.write(name, unit)
    };
    let sandbox = |unit: &str| {
        let unit = read(&format!("deploy/systemd/{unit}"));
        let service = unit.split("\nAmbientCapabilities=").nth(1).unwrap();
        service.split("\n\n").next().unwrap().trim().to_string()
    };
    let services = [
        "tmpcred-broker.service",
        "tmpcred-broker-backup.service",
        "tmpcred-broker-verify.service",
        "tmpcred-broker-restore@.service",
    ];
    for name in services {
        let file = put(name);
        let unit = std::fs::read_to_string(&file).unwrap();
        assert!(programs.iter().any(|(_, ours)| unit.contains(&format!("ExecStart={ours} "))));
        assert_eq!(analyze(&["verify", "--man=no"], &file), "");
        analyze(&["security", "--offline=true", "--no-pager", "--threshold=20"], &file);
        assert_eq!(sandbox(name), sandbox(services[0]), "{name}");
    }
    for name in ["tmpcred-broker-backup.timer", "tmpcred-broker-verify.timer"] {
        assert_eq!(analyze(&["verify", "--man=no"], &put(name)), "");
    }
}

/// Writes another certificate over this one.
fn replace(old: &ServerCertificate, new: &ServerCertificate) {
    std::fs::copy(&new.key, &old.key).unwrap();
    std::fs::copy(&new.certificate, &old.certificate).unwrap();
}

#[test]
fn a_new_certificate_is_taken_without_losing_a_request_and_a_bad_one_is_not() {
    let (first, second) = (Authority::new(), Authority::new());
    let certificate = first.certify("127.0.0.1");
    let mut options = BrokerOptions::trusting("http://127.0.0.1:9");
    options.tls = Some(certificate.clone());
    let admin = format!("127.0.0.1:{}", free_port());
    options.more = format!("\n[admin]\nlisten = \"{admin}\"\n");
    let mut broker = Broker::start(&options);
    // In how long the one that is served ends, in hours.
    let left = || -> f64 {
        let metrics = Http::new().get(&format!("http://{admin}/metrics")).unwrap().body;
        let mut lines = metrics.lines();
        let left =
            lines.find_map(|line| line.strip_prefix("tmpcred_tls_certificate_left_seconds "));
        left.unwrap().parse::<f64>().unwrap() / 3600.0
    };
    assert!((23.0..24.0).contains(&left()), "{}", left());
    let page = format!("{}/jwks.json", broker.url());
    let reached = |authority: &Path| Http::trusting(authority).get(&page).is_ok();
    assert!(reached(&first.pem()) && !reached(&second.pem()));

    let both = [first.pem(), second.pem()].map(|pem| std::fs::read_to_string(pem).unwrap());
    let both = broker.home.write("both.pem", both.concat());
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let (mut http, mut answered) = (Http::trusting(&both), 0);
            while !ended.load(Ordering::Relaxed) {
                assert_eq!(http.get(&page).unwrap().status, 200);
                answered += 1;
            }
            answered
        });
        // Also where something here is amiss, the client has to end.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            replace(&certificate, &second.certify("127.0.0.1"));
            broker.signal(Signal::HUP);
            wait_until("the new certificate", LONG, || reached(&second.pem()).then_some(()));
            assert!(!reached(&first.pem()));

            std::fs::write(&certificate.key, "no key").unwrap();
            broker.signal(Signal::HUP);
            wait_until("the log to tell of the bad one", LONG, || {
                broker.said().contains("the old one stays").then_some(())
            });
            assert!(reached(&second.pem()));

            replace(&certificate, &second.certify_expired("127.0.0.1"));
            broker.signal(Signal::HUP);
            wait_until("the log to tell of the one that has ended", LONG, || {
                broker.said().contains("is not valid: it was until").then_some(())
            });
            assert!(reached(&second.pem()));
            assert!((23.0..24.0).contains(&left()), "{}", left());
        }));
        ended.store(true, Ordering::Relaxed);
        let answered = client.join().unwrap();
        outcome.unwrap();
        assert!(answered > 0);
    });
    let said = broker.said();
    assert!(said.contains("there is none in it; it must be a PEM file"), "{said}");

    // It starts with that one all the same, and takes a good one then.
    broker.restart();
    let said = broker.said();
    assert!(said.contains("clients refuse the broker's certificate"), "{said}");
    assert!(said.contains("is not valid: it was until"), "{said}");
    assert!(!reached(&second.pem()));
    assert!((-2.0..-0.9).contains(&left()), "{}", left());
    replace(&certificate, &second.certify("127.0.0.1"));
    broker.signal(Signal::HUP);
    wait_until("the good one", LONG, || reached(&second.pem()).then_some(()));
    assert!((23.0..24.0).contains(&left()), "{}", left());
}

/// Whoever has certificates made ahead puts them there before they are good; and nobody has to
/// come back.
#[test]
fn a_certificate_that_was_put_there_early_is_taken_once_it_is_good() {
    let (first, second) = (Authority::new(), Authority::new());
    let certificate = first.certify("127.0.0.1");
    let mut options = BrokerOptions::trusting("http://127.0.0.1:9");
    options.tls = Some(certificate.clone());
    let mut broker = Broker::start(&options);
    let written = std::fs::read_to_string(broker.home.path("broker.toml")).unwrap();
    broker.home.write("broker.toml", format!("watch_every = \"1s\"\n{written}"));
    broker.restart();
    let page = format!("{}/jwks.json", broker.url());
    let reached = |authority: &Path| Http::trusting(authority).get(&page).is_ok();
    assert!(reached(&first.pem()));
    let early = second.certify_from("127.0.0.1", time::Duration::seconds(10));
    replace(&certificate, &early);
    wait_until("the log to tell that it is early", LONG, || {
        broker.said().contains("is not valid: it will be from").then_some(())
    });
    assert!(reached(&first.pem()));
    wait_until("it to be taken", LONG, || reached(&second.pem()).then_some(()));
    assert_eq!(broker.said().matches("is not valid: it will be from").count(), 1);
}
