//! Tokens that were revoked together, and those that can only be introspected.

use async_trait::async_trait;
use percent_encoding::percent_decode_str;
use sqlx::Row;
use time::{Duration, OffsetDateTime};

use super::rows::{damaged, micros, moment};
use super::{SqlStore, fault};
use crate::broker::audit::Decision;
use crate::broker::config::MAX_TTL;
use crate::broker::store::{TokenStore, Whose};
use crate::error::{Error, Result};

fn unreadable(cause: sqlx::Error) -> Error {
    fault("what was revoked cannot be read", cause)
}

#[async_trait]
impl TokenStore for SqlStore {
    async fn cutoffs(
        &self,
        since: OffsetDateTime,
    ) -> Result<Vec<(String, String, OffsetDateTime)>> {
        self.check_file()?;
        let rows = sqlx::query("select kind, id, before from revocation_cutoff where before > $1")
            .bind(micros(since))
            .fetch_all(&self.pool)
            .await
            .map_err(unreadable)?;
        rows.iter()
            .map(|row| {
                let text = |column: &str| {
                    row.try_get::<String, _>(column)
                        .map_err(|_| damaged(&format!("revocation_cutoff.{column}")))
                };
                let before: i64 =
                    row.try_get("before").map_err(|_| damaged("revocation_cutoff.before"))?;
                let before = moment(before).ok_or_else(|| damaged("revocation_cutoff.before"))?;
                Ok((text("kind")?, text("id")?, before))
            })
            .collect()
    }

    async fn opaque(&self, hash: &str) -> Result<Option<String>> {
        self.check_file()?;
        sqlx::query_scalar("select claims from opaque_token where hash = $1")
            .bind(hash)
            .fetch_optional(&self.pool)
            .await
            .map_err(|cause| fault("opaque tokens cannot be read", cause))
    }

    async fn count_issued(
        &self,
        whose: &Whose,
        before: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Result<u64> {
        let longest = Duration::try_from(MAX_TTL).unwrap_or(Duration::MAX);
        let (condition, values): (_, Vec<String>) = match whose {
            Whose::Everybodys => ("", Vec::new()),
            Whose::Issuer(issuer) => ("and issuer = $5", vec![issuer.clone()]),
            Whose::Subject(id) => {
                let (issuer, subject) = id.split_once('#').unwrap_or((id, ""));
                let subject = percent_decode_str(subject).decode_utf8_lossy();
                let values = vec![issuer.to_string(), subject.into_owned(), id.clone()];
                ("and (issuer = $5 and subject = $6 or actor = $7)", values)
            }
            Whose::Role(role) => ("and role = $5", vec![role.clone()]),
            Whose::Client(client) => ("and client = $5", vec![client.clone()]),
        };
        // Nothing but texts of this function is put together here.
        let statement = format!(
            "select count(*) from audit_record
             where at >= $1 and at < $2 and at + ttl * 1000000 > $3 and decision = $4
                 and not exists (select 1 from consumed
                     where kind = 'revoked-token' and id = audit_record.jti) {condition}"
        );
        let mut query = sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(statement))
            .bind(micros(now.saturating_sub(longest)))
            .bind(micros(before))
            .bind(micros(now))
            .bind(Decision::Issued.as_str());
        for value in values {
            query = query.bind(value);
        }
        let count = query.fetch_one(&self.pool).await.map_err(unreadable)?;
        Ok(u64::try_from(count).unwrap_or_default())
    }
}
