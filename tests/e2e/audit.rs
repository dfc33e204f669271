//! The audit log of a broker, looked into and checked from outside.

mod deleted;
mod kept;
mod query;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::revocation::Services;
use super::support::broker::{API, Broker, KEK};
use super::support::home::tmpcred;
use super::support::http::Http;
use super::support::run::{Output, Run};
use super::support::wait::{free_port, wait_until};

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
    // The first records are of the key that signs, and of the one that waits.
    let kept = checkpoint(broker, 7);
    let kept = kept.to_str().unwrap();
    assert_eq!(wrong(broker, &["--checkpoint", kept]), []);
    let said = audit(broker, "verify", &[]).run().ok().stdout;
    assert!(said.contains("7 of 7 records are as they were signed"), "{said}");
    assert!(said.contains("No checkpoint from elsewhere was given"), "{said}");
    // By the public key alone, where the KEK is not.
    let key = audit(broker, "checkpoint", &["--key"]).run().ok().stdout;
    assert!(key.starts_with("127.0.0.1+"), "{key}");
    let by_key = audit(broker, "verify", &["--key", key.trim()]);
    by_key.env_remove("TMPCRED_BROKER_KEK").run().ok();
    let without = audit(broker, "verify", &[]).env_remove("TMPCRED_BROKER_KEK").run();
    assert!(without.ended_with(3).stderr.contains("--key"));

    sqlite(broker, &format!("{TOOLS_OFF} update audit_record set role = 'x' where sequence = 3"));
    assert_eq!(wrong(broker, &[]), [("changed".into(), 3, 3)]);
    let people = audit(broker, "verify", &[]).run().ended_with(9);
    assert!(people.stdout.contains("record 3 is not what was appended"), "{}", people.stdout);
    // It does not say in the same breath that all are as they were.
    assert!(!people.stdout.contains("are as they were signed"), "{}", people.stdout);
    assert!(people.stdout.contains("what is wrong stands above"), "{}", people.stdout);
    sqlite(broker, "update audit_record set role = 'reader' where sequence = 3");
    assert_eq!(wrong(broker, &[]), []);

    // The end is cut off, and every trace of it in the database.
    sqlite(
        broker,
        "delete from audit_record where sequence > 3; delete from audit_checkpoint;
         update audit_head set last_sequence = 3, tree_size = 3;
         update audit_tile set hashes = substr(hashes, 1, 96)",
    );
    let found = wrong(broker, &["--checkpoint", kept]);
    assert_eq!(found, [("seal".into(), 3, 3), ("missing".into(), 4, 7)]);
    // The seal is nothing to whoever has the public key alone.
    let found = wrong(broker, &["--key", key.trim(), "--checkpoint", kept]);
    assert_eq!(found, [("missing".into(), 4, 7)]);
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

#[test]
fn a_token_says_which_record_is_its_own() {
    let services = Services::start();
    let url = format!("{}/token", services.broker.url());
    // Several at a time, so that many records go into one commit.
    let tokens: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|n| {
                let (url, assertion) = (&url, services.assertion(&format!("job{n}")));
                scope.spawn(move || {
                    let mut http = Http::new();
                    let mut ask = || http.form(url, &asked(&assertion)).unwrap().json();
                    let token = |reply: Value| reply["access_token"].as_str().unwrap().to_string();
                    (0..10).map(|_| token(ask())).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(tokens.len(), 80);
    let lines = audit(&services.broker, "export", &[]).run().ok().stdout;
    let records: BTreeMap<String, u64> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|record| record["decision"] == "issued")
        .map(|r| (r["jti"].as_str().unwrap().to_string(), r["sequence"].as_u64().unwrap()))
        .collect();
    assert_eq!(records.len(), 80);
    for token in &tokens {
        let claims = claims(token);
        assert_eq!(claims["log_sequence"], records[claims["jti"].as_str().unwrap()]);
    }
    let jti = claims(&tokens[0])["jti"].clone();
    let found = audit(&services.broker, "query", &["--json", "--token", jti.as_str().unwrap()]);
    assert_eq!(found.run().ok().json()[0]["sequence"], claims(&tokens[0])["log_sequence"]);
}

#[test]
fn what_a_token_says_of_its_record_is_proved_by_another_implementation() {
    use tlog_tiles::{Hash, check_record, check_tree};
    let address = format!("127.0.0.1:{}", free_port());
    let services = Services::with(&format!("\n[admin]\nlisten = \"{address}\"\n"));
    let broker = &services.broker;
    let get = |path: &str| Http::new().get(&format!("http://{address}/audit/{path}")).unwrap();
    let hash = |text: &Value| -> Hash {
        Hash(STANDARD.decode(text.as_str().unwrap()).unwrap().try_into().unwrap())
    };
    let path = |proof: &Value| -> Vec<Hash> {
        proof["hashes"].as_array().unwrap().iter().map(hash).collect()
    };
    let tokens: Vec<_> = (0..5).map(|n| services.token(&format!("job{n}"), API)).collect();
    let early = std::fs::read_to_string(checkpoint(broker, 7)).unwrap();
    let later: Vec<_> = (0..5).map(|n| services.token(&format!("job{n}"), API)).collect();
    checkpoint(broker, 12);
    let newest = get("checkpoint").body;
    assert_eq!(newest, audit(broker, "checkpoint", &[]).run().ok().stdout);
    let line = |note: &str, at: usize| note.lines().nth(at).unwrap().to_string();
    for token in tokens.iter().chain(&later) {
        let sequence = claims(token)["log_sequence"].as_u64().unwrap();
        let proof = get(&format!("inclusion?sequence={sequence}")).json();
        assert_eq!((&proof["tree_size"], &proof["checkpoint"]), (&json!(12), &json!(newest)));
        assert_eq!(
            (&proof["root_hash"], &proof["leaf_index"]),
            (&json!(line(&newest, 2)), &json!(sequence - 1))
        );
        let (root, leaf) = (hash(&proof["root_hash"]), hash(&proof["leaf_hash"]));
        check_record(&path(&proof), 12, root, sequence - 1, leaf).unwrap();
        check_record(&path(&proof), 12, root, sequence % 12, leaf).unwrap_err();
    }
    // From what was kept to what there is.
    let first: u64 = line(&early, 1).parse().unwrap();
    let proof = get(&format!("consistency?first={first}")).json();
    assert_eq!(proof["first_root_hash"], line(&early, 2));
    assert_eq!(proof["second_root_hash"], line(&newest, 2));
    let [old, new] = ["first_root_hash", "second_root_hash"].map(|name| hash(&proof[name]));
    check_tree(&path(&proof), 12, new, first, old).unwrap();
    let earlier = get("inclusion?sequence=2&size=3").json();
    assert_eq!((&earlier["checkpoint"], &earlier["tree_size"]), (&Value::Null, &json!(3)));
    for (asked, status) in [
        ("inclusion?sequence=0", 404),
        ("inclusion?sequence=13", 404),
        ("inclusion?sequence=4&size=3", 404),
        ("inclusion?sequence=1&size=18446744073709551615", 404),
        ("inclusion?sequence=-1", 400),
        ("inclusion", 400),
        ("inclusion?sequence=1&more=1", 400),
        ("consistency?first=0", 404),
        ("consistency?first=7&second=6", 404),
        ("consistency?first=x", 400),
    ] {
        assert_eq!(get(asked).status, status, "{asked}");
    }
    let why = &get("inclusion").json()["error_description"];
    assert_eq!(why, "the query lacks 'sequence'; it may have sequence, size");
    // It is not for everybody.
    let public = Http::new().get(&format!("{}/audit/checkpoint", broker.url())).unwrap();
    assert_eq!(public.status, 404);
}

#[test]
fn whoever_changes_the_issuer_of_a_database_is_told_to_put_it_back() {
    let mut services = Services::start();
    services.token("job", API);
    checkpoint(&services.broker, 3);
    services.broker.stop();
    let home = &services.broker.home;
    let config = std::fs::read_to_string(home.path("broker.toml")).unwrap();
    let issuer = format!("issuer = \"{}\"", services.broker.url());
    let other = config.replacen(&issuer, "issuer = \"https://broker.example.com\"", 1);
    assert_ne!(config, other, "{config}");
    let other = home.write("other.toml", other);
    let whose = ["--subject", "https://services.example.com#job"];
    let because = ["--reason", "a test"];
    let erase = [&["audit", "erase"], &whose[..], &because].concat();
    for command in [
        &["serve"][..],
        &["keys", "list"],
        &["keys", "rotate"],
        &["audit", "verify"],
        &["audit", "checkpoint", "--key"],
        &["revoke", "--role", "reader", "--reason", "a test"],
        &erase,
    ] {
        let run = tmpcred(home).args(["broker"]).args(command).args(["--config"]).args([&other]);
        let said = run.env("TMPCRED_BROKER_KEK", KEK).run().ended_with(3).stderr;
        assert!(said.contains("a broker with another issuer"), "{command:?} {said}");
        assert!(said.contains("is signed as 127.0.0.1"), "{command:?} {said}");
        assert!(said.contains("put `issuer` back"), "{command:?} {said}");
    }
    // Nothing has come of that.
    services.broker.restart();
    services.token("job", API);
    assert_eq!(wrong(&services.broker, &[]), []);
    let records = audit(&services.broker, "export", &[]).run().ok().stdout;
    assert_eq!(records.lines().count(), 4, "{records}");
}

#[test]
fn the_key_of_a_log_is_rotated_and_revoked_and_an_older_one_leads_to_it() {
    let address = format!("127.0.0.1:{}", free_port());
    let services = Services::with(&format!("\n[admin]\nlisten = \"{address}\"\n"));
    let broker = &services.broker;
    let keys = |args: &[&str]| {
        let run = tmpcred(&broker.home).args(["broker", "keys"]).args(args).args(["--config"]);
        run.args([broker.home.path("broker.toml")]).env("TMPCRED_BROKER_KEK", KEK).run().ok()
    };
    let known = || audit(broker, "checkpoint", &["--key"]).run().ok().stdout;
    services.token("job", API);
    let early = std::fs::read_to_string(checkpoint(broker, 3)).unwrap();
    let first = known();
    let said = keys(&["rotate", "--log"]).stderr;
    let both = known();
    let second = both.lines().nth(1).unwrap();
    assert!(both.starts_with(&first) && said.contains(second), "{both} {said}");
    let listed = keys(&["list"]).stdout;
    assert!(listed.contains("the log") && listed.contains("published"), "{listed}");
    // The tokens' key has stayed what it was.
    let states = |purpose: &str| -> Vec<String> {
        let all = keys(&["list", "--json"]).json();
        let of = all.as_array().unwrap().iter().filter(|key| key["purpose"] == purpose);
        of.map(|key| key["state"].as_str().unwrap().to_string()).collect()
    };
    assert_eq!(states("access-token"), ["active", "prepared"]);
    assert_eq!(states("audit-checkpoint"), ["active", "published"]);
    let note = std::fs::read_to_string(checkpoint(broker, 4)).unwrap();
    assert_eq!([&early, &note].map(|note| note.matches('\u{2014}').count()), [1, 2]);
    wait_until("the broker tells of both", Duration::from_secs(30), || {
        let shown = Http::new().get(&format!("http://{address}/audit/keys")).unwrap().body;
        (shown == both).then_some(())
    });
    let kept = broker.home.write("early.note", &early);
    let kept = kept.to_str().unwrap();
    for key in [first.trim(), both.trim()] {
        assert_eq!(wrong(broker, &["--key", key, "--checkpoint", kept]), [], "{key}");
    }
    let by = audit(broker, "verify", &["--json", "--checkpoint", kept]).run().ok().json();
    assert_eq!(by["off_host_keys"], json!([first.trim()]));
    assert_eq!(by["keys"].as_array().unwrap().len(), 2);

    let all = keys(&["list", "--json"]).json();
    let leaked = all.as_array().unwrap().iter().find(|key| key["log_key"] == first.trim()).unwrap();
    let said = keys(&["revoke", leaked["kid"].as_str().unwrap(), "--reason", "it leaked"]).stderr;
    assert!(said.contains("a revoked key alone has signed"), "{said}");
    assert_eq!(known().trim(), second, "the one that was published signs");
    let refused = audit(broker, "verify", &["--checkpoint", kept]).run().ended_with(9).stderr;
    assert!(refused.contains("the key that signed it was revoked"), "{refused}");
    let note = std::fs::read_to_string(checkpoint(broker, 6)).unwrap();
    assert_eq!(note.matches('\u{2014}').count(), 1);
    let kept = broker.home.write("late.note", &note);
    let kept = kept.to_str().unwrap();
    assert_eq!(wrong(broker, &["--checkpoint", kept]), []);
    // Whoever has been given the new key alone is told what became of the other.
    assert_eq!(wrong(broker, &["--key", second, "--checkpoint", kept]), []);
    let people = audit(broker, "verify", &["--checkpoint", kept]).run().ok().stdout;
    assert!(people.contains("it was revoked, and nothing rests on that"), "{people}");
}

#[test]
fn a_person_is_erased_beside_a_running_broker_and_the_proofs_stay() {
    let mut services = Services::start();
    let broker = &services.broker;
    let person = "somebody-to-be-forgotten";
    for name in [person, "other", person] {
        services.token(name, API);
    }
    let kept = checkpoint(broker, 5);
    let kept = kept.to_str().unwrap();
    let whose = format!("https://services.example.com#{person}");
    let because = ["--reason", "request 17", "--by", "the office"];
    let erase =
        |whose: &str| audit(broker, "erase", &[&["--subject", whose], &because[..]].concat());
    assert!(erase(person).run().ended_with(2).stderr.contains("no issuer"));
    assert_eq!(erase(&whose).run().ok().stdout, "2 records are erased.\n");
    let again = erase(&whose).run().ok();
    assert!(again.stdout == "0 records are erased.\n" && again.stderr.contains("is it spelt"));
    services.token("other", API);
    let verify = || audit(broker, "verify", &["--json", "--checkpoint", kept]).run().ok().json();
    let report = verify();
    assert_eq!((&report["erased"], &report["records"]), (&json!(2), &json!(7)), "{report}");
    let said = audit(broker, "verify", &[]).run().ok().stdout;
    assert!(said.contains("2 records have lost what was personal"), "{said}");
    let lines = audit(broker, "export", &[]).run().ok().stdout;
    assert!(!lines.contains(person), "{lines}");
    let own: Value = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|record| record["action"] == "erase")
        .unwrap();
    assert_eq!((&own["scope"], &own["subject"]), (&json!("3 5"), &json!("operator")));
    assert_eq!(own["reason"], "the office asked for it: request 17");
    // Nor is it in what the database has thrown away.
    services.broker.signal(rustix::process::Signal::TERM);
    wait_until("it to end", Duration::from_secs(30), || {
        services.broker.said().contains("drained").then_some(())
    });
    services.broker.stop();
    for file in ["broker.db", "broker.db-wal"] {
        let bytes = std::fs::read(services.broker.home.path(file)).unwrap_or_default();
        let there = bytes.windows(person.len()).any(|part| part == person.as_bytes());
        assert!(!there, "{file}");
    }
    services.broker.restart();
    services.token("other", API);
    assert_eq!(wrong(&services.broker, &[]), []);
}

/// What a token says, whoever signed it.
fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// What is asked for by this assertion.
pub(super) fn asked(assertion: &str) -> [(&'static str, &str); 5] {
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
           " audience scope ttl jti parent policy_id policy_hash count actor trace_id").split()
personal = {"reason", "subject", "client", "source", "actor"}
since = {"actor": 3, "trace_id": 4}
def leaf(row):
    version, salt, values = row[-2], row[-1], row[:-2]
    data = b"tmpcred audit record v%d\0" % version
    for column, value in zip(columns, values):
        if version < since.get(column, 0):
            continue
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
    "select " + ", ".join(columns) + ", leaf_version, salt from audit_record order by sequence")
print(base64.b64encode(root([leaf(row) for row in rows])).decode())
"#;

/// Changes the last record, and its hash in the tree as well.
const REWRITE: &str = r#"
db = sqlite3.connect(sys.argv[1])
db.execute("drop trigger if exists audit_record_update")
db.execute("drop trigger if exists audit_record_delete")
(last,) = db.execute("select max(sequence) from audit_record").fetchone()
db.execute("update audit_record set subject = 'scapegoat' where sequence = ?", (last,))
rows = db.execute("select " + ", ".join(columns) + ", leaf_version, salt from audit_record order by sequence")
hashes = b"".join(leaf(row) for row in rows)
db.execute("update audit_tile set hashes = ? where level = 0", (hashes,))
db.execute("delete from audit_checkpoint where size >= ?", (last,))
db.commit()
"#;

#[test]
fn the_broker_makes_nothing_good_that_somebody_else_wrote() {
    let mut services = Services::start();
    (0..3).for_each(|n| drop(services.token(&format!("job{n}"), API)));
    checkpoint(&services.broker, 5);
    services.broker.stop();
    let rewrite = format!("{}\n{REWRITE}", TREE.split("rows =").next().unwrap());
    let python = services.broker.home.command("python3").args(["-c", &rewrite]);
    python.args([services.broker.home.path("broker.db")]).run().ok();
    // As far back as the checkpoint before.
    let [(kind, first, last)] = &wrong(&services.broker, &[])[..] else { panic!() };
    assert_eq!((&kind[..], *first <= 5, *last), ("rewritten", true, 5));
    services.broker.restart();
    services.token("job9", API);
    let [(kind, first, last)] = &wrong(&services.broker, &[])[..] else { panic!() };
    assert_eq!((&kind[..], *first < 6, *last), ("rewritten", true, 6), "also after a restart");

    // A record that was never appended, without a hash.
    let services = Services::start();
    services.token("job0", API);
    sqlite(
        &services.broker,
        "create table more as select * from audit_record where sequence = 3;
         update more set sequence = 4, salt = null, leaf_version = 1, trace_id = null, subject = 'scapegoat';
         insert into audit_record select * from more; drop table more;
         update audit_head set last_sequence = 4",
    );
    let mut http = Http::new();
    let assertion = services.assertion("job1");
    let form = asked(&assertion);
    let url = format!("{}/token", services.broker.url());
    assert_eq!(http.form(&url, &form).unwrap().status, 503, "nothing goes on from it");
    assert_eq!(wrong(&services.broker, &[]), [("extra".into(), 4, 4)]);
}
