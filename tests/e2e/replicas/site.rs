//! A broker that is several processes on one database, and those who come to it.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::super::support::broker::{API, Broker, BrokerOptions, KEK};
use super::super::support::home::{Home, tmpcred};
use super::super::support::http::Http;
use super::super::support::pgbouncer::{self, PgBouncer};
use super::super::support::postgres::Postgres;
use super::super::support::run::Run;
use super::super::support::workload::{Workloads, exchange};

/// The issuer of the jobs.
pub(super) const ISSUER: &str = "https://jobs.example.com";

/// What the processes share, as tests ask it behind the broker's back.
pub(crate) trait Database: Sync {
    /// What it answers, a line for each row.
    fn query(&self, sql: &str) -> Vec<String>;
}

impl Database for Postgres {
    #[track_caller]
    fn query(&self, sql: &str) -> Vec<String> {
        self.query(sql)
    }
}

/// A file of SQLite.
pub(crate) struct File(PathBuf);

impl Database for File {
    #[track_caller]
    fn query(&self, sql: &str) -> Vec<String> {
        let home = Home::new();
        let ask = "import sqlite3, sys
for row in sqlite3.connect(sys.argv[1], timeout=30).execute(sys.argv[2]):
    print('|'.join('' if value is None else str(value) for value in row))";
        let python = home.command("python3").args(["-c", ask]).args([&self.0]).args([sql]);
        python.run().ok().stdout.lines().map(String::from).collect()
    }
}

/// A database, the first process of a broker, and jobs whose keys it has in a file.
pub(crate) struct Site<D = Postgres> {
    pub(crate) broker: Broker,
    pub(crate) database: D,
    jobs: Workloads,
    pub(super) files: Home,
}

impl Site {
    pub(super) fn start() -> Self {
        Self::with("")
    }

    /// `store` goes into the table of the database.
    pub(super) fn with(store: &str) -> Self {
        Self::with_tables(store, "")
    }

    /// The same, with further tables in the configuration of the broker.
    pub(crate) fn with_tables(store: &str, more: &str) -> Self {
        let (postgres, files) = (Postgres::start(), Home::new());
        let table = postgres.table(&files) + store;
        Self::on(postgres, &table, files, (more, ""))
    }

    /// With further tables and policies, and with a directory of these people.
    pub(super) fn with_people(more: &str, policy: &str, people: &str) -> Self {
        let (postgres, files) = (Postgres::start(), Home::new());
        let table = postgres.table(&files);
        let people = files.write("people.toml", people);
        let more = format!("{more}\n[directory]\nfile = {people:?}\n");
        Self::on(postgres, &table, files, (&more, policy))
    }

    /// Behind a pooler that is configured as the broker wants it.
    pub(super) fn pooled() -> (Self, PgBouncer) {
        let (postgres, files) = (Postgres::start(), Home::new());
        let pooler = PgBouncer::start(&postgres, &pgbouncer::on_the_page());
        let table = pooler.table(&files);
        (Self::on(postgres, &table, files, ("", "")), pooler)
    }
}

impl Site<File> {
    /// On a file that no process of the broker has made yet.
    pub(super) fn on_a_file() -> Self {
        let files = Home::new();
        let path = files.path("broker.db");
        let table = format!("[store]\npath = {path:?}\n");
        Self::on(File(path), &table, files, ("", ""))
    }
}

impl<D: Database> Site<D> {
    fn on(database: D, table: &str, files: Home, (more, policy): (&str, &str)) -> Self {
        let jobs = Workloads::of(ISSUER, &files);
        let jwks = &jobs.jwks;
        let mut options = BrokerOptions::trusting("http://127.0.0.1:9");
        options.policy = options.policy.replace(") @ttl", ") @any_issuer @ttl");
        options.store = table.into();
        options.more = format!(
            "\n[keys]\npublish_before = \"15s\"\n\n\
             [role.handle]\naudiences = [\"{API}\"]\nmax_ttl = \"15m\"\ntoken_format = \"opaque\"\n\n\
             [trusted_issuer.jobs]\nissuer = \"{ISSUER}\"\njwks_file = {jwks:?}\n\n\
             [trusted_issuer.self]\nissuer = \"{{self}}\"\naudiences = [\"{API}\"]\n\
             jwks_uri = \"{{self}}/jwks.json\"\n\n\
             [authz]\nproxy = \"nginx\"\nproxies = [\"127.0.0.1\"]\n\n\
             [authz.route.api]\norigins = [\"{API}\"]\naudience = \"{API}\"\n{more}"
        );
        options.policy += "@id(\"handle\") @ttl(\"15m\") @any_issuer
            permit (principal, action == Action::\"issue\", resource == Role::\"handle\");
            @id(\"again\") @ttl(\"15m\") @scope(\"deploy:read\")
            permit (principal, action == Action::\"exchange\", resource == Role::\"reader\")
            when { principal.issuer == \"{self}\" };";
        options.policy += &format!(
            "@id(\"operates\")
            permit (principal == User::\"{ISSUER}#operator\", action == Action::\"revoke\", resource);
            @id(\"administers\")
            permit (principal == User::\"{ISSUER}#operator\", action == Action::\"administer\", resource);"
        );
        options.policy += policy;
        Self { broker: Broker::start(&options), database, jobs, files }
    }

    /// Proof of being this job.
    pub(crate) fn assertion(&self, job: &str) -> String {
        self.jobs.assertion(job, self.broker.url(), &Value::Null)
    }

    /// Proof of being this person, who has just logged in.
    pub(super) fn login(&self, person: &str) -> String {
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        self.jobs.assertion(person, self.broker.url(), &json!({ "auth_time": now }))
    }

    /// A home of a job that knows these addresses of the broker.
    pub(super) fn job(&self, name: &str, urls: &[String]) -> Home {
        let home = Home::new();
        let token = home.write("assertion", self.assertion(name));
        home.config(&format!(
            r#"default_profile = "job"
[identity.job]
type = "file"
token_file = {token:?}
[broker.main]
url = {urls:?}
issuer = "{}"
[profile.job]
role = "reader"
audience = "{API}"
"#,
            self.broker.url()
        ));
        home
    }

    /// Asks this process for a token, once.
    pub(crate) fn ask(&self, http: &mut Http, url: &str, assertion: &str) -> Option<String> {
        self.ask_for("reader", http, url, assertion)
    }

    pub(super) fn ask_for(
        &self,
        role: &str,
        http: &mut Http,
        url: &str,
        assertion: &str,
    ) -> Option<String> {
        let form = exchange(assertion, API, role);
        let reply = http.form(&format!("{url}/token"), &form).ok()?;
        // Whoever is refused for good is told so; here nobody is.
        assert!([200, 429, 503].contains(&reply.status), "{}", reply.body);
        (reply.status == 200).then(|| reply.json()["access_token"].as_str().unwrap().to_string())
    }

    pub(super) fn broker(&self, args: &[&str]) -> Run {
        let home = &self.broker.home;
        let run = tmpcred(home).args(["broker"]).args(args).limit(Duration::from_secs(60));
        run.args(["--config"]).args([home.path("broker.toml")]).env("TMPCRED_BROKER_KEK", KEK)
    }

    #[track_caller]
    pub(super) fn in_state(&self, state: &str) -> Vec<String> {
        let keys = self.broker(&["keys", "list", "--json"]).run().ok().json();
        let keys = keys.as_array().unwrap().iter();
        let keys = keys.filter(|key| key["purpose"] == "access-token");
        let these = keys.filter(|key| key["state"] == state);
        these.map(|key| key["kid"].as_str().unwrap().to_string()).collect()
    }

    /// Begins to change the key that signs tokens. Returns the id of the next one.
    #[track_caller]
    pub(super) fn rotate(&self) -> String {
        let rotated = self.broker(&["keys", "rotate"]).run().ok().stderr;
        let known = self.broker(&["keys", "list", "--json"]).run().ok().json();
        let kids = known.as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap());
        let [next] = kids.filter(|kid| rotated.contains(kid)).collect::<Vec<_>>()[..] else {
            panic!("{rotated}")
        };
        next.to_string()
    }

    /// The id of the key that this process signs with.
    pub(super) fn signer(&self, url: &str) -> Option<String> {
        self.ask(&mut Http::new(), url, &self.assertion("job")).map(|token| kid(&token))
    }
}

fn part(token: &str, at: usize) -> Value {
    let part = token.trim().split('.').nth(at).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// What a token says.
pub(super) fn claims(token: &str) -> Value {
    part(token, 1)
}

/// The id of a token.
pub(super) fn jti(token: &str) -> String {
    claims(token)["jti"].as_str().unwrap().to_string()
}

/// The id of the key that signed it.
pub(super) fn kid(token: &str) -> String {
    part(token, 0)["kid"].as_str().unwrap().to_string()
}

/// Whether this process says that a token is good.
#[track_caller]
pub(super) fn is_active(url: &str, token: &str) -> bool {
    let reply = Http::new().form_as(token, &format!("{url}/introspect"), &[("token", token)]);
    let reply = reply.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.json()["active"] == true
}

/// Revokes a token at this process.
#[track_caller]
pub(super) fn revoke(url: &str, token: &str) {
    let reply = Http::new().form(&format!("{url}/revoke"), &[("token", token)]).unwrap();
    assert_eq!(reply.status, 200, "{}", reply.body);
}
