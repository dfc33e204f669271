//! People are told what is on record for them: by mail, in channels, by programs; and what becomes
//! of that where a receiver is down, hangs or says what it should not, and where the broker is
//! killed.
//!
//! Messages are put on record behind the broker's back, as whatever tells people does it in the
//! commit of what it tells of.

mod command;
mod email;
mod services;
mod webhook;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::revocation::Services;
use super::support::broker::Broker;
use super::support::home::{Home, tmpcred};
use super::support::http::Http;
use super::support::run::Run;
use super::support::wait::{free_port, wait_until};

/// How long something may take that takes seconds, or the time of an attempt that has to run out
/// first.
const SOON: Duration = Duration::from_secs(120);

/// Alice, who can be reached everywhere, and Bob, who has no address.
const PEOPLE: &str = r#"
[person.alice]
name = "Alice Example"
ids = [{ issuer = "https://login.example.com", subject = "alice" }]
contacts = { email = "alice@example.com", slack = "U012AB3CD", teams = "alice@corp.example.com" }
[person.bob]
ids = [{ issuer = "https://login.example.com", subject = "bob" }]
"#;

/// A message with everything, for Alice, Bob and teams.
fn message(key: &str) -> Value {
    json!({
        "key": key,
        "kind": "emergency",
        "urgency": "alarm",
        "title": "Alice took the role admin \u{2013} an emergency",
        "facts": [
            { "label": "Reason", "value": "the database is down <!channel> [x](https://evil.example) *b*" },
            { "label": "Until", "value": "2026-01-01 13:00 UTC" },
        ],
        "link": "https://broker.example.com/elevations/7?a=1&b=%7C",
        "about": "7",
        "role": "admin",
        "people": ["alice", "bob"],
        "channels": true,
        "at": time::OffsetDateTime::now_utc().format(&time::format_description::well_known::Rfc3339).unwrap(),
    })
}

/// Puts these on record.
fn insert(messages: &[Value]) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let now = time::OffsetDateTime::now_utc().unix_timestamp() * 1_000_000;
    let row = |message: &Value| {
        let (key, body) = (quoted(message["key"].as_str().unwrap()), quoted(&message.to_string()));
        format!("({key}, {body}, {now}, {now})")
    };
    let rows: Vec<_> = messages.iter().map(row).collect();
    format!("insert into notify_message (key, body, at, keep_until) values {}", rows.join(", "))
}

/// Puts these on record at a broker whose store is a file.
#[track_caller]
fn tell(broker: &Broker, messages: &[Value]) {
    query(broker, &insert(messages));
}

/// What the database of a broker answers.
#[track_caller]
fn query(broker: &Broker, sql: &str) -> String {
    let run = broker.home.command("sqlite3").args(["-cmd", ".timeout 20000"]);
    run.args([broker.home.path("broker.db")]).stdin(sql).run().ok().stdout
}

/// A broker that knows the people, with these tables besides; and where its metrics are.
fn with(channels: &str) -> (Services, String) {
    let address = format!("127.0.0.1:{}", free_port());
    let files = Home::new();
    let people = files.write("people.toml", PEOPLE);
    let services = Services::with(&format!(
        "\n[admin]\nlisten = \"{address}\"\n[directory]\nfile = {people:?}\n{channels}"
    ));
    // The files are the broker's from now on.
    services.broker.home.write("people.toml", PEOPLE);
    let toml = services.broker.home.path("broker.toml");
    let own = services.broker.home.path("people.toml");
    let text = std::fs::read_to_string(&toml).unwrap();
    std::fs::write(&toml, text.replace(people.to_str().unwrap(), own.to_str().unwrap())).unwrap();
    (services, format!("http://{address}/metrics"))
}

/// A private file with this, as the configuration names it.
fn secret(home: &Home, name: &str, text: &str) -> String {
    let path = home.write(name, text);
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&path, private).unwrap();
    format!("{path:?}")
}

/// What a metric of this channel says.
#[track_caller]
fn metric(url: &str, name: &str, labels: &str) -> f64 {
    let body = Http::new().get(url).unwrap().body;
    let start = format!("tmpcred_notify_{name}{{{labels}}} ");
    let line = body.lines().find_map(|line| line.strip_prefix(&start));
    line.unwrap_or_else(|| panic!("{start} is not in:\n{body}")).parse().unwrap()
}

/// `tmpcred broker notify`, about this broker.
fn notify(broker: &Broker, words: &[&str]) -> Run {
    let run = tmpcred(&broker.home).args(["broker", "notify"]).args(words);
    run.args(["--config"]).args([broker.home.path("broker.toml")])
}

/// What is listed as not delivered, by channel and addressee.
#[track_caller]
fn listed(broker: &Broker) -> BTreeMap<(String, String), Value> {
    let list = notify(broker, &["list", "--json"]).run().ok().json();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let lines = list.as_array().unwrap().iter();
    lines.map(|line| ((text(&line["channel"]), text(&line["to"])), line.clone())).collect()
}
