//! Browsers that are not like others: on a terminal, or waited for.

use std::time::Duration;

use super::journey::Journey;
use super::stores::claims;
use super::support::browser::Browser;

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_text_browser_is_not_started_and_writes_into_no_token() {
    let mut journey = Journey::start();
    let script = "#!/bin/sh\necho canary\nexec sleep 600\n";
    let w3m = journey.home.write_program("w3m", script);
    journey.home.set("BROWSER", w3m);
    let token = journey.tmpcred(&["token"]).env("DISPLAY", ":0").limit(LONG).spawn();
    token.line_on_stderr("the text browser 'w3m' is not started");
    // The address is there to be opened elsewhere.
    let page = token.line_on_stderr(&format!("  {}", journey.provider.issuer()));
    Browser::http().user("alice", "x").visit(&journey.home, page.trim());
    let token = token.wait().ok().stdout;
    assert_eq!(claims(token.trim())["role"], "deploy", "{token}");
}

#[test]
fn a_browser_that_is_waited_for_is_served_meanwhile() {
    let journey = Journey::start();
    let (bin, browser) = (journey.home.path("bin"), journey.home.path("bin/browser"));
    // A desktop whose browser is to be run in a terminal, to its end.
    journey.home.write_program("xdg-settings", "#!/bin/sh\necho there.desktop\n");
    let desktop = format!("[Desktop Entry]\nExec={} %u\nTerminal=true\n", browser.display());
    journey.home.write(".local/share/applications/there.desktop", desktop);
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let login = journey.tmpcred(&["login"]).env_remove("BROWSER").env("PATH", path);
    login.env("DISPLAY", ":0").limit(LONG).run().ok();
}
