use serde_json::Value;

use super::super::support::rsyslog::Rsyslog;
use super::super::support::tls::Authority;
use super::*;

fn table(server: &Rsyslog, more: &str) -> String {
    format!("\n[audit.syslog.logs]\nurl = \"{}\"\n{more}\n", server.url())
}

/// The numbers of the records that the server has written down.
fn numbers(server: &Rsyslog) -> Vec<u64> {
    server.messages().iter().filter_map(|message| record(message)["sequence"].as_u64()).collect()
}

fn record(message: &str) -> Value {
    let text = message.splitn(6, ' ').nth(5).unwrap_or_default();
    // The last line may still be on its way.
    serde_json::from_str(text).unwrap_or_default()
}

#[track_caller]
fn all_at(server: &Rsyslog, newest: u64) -> Vec<u64> {
    wait_until("the newest record at the server", SOON, || {
        let found = numbers(server);
        found.contains(&newest).then_some(found)
    })
}

#[test]
fn a_syslog_server_gets_each_record_also_after_it_was_gone_or_silent() {
    let mut server = Rsyslog::start(None);
    let (admin, metrics) = admin();
    let services = Services::with(&format!("{}{admin}", table(&server, "")));
    issues(&services, 3);
    let last = newest(&services.broker);
    nothing_is_missing(&all_at(&server, last), last);
    let messages = server.messages();
    let parts: Vec<_> = messages[1].splitn(6, ' ').collect();
    // What went well, of the log of audits.
    assert_eq!((parts[0], parts[2], parts[3], parts[4]), ("110", "127.0.0.1", "tmpcred", "audit"));
    assert_eq!(parts[1], record(&messages[1])["at"]);

    server.end();
    issues(&services, 3);
    wait_until("failures", SOON, || {
        (metric(&metrics, "audit_sink_failures_total", "logs") > 0.0).then_some(())
    });
    assert!(metric(&metrics, "audit_sink_lag_records", "logs") >= 3.0);
    assert!(metric(&metrics, "audit_sink_lag_seconds", "logs") > 0.0);
    server.begin();
    nothing_is_missing(&all_at(&server, last + 3), last + 3);

    // It takes connections, and reads nothing.
    server.peer().freeze();
    let failures = metric(&metrics, "audit_sink_failures_total", "logs");
    issues(&services, 3);
    wait_until("another failure", SOON, || {
        (metric(&metrics, "audit_sink_failures_total", "logs") > failures).then_some(())
    });
    issues(&services, 1);
    server.peer().thaw();
    nothing_is_missing(&all_at(&server, last + 7), last + 7);
}

#[test]
fn over_tls_only_the_right_server_gets_records() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let certificate = authority.certify("127.0.0.1");
    let server = Rsyslog::start(Some((&authority, &certificate)));
    let trusting = |authority: &Authority| format!("ca_file = {:?}", authority.pem());
    let mut services = Services::with(&table(&server, &trusting(&stranger)));
    issues(&services, 2);
    wait_until("it to refuse the server", SOON, || {
        let said = services.broker.said();
        said.contains("is not accepted").then_some(())
    });
    assert_eq!(server.messages(), [""; 0]);
    let toml = services.broker.home.path("broker.toml");
    let text = std::fs::read_to_string(&toml).unwrap();
    std::fs::write(&toml, text.replace(&trusting(&stranger), &trusting(&authority))).unwrap();
    services.broker.restart();
    let last = newest(&services.broker);
    nothing_is_missing(&all_at(&server, last), last);
    // Each one once: the server has said that it has read them.
    issues(&services, 1);
    assert_eq!(all_at(&server, last + 1), (1..=last + 1).collect::<Vec<_>>());
}
