//! A job in containers without a keyring, whose steps share a directory: the cache is
//! sealed under a key that the job brings.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::support::canary::Canary;
use crate::support::walk::files;

/// Two keys, as `openssl rand -base64 32` makes them.
const ONE: &str = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=";
const TWO: &str = "7xI0VniQq83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq80=";
const KEY: &str = "TMPCRED_CACHE_KEY";

/// A step: `state` is where the directory that the steps share is in its container.
fn step(site: &Site, args: &[&str], key: &str) -> Run {
    site.in_github("build", "one", args)
        .env(KEY, key)
        .env("XDG_STATE_HOME", site.home.path("shared"))
        .new_session_keyring()
}

#[test]
fn steps_share_what_is_sealed_and_nobody_else_can_read_it() {
    let site = Site::start("");
    let token = step(&site, TOKEN, ONE).run().ok().stdout;
    // The keyring of the kernel has nothing of it.
    super::super::stores::with_keys(&site.home, "keyctl rlist @u").run().ok();
    assert!(super::super::stores::items(&site.home, "credential").is_empty());
    let again = step(&site, TOKEN, ONE).run().ok();
    assert_eq!(again.stdout, token);
    assert!(again.stderr.contains(&format!("::add-mask::{ONE}\n")), "{}", again.stderr);
    assert_eq!((site.platform.asked().len(), site.broker.issued()), (1, 1));
    let sealed = files(&site.home.path("shared/tmpcred/sealed"));
    let [file] = &sealed[..] else { panic!("{} files", sealed.len()) };
    assert_eq!(file.path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    let minted = Canary::of("minted token", token.trim());
    assert_eq!(minted.search_files(&site.home.path("")), []);
    assert_eq!(Canary::of("cache key", ONE).search_files(&site.home.path("")), []);
    let report = step(&site, &["explain", "--json"], ONE).run().ok().json();
    assert_eq!(report["cache"]["state"], "hit", "{report}");
    let store = "files sealed under TMPCRED_CACHE_KEY";
    assert_eq!(report["cache"]["store"], store);
    let status = step(&site, &["status", "--json"], ONE).run().ok().json();
    assert_eq!(status["store"], store);
    let table = step(&site, &["status"], ONE).run().ok().stdout;
    assert!(table.contains(&format!("They are kept in: {store}")), "{table}");
    // What is configured wins, and so does the keyring where no key is brought.
    let memory = step(&site, &["explain", "--json"], ONE).env("TMPCRED_CACHE_STORE", "memory");
    assert_eq!(memory.run().ok().json()["cache"]["store"], "memory of this run");
    let plain = site.in_github("build", "one", &["explain", "--json"]);
    assert_eq!(plain.run().ok().json()["cache"]["store"], "kernel keyring");
}

#[test]
fn another_key_is_a_miss_and_loses_nothing() {
    let site = Site::start("");
    let token = step(&site, TOKEN, ONE).run().ok().stdout;
    let other = step(&site, TOKEN, TWO).run().ok();
    assert_ne!(other.stdout, token);
    let warnings: Vec<_> = other.stderr.lines().filter(|l| l.contains("warning")).collect();
    let [warning] = &warnings[..] else { panic!("{}", other.stderr) };
    assert!(warning.contains("sealed under another TMPCRED_CACHE_KEY"), "{warning}");
    assert_eq!(step(&site, TOKEN, ONE).run().ok().stdout, token);
    assert_eq!(step(&site, TOKEN, TWO).run().ok().stdout, other.stdout);
    assert_eq!(site.broker.issued(), 2);
}

#[test]
fn what_is_no_key_is_refused_before_anything_is_minted() {
    let site = Site::start("");
    for (bad, why) in [("c2hvcnQ=", "it has 5 bytes; a key has 32"), ("§", "it is not Base64")] {
        let says = ["TMPCRED_CACHE_KEY is no key", why, "hint: make one with: openssl rand"];
        refused(step(&site, TOKEN, bad), 3, &says);
        refused(step(&site, &["status"], bad), 3, &says);
    }
    let named = site.in_github("build", "one", TOKEN).env("TMPCRED_CACHE_STORE", "sealed");
    refused(named, 3, &["the store `sealed` has no key", "TMPCRED_CACHE_KEY is not set"]);
    assert_eq!(site.broker.issued(), 0);
}

#[test]
fn the_command_never_gets_the_key_and_cannot_print_it() {
    let site = Site::start("");
    let script = format!("printenv {KEY}; echo {ONE}; echo -{ONE}- >&2");
    for options in [&["--mask=no", "--revoke-on-exit=false"][..], &[]] {
        let args = [&["exec"], options, &["--", "sh", "-c", &script]].concat();
        let output = step(&site, &args, ONE).run().ok();
        let shown = if options.is_empty() { "***" } else { ONE };
        assert_eq!(output.stdout, format!("{shown}\n"), "printenv found nothing");
        assert_eq!(output.stderr, format!("-{shown}-\n"));
    }
}
