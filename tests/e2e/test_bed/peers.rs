//! Peers end with their test, whatever happens to it.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::home::gone;
use crate::support::peer::{Peer, node_script, program, supervised};
use crate::support::wait::{free_port, reserved_for_tests, wait_until};

fn sleeper(directory: &Path) -> Peer {
    let mut command = supervised(&program("sh"), Path::new("/dev/null"));
    command.args(["-c", "echo ready >&2; sleep 600 & wait"]);
    let mut peer = Peer::start("sleeper", command, directory.join("log"));
    let log = directory.join("log");
    peer.until_ready(|| std::fs::read_to_string(&log).ok().filter(|text| text.contains("ready")));
    peer
}

#[test]
fn a_peer_ends_when_its_test_panics() {
    let files = tempfile::tempdir().unwrap();
    let mut pid = None;
    let failed = catch_unwind(AssertUnwindSafe(|| {
        let peer = sleeper(files.path());
        pid = Some(peer.pid());
        panic!("on purpose");
    }));
    assert!(failed.is_err());
    assert!(gone(pid.unwrap()));
}

#[test]
fn a_peer_ends_when_its_test_is_killed() {
    let files = tempfile::tempdir().unwrap();
    let mut peer = sleeper(files.path());
    // The kernel closes the pipes of a process that is no more.
    peer.abandon();
    wait_until("the peer's end", Duration::from_secs(60), || (!peer.runs()).then_some(()));
}

#[test]
#[should_panic(expected = "no-such-thing ended at once: sh: 1: no-such-thing: not found")]
fn a_peer_that_does_not_start_says_why() {
    let files = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "echo 'sh: 1: no-such-thing: not found' >&2"]);
    let mut peer = Peer::start("no-such-thing", command, files.path().join("log"));
    peer.until_ready(|| None::<()>);
}

#[test]
#[should_panic(expected = "no-such-program is missing: run tests/setup")]
fn a_missing_program_is_named() {
    program("no-such-program");
}

#[test]
fn scripts_are_where_they_are_looked_for() {
    assert!(node_script("oidc-provider.mjs").is_file());
}

#[test]
#[cfg(target_os = "linux")]
fn a_port_is_nobody_elses_also_before_a_peer_listens_there() {
    let ports: BTreeSet<u16> = (0..200).map(|_| free_port()).collect();
    assert_eq!(ports.len(), 200, "each is given once");
    // Whoever asks for any port, also for a connection, gets none of them.
    let reserved = reserved_for_tests();
    assert!(ports.iter().all(|port| reserved.contains(port)), "{ports:?} in {reserved:?}");
    let any = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert!(!reserved.contains(&any), "{any} in {reserved:?}");
    // Nor another process that is about to start a peer: to it, they are names that are taken.
    let mine = std::fs::read_to_string("/proc/net/unix").unwrap();
    for port in &ports {
        let name = format!("@tmpcred-test-port-{port}");
        assert_eq!(mine.lines().filter(|line| line.ends_with(&name)).count(), 1, "{name}");
    }
}
