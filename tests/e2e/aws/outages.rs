//! STS that is silent or gone: what is cached serves, nobody waits for long, and not each
//! command finds out for itself.

use std::io::Read as _;
use std::net::TcpListener;
use std::sync::mpsc::channel;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use super::*;

/// Ten minutes before its end, a credential of an hour is due for renewal.
const LATE: &str = "+50m";

#[test]
fn a_cached_credential_serves_while_sts_is_silent_or_gone() {
    let moto = Moto::start(9);
    let mut world = World::start();
    world.profile("prod", ROLE, moto.url(), "");
    let env = ["env", "prod", "--format", "json", "--no-input"];
    world.tmpcred(&["login"]).run().ok();
    let cached = world.tmpcred(&env).run().ok().json()["AWS_ACCESS_KEY_ID"].clone();
    // A process for each command: they know of each other by files only.
    let late = || {
        let run = at_clock(&world.home, LATE).args(env).limit(Duration::from_secs(40)).run().ok();
        assert_eq!(run.json()["AWS_ACCESS_KEY_ID"], cached);
        let warning = "no new credential could be had, so the cached one is used while it lasts";
        assert!(run.stderr.contains(warning), "{}", run.stderr);
        run.stderr
    };
    // It holds its socket, and answers nothing.
    moto.freeze();
    let said = late();
    assert!(said.contains("did not answer") && said.contains("the limit is 8 seconds"), "{said}");
    assert!(said.contains("waiting for AWS STS, for 8 seconds at most"), "{said}");

    let said = late();
    assert!(said.contains("waited for in vain just now"), "{said}");
    assert!(!said.contains("waiting for"), "{said}");

    moto.stop();
    // Who insists asks all the same, and is not served with what is old.
    for _ in 0..3 {
        let refresh = at_clock(&world.home, LATE).args(env).args(["--refresh"]);
        let refresh = refresh.run().ended_with(7);
        assert!(refresh.stderr.contains("did not answer"), "{}", refresh.stderr);
        assert!(!refresh.stderr.contains("times in a row"), "{}", refresh.stderr);
    }
    let said = late();
    assert!(said.contains("it has failed 4 times in a row"), "{said}");
}

#[test]
fn who_asks_through_the_aws_cli_is_told_nothing_of_it() {
    let moto = Moto::start(9);
    let mut world = World::start();
    world.profile("prod", ROLE, moto.url(), "");
    let ask = |offset: &str, more: &[&str]| {
        let run = at_clock(&world.home, offset).args(["credential-process", "prod"]).args(more);
        let answered = run.limit(Duration::from_secs(40)).run().ok();
        // What calls it may show that to anybody, and take it for a failure.
        assert_eq!(answered.stderr, "", "{offset} {more:?}");
        answered.json()["AccessKeyId"].clone()
    };
    world.tmpcred(&["login"]).run().ok();
    let cached = ask("+0m", &[]);
    // A clock that is off.
    let mistimed = ask("+10m", &["--ttl", "2h"]);
    moto.freeze();
    // In vain; and then without waiting for it again.
    assert_eq!(ask(LATE, &[]), cached);
    assert_eq!(ask(LATE, &[]), cached);
    // Ten minutes before the end, or twenty, as that clock was off.
    assert_eq!(ask("+110m", &["--ttl", "2h"]), mistimed);
    moto.stop();
    assert_eq!(ask(LATE, &[]), cached);
}

/// How many ask at once.
const MANY: usize = 100;

#[test]
fn of_many_that_ask_at_once_nobody_logs_in_and_one_mints() {
    let moto = Moto::start(999);
    let mut world = World::start();
    world.profile("prod", ROLE, moto.url(), "");
    let browser = Browser::http().user("alice", "x").install(&mut world.home);
    let all = || -> Vec<_> {
        let one = |_| {
            let ask = world.tmpcred(&["credential-process", "prod"]);
            ask.limit(Duration::from_secs(200)).spawn()
        };
        (0..MANY).map(one).collect::<Vec<_>>().into_iter().map(|run| run.wait()).collect()
    };
    for refused in all() {
        let refused = refused.ended_with(4);
        assert!(refused.stderr.contains("login required"), "{}", refused.stderr);
        assert_eq!(refused.stdout, "");
    }
    assert!(browser.opened().is_empty());
    assert_eq!(world.provider.count("GET", "/auth"), 0);
    assert!(moto.all_asked("AssumeRoleWithWebIdentity").is_empty());

    world.tmpcred(&["login"]).run().ok();
    let answers: Vec<_> = all().into_iter().map(|answered| answered.ok()).collect();
    assert!(answers.iter().all(|one| one.stderr.is_empty() && one.stdout == answers[0].stdout));
    assert_eq!(answers[0].json()["Version"], 1);
    assert_eq!(moto.all_asked("AssumeRoleWithWebIdentity").len(), 1);
    assert_eq!(world.provider.count("GET", "/auth"), 1, "that of the login");
}

/// How long the token of the broker is good that STS is shown: long enough to get there on a machine
/// that has much to do.
const BRIEF: Duration = Duration::from_secs(7);

#[test]
fn an_assertion_that_ends_on_the_way_is_not_shown_again() {
    let mut world = World::start();
    let mut options = BrokerOptions::trusting(world.provider.issuer());
    options.more = format!("\n[role.brief]\naudiences = [\"{API}\"]\nmax_ttl = \"7s\"\n");
    options.policy += "\n@id(\"brief\") @ttl(\"7s\")\n\
        permit(principal, action == Action::\"issue\", resource == Role::\"brief\");";
    let broker = Broker::start(&options);
    // Takes a request, is silent until what it was shown has ended, and hangs up, while
    // there would be time to ask it again. No real peer does that when it should.
    let sts = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", sts.local_addr().unwrap());
    let (note, arrived) = channel();
    spawn(move || {
        for connection in sts.incoming() {
            let mut connection = connection.unwrap();
            let asked = connection.read(&mut [0; 1024]).unwrap_or_default() > 0;
            note.send(asked).unwrap();
            sleep(BRIEF + Duration::from_secs(1));
        }
    });
    world.add(&format!(
        "\n[broker.main]\nurl = \"{}\"\n\n[profile.brief]\nexchange = [{{ role = \"brief\" }}]\n\
         role = \"{ROLE}\"\ntarget = {{ type = \"aws\", endpoint_url = \"{url}\", audience = \"{API}\" }}\n",
        broker.url(),
    ));
    world.tmpcred(&["login"]).run().ok();
    let begun = Instant::now();
    let refused = world.tmpcred(&["env", "brief"]).run().ended_with(7);
    assert!(
        refused.stderr.contains(&format!("no session of the role {ROLE}")),
        "{}",
        refused.stderr
    );
    // (It would begin to ask again for ten seconds, and goes on for thirty.)
    assert!(begun.elapsed() < Duration::from_secs(30), "it could not have asked again");
    assert_eq!(arrived.try_iter().collect::<Vec<_>>(), [true]);
    assert_eq!(broker.issued(), 1);
}
