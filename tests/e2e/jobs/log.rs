//! What is printed in a job is hidden from its log first: platforms are told, each in
//! its own way, and nobody else is.

use super::*;
use crate::revocation::recorded;
use crate::support::wait::wait_until;

/// The token that was printed, and what was said before.
#[track_caller]
fn printed(run: Run) -> (String, String) {
    let output = run.run().ok();
    (output.stdout.trim().to_string(), output.stderr)
}

/// A run in a job of Azure Pipelines.
fn in_azure(site: &Site, args: &[&str]) -> Run {
    site.configure(&format!("audience = \"{AZURE}\""), "");
    site.tmpcred(args)
        .env("TF_BUILD", "True")
        .env("SYSTEM_OIDCREQUESTURI", site.platform.url("/azure"))
        .env("SYSTEM_ACCESSTOKEN", "secret")
}

/// A shell in a job of GitHub Actions: `$1` is the program.
fn sh(site: &Site, script: &str) -> Run {
    let program = site.home.share(std::path::Path::new(env!("CARGO_BIN_EXE_tmpcred")));
    let run = site.home.command("sh").args(["-c", script, "sh"]).args([program]);
    site.github_variables(run, "build", "one")
}

#[test]
fn github_and_azure_are_told_on_standard_error() {
    let site = Site::start("");
    let (token, said) = printed(site.in_github("build", "one", TOKEN));
    assert_eq!(said, format!("::add-mask::{token}\n"));
    let (variables, said) = printed(site.in_github("build", "one", &["env", "--format", "json"]));
    let variables: serde_json::Value = serde_json::from_str(&variables).unwrap();
    assert_eq!(variables["TMPCRED_TOKEN"], token.as_str());
    assert_eq!(said, format!("::add-mask::{token}\n"));
    // Whatever is quiet or captured elsewhere: the log is hidden from all the same.
    let (_, said) = printed(site.in_github("build", "one", &["token", "--quiet"]));
    assert_eq!(said, format!("::add-mask::{token}\n"));
    let (token, said) = printed(in_azure(&site, TOKEN));
    assert_eq!(said, format!("##vso[task.setsecret]{token}\n"));
    // This platform does not set CI, and is one all the same.
    let exec = ["exec", "--revoke-on-exit=false", "--", "printenv", "TMPCRED_TOKEN"];
    assert_eq!(printed(in_azure(&site, &exec)), ("***".into(), String::new()));
}

#[test]
fn nobody_else_is_told() {
    let site = Site::start("[identity.x]\ntype = \"env\"\nvariable = \"T\"\n");
    let token = site.token();
    for variable in ["CI", "GITLAB_CI", "CIRCLECI", "NOTHING"] {
        let run = site.tmpcred(TOKEN).env("T", &token).env(variable, "true");
        assert_eq!(printed(run).1, "", "{variable}");
    }
}

#[test]
fn values_of_the_profile_with_the_secret_in_them_are_hidden_too_line_by_line() {
    let site = Site::start("");
    let env = "env = { NETRC = \"machine x\\npassword {token}\\n\", PLAIN = \"{role}\" }\n";
    let config = site.home.path(".config/tmpcred/config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    site.home.config(&(text + env));
    let (_, said) = printed(site.in_github("build", "one", &["env", "--format", "json"]));
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(lines[1].starts_with("::add-mask::machine x"), "{said}");
    assert!(lines[2].starts_with("::add-mask::password ey"), "{said}");
}

#[test]
fn nothing_is_printed_before_the_platform_has_read_what_to_hide() {
    let site = Site::start("").at(Home::new());
    let script = "import json, select, subprocess, sys
P = subprocess.PIPE
p = subprocess.Popen([sys.argv[1], 'token'], stdout=P, stderr=P)
select.select([p.stderr], [], [])
early = bool(select.select([p.stdout], [], [], 0.2)[0])
said = p.stderr.read().decode()
print(json.dumps({'early': early, 'said': said, 'out': p.stdout.read().decode()}))
";
    let program = site.home.share(std::path::Path::new(env!("CARGO_BIN_EXE_tmpcred")));
    let run = site.home.command("python3").args(["-c", script]).args([program]);
    let seen = site.github_variables(run, "build", "one").run().ok().json();
    assert_eq!(seen["early"], false, "{seen}");
    assert_eq!(seen["said"], format!("::add-mask::{}", seen["out"].as_str().unwrap()));
}

#[test]
fn no_file_gets_a_line_with_the_secret_in_it() {
    let site = Site::start("");
    let token = printed(site.in_github("build", "one", TOKEN)).0;
    let output = sh(&site, "\"$1\" token 2>log; cat log >&2").run().ok();
    assert_eq!(output.stdout.trim(), token);
    assert!(!output.stderr.contains(&token), "{}", output.stderr);
    let says = ["cannot be told what to hide", "standard error leads to a file"];
    for part in says {
        assert!(output.stderr.contains(part), "{part:?} is not in {}", output.stderr);
    }
    // A script keeps what a command says, and so what `exec` says.
    let script = "\"$1\" exec --revoke-on-exit=false -- sh -c 'echo a $TMPCRED_TOKEN' 2>&1 | cat";
    assert_eq!(sh(&site, script).run().ok().stdout, "a ***\n");
    let script = "\"$1\" exec --mask=no --revoke-on-exit=false -- printenv TMPCRED_TOKEN";
    let output = sh(&site, script).run().ok();
    assert_eq!((output.stdout.trim(), output.stderr.as_str()), (token.as_str(), ""));
}

#[test]
fn the_agent_of_buildkite_is_told_whatever_the_way_out() {
    let site = Site::start("");
    let agent = "#!/bin/sh\n\
        if test \"$1\" = oidc; then cat $HOME/answer; exit; fi\n\
        test \"$*\" = 'redactor add --format json' || exit 2\n\
        test -n \"$BUILDKITE_AGENT_JOB_API_TOKEN\" -a -z \"$OTHER\" || exit 3\n\
        cat >>$HOME/told; echo >>$HOME/told\n";
    site.home.write_program("buildkite-agent", agent);
    site.home.write("answer", site.token());
    let job = |args: &[&str]| {
        let path = std::env::var("PATH").unwrap();
        site.tmpcred(args)
            .env("PATH", format!("{}:{path}", site.home.path("bin").display()))
            .env("BUILDKITE", "true")
            .env("CI", "true")
            .env("BUILDKITE_JOB_ID", "1")
            .env("BUILDKITE_AGENT_JOB_API_TOKEN", "x")
            .env("OTHER", "x")
    };
    let (token, said) = printed(job(TOKEN));
    assert_eq!(said, "", "it is told by its own program only");
    let exec = ["exec", "--revoke-on-exit=false", "--", "sh", "-c", "echo $TMPCRED_TOKEN"];
    assert_eq!(printed(job(&exec)), ("***".into(), String::new()));
    let told = std::fs::read_to_string(site.home.path("told")).unwrap();
    let line = format!("{{\"0\":\"{token}\"}}\n");
    assert_eq!(told, line.repeat(2));
    // Where it cannot be told, that is told, and no secret with it.
    let broken = agent.replace("cat >>$HOME/told; echo >>$HOME/told", "cat >&2; exit 4");
    site.home.write_program("buildkite-agent", &broken);
    let (again, said) = printed(job(TOKEN));
    assert_eq!(again, token);
    assert!(said.contains("buildkite-agent ended with exit status: 4"), "{said}");
    assert!(!said.contains(&token), "{said}");
}

#[test]
fn whoever_is_told_to_end_while_the_agent_is_told_leaves_no_credential_behind() {
    let site = Site::start("");
    let agent = "#!/bin/sh\n\
        if test \"$1\" = oidc; then cat $HOME/answer; exit; fi\n\
        cat >$HOME/told; echo >$HOME/hiding\n\
        while ! test -e $HOME/go; do sleep 0.02; done\n";
    site.home.write_program("buildkite-agent", agent);
    site.home.write("answer", site.token());
    let path = std::env::var("PATH").unwrap();
    let exec = ["exec", "--", "sh", "-c", "echo ran >ran"];
    let running = site
        .tmpcred(&exec)
        .env("PATH", format!("{}:{path}", site.home.path("bin").display()))
        .env("BUILDKITE", "true")
        .env("CI", "true")
        .env("BUILDKITE_JOB_ID", "1")
        .spawn();
    let long = std::time::Duration::from_secs(60);
    wait_until("the agent", long, || site.home.path("hiding").exists().then_some(()));
    running.signal(rustix::process::Signal::TERM);
    site.home.write("go", "");
    let ended = running.wait();
    assert_eq!(ended.signal, Some(15), "{ended:?}");
    assert!(!site.home.path("work/ran").exists(), "the command was started");
    assert_eq!(recorded(&site.broker, "issued"), 1);
    assert_eq!(recorded(&site.broker, "revoked"), 1);
}
