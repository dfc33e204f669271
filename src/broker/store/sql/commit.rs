//! Writing: a group of units in one transaction, and what of it is in the tree.

use sqlx::{Any, Connection, Transaction};
use tokio::time::Instant;

use super::append::Rows;
use super::conditions::Conditions;
use super::engine::Engine;
use super::failure::Failure;
use super::head::Guard;
use super::notify;
use super::rows::{damaged, micros};
use super::{elevation, enrollment, erasure, keys, uses};
use crate::broker::audit::Decision;
use crate::broker::audit::leaf::stored;
use crate::broker::store::{Cutoff, Effect, OpaqueToken, Outcome, Unit};
use crate::error::Result;

/// Commits a group of units.
pub(super) async fn commit(engine: &Engine, guard: &Guard, units: &[Unit]) -> Result<Vec<Outcome>> {
    let begun = Instant::now();
    let outcomes = engine.work(super::UNWRITABLE, || attempt(engine, guard, units)).await?;
    engine.committed(begun, units.iter().map(changes_of).sum());
    Ok(outcomes)
}

async fn attempt(engine: &Engine, guard: &Guard, units: &[Unit]) -> Result<Vec<Outcome>, Failure> {
    let mut transaction = engine.begin().await?;
    let count = units.iter().map(|unit| unit.records.len()).sum::<usize>();
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let end = guard.advance(engine, &mut transaction, count).await?;
    let reserved = end.size + count;
    let mut next = end.size + 1;
    let mut hashes = Vec::new();
    let mut rows = Rows::default();
    let mut outcomes = Vec::with_capacity(units.len());
    let mut conditions = Conditions::of(engine, units, end.now);
    for unit in units {
        if unit.effects.iter().any(looks_at_the_log) {
            rows.write(&mut transaction, &engine.appends).await?;
        }
        let outcome = if perform(&mut transaction, &mut conditions, &unit.effects).await? {
            let first = u64::try_from(next).map_err(|_| damaged("audit_head.last_sequence"))?;
            for record in &unit.records {
                hashes.push(rows.push(next, record)?);
                next += 1;
            }
            Outcome::Committed { first }
        } else {
            Outcome::Refused
        };
        outcomes.push(outcome);
    }
    rows.write(&mut transaction, &engine.appends).await?;
    conditions.write(&mut transaction).await?;
    // Numbers have no gaps.
    if next <= reserved {
        give_back(&mut transaction, reserved - (next - 1)).await?;
    }
    let grown = match hashes.is_empty() {
        true => None,
        false => guard.extend(&mut transaction, end, hashes).await?,
    };
    transaction.commit().await.map_err(Failure::Unknown)?;
    if let Some(grown) = grown {
        guard.grew(grown);
    }
    Ok(outcomes)
}

/// How much a unit changes.
fn changes_of(unit: &Unit) -> usize {
    let changes = unit.effects.iter().filter(|effect| !effect.changes_nothing());
    unit.records.len() + changes.count()
}

/// Whether it makes a difference to an effect what is on record before it.
fn looks_at_the_log(effect: &Effect) -> bool {
    matches!(effect, Effect::Erase(_) | Effect::IfIssued { .. })
}

/// Gives numbers back that were not needed.
async fn give_back(transaction: &mut Transaction<'_, Any>, count: i64) -> Result<(), Failure> {
    sqlx::query("update audit_head set last_sequence = last_sequence - $1 where id = 1")
        .bind(count)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Performs the effects of a unit: all of them, or none.
async fn perform<'a>(
    transaction: &mut Transaction<'_, Any>,
    conditions: &mut Conditions<'a>,
    effects: &'a [Effect],
) -> Result<bool, Failure> {
    let (mut used, mut changes) = (Vec::new(), Vec::new());
    for effect in effects {
        match effect {
            Effect::Consume(consumed) => used.push(consumed),
            condition if condition.changes_nothing() => {
                if !perform_one(transaction, conditions, condition).await? {
                    return Ok(false);
                }
            }
            change => changes.push(change),
        }
    }
    if !conditions.are_unused(transaction, &used).await? {
        return Ok(false);
    }
    match changes.as_slice() {
        [] => {}
        // One whose condition does not hold has changed nothing.
        [one] => {
            if !perform_one(transaction, conditions, one).await? {
                return Ok(false);
            }
        }
        several => {
            let mut savepoint = transaction.begin().await?;
            for change in several {
                if !perform_one(&mut savepoint, conditions, change).await? {
                    savepoint.rollback().await?;
                    return Ok(false);
                }
            }
            savepoint.commit().await?;
        }
    }
    conditions.use_up(used);
    Ok(true)
}

async fn perform_one(
    transaction: &mut Transaction<'_, Any>,
    conditions: &mut Conditions<'_>,
    effect: &Effect,
) -> Result<bool, Failure> {
    match effect {
        // That is written together with what others use up.
        Effect::Consume(_) => Ok(true),
        Effect::AddKey(key) => keys::add(transaction, key).await,
        Effect::ChangeKey { before, after } => keys::change(transaction, before, after).await,
        Effect::AddRoot { root, by } => keys::add_root(transaction, root, by).await,
        Effect::RemoveRoot { kek_id, other } => keys::remove_root(transaction, kek_id, other).await,
        Effect::AddCheckpoint { size, note, at } => {
            let done = sqlx::query(
                "insert into audit_checkpoint (size, at, note) values ($1, $2, $3)
                 on conflict do nothing",
            )
            .bind(stored(*size))
            .bind(micros(*at))
            .bind(note)
            .execute(&mut **transaction)
            .await?;
            Ok(done.rows_affected() == 1)
        }
        Effect::CutOff(cutoff) => {
            conditions.cut_off(&cutoff.whose);
            cut_off(transaction, cutoff).await
        }
        Effect::AddOpaque(token) => add_opaque(transaction, token).await,
        Effect::AddElevation(new, unless) => elevation::add(transaction, new, unless).await,
        Effect::ChangeElevation(after, unless) => {
            elevation::change(transaction, after, unless).await
        }
        Effect::SumUses(after, events) => uses::sum(transaction, after, events).await,
        Effect::ForgetBeside { elevation, messages, uses } => {
            uses::forget_beside(transaction, *elevation, messages, *uses).await.map(|()| true)
        }
        Effect::Enroll(new) => enrollment::enroll(transaction, new).await,
        Effect::ChangeEnrollment { before, after } => {
            enrollment::change(transaction, before, after).await
        }
        Effect::Erase(sequences) => erasure::erase(transaction, sequences).await,
        Effect::Tell(message) => notify::tell(transaction, message).await.map(|()| true),
        Effect::IfNotRevoked(these) => conditions.are_good(transaction, these).await,
        Effect::IfClocksAgree { at, within } => Ok(conditions.is_now(*at, *within)),
        Effect::IfElevation { id, version } => elevation::is(transaction, *id, *version).await,
        Effect::IfEnrolled { keys, at } => enrollment::are_live(transaction, keys, *at).await,
        Effect::IfIssued { jti, request_id } => {
            let found = sqlx::query(
                "select sequence from audit_record
                 where jti = $1 and request_id = $4 and decision = $2
                 and not exists (select 1 from audit_record
                     where jti = $1 and request_id = $4 and decision = $3)
                 limit 1",
            )
            .bind(jti.to_string())
            .bind(Decision::Issued.as_str())
            .bind(Decision::Aborted.as_str())
            .bind(request_id.to_string())
            .fetch_optional(&mut **transaction)
            .await?;
            Ok(found.is_some())
        }
    }
}

async fn cut_off(transaction: &mut Transaction<'_, Any>, cutoff: &Cutoff) -> Result<bool, Failure> {
    let (kind, id) = cutoff.whose.parts();
    sqlx::query(
        "insert into revocation_cutoff (kind, id, before, made_at, keep_until)
         values ($1, $2, $3, $4, $5)
         on conflict (kind, id) do update set before = excluded.before,
             made_at = excluded.made_at, keep_until = excluded.keep_until
         where revocation_cutoff.before < excluded.before",
    )
    .bind(kind)
    .bind(id.into_owned())
    .bind(micros(cutoff.before))
    .bind(micros(cutoff.at))
    .bind(micros(cutoff.keep_until))
    .execute(&mut **transaction)
    .await?;
    Ok(true)
}

async fn add_opaque(
    transaction: &mut Transaction<'_, Any>,
    token: &OpaqueToken,
) -> Result<bool, Failure> {
    let done = sqlx::query(
        "insert into opaque_token (hash, claims, seal, keep_until) values ($1, $2, $3, $4)
         on conflict do nothing",
    )
    .bind(&token.hash)
    .bind(&token.claims)
    .bind(&token.seal)
    .bind(micros(token.keep_until))
    .execute(&mut **transaction)
    .await?;
    Ok(done.rows_affected() == 1)
}
