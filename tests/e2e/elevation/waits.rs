//! Waiting for a role, and having it, whatever happens meanwhile.

use super::*;
use crate::faults::at_clock;

/// Ends when it is asked to, and says so; or when there is this file.
fn script(go: &std::path::Path) -> String {
    let go = go.display();
    format!("trap 'echo asked; exit 3' TERM; echo up; while [ ! -e {go} ]; do sleep 0.1; done")
}

/// A run of alice's in an emergency, once its command is up.
fn emergency(company: &Company, more: &[&str], go: &std::path::Path) -> Running {
    let args = ["exec", "--elevate", "admin", "--reason", "INC-1", "--emergency", "--for", "15m"];
    let run = company.run("alice", &args).args(more).args(["--", "sh", "-c", &script(go)]);
    let running = run.limit(SOON).spawn();
    running.line_on_stdout("up");
    running
}

/// What of alice's is had now.
fn active(company: &Company) -> String {
    wait_until("a grant", SOON, || {
        let list = company.elevate("bob", &["list", "--which", "active", "--json"]).ok().json();
        Some(list["active"]["elevations"].get(0)?["id"].as_str()?.to_string())
    })
}

#[test]
fn two_who_wait_for_the_same_request_both_have_it() {
    let company = Company::start(&["alice", "bob", "carol"]);
    let go = company.home("alice").path("go");
    let (running, id) = exec(&company, &[], &script(&go));
    let status = ["elevate", "status", &id, "--wait", "--json"];
    let waits = [(); 2].map(|()| company.run("alice", &status).limit(SOON).spawn());
    for waits in &waits {
        waits.line_on_stderr("waiting for approval");
    }
    company.approve("bob", &id);
    company.approve("carol", &id);
    running.line_on_stdout("up");
    for waits in waits {
        assert_eq!(waits.wait().ok().json()["access"], "active");
    }
    std::fs::write(&go, "").unwrap();
    running.wait().ok();
    let story = company.story(&id);
    let begun = story.iter().filter(|what| *what == "elevation.activate alice").count();
    assert_eq!(begun, 1, "{story:?}");
}

#[test]
fn a_command_ends_with_its_grant_also_where_somebody_revokes_that() {
    let company = Company::start(&["alice", "bob"]);
    let go = company.home("alice").path("go");
    let running = emergency(&company, &[], &go);
    company.elevate("bob", &["revoke", &active(&company), "--reason", "it is mended"]).ok();
    let ended = running.wait().ended_with(3);
    assert_eq!(ended.stdout, "up\nasked\n");
    for says in ["the grant is revoked by BOB Example", "it is mended, so the command is ended"] {
        assert!(ended.stderr.contains(says), "{says}: {}", ended.stderr);
    }
    // There is nothing to give back.
    assert!(!ended.stderr.contains("given back"), "{}", ended.stderr);
}

#[test]
fn a_command_that_may_go_on_without_its_grant_is_told_who_revoked_it() {
    let company = Company::start(&["alice", "bob"]);
    let go = company.home("alice").path("go");
    let running = emergency(&company, &["--on-expiry", "warn"], &go);
    company.elevate("bob", &["revoke", &active(&company), "--reason", "it is mended"]).ok();
    let told = running.line_on_stderr("goes on without it");
    assert!(told.contains("revoked by BOB Example") && told.contains("it is mended"), "{told}");
    std::fs::write(&go, "").unwrap();
    assert_eq!(running.wait().ok().stdout, "up\n");
}

#[test]
fn a_run_asks_for_what_its_credential_covers_and_says_what_it_goes_on_with() {
    let company = Company::start(&["alice", "bob"]);
    let (running, id) = exec(&company, &["--scope", "deploy:read", "--wait-at-most", "1s"], "echo");
    let ended = running.wait().ended_with(125);
    assert!(ended.stderr.contains("you do not have the role 'admin' yet"), "{}", ended.stderr);
    let status = company.elevate("alice", &["status", &id, "--json"]).ok().json();
    assert_eq!((&status["access"], &status["scope"]), (&"pending".into(), &"deploy:read".into()));
    let args = ["exec", "--elevate", "admin", "--reason", "INC-9", "--for", "10m"];
    let again = company.run("alice", &args).args(["--wait-at-most", "1s", "--", "true"]).run();
    let told = again.ended_with(125).stderr;
    for says in [
        &format!("going on with the request {id}, which waits for approval until"),
        "the reason 'INC-4711', not 'INC-9'",
        "30m, not 10m",
        "the scope 'deploy:read', not 'all of it'",
    ] {
        assert!(told.contains(says), "{says}: {told}");
    }
    let same = company.run("alice", &["exec", "--elevate", "admin", "--reason", "INC-4711"]);
    let same = same.args(["--scope", "deploy:read", "--wait-at-most", "1s", "--", "true"]).run();
    let told = same.ended_with(125).stderr;
    assert!(told.contains("going on with") && !told.contains("asked for with"), "{told}");
}

#[test]
fn a_script_can_tell_what_waits_from_what_is_denied() {
    let company = Company::start(&["alice", "bob", "carol"]);
    let token = ["token", "--role", "admin"];
    let none = company.run("alice", &token).run().ended_with(5);
    for says in ["tmpcred elevate request admin --reason", "tmpcred exec --elevate admin"] {
        assert!(none.stderr.contains(says), "{says}: {}", none.stderr);
    }
    assert!(!none.stderr.contains("ask those who write"), "{}", none.stderr);
    // That it was asked for is a success.
    let asked = company.request("alice", &[]);
    let id = asked["id"].as_str().unwrap();
    let waits = company.run("alice", &token).run().ended_with(6);
    let goes_on = format!("tmpcred elevate status {id} --wait");
    assert!(waits.stderr.contains(&goes_on), "{}", waits.stderr);
    // So is to see that it waits; to wait in vain is none.
    company.elevate("alice", &["status", id]).ok();
    let late = company.elevate("alice", &["status", id, "--wait-at-most", "1s"]).ended_with(6);
    for says in ["you do not have the role 'admin' yet", "0 of 2 approvals", &goes_on] {
        assert!(late.stderr.contains(says), "{says}: {}", late.stderr);
    }
    let second = ["request", "admin", "--reason", "INC-2", "--no-wait"];
    let second = company.elevate("alice", &second).ended_with(5);
    for says in ["you have asked for the role already", &format!("elevate withdraw {id}")] {
        assert!(second.stderr.contains(says), "{says}: {}", second.stderr);
    }
    company.approve("bob", id);
    company.approve("carol", id);
    company.run("alice", &token).run().ended_with(6);
    company.elevate("alice", &["status", id, "--wait-at-most", "1m"]).ok();
    company.run("alice", &token).run().ok();
}

#[test]
fn what_is_asked_about_is_seen_by_a_person_and_the_answer_alone_by_a_machine() {
    let company = Company::start(&["alice", "bob", "carol"]);
    let asked = company.request("alice", &[]);
    let id = asked["id"].as_str().unwrap();
    for (name, json) in [("bob", "--json"), ("carol", "")] {
        let home = company.home(name);
        let (out, over) = (home.path("answer"), home.path("over"));
        let terminal = Terminal::start(home, 100, 45);
        let (answer, touch) = (out.display(), over.display());
        terminal
            .enter(&format!("tmpcred -q elevate approve {id} {json} >{answer} && touch {touch}"));
        terminal.wait_for("Approve exactly this?");
        let screen = terminal.screen();
        for says in ["admin, for https://api.example.com", "INC-4711: the disk is full"] {
            assert!(screen.contains(says), "{says}: {screen}");
        }
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "", "nobody has answered");
        terminal.enter("y");
        wait_until("the command is over", SOON, || over.exists().then_some(()));
        let answer = std::fs::read_to_string(&out).unwrap();
        match json.is_empty() {
            false => {
                let answer: Value = serde_json::from_str(&answer).unwrap();
                assert_eq!(answer["approvals"][0]["by"]["person"], name);
            }
            true => assert!(answer.contains("approved, to begin until"), "{answer}"),
        }
        terminal.end();
    }
    // Where it cannot be seen, nobody is asked.
    let blind = company.run("bob", &["elevate", "approve", id]).stdin("y\n").run();
    let blind = blind.ended_with(2);
    assert!(blind.stderr.contains("nobody is there to be asked"), "{}", blind.stderr);
}

#[test]
fn a_broker_that_is_started_again_is_waited_for() {
    let mut company = Company::start(&["alice", "bob", "carol"]);
    let (_, alice) = company.homes.remove(0);
    let terminal = Terminal::start(&alice, 100, 45);
    terminal.enter("tmpcred elevate request admin --reason INC-4711 --for 30m");
    terminal.wait_for("waiting for approval");
    let id = company.waiting_for("bob");
    company.broker.stop();
    terminal.wait_for("the broker does not answer; still waiting");
    company.broker.restart();
    company.approve("bob", &id);
    terminal.wait_for("1 of 2 approvals");
    company.approve("carol", &id);
    terminal.wait_for("active, ");
}

#[test]
fn an_assertion_that_expires_under_a_wait_is_renewed() {
    let provider = OidcProvider::start_with(&OidcOptions {
        ttl: [("AccessToken", 7)].into(),
        ..OidcOptions::default()
    });
    let homes = ["alice", "bob", "carol"].map(|name| (name, Home::stranger())).into();
    let mut company = Company::at(provider, homes, ROLE, "");
    company.without_leeway();
    let asked = company.request("alice", &[]);
    let id = asked["id"].as_str().unwrap();
    let status = ["elevate", "status", id, "--wait", "--json"];
    let waits = company.run("alice", &status).limit(SOON).spawn();
    waits.line_on_stderr("waiting for approval");
    let renewals = || {
        let requests = company.provider.requests().into_iter();
        requests.filter(|one| one.grant_type.as_deref() == Some("refresh_token")).count()
    };
    // One assertion would serve for a minute, if the broker took it.
    let before = renewals();
    wait_until("two renewals", SOON, || (renewals() >= before + 2).then_some(()));
    company.approve("bob", id);
    company.approve("carol", id);
    assert_eq!(waits.wait().ok().json()["access"], "active");
}

#[test]
fn what_starts_later_begins_by_itself_also_by_a_clock_that_is_ahead() {
    let company = Company::start(&["alice", "bob", "carol"]);
    let asked = company.request("alice", &["--start", "12s"]);
    let id = asked["id"].as_str().unwrap();
    company.approve("bob", id);
    company.approve("carol", id);
    // So much counts as no difference.
    let args = ["elevate", "status", id, "--wait", "--json"];
    let waits = at_clock(company.home("alice"), "+4s").args(args).limit(SOON).run();
    let begun = waits.ok().json();
    assert_eq!((&begun["access"], &begun["id"]), (&"active".into(), &asked["id"]));
}
