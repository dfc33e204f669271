//! An emergency of which nobody could be told gives nothing.

use super::*;

/// Has the database of the broker do this.
#[track_caller]
fn database(company: &Company, sql: &str) {
    let run = company.broker.home.command("sqlite3").args(["-cmd", ".timeout 20000"]);
    run.args([company.broker.home.path("broker.db")]).stdin(sql).run().ok();
}

#[test]
fn an_emergency_whose_alarm_finds_no_room_is_had_by_nobody_until_it_does() {
    let company = Company::start(&["alice", "bob"]);
    let full = "create trigger no_room before insert on notify_message
        when new.body like '%\"kind\":\"emergency\"%'
        begin select raise(abort, 'there is no room'); end;";
    database(&company, full);
    let ask = ["request", "admin", "--emergency", "--reason", "INC-1", "--for", "15m"];
    let refused = company.elevate("alice", &ask);
    assert_eq!(refused.code, Some(7), "{}", refused.stderr);
    let says = "it cannot be done, or not be recorded, at present";
    assert!(refused.stderr.contains(says), "{}", refused.stderr);
    // Nobody has anything, and what is no emergency goes on.
    let mine = company.elevate("alice", &["list", "--which", "mine", "--json"]).ok().json();
    assert_eq!(mine["mine"]["elevations"], serde_json::json!([]), "{mine}");
    let token = company.run("alice", &["token", "--role", "admin"]).run().ended_with(5);
    assert!(token.stderr.contains("under a grant only"), "{}", token.stderr);
    company.run("alice", &["token"]).run().ok();
    let asked = company.request("alice", &[]);
    company.elevate("alice", &["withdraw", asked["id"].as_str().unwrap()]).ok();
    database(&company, "drop trigger no_room;");
    let had = company.elevate("alice", &[&ask[..], &["--json"]].concat()).ok().json();
    assert_eq!(had["access"], "emergency-active");
    assert_eq!(company.told("emergency"), ["alice", "bob", "carol", "erin"]);
    company.run("alice", &["token", "--role", "admin"]).run().ok();
    let begun = company.story(had["id"].as_str().unwrap());
    assert_eq!(begun, ["elevation.emergency alice", "issue alice"]);
}
