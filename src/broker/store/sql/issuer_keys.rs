//! The public keys of trusted issuers.

use async_trait::async_trait;
use sqlx::Row as _;

use super::rows::{damaged, micros, moment};
use super::{SqlStore, UNWRITABLE};
use crate::broker::store::{IssuerKeySet, IssuerKeyStore};
use crate::error::Result;

#[async_trait]
impl IssuerKeyStore for SqlStore {
    async fn issuer_keys(&self, issuer: &str) -> Result<Option<IssuerKeySet>> {
        let ask = || {
            sqlx::query(
                "select address, good_at, document, seal from issuer_key_set where issuer = $1",
            )
            .bind(issuer)
            .fetch_optional(&self.engine.pool)
        };
        let row = self.engine.read("the keys of an issuer cannot be read", ask).await?;
        let Some(row) = row else { return Ok(None) };
        let wrong = |_| damaged("issuer_key_set");
        let good_at = row.try_get("good_at").map_err(wrong)?;
        Ok(Some(IssuerKeySet {
            issuer: issuer.to_string(),
            address: row.try_get("address").map_err(wrong)?,
            good_at: moment(good_at).ok_or_else(|| damaged("issuer_key_set.good_at"))?,
            document: row.try_get("document").map_err(wrong)?,
            seal: row.try_get("seal").map_err(wrong)?,
        }))
    }

    async fn keep_issuer_keys(&self, keys: &IssuerKeySet) -> Result<()> {
        self.check_file()?;
        let attempt = || async {
            let mut transaction = self.engine.begin().await?;
            // Not where it is older: somebody may have made up that it is newer.
            sqlx::query(
                "insert into issuer_key_set (issuer, address, good_at, document, seal)
                 values ($1, $2, $3, $4, $5)
                 on conflict (issuer) do update set address = excluded.address,
                    good_at = excluded.good_at, document = excluded.document,
                    seal = excluded.seal",
            )
            .bind(&keys.issuer)
            .bind(&keys.address)
            .bind(micros(keys.good_at))
            .bind(&keys.document)
            .bind(&keys.seal)
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(())
        };
        self.engine.work(UNWRITABLE, attempt).await
    }

    async fn forget_issuer_keys(&self, issuer: &str) -> Result<()> {
        let forget = || sqlx::query("delete from issuer_key_set where issuer = $1").bind(issuer);
        self.forget(forget).await.map(drop)
    }
}
