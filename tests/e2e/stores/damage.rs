//! Files and keys that something has damaged.

use std::fs;

use super::{STATE, forget_credentials, items, lock_files, token, with_keys, work};
use crate::journey::Journey;
use crate::support::home::Home;
use crate::support::kernel::Key;
use crate::support::walk::files;

/// What stands in a damaged file.
fn garbage() -> Vec<Vec<u8>> {
    vec![
        Vec::new(),
        b"{\"v\":1,\"sessions\":[{".to_vec(),
        b"[[[[[[[[[[".repeat(20_000),
        vec![0; 100],
        (0..=255).cycle().take(6 * 1024 * 1024).collect(),
    ]
}

#[test]
fn a_damaged_index_loses_no_secret() {
    let journey = Journey::start();
    let first = token(journey.tmpcred(&["token"]));
    let index = journey.home.path(STATE).join("index.json");
    for bytes in garbage() {
        fs::write(&index, &bytes).unwrap();
        let before = journey.provider.count_grants("authorization_code");
        assert_eq!(token(journey.tmpcred(&["token"])), first);
        journey.tmpcred(&["status", "--json"]).run().ok().json();
        assert_eq!(journey.provider.count_grants("authorization_code"), before);
    }
    assert_eq!(journey.broker.issued(), 1);
    // The next entry makes it good again, and logging out forgets also what it
    // did not know.
    token(journey.tmpcred(&["token", "reader"]));
    let status = journey.tmpcred(&["status", "--json"]).run().ok().json();
    assert_eq!(status["credentials"][0]["profile"], "reader");
    assert_eq!(items_by_name(&journey.home), 3);
    journey.tmpcred(&["logout"]).run().ok();
    assert_eq!(items_by_name(&journey.home), 0);
}

fn items_by_name(home: &Home) -> usize {
    items(home, "credential").len() + items(home, "session").len()
}

#[test]
fn damaged_locks_keep_nobody_out() {
    let journey = Journey::start();
    token(journey.tmpcred(&["token"]));
    let mut names: Vec<String> = ["credential", "session"]
        .iter()
        .flat_map(|kind| items(&journey.home, kind))
        .map(|key| key.description.strip_prefix("tmpcred:").unwrap().to_string())
        .map(|name| format!("run/tmpcred/locks/{name}.lock"))
        .collect();
    assert_eq!(names.len(), 2);
    // That of the index is beside it.
    names.push(".local/state/tmpcred/locks/index.lock".into());
    for bytes in garbage() {
        for name in &names {
            journey.home.write(name, &bytes);
        }
        let issued = journey.broker.issued();
        forget_credentials(&journey.home);
        token(journey.tmpcred(&["token"]));
        assert_eq!(journey.broker.issued(), issued + 1);
    }
    journey.tmpcred(&["logout"]).run().ok();
    assert_eq!(lock_files(&journey.home), [""; 0].map(std::path::PathBuf::from));
}

#[test]
fn damaged_documents_are_fetched_again() {
    let journey = Journey::start();
    token(journey.tmpcred(&["token"]));
    let documents = journey.home.path(STATE).join("documents");
    assert!(!files(&documents).is_empty());
    for bytes in garbage() {
        for document in files(&documents) {
            fs::write(&document.path, &bytes).unwrap();
        }
        forget_credentials(&journey.home);
        token(journey.tmpcred(&["token"]));
    }
    assert_eq!(journey.provider.count_grants("authorization_code"), 1);
}

/// Puts something else into a key of the kernel.
fn overwrite(home: &Home, key: &Key, bytes: &[u8]) {
    let script = format!("keyctl pupdate {}", key.serial);
    with_keys(home, &script).stdin(bytes).run().ok();
}

const BROKEN_ITEMS: [&[u8]; 4] =
    [b"garbage", b"{}", b"\0\xff\xfe", b"{\"v\":1,\"role\":\"admin\"}"];

#[test]
fn a_damaged_credential_is_minted_anew() {
    let journey = Journey::start();
    let mut last = token(journey.tmpcred(&["token"]));
    for bytes in BROKEN_ITEMS {
        let before = work(&journey).1;
        overwrite(&journey.home, &items(&journey.home, "credential")[0], bytes);
        let new = token(journey.tmpcred(&["token"]));
        assert_ne!(new, last);
        assert_eq!(work(&journey).1, before + 1);
        assert_eq!(token(journey.tmpcred(&["token"])), new);
        last = new;
    }
    assert_eq!(journey.provider.count_grants("authorization_code"), 1);
}

#[test]
fn a_damaged_session_is_one_more_login() {
    let journey = Journey::start();
    token(journey.tmpcred(&["token"]));
    for (number, bytes) in (2..).zip(BROKEN_ITEMS) {
        overwrite(&journey.home, &items(&journey.home, "session")[0], bytes);
        forget_credentials(&journey.home);
        token(journey.tmpcred(&["token"]));
        assert_eq!(journey.provider.count_grants("authorization_code"), number);
    }
}
