//! One journey through every command, as talkative as can be; then the search
//! for every secret of it.

mod broker;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::journey::Journey;
use super::stores::{items, with_keys};
use super::support::broker::API;
use super::support::browser::Browser;
use super::support::canary::{Canary, Leak, assert_traced};
use super::support::home::Home;
use super::support::kernel::Key;
use super::support::keyring::Keyring;
use super::support::oidc_provider::Fault;
use super::support::run::{Output, Run};
use super::support::wait::wait_until;

/// What the program wrote to standard error so far, and where secrets may not be.
struct Traces {
    journey: Journey,
    said: String,
}

impl Traces {
    /// The program, as talkative as it can be.
    fn tmpcred(&self, args: &[&str]) -> Run {
        let all: Vec<&str> = [&["-vv"], args].concat();
        self.journey.tmpcred(&all).env("TMPCRED_LOG", "trace").env("RUST_LOG", "trace")
    }

    #[track_caller]
    fn run(&mut self, args: &[&str]) -> Output {
        let run = self.tmpcred(args);
        self.keep(run.run().ok())
    }

    fn keep(&mut self, output: Output) -> Output {
        self.said += &output.stderr;
        output
    }

    /// The places where a secret shows.
    fn leaks(&self, canary: &Canary) -> Vec<Leak> {
        let mut leaks = canary.search("standard error", self.said.as_bytes());
        leaks.extend(canary.search("the broker's log", self.journey.broker.said().as_bytes()));
        leaks.extend(canary.search_files(&self.journey.home.path("")));
        leaks.extend(canary.search_files(&self.journey.broker.home.path("")));
        leaks
    }

    /// What rests in the keyring of the kernel: sessions and credentials.
    fn items(&self) -> Vec<Value> {
        let home = &self.journey.home;
        let keys = ["session", "credential"].into_iter().flat_map(|kind| items(home, kind));
        let pipe = |key: Key| with_keys(home, &format!("keyctl pipe {}", key.serial));
        keys.map(|key| pipe(key).run().ok().json()).collect()
    }
}

/// All tokens in an item, by the names of the members that hold them.
fn tokens(name: &str, value: &Value, found: &mut Vec<(String, String)>) {
    match value {
        Value::String(text) if name.contains("token") && text.len() >= 30 => {
            found.push((name.into(), text.clone()));
        }
        Value::Object(members) => {
            for (member, value) in members {
                tokens(&format!("{name}.{member}"), value, found);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| tokens(name, value, found)),
        _ => {}
    }
}

#[test]
fn no_secret_of_a_whole_journey_shows_anywhere() {
    let mut traces = Traces { journey: Journey::start(), said: String::new() };
    let mut canaries = Vec::new();
    let browser = Browser::http().user("alice", "x").install(&mut traces.journey.home);
    traces.run(&["login", "corp"]);
    // The browser writes down where it was, so its own file has this one.
    let callback = browser.wait_for_visits(1).url;
    let code = callback.query_pairs().find(|(name, _)| name == "code");
    let code = Canary::of("authorization code", code.unwrap().1);

    // While a child runs, everybody can read the arguments of all processes.
    let gate = traces.journey.home.path("work/gate");
    let wait = format!("echo $TMPCRED_TOKEN; until [ -e {} ]; do sleep 0.05; done", gate.display());
    let child = traces.tmpcred(&["exec", "--", "sh", "-c", &wait]).spawn();
    let minted = child.line_on_stdout(".");
    canaries.push(Canary::of("minted token", minted.clone()));
    let mut found = Vec::new();
    for item in traces.items() {
        tokens("item", &item, &mut found);
    }
    for name in ["refresh_token", "id_token", "access_token"] {
        assert!(found.iter().any(|(path, _)| path.contains(name)), "no {name} in the session");
    }
    assert!(found.iter().any(|(_, value)| *value == minted), "no credential in the keyring");
    canaries.extend(found.into_iter().map(|(path, value)| Canary::of(&path, value)));
    // Its signature alone would be enough of a token for whoever has the rest.
    let signature = minted.rsplit('.').next().unwrap();
    canaries.push(Canary::of("signature of the minted token", signature));
    for canary in &canaries {
        assert_eq!(canary.search_processes(), []);
    }
    std::fs::write(gate, "").unwrap();
    let output = child.wait().ok();
    traces.keep(output);

    for format in ["sh", "json", "dotenv"] {
        let output = traces.run(&["env", "deploy", "--format", format]);
        assert!(output.stdout.contains(&minted), "what is asked for is given");
    }
    assert_eq!(traces.run(&["token"]).stdout.trim(), minted);
    for args in [
        &["status"][..],
        &["status", "--json"],
        &["explain", "deploy"],
        &["explain", "deploy", "--json"],
        &["config", "check"],
    ] {
        let said = traces.run(args).stdout;
        for canary in &canaries {
            assert_eq!(canary.search(&format!("the output of {args:?}"), said.as_bytes()), []);
        }
    }
    for args in [&["inspect"][..], &["verify", "--audience", API]] {
        let run = traces.tmpcred(args).stdin(minted.clone());
        let said = traces.keep(run.run().ok()).stdout;
        for canary in &canaries {
            assert_eq!(canary.search(&format!("the output of {args:?}"), said.as_bytes()), []);
        }
    }
    // What goes wrong says much, too.
    let wrong = traces.tmpcred(&["verify", "--audience", "https://other.example"]);
    let output = wrong.stdin(minted.clone()).run().ended_with(9);
    traces.keep(output);
    let wrong = traces.tmpcred(&["verify", "--audience", API]).stdin(format!("{minted}x")).run();
    assert_ne!(wrong.code, Some(0));
    traces.keep(wrong);
    let refreshed = traces.run(&["token", "--ttl", "10m"]).stdout;
    canaries.push(Canary::of("second minted token", refreshed.trim()));
    let mut found = Vec::new();
    traces.items().iter().for_each(|item| tokens("later item", item, &mut found));
    canaries.extend(found.into_iter().map(|(path, value)| Canary::of(&path, value)));
    for canary in &canaries {
        assert_eq!(traces.leaks(canary), []);
    }
    traces.run(&["logout"]);
    let refused = traces.tmpcred(&["token", "--no-input"]).run().ended_with(4);
    traces.keep(refused);
    for canary in &canaries {
        assert_eq!(traces.leaks(canary), []);
    }
    let mut leaks = code.search("standard error", traces.said.as_bytes());
    leaks.extend(code.search_files(&traces.journey.home.path(".local")));
    leaks.extend(code.search_files(&traces.journey.home.path("run")));
    assert_eq!(leaks, []);
    // The search can find something: there is much to search.
    assert_traced(&traces.said);
    assert_eq!(traces.items(), Vec::<Value>::new());
}

/// The parameters of an authorization request that whoever knows them could use.
const OF_A_LOGIN: [&str; 3] = ["state", "nonce", "code_challenge"];

/// Whether a text has the verifier of this challenge in it (RFC 7636 section 4.2).
fn has_verifier(text: &str, challenge: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    text.split(|c| !legal(c)).filter(|word| (43..=128).contains(&word.len())).any(|word| {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, word.as_bytes());
        URL_SAFE_NO_PAD.encode(hash) == challenge
    })
}

/// The arguments of all processes, as everybody can read them.
fn arguments() -> String {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let read = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    read.map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " ")).collect()
}

#[test]
fn what_a_login_in_the_browser_is_made_of_shows_nowhere_but_in_the_page_for_the_person() {
    let mut traces = Traces { journey: Journey::start(), said: String::new() };
    let home = &mut traces.journey.home;
    let browser = Browser::http().user("alice", "x").install(home);
    // One that takes its time: its arguments can be read meanwhile.
    let gate = home.path("work/gate");
    let script = format!(
        "#!/bin/sh\nuntil [ -e '{}' ]; do sleep 0.05; done\nexec '{}' \"$1\"\n",
        gate.display(),
        home.path("bin/browser").display()
    );
    let patient = home.write_program("patient", &script);
    home.set("BROWSER", &patient);
    let login = traces.tmpcred(&["login", "corp"]).spawn();
    let printed = login.line_on_stderr("code_challenge=");
    let page = url::Url::parse(printed.trim()).unwrap();
    let parameter = |name: &str| page.query_pairs().find(|(n, _)| n == name).unwrap().1.to_string();
    let canaries = OF_A_LOGIN.map(|name| Canary::of(name, parameter(name)));
    let challenge = parameter("code_challenge");
    wait_until("the browser to be started", Duration::from_secs(30), || {
        arguments().contains("bin/patient").then_some(())
    });
    for canary in &canaries {
        assert_eq!(canary.search_processes(), []);
    }
    assert!(!has_verifier(&arguments(), &challenge));
    std::fs::write(gate, "").unwrap();
    let output = login.wait().ok();
    browser.wait_for_visits(1);
    assert_traced(&output.stderr);
    // What is for the person is the line with the page, and nothing else.
    let said = output.stderr.replacen(printed.trim(), "", 1);
    for canary in &canaries {
        assert_eq!(canary.search("standard error", said.as_bytes()), []);
        assert_eq!(canary.search_files(&traces.journey.home.path(".local")), []);
        assert_eq!(canary.search_files(&traces.journey.home.path("run")), []);
    }
    assert!(!has_verifier(&output.stderr, &challenge), "the verifier shows");
}

#[test]
fn the_code_of_a_device_that_only_the_program_knows_shows_nowhere() {
    let mut traces = Traces { journey: Journey::start(), said: String::new() };
    let canary = Canary::new("device code");
    let provider = &mut traces.journey.provider;
    // Of several faults at a path only the first counts.
    provider.clear_faults();
    let answer = json!({"device_code": canary.value(), "interval": 1});
    provider.fault(&Fault::changes(answer).at("/device/auth"));
    // The provider knows no such code, and what goes wrong says much.
    let login = traces.tmpcred(&["login", "corp", "--flow", "device"]).spawn();
    login.line_on_stderr("/device");
    assert_eq!(canary.search_processes(), []);
    let refused = login.wait();
    assert_ne!(refused.code, Some(0));
    assert!(traces.journey.provider.count("POST", "/token") > 0, "{}", refused.stderr);
    traces.keep(refused);
    assert_traced(&traces.said);
    assert_eq!(traces.leaks(&canary), []);
}

/// A key for sealed files.
const CACHE_KEY: &str = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";

#[test]
fn no_secret_shows_on_the_other_ways() {
    let mut home = Home::new();
    let _keyring = Keyring::start(&mut home);
    let mut traces = Traces { journey: Journey::in_home(home), said: String::new() };
    // With a code; the Secret Service keeps the session.
    let login = traces.tmpcred(&["login", "--flow", "device"]).spawn();
    let last = |line: String| line.split_whitespace().last().unwrap().to_string();
    let page = last(login.line_on_stderr("To log in, visit"));
    let code = last(login.line_on_stderr("and enter the code"));
    let person = Browser::http().user("alice", "x");
    person.visit_with_code(&traces.journey.home, &page, Some(&code));
    traces.keep(login.wait().ok());
    let minted = traces.run(&["token"]).stdout;
    let tool = traces.journey.home.command("secret-tool");
    let kept = tool.args(["search", "--all", "application", "tmpcred"]).run().ok().stdout;
    let mut found = Vec::new();
    for line in kept.lines().filter_map(|line| line.strip_prefix("secret = ")) {
        tokens("item", &serde_json::from_str(line).unwrap(), &mut found);
    }
    for name in ["refresh_token", "id_token", "access_token"] {
        assert!(found.iter().any(|(path, _)| path.contains(name)), "no {name} is kept");
    }
    assert!(found.iter().any(|(_, value)| value == minted.trim()), "no credential is kept");
    let mut canaries: Vec<_> =
        found.into_iter().map(|(path, value)| Canary::of(&path, value)).collect();
    assert_traced(&traces.said);
    for canary in &canaries {
        assert_eq!(traces.leaks(canary), []);
    }

    // Sealed files.
    traces.said.clear();
    traces.journey.home.set("TMPCRED_CACHE_KEY", CACHE_KEY);
    canaries.push(Canary::of("key for sealed files", CACHE_KEY));
    let sealed = traces.run(&["token"]).stdout;
    assert_ne!(sealed, minted, "another store");
    assert_eq!(traces.run(&["token", "--no-input"]).stdout, sealed);
    canaries.push(Canary::of("sealed token", sealed.trim()));
    assert_traced(&traces.said);
    for canary in &canaries {
        assert_eq!(traces.leaks(canary), []);
    }

    // A broker and a provider inside the program itself.
    traces.said.clear();
    let dev = traces.run(&["exec", "--dev", "--", "sh", "-c", "echo $TMPCRED_TOKEN"]).stdout;
    assert_eq!(dev.trim().split('.').count(), 3, "{dev}");
    canaries.push(Canary::of("token of the embedded broker", dev.trim()));
    assert_traced(&traces.said);
    for canary in &canaries {
        assert_eq!(traces.leaks(canary), []);
    }
}
