//! Load: who wants tokens, whatever happens meanwhile, and what must be so of all that they
//! got.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use super::super::support::home::{Home, tmpcred};
use super::super::support::http::Http;
use super::super::support::wait::wait_until;
use super::SOON;
use super::revoked::{EVERY, Revoked};
use super::site::{Database, Site, claims, jti, kid};

/// How long it may take until things have gone on for a while.
pub(super) const A_WHILE: Duration = Duration::from_secs(90);

/// Everybody who wants tokens, until they are told to stop.
pub(super) struct Load {
    pub(super) stop: AtomicBool,
    pub(super) tokens: Mutex<Vec<String>>,
    /// How many tokens the real client got.
    pub(super) runs: AtomicUsize,
    /// Those that were revoked, which are not among the others.
    pub(super) revoked: Revoked,
}

impl Load {
    pub(super) fn new() -> Self {
        Self {
            stop: AtomicBool::new(false),
            tokens: Mutex::new(Vec::new()),
            runs: AtomicUsize::new(0),
            revoked: Revoked::default(),
        }
    }

    /// The real client, run after run: none of them may fail.
    pub(super) fn client(&self, home: &Home) {
        while !self.stop.load(Ordering::Relaxed) {
            let run = tmpcred(home).args(["token", "--refresh", "--no-input"]);
            let output = run.limit(Duration::from_secs(60)).run().ok();
            self.tokens.lock().unwrap().push(output.stdout.trim().into());
            self.runs.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Requests as quick as they are answered, at one process after the other. A part of
    /// what they get is revoked.
    fn requests<D: Database>(&self, site: &Site<D>, urls: &[String], assertion: &str) {
        let (mut http, mut got) = (Http::new(), 0);
        for url in urls.iter().cycle() {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            if let Some(token) = site.ask(&mut http, url, assertion) {
                got += 1;
                if got % EVERY == 0 {
                    self.revoked.revoke(&mut http, urls, token);
                } else {
                    self.tokens.lock().unwrap().push(token);
                }
            }
        }
    }

    fn count(&self) -> (usize, usize) {
        (self.tokens.lock().unwrap().len(), self.runs.load(Ordering::Relaxed))
    }

    /// Waits until things have gone on for a while, for both kinds.
    #[track_caller]
    pub(super) fn goes_on(&self, what: &str) {
        let (tokens, runs) = self.count();
        let revoked = self.revoked.count();
        wait_until(what, A_WHILE, || {
            let (now, run) = self.count();
            let ended = self.revoked.count();
            (now > tokens + 40 && run > runs + 3 && ended > revoked).then_some(())
        });
    }
}

/// Does this while there is load on all these processes. Returns the load, with all tokens
/// that came of it; none that was revoked was good anywhere afterwards.
pub(super) fn under_load<D: Database>(
    site: &Site<D>,
    urls: &[String],
    work: impl FnOnce(&Load),
) -> Load {
    let load = Load::new();
    load.revoked.would_be_seen(site, urls);
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for n in 0..2 {
            let (load, name) = (&load, format!("job{n}"));
            threads.push(scope.spawn(move || load.client(&site.job(&name, urls))));
        }
        for n in 0..2 {
            let (load, name) = (&load, format!("other{n}"));
            threads.push(scope.spawn(move || load.requests(site, urls, &site.assertion(&name))));
        }
        let watched = &load;
        threads.push(scope.spawn(|| watched.revoked.watch(urls, &watched.stop)));
        // Also where something here is amiss, they have to end.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&load)));
        load.stop.store(true, Ordering::Relaxed);
        let ended: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        ended.into_iter().for_each(|ended| ended.unwrap());
    });
    load.revoked.were_never_good();
    load
}

/// Every token that somebody got is on record, once and not taken back, and so is every
/// revocation; and the log is good.
#[track_caller]
pub(super) fn nothing_is_lost<D: Database>(site: &Site<D>, load: &Load) {
    let database = &site.database;
    let jtis = |decision: &str| -> Vec<String> {
        let select = format!("select jti from audit_record where decision = '{decision}'");
        database.query(&select)
    };
    let issued = jtis("issued");
    let known: BTreeSet<_> = issued.iter().collect();
    let numbered = "select jti || ' ' || sequence from audit_record where decision = 'issued'";
    let numbered: BTreeSet<_> = database.query(numbered).into_iter().collect();
    assert_eq!(known.len(), issued.len(), "no token is on record twice");
    let aborted: BTreeSet<_> = jtis("aborted").into_iter().collect();
    let (tokens, revoked) = (load.tokens.lock().unwrap(), load.revoked.tokens());
    assert!(tokens.len() > 60, "{}", tokens.len());
    for token in tokens.iter().chain(&revoked) {
        let jti = jti(token);
        assert!(known.contains(&jti) && !aborted.contains(&jti), "{jti} is out and not on record");
        let claimed = format!("{jti} {}", claims(token)["log_sequence"]);
        assert!(numbered.contains(&claimed), "{claimed} is another record's number");
    }
    let ended = jtis("revoked");
    // (Of what a revoked key signed there is nothing left to revoke.)
    let gone = site.in_state("revoked");
    for token in &revoked {
        let times = ended.iter().filter(|ended| **ended == jti(token)).count();
        let due = if gone.contains(&kid(token)) { 0..=1 } else { 1..=1 };
        assert!(due.contains(&times), "each revocation is on record once, not {times} times");
    }
    let signed = || {
        let newest = "select coalesce(max(size), 0) - (select last_sequence from audit_head)
            from audit_checkpoint";
        (database.query(newest) == ["0"]).then_some(())
    };
    wait_until("a checkpoint of all records", SOON, signed);
    let report = site.broker(&["audit", "verify", "--json"]).run().ok().json();
    assert_eq!((&report["verified"], &report["findings"]), (&json!(true), &json!([])), "{report}");
    // Several processes sign one log: not each of them every few seconds.
    let notes: Vec<i64> = database
        .query("select at / 1000000 from audit_checkpoint order by size")
        .iter()
        .map(|at| at.parse().unwrap())
        .collect();
    let often = notes.windows(2).filter(|pair| pair[1] - pair[0] < 2).count();
    assert!(often * 3 <= notes.len() + 9, "{notes:?}");
}
