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
