//! One broker at several addresses, some of which do not serve.

use std::fs;
use std::time::Duration;

use super::brokers::{Impostor, recorded};
use super::{Standing, at_clock, refused};
use crate::journey::Journey;
use crate::support::broker::{API, Twin};
use crate::support::wait::wait_until;

/// The journey, with a second process of its broker and both addresses in the
/// configuration.
fn two() -> (Journey, Twin) {
    let journey = Journey::start();
    let twin = journey.broker.twin();
    let urls = format!("url = [\"{}\", \"{}\"]", journey.broker.url(), twin.url);
    reconfigure(&journey, &format!("url = \"{}\"", journey.broker.url()), &urls);
    (journey, twin)
}

#[track_caller]
fn reconfigure(journey: &Journey, old: &str, new: &str) {
    let toml = fs::read_to_string(journey.home.path(".config/tmpcred/config.toml")).unwrap();
    assert_eq!(toml.matches(old).count(), 1, "{old} in {toml}");
    journey.home.config(&toml.replace(old, new));
}

#[track_caller]
fn mints(journey: &Journey, ttl: &str) -> String {
    let run = journey.tmpcred(&["token", "--no-input", "--ttl", ttl]).run().ok();
    assert_eq!(run.stderr.matches("warning").count(), 0, "{}", run.stderr);
    run.stdout
}

/// Stops the broker where it writes nothing: the database is the twin's, too, and whoever stops
/// in the midst of writing keeps it for as long.
fn freeze_between_writes(journey: &Journey) {
    let home = &journey.broker.home;
    wait_until("the broker to write nothing", Duration::from_secs(60), || {
        journey.broker.freeze();
        let writes = home.command("sqlite3").args([home.path("broker.db")]);
        if writes.args(["begin immediate; rollback"]).run().code == Some(0) {
            return Some(());
        }
        journey.broker.thaw();
        None
    });
}

#[test]
fn another_address_serves_where_one_is_down_frozen_or_out_of_order() {
    let (mut journey, twin) = two();
    let standing = Standing::of(&journey);
    journey.broker.stop();
    mints(&journey, "11m");
    let verify = ["verify", "--online", "--audience", API];
    journey.tmpcred(&verify).stdin(standing.token.clone()).run().ok();
    // The run's own credential is revoked there, too.
    let run = journey.tmpcred(&["exec", "--revoke-on-exit", "--", "printenv", "TMPCRED_TOKEN"]);
    let run = run.run().ok();
    assert!(!run.stderr.contains("could not be revoked"), "{}", run.stderr);
    journey.tmpcred(&verify).stdin(run.stdout).run().ended_with(9);

    for (status, headers) in
        [("503 Busy", ""), ("500 Oops", ""), ("429 Slow", "Retry-After: 100\r\n")]
    {
        journey.broker.restart();
        // It answers, so that it is not left alone.
        journey.tmpcred(&["token", "--refresh", "--no-input"]).run().ok();
        journey.broker.stop();
        let impostor = Impostor::of(&journey.broker, status, headers, "");
        mints(&journey, &format!("12m {}s", status.len() + headers.len()));
        drop(impostor);
    }

    journey.broker.restart();
    journey.tmpcred(&["token", "--refresh", "--no-input"]).run().ok();
    freeze_between_writes(&journey);
    mints(&journey, "14m");
    journey.broker.thaw();
    drop(twin);
    // What was cached is not lost with an address, nor with another order.
    let last = mints(&journey, "14m");
    let (first, urls) = (journey.broker.url(), format!("\"{}\", ", journey.broker.url()));
    reconfigure(&journey, &urls, "");
    reconfigure(&journey, "[broker.main]\n", &format!("[broker.main]\nissuer = \"{first}\"\n"));
    assert_eq!(mints(&journey, "14m"), last);
}

const DENIES_DEPLOY: &str = r#"
@id("reader") @ttl("15m") @scope("deploy:read")
permit(principal, action == Action::"issue", resource == Role::"reader");
"#;

#[test]
fn nobody_else_is_asked_where_one_has_said_no() {
    let (mut journey, _twin) = two();
    journey.broker.home.write("policy.cedar", DENIES_DEPLOY);
    journey.broker.restart();
    // The twin still has the old policy, and would grant it.
    let says = ["policy says no", "the role 'deploy' to '"];
    refused(journey.tmpcred(&["token"]), 5, &says);
    refused(journey.tmpcred(&["exec", "--", "true"]), 125, &says);
    let decisions = recorded(&journey.broker, "decision");
    let keys = "the first are of the key that signs and the one that waits";
    assert_eq!(decisions, ["changed", "changed", "denied", "denied"], "{keys}");
}

#[test]
fn what_has_failed_three_times_is_left_alone_until_somebody_insists() {
    let mut journey = Journey::start();
    let standing = Standing::of(&journey);
    journey.broker.stop();
    for ttl in ["11m", "12m", "13m"] {
        let output = refused(journey.tmpcred(&["token", "--ttl", ttl]), 7, &["did not answer"]);
        assert!(!output.stderr.contains("in a row"), "{}", output.stderr);
    }
    // It rests for longer each time, here for longer than the test takes.
    let insists = ["token", "reader", "--refresh", "--no-input"];
    for _ in 0..4 {
        let output = refused(journey.tmpcred(&insists), 7, &["did not answer"]);
        assert!(!output.stderr.contains("in a row"), "{}", output.stderr);
    }
    // Another role, another credential, another process: the same address.
    let says = [
        "did not answer",
        "it has failed 7 times in a row, so it is asked again in ",
        "hint: `--refresh` asks it now",
    ];
    refused(journey.tmpcred(&["token", "reader"]), 7, &says);
    refused(journey.tmpcred(&["exec", "reader", "--", "true"]), 125, &says);
    // Whoever asks why is told.
    let address = journey.broker.url().to_string();
    let status = journey.tmpcred(&["status"]).run().ok().stdout;
    assert!(status.contains("LEFT ALONE") && status.contains(&address), "{status}");
    for command in ["status", "explain"] {
        let report = journey.tmpcred(&[command, "--json"]).run().ok().stdout;
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        assert_eq!(report["left_alone"][0]["address"], address, "{report}");
        assert_eq!(report["left_alone"][0]["failures"], 7, "{report}");
    }
    standing.is_kept(&journey);
    journey.broker.restart();
    refused(journey.tmpcred(&["token", "reader"]), 7, &["it has failed 7 times in a row"]);
    journey.tmpcred(&insists).run().ok();
    mints(&journey, "11m");
}

#[test]
fn nobody_waits_long_for_a_new_credential_while_the_old_one_serves() {
    let journey = Journey::start();
    let standing = Standing::of(&journey);
    journey.broker.freeze();
    let late = || at_clock(&journey.home, "+27m").args(["token", "--no-input"]);
    let stale = late().run().ok();
    assert_eq!(stale.stdout, standing.token);
    assert!(stale.stderr.contains("the cached one is used while it lasts"), "{}", stale.stderr);
    assert!(stale.stderr.contains("the limit is 8 seconds"), "{}", stale.stderr);
    assert!(stale.stderr.contains("waiting for the broker"), "{}", stale.stderr);
    // Who has no use for the old one waits for longer.
    refused(late().args(["--min-ttl", "10m"]), 7, &["the limit is 15 seconds"]);
    // Nor does anybody wait again who need not.
    let again = late().run().ok();
    assert_eq!(again.stdout, standing.token);
    assert!(again.stderr.contains("waited for in vain just now"), "{}", again.stderr);
    assert!(!again.stderr.contains("waiting for"), "{}", again.stderr);
    journey.broker.thaw();
    late().args(["--refresh"]).run().ok();
    let fresh = late().run().ok();
    assert_ne!(fresh.stdout, standing.token);
}
