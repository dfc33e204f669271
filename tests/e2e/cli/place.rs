//! What the place of a run decides: which way to log in, and what a machine's own
//! configuration says.

use std::ffi::OsString;

use serde_json::Value;

use crate::journey::Journey;
use crate::support::browser::Browser;
use crate::support::home::{Home, through};
use crate::support::peer::program;
use crate::support::run::Run;

#[test]
fn over_ssh_a_login_shows_a_code_and_opens_no_browser() {
    let mut journey = Journey::start();
    let browser = Browser::http().user("alice", "x").install(&mut journey.home);
    journey.home.set("SSH_CONNECTION", "192.0.2.1 50000 192.0.2.2 22");
    // A desktop that is there all the same is the other machine's.
    journey.home.set("DISPLAY", ":0");
    shows_a_code(&journey, |run| run, "this is an SSH session");
    assert!(browser.opened().is_empty(), "{:?}", browser.opened());
}

#[test]
fn so_it_does_in_a_place_without_a_browser() {
    for (name, value, why) in [
        ("WSL_DISTRO_NAME", "Debian", "this is WSL without a browser"),
        ("container", "podman", "this is a container without a browser"),
    ] {
        let journey = Journey::start();
        let there = |run: Run| run.env(name, value).env_remove("BROWSER");
        shows_a_code(&journey, there, why);
        // One that is named is used, also there.
        let flow = flow(&journey, |run| run.env(name, value));
        assert_eq!(flow["value"], "browser", "{flow}");
    }
}

/// Which way to log in the program would go, and why.
fn flow(journey: &Journey, there: impl Fn(Run) -> Run) -> Value {
    let explained = there(journey.tmpcred(&["explain", "--json"])).run().ok().json();
    let facts = explained["identity"].as_array().unwrap();
    facts.iter().find(|fact| fact["what"] == "flow").unwrap().clone()
}

/// A login shows a code in the place that `there` makes, and says why.
#[track_caller]
fn shows_a_code(journey: &Journey, there: impl Fn(Run) -> Run, why: &str) {
    let flow = flow(journey, &there);
    assert_eq!((&flow["value"], &flow["why"]), (&"device".into(), &why.into()));
    let token = there(journey.tmpcred(&["token"])).spawn();
    let last = |line: String| line.split_whitespace().last().unwrap().to_string();
    let page = last(token.line_on_stderr("To log in, visit"));
    let code = last(token.line_on_stderr("and enter the code"));
    Browser::http().user("alice", "x").visit_with_code(&journey.home, &page, Some(&code));
    assert_eq!(token.wait().ok().stdout.trim().split('.').count(), 3);
    assert_eq!(journey.provider.count_grants("authorization_code"), 0);
}

/// The program, on a machine whose `/etc/tmpcred/config.toml` is this text: in a mount
/// namespace of its own.
///
/// Where no such namespace can be had, the program does not run and the test fails.
fn on_a_machine_with(home: &Home, text: &str, args: &[&str]) -> Run {
    const MOUNT: &str = r#"
        set -e
        mount -t tmpfs -o mode=755 tmpfs /etc
        mkdir /etc/tmpcred
        printf %s "$1" >/etc/tmpcred/config.toml
        shift
        exec "$@"
    "#;
    let unshare = program("unshare");
    through(home, unshare.to_str().unwrap(), |words| {
        let mut all: Vec<OsString> = vec!["--mount".into()];
        if !rustix::process::geteuid().is_root() {
            all.push("--map-root-user".into());
        }
        all.extend(["sh", "-c", MOUNT, "sh", text].map(OsString::from));
        all.extend(words);
        all.extend(args.iter().map(OsString::from));
        all
    })
}

#[test]
fn the_configuration_of_the_machine_is_read_and_a_persons_own_wins() {
    const MACHINE: &str = r#"
default_profile = "deploy"

[identity.corp]
type = "oidc"
issuer = "https://login.example.com"
client_id = "of-the-machine"

[broker.main]
url = "https://broker.example.com"

[profile.deploy]
role = "deploy"
audience = "https://api.example.com"
"#;
    let home = Home::stranger();
    let explain = || {
        on_a_machine_with(&home, MACHINE, &["explain", "--json"]).run().ok().json()["plan"]
            .to_string()
    };
    let plan = explain();
    assert!(plan.contains("https://broker.example.com"), "{plan}");
    let reasons = on_a_machine_with(&home, MACHINE, &["explain"]).run().ok().stdout;
    assert!(reasons.contains("/etc/tmpcred/config.toml"), "{reasons}");
    home.config("[profile.deploy]\nrole = \"reader\"\n");
    let plan = explain();
    assert!(plan.contains("\"reader\"") && plan.contains("https://broker.example.com"), "{plan}");
    // Elsewhere there is none.
    crate::support::home::tmpcred(&home).args(["explain"]).run().ended_with(3);
    // One that is wrong is named.
    let wrong = on_a_machine_with(&home, "default_profil = 1\n", &["explain"]).run().ended_with(3);
    assert!(wrong.stderr.contains("/etc/tmpcred/config.toml"), "{}", wrong.stderr);
}
