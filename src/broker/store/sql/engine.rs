//! What differs between the engines while they work.

use std::future::Future;
use std::time::Duration;

use sqlx::{Any, AnyPool, AssertSqlSafe, Transaction};
use tokio::time::Instant;

use super::backfill::Backfill;
use super::failure::Failure;
use super::inserts::Inserts;
use super::leads::Leads;
use super::lookout::Lookout;
use super::values::Values;
use super::{append, conditions};
use crate::error::{Error, ErrorKind, Result};

/// How long is waited before work is begun anew that conflicted with another's, at most
/// and the first time.
const PAUSE: Duration = Duration::from_millis(20);

/// How often work is begun, at most, that may take as long as it takes.
const TRIES: u32 = 5;

/// A database, and how one works with it.
pub(in crate::broker::store) struct Engine {
    /// The connections to it.
    pub(super) pool: AnyPool,
    /// The one that writes, where there is just one: writers take turns, first come, first
    /// served, and what it has in memory stays good, for nobody else in this process changes
    /// anything. `None`: any of the others.
    writer: Option<AnyPool>,
    /// What begins a transaction; `None`: nothing in particular.
    begin: Option<String>,
    /// How long a piece of work may take; `None`: the engine has a limit of its own.
    limit: Option<Duration>,
    /// How it takes values.
    pub(super) values: Values,
    /// What appends records.
    pub(super) appends: Inserts,
    /// What uses things up.
    pub(super) consumes: Inserts,
    /// Moves what was committed to where it belongs, where the engine does not do that.
    backfill: Option<Backfill>,
    /// Whether it is the one that everybody writes to; `None`: there is no other.
    leads: Option<Leads>,
    /// Who looks what keeps connections from being had; `None`: they are always to be had, and
    /// nothing is done again.
    lookout: Option<Lookout>,
}

impl Engine {
    /// SQLite, behind these connections. A connection is told once what it should do.
    pub(in crate::broker::store) fn sqlite(pool: AnyPool, writer: Option<AnyPool>) -> Self {
        let backfill = writer.is_some().then(Backfill::default);
        let values = Values::Unnumbered;
        let (appends, consumes) = (append::statements(values), conditions::statements(values));
        let (begin, limit, leads, lookout) = (None, None, None, None);
        Self { pool, writer, begin, limit, values, appends, consumes, backfill, leads, lookout }
    }

    /// PostgreSQL, or what is wire-compatible with it, behind these connections.
    ///
    /// Whatever keeps a promise is said in each transaction: behind a pooler a session
    /// is nobody's own.
    pub(in crate::broker::store) fn postgres(
        pool: AnyPool,
        limit: Duration,
        writes: bool,
        lookout: Option<Lookout>,
    ) -> Self {
        let (millis, mode) = (limit.as_millis(), if writes { "" } else { " read only" });
        // Durable when it is committed, whatever is usual there. And who is cut off, or
        // whose machine dies, must not keep a lock that all wait for.
        let begin = format!(
            "begin{mode}; set local synchronous_commit = on; set local statement_timeout = {millis}; \
             set local idle_in_transaction_session_timeout = {millis}"
        );
        let values = Values::Numbered;
        let (appends, consumes) = (append::statements(values), conditions::statements(values));
        let (begin, limit) = (Some(begin), Some(limit));
        let (writer, backfill) = (None, None);
        // Who only reads asks nobody to keep anything.
        let leads = writes.then(Leads::default);
        Self { pool, writer, begin, limit, values, appends, consumes, backfill, leads, lookout }
    }

    /// The connection that writes, where there is just one.
    #[cfg(test)]
    pub(super) fn writer(&self) -> Option<&AnyPool> {
        self.writer.as_ref()
    }

    /// Whether whoever changes a table waits for those who use it, and others for them.
    pub(super) fn has_locks(&self) -> bool {
        self.begin.is_some()
    }

    /// The time, in microseconds since 1970, as a statement asks for it, where it is not this
    /// machine's.
    pub(super) fn clock(&self) -> Option<&'static str> {
        self.begin
            .as_ref()
            .map(|_| "cast(extract(epoch from clock_timestamp()) * 1000000 as bigint)")
    }

    /// Begins a transaction that may take as long as it takes: it writes all, or sees all
    /// as it was at one moment.
    pub(super) async fn begin_long(
        &self,
        writes: bool,
    ) -> Result<Transaction<'static, Any>, sqlx::Error> {
        let patient = "set local statement_timeout = 0; \
                       set local idle_in_transaction_session_timeout = 0";
        let begin = match (&self.begin, writes) {
            (None, true) => return self.begin().await,
            (None, false) => return self.pool.begin().await,
            (Some(begin), true) => format!("{begin}; {patient}"),
            (Some(_), false) => {
                format!("begin isolation level repeatable read, read only; {patient}")
            }
        };
        self.pool.begin_with(AssertSqlSafe(begin)).await
    }

    /// Begins a transaction that may write.
    pub(super) async fn begin(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        match &self.begin {
            // In so many words: it fails within another transaction, where it would else only be a
            // part of that.
            None => self.writer.as_ref().unwrap_or(&self.pool).begin_with("begin").await,
            Some(begin) => self.pool.begin_with(AssertSqlSafe(begin.clone())).await,
        }
    }

    /// Refuses a server that others may have left, so that what can be read there is what was.
    pub(super) async fn require_lead(&self) -> Result<()> {
        match &self.leads {
            Some(leads) => leads.require(self).await,
            None => Ok(()),
        }
    }

    /// Notes that so many changes were committed, by what was begun then and has written something.
    pub(super) fn committed(&self, begun: Instant, changes: usize) {
        if let Some(leads) = &self.leads {
            leads.kept(begun);
        }
        self.changed(changes);
    }

    /// Notes that so many changes were committed, or fewer.
    pub(super) fn changed(&self, changes: usize) {
        if let Some(backfill) = &self.backfill {
            backfill.committed(changes, &self.pool);
        }
    }

    /// Ends all connections, once whoever has one is done.
    pub(super) async fn close(&self) {
        self.pool.close().await;
        // It is the last: then what is in the log goes to where it belongs.
        if let Some(writer) = &self.writer {
            writer.close().await;
        }
    }

    /// Asks something, again where the connection was lost.
    ///
    /// # Errors
    /// `what` says what could not be done.
    pub(super) async fn read<T, F>(&self, what: &str, ask: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, sqlx::Error>>,
    {
        self.work(what, || async { Ok(ask().await?) }).await
    }

    /// Does a piece of work that is kept as a whole or not at all, again where nothing
    /// was kept and it may go well then.
    ///
    /// # Errors
    /// `what` says what could not be done. Where it took too long, nobody can tell
    /// whether it was.
    pub(super) async fn work<T, F>(&self, what: &str, work: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        // However often: the limit is what ends it.
        self.in_time(what, self.repeated(what, work, u32::MAX)).await
    }

    /// Waits for something as long as a piece of work may take.
    ///
    /// # Errors
    /// `what` says what could not be done.
    pub(super) async fn in_time<T>(
        &self,
        what: &str,
        done: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let Some(limit) = self.limit else { return done.await };
        let since = Instant::now();
        tokio::time::timeout(limit, done).await.unwrap_or_else(|_| {
            let limit = humantime::format_duration(limit);
            let error = Error::new(ErrorKind::Io, what.to_string())
                .because_of(format!("it did not answer within {limit}"));
            Err(self.explain(error, since))
        })
    }

    /// Does such a piece of work that takes as long as it takes.
    ///
    /// # Errors
    /// `what` says what could not be done.
    pub(super) async fn work_long<T, F>(&self, what: &str, work: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        self.repeated(what, work, TRIES).await
    }

    async fn repeated<T, F>(&self, what: &str, work: impl Fn() -> F, tries: u32) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let Some(lookout) = &self.lookout else {
            return work().await.map_err(|failure| failure.into_error(what));
        };
        tokio::select! {
            biased;
            done = self.repeated_at(lookout, what, work, tries) => done,
            never = lookout.watch(&self.pool) => match never {},
        }
    }

    async fn repeated_at<T, F>(
        &self,
        lookout: &Lookout,
        what: &str,
        work: impl Fn() -> F,
        mut tries: u32,
    ) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let (since, access) = (Instant::now(), lookout.access());
        let mut pause = PAUSE;
        loop {
            tries -= 1;
            let shown = access.shown();
            let failure = match work().await {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            // Nothing was begun.
            if failure.is_turned_away() && tries > 0 && access.renew(&self.pool, shown).await {
                continue;
            }
            if tries == 0 || !failure.may_be_repeated() {
                let had_no_connection = failure.had_no_connection();
                let error = failure.into_error(what);
                return Err(match had_no_connection {
                    true => lookout.explain(error, since),
                    false => error,
                });
            }
            let error = failure.into_error(what);
            tracing::debug!(%error, "begun anew");
            tokio::time::sleep(some_of(pause)).await;
            pause = (pause * 2).min(PAUSE * 16);
        }
    }

    /// Tells somebody who has waited since then also what keeps connections from being had.
    fn explain(&self, error: Error, since: Instant) -> Error {
        match &self.lookout {
            Some(lookout) => lookout.explain(error, since),
            None => error,
        }
    }
}

/// A part of this time, another one for each of those who wait for one another.
pub(super) fn some_of(pause: Duration) -> Duration {
    let mut byte = [0];
    // Where there is no chance, all of it will do.
    match aws_lc_rs::rand::fill(&mut byte) {
        Ok(()) => pause * u32::from(byte[0]) / 255,
        Err(_) => pause,
    }
}
