//! Sessions that AWS has ended, and one of several that cannot be asked.

use super::*;
use crate::stores::items;
use crate::support::wait::wait_until;

/// Somebody with a session and credentials of one profile.
fn logged_in() -> (World, String) {
    let world = World::with(None, Home::stranger(), Browser::http());
    world.center.set("role_seconds", 12 * 3600);
    let key = world.key("prod");
    (world, key)
}

fn session(world: &World) -> serde_json::Value {
    world.tmpcred(&["status", "--json"]).run().ok().json()["sessions"].clone()
}

#[test]
fn a_session_that_the_portal_does_not_know_takes_a_new_login() {
    let (world, key) = logged_in();
    let first = session(&world)[0]["subject"].clone();
    world.center.end("tokens");
    let refused = world.tmpcred(&["env", "look", "--no-input"]).run().ended_with(4);
    assert!(refused.stderr.contains("tmpcred login corp"), "{}", refused.stderr);
    assert!(refused.stderr.contains("the session has ended"), "{}", refused.stderr);
    assert_eq!(session(&world)[0]["login_required"], true);
    // What was minted before is good, and the portal is not asked in vain again.
    let asked = world.center.log().len();
    let cached = world.tmpcred(&["env", "prod", "--format", "json", "--no-input"]).run().ok();
    assert_eq!(cached.json()["AWS_SECRET_ACCESS_KEY"], key.as_str());
    world.tmpcred(&["env", "look", "--no-input"]).run().ended_with(4);
    assert_eq!(world.center.log().len(), asked);

    world.tmpcred(&["login"]).run().ok();
    assert_eq!(world.browser.opened().len(), 2, "`login` is one");
    let sessions = session(&world);
    assert_eq!(sessions.as_array().unwrap().len(), 1);
    assert_eq!(sessions[0]["login_required"], false);
    assert_ne!(sessions[0]["subject"], first);
    // Nothing of the login before lies about.
    assert!(items(&world.home, "credential").is_empty());
    world.key("look");
    assert_ne!(world.key("prod"), key);
}

#[test]
fn whoever_can_be_asked_logs_in_anew_at_once() {
    let (world, _) = logged_in();
    world.center.end("tokens");
    world.key("look");
    assert_eq!(world.browser.opened().len(), 2);
    world.center.end("tokens");
    world.tmpcred(&["ls", "--available"]).run().ok();
    assert_eq!(world.browser.opened().len(), 3);
    // One login is for all who find out at the same time.
    world.center.end("tokens");
    let roles = ["Admin", "ReadOnly", "Billing"];
    let running: Vec<_> = (0..9)
        .map(|n| {
            let args = ["env", ["prod", "dev"][n % 2], "--refresh", "--role"];
            let role = if n % 2 == 1 { "Admin" } else { roles[n % 3] };
            world.tmpcred(&args).args([role]).limit(LONG).spawn()
        })
        .collect();
    for one in running {
        one.wait().ok();
    }
    assert_eq!(world.browser.opened().len(), 4);
}

#[test]
fn credentials_outlive_a_session_that_cannot_be_renewed() {
    let (world, key) = logged_in();
    world.center.end("refresh_tokens");
    let at = |offset: &str, args: &[&str]| at_clock(&world.home, offset).args(args).run();
    let refused = at("+9h", &["env", "look", "--no-input"]).ended_with(4);
    assert!(refused.stderr.contains("the session has ended"), "{}", refused.stderr);
    let cached = at("+9h", &["env", "prod", "--format", "json", "--no-input"]).ok().json();
    assert_eq!(cached["AWS_SECRET_ACCESS_KEY"], key.as_str());
    let out = world.tmpcred(&["logout", "--json"]).run().ok().json();
    assert_eq!(out[0]["session"], "ended", "{out}");
    assert!(items(&world.home, "credential").is_empty());
    at("+9h", &["env", "prod", "--no-input"]).ended_with(4);
}

#[test]
fn a_session_that_another_process_has_renewed_is_not_forgotten() {
    let (world, _) = logged_in();
    // Their locks are in different places, so that both use one refresh token.
    let late = |runtime: &str| {
        let runtime = world.home.path(runtime);
        std::fs::create_dir_all(&runtime).unwrap();
        let run = at_clock(&world.home, "+9h").args(["env", "look", "--refresh", "--no-input"]);
        run.env("XDG_RUNTIME_DIR", runtime).limit(LONG)
    };
    world.center.set("hold", "refresh_token");
    let slower = late("run-elsewhere").spawn();
    wait_until("a refresh that is held", LONG, || {
        let is_held = |entry: &serde_json::Value| entry["held"] == "/token";
        world.center.log().iter().any(is_held).then_some(())
    });
    late("run").run().ok();
    world.center.set("release", true);
    slower.wait().ok();
    assert_eq!(world.center.count_grants("refresh_token"), 2);
    assert_eq!(session(&world)[0]["login_required"], false);
    late("run").run().ok();
    assert_eq!(world.browser.opened().len(), 1);
}

#[test]
fn a_silent_identity_center_is_not_waited_for_while_something_cached_serves() {
    let (world, key) = logged_in();
    world.center.set("hold", "refresh_token");
    // Twelve hours it is good for, and the session for eight.
    let late = || {
        let args = ["env", "prod", "--format", "json", "--no-input"];
        let run = at_clock(&world.home, "+718m").args(args).limit(LONG).run().ok();
        assert_eq!(run.json()["AWS_SECRET_ACCESS_KEY"], key.as_str());
        assert!(run.stderr.contains("the cached one is used while it lasts"), "{}", run.stderr);
        run.stderr
    };
    let said = late();
    // What was sent is not cut off: it may have been taken.
    assert!(said.contains("waiting for IAM Identity Center, for 15 seconds at most"), "{said}");
    let said = late();
    assert!(said.contains("waited for in vain just now"), "{said}");
    assert!(!said.contains("waiting for"), "{said}");
    assert_eq!(world.center.count_grants("refresh_token"), 0, "nothing was sent again");
    world.center.set("release", true);
}

#[test]
fn an_identity_center_that_asks_to_be_left_alone_is_when_a_session_is_to_be_renewed() {
    let (world, key) = logged_in();
    world.center.set("status", serde_json::json!({ "/token": 503 }));
    world.center.set("retry_after", 120);
    let late = || {
        let args = ["env", "prod", "--format", "json", "--no-input"];
        let run = at_clock(&world.home, "+718m").args(args).limit(LONG).run().ok();
        assert_eq!(run.json()["AWS_SECRET_ACCESS_KEY"], key.as_str());
        run.stderr
    };
    let said = late();
    assert!(said.contains("it answered 503"), "{said}");
    let said = late();
    assert!(said.contains("it asked for that, so it is asked again in"), "{said}");
    assert_eq!(world.center.count_grants("refresh_token"), 1);
}

#[test]
fn one_that_cannot_be_asked_keeps_no_other_from_being_listed() {
    let world = World::start(None);
    let port = crate::support::wait::free_port();
    let broken = format!(
        "[identity.broken]\ntype = \"aws-sso\"\nstart_url = \"https://other.awsapps.com/start\"\n\
         region = \"us-east-1\"\nendpoint_url = \"http://127.0.0.1:{port}\"\n"
    );
    world.home.config(&format!("{}\n{broken}", config(&world.center)));
    let listed = world.tmpcred(&["ls", "--available", "--json"]).limit(LONG).run().ended_with(7);
    assert_eq!(listed.json().as_array().unwrap().len(), 4, "{}", listed.stdout);
    assert!(listed.json().as_array().unwrap().iter().all(|one| one["identity"] == "corp"));
    let left_out = "the identity 'broken' is left out";
    assert!(listed.stderr.contains(left_out), "{}", listed.stderr);
    let shown = world.tmpcred(&["ls", "--available"]).limit(LONG).run().ended_with(7);
    assert!(shown.stdout.contains("444455556666"), "{}", shown.stdout);
    let alone = ["ls", "--available", "--identity", "corp"];
    world.tmpcred(&alone).run().ok();
}
