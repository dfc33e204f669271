//! What a keyring cannot take rests in sealed files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use serde_json::json;

use super::{
    STATE, claims, forget_credentials, items, sealed_files, stranger, token, with_keys, work,
};
use crate::journey::Journey;
use crate::support::broker::{Broker, BrokerOptions};
use crate::support::browser::Browser;
use crate::support::canary::Canary;
use crate::support::home::Home;
use crate::support::oidc_provider::{OidcOptions, OidcProvider};

/// Leaves so many bytes of what the kernel keeps for this user: enough for the
/// key of the sealed files, too little for a token.
const LEFT: usize = 700;

/// Fills the kernel keyring of this user.
fn fill(home: &Home) {
    let script = format!(
        r#"
        set -e
        use=$(awk -v user="$(id -u):" '$1 == user {{ print $5 }}' /proc/key-users)
        free=$((${{use#*/}} - ${{use%/*}} - {LEFT}))
        head -c "$free" /dev/zero | keyctl padd user filler @u
        "#
    );
    with_keys(home, &script).run().ok();
}

/// Somebody whose keyring took a session, and has no room for credentials.
fn crowded() -> Journey {
    let journey = Journey::in_home(stranger());
    token(journey.tmpcred(&["token", "--ttl", "20m"]));
    fill(&journey.home);
    journey
}

fn sealed_file(journey: &Journey) -> PathBuf {
    let mut files = sealed_files(&journey.home);
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

#[test]
fn a_full_keyring_overflows_into_a_sealed_file() {
    let journey = crowded();
    let first = token(journey.tmpcred(&["token"]));
    let file = sealed_file(&journey);
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    let minted = Canary::of("minted token", first.trim());
    assert_eq!(minted.search_files(&journey.home.path("")), []);
    assert_eq!(items(&journey.home, "credential").len(), 1, "that of 20 minutes");
    let before = work(&journey);
    let again = journey.tmpcred(&["token"]).new_session_keyring().run().ok();
    assert_eq!((again.stdout, again.stderr), (first, String::new()));
    assert_eq!(work(&journey), before, "a hit asks nobody");
    let status = journey.tmpcred(&["status", "--json"]).run().ok().json();
    assert_eq!(status["credentials"].as_array().unwrap().len(), 2);
    journey.tmpcred(&["logout"]).run().ok();
    assert!(sealed_files(&journey.home).is_empty());
}

#[test]
fn a_sealed_file_that_was_changed_counts_as_absent() {
    let journey = crowded();
    let mut last = token(journey.tmpcred(&["token"]));
    let changes: [fn(&mut Vec<u8>); 5] = [
        |bytes| *bytes.last_mut().unwrap() ^= 1,
        // The time at which it ends.
        |bytes| bytes[15] ^= 1,
        |bytes| bytes.truncate(bytes.len() / 2),
        Vec::clear,
        |bytes| *bytes = vec![0xff; 3 * 1024 * 1024],
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let file = sealed_file(&journey);
        let mut bytes = fs::read(&file).unwrap();
        change(&mut bytes);
        fs::write(&file, bytes).unwrap();
        let issued = journey.broker.issued();
        let new = token(journey.tmpcred(&["token"]));
        assert_ne!(new, last, "change {number}");
        assert_eq!(journey.broker.issued(), issued + 1, "change {number}");
        assert_eq!(token(journey.tmpcred(&["token"])), new, "change {number}");
        last = new;
    }
    assert_eq!(journey.provider.count_grants("authorization_code"), 1);
}

#[test]
fn sealed_files_that_change_places_open_nothing() {
    let journey = crowded();
    token(journey.tmpcred(&["token"]));
    token(journey.tmpcred(&["token", "reader"]));
    let files = sealed_files(&journey.home);
    let [one, other] = &files[..] else { panic!("{files:?}") };
    let aside = journey.home.path("work/aside");
    fs::rename(one, &aside).unwrap();
    fs::rename(other, one).unwrap();
    fs::rename(&aside, other).unwrap();
    let issued = journey.broker.issued();
    assert_eq!(claims(&token(journey.tmpcred(&["token"])))["role"], "deploy");
    assert_eq!(claims(&token(journey.tmpcred(&["token", "reader"])))["role"], "reader");
    assert_eq!(journey.broker.issued(), issued + 2);
}

#[test]
fn without_its_key_a_sealed_file_is_minted_anew() {
    let journey = crowded();
    let first = token(journey.tmpcred(&["token"]));
    let forget = "keyctl unlink $(keyctl search @u user tmpcred:sealing-key) @u";
    with_keys(&journey.home, forget).run().ok();
    let second = token(journey.tmpcred(&["token"]));
    assert_ne!(first, second);
    assert_eq!(token(journey.tmpcred(&["token"])), second);
}

#[test]
fn a_session_that_no_key_of_the_kernel_can_hold_is_sealed() {
    // Somebody in very many groups.
    let groups: Vec<String> = (0..300).map(|n| format!("{n:0100}")).collect();
    let provider = OidcProvider::start_with(&OidcOptions {
        users: [("alice", json!({ "groups": groups }))].into(),
        ..OidcOptions::default()
    });
    let mut home = Home::stranger();
    let broker = Broker::start(&BrokerOptions::trusting(provider.issuer()));
    let browser = Browser::http().user("alice", "x").install(&mut home);
    let journey = Journey::of(provider, broker, home);
    token(journey.tmpcred(&["token"]));
    assert_eq!(items(&journey.home, "session"), []);
    let file = sealed_file(&journey);
    assert!(file.metadata().unwrap().len() > 32 * 1024);
    assert!(file.starts_with(journey.home.path(STATE).join("sealed/kernel")), "{file:?}");
    // It is a session as good as any other.
    assert_eq!(claims(&token(journey.tmpcred(&["token", "reader"])))["role"], "reader");
    assert_eq!(browser.opened().len(), 1);
    fs::write(&file, "garbage").unwrap();
    forget_credentials(&journey.home);
    token(journey.tmpcred(&["token"]));
    assert_eq!(browser.opened().len(), 2);
}
