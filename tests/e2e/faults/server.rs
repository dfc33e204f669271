//! The broker as a server: what keeps it from starting, how it ends, and that
//! it issues nothing that it has not recorded.

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::process::Signal;
use serde_json::Value;

use super::brokers::recorded;
use super::refused;
use crate::journey::Journey;
use crate::support::home::{Home, tmpcred, under_test};
use crate::support::http::Http;
use crate::support::run::{Run, Running};
use crate::support::tls::Authority;
use crate::support::wait::{free_port, wait_until};

const KEK: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const OTHER_KEK: &str = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";
const BODY: &str = "grant_type=password";
const LONG: Duration = Duration::from_secs(60);

const POLICY: &str = r#"@id("deploy") @ttl("15m")
permit(
    principal,
    action == Action::"issue",
    resource == Role::"deploy"
);
"#;

/// A home with a broker's files.
struct Site {
    home: Home,
    port: u16,
}

impl Site {
    fn new() -> Self {
        let site = Self { home: Home::stranger(), port: free_port() };
        site.configure(&format!("listen = \"127.0.0.1:{}\"", site.port), "");
        site.home.write("policy.cedar", POLICY);
        site
    }

    /// Writes the configuration: keys at the top of the file, and tables.
    fn configure(&self, keys: &str, tables: &str) {
        let toml = format!(
            r#"issuer = "{}"
{keys}

[store]
path = "broker.db"

[trusted_issuer.corp]
issuer = "https://login.example.com"

[policy]
files = ["policy.cedar"]

[role.deploy]
audiences = ["https://api.example.com"]
scopes = ["deploy:read"]
max_ttl = "1h"

{tables}
"#,
            self.url("")
        );
        self.home.write("broker.toml", toml);
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn serve_without_key(&self) -> Run {
        let file = self.home.path("broker.toml");
        tmpcred(&self.home).args(["broker", "serve", "--config"]).args([file])
    }

    fn serve(&self) -> Run {
        self.serve_without_key().env("TMPCRED_BROKER_KEK", KEK).limit(Duration::from_secs(120))
    }

    /// A request that the broker has begun with, and waits for the body of.
    fn under_way(&self) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let head = format!(
            "POST /token HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nExpect: 100-continue\r\n\
             Content-Length: {}\r\n\r\n",
            self.port,
            BODY.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        // It has begun with it once it asks for the body.
        let mut asked = [0; 25];
        stream.read_exact(&mut asked).unwrap();
        assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream
    }

    #[track_caller]
    fn start(&self) -> Running {
        let running = self.serve().spawn();
        running.line_on_stderr("listens on");
        running
    }
}

/// Tells it to end, and waits until it has, well.
#[track_caller]
fn end(running: Running) -> String {
    running.signal(Signal::TERM);
    running.wait().ok().stderr
}

#[test]
fn a_broker_without_its_key_does_not_start_and_makes_no_database() {
    let site = Site::new();
    let hint = "hint: make one with `openssl rand -base64 32`";
    let other = "hint: a database that there is takes no new one";
    refused(site.serve_without_key(), 3, &["there is no key-encryption key", hint, other]);
    for bad in ["", "short", "MDEyMzQ1Njc4OWFiY2RlZg==", "!!!!"] {
        let output = refused(site.serve().env("TMPCRED_BROKER_KEK", bad), 3, &[hint]);
        assert!(bad.is_empty() || !output.stderr.contains(bad), "{}", output.stderr);
    }
    let listen = format!("listen = \"127.0.0.1:{}\"", site.port);
    site.configure(&listen, "[keys]\nkek_file = \"kek\"");
    refused(site.serve_without_key(), 3, &["kek does not exist", hint]);
    let kek = site.home.write("kek", format!("{KEK}\n"));
    fs::set_permissions(&kek, Permissions::from_mode(0o644)).unwrap();
    let chmod = format!("hint: chmod 600 {}", kek.display());
    refused(site.serve_without_key(), 3, &["is not private", &chmod]);
    assert!(!site.home.path("broker.db").exists());
    fs::set_permissions(&kek, Permissions::from_mode(0o600)).unwrap();
    let running = site.serve_without_key().spawn();
    running.line_on_stderr("listens on");
    end(running);
    assert!(site.home.path("broker.db").exists());
}

#[test]
fn a_broker_with_another_key_does_not_start_and_spoils_nothing() {
    let site = Site::new();
    let keys = || Http::new().get(&site.url("/jwks.json")).unwrap().json();
    let running = site.start();
    let before = keys();
    end(running);
    let says = ["the key-encryption key does not open this database", "is needed"];
    let wrong = site.serve().env("TMPCRED_BROKER_KEK", OTHER_KEK);
    refused(wrong, 3, &says);
    let running = site.start();
    assert_eq!(keys(), before);
    end(running);
}

#[test]
fn a_broker_whose_place_is_taken_or_exposed_does_not_start() {
    let site = Site::new();
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap();
    site.configure(&format!("listen = \"{address}\""), "");
    refused(site.serve(), 1, &[&address.to_string(), "is another broker running?"]);
    assert!(!site.home.path("broker.db").exists());

    let everywhere = format!("listen = \"0.0.0.0:{}\"", site.port);
    site.configure(&everywhere, "");
    let hint = "hint: set expose = true if other machines are to reach the broker";
    refused(site.serve(), 3, &["is not loopback, and expose is not true", hint]);
    site.configure(&format!("{everywhere}\nexpose = true"), "");
    refused(site.serve(), 3, &["needs a [tls] table", "never sent in the clear"]);

    let authority = Authority::new();
    let pair = authority.certify("127.0.0.1");
    site.home.write("cert.pem", fs::read(pair.certificate).unwrap());
    let key = site.home.write("key.pem", fs::read(pair.key).unwrap());
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let listen = format!("listen = \"127.0.0.1:{}\"", site.port);
    site.configure(&listen, "[tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"");
    refused(site.serve(), 3, &["private key", "is not private", "chmod o-rwx"]);
    // It is somebody else's, in effect.
    fs::set_permissions(&key, Permissions::from_mode(0o000)).unwrap();
    let hint = "has to be able to read it";
    refused(site.serve(), 3, &["cannot read", "key.pem", "Permission denied", hint]);
    assert!(!site.home.path("broker.db").exists());
}

#[test]
fn a_broker_with_a_broken_policy_or_configuration_shows_the_place() {
    let site = Site::new();
    let policy = site.home.write("policy.cedar", POLICY.replace("==", "=>"));
    refused(site.serve(), 3, &[&format!("{}:4:", policy.display())]);
    site.home.write("policy.cedar", POLICY.replace("\"deploy\"", "\"deplyo\""));
    refused(site.serve(), 3, &[&policy.display().to_string(), "deplyo"]);
    fs::remove_file(&policy).unwrap();
    refused(site.serve(), 3, &["policy.cedar"]);
    site.home.write("policy.cedar", POLICY);
    let file = site.home.path("broker.toml");
    site.configure("lissten = \"127.0.0.1:1\"", "");
    let place = format!("{}:2:1", file.display());
    refused(site.serve(), 3, &["lissten", &place, "did you mean `listen`"]);
    site.home.write("broker.toml", "x".repeat(2_000_000));
    refused(site.serve(), 3, &["broker.toml"]);
    fs::remove_file(&file).unwrap();
    refused(site.serve(), 3, &["there is no", "broker.toml"]);
    assert!(!site.home.path("broker.db").exists());
}

#[test]
fn a_broker_that_is_told_to_end_finishes_what_is_under_way() {
    let site = Site::new();
    let admin = free_port();
    let listen = format!("listen = \"127.0.0.1:{}\"", site.port);
    site.configure(&listen, &format!("[admin]\nlisten = \"127.0.0.1:{admin}\""));
    let running = site.start();
    for (path, status) in [("/healthz", "ok"), ("/readyz", "ready")] {
        let reply = Http::new().get(&site.url(path)).unwrap();
        assert_eq!((reply.status, &reply.json()["status"]), (200, &Value::from(status)));
    }
    let mut stream = site.under_way();

    running.signal(Signal::TERM);
    wait_until("the broker to take no more", LONG, || {
        TcpStream::connect(("127.0.0.1", site.port)).is_err().then_some(())
    });
    let ready = Http::new().get(&format!("http://127.0.0.1:{admin}/readyz")).unwrap();
    assert_eq!((ready.status, &ready.json()["why"]), (503, &Value::from("the broker is ending")));
    stream.write_all(BODY.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("unsupported_grant_type"), "{answer}");
    let said = running.wait().ok().stderr;
    assert!(said.contains("drained"), "{said}");
}

#[test]
fn a_second_signal_cuts_off_what_is_under_way() {
    let site = Site::new();
    let running = site.start();
    let mut stream = site.under_way();
    running.signal(Signal::TERM);
    wait_until("the broker to take no more", LONG, || {
        TcpStream::connect(("127.0.0.1", site.port)).is_err().then_some(())
    });
    let said = end(running);
    assert!(said.contains("drained"), "{said}");
    // Had it been waited for, it would have been answered that it took too long.
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert_eq!(String::from_utf8(answer).unwrap(), "");
}

/// The id of a token.
fn jti(token: &str) -> String {
    let claims = token.trim().split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    claims["jti"].as_str().unwrap().into()
}

#[test]
fn a_broker_that_is_killed_has_recorded_every_token_that_got_out() {
    let mut journey = Journey::start();
    let first = journey.tmpcred(&["token"]).run().ok().stdout;
    let asking = |minutes| journey.tmpcred(&["token", "--ttl", &format!("{minutes}m")]).spawn();
    let running: Vec<Running> = (1..=8).map(asking).collect();
    // The moment that the first one has an answer.
    wait_until("a token", LONG, || running.iter().find(|one| !one.stdout().is_empty()).map(drop));
    journey.broker.stop();
    let tokens: Vec<String> = running.into_iter().map(|one| one.wait().stdout).collect();
    let records = recorded(&journey.broker, "jti");
    for token in tokens.iter().chain([&first]).filter(|token| !token.is_empty()) {
        assert!(records.contains(&jti(token)), "a token is out that is not on record");
    }
    journey.broker.restart();
    journey.tmpcred(&["token", "reader", "--refresh", "--no-input"]).run().ok();
}

/// Starts the broker of a journey anew, with no room left on its disk.
fn without_room(journey: &Journey) -> Running {
    let home = &journey.broker.home;
    let database = home.path("broker.db");
    // What it wrote since it was made is in a log of changes, which is much longer by then than the
    // database. That one begins anew every so often, and would not reach its old length again.
    let moved = home.command("sqlite3").args([&database]).args(["pragma wal_checkpoint(truncate)"]);
    assert!(moved.run().ok().stdout.starts_with("0|"), "it was moved into the database");
    // In units of 512 bytes (POSIX). Where the signal is ignored, writing fails.
    let units = database.metadata().unwrap().len().div_ceil(512);
    let script = format!("trap '' XFSZ; ulimit -f {units}; exec \"$@\"");
    let program = home.share(under_test());
    let serve = home.command("sh").args(["-c", &script, "sh"]).args([program]);
    let serve = serve.args(["broker", "serve", "--config"]).args([home.path("broker.toml")]);
    let running = serve.env("TMPCRED_BROKER_KEK", KEK).limit(Duration::from_secs(120)).spawn();
    running.line_on_stderr("listens on");
    running
}

#[test]
fn a_broker_whose_disk_is_full_issues_nothing_and_recovers() {
    let mut journey = Journey::start();
    let cached = journey.tmpcred(&["token"]).run().ok().stdout;
    journey.broker.stop();
    let running = without_room(&journey);
    let mut tokens = vec![jti(&cached)];
    let full = wait_until("the disk to be full", LONG, || {
        let ttl = format!("{}s", 60 + tokens.len());
        let output = journey.tmpcred(&["token", "--ttl", &ttl]).run();
        if output.code == Some(0) {
            tokens.push(jti(&output.stdout));
            return None;
        }
        Some(output.ended_with(7))
    });
    assert_eq!(full.stdout, "");
    for says in ["the broker cannot serve at the moment", "it answered 503", "hint: it asks to be"]
    {
        assert!(full.stderr.contains(says), "{}", full.stderr);
    }
    let base = journey.broker.url().to_string();
    let url = |path: &str| format!("{base}{path}");
    // There may be room for less than a record: the looks themselves use it up.
    wait_until("the broker to be not ready", LONG, || {
        (Http::new().get(&url("/readyz")).unwrap().status == 503).then_some(())
    });
    assert_eq!(Http::new().get(&url("/healthz")).unwrap().status, 200);
    // What is cached still serves.
    let last = journey.tmpcred(&["token", "--no-input"]).run().ok().stdout;
    assert_eq!(last, cached);
    drop(running);
    // The first are of the key that signs and the one that waits.
    assert_eq!(recorded(&journey.broker, "jti")[2..], tokens, "on record is what got out");
    journey.broker.restart();
    journey.tmpcred(&["token", "--ttl", "20m", "--refresh", "--no-input"]).run().ok();
    assert_eq!(Http::new().get(&url("/readyz")).unwrap().status, 200);
    assert_eq!(journey.broker.issued(), tokens.len() + 1);
}

#[test]
fn a_broker_whose_log_takes_nothing_issues_and_ends_as_ever() {
    for format in ["text", "json"] {
        let mut journey = Journey::start();
        journey.broker.stop();
        let home = &journey.broker.home;
        let file = home.path("broker.toml");
        let toml = fs::read_to_string(&file).unwrap();
        let admin = free_port();
        let more =
            format!("[log]\nformat = \"{format}\"\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n");
        home.write("broker.toml", format!("{toml}\n{more}"));
        let program = home.share(under_test());
        let script = "exec \"$@\" 2>/dev/full";
        let serve = home.command("sh").args(["-c", script, "sh"]).args([program]);
        let serve = serve.args(["broker", "serve", "-v", "--config"]).args([file]);
        let running = serve.env("TMPCRED_BROKER_KEK", KEK).limit(Duration::from_secs(120)).spawn();
        let ready = format!("{}/readyz", journey.broker.url());
        wait_until("the broker to be ready", LONG, || {
            Http::new().get(&ready).ok().filter(|reply| reply.status == 200)
        });
        for ttl in ["61s", "62s", "63s"] {
            journey.tmpcred(&["token", "--ttl", ttl]).run().ok();
        }
        assert_eq!(Http::new().get(&ready).unwrap().status, 200);
        // The first 8 KiB wait for a disk that takes them.
        for _ in 0..200 {
            Http::new().get(&ready).unwrap();
        }
        let metrics = Http::new().get(&format!("http://127.0.0.1:{admin}/metrics")).unwrap().body;
        let lost =
            metrics.lines().find_map(|line| line.strip_prefix("tmpcred_log_lines_lost_total "));
        assert!(lost.unwrap().parse::<u64>().unwrap() > 0, "{metrics}");
        end(running);
        assert_eq!(journey.broker.issued(), 3, "each that is on record was handed over");
        journey.broker.restart();
    }
}

#[test]
fn a_broker_whose_log_nobody_reads_serves_and_ends_as_ever() {
    let mut journey = Journey::start();
    journey.broker.stop();
    let home = &journey.broker.home;
    let program = home.share(under_test());
    // One pipe for all that it says, as where a container runs.
    let pipe = home.path("said");
    home.command("mkfifo").args([&pipe]).run().ok();
    let mut unread = fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let script = "said=$1; shift; exec \"$@\" >\"$said\" 2>&1";
    let serve = home.command("sh").args(["-c", script, "sh"]).args([&pipe, &program]);
    let serve = serve.args(["broker", "serve", "-v", "--config"]).args([home.path("broker.toml")]);
    let running = serve.env("TMPCRED_BROKER_KEK", KEK).limit(Duration::from_secs(120)).spawn();
    let url = |path: &str| format!("{}{path}", journey.broker.url());
    wait_until("the broker to be ready", LONG, || {
        Http::new().get(&url("/readyz")).ok().filter(|reply| reply.status == 200)
    });
    // A pipe takes 64 KiB, and each answer is a line of more than a hundred bytes.
    for _ in 0..1000 {
        assert_eq!(Http::new().get(&url("/nothing")).unwrap().status, 404);
    }
    journey.tmpcred(&["token", "--ttl", "61s"]).run().ok();
    end(running);
    // As much as there was room for.
    let mut said = vec![0; 1 << 20];
    let length = unread.read(&mut said).unwrap();
    assert!(length > 32 * 1024, "{length} bytes");
}

#[test]
fn a_broker_that_is_told_to_end_before_it_serves_ends() {
    let site = Site::new();
    let (began, goes_on) = (site.home.path("began"), site.home.path("goes-on"));
    let script = format!(
        "#!/bin/sh\nmkfifo '{}'\n: >'{}'\nread -r key <'{0}'\necho {KEK}\n",
        goes_on.display(),
        began.display()
    );
    let program = site.home.write_program("kek", &script);
    let listen = format!("listen = \"127.0.0.1:{}\"", site.port);
    site.configure(&listen, &format!("[keys]\nkek_command = [\"{}\"]", program.display()));
    let running = site.serve_without_key().limit(LONG).spawn();
    wait_until("the command for the key", LONG, || began.exists().then_some(()));
    let said = end(running);
    assert!(said.contains("told to end before there was anything to serve"), "{said}");
    // Whatever the command would have said now. (It ends where nobody waits for it.)
    let told = fs::OpenOptions::new().read(true).write(true).open(&goes_on).unwrap();
    (&told).write_all(b"now\n").unwrap();
    assert!(!site.home.path("broker.db").exists());
}
