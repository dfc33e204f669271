//! The Secret Service in each of its states.

use crate::support::home::Home;
use crate::support::keyring::{Keyring, look_up_item, store_item};
use crate::support::peer::program;

#[test]
fn an_unlocked_keyring_keeps_items_over_a_restart() {
    for mut home in [Home::new(), Home::nobody()] {
        let mut keyring = Keyring::start(&mut home);
        store_item(&home, "token", "hunter2");
        assert_eq!(look_up_item(&home, "token").as_deref(), Some("hunter2"));
        assert_eq!(look_up_item(&home, "other"), None);
        keyring.unlock(&home);
        assert_eq!(look_up_item(&home, "token").as_deref(), Some("hunter2"));
    }
}

#[test]
fn homes_share_no_keyring() {
    let (mut one, mut other) = (Home::new(), Home::new());
    let _keyrings = [Keyring::start(&mut one), Keyring::start(&mut other)];
    store_item(&one, "token", "hunter2");
    assert_eq!(look_up_item(&other, "token"), None);
}

#[test]
fn a_locked_keyring_gives_and_takes_nothing() {
    let mut home = Home::new();
    let mut keyring = Keyring::start(&mut home);
    store_item(&home, "token", "hunter2");
    keyring.lock(&home);
    assert_eq!(look_up_item(&home, "token"), None);
    keyring.unlock(&home);
    assert_eq!(look_up_item(&home, "token").as_deref(), Some("hunter2"));

    let mut home = Home::new();
    let _keyring = Keyring::locked(&mut home);
    let store = home.command(program("secret-tool")).stdin("x");
    let output = store.args(["store", "--label", "a", "name", "a"]).run().ended_with(1);
    assert!(output.stderr.contains("locked collection"), "{}", output.stderr);
}

#[test]
fn a_frozen_keyring_lets_callers_wait() {
    let mut home = Home::new();
    let keyring = Keyring::start(&mut home);
    store_item(&home, "token", "hunter2");
    keyring.freeze();
    let lookup = home.command(program("secret-tool")).args(["lookup", "name", "token"]).spawn();
    // One that does not wait for long is ended with nothing in its hands (`timeout(1)`).
    let impatient = home.command("timeout").args(["0.3"]).args([program("secret-tool")]);
    assert_eq!(impatient.args(["lookup", "name", "token"]).run().ended_with(124).stdout, "");
    assert_eq!(lookup.stdout(), "");
    keyring.thaw();
    assert_eq!(lookup.wait().ok().stdout, "hunter2");
}

#[test]
fn a_bus_without_a_keyring_says_so_at_once() {
    let mut home = Home::new();
    let mut keyring = Keyring::start(&mut home);
    keyring.stop(&home);
    let lookup = home.command(program("secret-tool")).args(["lookup", "name", "token"]);
    let output = lookup.run().ended_with(1);
    assert!(output.stderr.contains("org.freedesktop.secrets"), "{}", output.stderr);

    let mut home = Home::new();
    let _bus = Keyring::bus(&mut home);
    let lookup = home.command(program("secret-tool")).args(["lookup", "name", "token"]);
    lookup.run().ended_with(1);
}
