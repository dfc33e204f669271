//! What is told to Cedar, in its terms. Some of these take it longer to make than to decide,
//! so they are kept.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cedar_policy::{
    Context, Entity, EntityId, EntityTypeName, EntityUid, ParseErrors, RestrictedExpression,
};
use time::{OffsetDateTime, UtcOffset};

use super::elevation::{Approving, Elevating};
use super::operation::{Operation, Tokens};
use super::syntax::NamesRead;
use super::{BROKER, DIRECTORY_GROUP, PERSON, Question};
use crate::broker::authenticate::{Actor, Caller, id_of};
use crate::credential::Principal;
use crate::error::{Error, ErrorKind, Result as Outcome};

/// How many addresses are kept in mind.
const ADDRESSES: usize = 4096;

/// When something is asked, and from where.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// When.
    pub now: OffsetDateTime,
    /// From where.
    pub source: IpAddr,
}

/// The kinds of things that policies speak of.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Action,
    Broker,
    DirectoryGroup,
    Group,
    Person,
    Role,
    User,
}

/// Their names, as the schema has them.
const KINDS: [&str; 7] = ["Action", BROKER, DIRECTORY_GROUP, "Group", PERSON, "Role", "User"];

/// Makes what Cedar is told.
#[derive(Debug)]
pub(super) struct Terms {
    /// The types of [`KINDS`], in that order.
    types: Vec<EntityTypeName>,
    /// The claims that are of use to anybody: tokens of jobs have dozens.
    claims: NamesRead,
    /// What of a context is of use to anybody.
    attributes: NamesRead,
    known: Mutex<Known>,
}

/// What is to be known of a request.
pub(super) struct Told {
    /// As much of it as policies read.
    pub(super) read: Context,
    /// All of it, where it is held against the schema ([`CHECKED`]).
    pub(super) whole: Option<Context>,
}

/// Whether what is told is held against the schema. All of it is as the schema wants it, which
/// tests see to: having it checked takes longer than to decide.
pub(super) const CHECKED: bool = cfg!(debug_assertions);

impl Terms {
    /// Makes them for policies that read these claims, and these attributes of a context.
    pub(super) fn new(claims: NamesRead, attributes: NamesRead) -> Outcome<Self> {
        let read = |name: &&str| {
            name.parse().map_err(|cause: ParseErrors| {
                Error::new(ErrorKind::Other, "a type of the schema has no name").because(cause)
            })
        };
        let types = KINDS.iter().map(read).collect::<Outcome<_>>()?;
        Ok(Self { types, claims, attributes, known: Mutex::default() })
    }

    pub(super) fn uid(&self, kind: Kind, id: &str) -> EntityUid {
        let kind = self.types[kind as usize].clone();
        EntityUid::from_type_name_and_id(kind, EntityId::new(id))
    }

    /// Somebody, with all that policies read of what their token says, where they showed one.
    pub(super) fn user(
        &self,
        uid: EntityUid,
        principal: &Principal,
        party: Option<&Caller>,
        person: Option<&str>,
    ) -> Result<Entity, String> {
        let groups = party.into_iter().flat_map(Caller::groups);
        let groups = groups.map(|group| self.uid(Kind::Group, group));
        let parents = groups.chain(person.map(|name| self.uid(Kind::Person, name)));
        let tags = party.into_iter().flat_map(Caller::tags);
        let tags = tags.filter(|(name, _)| self.claims.has(name));
        Entity::new_with_tags(
            uid,
            names_of(principal),
            parents,
            tags.map(|(name, values)| (name.clone(), texts(values))),
        )
        .map_err(|cause| format!("the caller: {cause}"))
    }

    pub(super) fn audience_context(&self, audience: &str, moment: Moment) -> Result<Told, String> {
        let mut told = self.at(moment);
        told.text("audience", audience);
        told.made()
    }

    /// What is to be known of an operation.
    pub(super) fn operation_context(
        &self,
        operation: &Operation,
        moment: Moment,
    ) -> Result<Told, String> {
        let mut told = self.at(moment);
        match operation {
            Operation::Revoke(tokens) => {
                let Tokens { what, subject, issuer, client, .. } = tokens;
                told.text("what", what.name());
                if let Some(subject) = subject {
                    told.add("of_subject", || self.named_user(&subject_id(subject)));
                }
                told.texts([("of_issuer", issuer.as_deref()), ("of_client", client.as_deref())]);
            }
            Operation::Administer(what) => told.text("operation", what.name()),
        }
        told.made()
    }

    pub(super) fn context(&self, caller: &Caller, question: &Question<'_>) -> Result<Told, String> {
        let mut told = self.asked(caller, question);
        self.add_actor(&mut told, caller);
        told.made()
    }

    /// What is to be known of a request to act: besides all else, for whom.
    pub(super) fn acting_context(
        &self,
        caller: &Caller,
        question: &Question<'_>,
    ) -> Result<Told, String> {
        let mut told = self.asked(caller, question);
        told.add("subject", || self.named_user(caller.id()));
        told.made()
    }

    /// What is to be known of a request for a role for a while.
    pub(super) fn elevating_context(
        &self,
        caller: &Caller,
        asked: &Elevating<'_>,
        all: Option<&BTreeSet<String>>,
        moment: Moment,
    ) -> Result<Told, String> {
        let mut told = self.at(moment);
        told.wanted(asked.audience, asked.scope.or(all), asked.ttl);
        told.add("emergency", || RestrictedExpression::new_bool(asked.emergency));
        self.add_caller(&mut told, caller, asked.key_bound);
        self.add_actor(&mut told, caller);
        told.made()
    }

    /// What is to be known of an approval.
    pub(super) fn approving_context(
        &self,
        asked: &Approving<'_>,
        subject: &str,
        all: Option<&BTreeSet<String>>,
        now: OffsetDateTime,
    ) -> Result<Told, String> {
        let mut told = Telling::of(&self.attributes);
        told.wanted(asked.audience, asked.scope.or(all), asked.ttl);
        told.add("time", || self.known().time(now));
        told.add("subject", || self.named_user(subject));
        told.made()
    }

    fn asked(&self, caller: &Caller, question: &Question<'_>) -> Telling<'_> {
        let mut told = self.at(question.moment);
        let ttl = question.ttl.unwrap_or(question.role_ttl).as_secs();
        let scope = question.scope.unwrap_or(question.role_scopes);
        told.wanted(question.audience, Some(scope), ttl);
        self.add_caller(&mut told, caller, question.key_bound);
        if let Some(path) = question.elevation {
            told.record("elevation", text_pair("path", path));
        }
        told
    }

    /// Adds what goes with a caller.
    fn add_caller(&self, told: &mut Telling<'_>, caller: &Caller, key_bound: bool) {
        told.add("key_bound", || RestrictedExpression::new_bool(key_bound));
        told.add("actors", || {
            let actors = caller.actors().iter().map(Actor::id).map(|id| self.named_user(id));
            RestrictedExpression::new_set(actors)
        });
        told.texts([("client", caller.authenticated_client())]);
    }

    /// Adds who acts for a caller.
    fn add_actor(&self, told: &mut Telling<'_>, caller: &Caller) {
        if let Some(actor) = caller.actors().first() {
            told.add("actor", || self.named_user(actor.id()));
        }
    }

    /// What is to be known of a moment.
    fn at(&self, moment: Moment) -> Telling<'_> {
        let mut told = Telling::of(&self.attributes);
        told.add("time", || self.known().time(moment.now));
        told.add("source", || self.known().address(moment.source.to_canonical()));
        told
    }

    fn named_user(&self, id: &str) -> RestrictedExpression {
        RestrictedExpression::new_entity_uid(self.uid(Kind::User, id))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is to be known of a request, while it is put together.
struct Telling<'a> {
    names: &'a NamesRead,
    read: Vec<Pair>,
    whole: Vec<Pair>,
}

/// An attribute: its name, and what it is.
type Pair = (String, RestrictedExpression);

impl<'a> Telling<'a> {
    /// Nothing yet, of which policies read these attributes.
    fn of(names: &'a NamesRead) -> Self {
        Self { names, read: Vec::new(), whole: Vec::new() }
    }

    /// Adds an attribute, which is made where it is of use.
    fn add(&mut self, name: &'static str, make: impl FnOnce() -> RestrictedExpression) {
        let is_read = self.names.has(name);
        if !(is_read || CHECKED) {
            return;
        }
        let made = make();
        if CHECKED {
            self.whole.push((name.to_string(), made.clone()));
        }
        if is_read {
            self.read.push((name.to_string(), made));
        }
    }

    fn text(&mut self, name: &'static str, text: &str) {
        self.add(name, || RestrictedExpression::new_string(text.to_string()));
    }

    /// Adds those that are there.
    fn texts<const N: usize>(&mut self, texts: [(&'static str, Option<&str>); N]) {
        for (name, text) in texts {
            if let Some(text) = text {
                self.text(name, text);
            }
        }
    }

    /// Adds a record of one attribute.
    fn record(&mut self, name: &'static str, pair: Pair) {
        // With a name of its own, that is always one.
        if let Ok(record) = RestrictedExpression::new_record([pair]) {
            self.add(name, || record);
        }
    }

    /// Adds what is to be had.
    fn wanted(&mut self, audience: &str, scope: Option<&BTreeSet<String>>, ttl: u64) {
        self.text("audience", audience);
        self.add("scope", || texts(scope.into_iter().flatten()));
        self.add("ttl", || RestrictedExpression::new_long(i64::try_from(ttl).unwrap_or(i64::MAX)));
    }

    fn made(self) -> Result<Told, String> {
        let made =
            |pairs| Context::from_pairs(pairs).map_err(|cause| format!("the context: {cause}"));
        let whole = CHECKED.then(|| made(self.whole)).transpose()?;
        Ok(Told { read: made(self.read)?, whole })
    }
}

fn subject_id(subject: &Principal) -> String {
    id_of(&subject.issuer, &subject.subject)
}

fn texts<'a>(values: impl IntoIterator<Item = &'a String>) -> RestrictedExpression {
    RestrictedExpression::new_set(values.into_iter().cloned().map(RestrictedExpression::new_string))
}

fn names_of(principal: &Principal) -> [Pair; 2] {
    [text_pair("issuer", &principal.issuer), text_pair("subject", &principal.subject)]
}

fn text_pair(name: &str, text: &str) -> Pair {
    (name.to_string(), RestrictedExpression::new_string(text.to_string()))
}

/// What was made before.
#[derive(Debug, Default)]
struct Known {
    /// The last second, since 1970.
    second: Option<(i64, RestrictedExpression)>,
    addresses: HashMap<IpAddr, RestrictedExpression>,
}

impl Known {
    fn time(&mut self, now: OffsetDateTime) -> RestrictedExpression {
        let second = now.unix_timestamp();
        let known = self.second.take().filter(|(known, _)| *known == second);
        let (_, made) = self.second.insert(known.unwrap_or_else(|| (second, datetime(now))));
        made.clone()
    }

    fn address(&mut self, address: IpAddr) -> RestrictedExpression {
        if self.addresses.len() >= ADDRESSES && !self.addresses.contains_key(&address) {
            self.addresses.clear();
        }
        let make = || RestrictedExpression::new_ip(address.to_string());
        self.addresses.entry(address).or_insert_with(make).clone()
    }
}

fn datetime(now: OffsetDateTime) -> RestrictedExpression {
    let now = now.to_offset(UtcOffset::UTC);
    let (date, (hour, minute, second)) = (now.date(), now.time().as_hms());
    RestrictedExpression::new_datetime(format!("{date}T{hour:02}:{minute:02}:{second:02}Z"))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use time::macros::datetime;

    use super::*;

    #[test]
    fn what_is_known_is_what_would_be_made() {
        let mut known = Known::default();
        let text = |made: RestrictedExpression| format!("{made:?}");
        for (now, expected) in [
            (datetime!(2026-01-01 12:00:00.5 UTC), "2026-01-01T12:00:00Z"),
            (datetime!(2026-01-01 12:00:00.9 UTC), "2026-01-01T12:00:00Z"),
            (datetime!(2026-01-01 13:00:01 +1), "2026-01-01T12:00:01Z"),
            (datetime!(2026-01-01 12:00:00 UTC), "2026-01-01T12:00:00Z"),
        ] {
            let expected = RestrictedExpression::new_datetime(expected);
            assert_eq!(text(known.time(now)), text(expected), "{now}");
        }
        for number in (0..3 * ADDRESSES as u32).chain(0..3) {
            let address = IpAddr::from(Ipv4Addr::from_bits(number));
            let expected = RestrictedExpression::new_ip(address.to_string());
            assert_eq!(text(known.address(address)), text(expected));
            assert!(known.addresses.len() <= ADDRESSES);
        }
    }
}
