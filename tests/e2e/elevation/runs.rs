//! Runs that have a grant: in common with others, until a signal comes, and after it has ended.

use rustix::process::Signal;

use super::between::Between;
use super::*;

/// Runs until there is this file, and shows its token before.
fn script(go: &std::path::Path) -> String {
    format!("echo up $TMPCRED_TOKEN; while [ ! -e {} ]; do sleep 0.1; done", go.display())
}

/// The token of a run that is up.
fn token(running: &Running) -> String {
    running.line_on_stdout("up ").trim().trim_start_matches("up ").to_string()
}

/// Two runs of alice's that have waited for one request, both up.
fn two(company: &Company) -> (String, [Running; 2], [std::path::PathBuf; 2]) {
    let go = ["first", "second"].map(|name| company.home("alice").path(name));
    let (first, id) = exec(company, &[], &script(&go[0]));
    let second = start(company, &[], &script(&go[1]));
    second.line_on_stderr(&format!("going on with the request {id}"));
    company.approve("bob", &id);
    company.approve("carol", &id);
    (id, [first, second], go)
}

fn relinquished(company: &Company, id: &str) -> usize {
    company.story(id).iter().filter(|what| *what == "elevation.relinquish alice").count()
}

fn access(company: &Company, id: &str) -> Value {
    company.elevate("alice", &["status", id, "--json"]).ok().json()["access"].clone()
}

#[test]
fn the_shorter_of_two_runs_leaves_the_grant_to_the_longer_one_which_gives_it_back() {
    let company = Company::start(&["alice", "bob", "carol"]);
    let (id, [first, second], go) = two(&company);
    let tokens = [&first, &second].map(token);
    std::fs::write(&go[0], "").unwrap();
    let ended = first.wait().ok();
    let says = "the grant stays for another command that runs under it";
    assert!(ended.stderr.contains(says), "{}", ended.stderr);
    assert_eq!(access(&company, &id), "active");
    // Each ends with its own token.
    let is_active = |token: &str| crate::revocation::is_active(&company.broker, token);
    assert_eq!(tokens.each_ref().map(|one| is_active(one)), [false, true]);
    std::fs::write(&go[1], "").unwrap();
    second.wait().ok();
    assert_eq!((access(&company, &id), relinquished(&company, &id)), ("relinquished".into(), 1));
    assert!(!is_active(&tokens[1]));
}

#[test]
fn a_run_that_is_killed_keeps_no_other_one_from_giving_the_grant_back() {
    let company = Company::start(&["alice", "bob", "carol"]);
    let (id, [mut first, second], go) = two(&company);
    let [_, _] = [&first, &second].map(token);
    first.kill();
    assert_eq!(access(&company, &id), "active");
    std::fs::write(&go[1], "").unwrap();
    second.wait().ok();
    assert_eq!(access(&company, &id), "relinquished");
    // Nor the next one, which comes after it, and for which it did not begin.
    let go = company.home("alice").path("third");
    let (mut third, id) = exec(&company, &[], &script(&go));
    company.approve("bob", &id);
    company.approve("carol", &id);
    token(&third);
    third.kill();
    let next = start(&company, &[], "echo ran").wait().ok();
    assert!(next.stderr.contains(&format!("going on with the request {id}")), "{}", next.stderr);
    assert_eq!(access(&company, &id), "relinquished");
}

#[test]
fn a_signal_that_comes_while_a_grant_begins_gives_it_back() {
    // Nobody has to log in anew for an emergency.
    let options = OidcOptions { token_auth_time: true, ..OidcOptions::default() };
    let homes = ["alice", "bob", "carol"].map(|name| (name, Home::stranger())).into();
    let company = Company::at(OidcProvider::start_with(&options), homes, ROLE, "");
    let between = Between::start(company.broker.url());
    between.before(company.home("alice"), company.broker.url());
    between.keep("/activate");
    let (running, id) = exec(&company, &[], "echo ran");
    company.approve("bob", &id);
    company.approve("carol", &id);
    between.wait_for_kept();
    assert!(company.story(&id).contains(&"elevation.activate alice".to_string()));
    running.signal(Signal::INT);
    between.let_go();
    let ended = running.wait();
    assert_eq!((ended.stdout.as_str(), ended.signal), ("", Some(libc::SIGINT)), "{}", ended.stderr);
    assert_eq!((access(&company, &id), relinquished(&company, &id)), ("relinquished".into(), 1));
    // What begins at once does with the request.
    between.keep("POST /v1/elevations ");
    let emergency = ["exec", "--elevate", "admin", "--reason", "INC-1", "--emergency"];
    let emergency = |reason: &str| {
        let args = emergency.map(|arg| if arg == "INC-1" { reason } else { arg });
        company.run("alice", &args).args(["--", "echo", "ran"]).limit(SOON).spawn()
    };
    let running = emergency("INC-1");
    between.wait_for_kept();
    running.signal(Signal::TERM);
    between.let_go();
    let ended = running.wait();
    let how = (ended.stdout.as_str(), ended.signal);
    assert_eq!(how, ("", Some(libc::SIGTERM)), "{}", ended.stderr);
    let newest = company.elevate("alice", &["status", "--json"]).ok().json();
    assert_eq!((&newest["path"], &newest["access"]), (&"emergency".into(), &"relinquished".into()));
    // Where nothing begins, there is nothing to give back, and the signal is heeded all the same.
    between.keep("POST /v1/elevations ");
    let running = emergency("no incident");
    between.wait_for_kept();
    running.signal(Signal::INT);
    between.let_go();
    let ended = running.wait();
    let how = (ended.stdout.as_str(), ended.signal);
    assert_eq!(how, ("", Some(libc::SIGINT)), "{}", ended.stderr);
    assert!(!ended.stderr.contains("error"), "{}", ended.stderr);
}

/// Alice is who a program says, which tells how often it was asked.
fn by_a_program(company: &Company, between: &Between) -> std::path::PathBuf {
    let home = company.home("alice");
    between.before(home, company.broker.url());
    company.elevate("alice", &["list"]).ok();
    let passed = between.passed("GET /v1/elevations");
    let shown = passed[0].authorization.as_deref().unwrap().trim_start_matches("Bearer ");
    let (proof, calls) = (home.write("proof", shown), home.path("calls"));
    let (issuer, broker) = (company.provider.issuer(), company.broker.url());
    let own = settings(issuer, broker);
    let (_, after) = own.split_once("[broker.main]").unwrap();
    let asks = format!("echo asked >>{}; cat {}", calls.display(), proof.display());
    home.config(&format!(
        "default_profile = \"deploy\"\n\n[identity.own]\ntype = \"command\"\n\
         command = [\"sh\", \"-c\", \"{asks}\"]\n\n[broker.main]{after}"
    ));
    between.before(home, broker);
    calls
}

#[test]
fn who_has_it_is_proved_once_however_often_it_is_looked() {
    let company = Company::start(&["alice", "bob", "carol"]);
    let between = Between::start(company.broker.url());
    let calls = by_a_program(&company, &between);
    let go = company.home("alice").path("go");
    let (running, id) = exec(&company, &[], &script(&go));
    company.approve("bob", &id);
    company.approve("carol", &id);
    token(&running);
    let asked = || std::fs::read_to_string(&calls).unwrap().lines().count();
    let looks = || between.passed(&format!("GET /v1/elevations/{id} ")).len();
    let (before, seen) = (asked(), looks());
    wait_until("three looks", SOON, || (looks() >= seen + 3).then_some(()));
    assert!(asked() <= before + 1, "{} after {before}", asked());
    std::fs::write(&go, "").unwrap();
    running.wait().ok();
}

#[test]
fn what_somebody_ended_before_it_was_given_back_is_told_as_that() {
    let company = Company::start(&["alice", "bob", "carol"]);
    let go = company.home("alice").path("go");
    let (running, id) = exec(&company, &[], &script(&go));
    company.approve("bob", &id);
    company.approve("carol", &id);
    token(&running);
    // It looks no more meanwhile.
    running.signal(Signal::STOP);
    company.elevate("bob", &["revoke", &id, "--reason", "it is mended"]).ok();
    std::fs::write(&go, "").unwrap();
    running.signal(Signal::CONT);
    let ended = running.wait();
    let said = &ended.stderr;
    assert!(said.contains("the grant is revoked by BOB Example"), "{said}");
    assert!(!said.contains("could not be given back") && !said.contains("warning"), "{said}");
}

#[test]
fn an_answer_to_an_approval_that_is_lost_is_asked_for_again() {
    let company = Company::start(&["alice", "bob", "carol"]);
    let asked = company.request("alice", &[]);
    let (id, hash) = (asked["id"].as_str().unwrap(), asked["hash"].as_str().unwrap());
    let between = Between::start(company.broker.url());
    for name in ["bob", "carol"] {
        between.before(company.home(name), company.broker.url());
    }
    let approve = ["approve", id, "--hash", hash, "--json"];
    between.lose("/approve ", 1);
    let done = company.elevate("bob", &approve).ok().json();
    assert_eq!(done["needs"][0]["have"], serde_json::json!(["bob"]));
    assert_eq!(between.passed("/approve ").len(), 2);
    // Where none comes, it is said that it may have been done, and to say it again does no harm.
    between.lose("/approve ", usize::MAX);
    let lost = company.elevate("carol", &approve);
    let says = format!("it may have been done all the same: `tmpcred elevate status {id}` tells");
    assert!(lost.code == Some(7) && lost.stderr.contains(&says), "{lost:?}");
    between.let_go();
    let done = company.elevate("carol", &approve).ok().json();
    assert_eq!(
        (&done["access"], done["approvals"].as_array().unwrap().len()),
        (&"approved".into(), 2)
    );
    let story = company.story(id);
    let approvals = story.iter().filter(|what| what.starts_with("elevation.approve ")).count();
    assert_eq!(approvals, 2, "{story:?}");
}

#[test]
fn what_is_denied_is_seen_before_and_nobody_is_asked_who_cannot_see_it() {
    let company = Company::start(&["alice", "bob"]);
    let asked = company.request("alice", &[]);
    let id = asked["id"].as_str().unwrap();
    let deny = ["deny", id, "--reason", "unneeded"];
    let blind = company.elevate("bob", &deny).ended_with(2);
    for says in ["nobody is there to be asked whether to deny", "--yes"] {
        assert!(blind.stderr.contains(says), "{says}: {}", blind.stderr);
    }
    let terminal = Terminal::start(company.home("bob"), 100, 45);
    terminal.enter(&format!("tmpcred elevate {}", deny.join(" ")));
    terminal.wait_for("Deny exactly this?");
    let screen = terminal.screen();
    let hash = asked["hash"].as_str().unwrap();
    for says in ["admin, for https://api.example.com", "INC-4711: the disk is full", "ALICE", hash]
    {
        assert!(screen.contains(says), "{says}: {screen}");
    }
    terminal.enter("n");
    terminal.wait_for("not denied");
    assert_eq!(access(&company, id), "pending");
    let done = company.elevate("bob", &[&deny[..], &["--yes", "--json"]].concat()).ok().json();
    assert_eq!(done["access"], "denied");
}

#[test]
fn who_waits_is_told_that_the_provider_does_not_answer_and_not_the_broker() {
    let provider = OidcProvider::start_with(&OidcOptions {
        ttl: [("AccessToken", 7)].into(),
        ..OidcOptions::default()
    });
    let homes = ["alice", "bob"].map(|name| (name, Home::stranger())).into();
    let mut company = Company::at(provider, homes, ROLE, "");
    company.without_leeway();
    let terminal = Terminal::start(company.home("alice"), 100, 45);
    terminal.enter("tmpcred elevate request admin --reason INC-4711 --for 30m");
    terminal.wait_for("waiting for approval");
    company.provider.kill();
    let screen = terminal.wait_for("does not answer; still waiting");
    assert!(screen.contains("the identity provider does not answer"), "{screen}");
}
