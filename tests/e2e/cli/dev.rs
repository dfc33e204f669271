//! `--dev`: the whole path on a machine where nothing is configured.

use rustix::process::Signal;

use crate::stores::{all_items, claims};
use crate::support::home::{Home, tmpcred};
use crate::support::run::Output;
use crate::support::walk;

/// Nothing but its one line is on stderr, and nothing on the disk or in the keyring.
#[track_caller]
fn assert_clean(home: &Home, output: &Output) {
    let lines: Vec<_> = output.stderr.lines().collect();
    assert!(matches!(lines[..], [one] if one.contains("development broker on")), "{lines:?}");
    let left: Vec<_> = walk::files(&home.path("")).into_iter().map(|found| found.path).collect();
    assert!(left.is_empty(), "{left:?}");
    let kept = all_items(home);
    assert!(kept.is_empty(), "{kept:?}");
}

#[test]
fn the_first_command_of_the_readme_works_in_an_empty_home() {
    const COMMAND: &str = r#"echo "I am a $TMPCRED_ROLE until $TMPCRED_EXPIRES_AT""#;
    let readme = include_str!("../../../README.md");
    assert!(readme.contains(&format!("exec --dev -- sh -c '{COMMAND}'")), "another command");
    let home = Home::stranger();
    let output = tmpcred(&home).args(["exec", "--dev", "--", "sh", "-c", COMMAND]).run().ok();
    assert!(output.stdout.starts_with("I am a "), "{}", output.stdout);
    let (_, until) = output.stdout.trim_end().rsplit_once(' ').unwrap();
    let rfc3339 = &time::format_description::well_known::Rfc3339;
    let until = time::OffsetDateTime::parse(until, rfc3339).unwrap();
    assert!(until > time::OffsetDateTime::now_utc(), "{until}");
    assert_clean(&home, &output);
}

#[test]
fn token_env_and_explain_work_in_an_empty_home() {
    let home = Home::stranger();
    let token = tmpcred(&home).args(["token", "--dev"]).run().ok();
    assert_eq!(token.stdout.trim_end().split('.').count(), 3, "a JWT: {}", token.stdout);
    assert_clean(&home, &token);
    let env = tmpcred(&home).args(["env", "--dev", "--format", "json"]).run().ok();
    assert_eq!(env.json()["TMPCRED_TOKEN"].as_str().unwrap().split('.').count(), 3);
    assert_clean(&home, &env);
    let explain = tmpcred(&home).args(["explain", "--dev", "--json"]).run().ok();
    assert_eq!(explain.json()["mode"]["name"], "supervisor");
    assert_clean(&home, &explain);
}

#[test]
fn whoever_runs_it_is_the_user() {
    let mut home = Home::stranger();
    home.set("USER", "carol");
    let token = tmpcred(&home).args(["token", "--dev"]).run().ok();
    assert_eq!(claims(&token.stdout)["sub_id"]["sub"], "carol");
    assert_clean(&home, &token);
}

#[test]
fn ci_and_no_input_do_not_stop_it() {
    let home = Home::stranger();
    let run = tmpcred(&home).env("CI", "true").args(["token", "--dev", "--no-input"]);
    assert_clean(&home, &run.run().ok());
}

#[test]
fn the_command_runs_below_tmpcred_and_gets_its_signals() {
    const SCRIPT: &str = r#"
        trap 'echo terminated; kill $!; exit 9' TERM
        sleep 60 >/dev/null 2>&1 &
        echo parent $PPID
        wait
    "#;
    let home = Home::stranger();
    let running = tmpcred(&home).args(["exec", "--dev", "--", "sh", "-c", SCRIPT]).spawn();
    let parent = running.line_on_stdout("parent");
    assert_eq!(parent, format!("parent {}", running.pid().as_raw_nonzero()));
    running.signal(Signal::TERM);
    let output = running.wait().ended_with(9);
    assert!(output.stdout.ends_with("terminated\n"), "{}", output.stdout);
}

#[test]
fn the_end_of_the_command_is_that_of_the_run() {
    let home = Home::stranger();
    let exec = |script| tmpcred(&home).args(["exec", "--dev", "--", "sh", "-c", script]).run();
    exec("exit 255").ended_with(255);
    assert_eq!(exec("kill -KILL $$").signal, Some(Signal::KILL.as_raw()));
    let none = tmpcred(&home).args(["exec", "--dev", "--", "no-such-command"]).run();
    none.ended_with(127);
}

#[test]
fn what_the_embedded_broker_cannot_give_is_not_offered() {
    let home = Home::stranger();
    for command in ["console", "credential-process", "login"] {
        let help = tmpcred(&home).args([command, "--help"]).run().ok().stdout;
        assert!(!help.contains("--dev"), "{help}");
        let refused = tmpcred(&home).args([command, "--dev"]).run().ended_with(2);
        assert!(refused.stderr.contains("unexpected argument '--dev'"), "{}", refused.stderr);
    }
    for command in ["exec", "env", "token", "explain"] {
        let help = tmpcred(&home).args([command, "--help"]).run().ok().stdout;
        assert!(help.contains("--dev"), "{help}");
    }
}
