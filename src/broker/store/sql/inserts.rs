//! Inserting many rows by one statement, because each has to go to the database and back.

use std::sync::Arc;

use sqlx::any::AnyArguments;
use sqlx::query::Query;
use sqlx::{Any, AssertSqlSafe, Transaction};

use super::failure::Failure;
use super::values::Values;

/// How many rows a statement writes. Few sizes, so that a connection prepares few
/// statements, and few statements for any number of rows, one for as many as are usual; none with
/// more values than SQLite takes.
const SIZES: [usize; 11] = [64, 32, 16, 8, 7, 6, 5, 4, 3, 2, 1];

/// A statement to which values are bound.
pub(super) type Statement = Query<'static, Any, AnyArguments>;

/// The statements that insert into a table, one for each of these sizes.
pub(super) struct Inserts([Arc<str>; SIZES.len()]);

impl Inserts {
    /// Those for these columns of a table, which name their values like this.
    pub(super) fn of(table: &str, columns: &[&str], values: Values) -> Self {
        let statement = |count: usize| {
            let rows = values.rows(1, count, columns.len());
            format!("{} {table} ({}) values {rows}", values.insert(), columns.join(", ")).into()
        };
        Self(SIZES.map(statement))
    }

    /// Inserts these rows. `bind` binds the values of one, in the order of the columns.
    pub(super) async fn insert<R>(
        &self,
        transaction: &mut Transaction<'_, Any>,
        rows: impl ExactSizeIterator<Item = R>,
        bind: fn(Statement, R) -> Statement,
    ) -> Result<(), Failure> {
        let mut left = rows;
        for (size, statement) in SIZES.iter().zip(&self.0) {
            while left.len() >= *size {
                let query = sqlx::query(AssertSqlSafe(Arc::clone(statement)));
                let query = left.by_ref().take(*size).fold(query, bind);
                query.execute(&mut **transaction).await?;
            }
        }
        Ok(())
    }
}
