//! What all sources share at which people log in.
//!
//! | file | what it does |
//! |---|---|
//! | `flow` | which way to log in |
//! | `listener`, `page` | where a browser on this machine starts and comes back to, and what it shows then |

mod flow;
mod listener;
mod page;

use std::time::{Duration, Instant};

use url::Url;

pub(super) use flow::Choice;
pub use flow::Flow;
pub use listener::RedirectHost;
#[cfg(test)]
pub(super) use listener::redirect_uri;
pub(super) use listener::{Answer, Callback, Listener, Redirect};

use super::Context;
use crate::cache::{Lead, SessionKey, Turn};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::browser::require_web;
use crate::host::interact::DevicePrompt;

/// How long a person has to log in.
pub(super) const LOGIN_LIMIT: Duration = Duration::from_secs(600);

/// The longest code that a person can be asked to type.
const USER_CODE_MAX: usize = 64;

/// The error for a login that nobody finished.
pub(super) fn too_late() -> Error {
    Error::new(ErrorKind::LoginRequired, "the login was not finished in time")
        .hint("start it again, and finish it while the page or the code is good")
}

/// Refuses where nobody may be asked to log in to the identity of this name.
pub(super) fn require_person(host: &Host, name: &str) -> Result<()> {
    if host.interact.may_ask() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::LoginRequired, format!("login required: run `tmpcred login {name}`")))
}

/// Takes the lock of a session, or waits for whoever has it: where nobody needs the new
/// credential now, no longer than there is time. What follows has the rest of that.
pub(super) fn lead<'a, T>(
    cx: Context<'a>,
    key: &SessionKey,
    look: impl FnMut() -> Result<Option<T>>,
) -> Result<(Turn<T>, Context<'a>)> {
    let started = Instant::now();
    let turn = cx.cache.lead_session(key, cx.effort.to_wait_for_others(), look)?;
    Ok((turn, cx.with_effort(cx.effort.after(started.elapsed()))))
}

/// Tells those who wait for the session how the work on it ended.
pub(super) fn settle<T>(cx: Context<'_>, lead: Lead, result: Result<T>) -> Result<T> {
    cx.host.tell_skew();
    match &result {
        Ok(_) => lead.succeed(),
        // One of those who wait may be allowed to ask.
        Err(error) if error.kind() == ErrorKind::LoginRequired && !cx.host.interact.may_ask() => {
            drop(lead);
        }
        // One of them may need it, and have more done for it.
        Err(error) if error.kind() == ErrorKind::Unreachable && cx.effort.is_spare() => drop(lead),
        Err(error) => lead.fail(error),
    }
    result
}

/// Opens the page where that is allowed, and tells the person about it. The browser is
/// started with a page of `listener` that leads there: everybody on this machine can see
/// what a program is started with.
pub(super) fn show(host: &Host, listener: &Listener, url: &Url) -> Result<()> {
    require_web(url)?;
    let interact = &host.interact;
    let opened = interact.may_browse()
        && match listener.start_page(url).and_then(|page| host.browser.open(&page)) {
            Ok(()) => true,
            Err(error) => {
                interact.warn(&error.to_string());
                false
            }
        };
    interact.login_page(url, opened);
    Ok(())
}

/// What is shown to the person. It comes from a server and goes to a terminal.
pub(super) fn device_prompt(
    user_code: &str,
    verification_uri: Url,
    complete: Option<&str>,
    limit: Duration,
) -> Result<DevicePrompt> {
    let typeable = !user_code.is_empty()
        && user_code.chars().count() <= USER_CODE_MAX
        && user_code.chars().all(|c| c.is_alphanumeric() || c.is_ascii_graphic() || c == ' ');
    if !typeable {
        return Err(Error::new(
            ErrorKind::Verification,
            "the code of the identity provider cannot be typed",
        ));
    }
    require_web(&verification_uri)?;
    let complete = complete.and_then(|url| Url::parse(url).ok());
    Ok(DevicePrompt {
        user_code: user_code.to_string(),
        verification_uri,
        verification_uri_complete: complete.filter(|url| require_web(url).is_ok()),
        good_for: time::Duration::try_from(limit).unwrap_or(time::Duration::MAX),
    })
}
