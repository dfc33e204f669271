//! `exec --mask`: no secret in the output, and everything else as it was.

use rustix::process::Signal;

use crate::journey::Journey;
use crate::support::home::under_test;
use crate::support::run::Run;
use crate::support::terminal::Terminal;

fn masked(journey: &Journey, script: &str) -> Run {
    journey.tmpcred(&["exec", "--mask", "--", "sh", "-c", script])
}

#[test]
fn no_form_of_the_secret_gets_through() {
    let journey = Journey::start();
    let token = journey.tmpcred(&["token"]).run().ok().stdout;
    let token = token.trim();
    let script = r#"
        echo "plain $TMPCRED_TOKEN $DEPLOY_TOKEN."
        printf %s "$TMPCRED_TOKEN" | base64
        printf %s "$TMPCRED_TOKEN" | base64 -w 0; echo
        printf 'user:%s' "$TMPCRED_TOKEN" | base64 -w 0; echo
        printf %s "$TMPCRED_TOKEN" | openssl base64
        printf %s "$TMPCRED_TOKEN" | xxd -p
        printf %s "$TMPCRED_TOKEN" | xxd -p -u
        printf %s "$TMPCRED_TOKEN" | jq -Rr '@uri, @json, @base64'
        python3 -c 'import base64, os; print(base64.urlsafe_b64encode(b"x" + os.environ["TMPCRED_TOKEN"].encode()).decode())'
        echo "error $TMPCRED_TOKEN" >&2
        echo "the end"
    "#;
    let output = masked(&journey, script).run().ok();
    assert_eq!(output.stderr, "error ***\n");
    let lines: Vec<_> = output.stdout.lines().collect();
    assert_eq!(lines[..3], ["plain *** ***.", "***", "***"]);
    assert_eq!(lines[4..10], ["***", "***", "***", "***", "\"***\"", "***"]);
    // A character or two, in which the user's name has a part.
    assert!(lines[3].starts_with("dXNlcjp") && lines[3].contains("***"), "{}", lines[3]);
    assert!(lines[3].len() < 20 && lines[10].len() < 12, "{lines:?}");
    assert_eq!(lines[11..], ["the end"]);
    // By default it is not done, and is not needed to find it.
    let plain = journey.tmpcred(&["exec", "--", "printenv", "TMPCRED_TOKEN"]).run().ok();
    assert_eq!(plain.stdout.trim(), token);
}

#[test]
fn what_is_no_secret_is_passed_on_byte_by_byte() {
    let journey = Journey::start();
    let program = journey.home.share(under_test());
    let script = "\"$1\" exec --mask -- sh -c 'head -c 1000000 /dev/urandom >bytes; cat bytes' >out \
                  && cmp bytes out && wc -c <out";
    let compared = journey.home.command("sh").args(["-c", script, "sh"]).args([program]);
    assert_eq!(compared.run().ok().stdout.trim(), "1000000");
}

#[test]
fn codes_and_signals_are_those_of_the_command() {
    let journey = Journey::start();
    for code in [0, 7, 255] {
        masked(&journey, &format!("exit {code}")).run().ended_with(code);
    }
    let killed = masked(&journey, "echo $TMPCRED_TOKEN; kill -TERM $$").run();
    assert_eq!(killed.signal, Some(Signal::TERM.as_raw()), "{killed:?}");
    assert_eq!(killed.stdout, "***\n");
    journey.tmpcred(&["exec", "--mask", "--", "no-such-command"]).run().ended_with(127);
}

#[test]
fn readers_may_be_slow_or_gone() {
    let journey = Journey::start();
    journey.tmpcred(&["token"]).run().ok();
    let program = journey.home.share(under_test());
    let sh = |script| journey.home.command("sh").args(["-c", script, "sh"]).args([&program]).run();
    // Not a byte of much output is lost, although the command has long ended.
    let slow = "\"$1\" exec --mask -- sh -c 'head -c 60000 /dev/zero' | (sleep 1; wc -c)";
    assert_eq!(sh(slow).ok().stdout.trim(), "60000");
    let much = "\"$1\" exec --mask -- head -c 30000000 /dev/zero | (sleep 0.2; wc -c)";
    assert_eq!(sh(much).ok().stdout.trim(), "30000000");
    let gone = "{ \"$1\" exec --mask -- yes; kill -l $? >&2; } | head -n 1";
    let gone = sh(gone).ok();
    assert_eq!((gone.stdout.as_str(), gone.stderr.trim()), ("y\n", "PIPE"));
    let full = sh("\"$1\" exec --mask -- echo y >/dev/full").ended_with(125);
    assert!(full.stderr.contains("cannot write the command's output"), "{}", full.stderr);
}

#[test]
fn ci_masks_unless_somebody_says_no() {
    let journey = Journey::start();
    let token = journey.tmpcred(&["token"]).run().ok().stdout;
    let ci = |args: &[&str]| journey.tmpcred(args).env("CI", "true");
    let show = ["exec", "--revoke-on-exit=no", "--", "printenv", "TMPCRED_TOKEN"];
    assert_eq!(ci(&show).run().ok().stdout, "***\n");
    let no = ["exec", "--revoke-on-exit=no", "--mask=no", "--", "printenv", "TMPCRED_TOKEN"];
    assert_eq!(ci(&no).run().ok().stdout, token);
    for (args, because) in [
        (&["explain", "--json", "--mask"][..], "--mask: "),
        (&["explain", "--json", "--mask", "--revoke-on-exit"], "; --mask: "),
    ] {
        let plan = journey.tmpcred(args).run().ok().json();
        assert_eq!(plan["mode"]["name"], "supervisor");
        assert!(plan["mode"]["because"].as_str().unwrap().contains(because), "{plan}");
    }
}

#[test]
fn ctrl_c_reaches_a_command_in_a_pipeline() {
    let journey = Journey::start();
    journey.tmpcred(&["token"]).run().ok();
    let terminal = Terminal::start(&journey.home, 80, 24);
    let trap = "trap \"echo GOT-\\$TMPCRED_TOKEN; exit 3\" INT; echo RUN''NING; while :; do sleep 0.1; done";
    terminal.enter(&format!(
        "tmpcred exec --mask -- sh -c '{trap}' 2>&1 | sh -c 'trap \"\" INT; exec cat'; echo EN''D ${{PIPESTATUS[0]}}"
    ));
    terminal.wait_for("RUNNING");
    terminal.press("C-c");
    let screen = terminal.wait_for("END 3");
    assert!(screen.contains("GOT-***"), "{screen}");
}

#[test]
fn what_a_job_proves_itself_with_is_masked_too() {
    let journey = Journey::start();
    let script =
        "echo $ACTIONS_ID_TOKEN_REQUEST_TOKEN; printf %s $SYSTEM_ACCESSTOKEN | base64; echo $MINE";
    let output = masked(&journey, script)
        .env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "what-github-gives")
        .env("SYSTEM_ACCESSTOKEN", "what-azure-gives")
        .env("MINE", "no-business-of-ours");
    assert_eq!(output.run().ok().stdout, "***\n***\nno-business-of-ours\n");
}
