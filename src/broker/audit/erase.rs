//! Erasing what the log has of a person. What is personal in a record, and the salt that
//! goes with it, are removed; what is in the tree of it is an HMAC that nobody can guess
//! the text from. So all proofs stay what they were.
//!
//! Each erasure is on record, in the same commit: which records, who asked for it, and why;
//! never what was erased.

use std::fmt::Write as _;

use time::OffsetDateTime;

use super::leaf::{COLUMNS, Leaf};
use super::{Decision, Record};
use crate::broker::directory::ids_from;
use crate::broker::store::{Effect, Outcome, Store, Traces, Unit};
use crate::credential::Principal;
use crate::error::{Error, ErrorKind, Result};
use crate::oidc::Issuer;

/// What such records are about.
const ACTION: &str = "erase";

/// How many records are erased by one commit: others wait for the log meanwhile.
const BATCH: u32 = 50;

/// Whose records are erased, by whom, and why.
pub struct Erasure<'a> {
    /// Whose.
    pub person: &'a Principal,
    /// Who asks for it, for people.
    pub by: &'a str,
    /// Why.
    pub reason: &'a str,
    /// The broker's issuer.
    pub issuer: &'a Issuer,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// How many records were erased.
    pub records: u64,
    /// How many tell of the person and cannot be erased: they are from before there was a
    /// tree, and in it as they are.
    pub fixed: u64,
}

/// Erases all that the log has of a person, as it is at this moment; also where they asked or
/// acted by tokens of the broker's own, which name them by an id within an id.
///
/// # Errors
/// Whatever keeps it from being done; what was done until then is done, and on record.
pub async fn erase(store: &dyn Store, what: &Erasure<'_>, now: OffsetDateTime) -> Result<Erased> {
    let person = what.traces();
    let mut done = Erased::default();
    let mut after = 0;
    loop {
        let found = store.of_person(&person, after, BATCH).await?;
        let Some(last) = found.last else { return Ok(done) };
        (after, done.fixed) = (last, done.fixed + found.fixed);
        if found.records.is_empty() {
            continue;
        }
        let count = found.records.len() as u64;
        let record = what.record(&found.records, now);
        super::leaf::check(&record)?;
        let unit = Unit::of(record).with(Effect::Erase(found.records));
        if !store.commit(&[unit]).await?.into_iter().all(Outcome::is_committed) {
            return Err(Error::new(ErrorKind::Other, "records were not erased")
                .because_of("one of them is not what was appended, or somebody else erases them")
                .hint("`tmpcred broker audit verify` says more; then do it again"));
        }
        done.records += count;
    }
}

impl Erasure<'_> {
    /// By which names the person is found.
    pub(in crate::broker) fn traces(&self) -> Traces {
        let own = self.issuer.as_str();
        let actors = ids_from(self.person, own);
        let by_own = actors.iter().map(|id| Principal { issuer: own.into(), subject: id.clone() });
        let callers = [self.person.clone()].into_iter().chain(by_own).collect();
        Traces { callers, actors }
    }

    /// A record of what is erased.
    pub(in crate::broker) fn record_of(&self, at: OffsetDateTime, action: &str) -> Record {
        let name = Principal { issuer: self.issuer.as_str().into(), subject: "operator".into() };
        Record::of_the_broker(at, action, Decision::Changed, name)
    }

    fn record(&self, sequences: &[u64], at: OffsetDateTime) -> Record {
        let mut spans = Spans::default();
        sequences.iter().for_each(|sequence| spans.add(*sequence, *sequence));
        Record {
            reason: format!("{} asked for it: {}", self.by, self.reason),
            scope: spans.text(),
            count: sequences.len() as u64,
            ..self.record_of(at, ACTION)
        }
    }
}

/// The records of which this one says that they were erased.
pub(super) fn told_by(leaf: &Leaf) -> Vec<(u64, u64)> {
    let value = |name: &str| {
        let at = COLUMNS.iter().position(|column| *column == name)?;
        leaf.values.as_ref()?[at].as_deref()
    };
    match (value("action"), value("decision"), value("scope")) {
        (Some(ACTION), Some(decision), Some(scope)) if decision == Decision::Changed.as_str() => {
            Spans::parse(scope)
        }
        _ => Vec::new(),
    }
}

/// Numbers of records, as spans from one to another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spans(Vec<(u64, u64)>);

impl Spans {
    /// Adds a span.
    pub(super) fn add(&mut self, first: u64, last: u64) {
        match self.0.last_mut() {
            Some((_, end)) if end.checked_add(1) == Some(first) => *end = last,
            _ => self.0.push((first, last)),
        }
    }

    /// What is left where these others are taken away.
    pub(super) fn without(self, others: &Self) -> Vec<(u64, u64)> {
        let mut others = others.0.clone();
        others.sort_unstable();
        let mut others = others.into_iter().peekable();
        let mut left = Vec::new();
        for (mut first, last) in self.0 {
            while first <= last {
                match others.peek() {
                    Some((_, to)) if *to < first => drop(others.next()),
                    Some((from, to)) if *from <= first => first = to.saturating_add(1),
                    Some((from, _)) if *from <= last => {
                        left.push((first, from - 1));
                        first = *from;
                    }
                    _ => {
                        left.push((first, last));
                        break;
                    }
                }
            }
        }
        left
    }

    /// As they are on record: `3 7-9`.
    fn text(&self) -> String {
        let mut text = String::new();
        for (first, last) in &self.0 {
            let space = if text.is_empty() { "" } else { " " };
            // What is written to a text never fails.
            let _ = match first == last {
                true => write!(text, "{space}{first}"),
                false => write!(text, "{space}{first}-{last}"),
            };
        }
        text
    }

    fn parse(text: &str) -> Vec<(u64, u64)> {
        let span = |word: &str| {
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            Some((first.parse().ok()?, last.parse().ok()?))
        };
        text.split(' ').filter_map(span).collect()
    }
}

#[cfg(test)]
mod tests;
