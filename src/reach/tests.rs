//! Addresses that fail in every way, and which are asked then.

use std::sync::atomic::{AtomicUsize, Ordering};

use url::Url;

use super::*;
use crate::host::clock::{Clock as _, SystemClock};
use crate::host::listener::{Exposure, bind};
use crate::host::test_server::{self, Reply, TestServer, run};

/// A person's machine. Its clock stands still: however slow the real one is, what is left alone
/// for seconds is left alone by each run of a process.
struct Machine {
    dir: tempfile::TempDir,
    moment: OffsetDateTime,
}

impl Machine {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), moment: SystemClock.now() }
    }

    fn host(&self) -> Host {
        test_server::host_at(self.dir.path(), self.moment)
    }

    fn ask(&self, addresses: &[&str]) -> Result<u16> {
        self.ask_until(addresses, None)
    }

    fn ask_until(&self, addresses: &[&str], until: Option<time::Duration>) -> Result<u16> {
        let host = self.host();
        let http = host.http(None).unwrap();
        let until = until.map(|left| host.clock.now() + left);
        run(ask(&host, "it", addresses, Effort::MINT, until, async |address| {
            let url = Url::parse(&format!("{address}/token")).unwrap();
            let response = http.get(&url).await?;
            if let Some(outage) = response.outage("it") {
                return Err(Failure::of(outage, &response, host.clock.now()));
            }
            match response.status.as_u16() {
                403 => Err(Error::new(ErrorKind::Denied, "it says no").into()),
                status => Ok(status),
            }
        }))
    }
}

fn serves(status: u16) -> TestServer {
    TestServer::start(move |_, _| Reply::text(status, ""))
}

/// Serves only after so many failures.
fn recovers(failures: usize, failing: Reply) -> TestServer {
    let asked = AtomicUsize::new(0);
    TestServer::start(move |_, _| match asked.fetch_add(1, Ordering::Relaxed) {
        before if before < failures => failing.clone(),
        _ => Reply::text(200, ""),
    })
}

/// An address at which nobody listens, and which no other test is given.
const NOBODY: &str = "http://127.0.0.1:9";

#[test]
fn another_address_is_asked_where_one_cannot_serve() {
    for failing in [Reply::text(500, ""), Reply::text(503, ""), Reply::text(429, ""), Reply::gone()]
    {
        let first = TestServer::start(move |_, _| failing.clone());
        let second = serves(200);
        assert_eq!(Machine::new().ask(&[&first.origin, &second.origin]).unwrap(), 200);
        assert_eq!((first.arrived().len(), second.arrived().len()), (1, 1));
    }
    let second = serves(200);
    assert_eq!(Machine::new().ask(&[NOBODY, &second.origin]).unwrap(), 200);
}

#[test]
fn nobody_else_is_asked_where_one_has_answered() {
    for (reply, kind) in [
        (Reply::text(403, ""), Some(ErrorKind::Denied)),
        (Reply::text(302, ""), Some(ErrorKind::Verification)),
        (Reply::text(200, ""), None),
    ] {
        let first = TestServer::start(move |_, _| reply.clone());
        let second = serves(200);
        let asked = Machine::new().ask(&[&first.origin, &second.origin]);
        assert_eq!(asked.err().map(|error| error.kind()), kind);
        assert_eq!((first.arrived().len(), second.arrived().len()), (1, 0));
    }
    // After an outage, too, a refusal is a refusal.
    let second = serves(403);
    let refused = Machine::new().ask(&[NOBODY, &second.origin]).unwrap_err();
    assert_eq!((refused.kind(), refused.message()), (ErrorKind::Denied, "it says no"));
    assert_eq!(second.arrived().len(), 1);
}

#[test]
fn an_address_without_an_answer_is_not_waited_for_while_there_is_another() {
    // It listens and never takes a connection.
    let socket = bind(([127, 0, 0, 1], 0).into(), Exposure::LoopbackOnly).unwrap();
    let silent = format!("http://{}", socket.local_addr().unwrap());
    let second = serves(200);
    assert_eq!(Machine::new().ask(&[&silent, &second.origin]).unwrap(), 200);
    drop(socket);
}

#[test]
fn it_is_tried_three_times_and_all_failures_are_told() {
    let server = recovers(2, Reply::text(503, ""));
    assert_eq!(Machine::new().ask(&[&server.origin]).unwrap(), 200);
    assert_eq!(server.arrived().len(), 3);

    let server = recovers(3, Reply::text(503, ""));
    let error = Machine::new().ask(&[&server.origin, NOBODY]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert_eq!(error.message(), "none of its addresses can serve");
    assert!(error.causes()[0].starts_with(&format!("{}: it cannot serve", server.origin)));
    assert!(error.causes()[1].starts_with(&format!("{NOBODY}: {NOBODY}/token did not answer")));
    assert_eq!(server.arrived().len(), 3);
}

#[test]
fn it_is_not_tried_again_once_the_assertion_has_ended() {
    for (left, requests) in [(-1, 1), (0, 1), (60, 3)] {
        let server = serves(503);
        let left = Some(time::Duration::seconds(left));
        Machine::new().ask_until(&[&server.origin], left).unwrap_err();
        assert_eq!(server.arrived().len(), requests, "{left:?}");
    }
    let (first, second) = (serves(503), serves(200));
    let ended = Some(time::Duration::ZERO);
    Machine::new().ask_until(&[&first.origin, &second.origin], ended).unwrap_err();
    assert!(second.arrived().is_empty());
}

#[test]
fn a_server_that_asks_for_time_gets_it() {
    let server = recovers(1, Reply::text(429, "").header("retry-after", "2".into()));
    let started = Instant::now();
    assert_eq!(Machine::new().ask(&[&server.origin]).unwrap(), 200);
    assert!(started.elapsed() >= Duration::from_secs(2));
    assert_eq!(server.arrived().len(), 2);

    // More than a person would wait for: it is left alone, by other processes too.
    let machine = Machine::new();
    let server = recovers(1, Reply::text(503, "").header("retry-after", "100".into()));
    let error = machine.ask(&[&server.origin]).unwrap_err();
    assert!(error.hints()[0].contains("in 100 seconds"), "{error:?}");
    let error = machine.ask(&[&server.origin]).unwrap_err();
    assert!(error.to_string().contains("it asked for that, so it is asked again in"), "{error}");
    assert_eq!(server.arrived().len(), 1);
    insist(&machine.host(), &server.origin, Wish::Overridden);
    assert_eq!(machine.ask(&[&server.origin]).unwrap(), 200);
}

#[test]
fn what_has_failed_three_runs_is_left_alone_by_all_processes() {
    let machine = Machine::new();
    let (first, second) = (serves(500), serves(200));
    for _ in 0..5 {
        assert_eq!(machine.ask(&[&first.origin, &second.origin]).unwrap(), 200);
    }
    assert_eq!((first.arrived().len(), second.arrived().len()), (3, 5));
    let error = machine.ask(&[&first.origin]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.to_string().contains("it answered 500"), "{error}");
    assert!(error.to_string().contains("it has failed 3 times in a row"), "{error}");
    assert!(error.hints().iter().any(|hint| hint.contains("--refresh")), "{error:?}");
    assert_eq!(first.arrived().len(), 3);
}

#[test]
fn pauses_are_a_random_part_of_a_time_that_doubles() {
    let all: Vec<Vec<Duration>> = (0..200).map(|_| Effort::MINT.pauses().collect()).collect();
    for (at, most) in [(0, FIRST_PAUSE), (1, FIRST_PAUSE * 2)] {
        let pauses: Vec<_> = all.iter().map(|pauses| pauses[at]).collect();
        assert!(pauses.iter().all(|pause| *pause <= most), "{pauses:?}");
        assert!(pauses.iter().any(|pause| *pause < most / 4), "{pauses:?}");
        assert!(pauses.iter().any(|pause| *pause > most / 4 * 3), "{pauses:?}");
    }
    assert!(all.iter().all(|pauses| pauses.len() == 2));
    assert_eq!(Effort::REVOKE.pauses().count(), 0);
    assert_eq!(Effort::MINT.once().pauses().count(), 0);
}

#[test]
fn the_steps_of_a_renewal_share_its_time_and_those_of_a_mint_do_not() {
    let spent = Duration::from_secs(6);
    assert_eq!(Effort::RENEW.after(spent).total, Duration::from_secs(2));
    assert_eq!(Effort::RENEW.after(spent * 2).total, LEAST);
    assert_eq!(Effort::MINT.after(spent).total, Effort::MINT.total);
}

#[test]
fn what_is_behind_an_address_does_not_count_against_it() {
    let machine = Machine::new();
    let host = machine.host();
    let asked = AtomicUsize::new(0);
    for _ in 0..4 {
        let outcome = run(ask(&host, "it", &["a"], Effort::MINT, None, async |_| {
            asked.fetch_add(1, Ordering::Relaxed);
            let error = Error::new(ErrorKind::Unreachable, "what is behind it cannot serve");
            Err::<(), _>(Failure::behind(error))
        }));
        assert_eq!(outcome.unwrap_err().to_string(), "what is behind it cannot serve");
    }
    assert_eq!(asked.into_inner(), 12, "asked again each time, and never left alone");
}
