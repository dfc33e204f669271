//! Reading the audit log: what is in it, and what was signed of it.

use async_trait::async_trait;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row as _};
use time::{Date, Duration, OffsetDateTime, Time};

use super::engine::Engine;
use super::rows::{damaged, micros, moment, record_from};
use super::tree::{NUMBERED, is_damage};
use super::{SqlStore, head, tree};
use crate::broker::audit::DRILL;
use crate::broker::audit::leaf::{COLUMNS, Leaf, stored};
use crate::broker::audit::seal::SealedEnd;
use crate::broker::audit::tree::Hash;
use crate::broker::store::{Filter, LogEnds, LogStore, Noted, Row};
use crate::error::Result;

const UNREADABLE: &str = "the audit log cannot be read";

/// Asks for the latest moment, by its index. What nobody can read is left out, whatever somebody
/// has put there.
const LATEST: &str = "select cast(at as bigint) as latest from audit_record
     where at >= $1 and at <= $2 and sequence < $3 and sequence = cast(sequence as bigint)
     order by at desc limit 1";

#[async_trait]
impl LogStore for SqlStore {
    async fn size(&self) -> Result<u64> {
        let ask = || {
            sqlx::query("select last_sequence from audit_head where id = 1")
                .fetch_one(&self.engine.pool)
        };
        number(&self.engine.read(UNREADABLE, ask).await?, "last_sequence")
    }

    async fn ends(&self) -> Result<LogEnds> {
        // All of it as it was at one moment.
        let ask = || async {
            let mut transaction = self.engine.begin_long(false).await?;
            let mut records = [None; 3];
            let asked = [
                ("count(*)", format!("not ({NUMBERED})")),
                ("min(sequence)", NUMBERED.into()),
                ("max(sequence)", NUMBERED.into()),
            ];
            for ((what, which), found) in asked.iter().zip(&mut records) {
                let statement = format!("select {what} from audit_record where {which}");
                *found = sqlx::query_scalar::<_, Option<i64>>(AssertSqlSafe(statement))
                    .fetch_one(&mut *transaction)
                    .await?;
            }
            let head = sqlx::query("select last_sequence, tree_size from audit_head where id = 1")
                .fetch_one(&mut *transaction)
                .await?;
            transaction.rollback().await?;
            Ok((records, head))
        };
        let ([without, first, last], head) = self.engine.work_long(UNREADABLE, ask).await?;
        Ok(LogEnds {
            without_number: u64::try_from(without.unwrap_or_default()).unwrap_or_default(),
            first_record: first.unwrap_or(1),
            last_record: u64::try_from(last.unwrap_or_default()).unwrap_or_default(),
            promised: number(&head, "last_sequence")?,
            in_tree: number(&head, "tree_size")?,
        })
    }

    async fn count(&self, after: u64, until: u64) -> Result<u64> {
        let statement = format!(
            "select count(*) from audit_record where sequence > $1 and sequence <= $2 and {NUMBERED}"
        );
        let ask = || {
            sqlx::query_scalar::<_, i64>(AssertSqlSafe(statement.clone()))
                .bind(stored(after))
                .bind(stored(until))
                .fetch_one(&self.engine.pool)
        };
        let count = self.engine.read(UNREADABLE, ask).await?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    async fn sealed_end(&self) -> Result<Option<SealedEnd>> {
        let seen = self.guard.seen();
        let ask = || {
            sqlx::query("select tree_size, frontier, seal from audit_head where id = 1")
                .fetch_one(&self.engine.pool)
        };
        let row = self.engine.read(UNREADABLE, ask).await?;
        let size: i64 = row.try_get("tree_size").map_err(|_| damaged("audit_head.tree_size"))?;
        let size = u64::try_from(size).map_err(|_| damaged("audit_head.tree_size"))?;
        let end = head::sealed_end(&row, size)?;
        if let Some(end) = &end {
            self.guard.note(&self.engine, end, seen).await?;
        }
        Ok(end)
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
        let statement = "select size from audit_checkpoint
             where size > $1 and size = cast(size as bigint) order by size limit $2";
        let ask = || {
            sqlx::query_scalar(statement)
                .bind(stored(after))
                .bind(i64::from(limit))
                .fetch_all(&self.engine.pool)
        };
        let sizes: Vec<i64> = self.engine.read(UNREADABLE, ask).await?;
        let (Some(first), Some(last)) = (sizes.first(), sizes.last()) else {
            return Ok(Vec::new());
        };
        match self.noted(*first, *last).await? {
            Some(notes) => Ok(notes),
            // Somebody has put something into a row that cannot be read: the others can.
            None => {
                let mut notes = Vec::with_capacity(sizes.len());
                for size in sizes {
                    notes.push(self.noted_at(size).await?);
                }
                Ok(notes)
            }
        }
    }

    async fn latest_note(&self) -> Result<Option<Noted>> {
        let ask = || {
            sqlx::query_scalar(
                "select size from audit_checkpoint where size = cast(size as bigint)
                 order by size desc limit 1",
            )
            .fetch_optional(&self.engine.pool)
        };
        let size: Option<i64> = self.engine.read(UNREADABLE, ask).await?;
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

    async fn latest(&self, since: OffsetDateTime, below: u64) -> Result<Option<OffsetDateTime>> {
        self.check_file()?;
        let ask = || {
            sqlx::query(LATEST)
                .bind(micros(since))
                .bind(micros(OffsetDateTime::new_utc(Date::MAX, Time::MAX)))
                .bind(stored(below))
                .fetch_optional(&self.engine.pool)
        };
        let Some(row) = self.engine.read(UNREADABLE, ask).await? else { return Ok(None) };
        let impossible = || damaged("audit_record.at");
        let latest = row.try_get("latest").map_err(|_| impossible())?;
        moment(latest).map(Some).ok_or_else(impossible)
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
        if let Some(below) = filter.below {
            numbers.push(stored(below));
            conditions.push(format!("sequence < ${}", numbers.len()));
        }
        let exact = [
            ("issuer", filter.issuer.clone()),
            ("subject", filter.subject.clone()),
            ("role", filter.role.clone()),
            ("action", filter.action.clone()),
            ("decision", filter.decision.map(|decision| decision.as_str().to_string())),
            ("request_id", filter.request_id.map(|id| id.to_string())),
            ("trace_id", filter.trace_id.map(|id| id.to_string())),
            ("jti", filter.jti.map(|id| id.to_string())),
            ("elevation", filter.elevation.map(|id| id.to_string())),
        ];
        for (column, value) in exact {
            if let Some(value) = value {
                texts.push(value);
                conditions.push(format!("{column} = ${}", numbers.len() + texts.len()));
            }
        }
        if filter.drill {
            texts.push(DRILL.to_string());
            let (length, text) = (DRILL.len(), numbers.len() + texts.len());
            conditions.push("action like 'elevation.%'".to_string());
            conditions.push(format!("substr(reason, 1, {length}) = ${text}"));
        }
        let last = numbers.len() + texts.len() + 1;
        // Nothing but names of columns, and numbers, is put together here.
        let found = conditions.join(" and ");
        let mut rows: Vec<Row> = Vec::new();
        let mut next = Some(self.newest_part(filter).await?);
        while let Some(part) = next {
            let statement = |columns: &str| {
                format!(
                    "select {columns} from audit_record where {found} {part}
                     order by sequence desc limit ${last}"
                )
            };
            let left = limit - u32::try_from(rows.len()).unwrap_or(limit).min(limit);
            if left == 0 || self.is_long_before(filter.since, &part).await? {
                break;
            }
            rows.extend(self.rows(statement, numbers.clone(), texts.clone(), left).await?);
            next = self.part_before(&part).await?;
        }
        rows.reverse();
        Ok(rows)
    }
}

/// How many numbers of records are looked through at a time, where no index leads to them.
#[cfg(not(test))]
const PART: i64 = 100_000;
#[cfg(test)]
const PART: i64 = 7;

/// How far the records' times may be out of the order of their numbers.
const OUT_OF_ORDER: Duration = Duration::DAY;

/// Some of the numbers of records.
struct Part {
    /// Those after this one.
    after: Option<i64>,
    /// Those up to this one.
    until: Option<i64>,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(after) = self.after {
            write!(f, "and sequence > {after}")?;
        }
        match self.until {
            Some(until) => write!(f, " and sequence <= {until}"),
            None => Ok(()),
        }
    }
}

/// The number before a part that goes up to this one; `None` where that has the first record, and
/// whatever is before it.
fn before_part(until: i64) -> Option<i64> {
    Some(until.saturating_sub(PART)).filter(|after| *after > 0)
}

impl SqlStore {
    /// The part of the log to look through first, the newest: all of it where an index leads to
    /// what is looked for, otherwise so much that it is looked through soon.
    async fn newest_part(&self, filter: &Filter) -> Result<Part> {
        let indexed = filter.subject.is_some()
            || [filter.request_id, filter.jti, filter.elevation].iter().any(Option::is_some);
        if indexed {
            return Ok(Part { after: None, until: None });
        }
        let below = filter.below.map_or(i64::MAX, stored);
        let newest = self.newest_record(below).await?;
        Ok(Part { after: newest.and_then(before_part), until: None })
    }

    /// The part before that one, where there is any record. Where there are none it goes on before
    /// the gap: somebody may have given one a number beyond all others.
    async fn part_before(&self, part: &Part) -> Result<Option<Part>> {
        let Some(after) = part.after else { return Ok(None) };
        let newest = self.newest_record(after).await?;
        Ok(newest.map(|until| Part { after: before_part(until), until: Some(until) }))
    }

    /// The number of the newest record up to this number.
    async fn newest_record(&self, until: i64) -> Result<Option<i64>> {
        let statement = format!(
            "select sequence from audit_record where sequence <= $1 and {NUMBERED}
             order by sequence desc limit 1"
        );
        let ask = || {
            sqlx::query_scalar(AssertSqlSafe(statement.clone()))
                .bind(until)
                .fetch_optional(&self.engine.pool)
        };
        self.engine.read(UNREADABLE, ask).await
    }

    /// Whether all records of a part, and of those before it, are from long before this.
    async fn is_long_before(&self, since: Option<OffsetDateTime>, part: &Part) -> Result<bool> {
        let (Some(since), Some(until)) = (since, part.until) else { return Ok(false) };
        let ask = || {
            sqlx::query_scalar("select at from audit_record where sequence = $1")
                .bind(until)
                .fetch_optional(&self.engine.pool)
        };
        let at: Option<Option<i64>> = undamaged(&self.engine, ask).await?;
        Ok(at.flatten().is_some_and(|at| at < micros(since.saturating_sub(OUT_OF_ORDER))))
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
        let query = async |columns: &str| {
            let statement = statement(columns);
            let ask = || {
                let mut query = sqlx::query(AssertSqlSafe(statement.clone()));
                for number in &numbers {
                    query = query.bind(*number);
                }
                for text in &texts {
                    query = query.bind(text.clone());
                }
                query.bind(i64::from(limit)).fetch_all(&self.engine.pool)
            };
            undamaged(&self.engine, ask).await
        };
        if let Some(rows) = query(&COLUMNS.join(", ")).await? {
            return rows.iter().map(readable).collect();
        }
        let statement =
            format!("select {} from audit_record where sequence = $1", COLUMNS.join(", "));
        let mut found = Vec::new();
        for row in query("sequence").await?.unwrap_or_default() {
            let number = number_of(&row)?;
            let ask = || {
                sqlx::query(AssertSqlSafe(statement.clone()))
                    .bind(number)
                    .fetch_optional(&self.engine.pool)
            };
            match undamaged(&self.engine, ask).await? {
                Some(None) => {}
                Some(Some(row)) => found.push(readable(&row)?),
                None => found.push((u64::try_from(number).unwrap_or_default(), None)),
            }
        }
        Ok(found)
    }

    /// The checkpoints of these sizes; `None` where one cannot be read for what is in it.
    async fn noted(&self, first: i64, last: i64) -> Result<Option<Vec<Noted>>> {
        let ask = || {
            sqlx::query(
                "select size, at, note from audit_checkpoint
                 where size >= $1 and size <= $2 and size = cast(size as bigint) order by size",
            )
            .bind(first)
            .bind(last)
            .fetch_all(&self.engine.pool)
        };
        let Some(rows) = undamaged(&self.engine, ask).await? else { return Ok(None) };
        rows.iter().map(noted_from).collect::<Result<_>>().map(Some)
    }

    async fn noted_at(&self, size: i64) -> Result<Noted> {
        let size_of = u64::try_from(size).unwrap_or_default();
        let empty = || Noted { size: size_of, at: 0, note: String::new() };
        let notes = self.noted(size, size).await?;
        Ok(notes.and_then(|mut notes| notes.pop()).unwrap_or_else(empty))
    }
}

/// What is asked for; `None` where it is there and cannot be read for what is in it.
async fn undamaged<T, F>(engine: &Engine, ask: impl Fn() -> F) -> Result<Option<T>>
where
    F: Future<Output = Result<T, sqlx::Error>>,
{
    let ask = || async {
        match ask().await {
            Err(cause) if is_damage(&cause) => Ok(None),
            found => found.map(Some),
        }
    };
    engine.read(UNREADABLE, ask).await
}

/// A record, where it is one.
fn readable(row: &AnyRow) -> Result<Row> {
    match record_from(row) {
        Ok((number, record)) => Ok((number, Some(record))),
        Err(_) => Ok((u64::try_from(number_of(row)?).unwrap_or_default(), None)),
    }
}

/// A number of the head.
fn number(row: &AnyRow, column: &str) -> Result<u64> {
    let number: i64 = row.try_get(column).map_err(|_| damaged(column))?;
    u64::try_from(number).map_err(|_| damaged(column))
}

fn number_of(row: &AnyRow) -> Result<i64> {
    row.try_get("sequence").map_err(|_| damaged("audit_record.sequence"))
}

fn noted_from(row: &AnyRow) -> Result<Noted> {
    let size: i64 = row.try_get("size").map_err(|_| damaged("audit_checkpoint.size"))?;
    Ok(Noted {
        size: u64::try_from(size).map_err(|_| damaged("audit_checkpoint.size"))?,
        // What is no moment is long ago, and what is no text was signed by nobody.
        at: row.try_get("at").unwrap_or_default(),
        note: row.try_get("note").unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests;
