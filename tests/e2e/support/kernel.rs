//! The keyring of the kernel, which no test has to itself: it belongs to a user.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;

#[cfg(feature = "broker")]
use linux_keyutils::{KeyRing, KeyRingIdentifier};

use super::peer::program;
use super::run::Run;
use super::walk::files;

/// A key that this user can see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// Its number.
    pub(crate) serial: i32,
    /// How long it lives, as the kernel says it: `perm`, `4m`, `expd`.
    pub(crate) timeout: String,
    /// Its description.
    pub(crate) description: String,
}

/// The keys of type `user` that `run` sees, where `run` reads `/proc/keys`.
pub(crate) fn keys(run: Run) -> Vec<Key> {
    parse(&run.args(["/proc/keys"]).run().ok().stdout)
}

/// One line for each key: serial, flags, usage, timeout, permissions, uid, gid,
/// type, then description and size with a colon between them.
fn parse(text: &str) -> Vec<Key> {
    text.lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [serial, _, _, timeout, _, _, _, "user", rest @ ..] = fields.as_slice() else {
                return None;
            };
            let rest = rest.join(" ");
            let description = rest.rsplit_once(": ").map_or(rest.as_str(), |(name, _)| name);
            Some(Key {
                serial: i32::from_str_radix(serial, 16).ok()?,
                timeout: (*timeout).into(),
                description: description.into(),
            })
        })
        .collect()
}

/// Forgets every key of a user who exists for one test only.
pub(crate) fn forget_all(uid: u32) {
    keyctl(["clear", "@u"], Some(uid));
}

/// Forgets those keys of the user who runs the tests whose name appears below
/// `home`: nobody else has put them there. Others may be that person's own.
pub(crate) fn forget_traces(home: &Path) {
    let Ok(text) = std::fs::read_to_string("/proc/keys") else { return };
    let ours: Vec<Key> =
        parse(&text).into_iter().filter(|key| key.description.contains("tmpcred")).collect();
    if ours.is_empty() {
        return;
    }
    let mut traces = BTreeSet::new();
    for file in files(home) {
        traces.insert(file.path.to_string_lossy().into_owned());
        traces.insert(String::from_utf8_lossy(&file.bytes).into_owned());
    }
    for key in ours {
        let mut names =
            key.description.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_');
        if names.any(|name| name.len() >= 16 && traces.iter().any(|trace| trace.contains(name))) {
            keyctl(["unlink", &key.serial.to_string(), "@u"], None);
        }
    }
}

/// Forgets those registrations of clients of the user who runs the tests that hold one of
/// these secrets.
#[cfg(feature = "broker")]
pub(crate) fn forget_registrations(secrets: &[String]) {
    let Ok(user) = KeyRing::from_special_id(KeyRingIdentifier::User, false) else { return };
    let Ok(process) = KeyRing::from_special_id(KeyRingIdentifier::Process, true) else { return };
    // Only who possesses the keyring may read what is in it.
    let Ok(()) = process.link_keyring(user) else { return };
    for link in user.get_links(1 << 16).iter().flat_map(|links| links.iter()) {
        let Some(key) = link.as_key() else { continue };
        let ours = key
            .metadata()
            .is_ok_and(|about| about.get_description().starts_with("tmpcred:client-"));
        let payload = if ours { key.read_to_vec().unwrap_or_default() } else { Vec::new() };
        let payload = String::from_utf8_lossy(&payload);
        if secrets.iter().any(|secret| payload.contains(secret.as_str())) {
            // One that is gone already is what was wanted.
            let _ = user.unlink_key(key);
        }
    }
}

fn keyctl<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>, uid: Option<u32>) {
    let run = Run::new(program("keyctl"), "/").args(args);
    // A keyring that is gone already is what was wanted.
    let _ = match uid {
        Some(uid) => run.uid(uid),
        None => run,
    }
    .run();
}
