//! The Secret Service of a desktop: unlocked, locked, frozen.

use std::time::Duration;

use super::{token, work};
use crate::journey::Journey;
use crate::support::home::{Home, tmpcred};
use crate::support::keyring::Keyring;
use crate::support::run::Output;

/// What no command may take, on a machine that is busy: the program's own limit
/// is a few seconds for each call, and half a minute where it asks a person.
const BOUNDED: Duration = Duration::from_secs(50);

/// Somebody at a desktop, who has a credential.
fn at_a_desktop() -> (Keyring, Journey) {
    at_the_desktop_of(Home::new())
}

fn at_the_desktop_of(mut home: Home) -> (Keyring, Journey) {
    let keyring = Keyring::start(&mut home);
    let journey = Journey::in_home(home);
    journey.tmpcred(&["exec", "--", "true"]).run().ok();
    (keyring, journey)
}

/// Calls a method of the Secret Service, and yields all that is in quotes in its answer.
fn call(home: &Home, path: &str, method: &str, arguments: &[&str]) -> Vec<String> {
    let call = home.command("dbus-send").args([
        "--session",
        "--print-reply",
        "--dest=org.freedesktop.secrets",
        path,
        method,
    ]);
    let text = call.args(arguments).run().ok().stdout;
    text.split('"').skip(1).step_by(2).map(String::from).collect()
}

/// The labels of what is in the default collection.
fn labels(home: &Home) -> Vec<String> {
    labels_in(home, "aliases/default")
}

fn labels_in(home: &Home, collection: &str) -> Vec<String> {
    let property = |path: &str, interface: &str, name: &str| {
        let interface = format!("string:org.freedesktop.Secret.{interface}");
        let arguments = [interface.as_str(), &format!("string:{name}")];
        call(home, path, "org.freedesktop.DBus.Properties.Get", &arguments)
    };
    let items = property(&format!("/org/freedesktop/secrets/{collection}"), "Collection", "Items");
    let mut labels: Vec<_> =
        items.iter().flat_map(|item| property(item, "Item", "Label")).collect();
    labels.sort();
    labels
}

#[track_caller]
fn keyring_locked(output: Output, cause: &str) {
    let output = output.ended_with(8);
    assert_eq!(output.stdout, "");
    assert!(output.stderr.contains(cause), "{}", output.stderr);
    assert!(output.stderr.contains("hint"), "{}", output.stderr);
    assert!(output.stderr.contains("TMPCRED_CACHE_STORE"), "{}", output.stderr);
}

#[track_caller]
fn status_works(journey: &Journey) {
    let status = journey.tmpcred(&["status", "--json"]).limit(BOUNDED).run().ok().json();
    assert_eq!(status["sessions"][0]["subject"], "alice");
    assert_eq!(status["credentials"][0]["profile"], "deploy");
}

#[test]
fn items_rest_in_the_default_collection_until_logging_out() {
    rest_in_the_default_collection(at_a_desktop());
}

#[test]
fn so_they_do_for_a_user_who_is_not_root() {
    let (keyring, journey) = at_the_desktop_of(Home::nobody());
    let me = journey.home.command("id").args(["-u"]).run().ok().stdout;
    assert_ne!(me.trim(), "0");
    rest_in_the_default_collection((keyring, journey));
}

#[track_caller]
fn rest_in_the_default_collection((_keyring, journey): (Keyring, Journey)) {
    assert_eq!(labels(&journey.home), ["tmpcred: deploy, role deploy", "tmpcred: session of corp"]);
    let before = work(&journey);
    let first = token(journey.tmpcred(&["token"]));
    assert_eq!(token(journey.tmpcred(&["token"])), first);
    assert_eq!(work(&journey), before, "a hit asks nobody");
    status_works(&journey);
    journey.tmpcred(&["logout"]).run().ok();
    assert_eq!(labels(&journey.home), [""; 0]);
}

#[test]
fn what_is_in_another_keyring_than_the_default_one_is_read_until_it_is_written_anew() {
    let (mut keyring, journey) = at_a_desktop();
    let home = &journey.home;
    let first = token(journey.tmpcred(&["token"]));
    let before = work(&journey);
    // Another keyring, without a password, becomes the default one.
    let other =
        "[keyring]\ndisplay-name=other\nctime=0\nmtime=0\nlock-on-idle=false\nlock-after=false\n";
    home.write(".local/share/keyrings/other.keyring", other);
    keyring.unlock(home);
    let path = "/org/freedesktop/secrets";
    let collection = format!("objpath:{path}/collection/other");
    let service = |method: &str| format!("org.freedesktop.Secret.Service.{method}");
    call(home, path, &service("Unlock"), &[&collection.replace("objpath", "array:objpath")]);
    call(home, path, &service("SetAlias"), &["string:default", &collection]);
    assert_eq!(labels(home), [""; 0]);
    assert_eq!(token(journey.tmpcred(&["token"])), first);
    assert_eq!(work(&journey), before, "nobody logged in again");

    let second = token(journey.tmpcred(&["token", "--refresh"]));
    assert_ne!(second, first);
    let credential = "tmpcred: deploy, role deploy".to_string();
    assert!(labels(home).contains(&credential), "{:?}", labels(home));
    let left = labels_in(home, "collection/login");
    assert!(!left.contains(&credential), "the old one is gone: {left:?}");
    assert_eq!(token(journey.tmpcred(&["token"])), second);
}

#[test]
fn what_only_tries_things_keeps_nothing_there() {
    let mut home = Home::new();
    let _keyring = Keyring::start(&mut home);
    tmpcred(&home).args(["token", "--dev"]).run().ok();
    tmpcred(&home).args(["exec", "--dev", "--", "true"]).run().ok();
    assert_eq!(labels(&home), [""; 0]);
}

#[test]
fn a_locked_keyring_is_said_to_be_locked_and_loses_nothing() {
    let (mut keyring, journey) = at_a_desktop();
    let first = token(journey.tmpcred(&["token"]));
    let before = work(&journey);
    keyring.lock(&journey.home);
    status_works(&journey);
    let refused = journey.tmpcred(&["token", "--no-input"]).limit(BOUNDED).run();
    keyring_locked(refused, "the keyring is locked");
    // It may ask now, but nothing here can show a dialog.
    keyring_locked(journey.tmpcred(&["token"]).limit(BOUNDED).run(), "the keyring");
    let exec = journey.tmpcred(&["exec", "--no-input", "--", "true"]).limit(BOUNDED);
    assert!(exec.run().ended_with(125).stderr.contains("the keyring is locked"));
    keyring.unlock(&journey.home);
    assert_eq!(token(journey.tmpcred(&["token"])), first);
    assert_eq!(work(&journey), before, "nobody logged in again");
}

#[test]
fn explaining_reads_no_keyring() {
    let (mut keyring, journey) = at_a_desktop();
    keyring.lock(&journey.home);
    let cache = || {
        // Nothing here can show a dialog: one that is asked for would fail the command.
        let explain = journey.tmpcred(&["explain", "--json"]).limit(BOUNDED).run().ok();
        assert_eq!(explain.stderr, "");
        explain.json()["cache"].clone()
    };
    assert_eq!((&cache()["state"], &cache()["store"]), (&"hit".into(), &"Secret Service".into()));
    // It says what it does not know.
    std::fs::remove_file(journey.home.path(super::STATE).join("index.json")).unwrap();
    let lost = cache();
    assert_eq!(lost["state"], "miss");
    assert!(lost["because"].as_str().unwrap().contains("as far as the index tells"), "{lost}");
    // A run needs the keyring to know, and finds what the index has lost.
    keyring_locked(journey.tmpcred(&["token", "--no-input"]).limit(BOUNDED).run(), "is locked");
    keyring.unlock(&journey.home);
    let before = work(&journey);
    token(journey.tmpcred(&["token", "--no-input"]));
    assert_eq!(work(&journey), before, "nobody logged in again");
}

#[test]
fn a_frozen_keyring_is_given_up() {
    let (keyring, journey) = at_a_desktop();
    let first = token(journey.tmpcred(&["token"]));
    let before = work(&journey);
    keyring.freeze();
    status_works(&journey);
    for args in [&["token", "--no-input"][..], &["token"]] {
        let refused = journey.tmpcred(args).limit(BOUNDED).run();
        keyring_locked(refused, "the keyring did not answer in time");
    }
    keyring.thaw();
    assert_eq!(token(journey.tmpcred(&["token"])), first);
    assert_eq!(work(&journey), before, "nobody logged in again");
}

#[test]
fn a_bus_without_a_keyring_leaves_the_kernels() {
    let mut home = Home::nobody();
    let _bus = Keyring::bus(&mut home);
    let journey = Journey::in_home(home);
    let first = token(journey.tmpcred(&["token"]));
    let again = journey.tmpcred(&["token"]).run().ok();
    assert_eq!((again.stdout, again.stderr), (first, String::new()));
    assert!(!super::items(&journey.home, "credential").is_empty());
}
