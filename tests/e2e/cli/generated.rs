//! What is generated from the definition of the command line, and committed.

use std::collections::BTreeMap;
use std::path::Path;

use crate::support::home::{Home, tmpcred};
use crate::support::walk;

const SCRIPTS: [(&str, &str); 5] = [
    ("bash", "tmpcred.bash"),
    ("zsh", "_tmpcred"),
    ("fish", "tmpcred.fish"),
    ("powershell", "tmpcred.ps1"),
    ("elvish", "tmpcred.elv"),
];

type Files = BTreeMap<String, String>;

fn files(directory: &Path) -> Files {
    let text = |found: walk::Found| {
        let name = found.path.file_name().unwrap().to_str().unwrap().to_string();
        (name, String::from_utf8(found.bytes).unwrap())
    };
    walk::files(directory).into_iter().map(text).collect()
}

fn assert_same(directory: &str, generated: &Files) {
    let committed = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(directory));
    let names = |files: &Files| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&committed), names(generated), "{directory}/: run tests/regenerate");
    for (name, text) in generated {
        assert!(
            committed[name] == *text,
            "{directory}/{name} is out of date: run tests/regenerate"
        );
    }
}

#[test]
fn committed_completions_are_those_of_the_program() {
    let home = Home::new();
    let generate = |(shell, file): (&str, &str)| {
        (file.to_string(), tmpcred(&home).args(["completions", shell]).run().ok().stdout)
    };
    assert_same("completions", &SCRIPTS.map(generate).into());
}

#[test]
fn committed_manual_pages_are_those_of_the_program() {
    let home = Home::new();
    tmpcred(&home).args(["man", "--out", "man"]).run().ok();
    assert_same("man", &files(&home.path("work/man")));
}

#[cfg(feature = "broker")]
#[test]
fn committed_descriptions_are_those_of_the_endpoints() {
    let home = Home::new();
    let generate = |(file, more): (&str, &[&str])| {
        let run = tmpcred(&home).args(["broker", "openapi"]).args(more);
        (file.to_string(), run.run().ok().stdout)
    };
    let described = [("broker.json", &[][..]), ("admin.json", &["--admin"])];
    assert_same("docs/openapi", &described.map(generate).into());
}

#[test]
fn every_page_that_a_manual_page_names_exists() {
    let home = Home::new();
    tmpcred(&home).args(["man", "--out", "man"]).run().ok();
    let pages = files(&home.path("work/man"));
    assert!(pages.len() > 15, "{:?}", pages.keys());
    for (name, text) in &pages {
        let (_, others) = text.split_once("SEE ALSO").unwrap_or_else(|| panic!("{name}"));
        let named: Vec<_> = others.split("\\fB").skip(1).collect();
        assert!(!named.is_empty(), "{name} names no other page");
        for other in named {
            let other = other.split("\\fR").next().unwrap().replace("\\-", "-");
            assert!(pages.contains_key(&format!("{other}.1")), "{name} names {other}");
        }
    }
}
