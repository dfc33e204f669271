//! What is told is on the disk: shown by what the broker asks of the kernel, and in which
//! order. That nothing is lost when it is killed does not show it, for then the kernel has it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::support::broker::{KEK, KEK_VARIABLE};
use super::super::support::home::under_test;
use super::super::support::http::Http;
use super::super::support::wait::wait_until;
use super::SOON;
use super::site::{Site, jti};

/// What it calls to write, to sync and to answer.
const CALLS: &str = "trace=pwrite64,fdatasync,fsync,write,writev,sendto,sendmsg";

/// What was asked of the kernel, in order: a line for each call that was begun, and one for
/// each that has ended, where something else came between.
struct Calls(Vec<String>);

impl Calls {
    /// The last line before `end` of a call that wrote this into the log of the database.
    fn written(&self, what: &str, end: usize) -> Option<usize> {
        let writes =
            |line: &String| line.contains(" pwrite64(") && is_wal(line) && line.contains(what);
        self.0[..end].iter().rposition(writes)
    }

    /// The first line of a call that answered with this.
    fn answered(&self, what: &str) -> Option<usize> {
        let answers = |line: &String| {
            [" write(", " writev(", " sendto(", " sendmsg("].iter().any(|call| line.contains(call))
                && line.contains("HTTP/1.1 200")
                && line.contains(what)
        };
        self.0.iter().position(answers)
    }

    /// Whether a sync of the log of the database began and ended within these.
    fn synced(&self, within: std::ops::Range<usize>) -> bool {
        let mut under_way = BTreeSet::new();
        self.0[within].iter().any(|line| {
            let thread = line.split_whitespace().next().unwrap_or_default();
            let is_sync = line.contains(" fdatasync(") || line.contains(" fsync(");
            let ended = line.ends_with("= 0");
            if is_sync && is_wal(line) && !ended {
                under_way.insert(thread);
                return false;
            }
            let resumed = line.contains("sync resumed>") && under_way.remove(thread);
            ended && (resumed || is_sync && is_wal(line))
        })
    }
}

fn is_wal(line: &str) -> bool {
    line.contains("/broker.db-wal>")
}

#[test]
fn a_record_is_on_the_disk_before_its_token_is_handed_over() {
    let mut site = Site::on_a_file();
    site.broker.stop();
    let home = &site.broker.home;
    let log = home.path("calls");
    let strace = home
        .command("strace")
        .args(["--follow-forks", "--decode-fds=path", "--string-limit=65536", "-e", CALLS])
        .args(["--output".as_ref(), log.as_os_str(), under_test().as_os_str()])
        .args(["broker", "serve", "--config"])
        .args([home.path("broker.toml")])
        .env(KEK_VARIABLE, KEK)
        .limit(Duration::from_secs(120))
        .spawn();
    strace.line_on_stderr("listens on");
    let (mut http, assertion) = (Http::new(), site.assertion("job"));
    let mut ask = || site.ask(&mut http, site.broker.url(), &assertion);
    let tokens: Vec<_> = (0..5).map(|_| wait_until("a token", SOON, &mut ask)).collect();
    let calls = wait_until("all to be on record", SOON, || {
        let text = String::from_utf8_lossy(&std::fs::read(&log).unwrap()).into_owned();
        let calls = Calls(text.lines().map(String::from).collect());
        tokens.iter().all(|token| calls.answered(token).is_some()).then_some(calls)
    });
    for token in &tokens {
        let answered = calls.answered(token).unwrap();
        let written = calls.written(&jti(token), answered).expect("its record is written before");
        assert!(calls.synced(written..answered), "nobody waits until it is on the disk");
    }
}
