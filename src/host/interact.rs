//! Talking to the person who runs the program.

use time::Duration;
use url::Url;

use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// What the lower layers may say to the person. The command line implements it
/// on the terminal; nothing else writes there.
pub trait Interact: Send + Sync {
    /// Whether somebody is there to answer: a terminal, and no `--no-input`.
    fn may_ask(&self) -> bool;
    /// Whether a browser may be opened.
    fn may_browse(&self) -> bool;
    /// One line that is worth knowing.
    fn note(&self, line: &str);
    /// One line about something that is not as it should be.
    fn warn(&self, line: &str);
    /// Asks the person to open a page to log in.
    fn login_page(&self, url: &Url, opened: bool);
    /// Asks the person to enter a code on another device.
    fn device_code(&self, prompt: &DevicePrompt);
    /// Asks for something that does not show while it is typed.
    ///
    /// # Errors
    /// [`ErrorKind::LoginRequired`] where nobody may be asked.
    fn ask(&self, question: &str) -> Result<Secret<String>> {
        Err(Error::new(ErrorKind::LoginRequired, "nobody is there to be asked")
            .because_of(question))
    }
    /// Shows that something takes a while, until the guard is dropped.
    fn waiting(&self, what: &str) -> Box<dyn Waiting>;
}

/// A wait that is shown to the person. Dropping it ends the display.
pub trait Waiting: Send {}

/// What a person needs to log in on another device (RFC 8628 section 3.2).
#[derive(Clone, Debug)]
pub struct DevicePrompt {
    /// The code to type.
    pub user_code: String,
    /// The page to type it on.
    pub verification_uri: Url,
    /// The page with the code already in it, where the provider offers one.
    pub verification_uri_complete: Option<Url>,
    /// For how long the code works.
    pub good_for: Duration,
}

/// Says nothing and never asks: for programs that use the library, and tests.
#[derive(Debug)]
pub struct Silent;

struct NoWait;

impl Waiting for NoWait {}

impl Interact for Silent {
    fn may_ask(&self) -> bool {
        false
    }
    fn may_browse(&self) -> bool {
        false
    }
    fn note(&self, _: &str) {}
    fn warn(&self, _: &str) {}
    fn login_page(&self, _: &Url, _: bool) {}
    fn device_code(&self, _: &DevicePrompt) {}
    fn waiting(&self, _: &str) -> Box<dyn Waiting> {
        Box::new(NoWait)
    }
}
