//! `exec`, `env` and `token` with a real session, as scripts use them.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use rustix::process::Signal;

use crate::journey::Journey;
use crate::support::home::{assert_root, through, under_test};
use crate::support::run::Run;

fn exec(journey: &Journey, command: &[&str]) -> Run {
    journey.tmpcred(&["exec", "--"]).args(command)
}

#[test]
fn a_command_ends_as_it_would_without_tmpcred() {
    let journey = Journey::start();
    for code in [0, 7, 255] {
        exec(&journey, &["sh", "-c", &format!("exit {code}")]).run().ended_with(code);
    }
    let killed = exec(&journey, &["sh", "-c", "kill -TERM $$"]).run();
    assert_eq!(killed.signal, Some(Signal::TERM.as_raw()), "{killed:?}");
    exec(&journey, &["no-such-command"]).run().ended_with(127);
    exec(&journey, &["/etc"]).run().ended_with(126);
    let failed = journey.tmpcred(&["exec", "no-such-profile", "--", "true"]).run().ended_with(125);
    assert!(failed.stderr.contains("no-such-profile"), "{}", failed.stderr);
    assert_eq!(failed.stdout, "");
}

#[test]
fn tmpcred_is_replaced_and_arguments_stay_as_they_are() {
    let journey = Journey::start();
    let running = exec(&journey, &["sh", "-c", "echo pid $$"]).spawn();
    assert_eq!(running.line_on_stdout("pid"), format!("pid {}", running.pid().as_raw_nonzero()));
    running.wait().ok();
    let show = ["sh", "-c", "printf %s \"$1\" | od -An -tx1", "sh"];
    let bytes: OsString = OsStr::from_bytes(b"\xff \xfe'\"").to_owned();
    let output = exec(&journey, &show).args([bytes]).run().ok();
    assert_eq!(output.stdout.trim(), "ff 20 fe 27 22");
    let limits = with_core_dumps(&journey, &["exec", "--", "sh", "-c", "ulimit -Sc"]);
    let limits = limits.run().ok().stdout;
    let limits: Vec<_> = limits.lines().collect();
    assert_eq!(limits.len(), 2);
    assert_eq!(limits[0], limits[1]);
}

/// The program where core dumps are as large as they may be. How large comes first on
/// standard output.
fn with_core_dumps(journey: &Journey, args: &[&str]) -> Run {
    const RAISED: &str = r#"
        if [ "$(ulimit -Hc)" = 0 ]; then
            echo "core dumps may not be turned on here, so that nothing shows" >&2
            exit 1
        fi
        ulimit -Sc "$(ulimit -Hc)"
        ulimit -Sc
        exec "$@"
    "#;
    let program = journey.home.share(under_test());
    journey.home.command("sh").args(["-c", RAISED, "sh"]).args([program]).args(args)
}

#[test]
fn who_stays_beside_the_command_leaves_no_core_and_the_command_may() {
    let journey = Journey::start();
    journey.tmpcred(&["token"]).run().ok();
    for stays in ["--dev", "--mask", "--renew", "--revoke-on-exit"] {
        let script = "echo \"command $PPID $(ulimit -Sc)\"; exec sleep 60";
        let running = with_core_dumps(&journey, &["exec", stays, "--", "sh", "-c", script]).spawn();
        let command = running.line_on_stdout("command ");
        let stdout = running.stdout();
        let before = stdout.lines().next().unwrap();
        let pid = running.pid().as_raw_nonzero();
        assert_eq!(command, format!("command {pid} {before}"), "{stays}");
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
        let mut soft_and_hard = core.split_whitespace();
        assert_eq!(soft_and_hard.next(), Some("0"), "{stays}: {limits}");
        assert_ne!(soft_and_hard.next(), Some("0"), "{stays}: {limits}");
        running.signal(Signal::TERM);
        running.wait();
    }
}

#[test]
fn as_the_first_process_of_a_container_it_waits_for_those_whose_parents_have_ended() {
    // Ends when the process is gone that it has left alone, and not only dead.
    const SCRIPT: &str = r#"
        test $PPID = 1 || exit 9
        sh -c 'true & echo $! >left'
        read left <left
        tries=0
        while test -e /proc/$left; do
            tries=$((tries + 1)); test $tries -lt 600 || exit 3; sleep 0.1
        done
        exit 7
    "#;
    assert_root();
    let journey = Journey::start();
    journey.tmpcred(&["token"]).run().ok();
    for stays in ["--mask", "--renew", "--revoke-on-exit"] {
        let first = ["--pid", "--fork", "--kill-child", "--mount-proc"].map(OsString::from);
        let exec = ["exec", stays, "--", "sh", "-c", SCRIPT].map(OsString::from);
        let all = |words: Vec<OsString>| [&first[..], &words[..], &exec[..]].concat();
        through(&journey.home, "unshare", all).run().ended_with(7);
    }
}

fn variables(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.split_once('=')).collect()
}

#[test]
fn a_command_gets_the_variables_of_its_credential_and_nothing_else() {
    let journey = Journey::start();
    let without = journey.home.command("env").run().ok().stdout;
    let with = exec(&journey, &["env"])
        .env("TMPCRED_TOKEN", "stale")
        .env("TMPCRED_ROLE", "stale")
        .run()
        .ok()
        .stdout;
    let mut with = variables(&with);
    let token = with.remove("TMPCRED_TOKEN").unwrap();
    assert_eq!(with.remove("DEPLOY_TOKEN"), Some(token));
    assert_eq!(with.remove("TMPCRED_ACTIVE_PROFILE"), Some("deploy"));
    assert_eq!(with.remove("TMPCRED_ROLE"), Some("deploy"));
    assert_eq!(with.remove("TMPCRED_MAPPED"), Some("DEPLOY_TOKEN"));
    let end = with.remove("TMPCRED_EXPIRES_AT").unwrap();
    let rfc3339 = &time::format_description::well_known::Rfc3339;
    assert!(time::OffsetDateTime::parse(end, rfc3339).is_ok(), "{end}");
    assert_eq!(with, variables(&without));

    let program = journey.home.share(under_test());
    // The outer profile's own variable is gone, not merely another's.
    let show = "echo $TMPCRED_ACTIVE_PROFILE $TMPCRED_ROLE; test -z \"$DEPLOY_TOKEN\"";
    let inner = [program.to_str().unwrap(), "exec", "reader", "--", "sh", "-c", show];
    assert_eq!(exec(&journey, &inner).run().ok().stdout, "reader reader\n");
}

#[test]
fn every_option_that_changes_the_credential_asks_for_another() {
    let journey = Journey::start();
    let token = |options: &[&str]| journey.tmpcred(&["token"]).args(options).run().ok().stdout;
    let options: [&[&str]; 4] =
        [&[], &["--role", "reader"], &["--scope", "deploy:read"], &["--ttl", "10m"]];
    let first = options.map(token);
    for (at, one) in first.iter().enumerate() {
        assert!(first[..at].iter().all(|other| other != one), "{:?}", options[at]);
    }
    assert_eq!(options.map(token), first, "each is cached");
    assert_eq!(journey.broker.issued(), options.len());
    assert!(token(&["--refresh"]) != first[0]);
    token(&["--min-ttl", "1m"]);
    assert_eq!(journey.broker.issued(), options.len() + 1);
    let refused = journey.tmpcred(&["token", "--min-ttl", "10h"]).run();
    assert!(refused.code != Some(0) && refused.stdout.is_empty(), "{refused:?}");
    assert!(refused.stderr.starts_with("error: "), "{}", refused.stderr);
}

#[test]
fn shells_read_what_env_prints() {
    let journey = Journey::start();
    let token = journey.tmpcred(&["token"]).run().ok().stdout;
    for (shell, format, how) in [
        ("sh", "sh", r#"eval "$1"; printf '%s\n' "$DEPLOY_TOKEN""#),
        ("bash", "sh", r#"eval "$1"; printf '%s\n' "$DEPLOY_TOKEN""#),
        ("zsh", "sh", r#"eval "$1"; printf '%s\n' "$DEPLOY_TOKEN""#),
        ("fish", "fish", r#"echo $argv[2] | source; printf '%s\n' "$DEPLOY_TOKEN""#),
        ("node", "json", "console.log(JSON.parse(process.argv[2]).DEPLOY_TOKEN)"),
    ] {
        let printed = journey.tmpcred(&["env", "--format", format]).run().ok().stdout;
        let option = if shell == "node" { "-e" } else { "-c" };
        let run = journey.home.command(shell).args([option, how, shell, &printed]);
        assert_eq!(run.run().ok().stdout, token, "{shell}");
    }
}

#[test]
fn a_closed_or_full_standard_output_is_no_panic() {
    let journey = Journey::start();
    journey.tmpcred(&["token"]).run().ok();
    let program = journey.home.share(under_test());
    let sh = |script| journey.home.command("sh").args(["-c", script, "sh"]).args([&program]).run();
    assert_eq!(sh(r#"{ "$1" token; echo $? >&2; } | true"#).stderr, "0\n");
    let full = sh(r#""$1" token >/dev/full"#).ended_with(1);
    assert!(full.stderr.starts_with("error: cannot write the output"), "{}", full.stderr);
    let full = sh(r#""$1" status --json >/dev/full"#).ended_with(1);
    assert!(full.stderr.starts_with("error: "), "{}", full.stderr);
}

#[test]
fn ci_never_asks() {
    let mut journey = Journey::start();
    journey.home.set("TMPCRED_NO_INPUT", "");
    let run = journey.tmpcred(&["token"]).env_remove("TMPCRED_NO_INPUT").env("CI", "true");
    let refused = run.run().ended_with(4);
    assert!(refused.stderr.contains("login required: run `tmpcred login corp`"), "{refused:?}");
    assert!(!refused.stderr.contains('\u{1b}'), "no colours: {:?}", refused.stderr);
}
