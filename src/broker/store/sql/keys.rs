//! Signing keys, and the root key that seals them.

use async_trait::async_trait;
use sqlx::any::AnyRow;
use sqlx::{Any, Transaction};

use super::SqlStore;
use super::failure::Failure;
use super::rows::{Columns, micros};
use crate::broker::keys::{KeyState, Purpose, SealedRoot, StoredKey};
use crate::broker::store::KeyStore;
use crate::error::Result;

#[async_trait]
impl KeyStore for SqlStore {
    async fn keys(&self) -> Result<Vec<StoredKey>> {
        let ask = || {
            sqlx::query(
                "select kid, purpose, algorithm, state, sealed, kek_id, created_at, changed_at
             from signing_key order by created_at, kid",
            )
            .fetch_all(&self.engine.pool)
        };
        let rows = self.engine.read("the signing keys cannot be read", ask).await?;
        rows.iter().map(key_from).collect()
    }

    async fn sealed_roots(&self) -> Result<Vec<SealedRoot>> {
        let ask = || {
            sqlx::query("select slot, kek_id, sealed, added_at from root_key order by slot")
                .fetch_all(&self.engine.pool)
        };
        let rows = self.engine.read("the root key cannot be read", ask).await?;
        rows.iter().map(root_from).collect()
    }
}

fn key_from(row: &AnyRow) -> Result<StoredKey> {
    let columns = Columns { table: "signing_key", row };
    let purpose: String = columns.get("purpose")?;
    let state: String = columns.get("state")?;
    Ok(StoredKey {
        kid: columns.get("kid")?,
        purpose: Purpose::from_name(&purpose).ok_or_else(|| columns.damaged("purpose"))?,
        algorithm: columns.get("algorithm")?,
        state: KeyState::from_name(&state).ok_or_else(|| columns.damaged("state"))?,
        sealed: columns.get("sealed")?,
        sealed_by: columns.get("kek_id")?,
        created_at: columns.time("created_at")?,
        changed_at: columns.time("changed_at")?,
    })
}

fn root_from(row: &AnyRow) -> Result<SealedRoot> {
    let columns = Columns { table: "root_key", row };
    let slot = columns.get::<i64>("slot")?;
    Ok(SealedRoot {
        slot: u32::try_from(slot).map_err(|_| columns.damaged("slot"))?,
        kek_id: columns.get("kek_id")?,
        sealed: columns.get("sealed")?,
        added_at: columns.time("added_at")?,
    })
}

pub(super) async fn add(
    transaction: &mut Transaction<'_, Any>,
    key: &StoredKey,
) -> Result<bool, Failure> {
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
    .bind(&key.sealed_by)
    .bind(micros(key.created_at))
    .bind(micros(key.changed_at))
    .execute(&mut **transaction)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn change(
    transaction: &mut Transaction<'_, Any>,
    before: &StoredKey,
    after: &StoredKey,
) -> Result<bool, Failure> {
    let done = sqlx::query(
        "update signing_key set state = $1, sealed = $2, kek_id = $3, changed_at = $4
         where kid = $5 and state = $6 and sealed = $7",
    )
    .bind(after.state.as_str())
    .bind(&after.sealed)
    .bind(&after.sealed_by)
    .bind(micros(after.changed_at))
    .bind(&before.kid)
    .bind(before.state.as_str())
    .bind(&before.sealed)
    .execute(&mut **transaction)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn add_root(
    transaction: &mut Transaction<'_, Any>,
    one: &SealedRoot,
    by: &str,
) -> Result<bool, Failure> {
    let done = sqlx::query(
        "insert into root_key (slot, kek_id, sealed, added_at) select $1, $2, $3, $4
         where $2 = $5 or exists (select 1 from root_key where kek_id = $5)
         on conflict do nothing",
    )
    .bind(i64::from(one.slot))
    .bind(&one.kek_id)
    .bind(&one.sealed)
    .bind(micros(one.added_at))
    .bind(by)
    .execute(&mut **transaction)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn remove_root(
    transaction: &mut Transaction<'_, Any>,
    kek_id: &str,
    other: &str,
) -> Result<bool, Failure> {
    let done = sqlx::query(
        "delete from root_key where kek_id = $1 and kek_id <> $2
         and exists (select 1 from root_key where kek_id = $2)",
    )
    .bind(kek_id)
    .bind(other)
    .execute(&mut **transaction)
    .await?;
    Ok(done.rows_affected() == 1)
}
