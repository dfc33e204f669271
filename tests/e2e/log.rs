//! The broker's log for programs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::support::broker::{KEK, KEK_VARIABLE, OPEN_POLICY};
use super::support::canary::Canary;
use super::support::home::{Home, tmpcred};
use super::support::http::Http;
use super::support::run::Run;
use super::support::services::{Services, new_key};
use super::support::wait::wait_until;

const JSON: &str = "\n[log]\nformat = \"json\"\n";

/// Everybody may have roles, that of a reader for so long.
fn policy(ttl: &str) -> String {
    OPEN_POLICY.replace("15m", ttl).replace("@id", "@any_issuer @id")
}

/// The lines of a log, each of which has to be one.
#[track_caller]
fn lines(log: &str) -> Vec<Value> {
    let parse = |line: &str| {
        let parsed: Value = serde_json::from_str(line).unwrap_or_else(|cause| {
            panic!("{cause}: {line}");
        });
        let text = |name: &str| parsed[name].as_str().unwrap_or_else(|| panic!("{name}: {line}"));
        let format = &time::format_description::well_known::Rfc3339;
        time::OffsetDateTime::parse(text("time"), format).unwrap();
        assert!(["ERROR", "WARN", "INFO", "DEBUG"].contains(&text("level")), "{line}");
        // Libraries may say nothing but what their fields say.
        let (target, message) = (text("target"), text("message"));
        assert!(!target.is_empty(), "{line}");
        assert!(!target.starts_with("tmpcred") || !message.is_empty(), "{line}");
        parsed
    };
    log.lines().map(parse).collect()
}

#[test]
fn each_line_is_an_object_with_the_ids_of_its_request_and_without_secrets() {
    let mut home = Home::new();
    home.set("TMPCRED_LOG", "trace");
    // Nobody is there to take traces, but there are some.
    let more = format!("{JSON}\n[telemetry]\nendpoint = \"http://127.0.0.1:9\"\n");
    let services = Services::start_in(home, &policy("15m"), &more);
    let (mut http, url) = (Http::new(), services.broker.url());
    let assertion = services.assertion();
    let issued = services.exchange(&mut http, &assertion, "reader");
    let token = issued.json()["access_token"].as_str().unwrap().to_string();
    let forged = services.assertion_by(&new_key().0, "https://services.example.com");
    let mut replies = vec![
        issued,
        services.exchange(&mut http, &assertion, "nothing"),
        services.exchange(&mut http, &forged, "reader"),
        http.form(&format!("{url}/token"), &[("subject_token", &token)]).unwrap(),
        http.form_as(&token, &format!("{url}/introspect"), &[("token", &token)]).unwrap(),
        http.form(&format!("{url}/revoke"), &[("token", &token)]).unwrap(),
        http.get(&format!("{url}/no\"thing\n")).unwrap(),
    ];
    services.reload("permit (\"\u{1b}", "what was read anew is refused");
    services.reload(&policy("14m"), "decide from now on");
    replies.push(services.exchange(&mut http, &services.assertion(), "reader"));
    let all = replies.len();
    wait_until("all answers in the log", Duration::from_secs(30), || {
        (services.broker.said().matches("\"answered\"").count() >= all).then_some(())
    });
    let log = services.broker.said();
    let whole = &log[..=log.rfind('\n').unwrap()];
    let lines = lines(whole);
    // Libraries say something as well.
    assert!(lines.iter().any(|line| !line["target"].as_str().unwrap().starts_with("tmpcred")));
    assert!(whole.contains("listens on"), "{whole}");
    let mut answered = BTreeMap::new();
    for line in lines.iter().filter(|line| line["message"] == "answered") {
        let text = |name: &str| line[name].as_str().unwrap_or_else(|| panic!("{name}: {line}"));
        assert_eq!(text("trace_id").len(), 32, "{line}");
        assert!(text("method").len() >= 3 && !text("route").is_empty(), "{line}");
        answered.insert(text("request_id").to_string(), line["status"].as_u64().unwrap());
    }
    let told: BTreeMap<String, u64> = replies
        .iter()
        .map(|reply| (reply.request_id.clone().unwrap(), u64::from(reply.status)))
        .collect();
    assert_eq!(answered, told, "{whole}");
    // What was said on the way is of the same request.
    let denied = replies[1].request_id.as_deref().unwrap();
    let refused = |line: &&Value| line["request_id"] == denied && line["message"] == "refused";
    let refused: Vec<_> = lines.iter().filter(refused).collect();
    let [refused] = refused[..] else { panic!("{whole}") };
    // As the caller is told of it.
    assert_eq!(refused["code"], "access_denied", "{refused}");
    assert_eq!(refused["why"], "there is no role 'nothing'", "{refused}");
    for (kind, secret) in [
        ("assertion", assertion.as_str()),
        ("signature of the assertion", assertion.rsplit('.').next().unwrap()),
        ("assertion that is refused", forged.as_str()),
        ("token", token.as_str()),
        ("signature of the token", token.rsplit('.').next().unwrap()),
        ("key-encryption key", KEK),
    ] {
        assert_eq!(Canary::of(kind, secret).search("the log", log.as_bytes()), []);
    }
    // The search can find something: what is no secret is there.
    let first = replies[0].request_id.as_deref().unwrap();
    let issued = |line: &&Value| line["request_id"] == first && line["message"] == "issued";
    let issued = lines.iter().find(issued).unwrap();
    assert_eq!((&issued["role"], &issued["record"]), (&"reader".into(), &3.into()), "{issued}");
    // Whose it is, the audit log has.
    assert!(!whole.contains("\"job\"") && !whole.contains("#job"), "{whole}");
}

#[test]
fn a_broker_that_cannot_start_says_so_in_the_same_way() {
    let services = Services::start_in(Home::new(), &policy("15m"), JSON);
    let serve = |home: &Home| -> Run {
        let config = home.path("broker.toml");
        let serve = tmpcred(home).args(["broker", "serve", "--config"]).args([config]);
        serve.env(KEK_VARIABLE, KEK)
    };
    // Its address is taken.
    let run = serve(&services.broker.home).env("TMPCRED_LOG", "nonsense=x=y").run();
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    let lines = lines(&run.stderr);
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["level"], &last["message"]),
        (&"ERROR".into(), &"the broker cannot go on".into())
    );
    assert!(last["hints"].as_str().unwrap().contains("is another broker running?"), "{last}");
    let filter = lines.iter().find(|line| line["level"] == "WARN").unwrap();
    assert!(filter["message"].as_str().unwrap().contains("is no filter"), "{filter}");
}
