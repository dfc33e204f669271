//! What people are told, and to whom that has gone.

use async_trait::async_trait;
use sqlx::any::AnyRow;
use sqlx::{Any, AssertSqlSafe, Row as _, Transaction};
use time::{Duration, OffsetDateTime};

use super::failure::Failure;
use super::rows::{damaged, micros, moment};
use super::{SqlStore, UNWRITABLE};
use crate::broker::audit::leaf::stored;
use crate::broker::notify::Message;
use crate::broker::store::{Backlog, Delivery, NewDelivery, NotifyStore, Step, Undelivered};
use crate::error::{Error, ErrorKind, Result};

/// How long a message is kept, so that it is told once and its fate can be looked up.
const KEPT: Duration = Duration::days(90);

const UNREADABLE: &str = "what people are told cannot be read";

/// The columns of a delivery, with its message.
const COLUMNS: &str = "d.message, d.channel, d.addressee, d.at, d.due_at, d.attempts, d.turn, \
                       d.why, d.state, m.body";

/// Puts a message on record, where there is none with its key.
pub(super) async fn tell(
    transaction: &mut Transaction<'_, Any>,
    message: &Message,
) -> Result<(), Failure> {
    let body = serde_json::to_string(message).map_err(|cause| {
        Error::new(ErrorKind::Other, "a message cannot be written").because(cause)
    })?;
    sqlx::query(
        "insert into notify_message (key, body, at, keep_until) values ($1, $2, $3, $4)
         on conflict do nothing",
    )
    .bind(message.key())
    .bind(body)
    .bind(micros(message.at()))
    .bind(micros(message.at().saturating_add(KEPT)))
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

#[async_trait]
impl NotifyStore for SqlStore {
    async fn unspread(&self, limit: u32) -> Result<Vec<(String, Option<Message>)>> {
        let ask = || {
            sqlx::query(
                "select key, body from notify_message where spread = 0 order by at, key limit $1",
            )
            .bind(i64::from(limit))
            .fetch_all(&self.engine.pool)
        };
        let rows = self.engine.read(UNREADABLE, ask).await?;
        let read = |row: &AnyRow| {
            let key: String = row.try_get("key").map_err(|_| damaged("notify_message.key"))?;
            Ok((key, message_from(row)))
        };
        rows.iter().map(read).collect()
    }

    async fn spread(&self, message: &str, to: &[NewDelivery]) -> Result<()> {
        self.check_file()?;
        let attempt = || async {
            let mut transaction = self.engine.begin().await?;
            let done =
                sqlx::query("update notify_message set spread = 1 where key = $1 and spread = 0")
                    .bind(message)
                    .execute(&mut *transaction)
                    .await?;
            if done.rows_affected() == 1 {
                for delivery in to {
                    add(&mut transaction, message, delivery).await?;
                }
            }
            transaction.commit().await.map_err(Failure::Unknown)?;
            Ok(())
        };
        self.engine.work(UNWRITABLE, attempt).await
    }

    async fn due(
        &self,
        channel: &str,
        now: OffsetDateTime,
        beyond: OffsetDateTime,
        limit: u32,
    ) -> Result<Vec<Delivery>> {
        let statement = format!(
            "select {COLUMNS} from notify_delivery d join notify_message m on m.key = d.message
             where d.state = 'waiting' and d.channel = $1 and (d.due_at <= $2 or d.due_at > $3)
             order by d.hurry, d.due_at, d.message limit $4"
        );
        let ask = || {
            sqlx::query(AssertSqlSafe(statement.clone()))
                .bind(channel)
                .bind(micros(now))
                .bind(micros(beyond))
                .bind(i64::from(limit))
                .fetch_all(&self.engine.pool)
        };
        let rows = self.engine.read(UNREADABLE, ask).await?;
        rows.iter().map(delivery_from).collect()
    }

    async fn change_deliveries(&self, changes: &[(Delivery, Step)]) -> Result<Vec<bool>> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        self.check_file()?;
        let attempt = || async {
            let mut transaction = self.engine.begin().await?;
            let mut done = Vec::with_capacity(changes.len());
            for (delivery, step) in changes {
                done.push(change(&mut transaction, delivery, step).await?);
            }
            // Where nobody can tell, it is read again.
            transaction.commit().await.map_err(Failure::Unknown)?;
            Ok(done)
        };
        let done = self.engine.work(UNWRITABLE, attempt).await?;
        self.engine.changed(changes.len());
        Ok(done)
    }

    async fn give_up_strays(
        &self,
        channels: &[String],
        before: OffsetDateTime,
        why: &str,
        limit: u32,
    ) -> Result<u64> {
        let places: Vec<_> = (4..channels.len() + 4).map(|n| format!("${n}")).collect();
        let known = match places.as_slice() {
            [] => String::new(),
            places => format!("and channel not in ({})", places.join(", ")),
        };
        let statement = format!(
            "update notify_delivery set state = 'given-up', turn = turn + 1, why = $1
             where state = 'waiting' and (message, channel, addressee) in
                (select message, channel, addressee from notify_delivery
                 where state = 'waiting' and at < $2 {known} order by at limit $3)"
        );
        let give_up = || {
            let query = sqlx::query(AssertSqlSafe(statement.clone()))
                .bind(why)
                .bind(micros(before))
                .bind(i64::from(limit));
            channels.iter().fold(query, |query, channel| query.bind(channel.as_str()))
        };
        self.forget(give_up).await
    }

    async fn waiting_about(&self, channel: &str, about: &str) -> Result<Vec<Message>> {
        // What it is about is in the text alone, which both engines can look through alike.
        let about_it = format!("\"about\":{}", serde_json::Value::from(about));
        let escaped: String = about_it.chars().fold(String::new(), |mut text, one| {
            text.extend(['!', '%', '_'].contains(&one).then_some('!'));
            text.push(one);
            text
        });
        let ask = || {
            sqlx::query(
                "select m.body from notify_delivery d join notify_message m on m.key = d.message
                 where d.state = 'waiting' and d.channel = $1 and m.body like $2 escape '!'",
            )
            .bind(channel)
            .bind(format!("%{escaped}%"))
            .fetch_all(&self.engine.pool)
        };
        let rows = self.engine.read(UNREADABLE, ask).await?;
        let messages = rows.iter().filter_map(message_from);
        Ok(messages.filter(|message| message.id() == about).collect())
    }

    async fn backlog(&self) -> Result<Vec<Backlog>> {
        let ask = || {
            sqlx::query(
                "select channel, count(*) as waiting, min(at) as since from notify_delivery
                 where state = 'waiting' group by channel",
            )
            .fetch_all(&self.engine.pool)
        };
        let rows = self.engine.read(UNREADABLE, ask).await?;
        let read = |row: &AnyRow| {
            let wrong = |_| damaged("notify_delivery");
            let waiting: i64 = row.try_get("waiting").map_err(wrong)?;
            Ok(Backlog {
                channel: row.try_get("channel").map_err(wrong)?,
                waiting: waiting.unsigned_abs(),
                since: time_of(row, "since")?,
            })
        };
        rows.iter().map(read).collect()
    }

    async fn undelivered(&self, limit: u32) -> Result<Vec<Undelivered>> {
        let statement = format!(
            "select {COLUMNS} from notify_delivery d join notify_message m on m.key = d.message
             where d.state in ('waiting', 'given-up')
             order by d.at, d.message, d.channel, d.addressee limit $1"
        );
        let ask = || {
            sqlx::query(AssertSqlSafe(statement.clone()))
                .bind(i64::from(limit))
                .fetch_all(&self.engine.pool)
        };
        let rows = self.engine.read(UNREADABLE, ask).await?;
        let read = |row: &AnyRow| {
            let state: String = row.try_get("state").map_err(|_| damaged("notify_delivery"))?;
            Ok(Undelivered {
                delivery: delivery_from(row)?,
                due_at: (state == "waiting").then(|| time_of(row, "due_at")).transpose()?,
                why: row.try_get("why").map_err(|_| damaged("notify_delivery.why"))?,
            })
        };
        rows.iter().map(read).collect()
    }

    async fn forget_messages(&self, before: OffsetDateTime, limit: u32) -> Result<u64> {
        // Deliveries go with them.
        let forget = || {
            sqlx::query(
                "delete from notify_message where key in
                    (select key from notify_message where keep_until < $1
                     order by keep_until, key limit $2)",
            )
            .bind(micros(before))
            .bind(i64::from(limit))
        };
        self.forget(forget).await
    }
}

async fn add(
    transaction: &mut Transaction<'_, Any>,
    message: &str,
    delivery: &NewDelivery,
) -> Result<(), Failure> {
    sqlx::query(
        "insert into notify_delivery (message, channel, addressee, state, hurry, at, due_at)
         values ($1, $2, $3, 'waiting', $4, $5, 0) on conflict do nothing",
    )
    .bind(message)
    .bind(&delivery.channel)
    .bind(&delivery.addressee)
    .bind(i64::from(delivery.hurry))
    .bind(micros(delivery.at))
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

async fn change(
    transaction: &mut Transaction<'_, Any>,
    delivery: &Delivery,
    step: &Step,
) -> Result<bool, Failure> {
    let attempts = i64::from(delivery.attempts);
    let (state, due_at, attempts, why) = match step {
        Step::Take(until) => ("waiting", Some(until), attempts + 1, None),
        Step::PutOff(until, why) => ("waiting", Some(until), attempts, Some(why)),
        Step::PutBack(now) => ("waiting", Some(now), attempts - 1, None),
        Step::Delivered => ("delivered", None, attempts, None),
        Step::GiveUp(why) => ("given-up", None, attempts, Some(why)),
    };
    let done = sqlx::query(
        "update notify_delivery set state = $1, due_at = coalesce($2, due_at), attempts = $3,
            turn = turn + 1, why = coalesce($4, why)
         where message = $5 and channel = $6 and addressee = $7 and turn = $8
            and state = 'waiting'",
    )
    .bind(state)
    .bind(due_at.map(|at| micros(*at)))
    .bind(attempts.max(0))
    .bind(why.map(String::as_str))
    .bind(&delivery.key)
    .bind(&delivery.channel)
    .bind(&delivery.addressee)
    .bind(stored(delivery.turn))
    .execute(&mut **transaction)
    .await?;
    Ok(done.rows_affected() == 1)
}

fn delivery_from(row: &AnyRow) -> Result<Delivery> {
    let text = |column: &str| row.try_get(column).map_err(|_| damaged(column));
    let number = |column: &str| {
        let number: i64 = row.try_get(column).map_err(|_| damaged(column))?;
        u64::try_from(number).map_err(|_| damaged(column))
    };
    Ok(Delivery {
        key: text("message")?,
        channel: text("channel")?,
        addressee: text("addressee")?,
        at: time_of(row, "at")?,
        attempts: u32::try_from(number("attempts")?).unwrap_or(u32::MAX),
        turn: number("turn")?,
        message: message_from(row),
    })
}

fn message_from(row: &AnyRow) -> Option<Message> {
    let body: String = row.try_get("body").ok()?;
    serde_json::from_str(&body).ok()
}

fn time_of(row: &AnyRow, column: &str) -> Result<OffsetDateTime> {
    let wrong = || damaged(&format!("notify_delivery.{column}"));
    moment(row.try_get(column).map_err(|_| wrong())?).ok_or_else(wrong)
}
