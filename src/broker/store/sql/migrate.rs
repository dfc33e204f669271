//! Bringing a database up to date.
//!
//! Several processes may do it at the same time. There is no lock for that: each
//! migration and the row that says it was made are one transaction, so whoever is
//! second fails, looks again, and finds it made.

use std::borrow::Cow;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, SqlSafeStr as _};

use super::engine::some_of;
use super::failure::{code, fault, is_conflict, remedy};
use super::{Engine, SqlStore, tree};
use crate::broker::store::open::Made;
use crate::error::{Error, ErrorKind, Result};

/// How often it is begun anew because another process was quicker.
const TRIES: u32 = 40;

/// How long the other one is given each time.
const PAUSE: Duration = Duration::from_millis(100);

/// What an engine answers where another process has just made the same thing:
/// unique_violation, duplicate_table, duplicate_object, duplicate_column,
/// undefined_table (it was there a moment ago), and PostgreSQL's own word for two who
/// change one row of its catalogue; at SQLite the row that says so, and a file that is
/// being written to.
const MADE_MEANWHILE: [&str; 9] =
    ["23505", "42P07", "42710", "42701", "42P01", "XX000", "1555", "5", "517"];

/// What an engine answers where somebody else uses what is to be changed: lock_not_available.
const IN_USE: &str = "55P03";

/// How long those are given, about.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a migration begins with where there are locks to wait for. Whoever comes after one who waits
/// for a lock waits as well, and somebody may have read a table for hours: so it is tried for a
/// moment, again and again, instead. A moment that is longer than `deadlock_timeout`, which is a second
/// where nobody says otherwise: from then on PostgreSQL ends an autovacuum that is in the way. What
/// it does once it has the lock may take as long as it takes.
const WITH_LOCKS: &str = "set local lock_timeout = '2s'; set local statement_timeout = 0;\n";

/// Who made a database of another version.
const EARLIER: &str = "an earlier version of tmpcred made it";
const NEWER: &str = "a newer version of tmpcred made it";

/// What to do about a database that a broker can be started on.
pub(in crate::broker::store) const STARTED_ONCE: &str =
    "start this version's broker once: it brings the database up to date";

/// The same, of one of an earlier version, on which a broker of that may be running.
pub(in crate::broker::store) const RUN_BY_EARLIER: &str = "use the version that the broker runs, or start this version's broker once: it brings the \
     database up to date, and no earlier version can be started on it then";

/// All migrations, each of which begins with this.
fn migrations(begin: &str) -> Vec<Migration> {
    let files = [
        ("first", include_str!("../migrations/0001_first.sql")),
        ("revoked token", include_str!("../migrations/0002_revoked_token.sql")),
        ("units", include_str!("../migrations/0003_units.sql")),
        ("audit tree", include_str!("../migrations/0004_audit_tree.sql")),
        ("audit seal", include_str!("../migrations/0005_audit_seal.sql")),
        ("actor", include_str!("../migrations/0006_actor.sql")),
        ("cutoff", include_str!("../migrations/0007_cutoff.sql")),
        ("outbox", include_str!("../migrations/0008_outbox.sql")),
        ("erasure", include_str!("../migrations/0009_erasure.sql")),
        ("find", include_str!("../migrations/0010_find.sql")),
        ("trace", include_str!("../migrations/0011_trace.sql")),
        ("active", include_str!("../migrations/0012_active.sql")),
        ("issuer keys", include_str!("../migrations/0013_issuer_keys.sql")),
        ("elevation", include_str!("../migrations/0014_elevation.sql")),
        ("notify", include_str!("../migrations/0015_notify.sql")),
        ("enrolled key", include_str!("../migrations/0016_enrolled_key.sql")),
        ("drill", include_str!("../migrations/0017_drill.sql")),
        ("uses", include_str!("../migrations/0018_uses.sql")),
        ("asker", include_str!("../migrations/0019_asker.sql")),
        ("root key", include_str!("../migrations/0020_root_key.sql")),
        ("claims", include_str!("../migrations/0021_claims.sql")),
        ("due", include_str!("../migrations/0022_due.sql")),
        ("due alone", include_str!("../migrations/0023_due_alone.sql")),
    ];
    let made = (1..).zip(files).map(|(version, (name, sql))| {
        let (kind, text) = (MigrationType::Simple, sql.into_sql_str());
        let made = Migration::new(version, Cow::Borrowed(name), kind, text, false);
        // Whoever runs the database may have built it while brokers went on, which nothing
        // within a transaction can. What the migration is known by stays as it was.
        let sql = sql.replace("\ncreate index ", "\ncreate index if not exists ");
        let sql = format!("{begin}{sql}");
        Migration { sql: AssertSqlSafe(sql).into_sql_str(), ..made }
    });
    made.collect()
}

/// What an engine adds in its own words.
pub(in crate::broker::store) struct Own {
    /// Finds a row where it was added before.
    pub is_there: &'static str,
    /// Adds it.
    pub add: &'static str,
}

impl SqlStore {
    /// Brings the database up to date.
    pub(in crate::broker::store) async fn migrate(&self, own: &Own) -> Result<()> {
        let begin = if self.engine.has_locks() { WITH_LOCKS } else { "" };
        let mut migrator = Migrator::with_migrations(migrations(begin));
        migrator.set_locking(false);
        let (mut tries, mut told) = (0, false);
        while let Err(cause) = migrator.run(&self.engine.pool).await {
            if is_in_use(&cause) {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%cause, "the database cannot be brought up to date while somebody uses what is to be changed, such as a backup; it is tried until they are done");
                }
                tokio::time::sleep(some_of(PATIENCE)).await;
                continue;
            }
            tries += 1;
            let was_race = is_race(&cause) || self.has_made_meanwhile(&cause).await;
            if tries == TRIES || !was_race {
                return Err(refused(cause));
            }
            tracing::debug!(%cause, "another process brings the database up to date");
            tokio::time::sleep(PAUSE).await;
        }
        add(&self.engine, own).await?;
        while tree::catch_up(&self.engine).await? {
            tracing::info!("puts the records of an earlier version into the tree of the audit log");
        }
        Ok(())
    }

    /// Whether a migration failed that is made by now: SQLite has one code for all that is wrong with
    /// a statement.
    async fn has_made_meanwhile(&self, cause: &MigrateError) -> bool {
        let MigrateError::ExecuteMigration(_, version) = cause else { return false };
        let made = sqlx::query("select 1 from _sqlx_migrations where version = $1")
            .bind(*version)
            .fetch_optional(&self.engine.pool);
        made.await.is_ok_and(|made| made.is_some())
    }

    /// What there is: a database of nobody's yet, one of an earlier version, or one of this.
    ///
    /// # Errors
    /// Where it is of a newer version, or cannot be read.
    pub(in crate::broker::store) async fn found(&self) -> Result<Made> {
        match self.version().await {
            Err(cause) if is_missing(&cause) => Ok(Made::Never),
            Err(cause) => Err(fault("it cannot be read", cause)),
            Ok(None) => Ok(Made::Never),
            Ok(Some(made)) if made < newest() => Ok(Made::Earlier),
            Ok(Some(_)) => {
                self.require_this_version(STARTED_ONCE).await?;
                Ok(Made::Now)
            }
        }
    }

    /// The last migration that was made.
    async fn version(&self) -> std::result::Result<Option<i64>, sqlx::Error> {
        sqlx::query_scalar("select max(version) from _sqlx_migrations")
            .fetch_one(&self.engine.pool)
            .await
    }

    /// Refuses a database that another version made; `earlier` is what to do about an earlier
    /// one.
    pub(in crate::broker::store) async fn require_this_version(&self, earlier: &str) -> Result<()> {
        let refused = || Error::new(ErrorKind::Config, "it is of no broker of this version");
        let because = |cause| {
            let error = refused().hint(STARTED_ONCE);
            fault("", cause).causes().iter().cloned().fold(error, Error::because_of)
        };
        let (made, newest) = (self.version().await.map_err(because)?, newest());
        match made.unwrap_or_default() {
            made if made < newest => {
                return Err(refused().because_of(EARLIER).hint(earlier));
            }
            made if made > newest => {
                return Err(refused().because_of(NEWER).hint("use that version"));
            }
            _ => {}
        }
        let head =
            sqlx::query("select tree_size, seal from audit_head").fetch_optional(&self.engine.pool);
        match head.await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(refused().hint(STARTED_ONCE)),
            Err(cause) => Err(because(cause)),
        }
    }
}

/// The last migration that there is.
fn newest() -> i64 {
    migrations("").iter().map(|one| one.version).max().unwrap_or_default()
}

/// Whether there is no such table: undefined_table, and what SQLite has for all that is wrong with
/// a statement.
fn is_missing(cause: &sqlx::Error) -> bool {
    code(cause).is_some_and(|code| ["42P01", "1"].contains(&code.as_str()))
}

/// Whether it failed because somebody uses what is to be changed.
fn is_in_use(cause: &MigrateError) -> bool {
    database_cause(cause).and_then(code).is_some_and(|code| code == IN_USE)
}

/// Whether it failed because another process does the same.
fn is_race(cause: &MigrateError) -> bool {
    database_cause(cause).is_some_and(|cause| {
        is_conflict(cause)
            || code(cause).is_some_and(|code| MADE_MEANWHILE.contains(&code.as_str()))
    })
}

/// What the database has against it, where it is that.
fn database_cause(cause: &MigrateError) -> Option<&sqlx::Error> {
    match cause {
        MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) => Some(cause),
        _ => None,
    }
}

fn refused(cause: MigrateError) -> Error {
    let error = Error::new(ErrorKind::Config, "it cannot be brought up to date");
    match cause {
        MigrateError::VersionMissing(_) => error
            .because_of(NEWER)
            .hint("use that version, or restore a backup from before the upgrade"),
        cause => match database_cause(&cause).and_then(remedy) {
            Some(hint) => error.because(cause).hint(hint),
            None => error.because(cause),
        },
    }
}

/// Adds what is the engine's own, once: the end of the log is where processes wait for
/// one another.
async fn add(engine: &Engine, own: &Own) -> Result<()> {
    let attempt = || async {
        let mut transaction = engine.begin().await?;
        sqlx::query("update audit_head set last_sequence = last_sequence where id = 1")
            .execute(&mut *transaction)
            .await?;
        let found = sqlx::query(own.is_there).fetch_optional(&mut *transaction).await?;
        if found.is_none() {
            sqlx::raw_sql(own.add).execute(&mut *transaction).await?;
            transaction.commit().await?;
        }
        Ok(())
    };
    engine.work("it cannot be brought up to date", attempt).await
}

#[cfg(test)]
mod tests;
