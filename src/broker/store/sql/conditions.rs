//! What units make a condition that has to be looked up, and what they use up: for all units of
//! a group at once, for each question and each change has to go to the database and back.

use sqlx::{Any, Transaction};
use time::{Duration, OffsetDateTime};

use super::engine::Engine;
use super::failure::Failure;
use super::inserts::{Inserts, Statement};
use super::revoked::{Found, Question};
use super::rows::micros;
use super::values::Values;
use crate::broker::store::{Consumed, Effect, Revocable, Unit, Whose};

/// What uses things up where an engine takes values like this.
pub(super) fn statements(values: Values) -> Inserts {
    Inserts::of("consumed", &["kind", "id", "consumed_at", "keep_until"], values)
}

/// What was revoked or used up of all that a group of units asks about, as their transaction
/// sees it: it has the lock that all need who use anything up.
pub(super) struct Conditions<'a> {
    engine: &'a Engine,
    /// What the time is by the database's clock, where it has one of its own.
    now: Option<OffsetDateTime>,
    question: Question<'a>,
    found: Option<Found>,
    /// What units of this group use up, and what is not written yet.
    unwritten: Vec<&'a Consumed>,
}

impl<'a> Conditions<'a> {
    /// Those of these units. Nobody has looked yet.
    pub(super) fn of(engine: &'a Engine, units: &'a [Unit], now: Option<OffsetDateTime>) -> Self {
        let mut question = Question::default();
        for effect in units.iter().flat_map(|unit| &unit.effects) {
            match effect {
                Effect::IfNotRevoked(these) => question.add(these),
                Effect::Consume(one) => question.add_one(one),
                _ => {}
            }
        }
        Self { engine, now, question, found: None, unwritten: Vec::new() }
    }

    /// Whether it is this moment by the database's clock, or not so far from it.
    pub(super) fn is_now(&self, at: OffsetDateTime, within: Duration) -> bool {
        self.now.is_none_or(|now| (at - now).abs() <= within)
    }

    /// Whether nothing of these, which are among the conditions, was revoked.
    pub(super) async fn are_good(
        &mut self,
        transaction: &mut Transaction<'_, Any>,
        these: &Revocable,
    ) -> Result<bool, Failure> {
        Ok(!self.look(transaction).await?.revokes(these))
    }

    /// Whether each of these, which are among what is used up, was not before, nor by another of
    /// them.
    pub(super) async fn are_unused(
        &mut self,
        transaction: &mut Transaction<'_, Any>,
        these: &[&'a Consumed],
    ) -> Result<bool, Failure> {
        if these.is_empty() {
            return Ok(true);
        }
        let found = self.look(transaction).await?;
        let again = |(place, one): (usize, &&Consumed)| {
            these[..place].iter().any(|other| (other.kind, &other.id) == (one.kind, &one.id))
        };
        Ok(!these.iter().any(|one| found.is_used_up(one)) && !these.iter().enumerate().any(again))
    }

    /// Uses these up, which are unused.
    pub(super) fn use_up(&mut self, these: Vec<&'a Consumed>) {
        if let Some(found) = &mut self.found {
            these.iter().for_each(|one| found.use_up(one));
        }
        self.unwritten.extend(these);
    }

    /// The tokens of these are revoked now. Only where it was asked about them it is asked again:
    /// in a group with many revocations that is seldom so.
    pub(super) fn cut_off(&mut self, whose: &Whose) {
        if self.question.is_about(whose) {
            self.found = None;
        }
    }

    /// Writes what was used up.
    pub(super) async fn write(
        &mut self,
        transaction: &mut Transaction<'_, Any>,
    ) -> Result<(), Failure> {
        self.engine.consumes.insert(transaction, self.unwritten.drain(..), bind).await
    }

    async fn look(&mut self, transaction: &mut Transaction<'_, Any>) -> Result<&Found, Failure> {
        // What was not written yet would not be found.
        if self.found.is_none() {
            self.write(transaction).await?;
        }
        Ok(match &mut self.found {
            Some(found) => found,
            none => none.insert(self.question.ask(self.engine.values, transaction).await?),
        })
    }
}

/// Binds the values in the order of the columns.
fn bind(query: Statement, one: &Consumed) -> Statement {
    query
        .bind(one.kind.as_str())
        .bind(one.id.clone())
        .bind(micros(one.at))
        .bind(micros(one.keep_until))
}

#[cfg(test)]
mod tests;
