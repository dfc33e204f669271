//! Reading the audit log: what is in it, and what was signed of it.

use async_trait::async_trait;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::rows::{damaged, micros, record_from};
use super::{SqlStore, tree};
use crate::broker::audit::Record;
use crate::broker::audit::leaf::{COLUMNS, Leaf, stored};
use crate::broker::audit::tree::Hash;
use crate::broker::store::{Filter, LogEnds, LogStore, Noted};
use crate::error::Result;

const UNREADABLE: &str = "the audit log cannot be read";

#[async_trait]
impl LogStore for SqlStore {
    async fn ends(&self) -> Result<LogEnds> {
        let pool = &self.engine.pool;
        let record = |which: &'static str| {
            let ask = move || sqlx::query_scalar::<_, Option<i64>>(which).fetch_one(pool);
            self.engine.read(UNREADABLE, ask)
        };
        let first = record("select min(sequence) from audit_record").await?;
        let last = record("select max(sequence) from audit_record").await?;
        // In this order: whoever appends meanwhile makes the second one larger.
        let head = || {
            sqlx::query("select last_sequence, tree_size from audit_head where id = 1")
                .fetch_one(pool)
        };
        let row = self.engine.read(UNREADABLE, head).await?;
        let number = |column: &str| {
            let number: i64 = row.try_get(column).map_err(|_| damaged(column))?;
            u64::try_from(number).map_err(|_| damaged(column))
        };
        Ok(LogEnds {
            first_record: first.unwrap_or(1),
            last_record: u64::try_from(last.unwrap_or_default()).unwrap_or_default(),
            promised: number("last_sequence")?,
            in_tree: number("tree_size")?,
        })
    }

    async fn leaves(&self, after: u64, limit: u32) -> Result<Vec<Leaf>> {
        tree::leaves(&self.engine, after, limit).await
    }

    async fn tile(&self, level: u32, number: u64) -> Result<Option<Vec<u8>>> {
        tree::tile(&self.engine, level, number).await
    }

    async fn root_at(&self, size: u64) -> Result<Hash> {
        tree::root_at(&self.engine, size).await
    }

    async fn notes(&self, after: u64, limit: u32) -> Result<Vec<Noted>> {
        let ask = || {
            sqlx::query(
                "select size, at, note from audit_checkpoint where size > $1
                 order by size limit $2",
            )
            .bind(stored(after))
            .bind(i64::from(limit))
            .fetch_all(&self.engine.pool)
        };
        self.engine.read(UNREADABLE, ask).await?.iter().map(noted_from).collect()
    }

    async fn latest_note(&self) -> Result<Option<Noted>> {
        let ask = || {
            sqlx::query("select size, at, note from audit_checkpoint order by size desc limit 1")
                .fetch_optional(&self.engine.pool)
        };
        self.engine.read(UNREADABLE, ask).await?.as_ref().map(noted_from).transpose()
    }

    async fn find(&self, filter: &Filter, limit: u32) -> Result<Vec<(u64, Record)>> {
        let mut conditions = Vec::new();
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
        let found = match conditions.is_empty() {
            true => String::new(),
            false => format!("where {}", conditions.join(" and ")),
        };
        // Nothing but names of columns and numbers of parameters is put together here.
        let statement = format!(
            "select {} from audit_record {found} order by sequence desc limit ${}",
            COLUMNS.join(", "),
            numbers.len() + texts.len() + 1
        );
        let ask = || {
            let mut query = sqlx::query(sqlx::AssertSqlSafe(statement.clone()));
            for number in &numbers {
                query = query.bind(*number);
            }
            for text in &texts {
                query = query.bind(text.clone());
            }
            query.bind(i64::from(limit)).fetch_all(&self.engine.pool)
        };
        let rows = self.engine.read(UNREADABLE, ask).await?;
        rows.iter().rev().map(record_from).collect()
    }
}

fn noted_from(row: &AnyRow) -> Result<Noted> {
    let size: i64 = row.try_get("size").map_err(|_| damaged("audit_checkpoint.size"))?;
    Ok(Noted {
        at: row.try_get("at").map_err(|_| damaged("audit_checkpoint.at"))?,
        size: u64::try_from(size).map_err(|_| damaged("audit_checkpoint.size"))?,
        // One that is no text was signed by nobody.
        note: row.try_get("note").unwrap_or_default(),
    })
}
