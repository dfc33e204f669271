//! Opening a page in the person's browser.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use url::Url;

use super::env::Env;
use super::{files, http, process};
use crate::error::{Error, ErrorKind, Result};

/// How long to wait for a browser to be started.
const START_LIMIT: Duration = Duration::from_secs(2);

/// Browsers that show pages on a terminal. The `webbrowser` crate runs these to their end,
/// with the standard streams that this process has.
const TEXT_BROWSERS: [&str; 9] =
    ["curl", "elinks", "eww", "links", "links2", "lynx", "netrik", "retawq", "w3m"];

/// Opens web pages.
pub trait Browser: Send + Sync {
    /// Opens `url`, which must be http or https, and returns without waiting.
    fn open(&self, url: &Url) -> Result<()>;
}

/// The person's own browser (`$BROWSER`, the desktop's default).
///
/// The `webbrowser` crate starts it with an argument vector, never through a
/// shell, and is built so that it refuses all but http and https. A text browser is not
/// started: it would take the terminal from whatever runs next, and standard output, where
/// a token may be meant to go.
#[derive(Debug)]
pub struct SystemBrowser;

impl Browser for SystemBrowser {
    fn open(&self, url: &Url) -> Result<()> {
        require_web(url)?;
        // The crate looks there by itself.
        if let Some(name) = text_browser(&Env::of_process()) {
            let message = format!("the text browser '{name}' is not started");
            return Err(Error::new(ErrorKind::Config, message)
                .because_of("it would take the terminal and the standard output of this command")
                .hint("set BROWSER to a browser that has windows"));
        }
        let failed = || Error::new(ErrorKind::Io, "the browser could not be started");
        // What a desktop shows in a terminal is waited for as well, and it waits for
        // whoever has it opened: the first page is served by the thread that asks for it.
        let (told, outcome) = mpsc::channel();
        let page = url.clone();
        let open = move || {
            let mut options = webbrowser::BrowserOptions::new();
            options.with_suppress_output(true);
            let browser = webbrowser::Browser::Default;
            let opened = webbrowser::open_browser_with_options(browser, page.as_str(), &options);
            // Nobody waits for it any more where it took long.
            let _ = told.send(opened);
        };
        let thread = std::thread::Builder::new().name("browser".to_string());
        thread.spawn(open).map_err(|cause| failed().because(cause))?;
        match outcome.recv_timeout(START_LIMIT) {
            Ok(opened) => opened.map_err(|cause| failed().because(cause)),
            Err(_) => Ok(()),
        }
    }
}

/// The text browser that `BROWSER` names, where that is the one which would be started: the
/// first of its commands that is there. On other systems nobody looks at the variable.
pub(super) fn text_browser(env: &Env) -> Option<&str> {
    if cfg!(any(target_os = "macos", windows)) {
        return None;
    }
    let programs = env.get("BROWSER")?.split(':').filter_map(|line| line.split_whitespace().next());
    let mut there = programs.filter(|program| is_installed(program, env));
    let name = Path::new(there.next()?).file_name().and_then(OsStr::to_str)?;
    TEXT_BROWSERS.contains(&name).then_some(name)
}

fn is_installed(program: &str, env: &Env) -> bool {
    if program.contains('/') {
        return files::is_file(program);
    }
    let path = env.get("PATH").unwrap_or_default();
    path.split(':').any(|directory| files::is_file(Path::new(directory).join(program)))
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
    #[cfg(not(any(target_os = "macos", windows)))]
    fn a_text_browser_is_known_by_the_command_that_would_be_started() {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().to_str().unwrap();
        for program in ["w3m", "lynx", "firefox", "www-browser"] {
            files::write_private(&dir.path().join(program), b"").unwrap();
        }
        let named = |browser: &str| {
            let env = Env::from_pairs([("BROWSER", browser), ("PATH", &format!("/none:{bin}"))]);
            text_browser(&env).map(String::from)
        };
        for (browser, text) in [
            ("w3m", Some("w3m")),
            ("lynx -accept_all_cookies %s", Some("lynx")),
            (&format!("{bin}/w3m"), Some("w3m")),
            ("w3m:firefox", Some("w3m")),
            // There is no such program, and the next one is taken.
            ("elinks:firefox", None),
            ("chromium:lynx", Some("lynx")),
            ("firefox:w3m", None),
            ("www-browser", None),
            ("links", None),
            (" : ", None),
        ] {
            assert_eq!(named(browser).as_deref(), text, "{browser}");
        }
        assert_eq!(text_browser(&Env::from_pairs([("PATH", bin)])), None);
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
