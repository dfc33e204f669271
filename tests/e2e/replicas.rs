//! A broker that is several processes on one PostgreSQL database, under load, while its
//! parts come and go.

mod refused;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::support::broker::{API, Broker, BrokerOptions, KEK, Twin};
use super::support::home::{Home, tmpcred};
use super::support::http::Http;
use super::support::postgres::{PASSWORD, Postgres, password_file};
use super::support::run::Run;
use super::support::wait::wait_until;
use super::support::workload::{Workloads, exchange};

const ISSUER: &str = "https://jobs.example.com";

/// How long something may take that takes a few seconds.
const SOON: Duration = Duration::from_secs(30);

/// How long a rotation may take whose key is published for 15 seconds.
const ROTATION: Duration = Duration::from_secs(120);

/// A database, the first process of a broker, and jobs whose keys it has in a file.
pub(crate) struct Site {
    pub(crate) broker: Broker,
    pub(crate) postgres: Postgres,
    jobs: Workloads,
    files: Home,
}

impl Site {
    fn start() -> Self {
        Self::with("")
    }

    /// `store` goes into the table of the database.
    fn with(store: &str) -> Self {
        Self::with_tables(store, "")
    }

    /// The same, with further tables in the configuration of the broker.
    pub(crate) fn with_tables(store: &str, more: &str) -> Self {
        let (postgres, files) = (Postgres::start(), Home::new());
        let jobs = Workloads::of(ISSUER, &files);
        let jwks = &jobs.jwks;
        let mut options = BrokerOptions::trusting("http://127.0.0.1:9");
        options.policy = options.policy.replace(") @ttl", ") @any_issuer @ttl");
        options.store = postgres.table(&files) + store;
        options.more = format!(
            "\n[keys]\npublish_before = \"15s\"\n\n\
             [role.handle]\naudiences = [\"{API}\"]\nmax_ttl = \"15m\"\ntoken_format = \"opaque\"\n\n\
             [trusted_issuer.jobs]\nissuer = \"{ISSUER}\"\njwks_file = {jwks:?}\n{more}"
        );
        options.policy += "@id(\"handle\") @ttl(\"15m\") @any_issuer
            permit (principal, action == Action::\"issue\", resource == Role::\"handle\");";
        Self { broker: Broker::start(&options), postgres, jobs, files }
    }

    /// Proof of being this job.
    pub(crate) fn assertion(&self, job: &str) -> String {
        self.jobs.assertion(job, self.broker.url(), &Value::Null)
    }

    /// A home of a job that knows these addresses of the broker.
    fn job(&self, name: &str, urls: &[String]) -> Home {
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

    fn ask_for(&self, role: &str, http: &mut Http, url: &str, assertion: &str) -> Option<String> {
        let form = exchange(assertion, API, role);
        let reply = http.form(&format!("{url}/token"), &form).ok()?;
        // Whoever is refused for good is told so; here nobody is.
        assert!([200, 429, 503].contains(&reply.status), "{}", reply.body);
        (reply.status == 200).then(|| reply.json()["access_token"].as_str().unwrap().to_string())
    }

    fn broker(&self, args: &[&str]) -> Run {
        let home = &self.broker.home;
        let run = tmpcred(home).args(["broker"]).args(args).limit(Duration::from_secs(60));
        run.args(["--config"]).args([home.path("broker.toml")]).env("TMPCRED_BROKER_KEK", KEK)
    }

    #[track_caller]
    fn in_state(&self, state: &str) -> Vec<String> {
        let keys = self.broker(&["keys", "list", "--json"]).run().ok().json();
        let keys = keys.as_array().unwrap().iter();
        let keys = keys.filter(|key| key["purpose"] == "access-token");
        let these = keys.filter(|key| key["state"] == state);
        these.map(|key| key["kid"].as_str().unwrap().to_string()).collect()
    }
}

fn part(token: &str, at: usize) -> Value {
    let part = token.trim().split('.').nth(at).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn jti(token: &str) -> String {
    part(token, 1)["jti"].as_str().unwrap().to_string()
}

fn kid(token: &str) -> String {
    part(token, 0)["kid"].as_str().unwrap().to_string()
}

#[track_caller]
fn is_active(url: &str, token: &str) -> bool {
    let reply = Http::new().form_as(token, &format!("{url}/introspect"), &[("token", token)]);
    let reply = reply.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.json()["active"] == true
}

/// Everybody who wants tokens, until they are told to stop.
struct Load {
    stop: AtomicBool,
    tokens: Mutex<Vec<String>>,
    /// How many tokens the real client got.
    runs: AtomicUsize,
}

impl Load {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            stop: AtomicBool::new(false),
            tokens: Mutex::new(Vec::new()),
            runs: AtomicUsize::new(0),
        })
    }

    /// The real client, run after run: none of them may fail.
    fn client(&self, home: &Home) {
        while !self.stop.load(Ordering::Relaxed) {
            let run = tmpcred(home).args(["token", "--refresh", "--no-input"]);
            let output = run.limit(Duration::from_secs(60)).run().ok();
            self.tokens.lock().unwrap().push(output.stdout.trim().into());
            self.runs.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Requests as quick as they are answered, at one process after the other.
    fn requests(&self, site: &Site, urls: &[String], assertion: &str) {
        let mut http = Http::new();
        for url in urls.iter().cycle() {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            if let Some(token) = site.ask(&mut http, url, assertion) {
                self.tokens.lock().unwrap().push(token);
            }
        }
    }

    fn count(&self) -> (usize, usize) {
        (self.tokens.lock().unwrap().len(), self.runs.load(Ordering::Relaxed))
    }

    /// Waits until things have gone on for a while, for both kinds.
    #[track_caller]
    fn goes_on(&self, what: &str) {
        let (tokens, runs) = self.count();
        wait_until(what, Duration::from_secs(90), || {
            let (now, run) = self.count();
            (now > tokens + 40 && run > runs + 3).then_some(())
        });
    }
}

/// Does this while there is load on all these processes. Returns all tokens that came of it.
fn under_load(site: &Site, urls: &[String], work: impl FnOnce(&Load)) -> Vec<String> {
    let load = Load::new();
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for n in 0..2 {
            let (load, name) = (load.clone(), format!("job{n}"));
            threads.push(scope.spawn(move || load.client(&site.job(&name, urls))));
        }
        for n in 0..2 {
            let (load, name) = (load.clone(), format!("other{n}"));
            threads.push(scope.spawn(move || load.requests(site, urls, &site.assertion(&name))));
        }
        // Also where something here is amiss, they have to end.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&load)));
        load.stop.store(true, Ordering::Relaxed);
        let ended: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        ended.into_iter().for_each(|ended| ended.unwrap());
    });
    std::mem::take(&mut load.tokens.lock().unwrap())
}

/// Every token that somebody got is on record, once and not taken back; and the log is
/// good.
#[track_caller]
fn nothing_is_lost(site: &Site, tokens: &[String]) {
    let jtis = |decision: &str| -> Vec<String> {
        let select = format!("select jti from audit_record where decision = '{decision}'");
        site.postgres.query(&select)
    };
    let issued = jtis("issued");
    let known: BTreeSet<_> = issued.iter().collect();
    let numbered = "select jti || ' ' || sequence from audit_record where decision = 'issued'";
    let numbered: BTreeSet<_> = site.postgres.query(numbered).into_iter().collect();
    assert_eq!(known.len(), issued.len(), "no token is on record twice");
    let aborted: BTreeSet<_> = jtis("aborted").into_iter().collect();
    assert!(tokens.len() > 60, "{}", tokens.len());
    for token in tokens {
        let jti = jti(token);
        assert!(known.contains(&jti) && !aborted.contains(&jti), "{jti} is out and not on record");
        let claimed = format!("{jti} {}", part(token, 1)["log_sequence"]);
        assert!(numbered.contains(&claimed), "{claimed} is another record's number");
    }
    let signed = || {
        let newest = "select coalesce(max(size), 0) - (select last_sequence from audit_head)
            from audit_checkpoint";
        (site.postgres.query(newest) == ["0"]).then_some(())
    };
    wait_until("a checkpoint of all records", SOON, signed);
    let report = site.broker(&["audit", "verify", "--json"]).run().ok().json();
    assert_eq!((&report["verified"], &report["findings"]), (&json!(true), &json!([])), "{report}");
    // Several processes sign one log: not each of them every few seconds.
    let notes: Vec<i64> = site
        .postgres
        .query("select at / 1000000 from audit_checkpoint order by size")
        .iter()
        .map(|at| at.parse().unwrap())
        .collect();
    let often = notes.windows(2).filter(|pair| pair[1] - pair[0] < 2).count();
    assert!(often * 3 <= notes.len() + 9, "{notes:?}");
}

#[test]
fn two_replicas_lose_nothing_when_one_is_killed_and_the_database_restarts() {
    let mut site = Site::start();
    let mut twin = Some(site.broker.twin());
    let urls = vec![site.broker.url().to_string(), twin.as_ref().unwrap().url.clone()];
    let mut tokens = under_load(&site, &urls, |load| {
        load.goes_on("tokens from both");
        drop(twin.take());
        load.goes_on("tokens from the one that is left");
    });
    let held = tokens.last().unwrap().clone();
    let mut replicas: Vec<Twin> = vec![site.broker.twin()];
    let urls = vec![site.broker.url().to_string(), replicas[0].url.clone()];
    revoke(&urls[0], &held);
    // At once, at each of them.
    assert!(urls.iter().all(|url| !is_active(url, &held)));

    let ready = |url: &str| Http::new().get(&format!("{url}/readyz")).unwrap().status;
    site.postgres.end();
    for url in &urls {
        wait_until("it to say that it cannot issue", SOON, || (ready(url) == 503).then_some(()));
        assert_eq!(site.ask(&mut Http::new(), url, &site.assertion("job")), None);
        let asked = Http::new().form_as(&held, &format!("{url}/introspect"), &[("token", &held)]);
        assert_eq!(asked.unwrap().status, 503, "it cannot say that a token is good");
    }
    site.postgres.begin();
    for url in &urls {
        wait_until("it to be ready again", SOON, || (ready(url) == 200).then_some(()));
        assert!(!is_active(url, &held), "a revocation is for good");
    }
    // One begins with what the others left.
    replicas.push(site.broker.twin());
    assert!(!is_active(&replicas[1].url, &held));
    tokens.push(site.ask(&mut Http::new(), &urls[1], &site.assertion("job")).unwrap());
    nothing_is_lost(&site, &tokens);
}

#[track_caller]
fn revoke(url: &str, token: &str) {
    let reply = Http::new().form(&format!("{url}/revoke"), &[("token", token)]).unwrap();
    assert_eq!(reply.status, 200, "{}", reply.body);
}

#[test]
fn what_is_cut_off_and_what_says_nothing_count_at_every_replica_at_once() {
    let site = Site::start();
    let twins = [site.broker.twin(), site.broker.twin()];
    let mut urls = vec![site.broker.url().to_string()];
    urls.extend(twins.iter().map(|twin| twin.url.clone()));
    let issue = |role: &str, job: &str, url: &str| {
        site.ask_for(role, &mut Http::new(), url, &site.assertion(job)).unwrap()
    };
    let tokens = [
        issue("reader", "one", &urls[0]),
        issue("handle", "one", &urls[1]),
        issue("reader", "other", &urls[2]),
        issue("handle", "other", &urls[2]),
    ];
    let good = |url: &str| tokens.each_ref().map(|token| is_active(url, token));
    for url in &urls {
        assert_eq!(good(url), [true; 4], "{url}");
    }
    let cut = |what: &[&str], count: u64| {
        let report = site.broker(&[&["revoke", "--json"], what].concat()).run().ok().json();
        assert_eq!(report["tokens"], count, "{what:?}");
    };
    // Those that were cut off before are counted again.
    for (what, count, left) in [
        (&["--issuer", ISSUER, "--subject", "one"][..], 2, [false, false, true, true]),
        (&["--role", "handle"], 2, [false, false, true, false]),
        (&["--all"], 4, [false; 4]),
    ] {
        cut(what, count);
        // The first look, at each of them.
        for url in &urls {
            assert_eq!(good(url), left, "{what:?} at {url}");
        }
    }
    // Who comes later is let in, at each of them; tokens say in whole seconds when that was.
    for url in &urls {
        wait_until("a later token to be good", SOON, || {
            let token = site.ask_for("handle", &mut Http::new(), url, &site.assertion("later"))?;
            is_active(url, &token).then_some(())
        });
    }
}

#[test]
fn three_replicas_under_load_survive_a_kill_a_restart_a_rotation_and_revocations() {
    let site = Site::start();
    let twins = [site.broker.twin(), site.broker.twin()];
    let mut urls = vec![site.broker.url().to_string()];
    urls.extend(twins.iter().map(|twin| twin.url.clone()));
    let [first, second] = twins;
    let before = site.in_state("active");
    let postgres = &site.postgres;
    let tokens = under_load(&site, &urls, |load| {
        load.goes_on("tokens from all");
        let rotated = site.broker(&["keys", "rotate"]).run().ok().stderr;
        let known = site.broker(&["keys", "list", "--json"]).run().ok().json();
        let kids = known.as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap());
        let [next] = kids.filter(|kid| rotated.contains(kid)).collect::<Vec<_>>()[..] else {
            panic!("{rotated}")
        };
        drop(second);
        load.goes_on("tokens from the two that are left");
        // Whoever waits for an answer gets one: connections end amid commits.
        for _ in 0..3 {
            postgres.query(
                "select pg_terminate_backend(pid) from pg_stat_activity
                 where application_name = 'tmpcred broker' and pid <> pg_backend_pid()",
            );
            load.goes_on("tokens over new connections");
        }
        let alive = [&urls[0], &urls[1]];
        let signs = |url: &&String| {
            let token = site.ask(&mut Http::new(), url, &site.assertion("job"));
            token.is_some_and(|token| kid(&token) == next)
        };
        wait_until("the next key signs", ROTATION, || alive.iter().all(signs).then_some(()));
        let token = load.tokens.lock().unwrap()[0].clone();
        assert_eq!([kid(&token)], before[..]);
        assert!(alive.iter().all(|url| is_active(url, &token)), "its key is retired, no more");
        revoke(alive[0], &token);
        assert!(alive.iter().all(|url| !is_active(url, &token)));
        // A key is revoked while all of them sign with it.
        site.broker(&["keys", "revoke", next]).run().ok();
        let other = |url: &&String| {
            let token = site.ask(&mut Http::new(), url, &site.assertion("job"));
            token.is_some_and(|token| kid(&token) != next)
        };
        wait_until("another key signs", SOON, || alive.iter().all(other).then_some(()));
        let old = load.tokens.lock().unwrap().iter().find(|token| kid(token) == next).cloned();
        let gone = || alive.iter().all(|url| !is_active(url, old.as_ref().unwrap())).then_some(());
        wait_until("nobody accepts what the revoked key signed", SOON, gone);
        load.goes_on("tokens under the new key");
    });
    nothing_is_lost(&site, &tokens);
    let said = site.broker.said() + &first.said();
    assert!(!said.contains(PASSWORD) && !said.contains("panicked"), "{said}");
}

#[test]
fn a_database_that_restarts_under_load_costs_no_client_anything() {
    let mut site = Site::start();
    let twin = site.broker.twin();
    let urls = vec![site.broker.url().to_string(), twin.url.clone()];
    let load = Load::new();
    let homes = [site.job("job0", &urls), site.job("job1", &urls)];
    std::thread::scope(|scope| {
        let threads = homes.each_ref().map(|home| {
            let load = load.clone();
            scope.spawn(move || load.client(home))
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..3 {
                let runs = load.runs.load(Ordering::Relaxed);
                wait_until("some runs", Duration::from_secs(90), || {
                    (load.runs.load(Ordering::Relaxed) > runs + 5).then_some(())
                });
                site.postgres.end();
                site.postgres.begin();
            }
        }));
        load.stop.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        outcome.unwrap();
    });
    let mut tokens = std::mem::take(&mut *load.tokens.lock().unwrap());
    let (mut http, assertion) = (Http::new(), site.assertion("job"));
    while tokens.len() <= 60 {
        tokens.extend(site.ask(&mut http, &urls[tokens.len() % 2], &assertion));
    }
    nothing_is_lost(&site, &tokens);
}

#[test]
fn what_hangs_in_the_database_keeps_no_connection_from_others() {
    let site = Site::with("max_connections = 3\nanswer_within = \"3s\"\n");
    let (url, assertion) = (site.broker.url(), site.assertion("job"));
    let token = site.ask(&mut Http::new(), url, &assertion).unwrap();
    let introspected = || {
        let url = format!("{url}/introspect");
        Http::new().form_as(&token, &url, &[("token", &token)]).unwrap().status == 200
    };
    std::thread::scope(|scope| {
        // Nobody gets at the end of the log any more, and nobody is told why.
        let lock = "begin; lock table audit_head; select pg_sleep(30)";
        let held = scope.spawn(|| site.postgres.query(lock));
        let is_held = || {
            let locks = "select 1 from pg_locks where relation = 'audit_head'::regclass
                and mode = 'AccessExclusiveLock' and granted";
            site.postgres.query(locks) == ["1"]
        };
        wait_until("the lock", SOON, || is_held().then_some(()));
        let asked = [(); 6].map(|()| scope.spawn(|| site.ask(&mut Http::new(), url, &assertion)));
        assert!(asked.into_iter().all(|asked| asked.join().unwrap().is_none()));
        wait_until("what needs no log", SOON, || introspected().then_some(()));
        assert!(is_held(), "that was while others hang");
        held.join().unwrap();
    });
    let again = || site.ask(&mut Http::new(), url, &assertion);
    wait_until("tokens as before", SOON, again);
}
