//! Commands whose output goes through us, with real pipes.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Instant;

use crate::host::files;

use super::super::stage::{Stage, Talk, output, until};

/// Plays `sh -c script` and returns the two streams, without what the test runner
/// says at the beginning.
fn played(script: &str) -> std::process::Output {
    let stage = Stage::new();
    output(&mut stage.play("mask", &["sh", "-c", script]))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn both_streams_are_masked_and_the_command_ends_as_it_ends() {
    let script = "echo \"out $TMPCRED_TOKEN.\"; echo \"err $MINE.\" >&2; \
                  printf %s \"$TMPCRED_TOKEN\" | base64; exit 7";
    let played = played(script);
    assert_eq!(played.status.code(), Some(7));
    assert_eq!(text(&played.stdout), "out ***.\n***\n");
    assert_eq!(text(&played.stderr), "err ***.\n");
    let killed = super::tests::played("echo \"$TMPCRED_TOKEN\"; kill -TERM $$");
    assert_eq!((killed.status.signal(), text(&killed.stdout)), (Some(15), "***\n".into()));
}

#[test]
fn a_secret_written_in_pieces_is_masked() {
    let script = "printf token-; sleep 0.3; printf 'mask.\\n'; printf to";
    assert_eq!(text(&played(script).stdout), "toke***.\nto");
}

#[test]
fn much_output_waits_for_a_slow_reader_and_arrives_whole() {
    let stage = Stage::new();
    let script = "head -c 3000000 /dev/zero | tr '\\0' e; echo; echo DONE >&2";
    let mut play = stage.play("mask", &["sh", "-c", script]);
    let mut child = play.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(play);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut header = String::new();
    while header != "running 1 test\n" {
        header.clear();
        assert_ne!(stdout.read_line(&mut header).unwrap(), 0);
    }
    // Nobody reads: neither the command nor we can have come to the end.
    std::thread::park_timeout(std::time::Duration::from_millis(200));
    assert!(child.try_wait().unwrap().is_none());
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len(), 3_000_001);
    assert!(child.wait().unwrap().success());
}

/// Starts a command that is to be started again, and whose output fits into the pipes but not
/// into the one that nobody reads. Returns once it has ended.
fn with_output_that_waits(stage: &Stage) -> std::process::Child {
    let script = "echo $$ >pid; echo x >>starts; head -c 100000 /dev/zero | tr '\\0' e; exit 3";
    let mut play = stage.play("mask-again", &["sh", "-c", script]);
    let child = play.stdout(Stdio::piped()).spawn().unwrap();
    let written = || files::read_text(&stage.path("pid"), 99).unwrap();
    let command = || written().and_then(|pid| pid.trim().parse().ok());
    until("the start of the command", || command().is_some());
    let command = command().unwrap();
    until("its end", || super::super::stage::state(command).is_none());
    child
}

#[test]
fn who_is_told_to_end_while_output_is_passed_on_starts_nothing_again() {
    for (told, starts) in [(true, "x\n"), (false, "x\nx\n")] {
        let stage = Stage::new();
        let mut child = with_output_that_waits(&stage);
        if told {
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        }
        let mut rest = Vec::new();
        child.stdout.take().unwrap().read_to_end(&mut rest).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(3));
        assert_eq!(files::read_text(&stage.path("starts"), 99).unwrap().unwrap(), starts);
    }
}

#[test]
fn a_reader_that_is_gone_ends_the_command() {
    let stage = Stage::new();
    let mut play = stage.play("mask", &["sh", "-c", "yes; kill -USR1 $$"]);
    let mut child = play.stdout(Stdio::piped()).spawn().unwrap();
    drop(play);
    let mut some = [0; 100_000];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(10), "`yes` has ended");
}

#[test]
fn what_is_left_behind_is_not_waited_for_long() {
    let script = "(sleep 0.1; echo late; exec sleep 1000 2>/dev/null) & echo $!. >&2; exit 3";
    for mode in ["mask", "mask-patient"] {
        let (started, stage) = (Instant::now(), Stage::new());
        let played = output(&mut stage.play(mode, &["sh", "-c", script]));
        assert_eq!(played.status.code(), Some(3));
        // On a busy machine it may come too late for the usual time.
        let in_time = text(&played.stdout).starts_with("late\n");
        assert!(in_time || mode == "mask", "{}", text(&played.stdout));
        assert!(started.elapsed().as_secs() < 60);
        let left = text(&played.stderr).trim_end_matches(".\n").parse().unwrap();
        let left = rustix::process::Pid::from_raw(left).unwrap();
        let killed = rustix::process::kill_process(left, rustix::process::Signal::KILL);
        // It has ended by itself where its output was closed before it wrote.
        assert!(killed.is_ok() || !in_time);
    }
}

#[test]
fn signals_are_passed_on_while_output_flows() {
    let stage = Stage::new();
    let mut talk = Talk::start(stage.play("mask", &["witness"]));
    let witness = talk.expect_witness();
    let pid = rustix::process::Pid::from_raw(i32::try_from(talk.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    talk.expect("GOT 15\n");
    talk.say("token-mask\n");
    talk.expect("HEARD *** AFTER");
    talk.say("quit\n");
    assert_eq!(talk.end().code(), Some(9));
    until("the end of the command", || super::super::stage::state(witness.pid).is_none());
}
