//! Credentials that are renewed in the background, before anybody has to wait for it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::faults::at_clock;
use super::journey::Journey;
use super::support::broker::{API, KEK, KEK_VARIABLE};
use super::support::home::tmpcred;
use super::support::http::Http;
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

/// Old enough to be looked at, and not yet ageing.
const LOOKED_AT: &str = "+6m";

fn kid(token: &str) -> String {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    let header: serde_json::Value = serde_json::from_slice(&header).unwrap();
    header["kid"].as_str().unwrap().to_string()
}

/// Revokes the key that signed this token, as the page about the broker has it, and waits
/// until the broker knows.
#[track_caller]
fn revoke_key_of(journey: &Journey, token: &str) {
    let (home, kid) = (&journey.broker.home, kid(token));
    let revoke = tmpcred(home).args(["broker", "keys", "revoke", &kid, "--reason", "it leaked"]);
    let revoke = revoke.args(["--config"]).args([home.path("broker.toml")]);
    revoke.env(KEK_VARIABLE, KEK).run().ok();
    let keys = format!("{}/jwks.json", journey.broker.url());
    wait_until("the key to be gone", LONG, || {
        (!Http::new().get(&keys).unwrap().body.contains(&kid)).then_some(())
    });
}

/// Waits until nobody is at work beside the runs.
#[track_caller]
fn nobody_is_left(journey: &Journey) {
    wait_until("everybody to leave", LONG, || journey.home.inhabitants().is_empty().then_some(()));
}

#[test]
fn a_token_whose_key_was_revoked_is_not_handed_out_for_long() {
    let journey = Journey::start();
    let first = journey.tmpcred(&["token"]).run().ok().stdout;
    let at = |offset: &str| {
        let output = at_clock(&journey.home, offset).args(["token", "--no-input"]).run().ok();
        assert_eq!(output.stderr, "");
        output.stdout
    };
    // It is looked at, and good.
    assert_eq!(at(LOOKED_AT), first);
    nobody_is_left(&journey);
    assert!(journey.home.path(".local/state/tmpcred/checks").exists());

    revoke_key_of(&journey, &first);
    // Nobody looks again within five minutes.
    assert_eq!(at("+8m"), first);
    nobody_is_left(&journey);
    assert_eq!((at("+8m"), journey.broker.issued()), (first.clone(), 1));
    // Who comes then still gets it, and who comes a moment later does not.
    let second =
        wait_until("another token", LONG, || Some(at("+12m")).filter(|token| *token != first));
    assert_ne!(kid(&second), kid(&first));
    nobody_is_left(&journey);
    assert_eq!(journey.broker.issued(), 2, "one process saw to it");
    let verify = ["verify", "--online", "--audience", API];
    journey.tmpcred(&verify).stdin(second.clone()).run().ok();
    let refused = journey.tmpcred(&verify).stdin(first).run().ended_with(9).stderr;
    assert!(refused.contains("has no key"), "{refused}");

    // Who does not want to wait for that need not.
    revoke_key_of(&journey, &second);
    let third = journey.tmpcred(&["token", "--refresh"]).run().ok().stdout;
    assert_ne!(kid(&third), kid(&second));
    assert_eq!(journey.tmpcred(&["token"]).run().ok().stdout, third);
}

#[test]
fn a_token_whose_key_was_revoked_is_forgotten_where_no_other_can_be_had() {
    let mut journey = Journey::start();
    let first = journey.tmpcred(&["token"]).run().ok().stdout;
    revoke_key_of(&journey, &first);
    // Who was permitted it is no more.
    let policy = journey.broker.home.path("policy.cedar");
    let permitted = fs::read_to_string(&policy).unwrap();
    let (_, others) = permitted.split_once("@id(\"reader\")").unwrap();
    fs::write(&policy, format!("@id(\"reader\"){others}")).unwrap();
    journey.broker.restart();
    let run = || at_clock(&journey.home, LOOKED_AT).args(["token", "--no-input"]).run();
    assert_eq!(run().ok().stdout, first);
    wait_until("it to be forgotten", LONG, || (run().code == Some(5)).then_some(()));
}

#[test]
fn a_token_of_which_nobody_can_tell_serves_on() {
    let mut journey = Journey::start();
    let first = journey.tmpcred(&["token"]).run().ok().stdout;
    journey.broker.stop();
    for offset in [LOOKED_AT, "+12m"] {
        let run = || at_clock(&journey.home, offset).args(["token", "--no-input"]).run().ok();
        assert_eq!(run().stdout, first);
        nobody_is_left(&journey);
        assert_eq!(run().stdout, first);
    }
}
