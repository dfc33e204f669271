//! Records of the audit log, handed on to files, syslog servers and webhooks; and what
//! becomes of them where a sink is down, hangs, says what it should not, or has no room,
//! and where the broker is killed.

mod file;
mod siem;
mod syslog;
mod webhook;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::revocation::Services;
use super::support::broker::{API, Broker};
use super::support::http::Http;
use super::support::wait::{free_port, wait_until};

/// How long something may take that takes seconds, or a turn that has to run out first.
const SOON: Duration = Duration::from_secs(120);

/// A table with the listener for those who run the broker, and where its metrics are.
fn admin() -> (String, String) {
    let address = format!("127.0.0.1:{}", free_port());
    (format!("\n[admin]\nlisten = \"{address}\"\n"), format!("http://{address}/metrics"))
}

/// What a metric of this sink says.
#[track_caller]
fn metric(url: &str, name: &str, sink: &str) -> f64 {
    let body = Http::new().get(url).unwrap().body;
    let start = format!("tmpcred_{name}{{sink=\"{sink}\"}} ");
    let line = body.lines().find_map(|line| line.strip_prefix(&start));
    line.unwrap_or_else(|| panic!("{start} is not in:\n{body}")).parse().unwrap()
}

/// The number of the newest record.
#[track_caller]
fn newest(broker: &Broker) -> u64 {
    let query = "select last_sequence from audit_head";
    let run = broker.home.command("sqlite3").args([broker.home.path("broker.db")]).args([query]);
    run.run().ok().stdout.trim().parse().unwrap()
}

/// Waits until the broker knows that a sink has this record.
#[track_caller]
fn marked(broker: &Broker, number: u64) {
    let query = "select min(delivered) from audit_sink";
    wait_until("the mark to move", SOON, || {
        let sqlite = broker.home.command("sqlite3").args([broker.home.path("broker.db")]);
        let said = sqlite.args([query]).run().ok().stdout;
        (said.trim() == number.to_string()).then_some(())
    });
}

/// It issues as if there were no sink, and is ready.
#[track_caller]
fn issues(services: &Services, times: usize) {
    for n in 0..times {
        services.token(&format!("job{n}"), API);
    }
    let ready = Http::new().get(&format!("{}/readyz", services.broker.url())).unwrap();
    assert_eq!(ready.status, 200, "{}", ready.body);
}

/// All records from the first on are there, each one for the first time after the one
/// before it.
#[track_caller]
fn nothing_is_missing(numbers: &[u64], newest: u64) {
    let mut seen = BTreeSet::new();
    for number in numbers {
        let is_new = seen.insert(*number);
        assert!(!is_new || *number == seen.len() as u64, "{number} came too early: {numbers:?}");
    }
    assert_eq!(seen.len() as u64, newest);
}

/// Kills the broker amid issuing, several times over, and starts it again.
fn killed_amid_issuing(services: &mut Services, rounds: usize) {
    for _ in 0..rounds {
        let (issued, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let running = &*services;
            for n in 0..3 {
                let (issued, stop) = (&issued, &stop);
                let assertion = running.assertion(&format!("job{n}"));
                let url = format!("{}/token", running.broker.url());
                scope.spawn(move || {
                    let mut http = Http::new();
                    while !stop.load(Ordering::Relaxed) {
                        let Ok(reply) = http.form(&url, &super::audit::asked(&assertion)) else {
                            return;
                        };
                        issued.fetch_add(usize::from(reply.status == 200), Ordering::Relaxed);
                    }
                });
            }
            wait_until("some tokens", SOON, || (issued.load(Ordering::Relaxed) > 30).then_some(()));
            running.broker.signal(rustix::process::Signal::KILL);
            stop.store(true, Ordering::Relaxed);
        });
        services.broker.restart();
    }
}
