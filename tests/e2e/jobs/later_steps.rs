//! `env --format github`: the later steps of a job get the credential, where somebody
//! said that they shall.

use super::*;

const LATER: &[&str] = &["env", "--format", "github", "--for-later-steps"];

#[test]
fn the_file_gets_the_variables_and_the_log_does_not_show_them() {
    let site = Site::start("");
    // A step before has left its line open.
    let file = site.home.write("github_env", "A=1\nB=2");
    let run = site.in_github("build", "one", LATER).env("GITHUB_ENV", &file);
    let output = run.run().ok();
    assert_eq!(output.stdout, "");
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..2], ["A=1", "B=2"]);
    let at = lines.iter().position(|line| line.starts_with("TMPCRED_TOKEN<<")).unwrap();
    let token = lines[at + 1];
    assert_eq!(lines[at + 2], &lines[at]["TMPCRED_TOKEN<<".len()..]);
    assert_eq!(output.stderr, format!("::add-mask::{token}\n"));
    assert_eq!(site.in_github("build", "one", TOKEN).run().ok().stdout.trim(), token);
    // What is in the way of the credential is named.
    let run = site.in_github("build", "one", LATER).env("TMPCRED_MAPPED", "OLD").env("OLD", "x");
    let said = run.env("GITHUB_ENV", &file).run().ok().stderr;
    assert!(said.contains("later steps still have OLD, TMPCRED_MAPPED"), "{said}");
}

#[test]
fn the_file_gets_nothing_before_the_runner_has_read_what_to_hide() {
    let site = Site::start("").at(Home::new());
    let file = site.home.write("github_env", "");
    let script = "import json, os, select, subprocess, sys, time
p = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
select.select([p.stderr], [], [])
end, early = time.monotonic() + 0.2, ''
while time.monotonic() < end:
    early += open(os.environ['GITHUB_ENV']).read()
said = p.stderr.read().decode()
p.wait()
late = open(os.environ['GITHUB_ENV']).read()
print(json.dumps({'early': early, 'said': said, 'late': late}))
";
    let program = site.home.share(std::path::Path::new(env!("CARGO_BIN_EXE_tmpcred")));
    let run = site.home.command("python3").args(["-c", script]).args([program]).args(LATER);
    let run = site.github_variables(run, "build", "one").env("GITHUB_ENV", &file);
    let seen = run.run().ok().json();
    assert_eq!(seen["early"], "", "{seen}");
    let said = seen["said"].as_str().unwrap();
    let token = said.strip_prefix("::add-mask::").unwrap().trim_end();
    assert!(seen["late"].as_str().unwrap().contains(token), "{seen}");
}

#[test]
fn without_the_word_or_the_file_nothing_is_minted() {
    let site = Site::start("");
    let file = site.home.write("github_env", "");
    let github = |args: &[&str]| site.in_github("build", "one", args).env("GITHUB_ENV", &file);
    let says = ["needs --for-later-steps", "every later step of the job gets the credential"];
    refused(github(&["env", "--format", "github"]), 2, &says);
    refused(github(&["env", "--format", "sh", "--for-later-steps"]), 2, &["--format github"]);
    let no_file = site.in_github("build", "one", LATER);
    refused(no_file, 2, &["there are no later steps here", "GITHUB_ENV is not set"]);
    let gone = github(LATER).env("GITHUB_ENV", "/nowhere/file");
    refused(gone, 2, &["GITHUB_ENV names no file: /nowhere/file"]);
    let no_job = github(LATER).env("GITHUB_ACTIONS", "");
    refused(no_job, 2, &["GITHUB_ACTIONS is not set"]);
    assert_eq!(site.broker.issued(), 0);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "");
}

#[test]
fn what_cannot_be_hidden_is_not_handed_on() {
    let site = Site::start("");
    let file = site.home.write("github_env", "");
    let program = site.home.share(std::path::Path::new(env!("CARGO_BIN_EXE_tmpcred")));
    let script = "\"$1\" env --format github --for-later-steps 2>log; code=$?; cat log; exit $code";
    let run = site.home.command("sh").args(["-c", script, "sh"]).args([program]);
    let run = site.github_variables(run, "build", "one").env("GITHUB_ENV", &file);
    let output = run.run().ended_with(2);
    assert!(output.stdout.contains("standard error leads to a file"), "{}", output.stdout);
    assert!(!output.stdout.contains("eyJ"), "{}", output.stdout);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "");
}
