use std::time::Instant;

use super::*;
use crate::host::files;
use crate::host::process::{command, runtime};

fn sh(script: &str, limit: Duration, max: usize) -> Ended {
    let mut command = command("sh");
    command.args(["-c", script]);
    runtime().unwrap().block_on(output(command, limit, max)).unwrap()
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn what_is_printed_and_said_is_taken() {
    let Ended::Itself { status, stdout, stderr } = sh("echo out; echo err >&2; exit 3", LONG, 4)
    else {
        panic!("it was killed")
    };
    assert_eq!(
        (status.code(), stdout.expose().as_slice(), &*stderr),
        (Some(3), &b"out\n"[..], "err")
    );
}

#[test]
fn what_is_handed_arrives_whole_and_need_not_be_read() {
    let hand = |script: &str, bytes: usize| {
        let mut command = command("sh");
        command.args(["-c", script]);
        let input = Secret::new(vec![b'x'; bytes]);
        runtime().unwrap().block_on(fed(command, &input, LONG, 100)).unwrap()
    };
    for (script, bytes, says) in [("wc -c", 300_000, "300000"), ("echo no", 300_000, "no")] {
        let Ended::Itself { status, stdout, .. } = hand(script, bytes) else {
            panic!("it was killed")
        };
        assert!(status.success());
        assert_eq!(String::from_utf8_lossy(stdout.expose()).trim(), says);
    }
}

#[test]
fn what_prints_or_says_without_end_is_bounded() {
    assert!(matches!(sh("exec yes", LONG, 1000), Ended::TooMuch));
    // Nor is one that does not care whether anybody listens.
    let deaf = "trap '' PIPE; while :; do echo x; done 2>/dev/null";
    assert!(matches!(sh(deaf, LONG, 1000), Ended::TooMuch));
    let Ended::Itself { stderr, .. } = sh("yes | head -c 5000000 >&2; echo last >&2", LONG, 4)
    else {
        panic!("it was killed")
    };
    assert!(stderr.len() <= STDERR_KEPT && stderr.ends_with("last"));
}

#[test]
fn what_takes_too_long_is_killed_with_all_that_it_started() {
    let root = tempfile::tempdir().unwrap();
    let pids = root.path().join("pids");
    let script =
        format!("sleep 600 & echo $! >{0}; echo $$ >>{0}; echo so far >&2; wait", pids.display());
    let Ended::TooLong(stderr) = sh(&script, Duration::from_secs(2), 4) else {
        panic!("it ended by itself")
    };
    assert_eq!(stderr, "so far");
    let pids = files::read_text(&pids, 100).unwrap().unwrap();
    assert_eq!(pids.lines().count(), 2);
    let until = Instant::now() + LONG;
    for pid in pids.lines() {
        let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
        // A process that was killed and not yet waited for counts as gone.
        let gone = || {
            let stat = files::read_text(
                std::path::Path::new(&format!("/proc/{}/stat", pid.as_raw_nonzero())),
                10_000,
            );
            rustix::process::test_kill_process(pid).is_err()
                || stat.ok().flatten().is_none_or(|stat| stat.contains(") Z "))
        };
        while !gone() {
            assert!(Instant::now() < until, "{pid:?} still runs");
            std::thread::yield_now();
        }
    }
}

#[test]
fn what_is_left_behind_with_the_pipes_is_not_waited_for() {
    let Ended::Itself { stdout, .. } = sh("sleep 600 & echo out", LONG, 10) else {
        panic!("it was killed")
    };
    assert_eq!(stdout.expose().as_slice(), b"out\n");
}

#[test]
fn a_daemon_that_keeps_the_pipes_is_not_waited_for() {
    // It has begun a session of its own, and nobody kills it with the group.
    let script = "setsid sleep 100 & until read -r _ _ _ _ _ session _ </proc/$!/stat; \
                  [ \"$session\" = $! ]; do :; done; echo said >&2; echo $!";
    let Ended::Itself { status, stdout, stderr } = sh(script, LONG, 20) else {
        panic!("it was killed")
    };
    assert!(status.success());
    assert_eq!(stderr, "said");
    let pid = String::from_utf8_lossy(stdout.expose()).trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn what_prints_in_a_session_of_its_own_is_read_to_its_end() {
    // As `setsid` leaves a program where it was started as the leader of a group.
    let script = "setsid sh -c 'sleep 2; echo late' & \
                  until read -r _ _ _ _ _ session _ </proc/$!/stat; [ \"$session\" = $! ]; do :; done";
    let Ended::Itself { status, stdout, .. } = sh(script, LONG, 20) else {
        panic!("it was killed")
    };
    assert!(status.success());
    assert_eq!(stdout.expose(), b"late\n");
}
