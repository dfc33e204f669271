//! `exec --mask` on a terminal: full-screen programs, keys, job control, prompts.

use crate::journey::Journey;
use crate::support::terminal::Terminal;
use crate::support::wait::wait_until;

const LONG: std::time::Duration = std::time::Duration::from_secs(30);

/// How the terminal is set up, but for its size.
fn modes(terminal: &Terminal) -> String {
    terminal.run("stty -a | tail -n +2")
}

/// Waits until a line of the screen, without blanks at its end, is this one.
#[track_caller]
fn line(terminal: &Terminal, wanted: &str) {
    wait_until(&format!("the line {wanted:?} in\n{}", terminal.screen()), LONG, || {
        terminal.screen().lines().any(|line| line.trim_end() == wanted).then_some(())
    });
}

#[test]
fn vim_fills_the_screen_and_gives_it_back() {
    let journey = Journey::start();
    journey.tmpcred(&["token"]).run().ok();
    let terminal = Terminal::start(&journey.home, 80, 24);
    let before = modes(&terminal);
    terminal
        .enter("clear; tmpcred exec --mask -- vim -u NONE -i NONE -n -c 'set nocp noswf' out.txt");
    line(&terminal, "~");
    let last_tilde = |rows: usize| {
        wait_until(&format!("{rows} rows"), LONG, || {
            let screen = terminal.screen();
            let tildes = screen.lines().filter(|line| line.trim_end() == "~").count();
            (tildes == rows - 2).then_some(())
        });
    };
    last_tilde(24);
    // A secret that is shown in it.
    terminal.press("Escape");
    terminal.enter(":r !echo \"key is $TMPCRED_TOKEN.\"");
    let screen = terminal.wait_for("key is ***");
    assert!(!screen.contains("eyJ"), "{screen}");
    terminal.press("Escape");
    terminal.enter(":%d");
    terminal.press("i");
    terminal.press("hello");
    line(&terminal, "hello");
    terminal.press("Escape");
    terminal.resize(70, 30);
    last_tilde(30);
    terminal.press("C-z");
    terminal.wait_for("Stopped");
    let stopped = terminal.run("echo $((6*7)) stopped");
    assert!(stopped.contains("42 stopped"), "{stopped}");
    terminal.resize(80, 24);
    terminal.enter("clear; fg");
    line(&terminal, "hello");
    last_tilde(24);
    // A key that would end others.
    terminal.press("C-c");
    terminal.press("Escape");
    terminal.enter(":wq");
    terminal.wait_for("ready>");
    assert_eq!(terminal.run("cat out.txt; echo").trim(), "hello");
    assert_eq!(modes(&terminal), before);
}

#[test]
fn less_pages_what_comes_from_a_pipe_and_masks_it() {
    let journey = Journey::start();
    journey.tmpcred(&["token"]).run().ok();
    let terminal = Terminal::start(&journey.home, 80, 24);
    let before = modes(&terminal);
    for command in [
        "seq 1000 >lines; tmpcred exec --mask -- sh -c 'echo \"key is $TMPCRED_TOKEN\" >>lines; exec less lines'",
        "seq 1000 | tmpcred exec --mask -- sh -c '{ cat; echo \"key is $TMPCRED_TOKEN\"; } | exec less'",
        "(seq 1000; echo 'key is ***') | tmpcred exec --mask -- less",
    ] {
        terminal.enter(&format!("clear; {command}"));
        line(&terminal, "23");
        terminal.press("G");
        let screen = terminal.wait_for("key is ***");
        assert!(!screen.contains("eyJ"), "{screen}");
        terminal.press("g");
        line(&terminal, "1");
        terminal.resize(80, 30);
        line(&terminal, "29");
        terminal.press("C-z");
        terminal.wait_for("Stopped");
        terminal.run("echo $((6*7))");
        terminal.enter("clear; fg");
        line(&terminal, "29");
        terminal.press("q");
        terminal.wait_for("ready>");
        terminal.resize(80, 24);
        wait_until("the old size", LONG, || {
            terminal.run("stty size").contains("24 80").then_some(())
        });
        assert_eq!(modes(&terminal), before, "{command}");
    }
}

#[test]
fn ctrl_c_ends_the_command_and_nothing_else() {
    let journey = Journey::start();
    journey.tmpcred(&["token"]).run().ok();
    let terminal = Terminal::start(&journey.home, 80, 24);
    let before = modes(&terminal);
    terminal.enter("clear; tmpcred exec --mask -- sh -c 'echo RUN''NING $MINE; exec sleep 1000'");
    terminal.wait_for("RUNNING");
    terminal.press("C-c");
    // What is typed earlier is for the command.
    terminal.wait_for("ready>");
    assert!(terminal.run("echo CODE $?").contains("CODE"));
    terminal.enter("tmpcred exec --mask -- sh -c 'kill -TERM $$'; echo CO''DE $?");
    terminal.wait_for("CODE 143");
    assert_eq!(modes(&terminal), before);
}

#[test]
fn a_passphrase_is_asked_for_at_once_and_does_not_show() {
    let journey = Journey::start();
    journey.tmpcred(&["token"]).run().ok();
    let terminal = Terminal::start(&journey.home, 80, 24);
    let ask = r#"read -s -p "Pass""phrase: eyJ" it; echo; echo "<${#it} $TMPCRED_TOKEN>""#;
    terminal.enter(&format!("clear; tmpcred exec --mask -- bash -c '{ask}'"));
    terminal.wait_for("Passphrase: eyJ");
    terminal.enter("hunter2");
    let screen = terminal.wait_for("<7 ***>");
    assert!(!screen.contains("hunter2"), "{screen}");
}

#[test]
fn in_ci_a_terminal_is_masked_as_well() {
    let journey = Journey::start();
    journey.tmpcred(&["token"]).run().ok();
    let terminal = Terminal::start(&journey.home, 80, 24);
    let exec = "CI=true tmpcred exec --revoke-on-exit=no";
    let script = "sh -c 'test -t 1 && test -t 2 && echo \"TERMINAL $TMPCRED_TOKEN\"'";
    assert_eq!(terminal.run(&format!("{exec} -- {script}")).trim(), "TERMINAL ***");
    let plain = terminal.run(&format!("{exec} --mask=no -- {script}"));
    assert!(!plain.contains("***"), "{plain}");
}
