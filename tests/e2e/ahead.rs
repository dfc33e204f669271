//! Credentials that are renewed in the background, before anybody has to wait for it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::faults::at_clock;
use super::journey::Journey;
use super::support::run::Output;
use super::support::wait::wait_until;

const LONG: Duration = Duration::from_secs(120);

/// Of thirty minutes, twelve are left then: more than the refresh window, and less than
/// two of them.
const AGEING: &str = "+18m";

/// Runs that once the cached credential is ageing. Nobody is told of that.
#[track_caller]
fn later(journey: &Journey, args: &[&str]) -> Output {
    let output = at_clock(&journey.home, AGEING).args(args).run().ok();
    assert_eq!(output.stderr, "");
    output
}

fn claims(journey: &Journey) -> PathBuf {
    journey.home.path(".local/state/tmpcred/ahead")
}

#[test]
fn who_comes_shortly_before_the_refresh_window_does_not_wait() {
    let journey = Journey::start();
    let first = journey.tmpcred(&["token"]).run().ok().stdout;
    // Nothing new can be had: whoever gets something got it from the cache.
    journey.broker.freeze();
    let many: Vec<_> =
        (0..20).map(|_| at_clock(&journey.home, AGEING).args(["token"]).spawn()).collect();
    for running in many {
        let output = running.wait().ok();
        assert_eq!((output.stdout, output.stderr), (first.clone(), String::new()));
    }
    // A command does not become the parent of what goes on beside it.
    let children = "test -e /proc/$$/task/$$/children && read -r line </proc/$$/task/$$/children; echo \"<$line>\"";
    assert_eq!(later(&journey, &["exec", "--", "sh", "-c", children]).stdout, "<>\n");

    journey.broker.thaw();
    let second = wait_until("a new credential", LONG, || {
        Some(later(&journey, &["token", "--no-input"]).stdout).filter(|token| *token != first)
    });
    assert_eq!(later(&journey, &["token", "--no-input"]).stdout, second);
    assert_eq!(journey.broker.issued(), 2, "one process saw to it");
    let refreshes = journey.provider.count_grants("refresh_token");
    assert!(refreshes <= 1, "{refreshes} refreshes");
}

#[test]
fn nothing_stays_behind_where_nothing_is_soon_due() {
    let journey = Journey::start();
    let nobody = || {
        wait_until("everybody to leave", LONG, || {
            journey.home.inhabitants().is_empty().then_some(())
        });
    };
    // With a login and a mint, and with neither.
    for _ in 0..2 {
        journey.tmpcred(&["exec", "--", "true"]).run().ok();
        nobody();
    }
    assert_eq!(journey.broker.issued(), 1);
    // Who is there is seen.
    let running = journey.tmpcred(&["exec", "--", "sh", "-c", "echo here; sleep 60"]).spawn();
    running.line_on_stdout("here");
    assert!(journey.home.inhabitants().contains(&running.pid()));
    drop(running);
    nobody();
}

#[test]
fn what_was_asked_for_is_what_is_renewed() {
    let journey = Journey::start();
    let args = ["token", "reader", "--scope=deploy:read", "--ttl=14m", "--no-input"];
    journey.tmpcred(&["login"]).run().ok();
    let first = journey.tmpcred(&args).run().ok().stdout;
    // Of fourteen minutes, five are left then.
    let later = || at_clock(&journey.home, "+9m").args(args).run().ok().stdout;
    assert_eq!(later(), first);
    let second =
        wait_until("a new credential", LONG, || Some(later()).filter(|token| *token != first));
    assert_eq!(journey.broker.issued(), 2);
    let of = |token: &str| {
        let claims = super::stores::claims(token);
        let ttl = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
        (claims["role"].clone(), claims["scope"].clone(), ttl)
    };
    assert_eq!(of(&second), of(&first));
    assert_eq!(of(&second).2, 14 * 60);
}

#[test]
fn an_attempt_that_fails_is_not_told_and_not_repeated_at_once() {
    let mut journey = Journey::start();
    let first = journey.tmpcred(&["token"]).run().ok().stdout;
    journey.broker.stop();
    assert_eq!(later(&journey, &["token"]).stdout, first);
    let claim = || {
        let claims = fs::read_dir(claims(&journey)).unwrap();
        let [only] = claims.collect::<Vec<_>>().try_into().unwrap();
        only.unwrap().metadata().unwrap().modified().unwrap()
    };
    let claimed = claim();
    assert_eq!(later(&journey, &["token"]).stdout, first);
    assert_eq!(claim(), claimed, "nobody tries again");
    // When it is due, there is a warning, and it serves.
    let due = at_clock(&journey.home, "+25m").args(["token", "--no-input"]).run().ok();
    assert_eq!(due.stdout, first);
    assert!(due.stderr.contains("the cached one is used while it lasts"), "{}", due.stderr);
}

#[test]
fn it_can_be_turned_off_and_is_off_in_jobs() {
    let journey = Journey::start();
    let first = journey.tmpcred(&["token"]).run().ok().stdout;
    let job = at_clock(&journey.home, AGEING).args(["token"]).env("CI", "true").run().ok();
    assert_eq!(job.stdout, first);
    let config = journey.home.path(".config/tmpcred/config.toml");
    let toml = fs::read_to_string(&config).unwrap();
    fs::write(&config, toml + "\n[cache]\nrefresh_ahead = false\n").unwrap();
    assert_eq!(later(&journey, &["token"]).stdout, first);
    assert!(!claims(&journey).exists());
}
