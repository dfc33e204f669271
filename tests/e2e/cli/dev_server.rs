//! `tmpcred broker dev`: a broker and a provider to try things with, until Ctrl-C.

use rustix::process::Signal;

use crate::support::browser::Browser;
use crate::support::home::{Home, tmpcred};
use crate::support::run::Running;
use crate::support::wait::wait_until;

/// Starts it, and yields what it prints for a configuration file.
fn start(home: &Home) -> (Running, String) {
    let running = tmpcred(home).args(["broker", "dev"]).spawn();
    running.line_on_stderr("Development broker and identity provider on http://127.0.0.1:");
    let limit = std::time::Duration::from_secs(30);
    // Its last profile comes last, and its last line is a whole one.
    let whole = || {
        let text = running.stdout();
        text.ends_with('\n').then_some(())?;
        let parsed = text.parse::<toml::Table>().ok()?;
        parsed.get("profile")?.get("dev-reader")?.get("role")?;
        Some(text)
    };
    let configuration = wait_until("the whole configuration", limit, whole);
    (running, configuration)
}

#[test]
fn its_output_is_a_configuration_that_works_until_ctrl_c() {
    let (server, mut home) = (Home::new(), Home::stranger());
    let (running, configuration) = start(&server);
    home.config(&configuration);
    home.set("TMPCRED_NO_INPUT", "false");
    let browser = Browser::http().user("carol", "x").install(&mut home);
    let tmpcred = |args: &[&str]| tmpcred(&home).args(args);

    // With a browser on this machine.
    let token = tmpcred(&["token"]).run().ok().stdout;
    assert_eq!(browser.wait_for_visits(1).status, 200);
    let parsed: toml::Table = configuration.parse().unwrap();
    let audience = parsed["profile"]["dev"]["audience"].as_str().unwrap();
    let verify = tmpcred(&["verify", "--audience", audience, "--json"]).stdin(token.clone());
    let verified = verify.run().ok().json();
    assert_eq!(verified["claims"]["iss"].as_str(), parsed["broker"]["dev"]["url"].as_str());
    let status = tmpcred(&["status", "--json"]).run().ok().json();
    assert_eq!(status["sessions"][0]["subject"], "carol");

    // With a code, and as somebody else.
    let login = tmpcred(&["login", "--flow", "device", "--force"]).spawn();
    let last = |line: String| line.split_whitespace().last().unwrap().to_string();
    let page = last(login.line_on_stderr("To log in, visit"));
    let code = last(login.line_on_stderr("and enter the code"));
    Browser::http().user("dave", "x").visit_with_code(&home, &page, Some(&code));
    login.wait().ok();
    assert_eq!(browser.opened().len(), 1);
    let status = tmpcred(&["status", "--json"]).run().ok().json();
    assert_eq!(status["sessions"][0]["subject"], "dave");
    assert_ne!(tmpcred(&["token", "--no-input"]).run().ok().stdout, token);

    // It runs all the while, and ends when it is told to.
    assert_eq!(running.stdout(), configuration, "nothing else is on standard output");
    running.signal(Signal::INT);
    let ended = running.wait().ok();
    assert_eq!(ended.stdout, configuration);
    assert!(!ended.stderr.contains("error"), "{}", ended.stderr);
    tmpcred(&["token", "--refresh", "--no-input"]).run().ended_with(7);
}

#[test]
fn a_service_manager_can_end_it_too() {
    let home = Home::new();
    let (running, configuration) = start(&home);
    running.signal(Signal::TERM);
    assert_eq!(running.wait().ok().stdout, configuration);
}
