//! What was revoked, tokens, keys, and tokens together with others; and what else was used up.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};

use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AssertSqlSafe, Row};
use time::OffsetDateTime;

use super::failure::Failure;
use super::rows::{damaged, micros, moment};
use super::values::Values;
use crate::broker::store::{Consumed, Issuance, Once, Revocable, Whose};
use crate::error::Result;

pub(super) const UNREADABLE: &str = "what was revoked cannot be read";

/// How many names of either sort one statement has at most. Engines take tens of thousands of
/// values.
const MOST: usize = 1024;

/// The kind that the last cut-off has which may mean somebody of whom nothing is known any more.
const ANYBODYS: &str = "anybodys";

/// A kind and an id.
type Name<'a> = (&'static str, Cow<'a, str>);

/// A question about all by which some tokens may be good no more: one for any number of them,
/// for each has to go to the database and back. Names are looked up, so it does not matter how
/// much else was revoked.
#[derive(Default)]
pub(super) struct Question<'a> {
    /// What may have been used up, or revoked by itself.
    used: BTreeSet<Name<'a>>,
    /// By what it may have been revoked together with others.
    named: BTreeSet<Name<'a>>,
    /// When the first of the tokens was issued that have these names.
    since: Option<OffsetDateTime>,
    /// When the first was issued of which nobody knows any more whose it is.
    erased: Option<OffsetDateTime>,
}

impl<'a> Question<'a> {
    /// Asks about these, too.
    pub(super) fn add(&mut self, these: &'a Revocable) {
        for (kind, ids) in [(Once::RevokedToken, &these.tokens), (Once::RevokedKey, &these.keys)] {
            self.used.extend(ids.iter().map(|id| (kind.as_str(), id.into())));
        }
        for token in &these.issued {
            self.named.extend(token.names.iter().map(Whose::parts));
            self.since = earlier(self.since, token.at);
            if token.erased {
                self.erased = earlier(self.erased, token.at);
            }
        }
    }

    /// Asks whether this was used up, too.
    pub(super) fn add_one(&mut self, one: &'a Consumed) {
        self.used.insert((one.kind.as_str(), Cow::from(&one.id)));
    }

    /// Whether it asks about tokens of these, who are revoked together.
    pub(super) fn is_about(&self, whose: &Whose) -> bool {
        let (kind, id) = whose.parts();
        let perhaps = self.erased.is_some() && Whose::PERSONAL.contains(&kind);
        perhaps || self.named.contains(&(kind, id))
    }

    /// Asks it.
    pub(super) async fn ask(
        &self,
        values: Values,
        database: &mut AnyConnection,
    ) -> Result<Found, Failure> {
        let (used, named) = (Vec::from_iter(&self.used), Vec::from_iter(&self.named));
        let (mut used, mut named) = (used.chunks(MOST), named.chunks(MOST));
        let mut erased = self.erased;
        let mut found = Found::default();
        loop {
            let part = Part {
                used: used.next().unwrap_or_default(),
                named: named.next().unwrap_or_default(),
                since: self.since,
                erased: erased.take(),
            };
            if part.is_empty() {
                return Ok(found);
            }
            let statement = AssertSqlSafe(part.statement(values));
            for row in &part.bind(sqlx::query(statement)).fetch_all(&mut *database).await? {
                found.add(row)?;
            }
        }
    }
}

/// As much of a question as one statement has.
struct Part<'a> {
    used: &'a [&'a Name<'a>],
    named: &'a [&'a Name<'a>],
    since: Option<OffsetDateTime>,
    erased: Option<OffsetDateTime>,
}

impl Part<'_> {
    fn is_empty(&self) -> bool {
        self.used.is_empty() && self.named.is_empty() && self.erased.is_none()
    }

    /// What asks it. There are few texts for all questions, so that a connection prepares few:
    /// where one asks about somewhat more, it asks about some of it twice.
    fn statement(&self, values: Values) -> String {
        let (used, named) = (enough(self.used).count(), enough(self.named).count());
        let mut ways = Vec::new();
        let mut next = 1;
        if used > 0 {
            ways.push(format!(
                "select kind, id, cast(null as bigint) as before from consumed
                 where (kind, id) in (values {})",
                values.rows(next, used, 2)
            ));
            next += used * 2;
        }
        let cut = "select kind, id, before from revocation_cutoff";
        if named > 0 {
            ways.push(format!(
                "{cut} where (kind, id) in (values {}) and before > {}",
                values.rows(next, named, 2),
                values.one(next + named * 2)
            ));
            next += named * 2 + 1;
        }
        if self.erased.is_some() {
            let kinds = Whose::PERSONAL.map(|kind| format!("'{kind}'")).join(", ");
            ways.push(format!(
                "select '{ANYBODYS}' as kind, '' as id, max(before) as before from revocation_cutoff
                 where kind in ({kinds}) and before > {} group by kind",
                values.one(next)
            ));
        }
        ways.join(" union all ")
    }

    /// Binds its values to that.
    fn bind(&self, query: Query<'static, Any, AnyArguments>) -> Query<'static, Any, AnyArguments> {
        let names = enough(self.used).chain(enough(self.named));
        let query = names.fold(query, |query, (kind, id)| query.bind(*kind).bind(id.to_string()));
        let since = self.since.filter(|_| !self.named.is_empty());
        let times = since.into_iter().chain(self.erased);
        times.fold(query, |query, at| query.bind(micros(at)))
    }
}

/// All of these, and the first of them again until there are as many as a power of two.
fn enough<'a>(all: &'a [&'a Name<'a>]) -> impl Iterator<Item = &'a Name<'a>> {
    let count = if all.is_empty() { 0 } else { all.len().next_power_of_two() };
    all.iter().copied().cycle().take(count)
}

fn earlier(one: Option<OffsetDateTime>, other: OffsetDateTime) -> Option<OffsetDateTime> {
    Some(one.map_or(other, |one| one.min(other)))
}

/// What of all that was asked about was used up or revoked.
#[derive(Default)]
pub(super) struct Found {
    /// What was used up, or revoked by itself: ids by kind.
    used: HashMap<String, HashSet<String>>,
    /// What was revoked together with others: before when they were issued, by kind and id.
    cut: HashMap<String, HashMap<String, OffsetDateTime>>,
}

impl Found {
    fn add(&mut self, row: &AnyRow) -> Result<()> {
        let text = |column: &str| {
            let text = row.try_get::<String, _>(column);
            text.map_err(|_| damaged(&format!("{column} of what was revoked")))
        };
        let damaged_time = || damaged("revocation_cutoff.before");
        let (kind, id) = (text("kind")?, text("id")?);
        let before = row.try_get::<Option<i64>, _>("before").map_err(|_| damaged_time())?;
        let Some(before) = before else {
            self.used.entry(kind).or_default().insert(id);
            return Ok(());
        };
        let before = moment(before).ok_or_else(damaged_time)?;
        let last = self.cut.entry(kind).or_default().entry(id).or_insert(before);
        *last = before.max(*last);
        Ok(())
    }

    /// Whether this was used up.
    pub(super) fn is_used_up(&self, one: &Consumed) -> bool {
        self.used.get(one.kind.as_str()).is_some_and(|used| used.contains(&one.id))
    }

    /// From now on it is.
    pub(super) fn use_up(&mut self, one: &Consumed) {
        self.used.entry(one.kind.as_str().into()).or_default().insert(one.id.clone());
    }

    fn is_cut_off(&self, token: &Issuance) -> bool {
        let is_meant = |kind: &str, id: &str| {
            let before = self.cut.get(kind).and_then(|ids| ids.get(id));
            before.is_some_and(|before| token.at < *before)
        };
        let mut names = token.names.iter().map(Whose::parts);
        names.any(|(kind, id)| is_meant(kind, &id)) || token.erased && is_meant(ANYBODYS, "")
    }

    /// Whether any of these was revoked, be it together with others.
    pub(super) fn revokes(&self, these: &Revocable) -> bool {
        let by_itself = [(Once::RevokedToken, &these.tokens), (Once::RevokedKey, &these.keys)];
        by_itself.into_iter().any(|(kind, ids)| {
            let used = self.used.get(kind.as_str());
            used.is_some_and(|used| ids.iter().any(|id| used.contains(id)))
        }) || these.issued.iter().any(|token| self.is_cut_off(token))
    }
}

#[cfg(test)]
pub(super) mod tests;
