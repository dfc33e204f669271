//! The public keys of trusted issuers.

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Row as _};

use super::rows::{damaged, micros, moment};
use super::{SqlStore, UNWRITABLE};
use crate::broker::store::{IssuerKeySet, IssuerKeyStore};
use crate::error::Result;

/// What is there stays where it is newer: whoever writes may have been stopped since they fetched
/// theirs. Not where it is from a time yet to come, which somebody has made up.
const KEEP: &str = "insert into issuer_key_set (issuer, address, good_at, document, seal)
     values ($1, $2, $3, $4, $5)
     on conflict (issuer) do update set address = excluded.address,
        good_at = excluded.good_at, document = excluded.document, seal = excluded.seal
     where issuer_key_set.good_at <= excluded.good_at or issuer_key_set.good_at > NOW";

/// The time in microseconds since 1970 where the engine has this machine's clock.
const OWN_CLOCK: &str = "cast(unixepoch('subsec') * 1000000 as bigint)";

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
        let statement = KEEP.replace("NOW", self.engine.clock().unwrap_or(OWN_CLOCK));
        let attempt = || async {
            let mut transaction = self.engine.begin().await?;
            sqlx::query(AssertSqlSafe(statement.clone()))
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

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;
    use crate::broker::store::sql::tests::Ground;
    use crate::broker::testbed::now;

    /// As where a process was stopped between the fetch and the write.
    #[tokio::test]
    async fn keys_that_are_kept_give_way_to_none_that_are_older() {
        for ground in Ground::each().await {
            let store = ground.open().await;
            let keeps = async |document: u8, age: i64| {
                let keys = IssuerKeySet {
                    issuer: "https://i.example".into(),
                    address: "https://i.example/jwks".into(),
                    good_at: now() - Duration::seconds(age),
                    document: vec![document],
                    seal: vec![2],
                };
                store.keep_issuer_keys(&keys).await.unwrap();
                store.issuer_keys(&keys.issuer).await.unwrap().unwrap().document
            };
            assert_eq!(keeps(1, 60).await, [1]);
            assert_eq!(keeps(2, 3600).await, [1]);
            assert_eq!(keeps(3, 30).await, [3]);
            // What is from a time yet to come keeps nobody from writing what is so.
            assert_eq!(keeps(4, -3600).await, [4]);
            assert_eq!(keeps(5, 20).await, [5]);
            assert_eq!(keeps(6, 25).await, [5]);
        }
    }
}
