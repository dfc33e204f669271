//! What is on record, found and handed on.

use serde_json::{Value, json};

use super::audit;
use crate::revocation::Services;
use crate::support::broker::API;

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
    assert_eq!(
        sequences(&find(&["--decision", "changed"])),
        [1, 2],
        "the key that signs, and the one that waits"
    );
    let all = find(&["--role", "reader"]);
    assert_eq!(sequences(&all), [3, 4, 5]);
    let (jti, request) = (all[1]["jti"].as_str().unwrap(), all[2]["request_id"].as_str().unwrap());
    for (filter, number) in [
        (vec!["--principal", "two"], 2),
        (vec!["--principal", "https://services.example.com#two", "--role", "reader"], 2),
        (vec!["--principal", "https://other.example.com#two"], 0),
        (vec!["--token", jti], 1),
        (vec!["--request", request], 1),
        (vec!["--decision", "denied"], 0),
        (vec!["--since", "1h", "--decision", "issued"], 3),
        (vec!["--action", "issue"], 3),
        (vec!["--action", "elevation.approve"], 0),
        (vec!["--until", "1h"], 0),
        (vec!["--limit", "2"], 2),
    ] {
        assert_eq!(find(&filter).len(), number, "{filter:?}");
    }
    assert_eq!(find(&["--limit", "1"])[0]["sequence"], 5, "the newest");
    let table = audit(broker, "query", &["--token", jti]).run().ok().stdout;
    assert!(table.contains("SUBJECT") && table.contains("two"), "{table}");
    for (format, place) in
        [("jsonl", "/sequence"), ("ecs", "/event/sequence"), ("ocsf", "/metadata/sequence")]
    {
        let lines =
            audit(broker, "export", &["--format", format, "--after", "3"]).run().ok().stdout;
        let numbers: Vec<Value> = lines
            .lines()
            .map(|line| {
                serde_json::from_str::<Value>(line).unwrap().pointer(place).unwrap().clone()
            })
            .collect();
        assert_eq!(numbers, [json!(4), json!(5)], "{format}");
    }
    // Nothing is made where there is no database.
    std::fs::rename(broker.home.path("broker.db"), broker.home.path("moved.db")).unwrap();
    audit(broker, "query", &[]).run().ended_with(3);
    assert!(!broker.home.path("broker.db").exists());
}
