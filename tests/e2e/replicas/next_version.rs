//! Processes that run while another version brings the tables up to date. That version is not
//! written yet: it adds what versions may add.

use super::super::support::broker::{KEK, KEK_VARIABLE};
use super::super::support::home::tmpcred;
use super::super::support::http::Http;
use super::super::support::run::Output;
use super::super::support::wait::{free_port, wait_until};
use super::SOON;
use super::site::{Database, Site, is_active, revoke};

/// Columns that are empty or have a default, a table, an index, and the note that it is made.
const NEXT: &str = "
    alter table audit_record add column later text;
    alter table audit_head add column later bytea;
    alter table signing_key add column later bigint not null default 0;
    alter table consumed add column later text;
    create table later (id bigint not null primary key);
    create index audit_record_later on audit_record (later);
    insert into _sqlx_migrations values (9999, 'later', now(), true, '', 0);";

#[test]
fn processes_go_on_with_the_tables_of_the_next_version_and_none_is_started_on_them() {
    let site = Site::start();
    let twin = site.broker.twin();
    let urls = [site.broker.url().to_string(), twin.url.clone()];
    let (mut http, assertion) = (Http::new(), site.assertion("job"));
    let mut issue =
        |url: &str| wait_until("a token", SOON, || site.ask(&mut http, url, &assertion));
    // So all that they ask has been asked before, in the same words.
    let before = urls.each_ref().map(|url| issue(url));
    revoke(&urls[0], &issue(&urls[1]));
    Database::query(&site.database, NEXT);
    for (url, token) in urls.iter().zip(before) {
        assert!(is_active(url, &issue(url)) && is_active(url, &token));
        revoke(url, &token);
        assert!(urls.iter().all(|url| !is_active(url, &token)));
    }
    let refused = |output: Output| {
        let refused = output.ended_with(3);
        assert!(
            refused.stderr.contains("a newer version of tmpcred made it"),
            "{}",
            refused.stderr
        );
    };
    for args in [&["audit", "verify"][..], &["revoke", "--all"], &["keys", "list"]] {
        refused(site.broker(args).run());
    }
    let home = &site.broker.home;
    let toml = std::fs::read_to_string(home.path("broker.toml")).unwrap();
    let (own, another) = (urls[0].strip_prefix("http://").unwrap(), free_port());
    let listen = format!("listen = \"127.0.0.1:{another}\"");
    let toml = toml.replace(&format!("listen = \"{own}\""), &listen);
    let third = home.write("third.toml", toml);
    let serve = tmpcred(home).args(["broker", "serve", "--config"]).args([third]);
    refused(serve.env(KEK_VARIABLE, KEK).run());
}
