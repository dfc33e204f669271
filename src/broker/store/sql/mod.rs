//! The repository in portable SQL: `$N` parameters, or what [`values`] has for many of them,
//! TEXT, BIGINT and BYTEA, no feature of one engine. What of it differs between engines is in
//! [`engine`].

mod append;
mod backfill;
mod commit;
mod conditions;
mod copy;
mod elevation;
mod engine;
mod enrollment;
mod erasure;
mod failure;
mod head;
mod inserts;
mod issuer_keys;
mod keys;
mod leads;
mod log;
mod lookout;
mod lookups;
mod migrate;
mod notify;
mod outbox;
mod revoked;
mod rows;
mod tokens;
mod tree;
mod uses;
mod values;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use sqlx::query::Query;
use sqlx::{Any, AssertSqlSafe, Database, Row as _};
use time::OffsetDateTime;

use super::{Ledger, Once, OnceStore, Outcome, Store, Unit};
use crate::broker::audit::Record;
use crate::broker::audit::seal::Seal;
use crate::error::{Error, ErrorKind, Result};
use crate::host::files;
pub use copy::Copied;
pub(super) use engine::Engine;
pub(super) use failure::{TURNED_AWAY, code, fault, is_turned_away};
use head::Guard;
pub(super) use lookout::{Access, Lookout};
use lookups::Lookups;
pub(super) use migrate::{Own, RUN_BY_EARLIER};
use rows::{consumed_at_from, micros, moment, record_from};

/// How much a probe writes, in bytes: more than a record, so that it does not
/// find room where a record would not.
const PROBE: usize = 32 * 1024;

const UNWRITABLE: &str = "the broker's database cannot be written";

/// A store behind a pool of database connections.
pub struct SqlStore {
    engine: Arc<Engine>,
    lookups: Arc<Lookups>,
    /// The file that the connections have open, and what identified it then.
    file: Option<(PathBuf, (u64, u64))>,
    guard: Guard,
    /// What keeps a database in memory from being forgotten.
    _keeper: Option<Mutex<sqlx::AnyConnection>>,
}

impl SqlStore {
    pub(super) fn new(engine: Engine) -> Self {
        let engine = Arc::new(engine);
        let lookups = Lookups::new(Arc::clone(&engine));
        Self { engine, lookups, file: None, guard: Guard::default(), _keeper: None }
    }

    /// The same, with a connection that is used for nothing and stays open.
    pub(super) fn kept_by(self, keeper: sqlx::AnyConnection) -> Self {
        Self { _keeper: Some(Mutex::new(keeper)), ..self }
    }

    /// Refuses to write once `path` is another file than the one that is open:
    /// what is written to a removed file is lost at the end of the process.
    pub(super) fn guarded_by(mut self, path: PathBuf, identity: Option<(u64, u64)>) -> Self {
        self.file = identity.map(|identity| (path, identity));
        self
    }

    /// Writes a copy of the database into a file, as it is at this moment; SQLite alone
    /// can do that. Whoever writes meanwhile is not held up.
    pub(super) async fn vacuum_into(&self, path: &str) -> Result<()> {
        sqlx::query("vacuum into $1")
            .bind(path)
            .execute(&self.engine.pool)
            .await
            .map_err(|cause| fault("it cannot be copied", cause))?;
        Ok(())
    }

    /// Moves all that was committed into the file of the database. SQLite does so as well where the
    /// last connection is closed, but where it cannot, nobody is told, and it stays beside the file.
    pub(super) async fn gather(&self) -> Result<()> {
        let failed = |cause| fault("what was written cannot be put into one file", cause);
        let moved = sqlx::query("pragma wal_checkpoint(truncate)");
        let row = moved.fetch_one(&self.engine.pool).await.map_err(failed)?;
        match row.try_get::<i64, _>(0).map_err(failed)? {
            0 => Ok(()),
            _ => Err(Error::new(ErrorKind::Io, "what was written cannot be put into one file")
                .because_of("somebody else reads it")),
        }
    }

    /// Refuses a database that would not keep what is committed.
    pub(super) async fn require_sync(&self) -> Result<()> {
        let ask = || async {
            let mut transaction = self.engine.begin().await?;
            let sync = "select current_setting('synchronous_commit', true)";
            sqlx::query_scalar::<_, Option<String>>(sync).fetch_one(&mut *transaction).await
        };
        match self.engine.read("it cannot be asked to keep what is committed", ask).await? {
            Some(sync) if sync != "on" => Err(Error::new(
                ErrorKind::Config,
                "it does not keep what is committed: synchronous_commit stays off",
            )),
            _ => Ok(()),
        }
    }

    /// Refuses a database in which this user can make no tables, as far as it tells: not all
    /// engines know how to ask.
    pub(super) async fn require_room(&self) -> Result<()> {
        let ask = "select has_schema_privilege(current_schema(), 'create')";
        let may = sqlx::query_scalar::<_, Option<bool>>(ask).fetch_one(&self.engine.pool).await;
        match may {
            Ok(Some(true)) | Err(_) => Ok(()),
            Ok(_) => Err(Error::new(ErrorKind::Config, "this user can make no tables there")
                .hint("let the user own the database, or grant `create` on its schema")),
        }
    }

    /// Forgets what a statement names that nobody needs any more. What is gone is not
    /// missed, and what is still there goes another time.
    async fn forget<'q>(
        &self,
        statement: impl Fn() -> Query<'q, Any, <Any as Database>::Arguments>,
    ) -> Result<u64> {
        self.check_file()?;
        let attempt = || async {
            let mut transaction = self.engine.begin().await?;
            let done = statement().execute(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(done.rows_affected())
        };
        self.engine.work("what is old cannot be forgotten", attempt).await
    }

    fn check_file(&self) -> Result<()> {
        match &self.file {
            Some((path, identity)) if files::identity(path) != Some(*identity) => {
                Err(Error::new(ErrorKind::Io, UNWRITABLE)
                    .because_of(format!("{} was removed or replaced", path.display()))
                    .hint("put it back and restart the broker"))
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Ledger for SqlStore {
    async fn commit(&self, units: &[Unit]) -> Result<Vec<Outcome>> {
        self.check_file()?;
        commit::commit(&self.engine, &self.guard, units).await
    }

    async fn records(&self, after: u64, limit: u32) -> Result<Vec<(u64, Record)>> {
        let ask = || {
            sqlx::query(
            "select sequence, at, request_id, action, decision, reason, issuer, subject, client,
                    source, role, audience, scope, ttl, jti, parent, policy_id, policy_hash,
                    count, actor, trace_id, elevation, claims
             from audit_record where sequence > $1 order by sequence limit $2",
        )
        .bind(i64::try_from(after).unwrap_or(i64::MAX))
        .bind(i64::from(limit))
        .fetch_all(&self.engine.pool)
        };
        let rows = self.engine.read("the audit log cannot be read", ask).await?;
        rows.iter().map(record_from).collect()
    }
}

/// Forgets what was used up of this kind, and is kept until before this, so much of it.
const FORGET_CONSUMED: &str = "
    delete from consumed where (kind, id) in
        (select kind, id from consumed where kind = $1 and keep_until < $2
         order by keep_until limit $3)";

#[async_trait]
impl OnceStore for SqlStore {
    async fn any_consumed(&self, kind: Once, ids: &[String]) -> Result<bool> {
        // What is used up elsewhere is not in a file that was removed.
        self.check_file()?;
        for id in ids {
            let ask = || {
                sqlx::query("select id from consumed where kind = $1 and id = $2")
                    .bind(kind.as_str())
                    .bind(id)
                    .fetch_optional(&self.engine.pool)
            };
            let row = self.engine.read("what was used up cannot be read", ask).await?;
            if row.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn consumed_at(&self, kind: Once, id: &str) -> Result<Option<OffsetDateTime>> {
        self.check_file()?;
        let ask = || {
            sqlx::query("select consumed_at from consumed where kind = $1 and id = $2")
                .bind(kind.as_str())
                .bind(id)
                .fetch_optional(&self.engine.pool)
        };
        let row = self.engine.read("what was used up cannot be read", ask).await?;
        row.as_ref().map(consumed_at_from).transpose()
    }

    async fn forget_consumed(&self, kind: Once, before: OffsetDateTime, limit: u32) -> Result<u64> {
        let forget = || {
            sqlx::query(FORGET_CONSUMED)
                .bind(kind.as_str())
                .bind(micros(before))
                .bind(i64::from(limit))
        };
        self.forget(forget).await
    }
}

#[async_trait]
impl Store for SqlStore {
    async fn seal_with(&self, seal: Seal) -> Result<()> {
        self.guard.begin(&self.engine, seal).await
    }

    async fn now(&self) -> Result<Option<OffsetDateTime>> {
        let Some(clock) = self.engine.clock() else { return Ok(None) };
        let ask = || {
            sqlx::query_scalar(AssertSqlSafe(format!("select {clock}")))
                .fetch_one(&self.engine.pool)
        };
        self.engine.read("the time cannot be asked for", ask).await.map(moment)
    }

    async fn probe(&self) -> Result<()> {
        self.check_file()?;
        let attempt = || async {
            let mut transaction = self.engine.begin().await?;
            sqlx::query("update probe set count = count + 1, padding = $1 where id = 1")
                .bind("-".repeat(PROBE))
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
            Ok(())
        };
        self.engine.work(UNWRITABLE, attempt).await?;
        // A record goes behind the end of the log alone.
        self.guard.require_good(&self.engine).await
    }

    async fn close(&self) {
        self.engine.close().await;
    }
}

#[cfg(test)]
impl SqlStore {
    /// The connections.
    pub(in crate::broker::store) fn pool_for_tests(&self) -> &sqlx::AnyPool {
        &self.engine.pool
    }

    /// Reads what there is at this moment until it is dropped.
    pub(super) async fn hold_for_tests(&self) -> sqlx::Transaction<'static, Any> {
        let mut held = self.engine.begin().await.unwrap();
        sqlx::query("select count(*) from audit_record").fetch_one(&mut *held).await.unwrap();
        held
    }
}

#[cfg(test)]
pub(crate) mod tests;
