//! Brokers that are down, slow, not brokers, or say no.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use url::Url;

use super::{Standing, at_clock, refused};
use crate::journey::Journey;
use crate::support::broker::{API, Broker, BrokerOptions};
use crate::support::browser::Browser;
use crate::support::home::Home;
use crate::support::http::Http;
use crate::support::oidc_provider::OidcProvider;

/// Something that listens where a server should, and answers every request
/// with the same bytes.
pub(crate) struct Impostor {
    port: u16,
    asked: Arc<AtomicUsize>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Impostor {
    /// Takes the place of `broker`, which has been stopped.
    pub(super) fn of(broker: &Broker, status: &str, headers: &str, body: &str) -> Self {
        let port = Url::parse(broker.url()).unwrap().port().unwrap();
        Self::at(port, status, headers, body)
    }

    /// Listens there.
    pub(crate) fn at(port: u16, status: &str, headers: &str, body: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let ends = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&ends);
        let asked = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&asked);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                count.fetch_add(1, Ordering::Relaxed);
                serve(stream.unwrap(), &answer);
            }
        });
        Self { port, asked, ends, thread: Some(thread) }
    }

    /// How often somebody came.
    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn serve(stream: TcpStream, answer: &str) {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    // Whoever went away gets no answer.
    if reader.read_exact(&mut body).is_ok() {
        drop(reader.get_mut().write_all(answer.as_bytes()));
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        // It waits for the next one who comes.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        drop(self.thread.take().unwrap().join());
    }
}

#[test]
fn a_broker_that_fails_is_named_and_nothing_is_lost() {
    let mut journey = Journey::start();
    let standing = Standing::of(&journey);
    let logins = journey.provider.count_grants("authorization_code");
    let cannot =
        format!("the broker {} gives no credential for the role 'reader'", journey.broker.url());
    let check = |journey: &Journey, code, says: &[&str]| {
        let says = [&[cannot.as_str()], says].concat();
        refused(journey.tmpcred(&["token", "reader"]), code, &says);
        refused(journey.tmpcred(&["exec", "reader", "--", "true"]), 125, &says);
        standing.is_kept(journey);
    };
    journey.broker.stop();
    check(&journey, 7, &["did not answer", "hint: check the network"]);
    let json = "Content-Type: application/json\r\n";
    let html = "Content-Type: text/html\r\n";
    let later = format!("Retry-After: 17\r\n{json}");
    let busy = r#"{"error":"temporarily_unavailable","error_description":"out of order","request_id":"req-1"}"#;
    let version = format!("tmpcred-protocol: 99\r\n{json}");
    for (status, headers, body, code, says) in [
        ("200 OK", html, "<!doctype html><p>Hello", 9, &["looks like a web page"][..]),
        ("500 Oops", html, "<p>Oops", 7, &["it answered 500", "try again in a while"]),
        ("404 Not Found", html, "<p>?", 9, &["404", "check that there is a tmpcred broker at"]),
        ("302 Found", "Location: https://evil.example/\r\n", "", 9, &["redirect (302)"]),
        ("200 OK", json, "{}", 9, &["does not say when the credential ends"]),
        ("200 OK", &version, "{}", 9, &["it speaks version '99'", "upgrade the older"]),
        ("200 OK", json, &"x".repeat(2_000_000), 9, &["is too large"]),
        // Who asks for time gets it: the second run does not ask at all.
        ("503 Busy", &later, busy, 7, &["it answered 503", "out of order", "in 17 seconds"]),
    ] {
        let impostor = Impostor::of(&journey.broker, status, headers, body);
        check(&journey, code, says);
        drop(impostor);
    }
    journey.broker.restart();
    journey.tmpcred(&["token", "reader", "--refresh", "--no-input"]).run().ok();
    assert_eq!(journey.provider.count_grants("authorization_code"), logins);
}

#[test]
fn a_broker_that_is_frozen_is_waited_for_with_an_end() {
    let journey = Journey::start();
    let standing = Standing::of(&journey);
    journey.broker.freeze();
    let says = ["did not answer", "the limit is 15 seconds"];
    refused(journey.tmpcred(&["token", "reader"]), 7, &says);
    standing.is_kept(&journey);
    journey.broker.thaw();
    journey.tmpcred(&["token", "reader", "--no-input"]).run().ok();
}

#[test]
fn a_cached_credential_serves_until_its_end_while_the_broker_is_down() {
    let mut journey = Journey::start();
    let standing = Standing::of(&journey);
    journey.broker.stop();
    // Its half hour is nearly over: it is due for renewal.
    let late = |offset| at_clock(&journey.home, offset).args(["token", "--no-input"]);
    let stale = late("+27m").run().ok();
    assert_eq!(stale.stdout, standing.token);
    let warning =
        "warning: no new credential could be had, so the cached one is used while it lasts";
    assert!(stale.stderr.contains(warning), "{}", stale.stderr);
    assert!(stale.stderr.contains("did not answer"), "{}", stale.stderr);
    // Who asks for more than is left, or for a new one, is not served with it.
    refused(late("+27m").args(["--min-ttl", "10m"]), 7, &["did not answer"]);
    refused(late("+27m").args(["--refresh"]), 7, &["did not answer"]);
    standing.is_kept(&journey);
    refused(late("+31m"), 7, &["did not answer"]);
}

const DENIES_DEPLOY: &str = r#"
@id("reader") @ttl("15m") @scope("deploy:read")
permit(principal, action == Action::"issue", resource == Role::"reader");
"#;

#[test]
fn what_policy_denies_is_denied_in_the_brokers_words_and_not_cached() {
    let mut journey = Journey::start();
    journey.broker.home.write("policy.cedar", DENIES_DEPLOY);
    journey.broker.restart();
    let says =
        ["policy says no", "the role 'deploy' to '", "alice", "request", "hint: ask those who"];
    let output = refused(journey.tmpcred(&["token"]), 5, &says);
    let id = request_id(&output.stderr);
    assert!(recorded(&journey.broker, "request_id").contains(&id), "{id}");
    refused(journey.tmpcred(&["exec", "--", "true"]), 125, &says);
    let status = journey.tmpcred(&["status", "--json"]).run().ok().json();
    assert_eq!(status["credentials"], serde_json::json!([]));
    assert_eq!(status["sessions"][0]["subject"], "alice");
    assert_eq!(journey.broker.issued(), 0);
    journey.tmpcred(&["token", "reader", "--no-input"]).run().ok();

    let elsewhere = ["token", "reader", "--audience", "https://other.example"];
    refused(journey.tmpcred(&elsewhere), 5, &["the audience cannot be had", "other.example"]);
    let more = ["token", "reader", "--scope", "deploy:write"];
    refused(journey.tmpcred(&more), 5, &["the scope cannot be had"]);
    let unknown = ["token", "reader", "--role", "root"];
    refused(journey.tmpcred(&unknown), 5, &["'root'"]);
    assert_eq!(journey.broker.issued(), 1);
}

#[test]
fn a_denial_is_not_ridden_out_with_what_was_cached_before() {
    let mut journey = Journey::start();
    Standing::of(&journey);
    journey.broker.home.write("policy.cedar", DENIES_DEPLOY);
    journey.broker.restart();
    let late = at_clock(&journey.home, "+27m").args(["token", "--no-input"]);
    let output = late.run().ended_with(5);
    assert!(output.stderr.contains("policy says no"), "{}", output.stderr);
    assert_eq!(output.stdout, "");
}

/// The id of a request, as an error names it.
fn request_id(stderr: &str) -> String {
    let is_id = |word: &&str| word.len() == 36 && uuid::Uuid::parse_str(word).is_ok();
    let mut words = stderr.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.find(is_id).unwrap_or_else(|| panic!("no id in {stderr}")).into()
}

/// All values of a column of the broker's audit log.
pub(super) fn recorded(broker: &Broker, column: &str) -> Vec<String> {
    let select = format!(
        "import sqlite3,sys
for row in sqlite3.connect(sys.argv[1]).execute('select {column} from audit_record order by sequence'): print(row[0])"
    );
    let python = broker.home.command("python3").args(["-c", &select]);
    let output = python.args([broker.home.path("broker.db")]).run().ok();
    output.stdout.lines().map(String::from).collect()
}

#[test]
fn a_broker_that_starts_again_has_the_same_keys_and_records() {
    let mut journey = Journey::start();
    let standing = Standing::of(&journey);
    let keys = format!("{}/jwks.json", journey.broker.url());
    let before = Http::new().get(&keys).unwrap();
    assert_eq!(before.status, 200);
    journey.broker.restart();
    assert_eq!(Http::new().get(&keys).unwrap().json(), before.json());
    let verify = ["verify", "--audience", API];
    journey.tmpcred(&verify).stdin(standing.token.clone()).run().ok();
    standing.is_kept(&journey);
    assert_eq!(journey.broker.issued(), 1);
    let next = journey.tmpcred(&["token", "--ttl", "10m", "--no-input"]).run().ok().stdout;
    assert_ne!(next, standing.token);
    assert_eq!(journey.broker.issued(), 2);
}

#[test]
fn a_broker_that_does_not_trust_the_issuer_says_what_it_would_take() {
    let mut journey = Journey::start();
    journey.broker = Broker::start(&BrokerOptions::trusting("http://127.0.0.1:9"));
    let config = journey.home.path(".config/tmpcred/config.toml");
    let toml = std::fs::read_to_string(config).unwrap();
    let old = toml.split("[broker.main]\nurl = \"").nth(1).unwrap().split('"').next().unwrap();
    journey.home.config(&toml.replace(old, journey.broker.url()));
    let trusts = format!("has to trust the issuer {}", journey.provider.issuer());
    refused(journey.tmpcred(&["token"]), 9, &["does not accept the assertion", &trusts]);
    assert_eq!(journey.broker.issued(), 0);
}

#[test]
fn a_renewal_beside_a_command_leaves_a_broker_alone_that_asks_for_it() {
    let mut journey = Journey::start();
    let script = "echo up; while ! test -e go; do sleep 0.02; done";
    let exec = ["exec", "--ttl", "8s", "--renew", "--", "sh", "-c", script];
    let running = journey.tmpcred(&exec).spawn();
    running.line_on_stdout("up");
    journey.broker.stop();
    let impostor = Impostor::of(&journey.broker, "503 Busy", "Retry-After: 200\r\n", "");
    running.line_on_stderr("has ended");
    assert_eq!(impostor.asked(), 1);
    journey.home.write("work/go", "");
    let said = running.wait().ok().stderr;
    assert!(said.contains("it asked for that, so it is asked again in 3m"), "{said}");
}

#[test]
fn a_broker_that_limits_its_callers_is_asked_again_when_it_says() {
    let provider = OidcProvider::start();
    let mut options = BrokerOptions::trusting(provider.issuer());
    options.more = "\n[limits]\nprincipal = { per_minute = 30, burst = 1 }\n".into();
    let broker = Broker::start(&options);
    let mut home = Home::stranger();
    Browser::http().user("alice", "x").install(&mut home);
    let journey = Journey::of(provider, broker, home);
    journey.tmpcred(&["login"]).run().ok();
    // Two at once are more than it allows; whoever is second comes again, and is served.
    let deadline = Instant::now() + Duration::from_secs(60);
    while !journey.broker.said().contains("this caller asks too often") {
        assert!(Instant::now() < deadline, "nobody was limited: {}", journey.broker.said());
        let args = ["token", "--refresh", "-q"];
        let both = [&args[..], &[&args[..], &["reader"]].concat()]
            .map(|args| journey.tmpcred(args).spawn());
        for running in both {
            running.wait().ok();
        }
    }
    assert!(journey.broker.issued() >= 2);
}
