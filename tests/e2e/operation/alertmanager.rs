//! Alertmanager itself: whom it tells of which alert, and of which it tells nobody.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;

use super::super::support::peer::{Peer, program, supervised};
use super::*;

const CONFIG: &str = "deploy/prometheus/alertmanager.yml";

/// What nobody is kept from hearing by anything else: it may be somebody's doing, or is about all
/// brokers together.
const ALWAYS_TOLD: [&str; 12] = [
    "TmpcredAuditLogBroken",
    "TmpcredBrokerDown",
    "TmpcredBrokersGone",
    "TmpcredEmergencyActive",
    "TmpcredIssuanceFailing",
    "TmpcredMessagesGivenUp",
    "TmpcredMostDenied",
    "TmpcredMostTokensRefused",
    "TmpcredOwnKeysUnknown",
    "TmpcredReplays",
    "TmpcredSigningKeysUnseen",
    "TmpcredTokensElsewhere",
];

/// The alerts, with the labels that they are given.
fn alerts() -> BTreeMap<String, Vec<String>> {
    let rules = read("deploy/prometheus/alerts.yml");
    let each = rules.split("- alert: ").skip(1).map(|rule| {
        let labels = rule.split("labels: {").nth(1).unwrap().split('}').next().unwrap();
        let labels = labels.split(',').map(|one| one.trim().replace(": ", "=").replace('"', ""));
        (rule.lines().next().unwrap().to_string(), labels.collect())
    });
    each.collect()
}

#[test]
fn amtool_sends_each_alert_to_whom_it_is_for() {
    let home = Home::new();
    let file = home.write("work/alertmanager.yml", read(CONFIG));
    home.command("amtool").args(["check-config"]).args([&file]).run().ok();
    let kinds: BTreeSet<Vec<String>> = alerts().into_values().collect();
    assert_eq!(kinds.len(), 3, "{kinds:?}");
    for labels in kinds {
        let service = "service=tmpcred-broker";
        assert_eq!(labels[0], service);
        let receivers = match &labels[1..] {
            [severity] if severity == "severity=ticket" => "tmpcred-ticket",
            [severity] if severity == "severity=page" => "tmpcred-page",
            [severity, more] if severity == "severity=page" && more == "escalate=yes" => {
                "tmpcred-escalation,tmpcred-page"
            }
            _ => panic!("nobody says who is told of {labels:?}"),
        };
        let test = home.command("amtool").args(["config", "routes", "test"]);
        let test = test.args([format!("--verify.receivers={receivers}")]);
        let test = test.args([format!("--config.file={}", file.display())]);
        test.args(&labels).run().ok();
    }
}

#[test]
fn what_is_inhibited_is_there_and_hides_nobodys_doing() {
    let alerts = alerts();
    let config = read(CONFIG);
    let rules = config.split("inhibit_rules:").nth(1).unwrap();
    let named = |text: &str| -> Vec<String> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric());
        words.filter(|word| word.starts_with("Tmpcred")).map(String::from).collect()
    };
    for name in named(rules) {
        assert!(alerts.contains_key(&name), "there is no alert {name}");
    }
    let mut seen = 0;
    for rule in rules.split("- source_matchers:").skip(1) {
        let targets = rule.split("target_matchers:").nth(1).unwrap();
        let targets = named(targets.split("equal:").next().unwrap());
        assert!(!targets.is_empty(), "{rule}");
        let hidden: Vec<_> =
            targets.iter().filter(|name| ALWAYS_TOLD.contains(&name.as_str())).collect();
        assert!(hidden.is_empty(), "{hidden:?}");
        seen += targets.len();
    }
    assert!(seen >= 15, "{seen}");
    for name in ALWAYS_TOLD {
        assert!(alerts.contains_key(name), "there is no alert {name}");
    }
}

/// Alerts that are one message.
struct Group {
    receiver: String,
    /// The labels that they have in common.
    by: BTreeMap<String, String>,
    alerts: BTreeSet<String>,
}

/// Alertmanager with our configuration. Dropping it kills it.
struct Alertmanager {
    _peer: Peer,
    _files: TempDir,
    url: String,
}

impl Alertmanager {
    #[track_caller]
    fn start() -> Self {
        let (files, port) = (tempfile::tempdir().unwrap(), free_port());
        // Whom it would tell is not there.
        let nobody = format!("http://127.0.0.1:{}/", free_port());
        let config = read(CONFIG)
            .replace("https://on-call.example.com/", &nobody)
            .replace("https://tickets.example.com/", &nobody);
        assert!(!config.contains("url: https:"), "{config}");
        let file = files.path().join("alertmanager.yml");
        std::fs::write(&file, config).unwrap();
        let mut command = supervised(&program("prometheus-alertmanager"), Path::new("/dev/null"));
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.path={}", files.path().join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        command.args(["--cluster.listen-address=", "--log.level=warn"]);
        let mut peer = Peer::start("Alertmanager", command, files.path().join("log"));
        let url = format!("http://127.0.0.1:{port}");
        let ready = format!("{url}/-/ready");
        peer.until_ready(|| Http::new().get(&ready).ok().filter(|reply| reply.status == 200));
        Self { _peer: peer, _files: files, url: format!("{url}/api/v2") }
    }

    /// The groups that it makes.
    fn groups(&self) -> Vec<Group> {
        let text = |value: &Value| value.as_str().unwrap().to_string();
        let groups = self.ask("alerts/groups").into_iter().map(|group| Group {
            receiver: text(&group["receiver"]["name"]),
            by: serde_json::from_value(group["labels"].clone()).unwrap(),
            alerts: (group["alerts"].as_array().unwrap().iter())
                .map(|alert| text(&alert["labels"]["alertname"]))
                .collect(),
        });
        groups.collect()
    }

    /// What it says at this path.
    fn ask(&self, path: &str) -> Vec<Value> {
        let answer = Http::new().get(&format!("{}/{path}", self.url)).unwrap().json();
        answer.as_array().unwrap().clone()
    }
}

/// An alert as Prometheus sends it, with these labels besides its own.
fn firing(alerts: &BTreeMap<String, Vec<String>>, name: &str, more: &[(&str, &str)]) -> Value {
    let own = alerts[name].iter().map(|label| label.split_once('=').unwrap());
    let labels: BTreeMap<&str, &str> =
        own.chain([("alertname", name)]).chain(more.iter().copied()).collect();
    json!({ "labels": labels })
}

#[test]
fn alertmanager_makes_one_page_of_an_outage_and_tells_nothing_that_follows() {
    let alerts = alerts();
    let alertmanager = Alertmanager::start();
    let [a, b] = ["a:9443", "b:9443"].map(|at| ("instance", at));
    // What fires, with whether anybody is told.
    let all = [
        ("TmpcredBrokerDown", vec![a], true),
        ("TmpcredNotReady", vec![a], false),
        ("TmpcredAuditStuck", vec![a], false),
        ("TmpcredAuditStuck", vec![b], true),
        ("TmpcredSigningKeysUnseen", vec![a], true),
        ("TmpcredIssuanceFailing", vec![], true),
        ("TmpcredIssuanceBelowObjective", vec![], false),
        ("TmpcredIssuanceFailingSlowly", vec![], false),
        ("TmpcredKeyRotationFailing", vec![b], true),
        ("TmpcredKeyRotationLate", vec![b], false),
        ("TmpcredClientKeysOld", vec![b, ("client", "ci")], true),
        ("TmpcredClientKeysFailing", vec![b, ("client", "ci")], false),
        ("TmpcredClientKeysFailing", vec![b, ("client", "other")], true),
        ("TmpcredIssuanceSlow", vec![], true),
        ("TmpcredEmergencyActive", vec![], true),
    ];
    let sent: Vec<_> = all.iter().map(|(name, more, _)| firing(&alerts, name, more)).collect();
    let url = format!("{}/alerts", alertmanager.url);
    assert_eq!(Http::new().json(Method::POST, &url, &json!(sent)).status, 200);

    let said = |value: &Value, name: &str| value["labels"][name].as_str().map(String::from);
    let wanted: BTreeSet<_> = all
        .iter()
        .map(|(name, more, told)| {
            let of = |label| more.iter().find(|(l, _)| *l == label).map(|(_, v)| v.to_string());
            (Some(name.to_string()), of("instance"), of("client"), *told)
        })
        .collect();
    let mut got = BTreeSet::new();
    let settled = || {
        let each = alertmanager.ask("alerts").into_iter().map(|one| {
            let told = one["status"]["state"] != "suppressed";
            (said(&one, "alertname"), said(&one, "instance"), said(&one, "client"), told)
        });
        got = each.collect();
        (got == wanted).then_some(())
    };
    wait_until("it to tell only what does not follow", LONG, settled);

    // All pages are one group, but for what may be somebody's doing or lasts; each ticket is its own.
    let names = |severity: &str| -> BTreeSet<String> {
        let is_one = |name: &&str| alerts[*name].contains(&format!("severity={severity}"));
        all.iter().map(|(name, ..)| *name).filter(is_one).map(String::from).collect()
    };
    let groups = wait_until("all alerts to be in groups", LONG, || {
        let groups = alertmanager.groups();
        let of = |receiver: &str| -> BTreeSet<String> {
            let mine = groups.iter().filter(|group| group.receiver == receiver);
            mine.flat_map(|group| group.alerts.iter().cloned()).collect()
        };
        let whole = of("tmpcred-page") == names("page") && of("tmpcred-ticket") == names("ticket");
        whole.then_some(groups)
    });
    let by = |receiver: &str| -> Vec<_> {
        let mine = groups.iter().filter(|group| group.receiver == receiver);
        mine.map(|group| {
            group.by.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(" ")
        })
        .collect()
    };
    let alone = [
        "TmpcredAuditLogBroken",
        "TmpcredDirectoryStale",
        "TmpcredEmergencyActive",
        "TmpcredMessagesGivenUp",
    ];
    let alone = names("page").into_iter().filter(|name| alone.contains(&name.as_str()));
    let mut pages: Vec<_> =
        alone.map(|name| format!("alertname={name} service=tmpcred-broker")).collect();
    assert!(!pages.is_empty(), "one of them is among those that were sent");
    pages.push("service=tmpcred-broker".into());
    let mut found = by("tmpcred-page");
    found.sort_unstable();
    assert_eq!(found, pages);
    assert_eq!(by("tmpcred-escalation"), ["service=tmpcred-broker"]);
    let mut tickets = by("tmpcred-ticket");
    tickets.sort_unstable();
    let wanted = names("ticket").into_iter();
    let wanted: Vec<_> =
        wanted.map(|name| format!("alertname={name} service=tmpcred-broker")).collect();
    assert_eq!(tickets, wanted);
}
