//! Rows, as what they mean.

use sqlx::Row;
use sqlx::any::AnyRow;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::broker::audit::leaf::{COLUMNS, Leaf, NUMBERS};
pub(super) use crate::broker::audit::micros;
use crate::broker::audit::{Decision, Record};
use crate::credential::Principal;
use crate::error::{Error, ErrorKind, Result};
use crate::trace::w3c;

pub(super) fn damaged(column: &str) -> Error {
    Error::new(ErrorKind::Io, "the broker's database is damaged")
        .because_of(format!("{column} has an impossible value"))
        .hint("restore a backup")
}

/// A time as the store has it.
pub(super) fn moment(micros: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).ok()
}

/// Reads columns of one table.
pub(super) struct Columns<'a> {
    pub(super) table: &'static str,
    pub(super) row: &'a AnyRow,
}

impl<'a> Columns<'a> {
    pub(super) fn get<T>(&self, column: &str) -> Result<T>
    where
        T: sqlx::Decode<'a, sqlx::Any> + sqlx::Type<sqlx::Any>,
    {
        self.row.try_get(column).map_err(|_| self.damaged(column))
    }

    pub(super) fn time(&self, column: &str) -> Result<OffsetDateTime> {
        moment(self.get(column)?).ok_or_else(|| self.damaged(column))
    }

    pub(super) fn damaged(&self, column: &str) -> Error {
        damaged(&format!("{}.{column}", self.table))
    }
}

pub(super) fn consumed_at_from(row: &AnyRow) -> Result<OffsetDateTime> {
    Columns { table: "consumed", row }.time("consumed_at")
}

pub(super) fn record_from(row: &AnyRow) -> Result<(u64, Record)> {
    let columns = Columns { table: "audit_record", row };
    let uuid =
        |column: &str, text: String| Uuid::parse_str(&text).map_err(|_| columns.damaged(column));
    let number =
        |column: &str| columns.get::<i64>(column)?.try_into().map_err(|_| columns.damaged(column));
    let decision: String = columns.get("decision")?;
    let optional = |column: &str| {
        columns.get::<Option<String>>(column)?.map(|text| uuid(column, text)).transpose()
    };
    let trace = |text: String| w3c::trace_id(&text).ok_or_else(|| columns.damaged("trace_id"));
    let record = Record {
        at: columns.time("at")?,
        request_id: uuid("request_id", columns.get("request_id")?)?,
        action: columns.get("action")?,
        decision: Decision::from_name(&decision).ok_or_else(|| columns.damaged("decision"))?,
        reason: columns.get("reason")?,
        principal: Principal { issuer: columns.get("issuer")?, subject: columns.get("subject")? },
        actor: columns.get("actor")?,
        trace_id: columns.get::<Option<String>>("trace_id")?.map(trace).transpose()?,
        client: columns.get("client")?,
        source: columns.get("source")?,
        role: columns.get("role")?,
        audience: columns.get("audience")?,
        scope: columns.get("scope")?,
        ttl: number("ttl")?,
        jti: optional("jti")?,
        parent: optional("parent")?,
        elevation: optional("elevation")?,
        claims: columns.get("claims")?,
        policy_id: columns.get("policy_id")?,
        policy_hash: columns.get("policy_hash")?,
        count: number("count")?,
    };
    Ok((number("sequence")?, record))
}

/// What of a record is in the tree, as it is: whatever was done to it is for whoever
/// checks it to find.
pub(super) fn leaf_from(row: &AnyRow) -> Result<Leaf> {
    let columns = Columns { table: "audit_record", row };
    let sequence: i64 = columns.get("sequence")?;
    let value = |column: &str| match NUMBERS.contains(&column) {
        true => columns.get::<i64>(column).map(|number| Some(number.to_string())),
        false => columns.get::<Option<String>>(column),
    };
    let values: Result<Vec<_>> = COLUMNS.into_iter().map(value).collect();
    Ok(Leaf {
        sequence: sequence.try_into().map_err(|_| columns.damaged("sequence"))?,
        version: columns.get("leaf_version").unwrap_or_default(),
        salt: columns.get("salt").unwrap_or_default(),
        erased: columns.get("erased").unwrap_or_default(),
        values: values.ok().and_then(|values| values.try_into().ok()),
    })
}
