//! Slack, Microsoft Teams and PagerDuty cannot run here: stand-ins take what is sent to them
//! (`tests/peers/notices.py`). What is judged by libraries of those services: the blocks by Slack's
//! own, the card by Microsoft's own. Of PagerDuty it is what is written of its Events API.

use std::path::Path;

use tempfile::TempDir;

use super::super::elevation::{Company, ROLE};
use super::super::support::aws::python_program;
use super::super::support::peer::{Peer, node_script, supervised};
use super::*;

struct Stand {
    _peer: Peer,
    files: TempDir,
    port: u16,
}

impl Stand {
    #[track_caller]
    fn start() -> Self {
        let (files, port) = (tempfile::tempdir().unwrap(), free_port());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/notices.py");
        let mut command = supervised(&python_program("python"), Path::new("/dev/null"));
        command.arg(script).arg(port.to_string()).arg(files.path().join("got"));
        let mut peer = Peer::start("the stand-ins", command, files.path().join("log"));
        peer.until_ready(|| std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        Self { _peer: peer, files, port }
    }

    fn behave(&self, mode: &str) {
        std::fs::write(self.files.path().join("got.mode"), mode).unwrap();
    }

    /// What came to this service.
    fn got(&self, service: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.files.path().join("got")).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let all = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        all.filter(|one| one["service"] == service).collect()
    }
}

const KEY: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn slack_teams_and_pagerduty_take_what_they_are_sent() {
    let (stand, files) = (Stand::start(), Home::new());
    let url = |path: &str| format!("http://127.0.0.1:{}/{path}\n", stand.port);
    let slack = secret(&files, "slack", &url("slack/T0/B0/hushhush"));
    let teams = secret(&files, "teams", &url("teams/hushhush"));
    let key = secret(&files, "key", KEY);
    let (services, metrics) = with(&format!(
        "\n[notify.slack]\nkind = \"slack\"\nurl_file = {slack}\n\
         [notify.teams]\nkind = \"teams\"\nurl_file = {teams}\n\
         [notify.pager]\nkind = \"pagerduty\"\nurl = {:?}\nsecret_file = {key}\n",
        url("pagerduty/v2/enqueue").trim()
    ));
    // As much as a message may have.
    let mut full = message("full");
    let facts = (0..20).map(|n| json!({ "label": format!("L{n}"), "value": "v".repeat(1000) }));
    full["facts"] = facts.collect();
    full["title"] = "t".repeat(150).into();
    full["people"] = json!([]);
    let mut bare = message("bare");
    for (name, value) in [("facts", json!([])), ("people", json!([])), ("about", json!(""))] {
        bare[name] = value;
    }
    let fields = bare.as_object_mut().unwrap();
    fields.remove("link");
    fields.remove("role");
    tell(&services.broker, &[message("k"), full, bare]);
    for service in ["slack", "teams", "pagerduty"] {
        let got = wait_until(service, SOON, || {
            let got = stand.got(service);
            (got.len() >= 3).then_some(got)
        });
        assert_eq!(got.len(), 3);
        for one in &got {
            assert_eq!(one["wrong"], Value::Null, "{service}: {one}");
        }
    }
    let slack = stand.got("slack");
    let text = slack[0]["body"].to_string();
    assert!(slack.iter().any(|one| one["body"].to_string().contains("<@U012AB3CD>")), "{text}");
    let script = node_script("adaptive-card.mjs");
    for one in stand.got("teams") {
        let card = one["body"].to_string();
        let read = services.broker.home.command("node").args([&script]).stdin(card).run().ok();
        let read = read.json();
        assert_eq!(read["found"], json!([]), "{read}");
        assert_eq!(read["contentType"], "application/vnd.microsoft.card.adaptive");
        let kinds = read["kinds"].as_array().unwrap();
        assert!(kinds.iter().all(|kind| kind == "RichTextBlock" || kind == "TextBlock"), "{read}");
    }
    let event = &stand.got("pagerduty")[0]["body"];
    assert_eq!(
        (&event["routing_key"], &event["payload"]["severity"]),
        (&KEY.into(), &"critical".into())
    );
    // Each asks to be left alone, and is; then it goes on.
    stand.behave("busy");
    tell(&services.broker, &[message("later")]);
    for channel in ["slack", "teams", "pager"] {
        let failed = format!("channel=\"{channel}\",outcome=\"failed\"");
        wait_until("a failure", SOON, || {
            (metric(&metrics, "deliveries_total", &failed) >= 1.0).then_some(())
        });
    }
    let why = listed(&services.broker);
    let why = why.values().map(|line| line["why"].to_string()).collect::<Vec<_>>().join("\n");
    assert!(why.contains("it answered 429"), "{why}");
    stand.behave("well");
    for service in ["slack", "teams", "pagerduty"] {
        wait_until(service, SOON, || (stand.got(service).len() == 4).then_some(()));
    }
    // Whoever knows an address may write there.
    let database = query(&services.broker, "select * from notify_delivery");
    for text in [&services.broker.said(), &why, &database] {
        assert!(!text.contains("hushhush") && !text.contains(KEY), "{text}");
    }
    let ok = notify(&services.broker, &["test", "slack"]).run().ok();
    assert_eq!(ok.stdout, "The channel 'slack' took it.\n");
    stand.behave("busy");
    let refused = notify(&services.broker, &["test", "slack"]).run();
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains("it answered 429"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("hushhush"), "{}", refused.stderr);
}

#[test]
fn an_incident_of_pagerduty_is_resolved_once_it_is_over() {
    let (stand, files) = (Stand::start(), Home::new());
    let key = secret(&files, "key", KEY);
    let role = format!(
        "{ROLE}\n[notify.pager]\nkind = \"pagerduty\"\nurl = \"http://127.0.0.1:{}/pagerduty/v2/enqueue\"\n\
         secret_file = {key}\nonly = [\"emergency\", \"review-due\"]\n",
        stand.port
    );
    let people = ["alice", "bob"].map(|name| (name, Home::stranger()));
    let company = Company::of(people.into(), &role, "");
    let ask = ["request", "admin", "--emergency", "--reason", "INC-1", "--for", "15m", "--json"];
    let had = company.elevate("alice", &ask).ok().json();
    let id = had["id"].as_str().unwrap();
    let got = |number: usize| {
        let got = wait_until("events", SOON, || {
            let got = stand.got("pagerduty");
            (got.len() >= number).then_some(got)
        });
        let text = |value: &Value| value.as_str().unwrap().to_string();
        let events = got.iter().map(|one| {
            assert_eq!(one["wrong"], Value::Null, "{one}");
            let incident = text(&one["body"]["dedup_key"]);
            let kind = incident.split_once(&format!("/{id}/")).unwrap().1.to_string();
            format!("{} {kind}", text(&one["body"]["event_action"]))
        });
        events.collect::<Vec<_>>()
    };
    assert_eq!(got(1), ["trigger emergency"]);
    company.elevate("alice", &["relinquish", id]).ok();
    // Whoever had it does not end the alarm: somebody has to look at it.
    assert_eq!(got(2), ["trigger emergency", "trigger review-due"]);
    company.elevate("bob", &["review", id, "--note", "as asked"]).ok();
    let over = ["resolve emergency", "resolve review-due", "resolve review-overdue"];
    assert_eq!(got(5)[2..], over);
}
