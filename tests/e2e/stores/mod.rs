//! Where secrets rest between runs, and what becomes of them when something
//! goes wrong there.

mod damage;
mod kernel;
mod kills;
mod no_room;
mod prompt;
mod sealed;
mod secret_service;

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::journey::Journey;
use crate::support::home::{Home, assert_root};
use crate::support::kernel::{Key, keys};
use crate::support::run::Run;
use crate::support::walk::files;

/// Where the program keeps its state, below a home.
const STATE: &str = ".local/state/tmpcred";

/// The claims of a token, without asking who signed it.
pub(crate) fn claims(token: &str) -> Value {
    let payload = token.trim().split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

/// The token that the program prints.
#[track_caller]
fn token(run: Run) -> String {
    run.run().ok().stdout
}

/// The keys of the kernel that this home's user has from the program, such as
/// those of `credential` items.
pub(crate) fn items(home: &Home, kind: &str) -> Vec<Key> {
    let prefix = format!("tmpcred:{kind}-");
    let mut keys = all_items(home);
    keys.retain(|key| key.description.starts_with(&prefix));
    keys
}

/// All of them.
pub(crate) fn all_items(home: &Home) -> Vec<Key> {
    // What was unlinked goes in the kernel's own time: what is linked counts.
    let linked = with_keys(home, "keyctl rlist @u").run().ok().stdout;
    let linked: Vec<i32> = linked.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    let mut keys = keys(home.command("cat"));
    keys.retain(|key| linked.contains(&key.serial));
    // Root's keyring is everybody's; an index tells which keys are of this home.
    let index = std::fs::read_to_string(home.path(STATE).join("index.json")).unwrap_or_default();
    keys.retain(|key| {
        let name = key.description.strip_prefix("tmpcred:");
        name.is_some_and(|name| home.uid().is_some() || index.contains(name))
    });
    keys
}

/// A command of a shell that may read and change the keys of its user.
pub(crate) fn with_keys(home: &Home, script: &str) -> Run {
    home.command("sh").args(["-c", &format!("keyctl link @u @s\n{script}")]).new_session_keyring()
}

/// Forgets the credentials that the kernel keeps for this home.
fn forget_credentials(home: &Home) {
    for key in items(home, "credential") {
        with_keys(home, &format!("keyctl unlink {} @u", key.serial)).run().ok();
    }
}

/// The files of this home that hold what a keyring could not take.
fn sealed_files(home: &Home) -> Vec<PathBuf> {
    files(&home.path(STATE).join("sealed")).into_iter().map(|file| file.path).collect()
}

/// The lock files that lie about in this home.
fn lock_files(home: &Home) -> Vec<PathBuf> {
    let all = files(&home.path("")).into_iter().map(|file| file.path);
    // One for each address of a server stays: nobody waits for it, so it means nothing.
    let is_lock = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "lock");
    all.filter(is_lock).filter(|path| !path.parent().unwrap().ends_with("outages")).collect()
}

/// A home for a test that fills up what a user may have: of a user who is nobody else.
///
/// # Panics
/// Where nobody but root could provide one.
#[track_caller]
fn stranger() -> Home {
    assert_root();
    Home::stranger()
}

/// How many requests the provider has had, and how many tokens the broker issued.
fn work(journey: &Journey) -> (usize, usize) {
    (journey.provider.requests().len(), journey.broker.issued())
}
