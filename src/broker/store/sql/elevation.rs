//! Elevations.

use async_trait::async_trait;
use sqlx::any::AnyRow;
use sqlx::{Any, AssertSqlSafe, Row as _, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

use super::SqlStore;
use super::failure::Failure;
use super::rows::{damaged, micros};
use crate::broker::audit::leaf::stored;
use crate::broker::store::{
    ElevationFilter, ElevationStore, SealedElevation, StoredElevation, Unless,
};
use crate::error::Result;

const UNREADABLE: &str = "elevations cannot be read";

/// States in which the role is had, or waited for.
const UNDER_WAY: &str = "access in ('pending', 'approved', 'active', 'emergency-active')";

/// States in which it was had, and is no more.
const WAS_HAD: &str = "access in ('expired', 'revoked', 'relinquished')";

#[async_trait]
impl ElevationStore for SqlStore {
    async fn elevation(&self, id: Uuid) -> Result<Option<SealedElevation>> {
        self.check_file()?;
        let ask = || {
            sqlx::query("select document, seal from elevation where id = $1")
                .bind(id.to_string())
                .fetch_optional(&self.engine.pool)
        };
        let row = self.engine.read(UNREADABLE, ask).await?;
        row.as_ref().map(sealed_from).transpose()
    }

    async fn elevations(
        &self,
        filter: &ElevationFilter,
        limit: u32,
    ) -> Result<Vec<SealedElevation>> {
        self.check_file()?;
        let mut texts: Vec<String> = Vec::new();
        let mut conditions = vec!["1 = 1".to_string()];
        let mut one_of = |column: &str, values: Vec<String>| {
            let first = texts.len() + 2;
            let places: Vec<_> =
                (first..first + values.len()).map(|number| format!("${number}")).collect();
            texts.extend(values);
            // None of no values is any.
            match places.is_empty() {
                true => conditions.push("1 = 0".into()),
                false => conditions.push(format!("{column} in ({})", places.join(", "))),
            }
        };
        if let Some(owner) = &filter.owner {
            one_of("owner", vec![owner.clone()]);
        }
        if let Some(roles) = &filter.roles {
            one_of("role", roles.clone());
        }
        if !filter.access.is_empty() {
            one_of("access", filter.access.iter().map(ToString::to_string).collect());
        }
        if let Some(review) = filter.review {
            one_of("review", vec![review.into()]);
        }
        if let Some(drill) = filter.drill {
            conditions.push(format!("drill = {}", i64::from(drill)));
        }
        let mut numbers = vec![i64::from(limit)];
        if let Some((at, id)) = filter.below {
            // Ids grow with time, and tell those apart that are of one moment.
            let (number, text) = (texts.len() + 2, texts.len() + 3);
            conditions
                .push(format!("(asked_at < ${text} or asked_at = ${text} and id < ${number})"));
            texts.push(id.to_string());
            numbers.push(micros(at));
        }
        // Nothing but names of columns, and numbers, is put together here.
        let statement = format!(
            "select document, seal from elevation where {}
             order by asked_at desc, id desc limit $1",
            conditions.join(" and ")
        );
        let ask = || {
            let query = sqlx::query(AssertSqlSafe(statement.clone())).bind(numbers[0]);
            let query = texts.iter().fold(query, |query, text| query.bind(text.clone()));
            let query = numbers[1..].iter().fold(query, |query, number| query.bind(*number));
            query.fetch_all(&self.engine.pool)
        };
        let rows = self.engine.read(UNREADABLE, ask).await?;
        rows.iter().map(sealed_from).collect()
    }

    async fn elevations_due(
        &self,
        now: OffsetDateTime,
        limit: u32,
    ) -> Result<Vec<SealedElevation>> {
        self.check_file()?;
        let ask = || {
            sqlx::query(
                "select document, seal from elevation
                 where next_at is not null and next_at <= $1 order by next_at limit $2",
            )
            .bind(micros(now))
            .bind(i64::from(limit))
            .fetch_all(&self.engine.pool)
        };
        let rows = self.engine.read(UNREADABLE, ask).await?;
        rows.iter().map(sealed_from).collect()
    }

    async fn forget_elevations(&self, before: OffsetDateTime, limit: u32) -> Result<u64> {
        let forget = || {
            sqlx::query(
                "delete from elevation where id in
                    (select id from elevation
                     where ended_at is not null and ended_at < $1 and review <> 'due'
                     order by ended_at, id limit $2)",
            )
            .bind(micros(before))
            .bind(i64::from(limit))
        };
        self.forget(forget).await
    }
}

fn sealed_from(row: &AnyRow) -> Result<SealedElevation> {
    let unreadable = |_| damaged("elevation");
    Ok(SealedElevation {
        document: row.try_get("document").map_err(unreadable)?,
        seal: row.try_get("seal").map_err(unreadable)?,
    })
}

/// Adds one, if there is none of its owner for its role that speaks against it.
pub(super) async fn add(
    transaction: &mut Transaction<'_, Any>,
    new: &StoredElevation,
    unless: &Unless,
) -> Result<bool, Failure> {
    let flag = |flag: bool| i64::from(flag);
    let after = |at: Option<OffsetDateTime>| at.map_or(i64::MAX, micros);
    let found = sqlx::query(AssertSqlSafe(format!(
        "select id from elevation where owner = $1 and role = $2 and drill = $7 and (
             $3 = 1 and {UNDER_WAY}
             or {WAS_HAD} and ended_at > $4
             or path = 'emergency' and $5 = 1
                 and (access = 'emergency-active' or review = 'due')
             or path = 'emergency' and {WAS_HAD} and ended_at > $6)
         limit 1"
    )))
    .bind(&new.owner)
    .bind(&new.role)
    .bind(flag(unless.under_way))
    .bind(after(unless.ended_after))
    .bind(flag(unless.emergency))
    .bind(after(unless.emergency_ended_after))
    .bind(flag(new.drill))
    .fetch_optional(&mut **transaction)
    .await?;
    if found.is_some() {
        return Ok(false);
    }
    let done = sqlx::query(
        "insert into elevation
            (id, version, path, drill, access, review, role, owner, asked_at, next_at, ended_at,
             document, seal)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) on conflict do nothing",
    )
    .bind(new.id.to_string())
    .bind(stored(new.version))
    .bind(new.path)
    .bind(flag(new.drill))
    .bind(new.access)
    .bind(new.review)
    .bind(&new.role)
    .bind(&new.owner)
    .bind(micros(new.asked_at))
    .bind(new.next_at.map(micros))
    .bind(new.ended_at.map(micros))
    .bind(&new.sealed.document)
    .bind(&new.sealed.seal)
    .execute(&mut **transaction)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Changes one, if it still is the one before.
pub(super) async fn change(
    transaction: &mut Transaction<'_, Any>,
    after: &StoredElevation,
) -> Result<bool, Failure> {
    let done = sqlx::query(
        "update elevation set version = $1, access = $2, review = $3, next_at = $4,
             ended_at = $5, document = $6, seal = $7
         where id = $8 and version = $9",
    )
    .bind(stored(after.version))
    .bind(after.access)
    .bind(after.review)
    .bind(after.next_at.map(micros))
    .bind(after.ended_at.map(micros))
    .bind(&after.sealed.document)
    .bind(&after.sealed.seal)
    .bind(after.id.to_string())
    .bind(stored(after.version) - 1)
    .execute(&mut **transaction)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Whether it still is the one with this version.
pub(super) async fn is(
    transaction: &mut Transaction<'_, Any>,
    id: Uuid,
    version: u64,
) -> Result<bool, Failure> {
    let found = sqlx::query("select id from elevation where id = $1 and version = $2")
        .bind(id.to_string())
        .bind(stored(version))
        .fetch_optional(&mut **transaction)
        .await?;
    Ok(found.is_some())
}
