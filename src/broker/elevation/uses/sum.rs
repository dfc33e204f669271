//! What was done, summed up in bounded room.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::super::moment;

/// How many rows of one kind with one outcome are told apart, by how much of each is told: who
/// does much of one thing does not hide another one behind it. Where there is no room for all of
/// what was done, there is some for what it was like.
const ROWS_ALIKE: [usize; FORMS] = [80, 90, 96, 99, 100];

/// The same of one kind, whatever the outcome: whoever has two of them, as many as they like, leaves
/// room for others.
const ROWS_OF_KIND: [usize; FORMS] = [150, 165, 175, 180, 200];

/// In how many forms the same is told.
pub(super) const FORMS: usize = 5;

/// What stands for several that are not told apart.
const SEVERAL: &str = "\u{2026}";

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

    /// The same with ever less told apart: all of it; of a path its first part; nothing of the
    /// resource; nor from where; nor what was done.
    pub(super) fn forms(self) -> [Self; FORMS] {
        let mut parts = self.resource.splitn(3, '/');
        let resource = match (parts.next(), parts.next(), parts.next()) {
            (Some(""), Some(first), Some(_)) => format!("/{first}/{SEVERAL}"),
            _ => SEVERAL.into(),
        };
        let by_part = Self { resource, ..self.clone() };
        let by_action = Self { resource: SEVERAL.into(), ..self.clone() };
        let from_anywhere = Self { from: SEVERAL.into(), ..by_action.clone() };
        let by_source = Self { action: SEVERAL.into(), ..from_anywhere.clone() };
        [self, by_part, by_action, from_anywhere, by_source]
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
        let of_kind = self.rows.iter().filter(|row| row.what.kind == what.kind);
        let (count, alike) = of_kind.fold((0, 0), |(count, alike), row| {
            (count + 1, alike + usize::from(row.what.outcome == what.outcome))
        });
        let room = ROWS_ALIKE.into_iter().zip(ROWS_OF_KIND);
        for (what, (most_alike, most)) in what.forms().into_iter().zip(room) {
            if let Some(row) = self.rows.iter_mut().find(|row| row.what == what) {
                return row.times.add(times);
            }
            if count < most && alike < most_alike {
                return self.rows.push(Row { what, times: *times });
            }
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
