//! Masked commands in real terminals, under real shells.

use std::os::unix::process::ExitStatusExt;

use rustix::process::{Pid, Signal, kill_process};

use super::super::stage::{Stage, Talk, Witness, parent, state, until};

const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const CTRL_Z: &str = "\x1a";
const CTRL_BACKSLASH: &str = "\x1c";

const SHELLS: [&[&str]; 3] = [
    &["bash", "--norc", "--noprofile", "--noediting", "-i"],
    &["dash", "-i"],
    &["zsh", "-f", "-i", "+Z"],
];

fn kill(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

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

/// How the terminal is set up, as programs that the shell starts find it.
fn modes(talk: &mut Talk) -> String {
    // (Not as it is typed: a prompt that is late comes amid the echo of that.)
    talk.say("echo \"MO\"DES=$(stty -g).; echo\n");
    talk.expect("MODES=");
    talk.expect(".")
}

/// Starts the witness under mask; the supervisor, and the witness.
fn witness(talk: &mut Talk, typed: &str) -> (u32, Witness) {
    talk.say(typed);
    let witness = talk.expect_witness();
    assert_eq!(witness.group, witness.pid);
    (parent(witness.parent).unwrap(), witness)
}

fn stopped(pids: &[u32]) {
    until("all stopped", || pids.iter().all(|pid| state(*pid) == Some('T')));
}

#[test]
fn the_command_has_a_terminal_and_its_secrets_are_masked() {
    let stage = Stage::new();
    stage.script(
        "show",
        "#!/bin/sh\ntest -t 0 && test -t 1 && test -t 2 && echo ALL\n\
         echo \"out $TMPCRED_TOKEN.\"; echo \"err $MINE.\" >&2; echo \"tty $TMPCRED_TOKEN.\" >/dev/tty\n\
         stty size; stty -a | tr ' ' '\\n' | grep '^-*icanon'; exit 7\n",
    );
    for words in SHELLS {
        let mut talk = shell(&stage, words);
        talk.resize(33, 101);
        let before = modes(&mut talk);
        talk.say("play mask show; echo CODE=$?.\n");
        talk.expect("ALL\r\nout ***.\r\nerr ***.\r\ntty ***.\r\n33 101\r\nicanon");
        talk.expect("CODE=7.");
        assert_eq!(modes(&mut talk), before);
    }
}

#[test]
fn keys_reach_the_command_once_and_codes_reach_the_shell() {
    let stage = Stage::new();
    for words in SHELLS {
        let mut talk = shell(&stage, words);
        let before = modes(&mut talk);
        witness(&mut talk, "play mask witness; echo CODE=$?.\n");
        for _ in 0..3 {
            talk.say(CTRL_C);
            talk.expect("GOT 2\r\n");
            talk.say(CTRL_BACKSLASH);
            talk.expect("GOT 3\r\n");
        }
        talk.say("quit\n");
        talk.expect("AFTER {2: 3, 3: 3}");
        talk.expect("CODE=9.");
        assert_eq!(modes(&mut talk), before);
        // The end of the input, too.
        talk.say("play mask cat; echo CODE=$?.\n");
        talk.say("line\n");
        talk.expect("line\r\nline\r\n");
        talk.say(CTRL_D);
        talk.expect("CODE=0.");
    }
}

#[test]
fn a_command_that_dies_of_a_key_or_a_signal_takes_us_along() {
    let stage = Stage::new();
    let mut talk = bash(&stage);
    let before = modes(&mut talk);
    for (key, code) in [(CTRL_C, 130), (CTRL_BACKSLASH, 131)] {
        talk.say("play mask sh -c 'ulimit -c 0; echo U\"\"P; exec sleep 1000'\n");
        talk.expect("UP\r\n");
        talk.say(key);
        talk.expect("$ ");
        talk.say("echo CODE=$?.\n");
        talk.expect(&format!("CODE={code}."));
    }
    for (signal, code) in [(Signal::TERM, 143), (Signal::KILL, 137)] {
        // To the command, and to us.
        for to_us in [false, true] {
            talk.say("play mask sh -c 'echo U\"\"P $$ $PPID.; exec sleep 1000'\n");
            talk.expect("UP ");
            let pids: Vec<u32> =
                talk.expect(".\r").split(' ').map(|pid| pid.parse().unwrap()).collect();
            kill(if to_us { parent(pids[1]).unwrap() } else { pids[0] }, signal);
            talk.expect("$ ");
            talk.say("echo CODE=$?.\n");
            talk.expect(&format!("CODE={code}."));
            until("the end of the command", || matches!(state(pids[0]), None | Some('Z')));
            assert_eq!(modes(&mut talk), before);
        }
    }
}

#[test]
fn a_change_of_the_window_reaches_the_command() {
    let stage = Stage::new();
    let mut talk = bash(&stage);
    let trap = "trap \"stty size; exit\" WINCH; echo U\"\"P; while :; do sleep 0.05; done";
    talk.say(&format!("play mask sh -c '{trap}'\n"));
    talk.expect("UP\r\n");
    talk.resize(40, 120);
    talk.expect("40 120\r\n");
}

#[test]
fn ctrl_z_stops_both_and_fg_continues_both() {
    let stage = Stage::new();
    for words in SHELLS {
        let mut talk = shell(&stage, words);
        let before = modes(&mut talk);
        let (supervisor, witness) = witness(&mut talk, "play mask witness; echo CODE=$?.\n");
        for round in 0..3 {
            talk.say(CTRL_Z);
            stopped(&[witness.pid, supervisor]);
            // The shell has the terminal: it answers.
            talk.say(&format!("echo SHELL$(({round}+0)).\n"));
            talk.expect(&format!("SHELL{round}."));
            assert_eq!(modes(&mut talk), before);
            talk.resize(40 + round, 120);
            talk.say("fg\n");
            talk.expect("GOT 18\r\n");
            // And now the command has.
            talk.say(&format!("hello {round} token-mask\n"));
            talk.expect(&format!("HEARD hello {round} *** "));
            talk.say(CTRL_C);
            talk.expect("GOT 2\r\n");
        }
        talk.say("quit\n");
        talk.expect("HEARD quit AFTER");
        let seen = talk.expect(".");
        assert!(seen.contains("2: 3") && seen.contains("28: 3"), "{}", talk.transcript());
        // What is typed earlier is for the command.
        talk.expect("$ ");
        talk.say("echo ALIVE$((1+1))\n");
        talk.expect("ALIVE2");
        assert_eq!(modes(&mut talk), before);
    }
}

#[test]
fn bg_lets_the_command_run_and_it_stops_when_it_reads() {
    let stage = Stage::new();
    stage.script(
        "job",
        "#!/bin/sh\necho \"U\"P $$ $PPID.\nwhile ! test -e go; do test -e play || exit; done\n\
         echo \"R\"UNS\nread line\necho \"R\"EAD $line.\nexit 8\n",
    );
    let mut talk = bash(&stage);
    let before = modes(&mut talk);
    talk.say("play mask job; echo CODE=$?.\n");
    talk.expect("UP ");
    let pids: Vec<u32> = talk.expect(".\r").split(' ').map(|pid| pid.parse().unwrap()).collect();
    let supervisor = parent(pids[1]).unwrap();
    talk.say(CTRL_Z);
    stopped(&[pids[0], supervisor]);
    talk.say("bg; echo SHELL$((1+1))\n");
    talk.expect("SHELL2");
    until("the command runs", || state(pids[0]) != Some('T') && state(supervisor) != Some('T'));
    assert_eq!(modes(&mut talk), before);
    stage.file("go", "");
    talk.expect("RUNS\r");
    stopped(&[pids[0], supervisor]);
    talk.nudge("\n", &["topped"]);
    assert_eq!(modes(&mut talk), before);
    talk.say("fg\n");
    talk.expect("play mask job");
    talk.say("typed\n");
    talk.expect("READ typed.");
    talk.expect("$ ");
    talk.say("echo CODE=$?.\n");
    talk.expect("CODE=8.");
    assert_eq!(modes(&mut talk), before);
}

#[test]
fn a_job_of_the_background_stops_when_it_reads_and_gets_the_terminal_by_fg() {
    let stage = Stage::new();
    stage.script("reader", "#!/bin/sh\nread line\necho READ $line.\nexec witness\n");
    for words in SHELLS {
        let mut talk = shell(&stage, words);
        talk.say("play mask reader &\n");
        // Not before the shell knows: it would not continue what it takes to run.
        talk.nudge("\n", &["topped", "uspended"]);
        talk.say("fg\n");
        talk.expect("play mask reader");
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
fn in_a_pipeline_the_others_keep_the_terminal() {
    let stage = Stage::new();
    stage.script(
        "pager",
        "#!/bin/sh\nexec 3<&0; cat <&3 & read line </dev/tty; echo \"PAGER $line.\"; wait\n",
    );
    let mut talk = bash(&stage);
    let before = modes(&mut talk);
    talk.say("play mask sh -c 'echo $MINE >&2' | cat\n");
    talk.expect("***\r");
    talk.expect("$ ");
    talk.say("play mask sh -c 'test -t 2 && echo O\"\"UT' | pager\n");
    talk.expect("OUT\r");
    talk.say("typed\n");
    talk.expect("PAGER typed.");
    // Both read, and the second of them gets what is typed after the first line.
    talk.say("(read a; echo FIRST $a.; read b </dev/tty) </dev/tty | play mask sh -c 'cat; echo U\"\"P >/dev/tty'\n");
    talk.say("one\n");
    talk.expect("FIRST one.");
    talk.say("two\n");
    talk.expect("UP\r");
    talk.expect("$ ");
    assert_eq!(modes(&mut talk), before);

    for key in [CTRL_C, CTRL_BACKSLASH] {
        talk.say("sleep 1000 | play mask sh -c 'ulimit -c 0; echo U\"\"P; exec sleep 1000'\n");
        talk.expect("UP\r");
        talk.say(key);
        talk.expect("$ ");
    }
    assert_eq!(modes(&mut talk), before);
}

/// As `… | vim -` does, and `… | less`.
#[test]
fn a_command_in_a_pipeline_gets_the_keys_when_it_asks_for_them() {
    let stage = Stage::new();
    stage.script(
        "editor",
        "#!/bin/sh\ncat; exec <&2; stty -icanon -echo; echo \"R\"EADY; \
         key=$(dd bs=1 count=1 2>/dev/null); echo \"KEY $key.\"; stty icanon echo\n",
    );
    for words in SHELLS {
        let mut talk = shell(&stage, words);
        let before = modes(&mut talk);
        talk.say("echo PI\"\"PED | play mask editor\n");
        talk.expect("PIPED\r");
        talk.expect("READY\r");
        talk.say("x");
        talk.expect("KEY x.");
        talk.expect("$ ");
        assert_eq!(modes(&mut talk), before);
    }
}

#[test]
fn ctrl_z_in_a_pipeline_stops_everybody() {
    let stage = Stage::new();
    let mut talk = bash(&stage);
    talk.say("sleep 1000 | play mask sh -c 'echo U\"\"P $$ $PPID.; exec sleep 1000'\n");
    talk.expect("UP ");
    let pids: Vec<u32> = talk.expect(".\r").split(' ').map(|pid| pid.parse().unwrap()).collect();
    let supervisor = parent(pids[1]).unwrap();
    talk.say(CTRL_Z);
    stopped(&[pids[0], supervisor]);
    talk.say("fg\n");
    until("both run", || [pids[0], supervisor].iter().all(|pid| state(*pid) != Some('T')));
    talk.say(CTRL_C);
    talk.expect("$ ");
    until("the end", || matches!(state(pids[0]), None | Some('Z')));
}

#[test]
fn ctrl_c_ends_the_script_that_we_are_in_and_ctrl_z_stops_it() {
    let stage = Stage::new();
    let script = "play mask sh -c 'echo UP.; exec sleep 1000'";
    stage.script("job", &format!("#!/bin/bash\n{script}\necho GOES-ON\n"));
    stage.script("other", "#!/bin/bash\nplay mask witness\necho CODE=$?.\n");
    let mut talk = bash(&stage);
    let before = modes(&mut talk);
    talk.say("job\n");
    talk.expect("UP.\r\n");
    talk.say(CTRL_C);
    talk.expect("$ ");
    talk.say("echo CODE=$?.\n");
    assert!(!talk.expect("CODE=130.").contains("GOES-ON"));
    assert_eq!(modes(&mut talk), before);

    let (supervisor, witness) = witness(&mut talk, "other\n");
    talk.say(CTRL_Z);
    stopped(&[witness.pid, supervisor, parent(supervisor).unwrap()]);
    assert_eq!(modes(&mut talk), before);
    talk.say("fg\n");
    talk.expect("GOT 18\r\n");
    talk.say(CTRL_C);
    talk.expect("GOT 2\r\n");
    talk.say("quit\n");
    talk.expect("HEARD quit");
    // As bash has it, which got the key, too.
    talk.expect("$ ");
    assert_eq!(modes(&mut talk), before);
}

#[test]
fn what_is_left_in_the_background_lives_on_without_the_terminal() {
    let stage = Stage::new();
    let mut talk = bash(&stage);
    let before = modes(&mut talk);
    let late = "(sleep 0.1; echo LA\"\"TE; exec sleep 1000) & echo L\"\"EFT $!.; exit 3";
    talk.say(&format!("play mask-patient sh -c '{late}'; echo CODE=$?.\n"));
    talk.expect("LEFT ");
    let left: u32 = talk.expect(".\r").parse().unwrap();
    talk.expect("LATE\r");
    talk.expect("CODE=3.");
    assert_eq!(modes(&mut talk), before);
    assert!(state(left).is_some_and(|state| state != 'Z'), "it was not hung up");
    kill(left, Signal::KILL);
}

#[test]
fn what_is_asked_shows_before_the_answer() {
    let stage = Stage::new();
    stage.script(
        "asks",
        "#!/bin/bash\nread -s -p 'Passphrase: tok' -n 4 answer\necho \"<$answer $TMPCRED_TOKEN>\"\n\
         printf 'Is it %s' \"$TMPCRED_TOKEN\"; read line; echo \"<$line>\"\n",
    );
    let mut talk = bash(&stage);
    talk.say("play mask asks\n");
    talk.expect("Passphrase: tok");
    talk.say("1234");
    assert!(!talk.expect("<1234 ***>").contains('1'), "{}", talk.transcript());
    talk.expect("Is it ***");
    talk.say("yes\n");
    talk.expect("<yes>");
}

#[test]
fn a_command_that_cannot_start_leaves_the_terminal_as_it_was() {
    let stage = Stage::new();
    let mut talk = bash(&stage);
    let before = modes(&mut talk);
    talk.say("play mask no-such-command; echo CODE=$?.\n");
    talk.expect("CODE=127.");
    assert_eq!(modes(&mut talk), before);
}

#[test]
fn without_a_shell_we_do_not_stay_stopped() {
    let stage = Stage::new();
    let mut command = stage.bare(stage.path("play"));
    command.args(["mask", "witness"]);
    let mut talk = Talk::in_terminal(command);
    let witness = talk.expect_witness();
    assert_eq!(parent(witness.parent), Some(talk.pid()));
    talk.say(CTRL_Z);
    talk.expect("GOT 18\r\n");
    talk.say("hello\n");
    talk.expect("HEARD hello");
    talk.say("quit\n");
    talk.expect("HEARD quit");
    assert_eq!(talk.end().code(), Some(9));
}

#[test]
fn a_terminal_that_does_not_control_us_will_do() {
    let stage = Stage::new();
    stage.script(
        "asks",
        "#!/bin/sh\ntest -t 0 && test -t 2 && echo \"B\"OTH; read line; echo \"<$line $MINE>\"; exit 4\n",
    );
    let mut talk = bash(&stage);
    let before = modes(&mut talk);
    talk.say("setsid --wait play mask asks; echo CODE=$?.\n");
    talk.expect("BOTH\r");
    talk.say("yes\n");
    talk.expect("<yes ***>");
    talk.expect("CODE=4.");
    let trap = "trap \"echo GOT; exit 5\" INT; echo U\"\"P; while :; do sleep 0.05; done";
    talk.say(&format!("setsid --wait play mask sh -c '{trap}'; echo CODE=$?.\n"));
    talk.expect("UP\r");
    talk.say(CTRL_C);
    talk.expect("GOT\r");
    talk.expect("CODE=5.");
    assert_eq!(modes(&mut talk), before);
}

#[test]
fn if_the_terminal_goes_so_does_the_command() {
    let stage = Stage::new();
    let mut command = stage.bare(stage.path("play"));
    command.args(["mask", "sh", "-c", "echo UP $$.; exec sleep 1000"]);
    let mut talk = Talk::in_terminal(command);
    talk.expect("UP ");
    let pid: u32 = talk.expect(".").parse().unwrap();
    assert_eq!(talk.hang_up().signal(), Some(1));
    until("the end of the command", || matches!(state(pid), None | Some('Z')));
}

#[test]
fn if_its_keeper_is_killed_so_is_the_command_and_that_is_told() {
    let stage = Stage::new();
    let mut talk = bash(&stage);
    let before = modes(&mut talk);
    talk.say("play mask sh -c 'echo U\"\"P $$ $PPID.; exec sleep 1000'; echo CODE=$?.\n");
    talk.expect("UP ");
    let pids: Vec<u32> = talk.expect(".\r").split(' ').map(|pid| pid.parse().unwrap()).collect();
    kill(pids[1], Signal::KILL);
    talk.expect("cannot supervise the command");
    talk.expect("CODE=125.");
    until("the end of the command", || matches!(state(pids[0]), None | Some('Z')));
    assert_eq!(modes(&mut talk), before);
}

#[test]
fn much_output_arrives_whole_and_keys_stop_it() {
    let stage = Stage::new();
    let mut talk = bash(&stage);
    talk.say("play mask sh -c 'seq -f %07.0f 100000; echo DO\"\"NE $TMPCRED_TOKEN'\n");
    let all = talk.expect("DONE ***");
    let numbers: Vec<&str> = all.lines().filter(|line| line.len() == 7).collect();
    assert_eq!(numbers.len(), 100_000);
    assert!(numbers.is_sorted());
    talk.expect("$ ");
    talk.say("play mask yes; echo CODE=$?.\n");
    talk.expect("y\r\ny\r\n");
    talk.say(CTRL_C);
    talk.expect("$ ");
    talk.say("echo ALIVE$((1+1))\n");
    talk.expect("ALIVE2");
}

#[test]
fn an_interactive_shell_can_be_the_command() {
    let stage = Stage::new();
    let mut talk = bash(&stage);
    talk.say("play mask bash --norc --noprofile --noediting -i\n");
    talk.expect("$ ");
    talk.say("echo $TMPCRED_TOKEN; witness\n");
    talk.expect("***\r\n");
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
    talk.expect("exit\r\n");
    talk.expect("$ ");
    talk.say("echo CODE=$?.\n");
    talk.expect("CODE=5.");
}
