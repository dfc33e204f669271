//! Power failures: the program is killed at many moments.

use std::time::{Duration, Instant};

use super::{STATE, claims, lock_files, token};
use crate::journey::Journey;
use crate::support::kernel;
use crate::support::walk::files;

const KILLS: u32 = 25;

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

#[test]
fn a_kill_at_any_moment_costs_that_run_only() {
    let journey = Journey::start();
    let started = Instant::now();
    token(journey.tmpcred(&["token"]));
    let whole = started.elapsed();
    for number in 0..KILLS {
        begin_anew(&journey);
        let moment = Instant::now() + whole * number / KILLS;
        let mut run = journey.tmpcred(&["token"]).spawn();
        while Instant::now() < moment {
            std::thread::sleep(Duration::from_micros(100));
        }
        run.kill();
        // What the one before left is no hindrance: now and then somebody looks.
        if number % 5 == 4 {
            assert_eq!(claims(&token(journey.tmpcred(&["token"])))["role"], "deploy");
        }
    }
    let last = token(journey.tmpcred(&["token", "--refresh"]));
    assert_eq!(claims(&last)["role"], "deploy");
    assert_eq!(token(journey.tmpcred(&["token"])), last);
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
