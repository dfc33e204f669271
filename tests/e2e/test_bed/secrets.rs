//! The search for secrets finds them however they are written.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::support::canary::Canary;
use crate::support::home::Home;
use crate::support::wait::wait_until;

#[test]
fn every_spelling_is_found_wherever_it_stands() {
    let canary = Canary::new("refresh token");
    let value = canary.value();
    let hex: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut texts = vec![
        value.to_string(),
        serde_json::to_string(&[value]).unwrap(),
        hex.to_uppercase(),
        hex,
        url::form_urlencoded::byte_serialize(value.as_bytes()).collect(),
        url::Url::parse_with_params("http://x/", [("a", value)]).unwrap().into(),
    ];
    for ahead in 0..3 {
        let around = format!("{}{value}{}", "x".repeat(ahead), "tail");
        texts.push(STANDARD.encode(&around));
        texts.push(URL_SAFE_NO_PAD.encode(&around));
    }
    for text in texts {
        let leaks = canary.search("log", format!("before {text} after").as_bytes());
        assert!(!leaks.is_empty(), "{text}");
        assert!(leaks[0].what.starts_with("refresh token in "), "{leaks:?}");
    }
    let wide: Vec<u8> = value.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(canary.search("log", &wide).len(), 1);
}

#[test]
fn nothing_is_found_where_nothing_is() {
    let (one, other) = (Canary::new("a"), Canary::new("a"));
    for text in [other.value(), "", &one.value()[1..]] {
        assert_eq!(one.search("log", text.as_bytes()), []);
    }
}

#[test]
#[should_panic(expected = "too short to search for")]
fn a_short_secret_is_no_canary() {
    drop(Canary::of("code", "1234"));
}

#[test]
fn files_are_searched_by_content_and_by_name() {
    let home = Home::new();
    let canary = Canary::of("token", "abcdefghijklmnop");
    assert_eq!(canary.search_files(&home.path("")), []);
    home.write("work/deep/er", format!("…{}…", STANDARD.encode(canary.value())));
    home.write("work/abcdefghijklmnop", "");
    let leaks = canary.search_files(&home.path(""));
    let mut found: Vec<_> =
        leaks.iter().map(|leak| (leak.place.rsplit('/').next().unwrap(), &*leak.what)).collect();
    found.sort_unstable();
    assert_eq!(
        found,
        [("abcdefghijklmnop", "token in plain"), ("er", "token in base64")],
        "{leaks:?}"
    );
}

#[test]
fn arguments_of_processes_are_searched() {
    let home = Home::new();
    let canary = Canary::new("password");
    assert_eq!(canary.search_processes(), []);
    let script = "echo up; sleep 600; exit";
    let running = home.command("sh").args(["-c", script, "sh", canary.value()]).spawn();
    running.line_on_stdout("up");
    // Until it is another program, the shell's child has the shell's arguments; sleep is not told.
    let leaks = wait_until("the shell's alone", Duration::from_secs(60), || {
        let leaks = canary.search_processes();
        (leaks.len() == 1).then_some(leaks)
    });
    assert!(leaks[0].place.ends_with(&format!("/{}", running.pid().as_raw_nonzero())), "{leaks:?}");
}
