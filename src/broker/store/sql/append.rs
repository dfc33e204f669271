//! Appending records: many by one statement, because each has to go to the database and
//! back.

use std::sync::Arc;

use sqlx::any::AnyArguments;
use sqlx::query::Query;
use sqlx::{Any, AssertSqlSafe, Transaction};

use super::failure::Failure;
use super::rows::{damaged, micros};
use super::values::Values;
use crate::broker::audit::Record;
use crate::broker::audit::leaf::{COLUMNS, Leaf, SALT, stored};
use crate::broker::audit::tree::Hash;
use crate::error::{Error, ErrorKind, Result};

/// The columns that are written besides those of the leaf, behind those.
const OF_LEAF: [&str; 2] = ["leaf_version", "salt"];

/// How many records a statement writes. Few sizes, so that a connection prepares few
/// statements, and few statements for any number of records; none with more values than SQLite
/// takes.
const SIZES: [usize; 7] = [64, 32, 16, 8, 4, 2, 1];

/// The statements, one for each of these sizes.
pub(super) struct Statements([Arc<str>; SIZES.len()]);

impl Statements {
    /// Those that name their values like this.
    pub(super) fn new(values: Values) -> Self {
        let columns = [COLUMNS.as_slice(), &OF_LEAF].concat();
        let statement = |records: usize| {
            let rows = values.rows(1, records, columns.len());
            format!("insert into audit_record ({}) values {rows}", columns.join(", ")).into()
        };
        Self(SIZES.map(statement))
    }
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
        statements: &Statements,
    ) -> Result<(), Failure> {
        let mut left = self.rows.drain(..).peekable();
        for (size, statement) in SIZES.iter().zip(&statements.0) {
            while left.len() >= *size {
                let query = sqlx::query(AssertSqlSafe(Arc::clone(statement)));
                let query = left.by_ref().take(*size).fold(query, bind);
                query.execute(&mut **transaction).await?;
            }
        }
        Ok(())
    }
}

type Statement = Query<'static, Any, AnyArguments>;

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
        .bind(leaf.version)
        .bind(leaf.salt)
}
