//! Erasing what is personal in records, so that their leaves stay what they were.

use async_trait::async_trait;
use sqlx::{Any, AssertSqlSafe, Transaction};

use super::SqlStore;
use super::failure::Failure;
use super::rows::{damaged, leaf_from};
use crate::broker::audit::leaf::{COLUMNS, ERASED, PLAIN, stored};
use crate::broker::store::{Erasable, ErasureStore};
use crate::error::Result;

/// Holds for what tells of somebody and is not erased: `$1` is the issuer, `$2` the
/// subject, `$3` what the ids of those who acted are compared with.
const OF_PERSON: &str = "erased is null and ((issuer = $1 and subject = $2)
    or ' ' || coalesce(actor, '') || ' ' like $3 escape '!')";

#[async_trait]
impl ErasureStore for SqlStore {
    async fn of_person(
        &self,
        issuer: &str,
        subject: &str,
        id: &str,
        limit: u32,
    ) -> Result<Erasable> {
        let acted = format!("% {} %", id.replace('!', "!!").replace('%', "!%").replace('_', "!_"));
        let ask = async |what: &str, rest: &str| {
            let statement = format!("select {what} from audit_record where {OF_PERSON} {rest}");
            let ask = || {
                sqlx::query_scalar::<_, i64>(AssertSqlSafe(statement.clone()))
                    .bind(issuer)
                    .bind(subject)
                    .bind(&acted)
                    .bind(PLAIN)
                    .bind(i64::from(limit))
                    .fetch_all(&self.engine.pool)
            };
            self.engine.read("the audit log cannot be read", ask).await
        };
        let numbers = ask("sequence", "and leaf_version <> $4 order by sequence limit $5").await?;
        let fixed = ask("count(*)", "and leaf_version = $4 limit $5").await?;
        let number = |n: i64| u64::try_from(n).map_err(|_| damaged("audit_record.sequence"));
        Ok(Erasable {
            records: numbers.into_iter().map(number).collect::<Result<_>>()?,
            fixed: fixed.into_iter().map(number).sum::<Result<_>>()?,
        })
    }
}

/// Erases all of these records, or none.
pub(super) async fn erase(
    transaction: &mut Transaction<'_, Any>,
    sequences: &[u64],
) -> Result<bool, Failure> {
    let select = format!(
        "select {}, leaf_version, salt, erased from audit_record where sequence = $1",
        COLUMNS.join(", ")
    );
    let mut kept = Vec::with_capacity(sequences.len());
    for sequence in sequences {
        let row = sqlx::query(AssertSqlSafe(select.clone()))
            .bind(stored(*sequence))
            .fetch_optional(&mut **transaction)
            .await?;
        let leaf = row.as_ref().map(leaf_from).transpose()?;
        let Some(hashes) = leaf.and_then(|leaf| leaf.kept()) else { return Ok(false) };
        kept.push(hashes);
    }
    for (sequence, hashes) in sequences.iter().zip(kept) {
        sqlx::query(
            "update audit_record set reason = $1, subject = $1, client = $1, source = $1,
                 actor = case when actor is null then null else $1 end, salt = null, erased = $2
             where sequence = $3",
        )
        .bind(ERASED)
        .bind(hashes)
        .bind(stored(*sequence))
        .execute(&mut **transaction)
        .await?;
    }
    Ok(true)
}
