//! The keys of a trusted issuer: fetched before anybody comes, and kept for processes that
//! start while the issuer is down.

use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::support::broker::{API, Broker, BrokerOptions};
use super::support::home::Home;
use super::support::http::{Http, Reply};
use super::support::peer::{Peer, program, supervised};
use super::support::postgres::Postgres;
use super::support::wait::{free_port, wait_until};
use super::support::workload::{Workloads, exchange};

const SOON: Duration = Duration::from_secs(60);

/// An issuer that is a directory behind a web server, with a broker that trusts it.
struct Site {
    broker: Broker,
    jobs: Workloads,
    server: Option<Peer>,
    postgres: Option<Postgres>,
    _files: Home,
}

impl Site {
    #[track_caller]
    fn start(postgres: Option<Postgres>) -> Self {
        let (files, port) = (Home::new(), free_port());
        let issuer: &'static str = format!("http://127.0.0.1:{port}").leak();
        let jobs = Workloads::of(issuer, &files);
        files.write("site/keys.json", std::fs::read(&jobs.jwks).unwrap());
        let document = serde_json::json!({
            "issuer": issuer, "jwks_uri": format!("{issuer}/keys.json"),
            "authorization_endpoint": format!("{issuer}/none"),
            "token_endpoint": format!("{issuer}/none"),
            "response_types_supported": ["code"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        });
        files.write("site/.well-known/openid-configuration", document.to_string());
        let mut command = supervised(&program("python3"), Path::new("/dev/null"));
        command.args(["-m", "http.server", "--bind", "127.0.0.1", "--directory"]);
        command.arg(files.path("site")).arg(port.to_string());
        let mut server = Peer::start("the issuer", command, files.path("log"));
        server.until_ready(|| TcpStream::connect(("127.0.0.1", port)).ok());

        // Another issuer is down from the beginning, and keeps nobody from starting.
        let mut options = BrokerOptions::trusting("http://127.0.0.1:9");
        options.policy = options.policy.replace(") @ttl", ") @any_issuer @ttl");
        options.more = format!("\n[trusted_issuer.jobs]\nissuer = \"{issuer}\"\n");
        if let Some(postgres) = &postgres {
            options.store = postgres.table(&files);
        }
        let broker = Broker::start(&options);
        Self { broker, jobs, server: Some(server), postgres, _files: files }
    }

    /// Does this in the database.
    fn sql(&self, sql: &str) -> Vec<String> {
        if let Some(postgres) = &self.postgres {
            return postgres.query(sql);
        }
        let script = "import sqlite3,sys; c=sqlite3.connect(sys.argv[1], timeout=60)
print(*[r[0] for r in c.execute(sys.argv[2]).fetchall()], sep='\\n'); c.commit()";
        let home = &self.broker.home;
        let run = home.command("python3").args(["-c", script]).args([home.path("broker.db")]);
        run.args([sql]).run().ok().stdout.lines().map(String::from).collect()
    }

    fn ask(&self, url: &str) -> Reply {
        let assertion = self.jobs.assertion("job", self.broker.url(), &Value::Null);
        let form = exchange(&assertion, API, "reader");
        Http::new().form(&format!("{url}/token"), &form).unwrap()
    }
}

fn outlast(postgres: Option<Postgres>) {
    let mut site = Site::start(postgres);
    let ready = Http::new().get(&format!("{}/readyz", site.broker.url())).unwrap();
    assert_eq!(ready.status, 200, "{}", ready.body);
    // Nobody has asked for a token.
    let kept = "select count(*) from issuer_key_set";
    wait_until("the keys to be kept", SOON, || (site.sql(kept) == ["1"]).then_some(()));

    site.server = None;
    site.broker.restart();
    let reply = site.ask(site.broker.url());
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert!(site.broker.said().contains("going on with the keys"), "{}", site.broker.said());
    let twin = site.broker.twin();
    let reply = site.ask(&twin.url);
    assert_eq!(reply.status, 200, "{}: {}", reply.body, twin.said());
    drop(twin);

    // Who can write to the database does not say what an issuer's keys are, or how old.
    site.sql("update issuer_key_set set good_at = good_at + 1");
    site.broker.restart();
    let reply = site.ask(site.broker.url());
    assert_eq!(reply.status, 503, "{}", reply.body);
    let said = site.broker.said();
    assert!(said.contains("was not written by this broker"), "{said}");
}

#[test]
fn the_keys_of_an_issuer_that_is_down_outlast_the_process() {
    outlast(None);
}

#[test]
fn they_outlast_it_in_postgresql_too() {
    outlast(Some(Postgres::start()));
}
