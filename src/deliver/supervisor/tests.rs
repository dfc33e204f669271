//! Signals, terminals and job control, with real shells in real terminals.

use std::os::unix::process::ExitStatusExt;

use rustix::process::{Pid, Signal, kill_process};

use super::super::stage::{Stage, Talk, Witness, state, until};

fn kill(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// A signal for the thread that supervises. The program has it in its first thread, which
/// is the one that systems choose; here that belongs to the tests' own main function.
fn kill_thread(pid: u32, thread: i32, signal: Signal) {
    #[cfg(target_os = "linux")]
    #[expect(unsafe_code, reason = "no safe wrapper at hand")]
    // SAFETY: a system call on three numbers.
    let failed = unsafe { libc::syscall(libc::SYS_tgkill, pid, thread, signal.as_raw()) };
    #[cfg(target_os = "linux")]
    assert_eq!(failed, 0);
    #[cfg(not(target_os = "linux"))]
    kill(pid, signal);
}

fn witness_of(mut talk: Talk) -> (Talk, Witness) {
    let witness = talk.expect_witness();
    (talk, witness)
}

mod without_a_terminal {
    use super::*;

    #[test]
    fn what_is_sent_to_us_reaches_the_command_once() {
        let stage = Stage::new();
        let (mut talk, witness) = witness_of(Talk::start(stage.play("supervise", &["witness"])));
        assert_eq!((witness.parent, witness.group), (talk.pid(), witness.pid));
        let signals = [
            Signal::INT,
            Signal::TERM,
            Signal::HUP,
            Signal::QUIT,
            Signal::USR1,
            Signal::USR2,
            Signal::WINCH,
            Signal::CONT,
        ];
        for signal in signals {
            kill(talk.pid(), signal);
            talk.expect(&format!("GOT {}\n", signal.as_raw()));
        }
        talk.say("quit\n");
        let once: Vec<_> = signals.iter().map(|s| format!("{}: 1", s.as_raw())).collect();
        talk.expect(&format!("AFTER {{{}}}", once.join(", ")));
        assert_eq!(talk.end().code(), Some(9));
    }

    #[test]
    fn the_whole_group_of_the_command_is_reached() {
        let stage = Stage::new();
        let play =
            stage.play("supervise", &["sh", "-c", "trap '' TERM; (trap - TERM; witness); exit 5"]);
        let (mut talk, witness) = witness_of(Talk::start(play));
        assert_ne!(witness.parent, talk.pid());
        kill(talk.pid(), Signal::TERM);
        talk.expect("GOT 15\n");
        talk.say("quit\n");
        assert_eq!(talk.end().code(), Some(5));
    }

    #[test]
    fn what_the_command_sends_to_us_is_not_sent_back() {
        let stage = Stage::new();
        let (mut talk, _) = witness_of(Talk::start(stage.play("supervise", &["witness"])));
        talk.say("poke\n");
        talk.expect("HEARD poke");
        // When this one has come through, we have seen to the earlier one.
        kill(talk.pid(), Signal::USR2);
        talk.expect("GOT 12\n");
        talk.say("quit\n");
        talk.expect("AFTER {12: 1}");
        assert_eq!(talk.end().code(), Some(9));
    }

    #[test]
    fn a_stop_stops_both_and_a_continuation_continues_both() {
        let stage = Stage::new();
        let (mut talk, witness) = witness_of(Talk::start(stage.play("supervise", &["witness"])));
        // SIGTSTP has no effect where nobody could continue us; SIGSTOP always has.
        kill(witness.pid, Signal::STOP);
        until("both stopped", || {
            [talk.pid(), witness.pid].iter().all(|pid| state(*pid) == Some('T'))
        });
        kill(talk.pid(), Signal::CONT);
        talk.expect("GOT 18\n");
        talk.say("hello\n");
        talk.expect("HEARD hello");
        talk.say("quit\n");
        assert_eq!(talk.end().code(), Some(9));
    }

    /// The session has no shell that could continue us, so nothing may stay stopped.
    #[test]
    fn a_stop_that_nobody_could_end_does_not_last() {
        let stage = Stage::new();
        let (mut talk, _) = witness_of(Talk::start(stage.play("supervise", &["witness"])));
        kill(talk.pid(), Signal::TSTP);
        talk.expect("GOT 18\n");
        talk.say("quit\n");
        assert_eq!(talk.end().code(), Some(9));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn if_we_are_killed_the_command_is_told_to_end() {
        let stage = Stage::new();
        let (mut talk, witness) = witness_of(Talk::start(stage.play("supervise", &["witness"])));
        kill(talk.pid(), Signal::KILL);
        talk.expect("GOT 15\n");
        talk.say("quit\n");
        until("the end of the command", || matches!(state(witness.pid), None | Some('Z')));
        assert_eq!(talk.end().signal(), Some(9));
    }

    #[test]
    fn afterwards_signals_have_their_usual_effect_on_us() {
        let stage = Stage::new();
        let mut talk = Talk::start(stage.play("linger", &["true"]));
        talk.expect("ENDED Ok(Exited(0))");
        kill(talk.pid(), Signal::TERM);
        assert_eq!(talk.end().signal(), Some(15));
    }

    #[test]
    fn what_is_to_happen_at_the_end_happens_whatever_arrives_meanwhile() {
        let stage = Stage::new();
        let ends: [(&[&str], i32); 3] =
            [(&["sh", "-c", "exit 4"], 4), (&["sh", "-c", "kill -9 $$"], 0), (&["no-such"], 127)];
        for (command, code) in ends {
            let mut talk = Talk::start(stage.play("at-end", command));
            talk.expect("AT END of ");
            let thread = talk.expect(".").trim().parse().unwrap();
            for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
                // Where there was no command, nothing was ever listened for.
                kill_thread(talk.pid(), thread, signal);
            }
            talk.say("\n");
            talk.expect("DONE");
            let end = talk.end();
            match code {
                0 => assert_eq!(end.signal(), Some(9)),
                code => assert_eq!(end.code(), Some(code)),
            }
        }
    }

    #[test]
    fn a_command_that_leaves_something_behind_is_not_waited_for_longer() {
        let stage = Stage::new();
        let mut talk =
            Talk::start(stage.play("linger", &["sh", "-c", "witness & echo LEFT $!. ; exit 6"]));
        talk.expect("LEFT ");
        let left: u32 = talk.expect(".").trim().parse().unwrap();
        talk.expect("ENDED Ok(Exited(6))");
        kill(left, Signal::KILL);
    }
}

mod in_a_terminal {
    use super::*;

    const CTRL_C: &str = "\x03";
    const CTRL_Z: &str = "\x1a";
    const CTRL_BACKSLASH: &str = "\x1c";

    const SHELLS: [&[&str]; 3] = [
        &["bash", "--norc", "--noprofile", "--noediting", "-i"],
        &["dash", "-i"],
        &["zsh", "-f", "-i", "+Z"],
    ];

    fn shell(stage: &Stage, words: &[&str]) -> Talk {
        let mut command = stage.bare(words[0]);
        command.args(&words[1..]);
        let mut talk = Talk::in_terminal(command);
        // Not before the shell has set the terminal up: that drops what was typed.
        talk.expect("$ ");
        talk
    }

    fn bash(stage: &Stage) -> Talk {
        shell(stage, SHELLS[0])
    }

    fn stopped(pids: &[u32]) {
        until("all stopped", || pids.iter().all(|pid| state(*pid) == Some('T')));
    }

    #[test]
    fn keys_reach_the_command_once_and_codes_reach_the_shell() {
        let stage = Stage::new();
        for words in SHELLS {
            let mut talk = shell(&stage, words);
            talk.say("play supervise witness; echo CODE=$?.\n");
            let witness = talk.expect_witness();
            assert_ne!(witness.group, witness.parent);
            for _ in 0..3 {
                talk.say(CTRL_C);
                talk.expect("GOT 2\r\n");
                talk.say(CTRL_BACKSLASH);
                talk.expect("GOT 3\r\n");
            }
            talk.say("quit\n");
            talk.expect("AFTER {2: 3, 3: 3}");
            talk.expect("CODE=9.");
        }
    }

    #[test]
    fn a_change_of_the_window_reaches_the_command() {
        let stage = Stage::new();
        let mut talk = bash(&stage);
        talk.say("play supervise witness\n");
        talk.expect_witness();
        talk.resize(40, 120);
        talk.expect("GOT 28\r\n");
        talk.say("quit\n");
        talk.expect("AFTER {28: 1}");
    }

    #[test]
    fn a_command_that_dies_of_a_key_takes_us_along() {
        let stage = Stage::new();
        let mut talk = bash(&stage);
        for (key, code) in [(CTRL_C, 130), (CTRL_BACKSLASH, 131)] {
            talk.say("play supervise sh -c 'ulimit -c 0; echo U\"\"P; exec sleep 1000'\n");
            talk.expect("UP\r\n");
            talk.say(key);
            talk.expect("$ ");
            talk.say("echo CODE=$?.\n");
            talk.expect(&format!("CODE={code}."));
        }
    }

    #[test]
    fn ctrl_z_stops_both_and_fg_continues_both() {
        let stage = Stage::new();
        for words in SHELLS {
            let mut talk = shell(&stage, words);
            talk.say("play supervise witness; echo CODE=$?.\n");
            let witness = talk.expect_witness();
            for round in 0..3 {
                talk.say(CTRL_Z);
                stopped(&[witness.pid, witness.parent]);
                // The shell has the terminal: it answers.
                talk.say(&format!("echo SHELL$(({round}+0)).\n"));
                talk.expect(&format!("SHELL{round}."));
                talk.say("fg\n");
                talk.expect("GOT 18\r\n");
                // And now the command has.
                talk.say(&format!("hello {round}\n"));
                talk.expect(&format!("HEARD hello {round} "));
                talk.say(CTRL_C);
                talk.expect("GOT 2\r\n");
            }
            talk.say("quit\n");
            talk.expect("HEARD quit AFTER");
            assert!(talk.expect(".").contains("2: 3"), "{}", talk.transcript());
            talk.say("echo ALIVE$((1+1))\n");
            talk.expect("ALIVE2");
        }
    }

    #[test]
    fn bg_lets_the_command_run_and_leaves_the_terminal_to_the_shell() {
        let stage = Stage::new();
        let mut talk = bash(&stage);
        talk.say(
            "play linger sh -c 'echo U\"\"P $$ $PPID.; while ! test -e go; do test -e play || exit; done; exit 8'\n",
        );
        talk.expect("UP ");
        let pids: Vec<u32> =
            talk.expect(".\r\n").split(' ').map(|pid| pid.parse().unwrap()).collect();
        talk.say(CTRL_Z);
        stopped(&pids);
        talk.say("bg; echo SHELL$((1+1))\n");
        talk.expect("SHELL2");
        until("the command runs", || pids.iter().all(|pid| state(*pid) != Some('T')));
        stage.file("go", "");
        talk.expect("ENDED Ok(Exited(8))");
        assert_eq!(talk.foreground(), talk.pid());
        talk.say("echo STILL$((1+1))\n");
        talk.expect("STILL2");
    }

    #[test]
    fn a_job_of_the_background_stops_when_it_reads_and_gets_the_terminal_by_fg() {
        let stage = Stage::new();
        stage.script("reader", "#!/bin/sh\nread line\necho READ $line.\nexec witness\n");
        for words in SHELLS {
            let mut talk = shell(&stage, words);
            talk.say("play supervise reader &\n");
            // Not before the shell knows: it would not continue what it takes to run.
            talk.nudge("\n", &["topped", "uspended"]);
            talk.say("fg\n");
            talk.expect("play supervise reader");
            talk.say("hello\n");
            talk.expect("READ hello.");
            talk.expect_witness();
            talk.say(CTRL_C);
            talk.expect("GOT 2\r\n");
            talk.say("quit\n");
            talk.expect("AFTER {2: 1}");
        }
    }

    #[test]
    fn a_running_job_gets_the_terminal_when_it_reads_after_fg() {
        let stage = Stage::new();
        let mut talk = bash(&stage);
        talk.say("play supervise sh -c 'echo U\"\"P $PPID.; while ! test -e go; do test -e play || exit; done; exec witness' &\n");
        talk.expect("UP ");
        let supervisor: u32 = talk.expect(".\r\n").parse().unwrap();
        talk.say("fg\n");
        until("the job is in the foreground", || talk.foreground() == supervisor);
        stage.file("go", "");
        assert_eq!(talk.expect_witness().parent, supervisor);
        talk.say("hello\n");
        talk.expect("HEARD hello");
        talk.say(CTRL_C);
        talk.expect("GOT 2\r\n");
        talk.say("quit\n");
        talk.expect("2: 1");
    }

    #[test]
    fn in_a_pipeline_everybody_keeps_the_terminal() {
        let stage = Stage::new();
        stage.script(
            "pager",
            "#!/bin/sh\nexec 3<&0; cat <&3 & read line </dev/tty; echo \"PAGER $line.\"; wait\n",
        );
        let mut talk = bash(&stage);
        talk.say("play supervise sh -c 'echo OUT' | pager\n");
        talk.expect("OUT\r\n");
        talk.say("typed\n");
        talk.expect("PAGER typed.");

        talk.say("play supervise witness | cat\n");
        let witness = talk.expect_witness();
        assert_eq!(witness.group, witness.parent);
        talk.say("hello\n");
        talk.expect("HEARD hello");
        talk.say(CTRL_Z);
        stopped(&[witness.pid, witness.parent]);
        talk.say("fg\n");
        talk.expect("GOT 18\r\n");
        kill(witness.parent, Signal::USR1);
        talk.expect("GOT 10\r\n");
        talk.say("quit\n");
        talk.expect("10: 1");
    }

    #[test]
    fn ctrl_c_in_a_pipeline_reaches_the_command_once() {
        let stage = Stage::new();
        let mut talk = bash(&stage);
        talk.say("play supervise witness | sh -c 'trap \"\" INT; exec cat'\n");
        talk.expect_witness();
        // More than a few: two in a row may be delivered as one.
        for _ in 0..10 {
            talk.say(CTRL_C);
            talk.expect("GOT 2\r\n");
        }
        talk.say("quit\n");
        talk.expect("AFTER {2: 10}");
    }

    #[test]
    fn ctrl_c_ends_the_script_that_we_are_in() {
        let stage = Stage::new();
        let script = "play supervise sh -c 'echo UP.; exec sleep 1000'";
        stage.script("job", &format!("#!/bin/bash\n{script}\necho GOES-ON\n"));
        let mut talk = bash(&stage);
        talk.say("job\n");
        talk.expect("UP.\r\n");
        talk.say(CTRL_C);
        talk.expect("$ ");
        talk.say("echo CODE=$?.\n");
        assert!(!talk.expect("CODE=130.").contains("GOES-ON"));
    }

    #[test]
    fn ctrl_z_stops_the_script_that_we_are_in() {
        let stage = Stage::new();
        stage.script("job", "#!/bin/bash\nplay supervise witness\necho CODE=$?.\n");
        let mut talk = bash(&stage);
        talk.say("job\n");
        let witness = talk.expect_witness();
        talk.say(CTRL_Z);
        stopped(&[witness.pid, witness.parent, witness.group]);
        talk.say("fg\n");
        talk.expect("GOT 18\r\n");
        talk.say("quit\n");
        talk.expect("CODE=9.");
    }

    #[test]
    fn a_command_that_cannot_start_leaves_the_terminal_with_us() {
        let stage = Stage::new();
        // There is no shell that would put it right.
        let mut command = stage.bare(stage.path("play"));
        command.args(["linger", "no-such-command", "x"]);
        let mut talk = Talk::in_terminal(command);
        talk.expect("ENDED Err");
        assert_eq!(talk.foreground(), talk.pid());
        talk.say(CTRL_C);
        assert_eq!(talk.end().signal(), Some(2));
    }

    #[test]
    fn as_the_first_process_of_a_terminal_we_do_not_stay_stopped() {
        let stage = Stage::new();
        let mut command = stage.bare(stage.path("play"));
        command.args(["linger", "witness"]);
        let mut talk = Talk::in_terminal(command);
        let witness = talk.expect_witness();
        assert_eq!(talk.foreground(), witness.pid);
        talk.say(CTRL_Z);
        talk.expect("GOT 18\r\n");
        talk.say("hello\n");
        talk.expect("HEARD hello");
        talk.say("quit\n");
        talk.expect("ENDED Ok(Exited(9))");
        assert_eq!(talk.foreground(), talk.pid());
    }

    #[test]
    fn an_interactive_shell_can_be_the_command() {
        let stage = Stage::new();
        let mut talk = bash(&stage);
        talk.say("play supervise bash --norc --noprofile --noediting -i\n");
        talk.expect("$ ");
        talk.say("echo $TMPCRED_TOKEN; witness\n");
        talk.expect("token-supervise\r\n");
        let witness = talk.expect_witness();
        talk.say(CTRL_Z);
        stopped(&[witness.pid]);
        talk.say("echo INNER$((1+1)); fg\n");
        talk.expect("INNER2");
        talk.expect("GOT 18\r\n");
        talk.say(CTRL_C);
        talk.expect("GOT 2\r\n");
        talk.say("quit\n");
        talk.expect("AFTER {18: 1, 2: 1}");
        talk.say("exit 5\n");
        talk.say("echo CODE=$?.\n");
        talk.expect("CODE=5.");
    }
}
