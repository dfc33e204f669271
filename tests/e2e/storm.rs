//! A hundred processes at once.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use super::journey::Journey;
use super::stores::claims;
use super::support::broker::API;
use super::support::browser::{Browser, Installed, gated};
use super::support::home::Home;
use super::support::keyring::Keyring;
use super::support::run::{Output, Running};
use super::support::wait::wait_until;

const PROCESSES: usize = 100;
const PROFILES: usize = 20;

/// How long all of them together may take, on a machine that is busy.
const LONG: Duration = Duration::from_secs(280);

/// A person with twenty profiles of one identity, no two of which mean the same.
fn storm_person(browser: Browser) -> (Journey, Installed) {
    storm_person_in(Home::stranger(), browser)
}

fn storm_person_in(home: Home, browser: Browser) -> (Journey, Installed) {
    let mut journey = Journey::in_home(home);
    let mut config = format!(
        r#"
[identity.corp]
type = "oidc"
issuer = "{}"
client_id = "cli"

[broker.main]
url = "{}"
"#,
        journey.provider.issuer(),
        journey.broker.url()
    );
    for number in 0..PROFILES {
        let (role, minutes) = (role(number), 10 + number);
        config += &format!(
            "\n[profile.p{number}]\nrole = \"{role}\"\naudience = \"{API}\"\nttl = \"{minutes}m\"\n"
        );
    }
    journey.home.config(&config);
    let installed = browser.user("alice", "x").install(&mut journey.home);
    (journey, installed)
}

/// The role of a profile: the reader's tokens live at most 15 minutes.
fn role(number: usize) -> &'static str {
    if number < 5 { "reader" } else { "deploy" }
}

fn start(journey: &Journey, processes: usize) -> Vec<(usize, Running)> {
    let profiles = (0..processes).map(|process| process % PROFILES);
    profiles
        .map(|number| {
            let token = journey.tmpcred(&["token", &format!("p{number}")]).limit(LONG);
            (number, token.spawn())
        })
        .collect()
}

#[test]
fn a_hundred_cold_starts_are_one_login_and_a_mint_for_each_profile() {
    one_login_and_a_mint_for_each_profile(&storm_person(Browser::http()));
}

#[test]
fn so_they_are_where_the_keyring_is_a_daemon() {
    let mut home = Home::new();
    let _keyring = Keyring::start(&mut home);
    one_login_and_a_mint_for_each_profile(&storm_person_in(home, Browser::http()));
}

#[track_caller]
fn one_login_and_a_mint_for_each_profile((journey, browser): &(Journey, Installed)) {
    let mut tokens: BTreeMap<usize, String> = BTreeMap::new();
    for (number, running) in start(journey, PROCESSES) {
        let token = running.wait().ok().stdout;
        let claims = claims(&token);
        assert_eq!(claims["role"], role(number));
        assert_eq!(claims["aud"], API);
        let lifetime = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
        assert_eq!(lifetime, 60 * (10 + number as i64));
        let same = tokens.entry(number).or_insert_with(|| token.clone());
        assert_eq!(*same, token, "all who ask for p{number} get the same");
    }
    assert_eq!(tokens.len(), PROFILES);
    assert_eq!(browser.opened().len(), 1);
    assert_eq!(journey.provider.count_grants("authorization_code"), 1);
    let refreshes = journey.provider.count_grants("refresh_token");
    assert!(refreshes <= 1, "{refreshes} refreshes");
    assert_eq!(journey.broker.issued(), PROFILES);
}

/// How many start at once in the largest storm.
const THOUSAND: usize = 1000;

/// Starts them all from one shell, each with a file of its own for what it says.
fn storm(journey: &Journey, kind: &str) -> Vec<String> {
    let program = journey.home.share(std::path::Path::new(env!("CARGO_BIN_EXE_tmpcred")));
    let script = format!(
        "mkdir {kind} && cd {kind} && n=0
        while [ $n -lt {THOUSAND} ]; do
            n=$((n + 1))
            \"$0\" token p7 --no-input >$n.out 2>$n.err || echo $n >>failed &
        done
        wait"
    );
    let shell = journey.home.command("sh").args(["-c", &script]).args([program]);
    shell.limit(LONG).run().ok();
    let dir = journey.home.path("work").join(kind);
    let read = |name: String| fs::read_to_string(dir.join(name)).unwrap();
    let failed = fs::read_to_string(dir.join("failed")).unwrap_or_default();
    if let Some(first) = failed.lines().next() {
        let (all, why) = (failed.lines().count(), read(format!("{first}.err")));
        panic!("{all} of {THOUSAND} failed, the first with:\n{why}");
    }
    (1..=THOUSAND).map(|number| read(format!("{number}.out"))).collect()
}

/// Takes minutes, so it is a step of its own: `tests/run storm`.
#[test]
#[ignore = "takes minutes: `tests/run storm` runs it"]
fn a_thousand_cold_starts_are_one_mint() {
    let (journey, _browser) = storm_person(Browser::http());
    journey.tmpcred(&["login"]).run().ok();
    let cold = storm(&journey, "cold");
    assert_eq!(journey.broker.issued(), 1);
    let warm = storm(&journey, "warm");
    assert_eq!(journey.broker.issued(), 1);
    let token = &cold[0];
    assert_eq!(claims(token)["role"], role(7));
    assert!(cold.iter().chain(&warm).all(|other| other == token));
    let refreshes = journey.provider.count_grants("refresh_token");
    assert!(refreshes <= 1, "{refreshes} refreshes");
}

/// How many of them wait for the outcome of the one login.
const WAITING: usize = 24;

/// Whether a process has the lock of a session open: it leads, or it waits.
fn at_the_lock(running: &Running) -> bool {
    let descriptors = format!("/proc/{}/fd", running.pid().as_raw_nonzero());
    let Ok(descriptors) = fs::read_dir(descriptors) else { return false };
    descriptors.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()).any(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("session-") && name.ends_with(".lock")
    })
}

#[test]
fn those_who_waited_for_a_login_fail_with_it() {
    let (mut journey, browser) = storm_person(Browser::http().denies());
    let gate = gated(&mut journey.home);
    let started = start(&journey, WAITING);
    wait_until("all of them to wait for one login", LONG, || {
        started.iter().all(|(_, running)| at_the_lock(running)).then_some(())
    });
    fs::write(gate, "").unwrap();
    let outputs: Vec<Output> = started.into_iter().map(|(_, running)| running.wait()).collect();
    let code = outputs[0].code;
    let mut inherited = 0;
    for output in outputs {
        assert!(output.code.is_some_and(|code| code != 0), "{output:?}");
        assert_eq!(output.code, code, "{}", output.stderr);
        assert_eq!(output.stdout, "");
        assert!(output.stderr.contains("access_denied"), "{}", output.stderr);
        let told = output.stderr.contains("another tmpcred process tried just now");
        inherited += usize::from(told);
    }
    assert_eq!(inherited, WAITING - 1);
    assert_eq!(browser.opened().len(), 1);
    assert_eq!(journey.provider.count_grants("authorization_code"), 0);
    assert_eq!(journey.broker.issued(), 0);

    // Whoever comes later has a try of their own.
    let browser = Browser::http().user("alice", "x").install(&mut journey.home);
    let token = journey.tmpcred(&["token", "p0"]).run().ok().stdout;
    assert_eq!(claims(&token)["role"], role(0));
    assert_eq!(browser.opened().len(), 2, "the log goes on");
}
