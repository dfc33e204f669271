//! Waiting for signatures: how many there are, for how long, and what comes of it.

use super::*;

/// The line by which alice has the role while nobody can log in.
const ASK: [&str; 6] = ["exec", "--elevate", "admin", "--provider-down", "--reason", "INC-4711"];

/// The request that alice handed to others, as bob got it, and its hash.
fn handed(prepared: &Prepared, told: &str) -> String {
    let line = told.lines().find(|line| line.contains("hand this file to those")).unwrap();
    let file = line.rsplit_once(": ").unwrap().1.trim();
    for who in ["bob", "carol"] {
        prepared.hand(Path::new(file), who, "request.txt");
    }
    Path::new(file).file_stem().unwrap().to_str().unwrap().to_string()
}

fn bob_signs(prepared: &Prepared, hash: &str) {
    let sign = ["sign", "request.txt", "--approve", "--hash", hash, "--out", "bob.txt"];
    prepared.company.elevate("bob", &sign).ok();
    prepared.company.elevate("bob", &["submit", "bob.txt"]).ok();
}

#[test]
fn signatures_are_counted_while_it_is_waited_and_that_ends_after_a_while() {
    let prepared = Prepared::new();
    let company = &prepared.company;
    company.provider.kill();
    let late = ["--wait-at-most", "1s", "--", "true"];
    let late = company.run("alice", &ASK).args(late).limit(SOON).run().ended_with(125);
    for says in
        ["you do not have the role 'admin' yet", "0 of 2 signatures of leads", "goes on with"]
    {
        assert!(late.stderr.contains(says), "{says}: {}", late.stderr);
    }
    let hash = handed(&prepared, &late.stderr);
    let terminal = Terminal::start(company.home("alice"), 120, 45);
    terminal.enter(&format!("tmpcred {} -- echo had", ASK.join(" ")));
    terminal.wait_for("0 of 2 signatures");
    bob_signs(&prepared, &hash);
    terminal.wait_for("1 of 2 signatures");
}

#[test]
fn what_is_signed_for_is_not_renewed_and_that_is_said() {
    let prepared = Prepared::new();
    prepared.enroll_carol();
    let company = &prepared.company;
    company.provider.kill();
    let alice = company.home("alice");
    let config = std::fs::read_to_string(alice.path(".config/tmpcred/config.toml")).unwrap();
    let expects = |more: &str| {
        let profile = "[profile.deploy]\n";
        alice.config(&config.replace(profile, &format!("{profile}{more}\n")));
    };
    let run = |more: &[&str]| {
        let run = company.run("alice", &ASK).args(more).env("CI", "");
        run.args(["--", "sh", "-c", "echo $TMPCRED_ROLE"]).limit(SOON)
    };
    // What was asked for is refused before anybody signs.
    let refused = run(&["--renew"]).run().ended_with(125);
    for says in ["with --provider-down no credential is renewed", "each would have to be signed"] {
        assert!(refused.stderr.contains(says), "{says}: {}", refused.stderr);
    }
    expects("ttl = \"5m\"\nexpected_runtime = \"3h\"");
    let running = run(&["--refresh"]).spawn();
    let line = running.line_on_stderr("hand this file to those who approve");
    let hash = handed(&prepared, &line);
    bob_signs(&prepared, &hash);
    prepared.shell("carol", &printed("Approving with OpenSSH alone")).ok();
    company.elevate("carol", &["submit", "carol.txt"]).ok();
    let ended = running.wait().ok();
    assert_eq!(ended.stdout, "admin\n");
    let says = "the command is expected to run for 3h";
    assert!(ended.stderr.contains(says), "{}", ended.stderr);
}

#[test]
fn what_waits_by_rules_that_have_changed_is_taken_back_and_asked_for_anew() {
    let prepared = Prepared::new();
    let company = &prepared.company;
    company.provider.kill();
    let ask = |more: &[&str]| {
        let late = ["--wait-at-most", "1s", "--", "true"];
        let run = company.run("alice", &ASK).args(more).args(late).limit(SOON);
        run.run().ended_with(125).stderr
    };
    let first = handed(&prepared, &ask(&[]));
    assert_eq!(handed(&prepared, &ask(&[])), first, "it is gone on with");
    let home = &company.broker.home;
    let policy = std::fs::read_to_string(home.path("policy.cedar")).unwrap();
    let says = "other policies decide from now on";
    let count = || company.broker.said().matches(says).count();
    let before = count();
    home.write("policy.cedar", policy.replacen("@ttl(\"1h\")", "@ttl(\"50m\")", 1));
    company.broker.hang_up();
    wait_until("a reload", SOON, || (count() > before).then_some(()));
    let told = ask(&[]);
    assert!(told.contains("by other rules than are in force now"), "{told}");
    let second = handed(&prepared, &told);
    assert_ne!(second, first);
    bob_signs(&prepared, &second);
}
