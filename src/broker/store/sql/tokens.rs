//! Tokens that were revoked together, and those that can only be introspected.

use async_trait::async_trait;
use percent_encoding::percent_decode_str;
use sqlx::Row;
use sqlx::any::AnyRow;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::SqlStore;
use super::revoked::UNREADABLE;
use super::rows::{damaged, micros, moment};
use crate::broker::audit::Decision;
use crate::broker::config::MAX_TTL;
use crate::broker::store::{OpaqueToken, Revocable, TokenStore, Whose};
use crate::error::Result;

/// Which rows of `revocation_cutoff` as `cut` mean the token of a record. Tokens have the seconds
/// of their records, and a name that has nothing to encode is in an id as it is.
const CUT_OFF: &str = "cut.before > audit_record.at / 1000000 * 1000000
     and (cut.kind = 'all'
         or cut.kind = 'issuer' and cut.id = audit_record.issuer
         or cut.kind = 'role' and cut.id = audit_record.role
         or cut.kind = 'client' and cut.id = audit_record.client
         or cut.kind = 'grant' and cut.id = audit_record.elevation
         or cut.kind = 'subject'
             and (cut.id = audit_record.issuer || '#' || audit_record.subject
                 or cut.id = audit_record.actor))";

/// That the token of a record was not revoked by itself.
const UNREVOKED: &str = "not exists (select 1 from consumed
     where kind = 'revoked-token' and id = audit_record.jti)";

/// Counts tokens that are good. The condition is that of an index, word for word.
fn active() -> String {
    format!(
        "select count(*) from audit_record
         where at + ttl * 1000000 > $1 and decision = 'issued' and {UNREVOKED}
             and not exists (select 1 from revocation_cutoff as cut where {CUT_OFF})"
    )
}

#[async_trait]
impl TokenStore for SqlStore {
    async fn any_revoked(&self, these: Revocable) -> Result<bool> {
        self.check_file()?;
        self.lookups.any_revoked(these).await
    }

    async fn opaque(&self, hash: &str) -> Result<Option<OpaqueToken>> {
        self.check_file()?;
        let ask = || {
            sqlx::query("select hash, claims, seal, keep_until from opaque_token where hash = $1")
                .bind(hash)
                .fetch_optional(&self.engine.pool)
        };
        let row = self.engine.read("opaque tokens cannot be read", ask).await?;
        row.as_ref().map(opaque_from).transpose()
    }

    async fn has_opaque(&self, jti: Uuid) -> Result<bool> {
        // As it is written among what the token says; an id has nothing that `like` reads.
        let said = format!("%\"jti\":\"{jti}\"%");
        let ask = || {
            sqlx::query("select 1 from opaque_token where claims like $1 limit 1")
                .bind(said.clone())
                .fetch_optional(&self.engine.pool)
        };
        Ok(self.engine.read("opaque tokens cannot be read", ask).await?.is_some())
    }

    async fn revoked_until(&self, whose: &Whose) -> Result<Option<OffsetDateTime>> {
        let (kind, id) = whose.parts();
        let ask = || {
            sqlx::query("select before from revocation_cutoff where kind = $1 and id = $2")
                .bind(kind)
                .bind(id.to_string())
                .fetch_optional(&self.engine.pool)
        };
        let row = self.engine.read(UNREADABLE, ask).await?;
        let unreadable = || damaged("revocation_cutoff.before");
        let read = |row: &AnyRow| {
            moment(row.try_get("before").map_err(|_| unreadable())?).ok_or_else(unreadable)
        };
        row.as_ref().map(read).transpose()
    }

    async fn count_issued(
        &self,
        whose: &Whose,
        between: (Option<OffsetDateTime>, OffsetDateTime),
        now: OffsetDateTime,
    ) -> Result<u64> {
        let longest = Duration::try_from(MAX_TTL).unwrap_or(Duration::MAX);
        let (condition, values): (_, Vec<String>) = match whose {
            Whose::Everybodys => ("", Vec::new()),
            Whose::Issuer(issuer) => ("and issuer = $7", vec![issuer.clone()]),
            Whose::Subject(id) => {
                let (issuer, subject) = id.split_once('#').unwrap_or((id, ""));
                let subject = percent_decode_str(subject).decode_utf8_lossy();
                let values = vec![issuer.to_string(), subject.into_owned(), id.clone()];
                ("and (issuer = $7 and subject = $8 or actor = $9)", values)
            }
            Whose::Role(role) => ("and role = $7", vec![role.clone()]),
            Whose::Client(client) => ("and client = $7", vec![client.clone()]),
            Whose::Grant(id) => ("and elevation = $7", vec![id.to_string()]),
        };
        // Nothing but texts of this file is put together here.
        let statement = format!(
            "select count(*) from audit_record
             where at >= $1 and at < $2 and at + ttl * 1000000 > $3 and decision = $4
                 and {UNREVOKED} and not exists (select 1 from revocation_cutoff as cut
                     where not (cut.kind = $5 and cut.id = $6) and {CUT_OFF}) {condition}"
        );
        let (kind, id) = whose.parts();
        let oldest = now.saturating_sub(longest);
        let since = between.0.map_or(oldest, |since| second_after(since).max(oldest));
        let ask = || {
            let query = sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(statement.clone()))
                .bind(micros(since))
                .bind(micros(second_after(between.1)))
                .bind(micros(now))
                .bind(Decision::Issued.as_str())
                .bind(kind)
                .bind(id.to_string());
            let query = values.iter().fold(query, |query, value| query.bind(value.clone()));
            query.fetch_one(&self.engine.pool)
        };
        let count = self.engine.read(UNREADABLE, ask).await?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    async fn count_active(&self, now: OffsetDateTime) -> Result<u64> {
        let ask = || {
            let query = sqlx::query_scalar(sqlx::AssertSqlSafe(active()));
            query.bind(micros(now)).fetch_one(&self.engine.pool)
        };
        let count: i64 = self.engine.read(UNREADABLE, ask).await?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    async fn forget_cutoffs(&self, before: OffsetDateTime, limit: u32) -> Result<u64> {
        // It is asked twice whether a row is old: somebody may revoke the same anew at this moment,
        // and PostgreSQL, which waits for them, looks at nothing but the outer question again.
        let forget = || {
            sqlx::query(
                "delete from revocation_cutoff where keep_until < $1 and (kind, id) in
                    (select kind, id from revocation_cutoff where keep_until < $1
                     order by keep_until, id limit $2)",
            )
            .bind(micros(before))
            .bind(i64::from(limit))
        };
        self.forget(forget).await
    }

    async fn forget_opaque(&self, before: OffsetDateTime, limit: u32) -> Result<u64> {
        let forget = || {
            sqlx::query(
                "delete from opaque_token where hash in
                    (select hash from opaque_token where keep_until < $1
                     order by keep_until, hash limit $2)",
            )
            .bind(micros(before))
            .bind(i64::from(limit))
        };
        self.forget(forget).await
    }
}

/// The end of the second that a moment is in: tokens say in whole seconds when they were issued,
/// so all of that second were issued before.
fn second_after(at: OffsetDateTime) -> OffsetDateTime {
    let second = at.replace_nanosecond(0).unwrap_or(at);
    if second == at { at } else { second.saturating_add(Duration::SECOND) }
}

fn opaque_from(row: &AnyRow) -> Result<OpaqueToken> {
    let unreadable = |_| damaged("opaque_token");
    let keep_until = moment(row.try_get("keep_until").map_err(unreadable)?);
    Ok(OpaqueToken {
        hash: row.try_get("hash").map_err(unreadable)?,
        claims: row.try_get("claims").map_err(unreadable)?,
        seal: row.try_get("seal").map_err(unreadable)?,
        keep_until: keep_until.ok_or_else(|| damaged("opaque_token.keep_until"))?,
    })
}

#[cfg(test)]
impl SqlStore {
    /// How the engine would count what is good.
    async fn plan_of_active(&self) -> String {
        self.plan_of(&active().replace("$1", "0")).await
    }

    /// How the engine would do this.
    pub(super) async fn plan_of(&self, statement: &str) -> String {
        // Where there is next to nothing, PostgreSQL reads all of it.
        let (how, read) = match self.engine.clock() {
            Some(_) => ("set local enable_seqscan = off", "explain"),
            None => ("select 1", "explain query plan"),
        };
        let mut transaction = self.engine.begin().await.unwrap();
        sqlx::query(how).execute(&mut *transaction).await.unwrap();
        let statement = format!("{read} {statement}");
        let rows = sqlx::query(sqlx::AssertSqlSafe(statement)).fetch_all(&mut *transaction).await;
        let text = |row: &AnyRow| row.try_get::<String, _>(row.len() - 1).unwrap();
        let text = |row: &AnyRow| row.try_get::<String, _>("detail").unwrap_or_else(|_| text(row));
        rows.unwrap().iter().map(text).collect()
    }
}

#[cfg(test)]
mod tests;
