//! Erasing what is personal in records, so that their leaves stay what they were.

use async_trait::async_trait;
use sqlx::{Any, AssertSqlSafe, Row as _, Transaction};

use super::SqlStore;
use super::failure::Failure;
use super::rows::{damaged, leaf_from};
use crate::broker::audit::leaf::{COLUMNS, ERASED, PLAIN, stored};
use crate::broker::store::{Erasable, ErasureStore, Traces};
use crate::credential::Principal;
use crate::error::Result;

/// How many parameters of the statement come before the texts that are looked for.
const FIRST_TEXT: usize = 3;

#[async_trait]
impl ErasureStore for SqlStore {
    async fn of_person(&self, person: &Traces, after: u64, limit: u32) -> Result<Erasable> {
        let mut texts = Vec::new();
        let mut place = |text: &str| {
            texts.push(text.to_string());
            format!("${}", FIRST_TEXT + texts.len())
        };
        let asked = person.callers.iter().map(|Principal { issuer, subject }| {
            format!("issuer = {} and subject = {}", place(issuer), place(subject))
        });
        let asked: Vec<_> = asked.collect();
        // Not by `like`: one engine takes names for the same that differ in their case.
        let acted = person.actors.iter().map(|id| {
            let id = place(&format!(" {id} "));
            format!("replace(' ' || actor || ' ', {id}, '') <> ' ' || actor || ' '")
        });
        let acted: Vec<_> = acted.collect();
        // Nothing but texts of this function is put together here.
        let statement = format!(
            "select sequence, case when leaf_version = $2 then 1 else 0 end as fixed
             from audit_record where sequence > $1 and erased is null
                 and ({} or actor is not null and ({}))
             order by sequence limit $3",
            asked.join(" or "),
            acted.join(" or ")
        );
        let ask = || async {
            let mut transaction = self.engine.begin_long(false).await?;
            let query = sqlx::query(AssertSqlSafe(statement.clone()))
                .bind(stored(after))
                .bind(PLAIN)
                .bind(i64::from(limit));
            let query = texts.iter().fold(query, |query, text| query.bind(text.clone()));
            let rows = query.fetch_all(&mut *transaction).await?;
            transaction.rollback().await?;
            Ok(rows)
        };
        let rows = self.engine.work_long("the audit log cannot be read", ask).await?;
        let mut found = Erasable::default();
        for row in rows {
            let number = |column: &str| {
                let number = row.try_get::<i64, _>(column).ok();
                let number = number.and_then(|number| u64::try_from(number).ok());
                number.ok_or_else(|| damaged(&format!("audit_record.{column}")))
            };
            let sequence = number("sequence")?;
            match number("fixed")? {
                0 => found.records.push(sequence),
                _ => found.fixed += 1,
            }
            found.last = Some(sequence);
        }
        Ok(found)
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
                 actor = case when actor is null then null else $1 end,
                 claims = case when claims is null then null else $1 end, salt = null, erased = $2
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
