//! A record on its way.

use time::OffsetDateTime;

use crate::broker::audit::export::{Format, exported, missing, unreadable};
use crate::broker::store::Row;
use crate::error::printable_json;

/// A record as a sink gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Letter {
    /// Its number.
    pub(super) sequence: u64,
    /// When it was decided; `None` where nobody can tell.
    pub(super) at: Option<OffsetDateTime>,
    /// Whether what it tells of went well.
    pub(super) went_well: bool,
    /// The record as JSON, on one line.
    pub(super) json: String,
}

impl Letter {
    /// The record of a row. One that cannot be read keeps no other back: it is said that it
    /// is there, at the time of a record beside it.
    pub(super) fn of((sequence, record): &Row, format: Format, near: OffsetDateTime) -> Self {
        let sequence = *sequence;
        let json = match record {
            Some(record) => exported(format, sequence, record),
            None => unreadable(format, sequence, near),
        };
        Self {
            sequence,
            at: record.as_ref().map(|record| record.at),
            went_well: record.as_ref().is_some_and(|record| record.went_well()),
            json: printable_json(&json.to_string()),
        }
    }

    /// What a sink gets in the place of records that are gone, from the first of these numbers
    /// to the last.
    pub(super) fn of_missing(gone: (u64, u64), format: Format, near: OffsetDateTime) -> Self {
        let json = printable_json(&missing(format, gone, near).to_string());
        Self { sequence: gone.1, at: None, went_well: false, json }
    }
}
