//! Keys that people enrolled.

use async_trait::async_trait;
use sqlx::any::AnyRow;
use sqlx::{Any, Row as _, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

use super::SqlStore;
use super::failure::Failure;
use super::rows::{damaged, micros, moment};
use crate::broker::store::enrollment::{LASTS, MAX_KEYS};
use crate::broker::store::{Enrollment, EnrollmentState, EnrollmentStore};
use crate::credential::Principal;
use crate::error::Result;

const UNREADABLE: &str = "the enrolled keys cannot be read";

#[async_trait]
impl EnrollmentStore for SqlStore {
    async fn enrollments(&self) -> Result<Vec<Enrollment>> {
        let ask = || {
            sqlx::query(
                "select fingerprint, id, public_key, person, issuer, subject, label, state,
                    enrolled_at, approver, approved_at, seen_at, seal
                 from enrolled_key where state <> $1 order by enrolled_at, id",
            )
            .bind(EnrollmentState::Removed.as_str())
            .fetch_all(&self.engine.pool)
        };
        let rows = self.engine.read(UNREADABLE, ask).await?;
        rows.iter().map(enrollment_from).collect()
    }

    async fn all_enrollments(&self) -> Result<Vec<Enrollment>> {
        let ask = || {
            sqlx::query(
                "select fingerprint, id, public_key, person, issuer, subject, label, state,
                    enrolled_at, approver, approved_at, seen_at, seal
                 from enrolled_key order by enrolled_at, id",
            )
            .fetch_all(&self.engine.pool)
        };
        let rows = self.engine.read(UNREADABLE, ask).await?;
        rows.iter().map(enrollment_from).collect()
    }

    async fn enrollment(&self, id: Uuid) -> Result<Option<Enrollment>> {
        let ask = || {
            sqlx::query(
                "select fingerprint, id, public_key, person, issuer, subject, label, state,
                    enrolled_at, approver, approved_at, seen_at, seal
                 from enrolled_key where id = $1",
            )
            .bind(id.to_string())
            .fetch_optional(&self.engine.pool)
        };
        let row = self.engine.read(UNREADABLE, ask).await?;
        row.as_ref().map(enrollment_from).transpose()
    }

    async fn enrollment_of(&self, fingerprint: &str) -> Result<Option<Enrollment>> {
        // What was removed elsewhere is not in a file that was removed.
        self.check_file()?;
        let ask = || {
            sqlx::query(
                "select fingerprint, id, public_key, person, issuer, subject, label, state,
                    enrolled_at, approver, approved_at, seen_at, seal
                 from enrolled_key where fingerprint = $1",
            )
            .bind(fingerprint)
            .fetch_optional(&self.engine.pool)
        };
        let row = self.engine.read(UNREADABLE, ask).await?;
        row.as_ref().map(enrollment_from).transpose()
    }

    async fn forget_pending(&self, before: OffsetDateTime, limit: u32) -> Result<u64> {
        // Asked twice, as with cut-offs: somebody may enroll the same key anew at this moment.
        let forget = || {
            sqlx::query(
                "delete from enrolled_key
                 where enrolled_at < $1 and approver = '' and counted = 0 and fingerprint in
                    (select fingerprint from enrolled_key
                     where enrolled_at < $1 and approver = '' and counted = 0
                     order by enrolled_at, fingerprint limit $2)",
            )
            .bind(micros(before))
            .bind(i64::from(limit))
        };
        self.forget(forget).await
    }
}

/// Adds a key, where its person has not too many already. One that they removed, or that has
/// lapsed, may be enrolled again by them and by nobody else.
pub(super) async fn enroll(
    transaction: &mut Transaction<'_, Any>,
    new: &Enrollment,
) -> Result<bool, Failure> {
    let lapsed = micros(new.enrolled_at.saturating_sub(LASTS));
    let done = sqlx::query(
        "insert into enrolled_key
            (fingerprint, id, public_key, person, issuer, subject, label, state,
             enrolled_at, approver, approved_at, seen_at, seal, counted)
         select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 0
         where (select count(*) from enrolled_key as other
                where other.person = $4 and other.state <> $14 and other.seen_at > $15
                and other.fingerprint <> $1) < $16
         on conflict (fingerprint) do update set id = excluded.id,
             public_key = excluded.public_key, issuer = excluded.issuer,
             subject = excluded.subject, label = excluded.label, state = excluded.state,
             enrolled_at = excluded.enrolled_at, approver = excluded.approver,
             approved_at = excluded.approved_at, seen_at = excluded.seen_at,
             seal = excluded.seal,
             counted = case when enrolled_key.approver <> '' then 1
                 else enrolled_key.counted end
         where enrolled_key.person = excluded.person
             and (enrolled_key.state = $14 or enrolled_key.seen_at <= $15)",
    )
    .bind(&new.fingerprint)
    .bind(new.id.to_string())
    .bind(&new.public_key)
    .bind(&new.person)
    .bind(&new.principal.issuer)
    .bind(&new.principal.subject)
    .bind(&new.label)
    .bind(new.state.as_str())
    .bind(micros(new.enrolled_at))
    .bind(approver(new))
    .bind(approved_at(new))
    .bind(micros(new.seen_at))
    .bind(&new.seal)
    .bind(EnrollmentState::Removed.as_str())
    .bind(lapsed)
    .bind(MAX_KEYS)
    .execute(&mut **transaction)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Changes what is known of a key, where it still has the seal of `before`.
pub(super) async fn change(
    transaction: &mut Transaction<'_, Any>,
    before: &Enrollment,
    after: &Enrollment,
) -> Result<bool, Failure> {
    let done = sqlx::query(
        "update enrolled_key set public_key = $1, label = $2, state = $3, approver = $4,
            approved_at = $5, seen_at = $6, seal = $7, person = $11, issuer = $12, subject = $13
         where fingerprint = $8 and id = $9 and seal = $10",
    )
    .bind(&after.public_key)
    .bind(&after.label)
    .bind(after.state.as_str())
    .bind(approver(after))
    .bind(approved_at(after))
    .bind(micros(after.seen_at))
    .bind(&after.seal)
    .bind(&before.fingerprint)
    .bind(before.id.to_string())
    .bind(&before.seal)
    .bind(&after.person)
    .bind(&after.principal.issuer)
    .bind(&after.principal.subject)
    .execute(&mut **transaction)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Whether each of these keys is approved, and has not lapsed at this moment.
pub(super) async fn are_live(
    transaction: &mut Transaction<'_, Any>,
    keys: &[String],
    at: OffsetDateTime,
) -> Result<bool, Failure> {
    for key in keys {
        let found = sqlx::query(
            "select id from enrolled_key where fingerprint = $1 and state = $2 and seen_at > $3",
        )
        .bind(key)
        .bind(EnrollmentState::Approved.as_str())
        .bind(micros(at.saturating_sub(LASTS)))
        .fetch_optional(&mut **transaction)
        .await?;
        if found.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn approver(enrollment: &Enrollment) -> &str {
    enrollment.approved.as_ref().map_or("", |(approver, _)| approver)
}

fn approved_at(enrollment: &Enrollment) -> i64 {
    enrollment.approved.as_ref().map_or(0, |(_, at)| micros(*at))
}

fn enrollment_from(row: &AnyRow) -> Result<Enrollment> {
    let wrong = |column: &str| damaged(&format!("enrolled_key.{column}"));
    let text = |column: &str| row.try_get::<String, _>(column).map_err(|_| wrong(column));
    let time = |column: &str| {
        let micros = row.try_get(column).map_err(|_| wrong(column))?;
        moment(micros).ok_or_else(|| wrong(column))
    };
    let approver = text("approver")?;
    Ok(Enrollment {
        id: text("id")?.parse().map_err(|_| wrong("id"))?,
        fingerprint: text("fingerprint")?,
        public_key: text("public_key")?,
        person: text("person")?,
        principal: Principal { issuer: text("issuer")?, subject: text("subject")? },
        label: text("label")?,
        state: EnrollmentState::from_name(&text("state")?).ok_or_else(|| wrong("state"))?,
        enrolled_at: time("enrolled_at")?,
        approved: match approver.is_empty() {
            true => None,
            false => Some((approver, time("approved_at")?)),
        },
        seen_at: time("seen_at")?,
        seal: row.try_get("seal").map_err(|_| wrong("seal"))?,
    })
}

#[cfg(test)]
mod tests;
