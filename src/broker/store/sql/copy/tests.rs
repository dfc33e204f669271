use std::collections::BTreeSet;

use super::*;
use crate::broker::store::sqlite;

/// Whatever a migration adds has to be copied, too.
#[tokio::test]
async fn every_table_and_every_column_is_copied() {
    let store = sqlite::in_memory().await.unwrap();
    let columns: Vec<(String, String)> = sqlx::query_as(
        "select m.name, c.name from sqlite_master m join pragma_table_info(m.name) c
         where m.type = 'table' and m.name not like 'sqlite_%'",
    )
    .fetch_all(&store.engine.pool)
    .await
    .unwrap();
    let apart = ["_sqlx_migrations", "audit_head", "issuer_key_set", "probe"];
    // Whose turn it is to hand records on is for those who use the store to say.
    let turns = [("audit_sink", "holder"), ("audit_sink", "beat")];
    let there: BTreeSet<(&str, &str)> = columns
        .iter()
        .map(|(table, column)| (&table[..], &column[..]))
        .filter(|of| !apart.contains(&of.0) && !turns.contains(of))
        .collect();
    let copied = TABLES
        .iter()
        .flat_map(|table| table.columns.iter().map(|(column, _)| (table.name, *column)))
        .collect();
    assert_eq!(there, copied);
}

/// A server keeps what it would throw away for whoever reads it as it was.
#[cfg(unix)]
#[tokio::test]
async fn nothing_is_held_any_more_where_all_was_read() {
    use crate::broker::store::postgres::peer::Database;
    let (database, to) = (Database::new().await, sqlite::in_memory().await.unwrap());
    let from = database.open().await;
    let held = async || -> i64 {
        let ask = "select count(*) from pg_stat_activity where datname = current_database()
            and backend_type = 'client backend'
            and xact_start is not null and pid <> pg_backend_pid()";
        let others = database.bare().await;
        sqlx::query_scalar(ask).fetch_one(&others.engine.pool).await.unwrap()
    };
    let mut reading = from.engine.begin_long(false).await.unwrap();
    assert!(counted(&mut reading).await.is_ok());
    assert_eq!(held().await, 1);
    let mut into = to.engine.begin_long(true).await.unwrap();
    copy_tables(reading, &mut into).await.unwrap();
    assert_eq!(held().await, 0);
    assert!(counted(&mut into).await.is_ok());
}
