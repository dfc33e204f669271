//! The audit log of a broker, looked into and checked from outside.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::revocation::Services;
use super::support::broker::{API, Broker, KEK};
use super::support::home::tmpcred;
use super::support::http::Http;
use super::support::run::{Output, Run};
use super::support::wait::wait_until;

/// `tmpcred broker audit`, with what the broker is configured with.
fn audit(broker: &Broker, command: &str, more: &[&str]) -> Run {
    tmpcred(&broker.home)
        .args(["broker", "audit", command, "--config"])
        .args([broker.home.path("broker.toml")])
        .args(more)
        .env("TMPCRED_BROKER_KEK", KEK)
}

/// What is wrong by `audit verify`, as kind and place.
#[track_caller]
fn wrong(broker: &Broker, more: &[&str]) -> Vec<(String, u64, u64)> {
    let output = audit(broker, "verify", &[&["--json"], more].concat()).run();
    let report = output.json();
    let findings = report["findings"].as_array().unwrap().clone();
    assert_eq!(report["verified"], json!(findings.is_empty()));
    output.ended_with(if findings.is_empty() { 0 } else { 9 });
    let place = |finding: &Value| {
        let kind = finding["kind"].as_str().unwrap().to_string();
        (kind, finding["first"].as_u64().unwrap(), finding["last"].as_u64().unwrap())
    };
    findings.iter().map(place).collect()
}

/// Does something to the database by other means.
#[track_caller]
fn sqlite(broker: &Broker, statements: &str) -> Output {
    let database = broker.home.path("broker.db");
    // The broker may be writing at this moment.
    let patient = ["-cmd", ".timeout 20000"];
    broker.home.command("sqlite3").args(patient).args([database]).args([statements]).run().ok()
}

/// The newest checkpoint, once it covers so many records; in a file elsewhere.
#[track_caller]
pub(crate) fn checkpoint(broker: &Broker, size: u64) -> PathBuf {
    let note = wait_until("a checkpoint", Duration::from_secs(30), || {
        let note = audit(broker, "checkpoint", &[]).run().stdout;
        let covered = note.lines().nth(1).and_then(|line| line.parse::<u64>().ok());
        covered.filter(|covered| *covered >= size).map(|_| note)
    });
    broker.home.write("elsewhere.note", note)
}

const TOOLS_OFF: &str =
    "drop trigger if exists audit_record_update; drop trigger if exists audit_record_delete;";

#[test]
fn a_running_brokers_log_is_checked_and_what_is_done_to_it_is_found() {
    let services = Services::start();
    let broker = &services.broker;
    let tokens: Vec<String> = (0..5).map(|n| services.token(&format!("job{n}"), API)).collect();
    // The first record is of the key that signs.
    let kept = checkpoint(broker, 6);
    let kept = kept.to_str().unwrap();
    assert_eq!(wrong(broker, &["--checkpoint", kept]), []);
    let said = audit(broker, "verify", &[]).run().ok().stdout;
    assert!(said.contains("6 of 6 records are as they were signed"), "{said}");
    assert!(said.contains("No checkpoint from elsewhere was given"), "{said}");
    // By the public key alone, where the KEK is not.
    let key = audit(broker, "checkpoint", &["--key"]).run().ok().stdout;
    assert!(key.starts_with("127.0.0.1+"), "{key}");
    let by_key = audit(broker, "verify", &["--key", key.trim()]);
    by_key.env_remove("TMPCRED_BROKER_KEK").run().ok();
    let without = audit(broker, "verify", &[]).env_remove("TMPCRED_BROKER_KEK").run();
    assert!(without.ended_with(3).stderr.contains("--key"));

    sqlite(broker, &format!("{TOOLS_OFF} update audit_record set role = 'x' where sequence = 2"));
    assert_eq!(wrong(broker, &[]), [("changed".into(), 2, 2)]);
    let people = audit(broker, "verify", &[]).run().ended_with(9);
    assert!(people.stdout.contains("record 2 is not what was appended"), "{}", people.stdout);
    sqlite(broker, "update audit_record set role = 'reader' where sequence = 2");
    assert_eq!(wrong(broker, &[]), []);

    // The end is cut off, and every trace of it in the database.
    sqlite(
        broker,
        "delete from audit_record where sequence > 3; delete from audit_checkpoint;
         update audit_head set last_sequence = 3, tree_size = 3;
         update audit_tile set hashes = substr(hashes, 1, 96)",
    );
    let found = wrong(broker, &["--checkpoint", kept]);
    assert_eq!(found, [("seal".into(), 3, 3), ("missing".into(), 4, 6)]);
    // The seal is nothing to whoever has the public key alone.
    let found = wrong(broker, &["--key", key.trim(), "--checkpoint", kept]);
    assert_eq!(found, [("missing".into(), 4, 6)]);
    assert_eq!(tokens.len(), 5);
}

#[test]
fn a_kill_amid_appends_leaves_a_log_that_is_good_and_has_every_token() {
    let mut services = Services::start();
    for round in 0..3 {
        let issued = Arc::new(AtomicUsize::new(0));
        let url = format!("{}/token", services.broker.url());
        let before = services.broker.issued();
        let threads: Vec<_> = (0..4)
            .map(|n| {
                let (url, issued) = (url.clone(), issued.clone());
                let assertion = services.assertion(&format!("job{n}"));
                std::thread::spawn(move || {
                    let form = asked(&assertion);
                    let mut http = Http::new();
                    while let Ok(reply) = http.form(&url, &form) {
                        if reply.status == 200 {
                            issued.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                })
            })
            .collect();
        wait_until("some tokens", Duration::from_secs(60), || {
            (issued.load(Ordering::SeqCst) > 20 + 7 * round).then_some(())
        });
        services.broker.stop();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        // As the kill left it: what nobody signed yet agrees with its tree.
        let found = wrong(&services.broker, &[]);
        assert!(found.iter().all(|(kind, ..)| kind == "checkpoint"), "{found:?}");
        assert!(services.broker.issued() >= before + issued.load(Ordering::SeqCst));
        services.broker.restart();
        checkpoint(&services.broker, services.broker.issued() as u64);
        assert_eq!(wrong(&services.broker, &[]), []);
    }
    // The same tree by other means, from what docs/audit.md says.
    let python = services.broker.home.command("python3").args(["-c", TREE]);
    let root = python.args([services.broker.home.path("broker.db")]).run().ok().stdout;
    let note = audit(&services.broker, "checkpoint", &[]).run().ok().stdout;
    assert_eq!(note.lines().nth(2).unwrap(), root.trim());
}

/// What is asked for by this assertion.
fn asked(assertion: &str) -> [(&'static str, &str); 5] {
    [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", assertion),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ("audience", API),
        ("role", "reader"),
    ]
}

/// The root of RFC 6962 over all records.
const TREE: &str = r#"
import base64, hashlib, hmac, sqlite3, struct, sys
columns = ("sequence at request_id action decision reason issuer subject client source role"
           " audience scope ttl jti parent policy_id policy_hash count").split()
personal = {"reason", "subject", "client", "source"}
def leaf(row):
    salt, values = row[-1], row[:-1]
    data = b"tmpcred audit record v2\0"
    for column, value in zip(columns, values):
        if value is None:
            data += b"\0"
            continue
        value = str(value).encode()
        if column in personal:
            data += b"\2" + hmac.digest(salt, column.encode() + b"\0" + value, "sha256")
        else:
            data += b"\1" + struct.pack(">I", len(value)) + value
    return hashlib.sha256(b"\0" + data).digest()
def root(leaves):
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\1" + root(leaves[:split]) + root(leaves[split:])).digest()
rows = sqlite3.connect(sys.argv[1]).execute(
    "select " + ", ".join(columns) + ", salt from audit_record order by sequence")
print(base64.b64encode(root([leaf(row) for row in rows])).decode())
"#;

/// Changes the last record, and its hash in the tree as well.
const REWRITE: &str = r#"
db = sqlite3.connect(sys.argv[1])
db.execute("drop trigger if exists audit_record_update")
db.execute("drop trigger if exists audit_record_delete")
(last,) = db.execute("select max(sequence) from audit_record").fetchone()
db.execute("update audit_record set subject = 'scapegoat' where sequence = ?", (last,))
rows = db.execute("select " + ", ".join(columns) + ", salt from audit_record order by sequence")
hashes = b"".join(leaf(row) for row in rows)
db.execute("update audit_tile set hashes = ? where level = 0", (hashes,))
db.execute("delete from audit_checkpoint where size >= ?", (last,))
db.commit()
"#;

#[test]
fn the_broker_makes_nothing_good_that_somebody_else_wrote() {
    let mut services = Services::start();
    (0..3).for_each(|n| drop(services.token(&format!("job{n}"), API)));
    checkpoint(&services.broker, 4);
    services.broker.stop();
    let rewrite = format!("{}\n{REWRITE}", TREE.split("rows =").next().unwrap());
    let python = services.broker.home.command("python3").args(["-c", &rewrite]);
    python.args([services.broker.home.path("broker.db")]).run().ok();
    // As far back as the checkpoint before.
    let [(kind, first, last)] = &wrong(&services.broker, &[])[..] else { panic!() };
    assert_eq!((&kind[..], *first <= 4, *last), ("rewritten", true, 4));
    services.broker.restart();
    services.token("job9", API);
    let [(kind, first, last)] = &wrong(&services.broker, &[])[..] else { panic!() };
    assert_eq!((&kind[..], *first < 5, *last), ("rewritten", true, 5), "also after a restart");

    // A record that was never appended, without a hash.
    let services = Services::start();
    services.token("job0", API);
    sqlite(
        &services.broker,
        "create table more as select * from audit_record where sequence = 2;
         update more set sequence = 3, salt = null, leaf_version = 1, subject = 'scapegoat';
         insert into audit_record select * from more; drop table more;
         update audit_head set last_sequence = 3",
    );
    let mut http = Http::new();
    let assertion = services.assertion("job1");
    let form = asked(&assertion);
    let url = format!("{}/token", services.broker.url());
    assert_eq!(http.form(&url, &form).unwrap().status, 503, "nothing goes on from it");
    assert_eq!(wrong(&services.broker, &[]), [("extra".into(), 3, 3)]);
}

#[test]
fn records_are_found_and_handed_on() {
    let services = Services::start();
    let broker = &services.broker;
    for job in ["one", "two", "two"] {
        services.token(job, API);
    }
    let find = |more: &[&str]| -> Vec<Value> {
        let found = audit(broker, "query", &[&["--json"], more].concat()).run().ok().json();
        found.as_array().unwrap().clone()
    };
    let sequences = |found: &[Value]| -> Vec<u64> {
        found.iter().map(|record| record["sequence"].as_u64().unwrap()).collect()
    };
    assert_eq!(sequences(&find(&["--decision", "changed"])), [1], "the key that signs");
    let all = find(&["--role", "reader"]);
    assert_eq!(sequences(&all), [2, 3, 4]);
    let (jti, request) = (all[1]["jti"].as_str().unwrap(), all[2]["request_id"].as_str().unwrap());
    for (filter, number) in [
        (vec!["--principal", "two"], 2),
        (vec!["--principal", "https://services.example.com#two", "--role", "reader"], 2),
        (vec!["--principal", "https://other.example.com#two"], 0),
        (vec!["--token", jti], 1),
        (vec!["--request", request], 1),
        (vec!["--decision", "denied"], 0),
        (vec!["--since", "1h", "--decision", "issued"], 3),
        (vec!["--until", "1h"], 0),
        (vec!["--limit", "2"], 2),
    ] {
        assert_eq!(find(&filter).len(), number, "{filter:?}");
    }
    assert_eq!(find(&["--limit", "1"])[0]["sequence"], 4, "the newest");
    let table = audit(broker, "query", &["--token", jti]).run().ok().stdout;
    assert!(table.contains("SUBJECT") && table.contains("two"), "{table}");
    for (format, place) in
        [("jsonl", "/sequence"), ("ecs", "/event/sequence"), ("ocsf", "/metadata/sequence")]
    {
        let lines =
            audit(broker, "export", &["--format", format, "--after", "2"]).run().ok().stdout;
        let numbers: Vec<Value> = lines
            .lines()
            .map(|line| {
                serde_json::from_str::<Value>(line).unwrap().pointer(place).unwrap().clone()
            })
            .collect();
        assert_eq!(numbers, [json!(3), json!(4)], "{format}");
    }
    // Nothing is made where there is no database.
    std::fs::rename(broker.home.path("broker.db"), broker.home.path("moved.db")).unwrap();
    audit(broker, "query", &[]).run().ended_with(3);
    assert!(!broker.home.path("broker.db").exists());
}
