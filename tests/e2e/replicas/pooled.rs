//! Replicas that share a pooler, which gives each transaction whatever connection is free:
//! nothing that a broker does may rest on a session.

use super::super::support::pgbouncer::{CONNECTIONS, PgBouncer, on_the_page};
use super::*;

#[test]
fn two_replicas_behind_a_pooler_issue_revoke_and_rotate_and_lose_nothing() {
    let (site, mut pooler) = Site::pooled();
    let twin = site.broker.twin();
    let urls = [site.broker.url().to_string(), twin.url.clone()];
    let load = under_load(&site, &urls, |load| {
        load.goes_on("tokens from both");
        let next = site.rotate();
        // Fewer than those who are served by them.
        let shared = site.database.query(
            "select count(*) from pg_stat_activity
             where datname = 'broker' and client_addr is not null",
        );
        assert!((1..=CONNECTIONS).contains(&shared[0].parse().unwrap()), "{shared:?}");
        site.database.query(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where datname = 'broker' and client_addr is not null",
        );
        load.goes_on("tokens over new connections");
        pooler.end();
        pooler.begin();
        load.goes_on("tokens after the pooler was gone");
        let signs = |url: &String| site.signer(url).is_some_and(|kid| kid == next);
        wait_until("the next key signs", ROTATION, || urls.iter().all(signs).then_some(()));
        let held = load.tokens.lock().unwrap().pop().unwrap();
        revoke(&urls[0], &held);
        assert!(urls.iter().all(|url| !is_active(url, &held)));
        site.broker(&["keys", "revoke", &next]).run().ok();
        let other = |url: &String| site.signer(url).is_some_and(|kid| kid != next);
        wait_until("another key signs", SOON, || urls.iter().all(other).then_some(()));
    });
    load.revoked.are_refused_at(&urls);
    nothing_is_lost(&site, &load);
    let said = site.broker.said() + &twin.said();
    assert!(!said.contains("prepared statement"), "{said}");
}

#[test]
fn a_pooler_that_the_broker_cannot_work_through_is_named_with_what_mends_it() {
    let mut site = Site::start();
    site.broker.stop();
    let toml = std::fs::read_to_string(site.broker.home.path("broker.toml")).unwrap();
    let ours = site.database.table(&site.files);
    let ignoring = "ignore_startup_parameters = extra_float_digits\n";
    for (here, not_here, says) in [
        // As all were before 1.21.
        ("= 100", "= 0", ["prepared statement", "`max_prepared_statements`"]),
        (ignoring, "", ["extra_float_digits", "`ignore_startup_parameters"]),
    ] {
        let settings = on_the_page();
        assert!(settings.contains(here), "{settings}");
        let settings = settings.replace(here, not_here);
        let pooler = PgBouncer::start(&site.database, &settings);
        let toml = toml.replace(&ours, &pooler.table(&site.files));
        let file = site.broker.home.write("pooled.toml", toml);
        let serve = tmpcred(&site.broker.home).args(["broker", "serve", "--config"]).args([file]);
        let ended = serve.env("TMPCRED_BROKER_KEK", KEK).run();
        assert!(ended.code != Some(0), "{}", ended.stderr);
        for part in says {
            assert!(ended.stderr.contains(part), "{part:?} is not in:\n{}", ended.stderr);
        }
    }
}
