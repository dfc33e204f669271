//! Whether the broker can issue at this moment.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Broker;
use super::audit::Audit;
use super::keys::KeyRing;
use super::store::{Effect, Store};
use crate::error::{Error, ErrorKind, Result};

/// How far this machine's clock may be from its database's where something is to be issued. By one
/// that is behind, assertions are good that have expired, and those of which others have forgotten
/// that they were used; by one that is ahead, tokens live for longer than they should.
pub(super) const CLOCKS_AGREE: time::Duration = time::Duration::MINUTE;

/// How long an answer holds: anybody may ask, and each look is a write to the disk.
const HOLDS_FOR: Duration = Duration::from_secs(1);

/// How long after a failure of the audit log requests should go elsewhere.
const AILING: Duration = Duration::from_secs(5);

/// What is wrong where no clock is to be believed.
const UNTOLD: &str = "it cannot be told what time it is";

/// Whether it can.
#[derive(Default)]
pub(super) struct Readiness {
    /// The last answer. One look serves all who ask meanwhile.
    last: Mutex<Option<(Instant, Result<()>)>>,
    ending: AtomicBool,
}

impl Readiness {
    /// From now on requests should go elsewhere.
    pub(super) fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Whether that was said.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// Looks whether the store can be written, and its log be appended to, unless it was looked a
    /// moment ago.
    ///
    /// A store may take a probe and yet have no room for a record, so for a while
    /// after a record was lost the broker is not ready either.
    /// Nor is it where it cannot tell which of its keys signs, nor where its log does not end as
    /// this process has left or seen it, for as long as that is so: it can record nothing, so it
    /// can neither issue nor revoke, and another process may be able to, which has not seen as much.
    /// That is looked at anew each time, and not told by the last commit alone: to whom no
    /// requests are sent nothing is left by which it would notice that it can again.
    /// Where only what is before the end is not what was signed, it is ready: no other process could
    /// issue either, and all can revoke and introspect.
    pub(super) async fn check(
        &self,
        store: &dyn Store,
        audit: &Audit,
        keys: &KeyRing,
    ) -> Result<()> {
        if self.is_ending() {
            return Err(Error::new(ErrorKind::Other, "the broker is ending"));
        }
        if let Some(error) = audit.failure_within(AILING) {
            return Err(error);
        }
        keys.current().await?;
        let mut last = self.last.lock().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() < HOLDS_FOR
        {
            return answer.clone();
        }
        let answer = store.probe().await;
        *last = Some((Instant::now(), answer.clone()));
        answer
    }
}

impl Broker {
    /// Looks whether it can issue at this moment.
    ///
    /// # Errors
    /// Why it cannot.
    pub(super) async fn check_readiness(&self) -> Result<()> {
        self.readiness.check(self.store.as_ref(), &self.audit, &self.keys).await?;
        self.check_clock().await
    }

    /// Looks whether this machine's clock is near its database's, or was a moment ago. By one that is
    /// not, nobody can tell which tokens have expired; nor where that is not known.
    ///
    /// # Errors
    /// How far they are apart, or why the database does not say.
    pub(super) async fn check_clock(&self) -> Result<()> {
        match self.store_clock.look(self.store.as_ref(), self.clock.as_ref()).await {
            Ok(Some(by)) if by.abs() > CLOCKS_AGREE => Err(clocks_differ(by)),
            Ok(_) => Ok(()),
            Err(error) => Err(error.context(UNTOLD).of_kind(ErrorKind::Other)),
        }
    }
}

impl Broker {
    /// What has to be so for the commit of what was looked at at this moment: that it is no other
    /// one. A process that was stopped in between, or its machine, knows nothing of what others
    /// have done since, nor of another configuration.
    pub(super) fn at_once(began: OffsetDateTime) -> Effect {
        Effect::IfClocksAgree { at: began, within: CLOCKS_AGREE }
    }

    /// Looks whether that was so, where something was not committed.
    ///
    /// # Errors
    /// That it was not.
    pub(super) async fn check_moment(&self, began: OffsetDateTime) -> Result<()> {
        let Some(there) = self.store.now().await? else { return Ok(()) };
        let by = self.clock.now() - there;
        if by.abs() > CLOCKS_AGREE {
            return Err(clocks_differ(by));
        }
        if (there - began).abs() > CLOCKS_AGREE {
            return Err(Error::new(ErrorKind::Other, "it was not done in time")
                .because_of("more than a minute went by after it was looked at")
                .hint("ask again"));
        }
        Ok(())
    }
}

/// That this machine's clock is ahead of its database's by so much, or behind it.
pub(super) fn clocks_differ(by: time::Duration) -> Error {
    let apart = humantime::format_duration(Duration::from_secs(by.whole_seconds().unsigned_abs()));
    let how = if by.is_negative() { "behind" } else { "ahead of" };
    Error::new(ErrorKind::Other, UNTOLD)
        .because_of(format!("this machine's clock is {apart} {how} the database's"))
        .hint("set the one that is wrong; nothing is issued, and no token counts, until then")
}
