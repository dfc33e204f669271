//! The main job at real providers, from the command line, and what it asks of
//! them: no request too many.

use serde_json::Value;

use super::journey::Journey;
use super::support::broker::{API, Broker, BrokerOptions};
use super::support::browser::{Browser, Installed};
use super::support::glewlwyd::{CLIENT, Glewlwyd, GlewlwydOptions, PASSWORD, USER};
use super::support::home::{Home, tmpcred};
use super::support::run::{LIMIT, Run};
use super::support::wait::wait_until;

/// The same home with another browser.
fn with_browser(journey: &mut Journey, browser: Browser) -> Installed {
    browser.install(&mut journey.home)
}

#[test]
fn a_person_logs_in_with_a_real_browser_and_sees_that_it_is_done() {
    let mut journey = Journey::in_home(Home::new());
    let picture = journey.home.path("tmp/done.png");
    let browser = Browser::chromium().user("alice", "x").screenshot(&picture);
    let browser = with_browser(&mut journey, browser);
    let exec = ["exec", "--", "sh", "-c", "echo $TMPCRED_ROLE"];
    let first = journey.tmpcred(&exec).spawn();
    // Whoever looks at the end of a run may end what it left, the browser too.
    let visit = browser.wait_for_visits(1);
    wait_until("a picture of the last page", LIMIT, || {
        let png = std::fs::read(&picture).unwrap_or_default();
        (png.starts_with(b"\x89PNG") && png.ends_with(b"IEND\xae\x42\x60\x82")).then_some(())
    });
    assert_eq!(first.wait().ok().stdout, "deploy\n");
    assert_eq!(visit.status, 200);
    assert!(visit.text.contains("You are logged in"), "{}", visit.text);
    assert!(visit.text.contains("You can close this page"), "{}", visit.text);
    assert_eq!(journey.tmpcred(&exec).run().ok().stdout, "deploy\n");
    assert_eq!(browser.opened().len(), 1);
}

/// The kinds of requests that a provider got, in their order.
fn asked(journey: &Journey, from: usize) -> Vec<String> {
    let requests = journey.provider.requests();
    requests[from..].iter().map(|one| format!("{} {}", one.method, one.path)).collect()
}

/// How many requests a broker answered.
fn answered(journey: &Journey) -> usize {
    journey.broker.said().lines().filter(|line| line.contains("answered")).count()
}

/// So many, and no more: the broker writes that down once whoever asked has the answer.
#[track_caller]
fn has_answered(journey: &Journey, count: usize) {
    wait_until("the broker to say so", LIMIT, || (answered(journey) >= count).then_some(()));
    assert_eq!(answered(journey), count, "{}", journey.broker.said());
}

#[test]
fn each_step_asks_for_what_it_needs_and_nothing_more() {
    let journey = Journey::start();
    // Somebody else was here before: the broker knows the issuer's keys.
    let mut other = Home::stranger();
    let config = journey.home.path(".config/tmpcred/config.toml");
    other.config(&std::fs::read_to_string(config).unwrap());
    Browser::http().user("bob", "x").install(&mut other);
    tmpcred(&other).args(["token", "--no-input=false"]).run().ok();
    has_answered(&journey, 1);
    let (start, from) = (1, journey.provider.requests().len());

    // The first login: discovery, the pages that the browser sees, one token
    // request, the keys.
    journey.tmpcred(&["login"]).run().ok();
    let first = asked(&journey, from);
    assert_eq!(first[0], "GET /.well-known/openid-configuration");
    let pages = |path: &str| path.contains("/auth") || path.contains("/interaction/");
    let rest: Vec<&String> = first[1..].iter().filter(|path| !pages(path)).collect();
    assert_eq!(rest, ["POST /token", "GET /jwks"]);
    has_answered(&journey, start);

    // With a session and a good assertion: one request to the broker.
    let before = from + first.len();
    journey.tmpcred(&["token"]).run().ok();
    assert_eq!(asked(&journey, before), [""; 0]);
    has_answered(&journey, start + 1);
    journey.tmpcred(&["token", "reader"]).run().ok();
    journey.tmpcred(&["token", "--ttl", "10m"]).run().ok();
    assert_eq!(asked(&journey, before), [""; 0]);
    has_answered(&journey, start + 3);

    // With a credential: none, whatever the command.
    let exec = ["exec", "--", "true"];
    for args in [&["token"][..], &["env"], &exec, &["status"], &["explain"], &["login"]] {
        journey.tmpcred(args).run().ok();
    }
    assert_eq!(asked(&journey, before), [""; 0]);
    has_answered(&journey, start + 3);
}

#[test]
fn where_no_browser_may_be_opened_the_page_is_printed() {
    let mut journey = Journey::start();
    let opener = with_browser(&mut journey, Browser::http());
    let login = journey.tmpcred(&["login", "--no-browser"]).spawn();
    login.line_on_stderr("To log in, visit:");
    let page = login.line_on_stderr("/auth?");
    assert!(opener.opened().is_empty());
    let visit = Browser::http().visit(&Home::new(), page.trim());
    assert!(visit.text.contains("You are logged in"), "{}", visit.text);
    let output = login.wait().ok();
    assert_eq!(output.stdout, "");
    assert!(output.stderr.contains("logged in to corp as"), "{}", output.stderr);
    assert!(opener.opened().is_empty());
    journey.tmpcred(&["token", "--no-input"]).run().ok();
}

#[test]
fn a_device_login_shows_code_and_page() {
    let mut journey = Journey::start();
    let opener = with_browser(&mut journey, Browser::http());
    let login = journey.tmpcred(&["login", "--flow", "device", "--json"]).spawn();
    let page = login.line_on_stderr("To log in, visit ");
    let code = login.line_on_stderr("and enter the code");
    let (page, code) = (page.rsplit(' ').next().unwrap(), code.rsplit(' ').next().unwrap());
    assert_eq!(page, journey.provider.url("/device"));
    Browser::http().visit_with_code(&Home::new(), page, Some(code));
    let output = login.wait().ok();
    assert_eq!(output.json()["subject"], "alice");
    assert!(!output.stderr.contains('█') && !output.stderr.contains('▀'), "{}", output.stderr);
    assert!(opener.opened().is_empty());
    journey.tmpcred(&["token", "--no-input"]).run().ok();
}

#[test]
fn the_redirect_may_come_over_ipv6_or_by_name() {
    let mut journey = Journey::start();
    let path = journey.home.path(".config/tmpcred/config.toml");
    let toml = std::fs::read_to_string(path).unwrap();
    for (expected, host, shown) in [(1, "::1", "[::1]"), (2, "localhost", "localhost")] {
        let line = format!("client_id = \"cli\"\nredirect_host = \"{host}\"");
        journey.home.config(&toml.replace("client_id = \"cli\"", &line));
        let browser = with_browser(&mut journey, Browser::http());
        let login = journey.tmpcred(&["login", "--force"]).spawn();
        let visit = browser.wait_for_visits(expected);
        login.wait().ok();
        for page in [browser.opened().pop().unwrap(), visit.url] {
            assert!(page.as_str().starts_with(&format!("http://{shown}:")), "{page}");
        }
        assert!(visit.text.contains("You are logged in"), "{}", visit.text);
    }
}

/// A person at Glewlwyd.
struct AtGlewlwyd {
    home: Home,
    broker: Broker,
    server: Glewlwyd,
    browser: Installed,
}

impl AtGlewlwyd {
    /// With a provider that issues access tokens for these resources only.
    fn start(resources: Vec<&'static str>) -> Self {
        let options = GlewlwydOptions { resources, ..GlewlwydOptions::default() };
        let server = Glewlwyd::start_with(&options);
        let mut trusting = BrokerOptions::trusting(&server.issuer());
        trusting.audiences = vec![CLIENT.into()];
        let broker = Broker::start(&trusting);
        let mut home = Home::stranger();
        home.config(&format!(
            r#"default_profile = "deploy"

[identity.corp]
type = "oidc"
issuer = "{}"
client_id = "{CLIENT}"
scopes = ["openid"]
redirect_ports = {:?}

[broker.main]
url = "{}"

[profile.deploy]
role = "deploy"
audience = "{API}"
"#,
            server.issuer(),
            server.redirect_ports(),
            broker.url()
        ));
        let browser = Browser::http().user(USER, PASSWORD).install(&mut home);
        home.set("TMPCRED_NO_INPUT", "false");
        Self { home, broker, server, browser }
    }

    fn tmpcred(&self, args: &[&str]) -> Run {
        tmpcred(&self.home).args(args)
    }
}

#[test]
fn the_main_job_works_at_another_provider() {
    let person = AtGlewlwyd::start(Vec::new());
    let exec = ["exec", "--", "sh", "-c", "echo $TMPCRED_ROLE"];
    let first = person.tmpcred(&exec).spawn();
    let visit = person.browser.wait_for_visits(1);
    assert_eq!(first.wait().ok().stdout, "deploy\n");
    assert_eq!(person.tmpcred(&exec).run().ok().stdout, "deploy\n");
    assert_eq!(person.broker.issued(), 1);
    assert_eq!(person.browser.opened().len(), 1);
    assert!(visit.text.contains("You are logged in"), "{}", visit.text);
    let token = person.tmpcred(&["token"]).run().ok().stdout;
    let verify = ["verify", "--audience", API, "--json"];
    let claims = person.tmpcred(&verify).stdin(token).run().ok().json();
    assert_eq!(claims["claims"]["sub_id"]["iss"], Value::from(person.server.issuer()));
    let logout = person.tmpcred(&["logout"]).run().ok();
    assert!(!logout.stderr.is_empty());
    person.tmpcred(&["token", "--no-input"]).run().ended_with(4);
}

#[test]
fn the_device_flow_works_at_another_provider() {
    let person = AtGlewlwyd::start(Vec::new());
    let login = person.tmpcred(&["login", "--flow", "device"]).spawn();
    let page = login.line_on_stderr("To log in, visit ");
    let code = login.line_on_stderr("and enter the code");
    let (page, code) = (page.rsplit(' ').next().unwrap(), code.rsplit(' ').next().unwrap());
    let browser = Browser::http().user(USER, PASSWORD);
    browser.visit_with_code(&Home::new(), page, Some(code));
    login.wait().ok();
    person.tmpcred(&["token", "--no-input"]).run().ok();
    assert!(person.browser.opened().is_empty());
}
