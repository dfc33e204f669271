//! The keyring of the kernel, and a machine that has no keyring at all.

use std::ffi::OsString;

use super::{STATE, items, token, work};
use crate::journey::Journey;
use crate::support::canary::Canary;
use crate::support::home::{Home, through};
use crate::support::run::Run;

#[test]
fn every_session_of_a_user_finds_what_another_left() {
    for home in [Home::nobody(), Home::stranger()] {
        let journey = Journey::in_home(home);
        let tmpcred = |args: &[&str]| journey.tmpcred(args).new_session_keyring();
        let show = ["exec", "--", "sh", "-c", "echo $TMPCRED_TOKEN"];
        let first = token(tmpcred(&show));
        let before = work(&journey);
        assert_eq!(before.1, 1);
        assert_eq!(token(tmpcred(&["token"])), first);
        assert_eq!(token(tmpcred(&show)), first);
        assert_eq!(work(&journey), before, "a hit asks nobody");
        tmpcred(&["logout"]).run().ok();
        assert_eq!(items(&journey.home, "credential"), []);
        assert_eq!(items(&journey.home, "session"), []);
    }
}

#[test]
fn the_kernel_itself_ends_a_credential() {
    let journey = Journey::start();
    token(journey.tmpcred(&["token"]));
    token(journey.tmpcred(&["token", "--ttl", "10m"]));
    let credentials = items(&journey.home, "credential").into_iter();
    let mut minutes: Vec<u32> =
        credentials.map(|key| key.timeout.strip_suffix('m').unwrap().parse().unwrap()).collect();
    minutes.sort_unstable();
    assert!(matches!(minutes[..], [7..=10, 27..=30]), "{minutes:?}");
    let sessions = items(&journey.home, "session");
    assert_eq!(sessions.iter().map(|key| &*key.timeout).collect::<Vec<_>>(), ["perm"]);
}

/// Becomes a program whose system calls for keys are refused, as those of a
/// container are.
const WITHOUT_KEYS: &str = r#"
import ctypes, os, platform, struct, sys
numbers = {"x86_64": (248, 249, 250), "aarch64": (217, 218, 219)}[platform.machine()]
load, equal, end = 0x20, 0x15, 0x06
code = [struct.pack("HBBI", load, 0, 0, 0)]
for left, number in zip((3, 2, 1), numbers):
    code.append(struct.pack("HBBI", equal, left, 0, number))
code.append(struct.pack("HBBI", end, 0, 0, 0x7fff0000))
code.append(struct.pack("HBBI", end, 0, 0, 0x00050001))
code = b"".join(code)
class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0, "no new privileges"
program = Program(len(code) // 8, code)
assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execvp(sys.argv[1], sys.argv[1:])
"#;

/// The program where no system call for keys is allowed.
fn without_keys(journey: &Journey, args: &[&str]) -> Run {
    let filter = ["-c", WITHOUT_KEYS].map(OsString::from);
    through(&journey.home, "python3", |words| [filter.to_vec(), words].concat()).args(args)
}

#[test]
fn without_any_keyring_a_run_works_by_itself_and_says_so_once() {
    let journey = Journey::start();
    let output = without_keys(&journey, &["exec", "--", "sh", "-c", "echo $TMPCRED_TOKEN"]).run();
    let output = output.ok();
    let warnings: Vec<_> = output.stderr.lines().filter(|line| line.contains("warning")).collect();
    assert_eq!(warnings.len(), 1, "{}", output.stderr);
    assert!(warnings[0].contains("nothing is remembered after this run"), "{warnings:?}");
    nothing_is_left(&journey, &output.stdout);
    // So the next one begins anew.
    without_keys(&journey, &["token"]).run().ok();
    assert_eq!(journey.provider.count_grants("authorization_code"), 2);
    assert_eq!(journey.broker.issued(), 2);
}

#[test]
fn whoever_chooses_memory_hears_nothing_of_it() {
    let mut journey = Journey::start();
    journey.home.set("TMPCRED_CACHE_STORE", "memory");
    let output = journey.tmpcred(&["token"]).run().ok();
    assert!(!output.stderr.contains("warning"), "{}", output.stderr);
    nothing_is_left(&journey, &output.stdout);
}

#[track_caller]
fn nothing_is_left(journey: &Journey, token: &str) {
    let minted = Canary::of("minted token", token.trim());
    assert_eq!(minted.search_files(&journey.home.path("")), []);
    assert!(!journey.home.path(STATE).join("index.json").exists());
    assert!(super::sealed_files(&journey.home).is_empty());
    assert_eq!(items(&journey.home, "credential"), []);
    assert_eq!(items(&journey.home, "session"), []);
}
