//! Writing: a group of units in one transaction, and what of it is in the tree.

use sqlx::{Any, AnyPool, Connection, Transaction};

use super::rows::{damaged, micros};
use super::{fault, tree};
use crate::broker::audit::leaf::{Leaf, SALT, stored};
use crate::broker::audit::tree::Hash;
use crate::broker::audit::{Decision, Record};
use crate::broker::keys::StoredKey;
use crate::broker::store::{Consumed, Effect, Outcome, Unit};
use crate::error::{Error, ErrorKind, Result};

fn failed(cause: sqlx::Error) -> Error {
    fault("the broker's database cannot be written", cause)
}

/// Commits a group of units.
pub(super) async fn commit(pool: &AnyPool, units: &[Unit]) -> Result<Vec<Outcome>> {
    let mut transaction = pool.begin().await.map_err(failed)?;
    let count = units.iter().map(|unit| unit.records.len()).sum::<usize>();
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    // Writing comes first: so the lock is taken before anything is read.
    let (reserved, in_tree) = move_head(&mut transaction, count).await?;
    let before = reserved - count;
    let mut next = before + 1;
    let mut hashes = Vec::new();
    let mut outcomes = Vec::with_capacity(units.len());
    for unit in units {
        let outcome = if perform(&mut transaction, &unit.effects).await? {
            let first = u64::try_from(next).map_err(|_| damaged("audit_head.last_sequence"))?;
            for record in &unit.records {
                hashes.push(append(&mut transaction, next, record).await?);
                next += 1;
            }
            Outcome::Committed { first }
        } else {
            Outcome::Refused
        };
        outcomes.push(outcome);
    }
    // Numbers have no gaps.
    if next <= reserved {
        move_head(&mut transaction, next - 1 - reserved).await?;
    }
    if !hashes.is_empty() {
        let before = u64::try_from(before).map_err(|_| damaged("audit_head.last_sequence"))?;
        if in_tree < before {
            // An earlier version still writes to this database.
            tree::fill(&mut transaction, in_tree, before).await?;
        }
        tree::extend(&mut transaction, before, hashes).await?;
    }
    transaction.commit().await.map_err(failed)?;
    Ok(outcomes)
}

/// Moves the end of the log, and returns where it is then, and how many records are in
/// the tree.
async fn move_head(transaction: &mut Transaction<'_, Any>, by: i64) -> Result<(i64, u64)> {
    let row = sqlx::query(
        "update audit_head set last_sequence = last_sequence + $1 where id = 1
         returning last_sequence, tree_size",
    )
    .bind(by)
    .fetch_one(&mut **transaction)
    .await
    .map_err(failed)?;
    let (last, in_tree) = tree::head_from(&row)?;
    Ok((stored(last), in_tree))
}

/// Performs the effects of a unit: all of them, or none.
async fn perform(transaction: &mut Transaction<'_, Any>, effects: &[Effect]) -> Result<bool> {
    match effects {
        [] => Ok(true),
        // One whose condition does not hold has changed nothing.
        [one] => perform_one(transaction, one).await,
        several => {
            let mut savepoint = transaction.begin().await.map_err(failed)?;
            for effect in several {
                if !perform_one(&mut savepoint, effect).await? {
                    savepoint.rollback().await.map_err(failed)?;
                    return Ok(false);
                }
            }
            savepoint.commit().await.map_err(failed)?;
            Ok(true)
        }
    }
}

async fn perform_one(transaction: &mut Transaction<'_, Any>, effect: &Effect) -> Result<bool> {
    match effect {
        Effect::Consume(consumed) => consume(transaction, consumed).await,
        Effect::AddKey(key) => add_key(transaction, key).await,
        Effect::ChangeKey { before, after } => change_key(transaction, before, after).await,
        Effect::AddCheckpoint { size, note, at } => {
            let done = sqlx::query(
                "insert into audit_checkpoint (size, at, note) values ($1, $2, $3)
                 on conflict do nothing",
            )
            .bind(stored(*size))
            .bind(micros(*at))
            .bind(note)
            .execute(&mut **transaction)
            .await
            .map_err(failed)?;
            Ok(done.rows_affected() == 1)
        }
        Effect::CutOff(cutoff) => {
            let (kind, id) = cutoff.whose.parts();
            sqlx::query(
                "insert into revocation_cutoff (kind, id, before, made_at, keep_until)
                 values ($1, $2, $3, $4, $5)
                 on conflict (kind, id) do update set before = excluded.before,
                     made_at = excluded.made_at, keep_until = excluded.keep_until
                 where revocation_cutoff.before < excluded.before",
            )
            .bind(kind)
            .bind(id)
            .bind(micros(cutoff.before))
            .bind(micros(cutoff.at))
            .bind(micros(cutoff.keep_until))
            .execute(&mut **transaction)
            .await
            .map_err(failed)?;
            Ok(true)
        }
        Effect::AddOpaque(token) => {
            let done = sqlx::query(
                "insert into opaque_token (hash, claims, keep_until) values ($1, $2, $3)
                 on conflict do nothing",
            )
            .bind(&token.hash)
            .bind(&token.claims)
            .bind(micros(token.keep_until))
            .execute(&mut **transaction)
            .await
            .map_err(failed)?;
            Ok(done.rows_affected() == 1)
        }
        Effect::IfIssued(jti) => {
            let found = sqlx::query(
                "select sequence from audit_record where jti = $1 and decision = $2 limit 1",
            )
            .bind(jti.to_string())
            .bind(Decision::Issued.as_str())
            .fetch_optional(&mut **transaction)
            .await
            .map_err(failed)?;
            Ok(found.is_some())
        }
    }
}

async fn consume(transaction: &mut Transaction<'_, Any>, consumed: &Consumed) -> Result<bool> {
    let done = sqlx::query(
        "insert into consumed (kind, id, consumed_at, keep_until) values ($1, $2, $3, $4)
         on conflict do nothing",
    )
    .bind(consumed.kind.as_str())
    .bind(&consumed.id)
    .bind(micros(consumed.at))
    .bind(micros(consumed.keep_until))
    .execute(&mut **transaction)
    .await
    .map_err(failed)?;
    Ok(done.rows_affected() == 1)
}

async fn add_key(transaction: &mut Transaction<'_, Any>, key: &StoredKey) -> Result<bool> {
    let done = sqlx::query(
        "insert into signing_key
            (kid, purpose, algorithm, state, sealed, kek_id, created_at, changed_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict do nothing",
    )
    .bind(&key.kid)
    .bind(key.purpose.as_str())
    .bind(&key.algorithm)
    .bind(key.state.as_str())
    .bind(&key.sealed)
    .bind(&key.kek_id)
    .bind(micros(key.created_at))
    .bind(micros(key.changed_at))
    .execute(&mut **transaction)
    .await
    .map_err(failed)?;
    Ok(done.rows_affected() == 1)
}

async fn change_key(
    transaction: &mut Transaction<'_, Any>,
    before: &StoredKey,
    after: &StoredKey,
) -> Result<bool> {
    let done = sqlx::query(
        "update signing_key set state = $1, sealed = $2, kek_id = $3, changed_at = $4
         where kid = $5 and state = $6 and sealed = $7",
    )
    .bind(after.state.as_str())
    .bind(&after.sealed)
    .bind(&after.kek_id)
    .bind(micros(after.changed_at))
    .bind(&before.kid)
    .bind(before.state.as_str())
    .bind(&before.sealed)
    .execute(&mut **transaction)
    .await
    .map_err(failed)?;
    Ok(done.rows_affected() == 1)
}

/// Appends a record, and returns the hash of its leaf.
async fn append(
    transaction: &mut Transaction<'_, Any>,
    sequence: i64,
    record: &Record,
) -> Result<Hash> {
    let mut salt = [0; SALT];
    aws_lc_rs::rand::fill(&mut salt)
        .map_err(|_| Error::new(ErrorKind::Other, "the system gives no random numbers"))?;
    let place = u64::try_from(sequence).map_err(|_| damaged("audit_head.last_sequence"))?;
    let leaf = Leaf::new(place, record, salt);
    let hash = leaf.hash().ok_or_else(|| damaged("audit_record"))?;
    sqlx::query(
        "insert into audit_record
            (sequence, at, request_id, action, decision, reason, issuer, subject, client, source,
             role, audience, scope, ttl, jti, parent, policy_id, policy_hash, count,
             leaf_version, salt, actor)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
             $19, $20, $21, $22)",
    )
    .bind(sequence)
    .bind(micros(record.at))
    .bind(record.request_id.to_string())
    .bind(&record.action)
    .bind(record.decision.as_str())
    .bind(&record.reason)
    .bind(&record.principal.issuer)
    .bind(&record.principal.subject)
    .bind(&record.client)
    .bind(&record.source)
    .bind(&record.role)
    .bind(&record.audience)
    .bind(&record.scope)
    .bind(stored(record.ttl))
    .bind(record.jti.map(|jti| jti.to_string()))
    .bind(record.parent.map(|jti| jti.to_string()))
    .bind(&record.policy_id)
    .bind(&record.policy_hash)
    .bind(stored(record.count))
    .bind(leaf.version)
    .bind(leaf.salt)
    .bind(&record.actor)
    .execute(&mut **transaction)
    .await
    .map_err(failed)?;
    Ok(hash)
}
