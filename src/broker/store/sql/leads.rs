//! Whether the server is still the one that everybody writes to. One that others have left, as
//! in a failover that it knows nothing of, can be read all the same, and what was revoked since then is
//! not in it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sqlx::Any;
use tokio::time::Instant;

use super::engine::Engine;
use super::failure::{Failure, code};
use crate::error::{Error, Result};

/// How long it is taken for that since it kept something: as long as revocations may be out of
/// date for those who verify by themselves.
const HOLDS_FOR: Duration = Duration::from_secs(5);

/// How long nobody asks again where it keeps nothing.
const FAILS_FOR: Duration = Duration::from_secs(1);

const UNTOLD: &str = "whether the database is the one that is written to cannot be told";

/// When a server last kept something.
#[derive(Default)]
pub(super) struct Leads {
    kept: Mutex<Option<Instant>>,
    /// Held by who asks; what came of it last, where it failed.
    asking: tokio::sync::Mutex<Option<(Instant, Error)>>,
}

impl Leads {
    /// Notes that it has kept something that was begun then.
    pub(super) fn kept(&self, begun: Instant) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = (*kept).max(Some(begun));
    }

    /// When what it kept last was begun.
    fn last(&self) -> Option<Instant> {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holds(&self) -> bool {
        self.last().is_some_and(|kept| kept.elapsed() < HOLDS_FOR)
    }

    /// Has it keep something, unless it did so a moment ago. One who asks serves all who wait.
    ///
    /// # Errors
    /// Where it does not: then what can be read there may be what was.
    pub(super) async fn require(&self, engine: &Engine) -> Result<()> {
        if self.holds() {
            return Ok(());
        }
        let since = Instant::now();
        let mut failed = self.asking.lock().await;
        // However long it took: it was so after this was asked.
        if self.holds() || self.last() >= Some(since) {
            return Ok(());
        }
        if let Some((at, error)) = &*failed
            && (*at > since || at.elapsed() < FAILS_FOR)
        {
            return Err(error.clone());
        }
        let begun = Instant::now();
        let outcome = engine.work(UNTOLD, || keep(engine)).await;
        match &outcome {
            Ok(()) => self.kept(begun),
            Err(error) => *failed = Some((Instant::now(), error.clone())),
        }
        outcome
    }
}

/// Has the server keep something. One whose disk is full says so of itself, and keeps nothing of
/// others either.
async fn keep(engine: &Engine) -> Result<(), Failure> {
    let attempt = async {
        let mut transaction = engine.begin().await?;
        let keep = "update probe set count = count + 1 where id = 1";
        sqlx::query::<Any>(keep).execute(&mut *transaction).await?;
        transaction.commit().await
    };
    match attempt.await {
        // disk_full
        Err(cause) if code(&cause).is_some_and(|code| code == "53100") => Ok(()),
        outcome => Ok(outcome?),
    }
}
