//! What is wrong with a configuration beyond what its types can say.

use super::diagnostic::{shown, told};
use super::tree::{Node, Table};
use crate::error::{Error, ErrorKind};

/// An error, and the table that it is about.
#[derive(Debug)]
pub struct Misfit {
    table: Vec<String>,
    is_private: bool,
    error: Error,
}

impl Misfit {
    /// Of the table that these keys lead to; that of the whole file where there are none. Where the
    /// words name one of its keys, that is shown. Whatever was wrong with a value, now it is the
    /// configuration that is.
    pub fn of(table: &[&str], error: Error) -> Self {
        let table = table.iter().map(ToString::to_string).collect();
        Self { table, is_private: false, error: error.of_kind(ErrorKind::Config) }
    }

    /// The same of a table in which something secret may stand: it is said where it begins, and
    /// nothing of it shown. (It may be written on one line.)
    pub fn of_private(table: &[&str], error: Error) -> Self {
        Self { is_private: true, ..Self::of(table, error) }
    }

    /// The error, with the place in this file.
    pub(super) fn shown_in(self, file: &Node) -> Error {
        let (mut found, mut is_whole) = (None, true);
        let mut table = file.as_table();
        for step in &self.table {
            match table.and_then(|table| table.get(step)) {
                Some(entry) => {
                    found = Some(&entry.node.origin);
                    table = entry.node.as_table();
                }
                None => is_whole = false,
            }
        }
        if !self.is_private && is_whole {
            found = table.and_then(|table| named(table, &self.error)).or(found);
        }
        let show = if self.is_private { told } else { shown };
        match found.and_then(show) {
            Some(place) => self.error.because_of(place),
            None => self.error,
        }
    }
}

/// Where the key of this table is that the words of an error name first.
fn named<'a>(table: &'a Table, error: &Error) -> Option<&'a super::source::Origin> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = error.message().split(|c| !is_part(c));
    words.filter(|word| !word.is_empty()).find_map(|word| table.get(word)).map(|entry| &entry.key)
}

impl From<Misfit> for Error {
    fn from(misfit: Misfit) -> Self {
        misfit.error
    }
}
