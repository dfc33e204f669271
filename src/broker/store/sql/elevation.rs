//! Elevations.

use async_trait::async_trait;
use sqlx::any::AnyRow;
use sqlx::{Any, AssertSqlSafe, Row as _, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

use super::SqlStore;
use super::failure::Failure;
use super::rows::{damaged, micros, moment};
use crate::broker::audit::Decision;
use crate::broker::audit::leaf::stored;
use crate::broker::store::{
    Among, CountedElevations, ElevationFilter, ElevationStore, FoundElevation, SealedElevation,
    StoredElevation, UnderWay, Unless,
};
use crate::error::Result;

const UNREADABLE: &str = "elevations cannot be read";

/// How many branches one statement has at most: less than any engine takes.
const BRANCHES: usize = 200;

/// States in which the role is had, or waited for.
const UNDER_WAY: &str = "access in ('pending', 'approved', 'active', 'emergency-active')";

/// States in which it was had, and is no more.
const WAS_HAD: &str = "access in ('expired', 'revoked', 'relinquished')";

/// From one role to the next, along the index: there are few, whatever waits for review.
const ROLES_TO_REVIEW: &str = "with recursive due(role) as (
         select min(role) from elevation where review = 'due'
         union all
         select (select min(role) from elevation where review = 'due' and role > due.role)
         from due where due.role is not null)
     select role from due where role is not null";

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
    ) -> Result<Vec<FoundElevation>> {
        self.check_file()?;
        if filter.among.as_ref().is_some_and(Vec::is_empty) {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for branches in branches_of(filter) {
            let Statement { text, texts, numbers } = statement_of(filter, &branches, limit);
            let ask = || {
                let query = sqlx::query(AssertSqlSafe(text.clone()));
                let query = numbers.iter().fold(query, |query, number| query.bind(*number));
                let query = texts.iter().fold(query, |query, text| query.bind(text.clone()));
                query.fetch_all(&self.engine.pool)
            };
            let rows = self.engine.read(UNREADABLE, ask).await?;
            found.extend(rows.iter().map(found_from).collect::<Result<Vec<_>>>()?);
        }
        // Of several statements each had the newest of its own; nothing is told twice.
        found.sort_by_key(|one| std::cmp::Reverse((one.asked_at, one.id.to_string())));
        found.dedup_by_key(|one| one.id);
        found.truncate(limit as usize);
        Ok(found)
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

    async fn count_elevations(
        &self,
        now: OffsetDateTime,
        overdue: &[(String, OffsetDateTime)],
    ) -> Result<Vec<CountedElevations>> {
        self.check_file()?;
        let mut counted = Vec::new();
        let ask = || {
            sqlx::query(
                "select role, access as state, count(*) as many from elevation
                     where access in ('pending', 'approved') and drill = 0
                     group by role, access
                 union all
                 select role, access as state, count(*) as many from elevation
                     where access in ('active', 'emergency-active') and next_at > $1 and drill = 0
                     group by role, access
                 union all
                 select role, 'review-due' as state, count(*) as many from elevation
                     where review = 'due' and drill = 0 group by role",
            )
            .bind(micros(now))
            .fetch_all(&self.engine.pool)
        };
        let rows = self.engine.read(UNREADABLE, ask).await?;
        for row in rows {
            let unreadable = |_| damaged("elevation");
            counted.push(CountedElevations {
                role: row.try_get("role").map_err(unreadable)?,
                state: row.try_get("state").map_err(unreadable)?,
                count: counted_from(&row)?,
            });
        }
        for (role, before) in overdue {
            let ask = || {
                sqlx::query(
                    "select count(*) as many from elevation
                     where review = 'due' and drill = 0 and role = $1 and ended_at < $2",
                )
                .bind(role)
                .bind(micros(*before))
                .fetch_one(&self.engine.pool)
            };
            let row = self.engine.read(UNREADABLE, ask).await?;
            let (role, state) = (role.clone(), "review-overdue".into());
            counted.push(CountedElevations { role, state, count: counted_from(&row)? });
        }
        Ok(counted)
    }

    async fn roles_to_review(&self) -> Result<Vec<String>> {
        self.check_file()?;
        let ask = || sqlx::query(ROLES_TO_REVIEW).fetch_all(&self.engine.pool);
        let rows = self.engine.read(UNREADABLE, ask).await?;
        rows.iter().map(role_of).collect()
    }

    async fn roles_issued_under(&self, id: Uuid) -> Result<Vec<String>> {
        self.check_file()?;
        let ask = || {
            sqlx::query(
                "select distinct role from audit_record where elevation = $1 and decision = $2",
            )
            .bind(id.to_string())
            .bind(Decision::Issued.as_str())
            .fetch_all(&self.engine.pool)
        };
        let rows = self.engine.read(UNREADABLE, ask).await?;
        rows.iter().map(role_of).collect()
    }

    async fn forget_elevations(&self, before: OffsetDateTime, limit: u32) -> Result<u64> {
        let forget = || {
            sqlx::query(
                "delete from elevation
                 where ended_at is not null and ended_at < $1 and review <> 'due' and id in
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

fn role_of(row: &AnyRow) -> Result<String> {
    row.try_get("role").map_err(|_| damaged("role"))
}

fn counted_from(row: &AnyRow) -> Result<u64> {
    let count: i64 = row.try_get("many").map_err(|_| damaged("elevation"))?;
    u64::try_from(count).map_err(|_| damaged("elevation"))
}

fn sealed_from(row: &AnyRow) -> Result<SealedElevation> {
    let unreadable = |_| damaged("elevation");
    Ok(SealedElevation {
        document: row.try_get("document").map_err(unreadable)?,
        seal: row.try_get("seal").map_err(unreadable)?,
    })
}

fn found_from(row: &AnyRow) -> Result<FoundElevation> {
    let unreadable = |_| damaged("elevation");
    let number = |column: &str| row.try_get::<i64, _>(column).map_err(unreadable);
    let id: String = row.try_get("id").map_err(unreadable)?;
    Ok(FoundElevation {
        id: id.parse().map_err(|_| damaged("elevation.id"))?,
        asked_at: moment(number("asked_at")?).ok_or_else(|| damaged("elevation.asked_at"))?,
        role: row.try_get("role").map_err(unreadable)?,
        question: row.try_get("question").map_err(unreadable)?,
        sealed: sealed_from(row)?,
    })
}

/// A statement, with what is bound: the numbers come first.
struct Statement {
    text: String,
    texts: Vec<String>,
    numbers: Vec<i64>,
}

/// The branches of a filter, as many at a time as one statement may have.
fn branches_of(filter: &ElevationFilter) -> Vec<Vec<Option<&Among>>> {
    match &filter.among {
        None => vec![vec![None]],
        Some(among) => among.chunks(BRANCHES).map(|part| part.iter().map(Some).collect()).collect(),
    }
}

/// The newest of those that are in one of these branches. Each branch is read in the order of
/// an index of its own, and ends where there is enough: nothing is read of others, and nothing
/// sorted but what was found.
fn statement_of(filter: &ElevationFilter, branches: &[Option<&Among>], limit: u32) -> Statement {
    let mut numbers = vec![i64::from(limit)];
    let mut conditions = Vec::new();
    // Of the numbers it is known how many there are before the first text is placed.
    let first = 2 + usize::from(filter.going_on_at.is_some()) + usize::from(filter.below.is_some());
    let mut texts: Vec<String> = Vec::new();
    let mut place = |text: &str| {
        texts.push(text.to_string());
        format!("${}", first + texts.len() - 1)
    };
    // Names of states are constants, so an index that is over some of them can be used.
    if !filter.access.is_empty() {
        conditions.push(format!("access in ('{}')", filter.access.join("', '")));
    }
    if let Some(review) = filter.review {
        conditions.push(format!("review = '{review}'"));
    }
    if let Some(drill) = filter.drill {
        conditions.push(format!("drill = {}", i64::from(drill)));
    }
    if let Some(role) = &filter.role {
        conditions.push(format!("role = {}", place(role)));
    }
    for other in &filter.others_than {
        conditions.push(format!("owner <> {}", place(other)));
    }
    if let Some(at) = filter.going_on_at {
        numbers.push(micros(at));
        // One that was approved has to begin within a time that the rules say.
        conditions.push(format!("(access = 'approved' or next_at > ${})", numbers.len()));
    }
    if let Some((at, id)) = filter.below {
        // Ids grow with time, and tell those apart that are of one moment.
        numbers.push(micros(at));
        let number = numbers.len();
        let id = place(&id.to_string());
        conditions.push(format!("asked_at <= ${number} and (asked_at < ${number} or id < {id})"));
    }
    let mut branch = |among: &Option<&Among>| {
        let of = match among {
            None => "1 = 1".to_string(),
            Some(Among::Role(role)) => format!("role = {}", place(role)),
            Some(Among::Owner(owner)) => format!("owner = {}", place(owner)),
            Some(Among::Asker(asker)) => format!("asker = {}", place(asker)),
            Some(Among::Acted) => "acted = 1".to_string(),
        };
        let all: Vec<_> = [of].into_iter().chain(conditions.iter().cloned()).collect();
        format!(
            "select id, asked_at from (select id, asked_at from elevation where {}
                order by asked_at desc, id desc limit $1) branch",
            all.join(" and ")
        )
    };
    let branches: Vec<_> = branches.iter().map(&mut branch).collect();
    // Nothing but names of columns and states, and numbers, is put together here.
    let text = format!(
        "select id, asked_at, role, question, document, seal from elevation where id in
            (select id from ({}) found order by asked_at desc, id desc limit $1)
         order by asked_at desc, id desc",
        branches.join(" union ")
    );
    Statement { text, texts, numbers }
}

/// Whether there is one of the same person for its role that speaks against it.
async fn is_in_the_way(
    transaction: &mut Transaction<'_, Any>,
    of: &StoredElevation,
    unless: &Unless,
) -> Result<bool, Failure> {
    // Only what is asked for is looked up: whoever may have many at once has many.
    let ended = format!("{WAS_HAD} and ended_at > $3");
    let emergency = "path = 'emergency'";
    let under_way = match unless.under_way {
        // Names of ways are constants, as those of states are.
        Some(UnderWay::On(path)) => format!("{UNDER_WAY} and path = '{path}'"),
        _ => UNDER_WAY.to_string(),
    };
    let over = "access in ('active', 'emergency-active') and next_at > $3 and next_at <= $4";
    let moments = |all: &[Option<OffsetDateTime>]| all.iter().copied().collect::<Option<Vec<_>>>();
    let (ended_after, over_at) = (unless.ended_after, unless.over_at);
    // What is asked about, with the moments that it takes.
    let against = [
        (under_way, unless.under_way.is_some().then(Vec::new)),
        (ended.clone(), moments(&[ended_after])),
        (over.to_string(), moments(&[ended_after, over_at])),
        (format!("access = 'emergency-active' and {emergency}"), unless.emergency.then(Vec::new)),
        (format!("{WAS_HAD} and review = 'due' and {emergency}"), unless.emergency.then(Vec::new)),
        (format!("{ended} and {emergency}"), moments(&[unless.emergency_ended_after])),
    ];
    let names = std::iter::once(("owner", &of.owner));
    let names = names.chain(unless.askers.iter().map(|asker| ("asker", asker)));
    for (column, name) in names {
        for (condition, moments) in &against {
            let Some(moments) = moments else { continue };
            // Nothing but names of columns and conditions of this function is put together here.
            let drill = i64::from(of.drill);
            let statement = format!(
                "select id from elevation where {column} = $1 and role = $2 and drill = {drill}
                     and {condition} and id <> ${} limit 1",
                moments.len() + 3,
            );
            let query = sqlx::query(AssertSqlSafe(statement)).bind(name).bind(&of.role);
            let query = moments.iter().fold(query, |query, moment| query.bind(micros(*moment)));
            let query = query.bind(of.id.to_string());
            if query.fetch_optional(&mut **transaction).await?.is_some() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Adds one, if there is none that speaks against it.
pub(super) async fn add(
    transaction: &mut Transaction<'_, Any>,
    new: &StoredElevation,
    unless: &Unless,
) -> Result<bool, Failure> {
    if is_in_the_way(transaction, new, unless).await? {
        return Ok(false);
    }
    let done = sqlx::query(
        "insert into elevation
            (id, version, path, drill, access, review, role, owner, asked_at, next_at, ended_at,
             document, seal, question, acted, asker)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
         on conflict do nothing",
    )
    .bind(new.id.to_string())
    .bind(stored(new.version))
    .bind(new.path)
    .bind(i64::from(new.drill))
    .bind(new.access)
    .bind(new.review)
    .bind(&new.role)
    .bind(&new.owner)
    .bind(micros(new.asked_at))
    .bind(new.next_at.map(micros))
    .bind(new.ended_at.map(micros))
    .bind(&new.sealed.document)
    .bind(&new.sealed.seal)
    .bind(&new.question)
    .bind(i64::from(new.acted))
    .bind(&new.asker)
    .execute(&mut **transaction)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Changes one, if it still is the one before and there is none that speaks against it.
pub(super) async fn change(
    transaction: &mut Transaction<'_, Any>,
    after: &StoredElevation,
    unless: &Unless,
) -> Result<bool, Failure> {
    if is_in_the_way(transaction, after, unless).await? {
        return Ok(false);
    }
    let done = sqlx::query(
        "update elevation set version = $1, access = $2, review = $3, next_at = $4,
             ended_at = $5, document = $6, seal = $7, owner = $10, question = $11, acted = $12,
             asker = $13
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
    .bind(&after.owner)
    .bind(&after.question)
    .bind(i64::from(after.acted))
    .bind(&after.asker)
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

#[cfg(test)]
mod tests;
