//! Power failures: the program is killed at many moments. `tests/run kills` does so thousands of
//! times.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use super::{STATE, claims, lock_files, token};
use crate::faults::at_clock;
use crate::journey::Journey;
use crate::support::broker::{Broker, BrokerOptions};
use crate::support::browser::Browser;
use crate::support::home::Home;
use crate::support::kernel;
use crate::support::keyring::Keyring;
use crate::support::oidc_provider::{OidcOptions, OidcProvider};
use crate::support::run::Run;
use crate::support::walk::files;

/// How many kills there are in one round, at moments that are spread over a run.
const KILLS: u32 = 25;

/// How many rounds there are: as many as it takes for the kills that `TMPCRED_KILLS` asks for, one
/// where it is not set. Each has moments of its own, between those of the others.
fn rounds() -> u32 {
    let wanted = std::env::var("TMPCRED_KILLS").map_or(KILLS, |count| count.parse().unwrap());
    wanted.div_ceil(KILLS).max(1)
}

/// Which share of the moments has passed at which a run is killed as the one of this number, in
/// this round.
fn share(round: u32, number: u32) -> f64 {
    (f64::from(number) + f64::from(round) / f64::from(rounds())) / f64::from(KILLS)
}

/// Has the person begin anew: no session, no credential.
fn begin_anew(journey: &Journey) {
    match journey.home.uid() {
        Some(uid) => kernel::forget_all(uid),
        None => drop(journey.tmpcred(&["logout"]).run().ok()),
    }
}

/// Files that were to take another one's place and never did.
fn half_written(journey: &Journey) -> Vec<std::path::PathBuf> {
    let all = files(&journey.home.path(STATE)).into_iter().map(|file| file.path);
    all.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(".tmpcred-"))
        .collect()
}

/// Kills of runs, at moments that are spread over the time that the fastest of them takes, and
/// half as much beyond: runs that take longer are killed near their end, too.
struct Kills {
    /// How long the fastest run took so far that ended by itself. The first one is the slowest,
    /// which finds nothing in the caches of the machine.
    fastest: Duration,
    tried: u32,
    landed: u32,
}

impl Kills {
    /// Of runs like one that took so long.
    fn of(whole: Duration) -> Self {
        Self { fastest: whole, tried: 0, landed: 0 }
    }

    /// Kills a run at this share of those moments, where it has not ended before: well, then.
    #[track_caller]
    fn kill(&mut self, run: Run, share: f64) {
        let started = Instant::now();
        let moment = started + self.fastest.mul_f64(1.5 * share);
        let mut run = run.spawn();
        while Instant::now() < moment && !run.has_ended() {
            std::thread::sleep(Duration::from_micros(100));
        }
        let took = started.elapsed();
        let status = run.kill().unwrap();
        self.tried += 1;
        if status.signal().is_some() {
            self.landed += 1;
        } else {
            assert!(status.success(), "{status}: {}", run.stderr());
            self.fastest = self.fastest.min(took);
        }
    }

    /// Two thirds of the moments are within the time of the fastest run. One that ends before such
    /// a moment is a faster one still, so that the next ones come sooner: half of those may miss
    /// while a machine becomes ten times as fast.
    #[track_caller]
    fn were_some(&self) {
        let Self { landed, tried, .. } = self;
        assert!(landed * 3 >= *tried, "of {tried} runs only {landed} were under way still");
    }
}

#[test]
fn a_kill_at_any_moment_costs_that_run_only() {
    cost_that_run_only(&Journey::start());
}

#[test]
fn so_it_is_where_the_secret_service_keeps_the_secrets() {
    let mut home = Home::new();
    let _keyring = Keyring::start(&mut home);
    cost_that_run_only(&Journey::in_home(home));
}

#[track_caller]
fn cost_that_run_only(journey: &Journey) {
    let started = Instant::now();
    token(journey.tmpcred(&["token"]));
    let mut kills = Kills::of(started.elapsed());
    for (round, number) in (0..rounds()).flat_map(|round| (0..KILLS).map(move |n| (round, n))) {
        begin_anew(journey);
        kills.kill(journey.tmpcred(&["token"]), share(round, number));
        // What the one before left is no hindrance: now and then somebody looks.
        if number % 5 == 4 {
            assert_eq!(claims(&token(journey.tmpcred(&["token"])))["role"], "deploy");
        }
    }
    kills.were_some();
    let last = token(journey.tmpcred(&["token", "--refresh"]));
    assert_eq!(claims(&last)["role"], "deploy");
    assert_eq!(token(journey.tmpcred(&["token"])), last);
    journey.tmpcred(&["logout"]).run().ok();
    assert!(lock_files(&journey.home).is_empty(), "{:?}", lock_files(&journey.home));
}

/// A kill while a session is being renewed may cost that session: the provider has
/// taken the old refresh token then, and nobody has the new one. It costs a login, and
/// nothing that was cached.
#[test]
fn a_kill_during_a_refresh_costs_a_login_at_most() {
    // Each with a clock that begins anew, for runs of one are at times that follow each other.
    (0..rounds()).for_each(cost_a_login_at_most);
}

#[track_caller]
fn cost_a_login_at_most(round: u32) {
    let ttl = BTreeMap::from([("AccessToken", 60)]);
    let provider = OidcProvider::start_with(&OidcOptions { ttl, ..OidcOptions::default() });
    let broker = Broker::start(&BrokerOptions::trusting(provider.issuer()));
    let mut home = Home::new();
    let _keyring = Keyring::start(&mut home);
    let browser = Browser::http().user("alice", "x").install(&mut home);
    let journey = Journey::of(provider, broker, home);
    let kept = token(journey.tmpcred(&["token", "--ttl", "1h"]));
    // Each run finds that the access token of the one before has expired.
    let at = |number: u32, args: &[&str]| {
        at_clock(&journey.home, &format!("+{}s", 65 * (number + 1))).args(args)
    };
    let started = Instant::now();
    token(at(0, &["token", "--refresh"]));
    let mut kills = Kills::of(started.elapsed());
    assert_eq!(journey.provider.count_grants("refresh_token"), 1);
    for number in 1..KILLS {
        kills.kill(at(number, &["token", "--refresh"]), share(round, number));
        if number % 5 == 4 {
            let good = token(at(number, &["token", "--refresh"]));
            assert_eq!(claims(&good)["role"], "deploy");
        }
    }
    kills.were_some();
    let last = token(at(KILLS, &["token", "--refresh"]));
    assert_eq!(token(at(KILLS, &["token", "--no-input"])), last);
    assert_eq!(token(at(KILLS, &["token", "--ttl", "1h", "--no-input"])), kept);
    assert!(journey.provider.count_grants("refresh_token") > 3, "sessions were renewed");
    assert!(browser.opened().len() < KILLS as usize, "not each of them cost a login");
    journey.tmpcred(&["logout"]).run().ok();
    assert!(lock_files(&journey.home).is_empty(), "{:?}", lock_files(&journey.home));
}

#[test]
fn what_a_killed_run_had_half_written_goes_in_time() {
    let journey = Journey::start();
    token(journey.tmpcred(&["token"]));
    // As a kill between writing and renaming leaves them, one of long ago and
    // one that somebody may be about to finish.
    let write = |name: &str| journey.home.write(format!("{STATE}/{name}"), "half of an index");
    let (old, new) = (write(".tmpcred-old"), write(".tmpcred-new"));
    let touch = journey.home.command("touch").args(["-d", "2 days ago"]).args([&old]);
    touch.run().ok();
    token(journey.tmpcred(&["token", "reader"]));
    assert_eq!(half_written(&journey), [new]);
}
