//! A broker that is several processes on one PostgreSQL database, under load, while its
//! parts come and go.

mod durable;
mod elevations;
mod farewell;
mod kept_out;
mod load;
mod next_version;
mod one_file;
mod operated;
mod pooled;
mod refused;
mod revoked;
mod site;

use std::sync::atomic::Ordering;
use std::time::Duration;

use load::{Load, nothing_is_lost, under_load};
pub(crate) use site::Site;
use site::{ISSUER, is_active, kid, revoke};

use super::support::broker::{KEK, Twin};
use super::support::home::{Home, tmpcred};
use super::support::http::Http;
use super::support::postgres::{PASSWORD, Postgres, password_file};
use super::support::wait::wait_until;

/// How long something may take that takes a few seconds.
const SOON: Duration = Duration::from_secs(30);

/// How long a rotation may take whose key is published for 15 seconds.
const ROTATION: Duration = Duration::from_secs(120);

#[test]
fn two_replicas_lose_nothing_when_one_is_killed_and_the_database_restarts() {
    let site = Site::start();
    let mut twin = Some(site.broker.twin());
    let urls = vec![site.broker.url().to_string(), twin.as_ref().unwrap().url.clone()];
    let load = under_load(&site, &urls, |load| {
        load.goes_on("tokens from both");
        drop(twin.take());
        load.goes_on("tokens from the one that is left");
    });
    let held = load.tokens.lock().unwrap().last().unwrap().clone();
    let mut replicas: Vec<Twin> = vec![site.broker.twin()];
    let urls = vec![site.broker.url().to_string(), replicas[0].url.clone()];
    revoke(&urls[0], &held);
    // At once, at each of them.
    assert!(urls.iter().all(|url| !is_active(url, &held)));

    let ready = |url: &str| Http::new().get(&format!("{url}/readyz")).unwrap().status;
    site.database.end();
    for url in &urls {
        wait_until("it to say that it cannot issue", SOON, || (ready(url) == 503).then_some(()));
        assert_eq!(site.ask(&mut Http::new(), url, &site.assertion("job")), None);
        let asked = Http::new().form_as(&held, &format!("{url}/introspect"), &[("token", &held)]);
        assert_eq!(asked.unwrap().status, 503, "it cannot say that a token is good");
    }
    site.database.begin();
    for url in &urls {
        wait_until("it to be ready again", SOON, || (ready(url) == 200).then_some(()));
        assert!(!is_active(url, &held), "a revocation is for good");
    }
    // One begins with what the others left.
    replicas.push(site.broker.twin());
    assert!(!is_active(&replicas[1].url, &held));
    let newest = site.ask(&mut Http::new(), &urls[1], &site.assertion("job")).unwrap();
    load.tokens.lock().unwrap().push(newest);
    load.revoked.are_refused_at(&[urls, vec![replicas[1].url.clone()]].concat());
    nothing_is_lost(&site, &load);
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
    // Those that were cut off before are not counted again.
    for (what, count, left) in [
        (&["--issuer", ISSUER, "--subject", "one"][..], 2, [false, false, true, true]),
        (&["--role", "handle"], 1, [false, false, true, false]),
        (&["--all"], 1, [false; 4]),
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
fn what_a_revoked_key_signed_is_refused_at_every_replica_at_once() {
    let site = Site::start();
    let twin = site.broker.twin();
    let urls = [site.broker.url(), &twin.url];
    for round in 0..3 {
        let mut http = Http::new();
        let assertion = site.assertion("job");
        let issue = |url: &&str| site.ask(&mut http, url, &assertion).unwrap();
        let tokens = urls.each_ref().map(issue);
        for (url, token) in urls.iter().flat_map(|url| tokens.iter().map(move |of| (url, of))) {
            assert!(is_active(url, token), "round {round}: {url}");
        }
        let signer = kid(&tokens[0]);
        assert_eq!(signer, kid(&tokens[1]), "round {round}");
        site.broker(&["keys", "revoke", &signer]).run().ok();
        // The first look, at each of them: whoever was told that a key is good no more may rely
        // on that everywhere, and so may who is told that by one of them.
        for (url, token) in urls.iter().flat_map(|url| tokens.iter().map(move |of| (url, of))) {
            assert!(!is_active(url, token), "round {round}: {url}");
        }
        // And nobody is issued another one by it, be it by a process that has not looked yet.
        let next = urls.each_ref().map(|url| site.signer(url).unwrap());
        assert!(next[0] != signer && next[1] != signer, "round {round}: {next:?}, not {signer}");
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
    let postgres = &site.database;
    let load = under_load(&site, &urls, |load| {
        load.goes_on("tokens from all");
        let next = site.rotate();
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
        postgres.end();
        postgres.begin();
        load.goes_on("tokens after the database was gone");
        let alive = [&urls[0], &urls[1]];
        let signs = |url: &&String| site.signer(url).is_some_and(|kid| kid == next);
        wait_until("the next key signs", ROTATION, || alive.iter().all(signs).then_some(()));
        let token = load.tokens.lock().unwrap()[0].clone();
        assert_eq!([kid(&token)], before[..]);
        assert!(alive.iter().all(|url| is_active(url, &token)), "its key is retired, no more");
        revoke(alive[0], &token);
        assert!(alive.iter().all(|url| !is_active(url, &token)));
        // A key is revoked while all of them sign with it.
        site.broker(&["keys", "revoke", &next]).run().ok();
        let other = |url: &&String| site.signer(url).is_some_and(|kid| kid != next);
        wait_until("another key signs", SOON, || alive.iter().all(other).then_some(()));
        let old = load.tokens.lock().unwrap().iter().find(|token| kid(token) == next).cloned();
        let gone = || alive.iter().all(|url| !is_active(url, old.as_ref().unwrap())).then_some(());
        wait_until("nobody accepts what the revoked key signed", SOON, gone);
        load.goes_on("tokens under the new key");
    });
    load.revoked.are_refused_at(&urls[..2]);
    nothing_is_lost(&site, &load);
    let said = site.broker.said() + &first.said();
    assert!(!said.contains(PASSWORD) && !said.contains("panicked"), "{said}");
}

#[test]
fn a_database_that_restarts_under_load_costs_no_client_anything() {
    let site = Site::start();
    let twin = site.broker.twin();
    let urls = vec![site.broker.url().to_string(), twin.url.clone()];
    let load = Load::new();
    let homes = [site.job("job0", &urls), site.job("job1", &urls)];
    std::thread::scope(|scope| {
        let threads = homes.each_ref().map(|home| {
            let load = &load;
            scope.spawn(move || load.client(home))
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..3 {
                let runs = load.runs.load(Ordering::Relaxed);
                wait_until("some runs", Duration::from_secs(90), || {
                    (load.runs.load(Ordering::Relaxed) > runs + 5).then_some(())
                });
                site.database.end();
                site.database.begin();
            }
        }));
        load.stop.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        outcome.unwrap();
    });
    let (mut http, assertion) = (Http::new(), site.assertion("job"));
    for n in (0..).take_while(|_| load.tokens.lock().unwrap().len() <= 60) {
        let token = site.ask(&mut http, &urls[n % 2], &assertion);
        load.tokens.lock().unwrap().extend(token);
    }
    nothing_is_lost(&site, &load);
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
        let held = scope.spawn(|| site.database.query(lock));
        let is_held = || {
            let locks = "select 1 from pg_locks where relation = 'audit_head'::regclass
                and mode = 'AccessExclusiveLock' and granted";
            site.database.query(locks) == ["1"]
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
