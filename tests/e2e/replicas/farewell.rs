//! A server hangs up as soon as it is told that a connection ends. On a machine that is busy
//! that may be before all is said, and is nothing that matters.

use super::super::support::broker::KEK_VARIABLE;
use super::super::support::home::under_test;
use super::super::support::tls::Authority;
use super::*;

/// Has a process nap behind each thing that it writes, so that others are done by then.
const NAPS: &str = "inject=write,writev,sendto,sendmsg:delay_exit=40000";

#[test]
fn a_database_that_hangs_up_first_keeps_no_broker_from_starting() {
    let (mut site, authority) = (Site::start(), Authority::new());
    site.broker.stop();
    site.database.end();
    site.database.speak_tls(&authority.certify("localhost"));
    site.database.begin();
    let home = &site.broker.home;
    let (file, ours) = (home.path("broker.toml"), site.database.table(&site.files));
    let toml = std::fs::read_to_string(&file).unwrap();
    let with_tls = format!("{ours}ca_file = {:?}\n", authority.pem());
    std::fs::write(&file, toml.replace(&ours, &with_tls)).unwrap();
    let strace = home
        .command("strace")
        .args(["--follow-forks", "-e", "trace=write,writev,sendto,sendmsg", "-e", NAPS])
        .args(["--output".as_ref(), home.path("calls").as_os_str(), under_test().as_os_str()])
        .args(["broker", "serve", "--config"])
        .args([&file])
        .env(KEK_VARIABLE, KEK)
        .limit(Duration::from_secs(120))
        .spawn();
    strace.line_on_stderr("listens on");
}
