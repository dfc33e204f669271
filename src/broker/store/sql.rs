//! The repository in portable SQL: `$N` parameters, TEXT, BIGINT and BYTEA, no
//! feature of one engine.

use std::path::PathBuf;

use async_trait::async_trait;
use sqlx::any::AnyRow;
use sqlx::migrate::Migrator;
use sqlx::{AnyPool, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use crate::broker::audit::{Decision, Record};
use crate::broker::keys::{KeyState, Purpose, StoredKey};
use crate::broker::revoke::Revocation;
use crate::credential::Principal;
use crate::error::{Error, ErrorKind, Result};
use crate::host::files;

/// How much a probe writes, in bytes: more than a record, so that it does not
/// find room where a record would not.
const PROBE: usize = 32 * 1024;

const MIGRATIONS: Migrator = sqlx::migrate!("src/broker/store/migrations");

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

    pub(super) async fn migrate(&self) -> Result<()> {
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
        })
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

    async fn add_key(&self, key: &StoredKey) -> Result<bool> {
        self.check_file()?;
        let done = sqlx::query(
            "insert into signing_key
                (kid, purpose, algorithm, state, sealed, kek_id, created_at, changed_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict do nothing",
        )
        .bind(&key.kid)
        .bind(key.purpose.as_str())
        .bind(&key.algorithm)
        .bind(key.state.as_str())
        .bind(&key.sealed)
        .bind(&key.kek_id)
        .bind(micros(key.created_at))
        .bind(micros(key.changed_at))
        .execute(&self.pool)
        .await
        .map_err(|cause| fault("a signing key cannot be written", cause))?;
        Ok(done.rows_affected() == 1)
    }

    async fn append(&self, records: &[Record]) -> Result<u64> {
        self.check_file()?;
        let failed = |cause| fault("the audit log cannot be written", cause);
        let mut transaction = self.pool.begin().await.map_err(failed)?;
        let count = i64::try_from(records.len()).unwrap_or(i64::MAX);
        // Writing comes first: so the lock is taken before anything is read.
        let last: i64 = sqlx::query_scalar(
            "update audit_head set last_sequence = last_sequence + $1 where id = 1
             returning last_sequence",
        )
        .bind(count)
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed)?;
        let first = last - count + 1;
        for (sequence, record) in (first..).zip(records) {
            sqlx::query(
                "insert into audit_record
                    (sequence, at, request_id, action, decision, reason, issuer, subject, client,
                     source, role, audience, scope, ttl, jti, policy_id, policy_hash)
                 values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
            )
            .bind(sequence)
            .bind(micros(record.at))
            .bind(record.request_id.to_string())
            .bind(&record.action)
            .bind(record.decision.as_str())
            .bind(&record.reason)
            .bind(&record.principal.issuer)
            .bind(&record.principal.subject)
            .bind(&record.client)
            .bind(&record.source)
            .bind(&record.role)
            .bind(&record.audience)
            .bind(&record.scope)
            .bind(i64::try_from(record.ttl).unwrap_or(i64::MAX))
            .bind(record.jti.map(|jti| jti.to_string()))
            .bind(&record.policy_id)
            .bind(&record.policy_hash)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)?;
        u64::try_from(first).map_err(|_| damaged("audit_head.last_sequence"))
    }

    async fn records(&self, after: u64, limit: u32) -> Result<Vec<(u64, Record)>> {
        let rows = sqlx::query(
            "select sequence, at, request_id, action, decision, reason, issuer, subject, client,
                    source, role, audience, scope, ttl, jti, policy_id, policy_hash
             from audit_record where sequence > $1 order by sequence limit $2",
        )
        .bind(i64::try_from(after).unwrap_or(i64::MAX))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await
        .map_err(|cause| fault("the audit log cannot be read", cause))?;
        rows.iter().map(record_from).collect()
    }

    async fn revoke(&self, revocation: &Revocation) -> Result<()> {
        self.check_file()?;
        sqlx::query(
            "insert into revoked_token (jti, revoked_at, keep_until) values ($1, $2, $3)
             on conflict do nothing",
        )
        .bind(revocation.jti.to_string())
        .bind(micros(revocation.at))
        .bind(micros(revocation.keep_until))
        .execute(&self.pool)
        .await
        .map_err(|cause| fault("a revocation cannot be written", cause))?;
        Ok(())
    }

    async fn is_revoked(&self, jti: Uuid) -> Result<bool> {
        // What is revoked elsewhere is not in a file that was removed.
        self.check_file()?;
        let row = sqlx::query("select jti from revoked_token where jti = $1")
            .bind(jti.to_string())
            .fetch_optional(&self.pool)
            .await
            .map_err(|cause| fault("the revocations cannot be read", cause))?;
        Ok(row.is_some())
    }

    async fn forget_revocations(&self, now: OffsetDateTime) -> Result<u64> {
        self.check_file()?;
        let done = sqlx::query("delete from revoked_token where keep_until < $1")
            .bind(micros(now))
            .execute(&self.pool)
            .await
            .map_err(|cause| fault("old revocations cannot be removed", cause))?;
        Ok(done.rows_affected())
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

fn micros(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX)
}

fn damaged(column: &str) -> Error {
    Error::new(ErrorKind::Io, "the broker's database is damaged")
        .because_of(format!("{column} has an impossible value"))
        .hint("restore a backup")
}

/// Reads columns of one table.
struct Columns<'a> {
    table: &'static str,
    row: &'a AnyRow,
}

impl<'a> Columns<'a> {
    fn get<T>(&self, column: &str) -> Result<T>
    where
        T: sqlx::Decode<'a, sqlx::Any> + sqlx::Type<sqlx::Any>,
    {
        self.row.try_get(column).map_err(|_| self.damaged(column))
    }

    fn time(&self, column: &str) -> Result<OffsetDateTime> {
        let micros: i64 = self.get(column)?;
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000)
            .map_err(|_| self.damaged(column))
    }

    fn damaged(&self, column: &str) -> Error {
        damaged(&format!("{}.{column}", self.table))
    }
}

fn key_from(row: &AnyRow) -> Result<StoredKey> {
    let columns = Columns { table: "signing_key", row };
    let purpose: String = columns.get("purpose")?;
    let state: String = columns.get("state")?;
    Ok(StoredKey {
        kid: columns.get("kid")?,
        purpose: Purpose::from_name(&purpose).ok_or_else(|| columns.damaged("purpose"))?,
        algorithm: columns.get("algorithm")?,
        state: KeyState::from_name(&state).ok_or_else(|| columns.damaged("state"))?,
        sealed: columns.get("sealed")?,
        kek_id: columns.get("kek_id")?,
        created_at: columns.time("created_at")?,
        changed_at: columns.time("changed_at")?,
    })
}

fn record_from(row: &AnyRow) -> Result<(u64, Record)> {
    let columns = Columns { table: "audit_record", row };
    let uuid =
        |column: &str, text: String| Uuid::parse_str(&text).map_err(|_| columns.damaged(column));
    let number =
        |column: &str| columns.get::<i64>(column)?.try_into().map_err(|_| columns.damaged(column));
    let decision: String = columns.get("decision")?;
    let jti: Option<String> = columns.get("jti")?;
    let record = Record {
        at: columns.time("at")?,
        request_id: uuid("request_id", columns.get("request_id")?)?,
        action: columns.get("action")?,
        decision: Decision::from_name(&decision).ok_or_else(|| columns.damaged("decision"))?,
        reason: columns.get("reason")?,
        principal: Principal { issuer: columns.get("issuer")?, subject: columns.get("subject")? },
        client: columns.get("client")?,
        source: columns.get("source")?,
        role: columns.get("role")?,
        audience: columns.get("audience")?,
        scope: columns.get("scope")?,
        ttl: number("ttl")?,
        jti: jti.map(|jti| uuid("jti", jti)).transpose()?,
        policy_id: columns.get("policy_id")?,
        policy_hash: columns.get("policy_hash")?,
    };
    Ok((number("sequence")?, record))
}

#[cfg(test)]
pub(crate) mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::broker::store::sqlite;

    /// A record that tells itself apart by its reason.
    pub(crate) fn record(reason: &str) -> Record {
        Record {
            at: datetime!(2026-01-01 12:00:00.123456 UTC),
            request_id: Uuid::nil(),
            action: "issue".into(),
            decision: Decision::Issued,
            reason: reason.into(),
            principal: Principal { issuer: "https://i.example".into(), subject: "alice".into() },
            client: "cli".into(),
            source: "127.0.0.1".into(),
            role: "deploy".into(),
            audience: "https://api.example".into(),
            scope: "a b".into(),
            ttl: 900,
            jti: Some(Uuid::max()),
            policy_id: Some("p".into()),
            policy_hash: "00".into(),
        }
    }

    #[tokio::test]
    async fn records_come_back_as_they_were() {
        let store = sqlite::in_memory().await.unwrap();
        let denied = Record {
            decision: Decision::Denied,
            jti: None,
            policy_id: None,
            reason: "no policy permits it; '\"\\ \u{1f512}".into(),
            ..record("")
        };
        store.append(&[record("a"), denied.clone()]).await.unwrap();
        let kept = store.records(0, 9).await.unwrap();
        assert_eq!(kept, [(1, record("a")), (2, denied)]);
    }

    #[tokio::test]
    async fn sequence_numbers_have_no_gaps_under_concurrency() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.db");
        // Two processes on one database, as far as SQLite can tell.
        let stores = [sqlite::open(&path).await.unwrap(), sqlite::open(&path).await.unwrap()];
        let stores: Vec<_> = stores.into_iter().map(std::sync::Arc::new).collect();
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..20 {
            let store = stores[n % 2].clone();
            tasks.spawn(async move {
                store.append(&[record("x"), record("y"), record("z")]).await.unwrap()
            });
        }
        let mut firsts = tasks.join_all().await;
        firsts.sort_unstable();
        assert_eq!(firsts, (0..20).map(|n| n * 3 + 1).collect::<Vec<u64>>());
        let kept = stores[0].records(0, 100).await.unwrap();
        assert_eq!(kept.iter().map(|(s, _)| *s).collect::<Vec<_>>(), (1..=60).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn revocations_are_kept_until_nobody_needs_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.db");
        let store = sqlite::open(&path).await.unwrap();
        let (at, keep_until) =
            (datetime!(2026-01-01 12:00 UTC), datetime!(2026-01-01 12:15:00.5 UTC));
        let revocation = Revocation { jti: Uuid::max(), at, keep_until };
        for _ in 0..3 {
            store.revoke(&revocation).await.unwrap();
        }
        store.close().await;
        assert!(store.is_revoked(Uuid::max()).await.is_err(), "it cannot say no");
        let store = sqlite::open(&path).await.unwrap();
        assert!(store.is_revoked(Uuid::max()).await.unwrap());
        assert!(!store.is_revoked(Uuid::nil()).await.unwrap());
        assert_eq!(store.forget_revocations(keep_until).await.unwrap(), 0);
        let later = keep_until + time::Duration::MICROSECOND;
        assert_eq!(store.forget_revocations(later).await.unwrap(), 1);
        assert!(!store.is_revoked(Uuid::max()).await.unwrap());
        files::remove(&path).unwrap();
        assert!(store.is_revoked(Uuid::max()).await.is_err());
        assert!(store.revoke(&revocation).await.is_err());
    }

    #[tokio::test]
    async fn only_one_key_can_be_active() {
        let store = sqlite::in_memory().await.unwrap();
        let key = |kid: &str, state| StoredKey {
            kid: kid.into(),
            purpose: Purpose::AccessToken,
            algorithm: "ES256".into(),
            state,
            sealed: vec![0, 1, 255],
            kek_id: "k".into(),
            created_at: datetime!(2026-01-01 12:00 UTC),
            changed_at: datetime!(2026-01-01 12:00 UTC),
        };
        assert!(store.add_key(&key("a", KeyState::Active)).await.unwrap());
        assert!(!store.add_key(&key("b", KeyState::Active)).await.unwrap());
        assert!(store.add_key(&key("c", KeyState::Published)).await.unwrap());
        assert!(store.add_key(&key("d", KeyState::Published)).await.unwrap());
        let kept = store.keys().await.unwrap();
        assert_eq!(kept.iter().map(|k| &k.kid[..]).collect::<Vec<_>>(), ["a", "c", "d"]);
        assert_eq!(kept[0], key("a", KeyState::Active));
    }
}
