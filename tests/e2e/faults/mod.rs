//! What goes wrong around the program, and what it makes of it: each time a
//! clear error, the right exit code, and nothing lost.

mod brokers;
mod clock;
mod configuration;
mod issuers;
mod outages;
mod server;
mod tokens;

use std::ffi::OsStr;

pub(crate) use brokers::Impostor;

use crate::journey::Journey;
use crate::support::home::{Home, under_test};
use crate::support::run::{Output, Run};

/// The program under test, on a machine whose clock is off by `offset`, such as
/// `+10m`.
pub(crate) fn at_clock(home: &Home, offset: &str) -> Run {
    let program = home.share(under_test());
    forget_the_dead();
    // The browser keeps the right time: what becomes of its cookies is not ours.
    let browser = home.variables()[OsStr::new("BROWSER")].to_str().unwrap();
    let script = format!("#!/bin/sh\nunset LD_PRELOAD\nexec {browser} \"$1\"\n");
    let browser = home.write_program("browser-in-time", &script);
    home.command("faketime")
        .args(["-f", offset])
        .args([program])
        .env("BROWSER", browser)
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
}

/// Removes what `faketime` shares under its own number, where somebody killed it: the next
/// one with that number would refuse to begin.
fn forget_the_dead() {
    for file in std::fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
        let name = file.file_name();
        let Some(name) = name.to_str().filter(|name| name.contains("faketime_")) else { continue };
        let pid = name.rsplit('_').next().unwrap_or_default();
        if !std::path::Path::new("/proc").join(pid).exists() {
            let _ = std::fs::remove_file(file.path());
        }
    }
}

/// Where a journey stands, so that it can be seen later that nothing was lost.
struct Standing {
    token: String,
}

impl Standing {
    /// Logs in, and mints what the default profile describes.
    #[track_caller]
    fn of(journey: &Journey) -> Self {
        Self { token: journey.tmpcred(&["token"]).run().ok().stdout }
    }

    /// The session and the cached credential are as they were.
    #[track_caller]
    fn is_kept(&self, journey: &Journey) {
        let status = journey.tmpcred(&["status", "--json"]).run().ok().json();
        assert_eq!(status["sessions"][0]["subject"], "alice", "{status}");
        assert_eq!(status["credentials"].as_array().unwrap().len(), 1, "{status}");
        let token = journey.tmpcred(&["token", "--no-input"]).run().ok().stdout;
        assert_eq!(token, self.token);
    }
}

/// The run ended with this code and said all of this; what it said has no trace
/// of how the program is made.
#[track_caller]
fn refused(run: Run, code: i32, says: &[&str]) -> Output {
    let output = run.run().ended_with(code);
    for part in says {
        assert!(output.stderr.contains(part), "{part:?} is not in:\n{}", output.stderr);
    }
    let errors = output.stderr.lines().filter(|line| line.starts_with("error: ")).count();
    assert_eq!(errors, 1, "{}", output.stderr);
    for raw in ["panicked", "Error {", "ErrorKind", "reqwest::", "src/"] {
        assert!(!output.stderr.contains(raw), "{raw:?} is in:\n{}", output.stderr);
    }
    assert_eq!(output.stdout, "");
    output
}
