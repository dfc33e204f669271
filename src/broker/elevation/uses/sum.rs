//! What was done, summed up in bounded room.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::super::moment;

/// How many rows of one kind with one outcome are told apart: who does much of one thing does
/// not hide another one behind it.
const ROWS_ALIKE: usize = 100;

/// How many rows are told apart at all.
const ROWS: usize = 400;

/// How long the texts of a row may be, in bytes: source, action, resource, outcome, from.
const LENGTHS: [usize; 5] = [128, 128, 256, 64, 64];

/// Where it is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A token was issued.
    Issued,
    /// It was decided about a request that a proxy held up.
    Decision,
    /// Somebody asked whether a token is good.
    Introspection,
    /// A log outside of the broker tells of it.
    Outside,
}

impl Kind {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Decision => "decision",
            Self::Introspection => "introspection",
            Self::Outside => "outside",
        }
    }
}

/// What was done: all of which is the same is one row.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct What {
    /// Where it is known from.
    pub kind: Kind,
    /// The route, whoever asked, the client, or the log.
    pub source: String,
    /// What was done.
    pub action: String,
    /// To what.
    pub resource: String,
    /// How it ended.
    pub outcome: String,
    /// From which address, where that is known.
    pub from: String,
}

impl What {
    /// With these texts: source, action, resource, outcome and from, as far as there is room.
    pub fn new(kind: Kind, texts: [&str; 5]) -> Self {
        let mut texts = texts.into_iter().zip(LENGTHS).map(|(text, most)| {
            let text: String =
                text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
            let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
            text[..end.unwrap_or_default()].to_string()
        });
        let mut next = || texts.next().unwrap_or_default();
        let (source, action, resource) = (next(), next(), next());
        Self { kind, source, action, resource, outcome: next(), from: next() }
    }
}

/// How often, and when first and last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Times {
    /// How often.
    pub count: u64,
    /// When first.
    #[serde(with = "moment")]
    pub first: OffsetDateTime,
    /// When last.
    #[serde(with = "moment")]
    pub last: OffsetDateTime,
}

impl Times {
    /// Once, at this moment.
    pub fn once(at: OffsetDateTime) -> Self {
        Self { count: 1, first: at, last: at }
    }

    /// Not at all; the first that is added is at this moment.
    pub(super) fn none_at(at: OffsetDateTime) -> Self {
        Self { count: 0, first: at, last: at }
    }

    /// And these.
    pub fn add(&mut self, others: &Self) {
        self.count = self.count.saturating_add(others.count);
        self.first = self.first.min(others.first);
        self.last = self.last.max(others.last);
    }
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// What.
    pub what: What,
    /// How often.
    pub times: Times,
}

/// All that was done under a grant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sum {
    /// What is told apart.
    pub rows: Vec<Row>,
    /// What there was besides, when there was no room for more rows.
    pub beyond: Option<Times>,
    /// How many could not be kept.
    pub lost: u64,
    /// How many events of outside logs are in it.
    pub events: u64,
}

impl Sum {
    /// Adds what was done so often.
    pub fn add(&mut self, what: What, times: &Times) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.what == what) {
            row.times.add(times);
            return;
        }
        let alike = |row: &&Row| (row.what.kind, &row.what.outcome) == (what.kind, &what.outcome);
        if self.rows.len() < ROWS && self.rows.iter().filter(alike).count() < ROWS_ALIKE {
            self.rows.push(Row { what, times: *times });
            return;
        }
        match &mut self.beyond {
            Some(beyond) => beyond.add(times),
            None => self.beyond = Some(*times),
        }
    }

    /// What was last done comes first.
    pub(super) fn sort(&mut self) {
        self.rows.sort_by(|a, b| (b.times.last, &a.what).cmp(&(a.times.last, &b.what)));
    }
}
