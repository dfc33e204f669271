//! What was done under grants.

use std::collections::BTreeSet;

use async_trait::async_trait;
use sqlx::{Any, AssertSqlSafe, Row as _, Transaction};
use uuid::Uuid;

use super::SqlStore;
use super::failure::Failure;
use super::rows::damaged;
use crate::broker::audit::leaf::stored;
use crate::broker::store::{StoredUses, UseStore};
use crate::error::Result;

const UNREADABLE: &str = "what was done under grants cannot be read";

/// How many events are looked up by one statement.
const AT_ONCE: usize = 100;

#[async_trait]
impl UseStore for SqlStore {
    async fn uses(&self, elevation: Uuid) -> Result<Option<StoredUses>> {
        self.check_file()?;
        let ask = || {
            sqlx::query("select version, document, seal from elevation_use where elevation = $1")
                .bind(elevation.to_string())
                .fetch_optional(&self.engine.pool)
        };
        let Some(row) = self.engine.read(UNREADABLE, ask).await? else { return Ok(None) };
        let unreadable = |_| damaged("elevation_use");
        let version: i64 = row.try_get("version").map_err(unreadable)?;
        Ok(Some(StoredUses {
            elevation,
            version: u64::try_from(version).map_err(|_| damaged("elevation_use.version"))?,
            document: row.try_get("document").map_err(unreadable)?,
            seal: row.try_get("seal").map_err(unreadable)?,
        }))
    }

    async fn known_events(&self, elevation: Uuid, ids: &[String]) -> Result<BTreeSet<String>> {
        self.check_file()?;
        let mut known = BTreeSet::new();
        for part in ids.chunks(AT_ONCE) {
            let places: Vec<_> = (2..part.len() + 2).map(|number| format!("${number}")).collect();
            // Nothing but places is put together here.
            let statement = format!(
                "select id from elevation_use_event where elevation = $1 and id in ({})",
                places.join(", ")
            );
            let ask = || {
                let query = sqlx::query(AssertSqlSafe(statement.clone()));
                let query = query.bind(elevation.to_string());
                let query = part.iter().fold(query, |query, id| query.bind(id.clone()));
                query.fetch_all(&self.engine.pool)
            };
            for row in self.engine.read(UNREADABLE, ask).await? {
                known.insert(row.try_get("id").map_err(|_| damaged("elevation_use_event"))?);
            }
        }
        Ok(known)
    }

    async fn forget_uses(&self, limit: u32) -> Result<u64> {
        let mut forgotten = 0;
        for (table, key) in
            [("elevation_use_event", "elevation, id"), ("elevation_use", "elevation")]
        {
            let statement = forgetting(table, key);
            let forget = || sqlx::query(AssertSqlSafe(statement.clone())).bind(i64::from(limit));
            let count = self.forget(forget).await?;
            forgotten = count.max(forgotten);
            if count >= u64::from(limit) {
                break;
            }
        }
        Ok(forgotten)
    }
}

/// Removes rows of grants that are no more. Each grant is looked for once, however much was done
/// under it: nearly always all of them are there.
fn forgetting(table: &str, key: &str) -> String {
    format!(
        "with recursive each(elevation) as (
             select min(elevation) from {table}
             union all
             select (select min(elevation) from {table} where elevation > each.elevation)
             from each where each.elevation is not null)
         delete from {table} where ({key}) in
            (select {key} from {table} where elevation in
                (select elevation from each where elevation is not null and not exists
                    (select 1 from elevation where elevation.id = each.elevation))
             limit $1)"
    )
}

/// Writes what was done under a grant, if it still has the version before this one, and the
/// grant is there; together with the events that are new in it.
pub(super) async fn sum(
    transaction: &mut Transaction<'_, Any>,
    after: &StoredUses,
    events: &[String],
) -> Result<bool, Failure> {
    let id = after.elevation.to_string();
    let statement = match after.version {
        ..=1 => {
            "insert into elevation_use (elevation, version, document, seal)
             select id, $2, $3, $4 from elevation where id = $1 on conflict do nothing"
        }
        _ => {
            "update elevation_use set version = $2, document = $3, seal = $4
             where elevation = $1 and version = $2 - 1
                 and exists (select 1 from elevation where id = $1)"
        }
    };
    let done = sqlx::query(statement)
        .bind(&id)
        .bind(stored(after.version))
        .bind(&after.document)
        .bind(&after.seal)
        .execute(&mut **transaction)
        .await?;
    if done.rows_affected() != 1 {
        return Ok(false);
    }
    // Whoever has that version knows all that are there.
    for event in events {
        sqlx::query(
            "insert into elevation_use_event (elevation, id) values ($1, $2)
             on conflict do nothing",
        )
        .bind(&id)
        .bind(event)
        .execute(&mut **transaction)
        .await?;
    }
    Ok(true)
}

/// Forgets what people were told of an elevation, and what was done under it where that is wanted.
pub(super) async fn forget_beside(
    transaction: &mut Transaction<'_, Any>,
    elevation: Uuid,
    messages: &[String],
    uses: bool,
) -> Result<(), Failure> {
    let id = elevation.to_string();
    for keys in messages.chunks(AT_ONCE) {
        for (table, column) in [("notify_delivery", "message"), ("notify_message", "key")] {
            let statement = forgetting_each(table, column, keys.len());
            let query = sqlx::query(AssertSqlSafe(statement));
            let query = keys.iter().fold(query, |query, key| query.bind(key));
            query.execute(&mut **transaction).await?;
        }
    }
    if uses {
        for statement in [
            "delete from elevation_use_event where elevation = $1",
            "delete from elevation_use where elevation = $1",
        ] {
            sqlx::query(statement).bind(&id).execute(&mut **transaction).await?;
        }
    }
    Ok(())
}

/// Removes rows by so many exact values. All who record anything wait meanwhile, and there are the
/// messages of three months: they must not be read one after the other.
fn forgetting_each(table: &str, column: &str, count: usize) -> String {
    let places: Vec<_> = (1..=count).map(|number| format!("${number}")).collect();
    format!("delete from {table} where {column} in ({})", places.join(", "))
}

#[cfg(test)]
mod tests {
    use sqlx::Row as _;

    use super::*;
    use crate::broker::store::sql::tests::Ground;
    use crate::broker::store::sqlite;

    #[tokio::test]
    async fn what_people_were_told_is_found_without_a_look_at_the_rest() {
        for ground in Ground::each().await {
            let store = ground.open().await;
            for (table, column) in [("notify_delivery", "message"), ("notify_message", "key")] {
                let statement = forgetting_each(table, column, 2);
                let statement = statement.replace("$1", "'a'").replace("$2", "'b'");
                let plan = store.plan_of(&statement).await;
                let by = if ground.is_postgres() { "Index Cond" } else { "SEARCH" };
                assert!(plan.contains(by) && !plan.contains("SCAN"), "{plan}");
            }
        }
    }

    #[tokio::test]
    async fn grants_that_are_no_more_are_found_without_reading_what_was_done_under_each() {
        let store = sqlite::in_memory().await.unwrap();
        let explain =
            format!("explain query plan {}", forgetting("elevation_use_event", "elevation, id"));
        let query = sqlx::query(AssertSqlSafe(explain)).bind(1_i64);
        let rows = query.fetch_all(&store.engine.pool).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        let reads: Vec<_> =
            plan.iter().filter(|step| step.contains("elevation_use_event")).collect();
        // (What is found by an index for its least value alone is no search by a value.)
        let whole = reads.iter().filter(|step| step.starts_with("SCAN")).count();
        assert_eq!(whole, 0, "{plan:#?}");
        assert!(reads.len() >= 4, "{plan:#?}");
    }
}
