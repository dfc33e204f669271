//! How commands are found and started; for both ways of starting them.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Output;

use super::super::stage::{Stage, output, without_terminal};
use super::*;

const MODES: [&str; 2] = ["replace", "supervise"];

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{:?} {}", output.status, text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn codes_and_signals_of_the_command_are_passed_on() {
    let stage = Stage::new();
    for mode in MODES {
        for code in [0, 1, 7, 125, 126, 127, 128, 255] {
            let status = stage.played(mode, &["sh", "-c", &format!("exit {code}")]).status;
            assert_eq!(status.code(), Some(code), "{mode}");
        }
        for signal in [1, 2, 3, 6, 9, 11, 13, 15, 34, 64] {
            let status = stage.played(mode, &["sh", "-c", &format!("kill -{signal} $$")]).status;
            assert_eq!(status.signal(), Some(signal), "{mode}");
        }
    }
}

#[test]
fn no_core_is_left_for_a_core_of_the_command() {
    let stage = Stage::new();
    let script = "ulimit -S -c 0; kill -SEGV $$";
    let status = stage.played("supervise", &["sh", "-c", script]).status;
    assert!(status.signal() == Some(11) && !status.core_dumped(), "{status:?}");
}

#[test]
fn a_missing_command_is_127_and_one_that_cannot_run_is_126() {
    let stage = Stage::new();
    let dir = stage.path("");
    let plain = stage.file("plain", "#!/bin/sh\nexit 0\n");
    let orphan = stage.script("orphan", "#!/no/such/interpreter\n");
    let cases: &[(&[&str], i32, &str)] = &[
        (&["no-such-command", "x"], 127, "there is no command no-such-command"),
        (&["/no/such/command", "x"], 127, "check the spelling and the current directory"),
        (&["", "x"], 127, "there is no command"),
        (&["echo hello"], 127, "leave the quotes out"),
        (&["plain", "x"], 126, "chmod +x"),
        (&[plain.to_str().unwrap()], 126, "chmod +x"),
        (&[&format!("{}/x", plain.display())], 127, "Not a directory"),
        (&[dir.to_str().unwrap()], 126, "is a directory"),
        (&[orphan.to_str().unwrap()], 126, "the interpreter that"),
        (&["orphan"], 126, "the interpreter that"),
        (&["true", "TOO-LONG"], 126, "share one limit"),
    ];
    for mode in MODES {
        for (words, code, why) in cases {
            let played = stage.played(mode, words);
            let errors = text(&played.stderr);
            assert_eq!(played.status.code(), Some(*code), "{mode} {words:?} {errors}");
            assert!(errors.contains(why), "{mode} {words:?}: {errors}");
        }
    }
}

#[test]
fn what_is_no_command_at_all_is_our_own_failure() {
    let stage = Stage::new();
    let none: [&str; 0] = [];
    for mode in MODES {
        for (words, why) in [(&none[..], "exec -- COMMAND"), (&["true", "NUL"], "nul byte")] {
            let played = stage.played(mode, words);
            let errors = text(&played.stderr);
            assert!(played.status.code() == Some(125) && errors.contains(why), "{mode} {errors}");
        }
    }
}

#[test]
fn a_failure_can_be_told_even_if_nobody_reads_it() {
    let stage = Stage::new();
    for mode in MODES {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut play = stage.play(mode, &["no-such-command", "x"]);
        let status = play.stdout(std::process::Stdio::null()).stderr(writer).status().unwrap();
        // The stand-in panics when it cannot write; what matters is that it lives to.
        assert_eq!(status.signal(), None, "{mode}");
    }
}

#[test]
fn a_file_beside_us_is_pointed_out() {
    let stage = Stage::new();
    stage.script("here", "#!/bin/sh\n");
    for mode in MODES {
        let played = output(stage.play(mode, &["here", "x"]).env("PATH", "/usr/bin:/bin"));
        assert_eq!(played.status.code(), Some(127));
        assert!(text(&played.stderr).contains("write ./here"), "{}", text(&played.stderr));
    }
}

#[test]
fn a_script_without_an_interpreter_runs_in_sh() {
    let stage = Stage::new();
    stage.script("bare", "echo \"bare $1\"; exit 3\n");
    for mode in MODES {
        let played = stage.played(mode, &["bare", "x"]);
        assert_eq!((played.status.code(), text(&played.stdout)), (Some(3), "bare x\n".into()));
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test of files that move")]
fn the_command_is_looked_for_in_the_path_it_runs_with() {
    let stage = Stage::new();
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let twin = stage.script("twin", "#!/bin/sh\necho second\n");
    std::fs::rename(&twin, second.path().join("twin")).unwrap();
    // Not executable: the search goes on.
    let plain = stage.file("plain", "#!/bin/sh\necho first\n");
    std::fs::rename(plain, first.path().join("twin")).unwrap();
    let path = format!("{}:{}:/usr/bin:/bin", first.path().display(), second.path().display());
    for mode in MODES {
        let played = output(stage.play(mode, &["twin"]).env("PATH", &path));
        assert_eq!(succeeded(&played), "second\n", "{mode}");
    }
}

#[test]
fn arguments_and_variables_are_passed_on_byte_by_byte() {
    let stage = Stage::new();
    let odd = OsStr::from_bytes(b"caf\xe9 \xff");
    let words = [OsStr::new("sh"), OsStr::new("-c"), OsStr::new("printf '%s|' \"$@\" \"$ODD\"")];
    let words =
        [&words[..], &[OsStr::new("sh"), odd, OsStr::new(""), OsStr::new("-n $x *")]].concat();
    for mode in MODES {
        let played = output(stage.play(mode, &words).env("ODD", odd));
        assert_eq!(played.stdout, b"caf\xe9 \xff||-n $x *|caf\xe9 \xff|", "{mode}");
    }
}

#[test]
fn the_command_gets_our_variables_and_otherwise_what_we_got() {
    let stage = Stage::new();
    let variables = |command: &mut Command| {
        let shown = succeeded(&output(command.env("EMPTY", "").env("LINES2", "a\nb")));
        let mut entries: Vec<String> = shown.split_terminator('\0').map(String::from).collect();
        // The shell that the stand-in is a script of keeps this one up to date.
        entries.retain(|entry| !entry.starts_with("PWD="));
        entries.sort();
        entries
    };
    let mut plain = variables(stage.bare("env").arg("-0"));
    for mode in MODES {
        let mut expected = plain.clone();
        expected.extend([
            format!("MINE=Bearer token-{mode}"),
            format!("TMPCRED_ACTIVE_PROFILE={mode}"),
            "TMPCRED_EXPIRES_AT=2026-01-01T12:15:00Z".into(),
            "TMPCRED_MAPPED=MINE".into(),
            "TMPCRED_ROLE=deploy".into(),
            format!("TMPCRED_TOKEN=token-{mode}"),
        ]);
        expected.sort();
        assert_eq!(variables(&mut stage.play(mode, &["env", "-0"])), expected);
    }
    // The inner run wins over the outer one.
    plain = variables(&mut stage.play("supervise", &["env", "-0"]));
    let nested = ["play", "supervise", "env", "-0"];
    assert_eq!(variables(&mut stage.play("replace", &nested)), plain);
}

#[test]
fn open_files_signals_and_limits_are_as_without_us() {
    let stage = Stage::new();
    let shown: [&[&str]; 2] = [
        &["sh", "-c", "cd /proc/self/fd; echo *; ulimit -S -c"],
        // Shells have masks and actions of their own.
        &["grep", "-E", "^Sig(Blk|Ign|Cgt)", "/proc/self/status"],
    ];
    // A limit that can be told from ours, if the machine allows one at all.
    let settings = "ulimit -S -c $(ulimit -H -c); exec 9</dev/null";
    // That SIGPIPE was ignored is lost at the start of any Rust program.
    let mask = "import os, signal, sys; signal.signal(signal.SIGPIPE, signal.SIG_DFL); \
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGALRM}); \
                os.execvp(sys.argv[1], sys.argv[1:])";
    let surroundings: [&[&str]; 3] = [
        &["sh", "-c", &format!("{settings}; exec \"$@\""), "sh"],
        &["sh", "-c", &format!("{settings}; trap '' HUP INT QUIT TSTP USR2; exec \"$@\""), "sh"],
        &["python3", "-c", mask],
    ];
    for (surrounding, show) in surroundings.iter().flat_map(|s| shown.map(|show| (s, show))) {
        let seen = |words: &[&str]| {
            let mut command = stage.bare(surrounding[0]);
            command.args(&surrounding[1..]).args(words).args(show);
            without_terminal(&mut command);
            succeeded(&output(&mut command))
        };
        let plain = seen(&[]);
        for mode in MODES {
            assert_eq!(seen(&["play", mode]), plain, "{mode} in {surrounding:?}");
        }
    }
}
