//! What was asked for or approved before the provider died is in nobody's way.

use super::*;

#[test]
fn a_grant_by_a_login_locks_nobody_out_when_the_provider_dies_and_a_lead_ends_it() {
    let prepared = Prepared::new();
    prepared.enroll_carol();
    let company = &prepared.company;
    let asked = company.request("alice", &[]);
    let id = asked["id"].as_str().unwrap();
    company.approve("bob", id);
    company.approve("carol", id);
    let active = company.elevate("alice", &["status", id, "--wait", "--json"]).ok().json();
    assert_eq!((&active["access"], &active["path"]), (&"active".into(), &"ordinary".into()));
    let token = company.run("alice", &["token", "--role", "admin"]).run().ok().stdout;
    assert!(crate::revocation::is_active(&company.broker, token.trim()));
    company.provider.kill();
    // She has it still and cannot show who she is: so she asks by a signature, once.
    let ask = ["request", "admin", "--provider-down", "--reason", "INC-4711", "--for", "30m"];
    let new = company.elevate("alice", &[&ask[..], &["--json"]].concat()).ok().json();
    assert_eq!((&new["access"], &new["path"]), (&"pending".into(), &"provider-down".into()));
    assert_ne!(new["id"], id);
    let again = company.elevate("alice", &[&ask[..], &["--json"]].concat());
    let again = again.ended_with(5);
    assert!(again.stderr.contains("by a signature already"), "{}", again.stderr);
    // What she had by the login a lead ends, by a signature too; who has no key does not.
    let end = ["revoke", id, "--reason", "nobody can log in", "--provider-down", "--json"];
    let stranger = company.elevate("erin", &end).ended_with(2);
    assert!(
        stranger.stderr.contains("keys enroll") || stranger.stderr.contains("--person"),
        "{}",
        stranger.stderr
    );
    let ended = company.elevate("bob", &end).ok().json();
    assert_eq!((&ended["id"], &ended["access"]), (&id.into(), &"revoked".into()));
    assert!(!crate::revocation::is_active(&company.broker, token.trim()));
    assert_eq!(company.story(id).last().unwrap(), "elevation.revoke bob");
    // The new one is hers to take back, by its id.
    let id = new["id"].as_str().unwrap();
    let key = ["--keyring"];
    let alone = company.elevate("alice", &[&["withdraw", id], &key[..]].concat()).ended_with(2);
    assert!(alone.stderr.contains("--provider-down alone"), "{}", alone.stderr);
    let args = ["withdraw", id, "--provider-down", "--reason", "the provider is back"];
    let shown = company.elevate("alice", &[&args[..], &key].concat()).ok().stdout;
    assert!(shown.contains("state  withdrawn"), "{shown}");
    assert_eq!(company.story(id).last().unwrap(), "elevation.withdraw alice");
}

#[test]
fn a_run_waits_on_where_a_key_is_gone_that_had_approved() {
    let prepared = Prepared::new();
    prepared.enroll_carol();
    let company = &prepared.company;
    let ask = ["request", "admin", "--provider-down", "--reason", "INC-4711", "--no-wait"];
    let args = [&ask[..], &["--out", "request.txt", "--json"]].concat();
    let asked = company.elevate("alice", &args).ok().json();
    let request = company.home("alice").path("work/request.txt");
    prepared.hand(&request, "bob", "request.txt");
    prepared.hand(&request, "carol", "request.txt");
    company.elevate("alice", &["submit", "request.txt"]).ok();
    let hash = asked["request"].as_str().unwrap();
    let sign = ["sign", "request.txt", "--approve", "--hash", hash, "--out", "bob.txt"];
    company.elevate("bob", &sign).ok();
    company.elevate("bob", &["submit", "bob.txt"]).ok();
    prepared.shell("carol", &printed("Approving with OpenSSH alone")).ok();
    let told = company.elevate("carol", &["submit", "carol.txt", "--json"]).ok().json();
    assert_eq!(told["access"], "approved");
    let keys = company.elevate("bob", &["keys", "list", "--json"]).ok().json();
    let key = keys["keys"][0]["id"].as_str().unwrap();
    company.elevate("bob", &["keys", "remove", key, "--reason", "lost"]).ok();
    let id = told["id"].as_str().unwrap();
    let by_login = company.run("alice", &["elevate", "status", id, "--wait", "--json"]);
    let by_login = by_login.limit(SOON).spawn();
    by_login.line_on_stderr("waiting for approval");
    let args = ["exec", "--elevate", "admin", "--provider-down", "--reason", "INC-4711", "--"];
    let run = company.run("alice", &args).args(["sh", "-c", "echo $TMPCRED_ROLE"]);
    let running = run.limit(SOON).spawn();
    running.line_on_stderr("going on with the request");
    // It is approved and is not had: somebody else approves in his place.
    let shown = company.elevate("alice", &["status", id]).ok().stdout;
    assert!(shown.contains("1 of 2 approvals") && shown.contains("does not count"), "{shown}");
    company.approve("erin", id);
    assert_eq!(running.wait().ok().stdout, "admin\n");
    by_login.wait();
    let story = company.story(id);
    assert_eq!(story.iter().filter(|what| *what == "elevation.activate alice").count(), 1);
}
