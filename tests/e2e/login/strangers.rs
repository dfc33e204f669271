//! Other users of the machine, who see with what programs are started and can reach
//! whatever listens on loopback.

use serde_json::json;
use url::Url;

use super::{BROKER, LONG, Plan, start_browser};
use crate::support::home::{Home, assert_root};
use crate::support::oidc_provider::OidcProvider;
use crate::support::wait::wait_until;

/// Asks for a page as the user `nobody`; returns the status.
fn ask_as_nobody(home: &Home, url: &Url) -> String {
    let script = "import sys, urllib.request, urllib.error
try:
    print(urllib.request.urlopen(sys.argv[1]).status)
except urllib.error.HTTPError as e:
    print(e.code)";
    let ask = home.command("/usr/bin/python3").args(["-c", script, url.as_str()]);
    ask.uid(65534).current_dir("/").run().ok().stdout.trim().to_string()
}

fn parameter(url: &Url, name: &str) -> String {
    url.query_pairs().find(|(one, _)| one == name).unwrap().1.into_owned()
}

#[test]
fn nobody_else_can_end_or_finish_a_login_although_they_know_its_state() {
    assert_root();
    let provider = OidcProvider::start();
    for redirect_host in ["127.0.0.1", "::1", "localhost"] {
        let plan = Plan { prints_only: true, ..Plan::new(provider.issuer()) };
        let (world, _) = plan.set("redirect_host", json!(redirect_host)).build();
        let (home, person) = (world.home.clone(), world.person.clone());
        let others = std::thread::spawn(move || {
            let page = wait_until("the page to be printed", LONG, || {
                person.pages.lock().unwrap().first().cloned()
            });
            let state = parameter(&page.0, "state");
            for outcome in [("error", "access_denied"), ("code", "theirs")] {
                let mut callback = Url::parse(&parameter(&page.0, "redirect_uri")).unwrap();
                callback
                    .query_pairs_mut()
                    .append_pair("state", &state)
                    .append_pair(outcome.0, outcome.1);
                assert_eq!(ask_as_nobody(&home, &callback), "403", "{callback}");
            }
            start_browser(&home, &page.0).wait().ok();
        });
        let assertion = world.assertion(BROKER);
        others.join().unwrap();
        assert_eq!(assertion.unwrap().principal.subject, "alice", "{redirect_host}");
        let told = world.told();
        assert_eq!(told.len(), 1, "once is enough: {told:?}");
        assert!(told[0].contains("another user of this machine (number 65534)"), "{told:?}");
    }
}

#[test]
fn what_a_browser_is_started_with_gives_nothing_away() {
    let provider = OidcProvider::start();
    let (world, browser) = Plan::new(provider.issuer()).build();
    world.assertion(BROKER).unwrap();
    let visit = browser.wait_for_visits(1);
    let (shown, opened) = world.person.pages.lock().unwrap()[0].clone();
    assert!(opened && shown.as_str().starts_with(provider.issuer()), "{shown}");
    let start = browser.opened().remove(0);
    assert_eq!(start.host_str(), Some("127.0.0.1"));
    assert_eq!((start.query(), start.fragment()), (None, None));
    for name in ["state", "nonce", "code_challenge"] {
        assert!(!start.as_str().contains(&parameter(&shown, name)), "{name} in {start}");
    }
    assert_eq!(parameter(&visit.url, "state"), parameter(&shown, "state"));
}
