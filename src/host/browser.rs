//! Opening a page in the person's browser.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use url::Url;

use super::{files, http, process};
use crate::error::{Error, ErrorKind, Result};

/// Opens web pages.
pub trait Browser: Send + Sync {
    /// Opens `url`, which must be http or https, and returns without waiting.
    fn open(&self, url: &Url) -> Result<()>;
}

/// The person's own browser (`$BROWSER`, the desktop's default).
///
/// The `webbrowser` crate starts it with an argument vector, never through a
/// shell, and is built so that it refuses all but http and https.
#[derive(Debug)]
pub struct SystemBrowser;

impl Browser for SystemBrowser {
    fn open(&self, url: &Url) -> Result<()> {
        require_web(url)?;
        let mut options = webbrowser::BrowserOptions::new();
        options.with_suppress_output(true);
        webbrowser::open_browser_with_options(webbrowser::Browser::Default, url.as_str(), &options)
            .map_err(|cause| {
                Error::new(ErrorKind::Io, "the browser could not be started").because(cause)
            })
    }
}

/// A browser that shows each page with a browser profile of its own, so that several
/// people can be signed in at the same place.
#[derive(Debug)]
pub struct OwnProfile {
    program: String,
    arguments: Vec<OsString>,
    /// The directory of the browser profile, where the browser wants one.
    directory: Option<PathBuf>,
}

impl OwnProfile {
    /// The browser `program`, a bare name or an absolute path, with the browser profile
    /// that belongs to the profile `name`. What the browser keeps there is below `state`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it is not known how this browser is told.
    pub fn new(program: &str, name: &str, state: &Path) -> Result<Self> {
        let unusable = |why: &str| {
            Error::new(ErrorKind::Config, format!("the browser '{program}' cannot be used"))
                .because_of(why.to_string())
                .hint("correct `browser` in the table `[console]`, or leave it out")
        };
        // In the directory of a clone it would be the clone's.
        if program.contains(['/', '\\']) && !Path::new(program).is_absolute() {
            return Err(unusable("it is neither a bare name nor an absolute path"));
        }
        let file = Path::new(program).file_stem().and_then(OsStr::to_str).unwrap_or_default();
        let file = file.to_ascii_lowercase();
        let is = |kin: &[&str]| kin.iter().any(|one| file.contains(one));
        let program = program.to_string();
        if is(&["firefox", "librewolf", "waterfox"]) {
            let directory = state.join("browsers").join(name);
            let arguments = vec!["--profile".into(), directory.clone().into_os_string()];
            return Ok(Self { program, arguments, directory: Some(directory) });
        }
        if is(&["chrom", "brave", "edge", "vivaldi"]) {
            let arguments = vec![
                format!("--profile-directory=tmpcred-{name}").into(),
                "--no-first-run".into(),
                "--no-default-browser-check".into(),
            ];
            return Ok(Self { program, arguments, directory: None });
        }
        Err(unusable("it is not known how this one is told which browser profile to use"))
    }
}

impl Browser for OwnProfile {
    fn open(&self, url: &Url) -> Result<()> {
        require_web(url)?;
        if let Some(directory) = &self.directory {
            files::private_dir(directory)?;
        }
        let mut command = process::command(&self.program);
        command.args(&self.arguments).arg(url.as_str());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        #[cfg(unix)]
        // What ends this program with Ctrl-C does not end the browser.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.spawn().map_err(|cause| {
            Error::new(ErrorKind::Io, format!("the browser '{}' cannot be started", self.program))
                .because(cause)
        })?;
        Ok(())
    }
}

/// Visits pages on this machine by itself, without showing them: the other half
/// of the embedded provider, which asks nobody.
#[derive(Debug)]
pub struct LoopbackBrowser;

impl Browser for LoopbackBrowser {
    fn open(&self, url: &Url) -> Result<()> {
        let url = url.clone();
        // Whoever opens a page goes on to wait for its redirect, so the visit
        // needs a thread of its own.
        std::thread::spawn(move || {
            if let Err(error) = visit(url) {
                tracing::warn!(%error, "the embedded login page could not be visited");
            }
        });
        Ok(())
    }
}

/// Follows redirects from page to page, as long as they stay on this machine.
fn visit(url: Url) -> Result<()> {
    let failed = |cause: reqwest::Error| {
        Error::new(ErrorKind::Unreachable, "the embedded login page did not answer").because(cause)
    };
    let policy = reqwest::redirect::Policy::custom(|attempt| {
        if attempt.previous().len() < 5 && http::is_loopback(attempt.url()) {
            attempt.follow()
        } else {
            attempt.stop()
        }
    });
    if !http::is_loopback(&url) {
        return Err(Error::new(
            ErrorKind::Verification,
            "the embedded login page is not on loopback",
        ));
    }
    #[expect(clippy::disallowed_methods, reason = "redirects are what this client is for")]
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(policy)
        .timeout(http::REQUEST_TIMEOUT)
        .build()
        .map_err(failed)?;
    // A request sets its time limit when it is made, which needs the runtime.
    process::runtime()?.block_on(async { client.get(url).send().await }).map_err(failed)?;
    Ok(())
}

/// Refuses everything but http and https. A server chooses this URL, and other
/// schemes start other programs.
pub fn require_web(url: &Url) -> Result<()> {
    if matches!(url.scheme(), "http" | "https") && url.has_host() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Verification,
        format!("refusing to open a URL with the scheme '{}'", url.scheme()),
    )
    .because_of("only http and https pages are opened"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_profile_has_a_browser_profile_of_its_own() {
        let state = Path::new("/state");
        let with = |program: &str| {
            OwnProfile::new(program, "prod", state).map(|own| {
                let words = own.arguments.iter().map(|word| word.to_string_lossy().into_owned());
                words.collect::<Vec<_>>().join(" ")
            })
        };
        for firefox in ["firefox", "firefox-esr", "/opt/Firefox/firefox"] {
            assert_eq!(with(firefox).unwrap(), "--profile /state/browsers/prod", "{firefox}");
        }
        for chromium in ["chromium", "/usr/bin/google-chrome", "brave-browser", "msedge.exe"] {
            let arguments = with(chromium).unwrap();
            assert!(arguments.starts_with("--profile-directory=tmpcred-prod "), "{chromium}");
        }
        for bad in ["w3m", "./firefox", "bin/chromium", ""] {
            assert!(with(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_web_pages_are_opened() {
        for bad in ["file:///etc/passwd", "javascript:alert(1)", "vscode://x", "data:text/html,x"] {
            assert!(require_web(&Url::parse(bad).unwrap()).is_err(), "{bad}");
        }
        for good in ["http://127.0.0.1:1/a", "https://login.example.com/"] {
            assert!(require_web(&Url::parse(good).unwrap()).is_ok(), "{good}");
        }
    }
}
