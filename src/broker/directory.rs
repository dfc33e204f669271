//! The directory of people: who has which ids at the trusted issuers, who belongs to
//! which group, and how to reach them.
//!
//! A file that somebody exports, as TOML or JSON:
//!
//! ```toml
//! as_of = "2026-01-01T12:00:00Z"
//!
//! [group.on-call]
//!
//! [person.alice]
//! name = "Alice Example"
//! ids = [{ issuer = "https://login.example.com", subject = "8e7f" }]
//! groups = ["on-call"]
//! contacts = { email = "alice@example.com" }
//! ```
//!
//! Everybody is found by issuer and subject; names and addresses are labels. What is out
//! of date says nothing any more: what would be permitted by it is denied, and so is what
//! might be forbidden by it.

mod rough;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use percent_encoding::percent_decode_str;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::authenticate::id_of;
use super::{config, trusted_file};
use crate::credential::Principal;
use crate::error::{Error, ErrorKind, Result};
use crate::oidc::Issuer;

/// How large its file may be, in bytes.
pub(super) const MAX_FILE: u64 = 64 * 1024 * 1024;

/// How far ahead the clock of whoever exports may be.
const AHEAD: time::Duration = time::Duration::minutes(5);

/// How many exchanges of the broker's own tokens a subject is followed through.
const MAX_NESTED: usize = 32;

/// The table `[directory]` of `broker.toml`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The file, as TOML, or as JSON where it ends in `.json`.
    pub file: PathBuf,
    /// How old it may be, by its `as_of`; any age where left out.
    #[serde(default, deserialize_with = "age")]
    #[schemars(with = "Option<String>")]
    pub max_age: Option<Duration>,
}

fn age<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    config::parse_duration(&text).map(Some).map_err(serde::de::Error::custom)
}

/// The people, as a file has them.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, skip_serializing)]
    as_of: Option<String>,
    #[serde(default)]
    group: BTreeMap<String, Group>,
    #[serde(default)]
    person: BTreeMap<String, Person>,
}

/// A group of the directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// For people.
    #[serde(default)]
    pub description: String,
}

/// Somebody, whatever they are called at whichever issuer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// What they are called; a label.
    #[serde(default)]
    pub name: String,
    /// Who they are at the trusted issuers.
    pub ids: Vec<Id>,
    /// The groups that they belong to.
    #[serde(default)]
    pub groups: BTreeSet<String>,
    /// How to reach them, by kind; labels.
    #[serde(default)]
    pub contacts: BTreeMap<String, String>,
}

/// An id at an issuer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Id {
    /// The issuer.
    pub issuer: String,
    /// The subject.
    pub subject: String,
}

/// The directory.
#[derive(Clone, Debug)]
pub struct Directory {
    groups: BTreeMap<String, Group>,
    people: BTreeMap<String, Person>,
    /// Names of people, by their ids as texts.
    by_id: HashMap<String, String>,
    /// The issuers that people have ids at, or had in one before: whoever is nobody's there has
    /// left, and is no machine.
    issuers: BTreeSet<String>,
    /// Those that are said to be of people, for the same.
    said: BTreeSet<String>,
    as_of: Option<OffsetDateTime>,
    max_age: Option<Duration>,
    own: String,
    hash: String,
}

impl Directory {
    /// Reads the directory of the broker with this issuer.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the file cannot be read or contradicts itself.
    pub fn load(settings: &Settings, own: &Issuer, now: OffsetDateTime) -> Result<Self> {
        let failed = |error: Error| {
            error.context(format!("the directory {} cannot be used", settings.file.display()))
        };
        let file = read(&settings.file).map_err(failed)?;
        Self::of(file, settings.max_age, own, now).map_err(failed)
    }

    fn of(
        file: File,
        max_age: Option<Duration>,
        own: &Issuer,
        now: OffsetDateTime,
    ) -> Result<Self> {
        let wrong = |why: String| Err(Error::new(ErrorKind::Config, why));
        let hash = hash_of(&file);
        let as_of = match &file.as_of {
            None if max_age.is_some() => {
                return Err(Error::new(ErrorKind::Config, "it does not say how old it is")
                    .hint("let whoever exports it write `as_of`, or leave `max_age` out"));
            }
            None => None,
            Some(text) => Some(OffsetDateTime::parse(text, &Rfc3339).map_err(|cause| {
                let what = format!("its as_of '{text}' is no moment such as 2026-01-01T12:00:00Z");
                Error::new(ErrorKind::Config, what).because(cause)
            })?),
        };
        if as_of.is_some_and(|as_of| as_of > now.saturating_add(AHEAD)) {
            return wrong("its as_of is in the future".into());
        }
        // It would throw everybody out, where an export was cut off, or is being written.
        if file.person.is_empty() {
            return Err(Error::new(ErrorKind::Config, "it names no people").hint(
                "each of them has a table [person.NAME]; where there is nobody yet, leave out [directory]",
            ));
        }
        let names = file.group.keys().map(|name| ("group", name));
        for (table, name) in names.chain(file.person.keys().map(|name| ("person", name))) {
            if !config::is_name(name) {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!("[{table}.{name:?}] is not a possible name"),
                )
                .hint("use at most 64 letters, digits, dots, dashes and underscores"));
            }
        }
        let mut ids = HashMap::new();
        for (name, person) in &file.person {
            if let Some(group) = person.groups.iter().find(|g| !file.group.contains_key(*g)) {
                return wrong(format!(
                    "[person.{name}] is in the group '{group}', of which there is no [group.{group}]"
                ));
            }
            if person.ids.is_empty() {
                return wrong(format!("[person.{name}] has no ids, so nobody is that"));
            }
            for id in &person.ids {
                if id.issuer.is_empty() || id.subject.is_empty() {
                    return wrong(format!("[person.{name}] has an id without issuer or subject"));
                }
                let id = id_of(&id.issuer, &id.subject);
                if let Some(other) = ids.insert(id.clone(), name) {
                    return wrong(format!(
                        "[person.{other}] and [person.{name}] have the same id '{id}'"
                    ));
                }
            }
        }
        let (own, by_id) = (own.as_str().to_string(), by_id(&file.person));
        let ids = file.person.values().flat_map(|person| &person.ids);
        let issuers = ids.map(|id| id.issuer.clone()).collect();
        let (groups, people) = (file.group, file.person);
        let said = BTreeSet::default();
        Ok(Self { groups, people, by_id, issuers, said, as_of, max_age, own, hash })
    }

    /// What of it a newer one still says: nobody who is not in that, by no id and in no group
    /// that they have not there. Nothing is added, and it is as old as it was. `None` where
    /// the newer one takes nothing away.
    #[must_use]
    pub fn less(&self, newer: &Self) -> Option<Self> {
        let kept = |(name, person): (&String, &Person)| {
            let now = newer.people.get(name)?;
            let ids: Vec<_> =
                person.ids.iter().filter(|id| now.ids.contains(id)).cloned().collect();
            let groups = person.groups.intersection(&now.groups).cloned().collect();
            (!ids.is_empty()).then(|| (name.clone(), Person { ids, groups, ..person.clone() }))
        };
        let person: BTreeMap<_, _> = self.people.iter().filter_map(kept).collect();
        if person == self.people {
            return None;
        }
        let file = File { as_of: None, group: self.groups.clone(), person };
        let (by_id, issuers) = (by_id(&file.person), self.issuers.clone());
        let own = self.own.clone();
        Some(Self {
            hash: hash_of(&file),
            groups: file.group,
            people: file.person,
            by_id,
            issuers,
            said: self.said.clone(),
            as_of: self.as_of,
            max_age: self.max_age,
            own,
        })
    }

    /// Who somebody is; `None` for those who are not in it.
    pub fn person(&self, principal: &Principal) -> Option<(&str, &Person)> {
        // What nobody but the broker says of itself comes last.
        let ids = ids_of(principal, &self.own);
        let name = ids.iter().rev().find_map(|id| self.by_id.get(id))?;
        self.people.get_key_value(name).map(|(name, person)| (name.as_str(), person))
    }

    /// All people, by name.
    pub fn people(&self) -> impl Iterator<Item = (&str, &Person)> {
        self.people.iter().map(|(name, person)| (name.as_str(), person))
    }

    /// Whether those of this issuer are people: anybody in it has an id there, or had one in a
    /// directory that it follows, or that is said of the issuer.
    pub fn has_people_of(&self, issuer: &str) -> bool {
        self.issuers.contains(issuer) || self.said.contains(issuer)
    }

    /// The same, which follows this one.
    #[must_use]
    pub fn following(&self, before: &Self) -> Self {
        Self { issuers: &self.issuers | &before.issuers, ..self.clone() }
    }

    /// The person with this name.
    pub fn named(&self, name: &str) -> Option<&Person> {
        self.people.get(name)
    }

    /// Whether there is such a group.
    pub fn has_group(&self, name: &str) -> bool {
        self.groups.contains_key(name)
    }

    /// The same, where all who come from these issuers are people.
    #[must_use]
    pub fn with_people_of<'a>(mut self, issuers: impl Iterator<Item = &'a Issuer>) -> Self {
        self.said = issuers.map(|issuer| issuer.as_str().to_string()).collect();
        self
    }

    /// How many people are in it.
    pub fn len(&self) -> usize {
        self.people.len()
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.people.is_empty()
    }

    /// How old it is, where it says.
    pub fn age(&self, now: OffsetDateTime) -> Option<time::Duration> {
        self.as_of.map(|as_of| now - as_of)
    }

    /// How old it may be, where it matters.
    pub fn max_age(&self) -> Option<Duration> {
        self.max_age
    }

    /// Whether it is too old to say anything.
    pub fn is_stale(&self, now: OffsetDateTime) -> bool {
        match (self.age(now), self.max_age) {
            (Some(age), Some(max)) => age > max,
            _ => false,
        }
    }

    /// The last moment until this one at which it said something.
    pub fn last_fresh(&self, now: OffsetDateTime) -> OffsetDateTime {
        self.as_of.filter(|_| self.is_stale(now)).unwrap_or(now)
    }

    /// Names what it says.
    pub fn hash(&self) -> &str {
        &self.hash
    }
}

/// Names what a file says; not when.
fn hash_of(file: &File) -> String {
    let text = serde_json::to_vec(file).unwrap_or_default();
    HEXLOWER.encode(digest(&SHA256, &text).as_ref())
}

/// The names of people by each of their ids.
fn by_id(people: &BTreeMap<String, Person>) -> HashMap<String, String> {
    let ids = people.iter().flat_map(|(name, person)| {
        person.ids.iter().map(|id| (id_of(&id.issuer, &id.subject), name.clone()))
    });
    ids.collect()
}

fn read(path: &Path) -> Result<File> {
    if path.extension().is_some_and(|extension| extension == "json") {
        let bytes = trusted_file::read(path, MAX_FILE)?;
        return serde_json::from_slice(&bytes).map_err(|cause| {
            Error::new(ErrorKind::Config, "it is no JSON of a directory").because(cause)
        });
    }
    crate::config::read_file(path)
}

/// The ids of somebody as texts: their own, and where that is of the broker itself,
/// those of whom its token was issued for, and so on.
pub(super) fn ids_of(principal: &Principal, own: &str) -> Vec<String> {
    let mut ids = vec![id_of(&principal.issuer, &principal.subject)];
    let mut issuer = principal.issuer.clone();
    let mut subject = principal.subject.clone();
    while issuer == own && ids.len() < MAX_NESTED {
        // The subject of an own token is an id itself.
        let Some((next, encoded)) = subject.split_once('#') else { break };
        let Ok(decoded) = percent_decode_str(encoded).decode_utf8() else { break };
        let (next, decoded) = (next.to_string(), decoded.into_owned());
        ids.push(subject);
        (issuer, subject) = (next, decoded);
    }
    ids
}

/// The id of whom a token of the broker itself was issued for in the end; of others, their own.
pub(super) fn origin_of(principal: &Principal, own: &str) -> String {
    ids_of(principal, own).pop().unwrap_or_default()
}

/// The other way round: the id of somebody, then that of whom the broker's own token speaks
/// that they got, then of whom the one speaks that was exchanged for it, and so on.
pub(super) fn ids_from(principal: &Principal, own: &str) -> Vec<String> {
    let mut ids = vec![id_of(&principal.issuer, &principal.subject)];
    while ids.len() < MAX_NESTED
        && let Some(last) = ids.last()
    {
        ids.push(id_of(own, last));
    }
    ids
}

#[cfg(test)]
pub(crate) mod tests;
