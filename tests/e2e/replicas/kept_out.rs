//! What becomes of a broker that its database lets in no more, and what it says of that.

use super::*;

/// Ends all connections but the one that says so.
const HANG_UP: &str = "select pg_terminate_backend(pid) from pg_stat_activity
    where pid <> pg_backend_pid() and datname = current_database()";

/// Puts another password where the broker reads it, in one step.
fn put(site: &Site, password: &str) {
    let (next, path) = (Home::new(), site.files.path("password-file"));
    std::fs::rename(password_file(&next, password), path).unwrap();
}

/// Hangs up until nothing is issued any more: who was being let in as the others were hung up on
/// is in no list of connections yet.
#[track_caller]
fn kept_out(site: &Site, ask: impl Fn() -> Option<String>) {
    wait_until("nothing to be issued", SOON, || {
        site.database.query(HANG_UP);
        ask().is_none().then_some(())
    });
}

fn says(site: &Site, what: &str) {
    wait_until("the log to say why", SOON, || site.broker.said().contains(what).then_some(()));
}

#[test]
fn another_password_of_the_database_counts_without_a_restart() {
    let site = Site::start();
    let ask = || site.ask(&mut Http::new(), site.broker.url(), &site.assertion("job"));
    ask().unwrap();
    let change = |password: &str| {
        site.database.query(&format!("alter role tmpcred password '{password}'"));
    };
    let is_issued = |what: &str| wait_until(what, SOON, || ask().map(drop));
    change("the-second-password");
    kept_out(&site, ask);
    says(&site, "password authentication failed");
    // It goes by what it has, and looks again.
    let file = site.files.path("password-file");
    std::fs::remove_file(&file).unwrap();
    says(&site, "its file cannot be read again; the old one stays");
    kept_out(&site, ask);
    assert_eq!(ask(), None);
    put(&site, "the-second-password");
    is_issued("it to be let in by another password");
    // Or first in the file: as long as the old one serves, nobody looks.
    put(&site, "the-third-password");
    is_issued("it to go on");
    change("the-third-password");
    site.database.query(HANG_UP);
    is_issued("it to be let in again");
    let said = site.broker.said();
    assert_eq!(said.matches("its file cannot be read again").count(), 1, "{said}");
    for secret in [PASSWORD, "the-second-password", "the-third-password"] {
        assert!(!said.contains(secret), "{said}");
    }
}

#[test]
fn another_password_counts_behind_a_pooler_too() {
    let (site, mut pooler) = Site::pooled();
    let ask = || site.ask(&mut Http::new(), site.broker.url(), &site.assertion("job"));
    ask().unwrap();
    site.database.query("alter role tmpcred password 'the-second-password'");
    pooler.let_in_by("the-second-password");
    pooler.end();
    pooler.begin();
    assert_eq!(ask(), None);
    says(&site, "authentication failed");
    put(&site, "the-second-password");
    wait_until("it to be let in by another password", SOON, || ask().map(drop));
    // The database itself does not take what the pooler shows, until that is another one.
    site.database.query("alter role tmpcred password 'the-third-password'");
    kept_out(&site, ask);
    put(&site, "the-third-password");
    pooler.let_in_by("the-third-password");
    wait_until("it to be let in again", SOON, || ask().map(drop));
    let said = site.broker.said();
    for secret in [PASSWORD, "the-second-password", "the-third-password"] {
        assert!(!said.contains(secret), "{said}");
    }
}

#[test]
fn what_keeps_a_running_broker_from_its_database_is_in_its_log() {
    let site = Site::start();
    let ask = || site.ask(&mut Http::new(), site.broker.url(), &site.assertion("job"));
    ask().unwrap();
    // As where it has become a standby.
    let read_only = |on: &str| {
        let set = format!("alter database broker set default_transaction_read_only = {on}");
        site.database.query(&format!("begin read write; {set}; commit"));
        site.database.query(HANG_UP);
    };
    read_only("on");
    kept_out(&site, ask);
    says(&site, "could be had in time: it is read-only: a standby, or set so");
    read_only("off");
    wait_until("it to go on", SOON, || ask().map(drop));
    site.database.end();
    assert_eq!(ask(), None);
    let port = site.database.port();
    says(&site, &format!("nobody answers at localhost:{port}: Connection refused"));
    site.database.begin();
    wait_until("it to go on", SOON, || ask().map(drop));
}
