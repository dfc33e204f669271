//! How far the audit log has been handed on.

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::rows::damaged;
use super::{SqlStore, UNWRITABLE};
use crate::broker::audit::leaf::stored;
use crate::broker::store::{OutboxStore, Turn};
use crate::error::Result;

#[async_trait]
impl OutboxStore for SqlStore {
    async fn turn(&self, sink: &str) -> Result<Option<Turn>> {
        let ask = || {
            sqlx::query(
                "select delivered, holder, beat, last_sequence from audit_sink, audit_head
                 where name = $1 and id = 1",
            )
            .bind(sink)
            .fetch_optional(&self.engine.pool)
        };
        let row = self.engine.read("how far records were handed on cannot be read", ask).await?;
        row.as_ref().map(turn_from).transpose()
    }

    async fn add_sink(&self, sink: &str, after: u64) -> Result<()> {
        self.check_file()?;
        let attempt = || async {
            let mut transaction = self.engine.begin().await?;
            sqlx::query(
                "insert into audit_sink (name, delivered) values ($1, $2) on conflict do nothing",
            )
            .bind(sink)
            .bind(stored(after))
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(())
        };
        self.engine.work(UNWRITABLE, attempt).await
    }

    async fn change_turn(
        &self,
        sink: &str,
        before: &Turn,
        delivered: u64,
        holder: Option<&str>,
    ) -> Result<bool> {
        self.check_file()?;
        let attempt = || async {
            let mut transaction = self.engine.begin().await?;
            let done = sqlx::query(
                "update audit_sink set delivered = $1, holder = $2, beat = beat + 1
                 where name = $3 and beat = $4 and delivered <= $1",
            )
            .bind(stored(delivered))
            .bind(holder)
            .bind(sink)
            .bind(stored(before.beat))
            .execute(&mut *transaction)
            .await?;
            // Where nobody can tell, it is read again.
            transaction.commit().await?;
            Ok(done.rows_affected() == 1)
        };
        self.engine.work(UNWRITABLE, attempt).await
    }
}

fn turn_from(row: &AnyRow) -> Result<Turn> {
    let number = |column: &str| {
        let number: i64 = row.try_get(column).map_err(|_| damaged(column))?;
        u64::try_from(number).map_err(|_| damaged(column))
    };
    Ok(Turn {
        delivered: number("delivered")?,
        last: number("last_sequence")?,
        holder: row.try_get("holder").map_err(|_| damaged("audit_sink.holder"))?,
        beat: number("beat")?,
    })
}
