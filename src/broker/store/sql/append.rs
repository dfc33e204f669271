//! Appending records, with what makes them leaves of the tree.

use sqlx::{Any, Transaction};

use super::failure::Failure;
use super::inserts::{Inserts, Statement};
use super::rows::{damaged, micros};
use super::values::Values;
use crate::broker::audit::Record;
use crate::broker::audit::leaf::{COLUMNS, Leaf, SALT, stored};
use crate::broker::audit::tree::Hash;
use crate::error::{Error, ErrorKind, Result};

/// The columns that are written besides those of the leaf, behind those.
const OF_LEAF: [&str; 2] = ["leaf_version", "salt"];

/// What appends records where an engine takes values like this.
pub(super) fn statements(values: Values) -> Inserts {
    Inserts::of("audit_record", &[COLUMNS.as_slice(), &OF_LEAF].concat(), values)
}

/// Records that are to be appended, each with its number.
#[derive(Default)]
pub(super) struct Rows<'a> {
    rows: Vec<Row<'a>>,
}

struct Row<'a> {
    record: &'a Record,
    leaf: Leaf,
}

impl<'a> Rows<'a> {
    /// Adds a record, and returns the hash of its leaf.
    pub(super) fn push(&mut self, sequence: i64, record: &'a Record) -> Result<Hash> {
        let mut salt = [0; SALT];
        aws_lc_rs::rand::fill(&mut salt)
            .map_err(|_| Error::new(ErrorKind::Other, "the system gives no random numbers"))?;
        let place = u64::try_from(sequence).map_err(|_| damaged("audit_head.last_sequence"))?;
        let leaf = Leaf::new(place, record, salt);
        let hash = leaf.hash().ok_or_else(|| damaged("audit_record"))?;
        self.rows.push(Row { record, leaf });
        Ok(hash)
    }

    /// Writes them. None is left then.
    pub(super) async fn write(
        &mut self,
        transaction: &mut Transaction<'_, Any>,
        statements: &Inserts,
    ) -> Result<(), Failure> {
        statements.insert(transaction, self.rows.drain(..), bind).await
    }
}

/// Binds the values in the order of the columns.
fn bind(query: Statement, row: Row<'_>) -> Statement {
    let Row { record, leaf } = row;
    query
        .bind(stored(leaf.sequence))
        .bind(micros(record.at))
        .bind(record.request_id.to_string())
        .bind(record.action.clone())
        .bind(record.decision.as_str())
        .bind(record.reason.clone())
        .bind(record.principal.issuer.clone())
        .bind(record.principal.subject.clone())
        .bind(record.client.clone())
        .bind(record.source.clone())
        .bind(record.role.clone())
        .bind(record.audience.clone())
        .bind(record.scope.clone())
        .bind(stored(record.ttl))
        .bind(record.jti.map(|jti| jti.to_string()))
        .bind(record.parent.map(|jti| jti.to_string()))
        .bind(record.policy_id.clone())
        .bind(record.policy_hash.clone())
        .bind(stored(record.count))
        .bind(record.actor.clone())
        .bind(record.trace_id.map(|id| id.to_string()))
        .bind(record.elevation.map(|id| id.to_string()))
        .bind(record.claims.clone())
        .bind(leaf.version)
        .bind(leaf.salt)
}
