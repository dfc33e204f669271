//! The rules can fail: small programs that break one each.

use super::rules::{check, check_lengths};
use super::sources::Sources;

const LIB: &str = "mod broker; mod cache; mod cli; mod config; mod deliver; mod error; \
                   mod identity; mod mint; mod pipeline; mod plan; mod host;";
const ROOMS: &[&str] = &[
    "broker", "cache", "cli", "config", "deliver", "error", "host", "identity", "mint", "pipeline",
    "plan",
];

/// What is wrong with a program in which all files are empty but these.
fn violations(files: &[(&str, &str)]) -> Vec<String> {
    let empty: Vec<String> = ROOMS.iter().map(|room| format!("src/{room}/mod.rs")).collect();
    let mut all = vec![("src/lib.rs", LIB), ("src/main.rs", "fn main() {}")];
    all.extend(empty.iter().map(|file| (file.as_str(), "")));
    all.extend(files);
    check(&Sources::of(&all))
}

/// One file that breaks one rule, and what is said about it.
#[track_caller]
fn refused(file: &str, text: &str, said: &str) {
    let found = violations(&[(file, text)]);
    assert!(
        matches!(found.as_slice(), [one] if one.contains(said) && one.starts_with(file)),
        "{file} with `{text}`: {found:#?}"
    );
}

#[track_caller]
fn accepted(file: &str, text: &str) {
    let found = violations(&[(file, text)]);
    assert!(found.is_empty(), "{file} with `{text}`: {found:#?}");
}

#[test]
fn the_ordinary_way_is_allowed() {
    let found = violations(&[
        ("src/main.rs", "use tmpcred::cli; fn main() { tmpcred::error::code(cli::run()) }"),
        ("src/cli/mod.rs", "use crate::{broker, deliver, pipeline}; use clap::Parser;"),
        ("src/pipeline/mod.rs", "use crate::{cache, identity, mint::Target, plan};"),
        ("src/identity/mod.rs", "use crate::{error::Error, host::Host};"),
        ("src/plan/mod.rs", "fn f() { crate::config::load() }"),
        ("src/broker/mod.rs", "const X: u8 = 1; fn f(x: &'static str) { crate::error::g() }"),
    ]);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn directions_are_kept() {
    refused("src/identity/mod.rs", "use crate::mint::Target;", "they meet in Assertion");
    refused("src/mint/mod.rs", "use crate::{error, identity};", "they meet in Assertion");
    for room in ["identity", "mint", "deliver", "cache"] {
        let file = format!("src/{room}/mod.rs");
        refused(&file, "fn f() { crate::config::load() }", &format!("{room} knows config"));
    }
    for room in ["plan", "cache"] {
        let text = format!("use crate::{room}::*;");
        refused("src/broker/mod.rs", &text, &format!("broker knows {room}"));
    }
    for room in ["cli", "pipeline", "deliver"] {
        let text = format!("use crate::{room};");
        refused("src/broker/mod.rs", &text, &format!("broker knows {room}"));
    }
    refused("src/pipeline/mod.rs", "use crate::deliver;", "only the command line hands");
    refused("src/pipeline/mod.rs", "use crate::broker;", "only the command line starts");
    refused("src/plan/mod.rs", "use crate::pipeline;", "only the command line starts");
    refused("src/error/mod.rs", "use crate::cli;", "outermost");
    refused("src/main.rs", "use tmpcred::pipeline;", "only the command line starts");
    refused("src/main.rs", "use tmpcred::plan;", "main knows plan");
}

#[test]
fn an_import_is_found_however_it_is_written() {
    for text in [
        "use crate::mint;",
        "use crate::mint as m;",
        "use crate::{error::{self, Error}, mint::{Target, X}};",
        "use super::mint::Target;",
        "use super::{error, mint};",
        "mod inner { use super::super::mint; }",
        "mod inner { fn f() { super::super::mint::x() } }",
        "fn f(x: crate::mint::Target) {}",
        "fn f() { let _ = vec![1, crate::mint::x()]; }",
        "fn f() { tokio::select! { _ = async { log!(crate::mint::x) } => {} } }",
        "impl crate::mint::Target for () {}",
        "#[derive(crate::mint::Derive)] struct S;",
        "pub use crate::mint::*;",
    ] {
        refused("src/identity/mod.rs", text, "they meet in Assertion");
    }
    let found = violations(&[
        ("src/identity/mod.rs", "mod oidc;"),
        ("src/identity/oidc.rs", "mod flow;"),
        ("src/identity/oidc/flow.rs", "use super::super::super::mint;"),
    ]);
    assert!(matches!(found.as_slice(), [one] if one.starts_with("src/identity/oidc/flow.rs:1: ")));
    let found = violations(&[
        ("src/identity/mod.rs", "registry! { \"oidc\" => Oidc in oidc, }"),
        ("src/identity/oidc.rs", "use crate::mint;"),
    ]);
    assert!(matches!(found.as_slice(), [one] if one.starts_with("src/identity/oidc.rs:1: ")));
}

#[test]
fn what_only_looks_like_an_import_is_none() {
    for text in [
        "use super::identity::mint;",
        "fn mint() {} fn f() { mint(); self::mint() }",
        "mod mint {} use self::mint as x;",
        "//! See [`crate::mint`].\nfn f() {}",
        "fn f() { log!(\"crate::mint\") }",
        "#[cfg(test)] mod tests { use crate::mint; use super::*; }",
        "#[cfg(all(test, unix))] use crate::mint;",
        "#[cfg(test)] fn f() { crate::mint::x() }",
        "struct S; impl S { #[cfg(test)] fn f() { crate::mint::x() } }",
        "struct S { #[cfg(test)] f: crate::mint::X }",
    ] {
        accepted("src/identity/mod.rs", text);
    }
    let found = violations(&[
        ("src/identity/mod.rs", "#[cfg(test)] mod tests;"),
        ("src/identity/tests.rs", "mod more;"),
        ("src/identity/tests/more.rs", "use crate::mint;"),
    ]);
    assert_eq!(found, Vec::<String>::new());
    refused("src/identity/mod.rs", "#[cfg(any(test, unix))] use crate::mint;", "Assertion");
    refused("src/identity/mod.rs", "#[cfg(not(test))] use crate::mint;", "Assertion");
}

#[test]
fn the_root_is_no_way_around() {
    refused("src/identity/mod.rs", "use crate::Target;", "names no room");
    refused("src/identity/mod.rs", "use super::*;", "names no room");
    let lib = format!("{LIB} pub use mint::Target; pub use crate::identity;");
    let mut found = violations(&[("src/lib.rs", &lib)]);
    assert_eq!(found, Vec::<String>::new(), "the crate's own interface");
    found = violations(&[("src/lost.rs", "")]);
    assert_eq!(found, ["src/lost.rs: belongs to no module"]);
}

#[test]
fn only_the_command_line_knows_clap() {
    for text in
        ["use clap::Parser;", "#[derive(clap::ValueEnum)] enum E {}", "fn f() { clap_mangen::x() }"]
    {
        refused("src/plan/mod.rs", text, "only the command line knows clap");
        accepted("src/cli/mod.rs", text);
    }
    refused("src/main.rs", "use clap_complete::CompleteEnv;", "only the command line knows clap");
}

#[test]
fn only_the_ui_writes_to_the_terminal() {
    for text in [
        "fn f() { println!() }",
        "fn f() { std::eprintln!(\"x\") }",
        "fn f() { dbg!(1); }",
        "fn f() { select! { x => { print!(\"x\") } } }",
        "fn f() { std::io::stdout().flush() }",
        "use std::io::{self, stderr};",
        "use std::io::Stdout;",
        "use anstream::AutoStream;",
        "use indicatif::ProgressBar;",
    ] {
        for file in ["src/deliver/mod.rs", "src/cli/mod.rs"] {
            let found = violations(&[(file, text)]);
            let one = matches!(found.as_slice(), [one] if one.contains("only cli::ui writes"));
            assert!(one, "{file} with `{text}`: {found:#?}");
        }
        let found = violations(&[("src/cli/mod.rs", "mod ui;"), ("src/cli/ui.rs", text)]);
        assert!(found.is_empty(), "{text}: {found:#?}");
    }
    accepted(
        "src/deliver/mod.rs",
        "fn f(c: Command, w: &mut dyn Write) { c.stdout(x); writeln!(w) }",
    );
}

#[test]
fn only_main_ends_the_process() {
    for text in [
        "fn f() { std::process::exit(1) }",
        "use std::process::exit;",
        "fn f() { std::process::abort() }",
        "fn f(e: clap::Error) { e.exit() }",
        "fn f() { Cli::parse(); }",
        "fn f(c: Command) { c.get_matches(); }",
    ] {
        refused("src/cli/mod.rs", text, "only main ends the process");
    }
    accepted("src/main.rs", "fn main() { std::process::exit(1) }");
    accepted(
        "src/cli/mod.rs",
        "fn f(s: &str) { Url::parse(s); s.parse(); use std::process::ExitCode; }",
    );
}

#[test]
fn the_broker_has_no_globals() {
    for text in [
        "static X: u8 = 1;",
        "fn f() { static X: OnceLock<u8> = OnceLock::new(); }",
        "thread_local! { static X: u8 = 1; }",
        "lazy! { static X: u8 = 1; }",
    ] {
        let found = violations(&[("src/broker/mod.rs", text)]);
        assert!(!found.is_empty(), "{text}");
        assert!(found.iter().all(|one| one.contains("no globals")), "{found:#?}");
        accepted("src/host/mod.rs", text);
    }
    refused("src/host/mod.rs", "static mut X: u8 = 1;", "nothing that changes is global");
}

#[test]
fn circles_are_found_and_shown() {
    let found = violations(&[
        ("src/plan/mod.rs", "use crate::config;"),
        ("src/config/mod.rs", "use crate::host;"),
        ("src/host/mod.rs", "\nuse crate::plan;"),
        ("src/cache/mod.rs", "use crate::plan;"),
    ]);
    let circle = "a circle: config → host (src/config/mod.rs:1), host → plan (src/host/mod.rs:2), \
                  plan → config (src/plan/mod.rs:1)";
    assert_eq!(found, [circle]);
}

#[test]
fn long_files_are_found_and_the_list_of_them_kept() {
    let lengths = [("src/a.rs".to_string(), 501), ("src/b.rs".to_string(), 500)].into();
    assert_eq!(check_lengths(&lengths, &[("src/a.rs", "a table")]), Vec::<String>::new());
    assert!(check_lengths(&lengths, &[])[0].starts_with("src/a.rs: 501 lines"));
    let needless = check_lengths(&lengths, &[("src/a.rs", ""), ("src/b.rs", ""), ("src/c.rs", "")]);
    assert_eq!(needless.len(), 2, "{needless:#?}");
}
