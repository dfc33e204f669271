//! What people see, on a terminal of 80 columns.

use crate::journey::Journey;
use crate::support::browser::{Browser, gated};
use crate::support::home::Home;
use crate::support::terminal::Terminal;
use crate::support::walk;

#[test]
fn ctrl_c_ends_the_command_and_the_embedded_broker() {
    let home = Home::new();
    let terminal = Terminal::start(&home, 80, 24);
    terminal.enter("clear; tmpcred exec --dev -- sh -c 'echo RUN''NING; sleep 60'");
    terminal.wait_for("RUNNING");
    terminal.press("C-c");
    // What is typed earlier may be for the command.
    terminal.wait_for("ready>");
    terminal.enter("echo EN''D $?");
    let screen = terminal.wait_for("END ");
    assert!(screen.contains("END 130"), "{screen}");
    let left: Vec<_> = walk::files(&home.path("")).into_iter().map(|found| found.path).collect();
    assert!(left.iter().all(|path| path == terminal.socket()), "{left:?}");
}

#[test]
fn a_container_that_was_entered_from_outside_is_a_place_to_work_in() {
    let home = Home::new();
    let terminal = Terminal::start(&home, 80, 24);
    let user = if rustix::process::geteuid().is_root() { "" } else { "--map-root-user" };
    // The first process there is of a group that has no number there.
    let inside = format!("unshare {user} --pid --fork --kill-child");
    for exec in ["exec", "exec --mask", "exec --renew"] {
        let command = "sh -c 'echo RUN''NING; test -t 0 && exit 7'";
        let shown =
            terminal.run(&format!("{inside} tmpcred {exec} --dev -- {command}; echo IS $?"));
        assert!(shown.contains("RUNNING") && shown.contains("IS 7"), "{exec}: {shown}");
    }
}

#[test]
fn a_message_has_colours_unless_somebody_wants_none() {
    let home = Home::new();
    let terminal = Terminal::start(&home, 80, 24);
    // The word, and what comes before it on its line.
    let error = |command: &str| {
        terminal.run(command);
        let screen = terminal.styled();
        let line = screen.lines().find(|line| line.contains("error")).map(String::from);
        line.unwrap_or_else(|| panic!("no error in {screen:?}"))
    };
    let coloured = error("tmpcred token nope");
    assert!(coloured.starts_with('\u{1b}'), "{coloured:?}");
    let plain = error("NO_COLOR=1 tmpcred token nope");
    assert!(plain.starts_with("error: "), "{plain:?}");
}

#[test]
fn a_log_is_shown_on_a_terminal_with_colours_unless_somebody_wants_none() {
    let home = Home::new();
    let terminal = Terminal::start(&home, 80, 24);
    // That of a command, and that of a broker, which goes on.
    for (no_colour, starts) in [("", "\u{1b}["), ("NO_COLOR=1 ", "2")] {
        let line = |command: &str| {
            // What is there of the one before goes first.
            terminal.run("true");
            terminal.enter(&format!("clear; {no_colour}tmpcred {command}"));
            terminal.wait_for("INFO");
            let screen = terminal.styled();
            let line = screen.lines().find(|line| line.contains("INFO")).map(String::from);
            line.unwrap_or_else(|| panic!("no line in {screen:?}"))
        };
        let shown = line("-v exec --dev -- true");
        assert!(shown.starts_with(starts), "{shown:?}");
        terminal.wait_for("ready>");
        let shown = line("broker dev");
        assert!(shown.starts_with(starts), "{shown:?}");
        terminal.press("C-c");
        terminal.wait_for("ready>");
    }
}

#[test]
fn a_login_shows_that_it_waits_where_somebody_looks() {
    const WAITING: &str = "waiting for the login in the browser";
    let mut journey = Journey::start();
    let gate = gated(&mut journey.home);
    let terminal = Terminal::start(&journey.home, 80, 24);
    let token = "env -u TMPCRED_NO_INPUT tmpcred token >token";
    terminal.enter(&format!("clear; {token}; echo EN''D $?"));
    let screen = terminal.wait_for(WAITING);
    let line = screen.lines().find(|line| line.contains(WAITING)).unwrap();
    let braille = |c: char| ('\u{2801}'..='\u{28ff}').contains(&c);
    assert!(line.starts_with(braille), "{line:?}");
    std::fs::write(gate, "").unwrap();
    let screen = terminal.wait_for("END ");
    assert!(screen.contains("END 0") && !screen.contains(WAITING), "{screen}");

    // What is written into a file has none of it.
    let shown = terminal.run(&format!("tmpcred logout 2>&1; {token} 2>said; echo IS $?; cat said"));
    assert!(shown.contains("IS 0") && shown.contains("Your browser has been opened"), "{shown}");
    assert!(!shown.contains(WAITING) && !shown.contains(braille), "{shown}");
}

#[test]
fn no_word_of_a_message_is_broken() {
    let home = Home::new();
    home.config(
        r#"
[identity.corp]
type = "oidc"
issuer = "https://login.example.com"
client_id = "cli"
[broker.main]
url = "https://broker.example.com"
[profile.a-profile-with-a-long-name]
role = "deploy"
audience = "https://api.example.com"
[profile.another-profile-with-a-name]
extends = "a-profile-with-a-long-name"
"#,
    );
    let screen = Terminal::start(&home, 80, 24).run("tmpcred explain nope");
    for word in ["`a-profile-with-a-long-name`", "`another-profile-with-a-name`"] {
        assert!(screen.contains(word), "{screen}");
    }
    assert!(screen.lines().count() > 2, "it is too long for one line:\n{screen}");
}

#[test]
fn status_explain_and_verify_fit() {
    let journey = Journey::start();
    for args in [&["token"][..], &["token", "--role", "reader"], &["token", "--ttl", "2m"]] {
        journey.tmpcred(args).run().ok();
    }
    let token = journey.tmpcred(&["token"]).run().ok().stdout;
    journey.home.write("work/token.txt", token);
    let terminal = Terminal::start(&journey.home, 80, 40);
    let status = terminal.run("tmpcred status");
    let bars = status.lines().filter(|line| line.contains('█')).count();
    assert_eq!(bars, 3, "a bar for each credential:\n{status}");
    assert!(status.contains("SESSION") && status.contains("alice"), "{status}");
    let left = |line: &str| line.trim_end().ends_with('s');
    assert!(status.lines().filter(|line| line.contains('█')).all(left), "{status}");
    let explain = terminal.run("tmpcred explain");
    assert!(explain.contains("kernel keyring") && explain.contains("execve"), "{explain}");
    let verify = terminal.run("tmpcred verify token.txt --audience https://api.example.com");
    let said = "The token is good. Nobody was asked whether it was revoked (--online).";
    assert!(verify.contains(said), "{verify}");
}

/// The QR code on a screen, as one who points a camera at it reads it.
fn scanned(screen: &str) -> String {
    let rows: Vec<Vec<char>> = screen
        .lines()
        .filter(|line| line.contains(['█', '▀', '▄']))
        .map(|line| line.chars().collect())
        .collect();
    // As large as a camera would see it.
    const SCALE: usize = 8;
    let light = |x: usize, y: usize| match rows[y / 2].get(x) {
        Some('█') => true,
        Some('▀') => y.is_multiple_of(2),
        Some('▄') => !y.is_multiple_of(2),
        _ => false,
    };
    let width = rows.iter().map(Vec::len).max().unwrap() * SCALE;
    let pixel = |x: usize, y: usize| if light(x / SCALE, y / SCALE) { 255 } else { 0 };
    let height = rows.len() * 2 * SCALE;
    let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, pixel);
    image.detect_grids()[0].decode().unwrap().1
}

#[test]
fn the_qr_code_of_a_device_login_leads_to_the_page() {
    let journey = Journey::start();
    let terminal = Terminal::start(&journey.home, 80, 40);
    terminal.enter("tmpcred login --flow device");
    let screen = terminal.wait_for("and enter the code");
    let code = screen.lines().find(|line| line.contains("and enter the code")).unwrap();
    let code = code.trim_end().rsplit(' ').next().unwrap();
    let page = scanned(&screen);
    assert!(page.starts_with(&journey.provider.url("/device")), "{page}");
    assert!(page.contains(code), "the code is in the address: {page}");
    Browser::http().visit(&Home::new(), &page);
    terminal.wait_for("logged in to corp as");
}
