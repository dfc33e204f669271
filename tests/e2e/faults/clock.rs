//! A machine whose clock is ten minutes off.

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::at_clock;
use crate::journey::Journey;
use crate::support::broker::API;

#[test]
fn a_clock_ten_minutes_fast_is_measured_reported_and_corrected() {
    off_by("+10m", "ahead of");
}

#[test]
fn a_clock_ten_minutes_slow_is_measured_reported_and_corrected() {
    off_by("-10m", "behind");
}

fn off_by(offset: &str, way: &str) {
    let journey = Journey::start();
    let run = |args: &[&str]| at_clock(&journey.home, offset).args(args).run().ok();
    let login = run(&["login"]);
    let told: Vec<&str> = login.stderr.lines().filter(|line| line.contains("clock")).collect();
    // `Date` has whole seconds, and answers take time on a machine that is busy.
    let measured = ["9m 5", "10m "].iter().any(|by| told[0].contains(&format!("clock is {by}")));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(measured && told[0].contains(&format!("{way} the server's")), "{told:?}");

    let exec = ["exec", "--", "sh", "-c", "echo $TMPCRED_TOKEN $TMPCRED_EXPIRES_AT"];
    let first = run(&exec);
    assert!(first.stderr.contains(way), "{}", first.stderr);
    let again = run(&exec);
    assert_eq!(again.stdout, first.stdout, "the second run hits the cache");
    assert_eq!(again.stderr, "", "and asks no server what time it is");
    assert_eq!(journey.broker.issued(), 1);

    let (token, expires) = first.stdout.trim().split_once(' ').unwrap();
    let inspected = run_with(&journey, offset, &["inspect", "--json"], token);
    let claims = &inspected["claims"];
    let lifetime = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert_eq!(lifetime, 1800);
    // The command, too, looks at this machine's clock.
    let told = OffsetDateTime::parse(expires, &Rfc3339).unwrap().unix_timestamp();
    let ahead = told - claims["exp"].as_i64().unwrap();
    assert!((590..=610).contains(&ahead.abs()), "{ahead}");
    assert_eq!(ahead.is_positive(), offset.starts_with('+'));

    let status = run(&["status", "--json"]).json();
    let left = status["credentials"][0]["remaining_seconds"].as_i64().unwrap();
    assert!((1700..=1800).contains(&left), "{left}");
    let verify = ["verify", "--audience", API, "--json"];
    assert_eq!(run_with(&journey, offset, &verify, token)["verified"], true);
}

fn run_with(journey: &Journey, offset: &str, args: &[&str], stdin: &str) -> Value {
    at_clock(&journey.home, offset).args(args).stdin(stdin).run().ok().json()
}

#[test]
fn a_clock_that_is_set_right_meanwhile_lengthens_no_credential() {
    let journey = Journey::start();
    // Minted while the clock was ten minutes fast, read when it is right.
    at_clock(&journey.home, "+10m").args(["token"]).run().ok();
    let status = journey.tmpcred(&["status", "--json"]).run().ok().json();
    let left = status["credentials"][0]["remaining_seconds"].as_i64().unwrap();
    assert!((0..=1800).contains(&left), "{left}");
    journey.tmpcred(&["token", "--no-input"]).run().ok();
    // Four minutes before its end. By the old skew it would have fourteen.
    let late = |args: &[&str]| at_clock(&journey.home, "+26m").args(args).run().ok();
    let status = late(&["status", "--json"]).json();
    let left = status["credentials"][0]["remaining_seconds"].as_i64().unwrap();
    assert!((0..=240).contains(&left), "{left}");
    late(&["token"]);
    assert_eq!(journey.broker.issued(), 2, "the old one is too near its end");
}
