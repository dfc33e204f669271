//! Reading the audit log: what is in it, and what was signed of it.

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::rows::{damaged, micros, record_from};
use super::tree::{NUMBERED, is_damage};
use super::{SqlStore, fault, head, tree};
use crate::broker::audit::leaf::{COLUMNS, Leaf, stored};
use crate::broker::audit::seal::SealedEnd;
use crate::broker::audit::tree::Hash;
use crate::broker::store::{Filter, LogEnds, LogStore, Noted, Row};
use crate::error::{Error, Result};

fn unreadable(cause: sqlx::Error) -> Error {
    fault("the audit log cannot be read", cause)
}

#[async_trait]
impl LogStore for SqlStore {
    async fn ends(&self) -> Result<LogEnds> {
        let record = async |what: &str, which: &str| {
            let statement = format!("select {what} from audit_record where {which}");
            sqlx::query_scalar::<_, Option<i64>>(sqlx::AssertSqlSafe(statement))
                .fetch_one(&self.pool)
                .await
                .map_err(unreadable)
        };
        let without = record("count(*)", &format!("not ({NUMBERED})")).await?;
        let first = record("min(sequence)", NUMBERED).await?;
        let last = record("max(sequence)", NUMBERED).await?;
        // In this order: whoever appends meanwhile makes the second one larger.
        let row = sqlx::query("select last_sequence, tree_size from audit_head where id = 1")
            .fetch_one(&self.pool)
            .await
            .map_err(unreadable)?;
        let number = |column: &str| {
            let number: i64 = row.try_get(column).map_err(|_| damaged(column))?;
            u64::try_from(number).map_err(|_| damaged(column))
        };
        Ok(LogEnds {
            without_number: u64::try_from(without.unwrap_or_default()).unwrap_or_default(),
            first_record: first.unwrap_or(1),
            last_record: u64::try_from(last.unwrap_or_default()).unwrap_or_default(),
            promised: number("last_sequence")?,
            in_tree: number("tree_size")?,
        })
    }

    async fn sealed_end(&self) -> Result<Option<SealedEnd>> {
        let row = sqlx::query("select tree_size, frontier, seal from audit_head where id = 1")
            .fetch_one(&self.pool)
            .await
            .map_err(unreadable)?;
        let size: i64 = row.try_get("tree_size").map_err(|_| damaged("audit_head.tree_size"))?;
        let size = u64::try_from(size).map_err(|_| damaged("audit_head.tree_size"))?;
        head::sealed_end(&row, size)
    }

    async fn leaves(&self, after: u64, limit: u32) -> Result<Vec<Leaf>> {
        tree::leaves(&self.pool, after, limit).await
    }

    async fn tile(&self, level: u32, number: u64) -> Result<Option<Vec<u8>>> {
        tree::tile(&self.pool, level, number).await
    }

    async fn root_at(&self, size: u64) -> Result<Hash> {
        tree::root_at(&self.pool, size).await
    }

    async fn notes(&self, after: u64, limit: u32) -> Result<Vec<Noted>> {
        let sizes: Vec<i64> = sqlx::query_scalar(
            "select size from audit_checkpoint where size > $1 and size = cast(size as bigint)
             order by size limit $2",
        )
        .bind(stored(after))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await
        .map_err(unreadable)?;
        let (Some(first), Some(last)) = (sizes.first(), sizes.last()) else {
            return Ok(Vec::new());
        };
        match self.noted(*first, *last).await {
            Ok(notes) => Ok(notes),
            Err(cause) if is_damage(&cause) => {
                let mut notes = Vec::with_capacity(sizes.len());
                for size in sizes {
                    notes.push(self.noted_at(size).await?);
                }
                Ok(notes)
            }
            Err(cause) => Err(unreadable(cause)),
        }
    }

    async fn latest_note(&self) -> Result<Option<Noted>> {
        let size: Option<i64> = sqlx::query_scalar(
            "select size from audit_checkpoint where size = cast(size as bigint)
             order by size desc limit 1",
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(unreadable)?;
        match size {
            Some(size) => self.noted_at(size).await.map(Some),
            None => Ok(None),
        }
    }

    async fn page(&self, after: u64, limit: u32) -> Result<Vec<Row>> {
        let statement = |columns: &str| {
            format!(
                "select {columns} from audit_record where sequence > $1 and {NUMBERED}
                 order by sequence limit $2"
            )
        };
        self.rows(statement, vec![stored(after)], Vec::new(), limit).await
    }

    async fn find(&self, filter: &Filter, limit: u32) -> Result<Vec<Row>> {
        let mut conditions = vec![NUMBERED.to_string()];
        let mut numbers = Vec::new();
        let mut texts = Vec::new();
        for (condition, moment) in [("at >=", filter.since), ("at <", filter.until)] {
            if let Some(moment) = moment {
                numbers.push(micros(moment));
                conditions.push(format!("{condition} ${}", numbers.len()));
            }
        }
        let exact = [
            ("issuer", filter.issuer.clone()),
            ("subject", filter.subject.clone()),
            ("role", filter.role.clone()),
            ("decision", filter.decision.map(|decision| decision.as_str().to_string())),
            ("request_id", filter.request_id.map(|id| id.to_string())),
            ("jti", filter.jti.map(|id| id.to_string())),
        ];
        for (column, value) in exact {
            if let Some(value) = value {
                texts.push(value);
                conditions.push(format!("{column} = ${}", numbers.len() + texts.len()));
            }
        }
        let last = numbers.len() + texts.len() + 1;
        // Nothing but names of columns and numbers of parameters is put together here.
        let found = conditions.join(" and ");
        let statement = |columns: &str| {
            format!(
                "select {columns} from audit_record where {found}
                 order by sequence desc limit ${last}"
            )
        };
        let mut rows = self.rows(statement, numbers, texts, limit).await?;
        rows.reverse();
        Ok(rows)
    }
}

impl SqlStore {
    /// The records that a statement finds, which takes columns. Somebody may have put
    /// something into a row that cannot be read: the others can.
    async fn rows(
        &self,
        statement: impl Fn(&str) -> String,
        numbers: Vec<i64>,
        texts: Vec<String>,
        limit: u32,
    ) -> Result<Vec<Row>> {
        let query = |columns: &str| {
            let mut query = sqlx::query(sqlx::AssertSqlSafe(statement(columns)));
            for number in &numbers {
                query = query.bind(*number);
            }
            for text in &texts {
                query = query.bind(text.clone());
            }
            query.bind(i64::from(limit)).fetch_all(&self.pool)
        };
        match query(&COLUMNS.join(", ")).await {
            Ok(rows) => return rows.iter().map(readable).collect(),
            Err(cause) if !is_damage(&cause) => return Err(unreadable(cause)),
            Err(_) => {}
        }
        let statement =
            format!("select {} from audit_record where sequence = $1", COLUMNS.join(", "));
        let mut found = Vec::new();
        for row in query("sequence").await.map_err(unreadable)? {
            let number = number_of(&row)?;
            let one = sqlx::query(sqlx::AssertSqlSafe(statement.clone()))
                .bind(number)
                .fetch_optional(&self.pool)
                .await;
            match one {
                Ok(None) => {}
                Ok(Some(row)) => found.push(readable(&row)?),
                Err(cause) if is_damage(&cause) => {
                    found.push((u64::try_from(number).unwrap_or_default(), None));
                }
                Err(cause) => return Err(unreadable(cause)),
            }
        }
        Ok(found)
    }

    /// The checkpoints of these sizes.
    async fn noted(&self, first: i64, last: i64) -> Result<Vec<Noted>, sqlx::Error> {
        let rows = sqlx::query(
            "select size, note from audit_checkpoint
             where size >= $1 and size <= $2 and size = cast(size as bigint) order by size",
        )
        .bind(first)
        .bind(last)
        .fetch_all(&self.pool)
        .await?;
        let noted = |row: &AnyRow| {
            let size: i64 = row.try_get("size")?;
            // One that is no text was signed by nobody.
            let note = row.try_get("note").unwrap_or_default();
            Ok(Noted { size: u64::try_from(size).unwrap_or_default(), note })
        };
        rows.iter().map(noted).collect()
    }

    async fn noted_at(&self, size: i64) -> Result<Noted> {
        let empty = || Noted { size: u64::try_from(size).unwrap_or_default(), note: String::new() };
        match self.noted(size, size).await {
            Ok(mut notes) => Ok(notes.pop().unwrap_or_else(empty)),
            Err(cause) if is_damage(&cause) => Ok(empty()),
            Err(cause) => Err(unreadable(cause)),
        }
    }
}

/// A record, where it is one.
fn readable(row: &AnyRow) -> Result<Row> {
    match record_from(row) {
        Ok((number, record)) => Ok((number, Some(record))),
        Err(_) => Ok((u64::try_from(number_of(row)?).unwrap_or_default(), None)),
    }
}

fn number_of(row: &AnyRow) -> Result<i64> {
    row.try_get("sequence").map_err(|_| damaged("audit_record.sequence"))
}
