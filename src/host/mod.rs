//! The ports to the world: clock, environment, files, HTTP, browser, people.
//!
//! Everything outside this module reaches the world through a [`Host`], so that
//! a test can hand in another one. `clippy.toml` bans the ambient ways.

pub mod agent;
pub mod browser;
pub mod clock;
pub mod dirs;
pub mod door;
pub mod env;
pub mod files;
pub mod hidden;
pub mod http;
pub mod interact;
pub mod listener;
#[cfg(target_os = "linux")]
mod names;
pub mod process;
#[cfg(all(target_os = "linux", feature = "broker"))]
pub mod relay;
#[cfg(feature = "broker")]
pub mod smtp;
pub mod start_page;
pub mod stderr;
#[cfg(feature = "broker")]
pub mod stream;
pub mod surroundings;
#[cfg(test)]
pub(crate) mod test_server;
#[cfg(all(test, target_os = "linux"))]
pub(crate) mod test_user;

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};

/// How large a file with certificate authorities may be, in bytes.
const MAX_CA_FILE: u64 = 1024 * 1024;

/// How far this machine's clock may be off without the person being told.
const SKEW_WORTH_TELLING: time::Duration = time::Duration::seconds(30);

/// The world as one run of the program sees it.
#[derive(Clone)]
pub struct Host {
    /// What time it is.
    pub clock: Arc<dyn clock::Clock>,
    /// The environment variables the process was started with.
    pub env: env::Env,
    /// Where configuration, state and locks live.
    pub dirs: dirs::Dirs,
    /// Opens web pages.
    pub browser: Arc<dyn browser::Browser>,
    /// Talks to the person, if there is one.
    pub interact: Arc<dyn interact::Interact>,
    /// How far this machine's clock is off, as servers' `Date` headers tell.
    pub skew: clock::SkewMeter,
}

impl Host {
    /// The real world as `env` describes it, with `interact` to talk to the person.
    pub fn real(env: env::Env, interact: Arc<dyn interact::Interact>) -> Result<Self> {
        let dirs = dirs::Dirs::locate(&env)?;
        Ok(Self::with(env, dirs, interact))
    }

    /// The same for whom a server is, or looks after one: it takes no home directory.
    #[cfg(feature = "broker")]
    pub fn of_a_server(env: env::Env, interact: Arc<dyn interact::Interact>) -> Self {
        let dirs = dirs::Dirs::of_a_server(&env);
        Self::with(env, dirs, interact)
    }

    fn with(env: env::Env, dirs: dirs::Dirs, interact: Arc<dyn interact::Interact>) -> Self {
        Self {
            clock: Arc::new(clock::SystemClock),
            env,
            dirs,
            browser: Arc::new(browser::SystemBrowser),
            interact,
            skew: clock::SkewMeter::default(),
        }
    }

    /// The time as servers see it: this machine's clock, corrected by the
    /// measured skew where one was measured.
    pub fn corrected_now(&self) -> time::OffsetDateTime {
        self.clock.now().saturating_add(self.skew.get().unwrap_or(time::Duration::ZERO))
    }

    /// An HTTP client that trusts the authorities in `ca_file` besides the
    /// system's, and that measures clock skew for this host.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the file is missing, or others could change it,
    /// [`ErrorKind::Io`] where it cannot be read.
    pub fn http(&self, ca_file: Option<&Path>) -> Result<http::HttpClient> {
        let pem = match ca_file {
            None => None,
            Some(path) => Some(files::read_trusted(path, MAX_CA_FILE)?.ok_or_else(|| {
                Error::new(ErrorKind::Config, "the file with certificate authorities is missing")
                    .because_of(format!("there is no {}", path.display()))
                    .hint("correct `ca_file` in the configuration")
            })?),
        };
        Ok(http::HttpClient::new(self.clock.clone(), self.skew.clone(), pem))
    }

    /// Tells the person, once a run, when this machine's clock is considerably off.
    pub fn tell_skew(&self) {
        if let Some(absurd) = self.skew.absurd() {
            if self.skew.first_telling() {
                let (by, way) = (whole_days(absurd), ahead_or_behind(absurd));
                self.interact.warn(&format!(
                    "a server's clock is {by} {way} this machine's; that is not believed, so expiry times are not corrected for it"
                ));
            }
            return;
        }
        let Some(skew) = self.skew.get().filter(|skew| skew.abs() > SKEW_WORTH_TELLING) else {
            return;
        };
        if !self.skew.first_telling() {
            return;
        }
        let by = std::time::Duration::from_secs(skew.whole_seconds().unsigned_abs());
        let (by, way) = (humantime::format_duration(by), ahead_or_behind(-skew));
        self.interact.warn(&format!(
            "this machine's clock is {by} {way} the server's; expiry times are corrected for it"
        ));
    }
}

/// A difference in days, of which there may be millions.
fn whole_days(difference: time::Duration) -> String {
    format!("{} days", difference.whole_days().unsigned_abs())
}

/// Which way a clock is off that differs so much from another one.
fn ahead_or_behind(difference: time::Duration) -> &'static str {
    if difference.is_positive() { "ahead of" } else { "behind" }
}
