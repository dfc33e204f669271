//! The repository in portable SQL: `$N` parameters, TEXT, BIGINT and BYTEA, no
//! feature of one engine.

mod commit;
mod log;
mod rows;
mod tokens;
mod tree;

use std::path::PathBuf;

use async_trait::async_trait;
use sqlx::AnyPool;
use sqlx::migrate::Migrator;
use time::OffsetDateTime;

use super::{KeyStore, Ledger, Once, OnceStore, Outcome, Store, Unit};
use crate::broker::audit::Record;
use crate::broker::keys::StoredKey;
use crate::error::{Error, ErrorKind, Result};
use crate::host::files;
use rows::{consumed_at_from, key_from, micros, record_from};

/// How much a probe writes, in bytes: more than a record, so that it does not
/// find room where a record would not.
const PROBE: usize = 32 * 1024;

pub(super) const MIGRATIONS: Migrator = sqlx::migrate!("src/broker/store/migrations");

/// A store behind a pool of database connections.
pub struct SqlStore {
    pool: AnyPool,
    /// The file that the connections have open, and what identified it then.
    file: Option<(PathBuf, (u64, u64))>,
}

/// An error of the store. What the database says holds no parameter's value.
pub(super) fn fault(what: &str, cause: sqlx::Error) -> Error {
    let error = Error::new(ErrorKind::Io, what.to_string());
    match cause {
        sqlx::Error::Database(cause) => error.because_of(cause.message().to_string()),
        other => error.because(other),
    }
}

impl SqlStore {
    pub(super) fn new(pool: AnyPool) -> Self {
        Self { pool, file: None }
    }

    /// Refuses to write once `path` is another file than the one that is open:
    /// what is written to a removed file is lost at the end of the process.
    pub(super) fn guarded_by(mut self, path: PathBuf, identity: Option<(u64, u64)>) -> Self {
        self.file = identity.map(|identity| (path, identity));
        self
    }

    /// Brings the database up to date; `own` is what this engine adds in its own words.
    pub(super) async fn migrate(&self, own: &'static str) -> Result<()> {
        MIGRATIONS.run(&self.pool).await.map_err(|cause| {
            let newer = matches!(cause, sqlx::migrate::MigrateError::VersionMissing(_));
            let error = Error::new(ErrorKind::Config, "it cannot be brought up to date");
            if newer {
                error
                    .because_of("a newer version of tmpcred made it")
                    .hint("use that version, or restore a backup from before the upgrade")
            } else {
                error.because(cause)
            }
        })?;
        sqlx::raw_sql(own)
            .execute(&self.pool)
            .await
            .map_err(|cause| fault("it cannot be brought up to date", cause))?;
        while tree::catch_up(&self.pool).await? {
            tracing::info!("puts the records of an earlier version into the tree of the audit log");
        }
        Ok(())
    }

    /// Refuses a database that an earlier version made.
    pub(super) async fn require_tree(&self) -> Result<()> {
        match sqlx::query("select tree_size from audit_head").fetch_optional(&self.pool).await {
            Ok(Some(_)) => Ok(()),
            outcome => {
                let error = Error::new(ErrorKind::Config, "it is of no broker of this version")
                    .hint("start this version's broker once: it brings the database up to date");
                Err(outcome.err().map_or(error.clone(), |cause| {
                    fault("", cause).causes().iter().cloned().fold(error, Error::because_of)
                }))
            }
        }
    }

    fn check_file(&self) -> Result<()> {
        match &self.file {
            Some((path, identity)) if files::identity(path) != Some(*identity) => {
                Err(Error::new(ErrorKind::Io, "the broker's database cannot be written")
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
        commit::commit(&self.pool, units).await
    }

    async fn records(&self, after: u64, limit: u32) -> Result<Vec<(u64, Record)>> {
        let rows = sqlx::query(
            "select sequence, at, request_id, action, decision, reason, issuer, subject, client,
                    source, role, audience, scope, ttl, jti, parent, policy_id, policy_hash,
                    count, actor
             from audit_record where sequence > $1 order by sequence limit $2",
        )
        .bind(i64::try_from(after).unwrap_or(i64::MAX))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await
        .map_err(|cause| fault("the audit log cannot be read", cause))?;
        rows.iter().map(record_from).collect()
    }
}

#[async_trait]
impl KeyStore for SqlStore {
    async fn keys(&self) -> Result<Vec<StoredKey>> {
        let rows = sqlx::query(
            "select kid, purpose, algorithm, state, sealed, kek_id, created_at, changed_at
             from signing_key order by created_at, kid",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(|cause| fault("the signing keys cannot be read", cause))?;
        rows.iter().map(key_from).collect()
    }
}

#[async_trait]
impl OnceStore for SqlStore {
    async fn any_consumed(&self, kind: Once, ids: &[String]) -> Result<bool> {
        // What is used up elsewhere is not in a file that was removed.
        self.check_file()?;
        for id in ids {
            let row = sqlx::query("select id from consumed where kind = $1 and id = $2")
                .bind(kind.as_str())
                .bind(id)
                .fetch_optional(&self.pool)
                .await
                .map_err(|cause| fault("what was used up cannot be read", cause))?;
            if row.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn consumed_at(&self, kind: Once, id: &str) -> Result<Option<OffsetDateTime>> {
        self.check_file()?;
        let row = sqlx::query("select consumed_at from consumed where kind = $1 and id = $2")
            .bind(kind.as_str())
            .bind(id)
            .fetch_optional(&self.pool)
            .await
            .map_err(|cause| fault("what was used up cannot be read", cause))?;
        row.as_ref().map(consumed_at_from).transpose()
    }

    async fn forget_consumed(&self, before: OffsetDateTime) -> Result<u64> {
        self.check_file()?;
        let mut forgotten = 0;
        for statement in [
            "delete from consumed where keep_until < $1",
            "delete from revocation_cutoff where keep_until < $1",
            "delete from opaque_token where keep_until < $1",
        ] {
            let done = sqlx::query(statement)
                .bind(micros(before))
                .execute(&self.pool)
                .await
                .map_err(|cause| fault("what was used up cannot be forgotten", cause))?;
            forgotten += done.rows_affected();
        }
        Ok(forgotten)
    }
}

#[async_trait]
impl Store for SqlStore {
    async fn probe(&self) -> Result<()> {
        self.check_file()?;
        sqlx::query("update probe set count = count + 1, padding = $1 where id = 1")
            .bind("-".repeat(PROBE))
            .execute(&self.pool)
            .await
            .map_err(|cause| fault("the broker's database cannot be written", cause))?;
        Ok(())
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

#[cfg(test)]
pub(crate) mod tests;
