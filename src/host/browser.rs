//! Opening a page in the person's browser.

use url::Url;

use super::{http, process};
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
    fn only_web_pages_are_opened() {
        for bad in ["file:///etc/passwd", "javascript:alert(1)", "vscode://x", "data:text/html,x"] {
            assert!(require_web(&Url::parse(bad).unwrap()).is_err(), "{bad}");
        }
        for good in ["http://127.0.0.1:1/a", "https://login.example.com/"] {
            assert!(require_web(&Url::parse(good).unwrap()).is_ok(), "{good}");
        }
    }
}
