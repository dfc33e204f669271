//! What the runner of GitHub Actions reads.

use super::*;

/// What the runner reads, by its own rules: a line `NAME<<DELIMITER`, then lines up
/// to the one that is the delimiter.
fn read(file: &str) -> Vec<(String, String)> {
    let mut read = Vec::new();
    let mut lines = file.split_terminator('\n');
    while let Some(line) = lines.next() {
        let (name, delimiter) = line.split_once("<<").unwrap();
        let value: Vec<&str> = lines.by_ref().take_while(|line| *line != delimiter).collect();
        read.push((name.into(), value.join("\n")));
    }
    read
}

fn survive(values: &[&str]) {
    let expected: Vec<_> =
        values.iter().enumerate().map(|(n, v)| (format!("V{n}"), (*v).to_string())).collect();
    assert_eq!(read(&written("github", &changes(values)).unwrap()), expected);
}

#[test]
fn hostile_values_arrive_as_they_are() {
    survive(HOSTILE);
    survive(&["a\nb", "a\n", "\n", "V9<<x\nevil\nx", "EOF", "X=1\nY=2", "tab\there"]);
}

#[test]
fn what_readers_disagree_about_is_refused() {
    for bad in ["a\r\nb", "\u{1b}[2J", "\u{85}"] {
        assert!(written("github", &changes(&[bad])).is_err(), "{bad:?}");
    }
    for name in ["GITHUB_TOKEN", "RUNNER_TEMP", "NODE_OPTIONS", "github_path"] {
        let changes = Changes { unset: vec![], set: vec![variable(name, "x")] };
        let error = written("github", &changes).unwrap_err();
        assert!(error.causes()[0].contains("lets nobody set it"), "{error:?}");
    }
}

#[test]
fn no_delimiter_is_used_twice() {
    let text = written("github", &changes(&["a", "b"])).unwrap();
    let delimiters: Vec<_> = text.lines().filter_map(|l| l.split_once("<<")).collect();
    assert_ne!(delimiters[0].1, delimiters[1].1);
    assert!(delimiters[0].1.len() > 32);
}

proptest! {
    #[test]
    fn any_text_arrives_as_it_is(a in "[^\\p{Cc}]*(\n[^\\p{Cc}]*)*", b in "[a-z\n<=]*") {
        survive(&[&a, &b]);
    }
}
