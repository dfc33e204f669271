//! Tokens that are there already, and those that a program prints. The programs of
//! Buildkite and CircleCI are stand-ins, written from the pages of both on their
//! command lines.

use rustix::process::{Pid, Signal, test_kill_process};
use serde_json::json;

use super::platform::{Fault, now};
use super::{Site, TOKEN, refused};
use crate::revocation::recorded;
use crate::support::canary::{Canary, assert_traced};
use crate::support::run::{LIMIT, Run};
use crate::support::wait::wait_until;

/// With the programs of this home before all others.
fn with_programs(site: &Site, run: Run) -> Run {
    let path = std::env::var("PATH").unwrap();
    run.env("PATH", format!("{}:{path}", site.home.path("bin").display()))
}

#[test]
fn a_gitlab_job_shows_its_token_only_to_whom_it_is_for() {
    let site = Site::start("");
    let job = |id: &str, token: &str| {
        let run = site.tmpcred(TOKEN).env("CI", "true").env("GITLAB_CI", "true");
        run.env("CI_JOB_ID", id).env("TMPCRED_ID_TOKEN", token)
    };
    let (one, two) = (site.token(), site.token());
    let first = job("1", &one).run().ok().stdout;
    assert_eq!(job("1", &one).run().ok().stdout, first);
    assert_ne!(job("2", &two).run().ok().stdout, first);
    assert_eq!(site.broker.issued(), 2);

    let vault = site.platform.token("https://vault.example", &json!({}));
    let not_ours = format!("it is for 'https://vault.example', not for '{}'", site.broker.url());
    let hint = format!("id_tokens: {{ TMPCRED_ID_TOKEN: {{ aud: {} }} }}", site.broker.url());
    refused(job("3", &vault), 9, &[&not_ours, &hint]);
    let over = site.platform.token(site.broker.url(), &json!({ "exp": now() - 100 }));
    refused(job("4", &over), 9, &["the token in TMPCRED_ID_TOKEN cannot be used", "it expired 1m"]);
    let without = job("5", "").run().ended_with(3);
    assert!(without.stderr.contains("hint: say `id_tokens: "), "{}", without.stderr);

    site.configure("", "[identity.ci]\ntype = \"gitlab\"\nvariable = \"OTHER\"\n");
    job("6", "").env("OTHER", &two).run().ok();
    assert_eq!(site.broker.issued(), 3);
}

#[test]
fn a_token_in_a_file_is_read_anew_and_checked() {
    let site = Site::start("[identity.pod]\ntype = \"file\"\ntoken_file = \"../../token\"\n");
    refused(site.tmpcred(TOKEN), 3, &["there is no ", "/token"]);
    site.home.write("token", format!("{}\n", site.token()));
    let first = site.tmpcred(TOKEN).run().ok().stdout;
    // Renewed: the same workload, so the credential is still good; a new mint uses
    // the new token.
    site.home.write("token", site.token());
    assert_eq!(site.tmpcred(TOKEN).run().ok().stdout, first);
    site.tmpcred(&["token", "--refresh"]).run().ok();
    assert_eq!(site.broker.issued(), 2);
    // Another pod of the same service account.
    let pod = json!({ "kubernetes.io": { "pod": { "uid": "2" } } });
    site.home.write("token", site.platform.token(site.broker.url(), &pod));
    assert_ne!(site.tmpcred(TOKEN).run().ok().stdout, first);
    assert_eq!(site.broker.issued(), 3);

    let ours = site.broker.url();
    let hint = "hint: whoever writes the file has to ask for a token for this audience";
    let not_ours = format!("it is for 'kubernetes', not for '{ours}'");
    let fresh = ["token", "--ttl", "5m"];
    for (text, says) in [
        (site.platform.token("kubernetes", &json!({})), [not_ours.as_str(), hint]),
        (site.platform.token(ours, &json!({ "exp": now() - 3600 })), ["it expired 1h", "clock"]),
        (
            site.platform.token(ours, &json!({ "exp": null })),
            ["it has no expiry", "cannot be used"],
        ),
        ("s3cr3t".into(), ["it is not a signed JWT", "cannot be used"]),
        (String::new(), ["it is empty", "cannot be used"]),
    ] {
        site.home.write("token", text);
        refused(site.tmpcred(&fresh), 9, &says);
    }
    site.home.write("token", "x".repeat(100_000));
    refused(site.tmpcred(&fresh), 1, &["is too large"]);
    site.home.write("other", site.token());
    site.configure("", "[identity.pod]\ntype = \"file\"\n");
    let file = site.home.path("other");
    site.tmpcred(TOKEN).env("AWS_WEB_IDENTITY_TOKEN_FILE", file).run().ok();
    assert_eq!(site.broker.issued(), 4);
}

#[test]
fn a_command_is_asked_within_bounds_and_sees_only_what_is_listed() {
    let site = Site::start("");
    let configure = |script: &str, more: &str| {
        let program = site.home.write_program("ask", &format!("#!/bin/sh\n{script}\n"));
        site.configure(
            "",
            &format!(
                "[identity.spire]\ntype = \"command\"\ncommand = [{program:?}, \"--for={{audience}}\"]\n{more}"
            ),
        );
    };
    site.home.write("answer", site.token());
    configure(
        "echo $0 \"$@\" >$HOME/asked; env >$HOME/seen; cat $HOME/answer",
        "variables = [\"SOCKET\"]",
    );
    let run = |socket: &str| site.tmpcred(TOKEN).env("SOCKET", socket).env("OTHER", "x");
    let first = run("a").run().ok().stdout;
    assert_eq!(run("a").run().ok().stdout, first);
    let read = |name: &str| std::fs::read_to_string(site.home.path(name)).unwrap();
    assert!(read("asked").ends_with(&format!(" --for={}\n", site.broker.url())));
    let seen = read("seen");
    let mut seen: Vec<_> = seen.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    // The shell's own.
    seen.retain(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name));
    seen.sort_unstable();
    // The last tells an AWS SDK in there that it is asked already.
    assert_eq!(seen, ["HOME", "PATH", "SOCKET", "TMPCRED_CREDENTIAL_PROCESS"]);
    assert_ne!(run("b").run().ok().stdout, first, "another socket may be another workload");
    assert_eq!(site.broker.issued(), 2);

    let gives_none = "/ask gives no token";
    for (script, more, code, says) in [
        (
            "sleep 600 & echo waits >&2; wait",
            "limit = \"1s\"",
            7,
            "it did not end within 1s, and was killed",
        ),
        ("exec yes", "", 9, "it printed more than"),
        ("echo 'no such workload' >&2; exit 3", "", 1, "it said: no such workload"),
        ("kill -KILL $$", "", 1, "signal: 9"),
    ] {
        configure(script, more);
        refused(run(script), code, &[gives_none, says]);
    }
    configure("echo s3cr3t", "");
    refused(run("c"), 9, &["it is not a signed JWT"]);
    // The arguments of a command may be anything.
    for args in [&["explain"][..], &["explain", "--json"]] {
        let explained = site.tmpcred(args).run().ok().stdout;
        assert!(explained.contains("/ask prints"), "{explained}");
        assert!(!explained.contains("--for="), "{explained}");
    }
    let gone = "[identity.spire]\ntype = \"command\"\ncommand = [\"no-such-program\"]\n";
    site.configure("", gone);
    let not_found = ["no-such-program gives no token", "it cannot be started"];
    refused(run("d"), 3, &not_found);
    refused(site.tmpcred(&["exec", "--", "true"]), 125, &not_found);
    site.configure("", &gone.replace("no-such-program", "./here"));
    refused(run("e"), 3, &["a bare name, found through PATH, or an absolute path"]);
    assert_eq!(site.broker.issued(), 2);
}

#[test]
fn no_token_of_a_job_shows_anywhere() {
    let site = Site::start("");
    let bearer = Canary::new("what the job asks with");
    let traced = |args: &[&str]| {
        let run = site.in_github("build", bearer.value(), args).env("TMPCRED_LOG", "trace");
        run.run()
    };
    let minted = traced(TOKEN).ok();
    // What the platform alone reads, so that it does not show it.
    let (hidden, mut said) = minted
        .stderr
        .split_inclusive('\n')
        .partition::<String, _>(|l| l.starts_with("::add-mask::"));
    assert_eq!(hidden, format!("::add-mask::{}", minted.stdout));
    for args in [&["explain"][..], &["explain", "--json"], &["status", "--json"]] {
        let output = traced(args).ok();
        said += &(output.stdout + &output.stderr);
    }
    let wrong = json!({ "aud": "https://other.example" });
    site.platform.fault(Fault::Claims(wrong));
    said += &traced(&["token", "--refresh"]).ended_with(9).stderr;
    let held = site.token();
    let gitlab = site.tmpcred(&["token", "-vv"]).env("GITLAB_CI", "true");
    said += &gitlab.env("TMPCRED_ID_TOKEN", &held).run().ok().stderr;
    assert_traced(&said);

    let mut canaries = vec![bearer, Canary::of("the minted token", minted.stdout.trim())];
    canaries.push(Canary::of("a job's own token", held));
    let handed_out = site.platform.handed_out();
    assert_eq!(handed_out.len(), 2);
    canaries.extend(handed_out.into_iter().map(|token| Canary::of("a job's token", token)));
    for canary in &canaries {
        assert_eq!(canary.search("what was said", said.as_bytes()), []);
        assert_eq!(canary.search_files(&site.home.path("")), []);
    }
}

#[test]
fn a_command_ends_with_whoever_asks_it() {
    let site = Site::start("");
    let program = site.home.write_program("ask", "#!/bin/sh\necho $$ >$HOME/pid\nexec sleep 600\n");
    site.configure("", &format!("[identity.slow]\ntype = \"command\"\ncommand = [{program:?}]\n"));
    let running = site.tmpcred(TOKEN).spawn();
    let pid = wait_until("the command to start", LIMIT, || {
        let pid = std::fs::read_to_string(site.home.path("pid")).ok()?;
        Pid::from_raw(pid.strip_suffix('\n')?.parse().unwrap())
    });
    test_kill_process(pid).unwrap();
    running.signal(Signal::INT);
    assert_eq!(running.wait().signal, Some(Signal::INT.as_raw()));
    wait_until("the command to end", LIMIT, || test_kill_process(pid).err());
}

#[test]
fn a_credential_that_was_being_minted_when_its_run_was_told_to_end_is_revoked() {
    let site = Site::start("");
    // Somebody cancels the job amid the mint.
    let script = "#!/bin/sh\nkill -TERM $PPID; exec cat $HOME/answer\n";
    let program = site.home.write_program("ask", script);
    site.home.write("answer", site.token());
    site.configure("", &format!("[identity.pod]\ntype = \"command\"\ncommand = [{program:?}]\n"));
    let run = site.tmpcred(&["exec", "--", "touch", "ran"]).env("CI", "true").run();
    assert_eq!(run.signal, Some(Signal::TERM.as_raw()), "{run:?}");
    assert_eq!(site.broker.issued(), 1);
    assert_eq!(recorded(&site.broker, "revoked"), 1, "{run:?}");
    assert!(!site.home.path("work/ran").exists());
}

#[test]
fn what_cannot_be_used_is_explained_all_the_same() {
    let site = Site::start("[identity.pod]\ntype = \"file\"\ntoken_file = \"../../token\"\n");
    let explain = || site.tmpcred(&["explain", "--json"]).run().ok().json();
    let report = explain();
    assert_eq!(report["sources"][0]["state"], "absent", "{report}");
    assert!(report["cache"]["because"].as_str().unwrap().starts_with("there is no "), "{report}");
    site.home.write("token", "s3cr3t");
    let report = explain();
    assert_eq!(report["sources"][0]["state"], "ready");
    let why = report["cache"]["because"].as_str().unwrap();
    assert!(why.contains("it is not a signed JWT") && !why.contains("s3cr3t"), "{report}");
}

#[test]
fn a_buildkite_job_asks_its_agent() {
    let site = Site::start("");
    let script = "#!/bin/sh\ntest \"$1 $2 $3\" = 'oidc request-token --audience' || exit 2\n\
                  test -n \"$BUILDKITE_AGENT_ACCESS_TOKEN\" -a -z \"$OTHER\" || exit 3\n\
                  echo \"$4\" >>$HOME/asked; cat $HOME/answer\n";
    site.home.write_program("buildkite-agent", script);
    site.home.write("answer", site.token());
    let job = |id: &str| {
        let run = with_programs(&site, site.tmpcred(TOKEN)).env("BUILDKITE", "true");
        run.env("BUILDKITE_JOB_ID", id)
            .env("BUILDKITE_AGENT_ACCESS_TOKEN", "secret")
            .env("OTHER", "x")
    };
    let first = job("1").run().ok().stdout;
    assert_eq!(job("1").run().ok().stdout, first);
    assert_ne!(job("2").run().ok().stdout, first);
    let asked = std::fs::read_to_string(site.home.path("asked")).unwrap();
    assert_eq!(asked, format!("{0}\n{0}\n", site.broker.url()));
    assert_eq!(site.broker.issued(), 2);
    site.home.write_program("buildkite-agent", "#!/bin/sh\necho 'not allowed' >&2; exit 1\n");
    refused(job("3"), 1, &["buildkite-agent gives no token", "it said: not allowed"]);
}

#[test]
fn a_circleci_job_uses_its_token_or_asks_for_one() {
    let site = Site::start("");
    let script = "#!/bin/sh\ntest \"$1 $2 $3 $4\" = 'run oidc get --claims' || exit 2\n\
                  echo \"$5\" >>$HOME/asked; cat $HOME/answer\n";
    site.home.write_program("circleci", script);
    site.home.write("answer", site.token());
    let job = |id: &str, token: &str| {
        let run = with_programs(&site, site.tmpcred(TOKEN)).env("CIRCLECI", "true");
        run.env("CIRCLE_WORKFLOW_JOB_ID", id).env("CIRCLE_OIDC_TOKEN_V2", token)
    };
    let organisation = site.platform.token("0f5c-organisation", &json!({}));
    let first = job("1", &organisation).run().ok().stdout;
    assert_eq!(job("1", &organisation).run().ok().stdout, first);
    let asked = std::fs::read_to_string(site.home.path("asked")).unwrap();
    assert_eq!(asked, format!("{{\"aud\":\"{}\"}}\n", site.broker.url()));
    assert_ne!(job("2", &organisation).run().ok().stdout, first);
    // A broker that accepts the organisation's own tokens needs no other.
    site.home.write_program("circleci", "#!/bin/sh\nexit 9\n");
    job("3", &site.token()).run().ok();
    assert_eq!(site.broker.issued(), 3);
    refused(job("4", &organisation), 1, &["circleci gives no token", "exit status: 9"]);
    refused(job("5", ""), 3, &["CIRCLE_OIDC_TOKEN_V2 is not set"]);
}
