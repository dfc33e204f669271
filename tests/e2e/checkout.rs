//! Nothing is written into a checkout, whatever is run there: it could be committed.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::journey::Journey;
use super::support::broker::API;
use super::support::home::{Home, assert_root};
use super::support::run::Run;

/// All there is below a directory, directories too.
fn everything_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(everything_below(&entry.path()));
        }
        found.push(entry.path());
    }
    found.sort();
    found
}

/// A person whose directories are where they should not be: some are relative to where
/// the program runs, and that of locks is in the checkout in which it runs.
struct Careless(Journey);

impl Careless {
    fn start() -> Self {
        let journey = Journey::start();
        let git = journey.home.command("git").args(["init", "--quiet", "."]);
        git.run().ok();
        journey.home.directory("work/run");
        Self(journey)
    }

    fn tmpcred(&self, args: &[&str]) -> Run {
        let home = &self.0.home;
        let run = self.0.tmpcred(args).env("XDG_RUNTIME_DIR", home.path("work/run"));
        let run = run.env("TMPCRED_CONFIG", home.path(".config/tmpcred/config.toml"));
        ["CONFIG", "STATE", "CACHE", "DATA"]
            .iter()
            .fold(run, |run, kind| run.env(format!("XDG_{kind}_HOME"), kind.to_lowercase()))
    }
}

#[test]
fn no_command_writes_into_the_checkout_in_which_it_runs() {
    let careless = Careless::start();
    let work = careless.0.home.path("work");
    let before = everything_below(&work);
    let unchanged = |after: &str| assert_eq!(everything_below(&work), before, "after {after}");
    // The file of a token that is renewed, while it is there.
    let script = format!(
        "test -s $TMPCRED_TOKEN_FILE || exit 9; echo $TMPCRED_TOKEN_FILE; find {}",
        work.display()
    );
    let renewed =
        careless.tmpcred(&["exec", "--ttl", "5m", "--renew", "--", "sh", "-c", &script]).run().ok();
    let mut lines = renewed.stdout.lines();
    let file = Path::new(lines.next().unwrap());
    assert!(file.is_absolute() && !file.starts_with(&work), "{}", file.display());
    assert_eq!(lines.count(), before.len() + 1, "{}", renewed.stdout);
    assert!(!renewed.stderr.contains("warning"), "{}", renewed.stderr);
    unchanged("exec --renew");
    let token = careless.tmpcred(&["token"]).run().ok().stdout;
    for args in [
        &["login"][..],
        &["login", "--force"],
        &["env"],
        &["env", "--format", "json"],
        &["exec", "--", "true"],
        &["exec", "--mask", "--", "true"],
        &["exec", "--revoke-on-exit", "--", "true"],
        &["token", "--refresh"],
        &["status"],
        &["explain"],
        &["ls"],
        &["config", "check"],
        &["config", "path"],
        &["config", "schema"],
    ] {
        careless.tmpcred(args).run().ok();
        unchanged(&args.join(" "));
    }
    for args in [&["inspect"][..], &["verify", "--audience", API]] {
        careless.tmpcred(args).stdin(token.clone()).run().ok();
        unchanged(&args.join(" "));
    }
    careless.tmpcred(&["logout"]).run().ok();
    unchanged("logout");
}

#[test]
fn a_runtime_directory_for_everybody_is_not_used_and_nothing_is_said() {
    let mut journey = Journey::in_home(Home::stranger());
    let shared = journey.home.directory("shared");
    journey.home.set("XDG_RUNTIME_DIR", &shared);
    let theirs = shared.join("tmpcred");
    fs::create_dir(&theirs).unwrap();
    for directory in [&theirs, &shared] {
        fs::set_permissions(directory, Permissions::from_mode(0o1777)).unwrap();
    }
    let first = journey.tmpcred(&["token"]).run().ok();
    assert!(!first.stderr.contains("warning"), "{}", first.stderr);
    assert_eq!(everything_below(&shared), [theirs]);
    assert_eq!(journey.tmpcred(&["token"]).run().ok().stdout, first.stdout);
}

#[test]
fn a_state_directory_that_somebody_else_has_made_is_not_used() {
    assert_root();
    let mut journey = Journey::in_home(Home::stranger());
    let shared = journey.home.directory("shared");
    journey.home.set("XDG_STATE_HOME", &shared);
    let theirs = shared.join("tmpcred");
    fs::create_dir(&theirs).unwrap();
    for directory in [&theirs, &shared] {
        std::os::unix::fs::chown(directory, Some(65534), Some(65534)).unwrap();
        fs::set_permissions(directory, Permissions::from_mode(0o1777)).unwrap();
    }
    let token = journey.tmpcred(&["token"]).run().ok();
    assert!(token.stderr.contains("belongs to somebody else"), "{}", token.stderr);
    assert_eq!(everything_below(&shared), [theirs]);
}
