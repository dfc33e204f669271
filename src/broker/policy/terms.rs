//! What is told to Cedar, in its terms. Some of these take it longer to make than to decide,
//! so they are kept.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use cedar_policy::{
    Context, Entity, EntityId, EntityTypeName, EntityUid, ParseErrors, RestrictedExpression,
};
use time::{OffsetDateTime, UtcOffset};

use super::elevation::{Approving, Elevating};
use super::operation::{Operation, Tokens};
use super::syntax::Claims;
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
    claims: Claims,
    known: Mutex<Known>,
}

impl Terms {
    /// Makes them for policies that read these claims.
    pub(super) fn new(claims: Claims) -> Outcome<Self> {
        let read = |name: &&str| {
            name.parse().map_err(|cause: ParseErrors| {
                Error::new(ErrorKind::Other, "a type of the schema has no name").because(cause)
            })
        };
        let types = KINDS.iter().map(read).collect::<Outcome<_>>()?;
        Ok(Self { types, claims, known: Mutex::default() })
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

    pub(super) fn audience_context(
        &self,
        audience: &str,
        moment: Moment,
    ) -> Result<Context, String> {
        let [time, source] = self.pairs(moment);
        made([text_pair("audience", audience), time, source])
    }

    /// What is to be known of an operation.
    pub(super) fn operation_context(
        &self,
        operation: &Operation,
        moment: Moment,
    ) -> Result<Context, String> {
        let [time, source] = self.pairs(moment);
        let mut pairs = vec![time, source];
        match operation {
            Operation::Revoke(tokens) => {
                let Tokens { what, subject, issuer, client, .. } = tokens;
                let subject = subject.as_ref().map(|subject| {
                    ("of_subject".to_string(), self.named_user(&subject_id(subject)))
                });
                pairs.push(text_pair("what", what.name()));
                pairs.extend(subject);
                pairs.extend(issuer.as_deref().map(|issuer| text_pair("of_issuer", issuer)));
                pairs.extend(client.as_deref().map(|client| text_pair("of_client", client)));
            }
            Operation::Administer(what) => pairs.push(text_pair("operation", what.name())),
        }
        made(pairs)
    }

    pub(super) fn context(
        &self,
        caller: &Caller,
        question: &Question<'_>,
    ) -> Result<Context, String> {
        let mut pairs = self.asked(caller, question);
        if let Some(actor) = caller.actors().first() {
            pairs.push(("actor".to_string(), self.named_user(actor.id())));
        }
        made(pairs)
    }

    /// What is to be known of a request to act: besides all else, for whom.
    pub(super) fn acting_context(
        &self,
        caller: &Caller,
        question: &Question<'_>,
    ) -> Result<Context, String> {
        let mut pairs = self.asked(caller, question);
        pairs.push(("subject".to_string(), self.named_user(caller.id())));
        made(pairs)
    }

    /// What is to be known of a request for a role for a while.
    pub(super) fn elevating_context(
        &self,
        caller: &Caller,
        asked: &Elevating<'_>,
        all: Option<&BTreeSet<String>>,
        moment: Moment,
    ) -> Result<Context, String> {
        let actors = caller.actors().iter().map(Actor::id).map(|id| self.named_user(id));
        let [time, source] = self.pairs(moment);
        let mut pairs = self.wanted(asked.audience, asked.scope.or(all), asked.ttl);
        pairs.extend([
            time,
            source,
            ("emergency".to_string(), RestrictedExpression::new_bool(asked.emergency)),
            ("key_bound".to_string(), RestrictedExpression::new_bool(asked.key_bound)),
            ("actors".to_string(), RestrictedExpression::new_set(actors)),
        ]);
        pairs.extend(caller.authenticated_client().map(|client| text_pair("client", client)));
        if let Some(actor) = caller.actors().first() {
            pairs.push(("actor".to_string(), self.named_user(actor.id())));
        }
        made(pairs)
    }

    /// What is to be known of an approval.
    pub(super) fn approving_context(
        &self,
        asked: &Approving<'_>,
        subject: &str,
        all: Option<&BTreeSet<String>>,
        now: OffsetDateTime,
    ) -> Result<Context, String> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pairs = self.wanted(asked.audience, asked.scope.or(all), asked.ttl);
        pairs.push(("time".to_string(), known.time(now)));
        pairs.push(("subject".to_string(), self.named_user(subject)));
        made(pairs)
    }

    fn wanted(
        &self,
        audience: &str,
        scope: Option<&BTreeSet<String>>,
        ttl: u64,
    ) -> Vec<(String, RestrictedExpression)> {
        let ttl = RestrictedExpression::new_long(i64::try_from(ttl).unwrap_or(i64::MAX));
        vec![
            text_pair("audience", audience),
            ("scope".to_string(), texts(scope.into_iter().flatten())),
            ("ttl".to_string(), ttl),
        ]
    }

    fn asked(
        &self,
        caller: &Caller,
        question: &Question<'_>,
    ) -> Vec<(String, RestrictedExpression)> {
        let ttl = question.ttl.unwrap_or(question.role_ttl).as_secs();
        let ttl = RestrictedExpression::new_long(i64::try_from(ttl).unwrap_or(i64::MAX));
        let actors = caller.actors().iter().map(Actor::id).map(|id| self.named_user(id));
        let [time, source] = self.pairs(question.moment);
        let mut pairs = vec![
            time,
            source,
            text_pair("audience", question.audience),
            ("scope".to_string(), texts(question.scope.unwrap_or(question.role_scopes))),
            ("ttl".to_string(), ttl),
            ("key_bound".to_string(), RestrictedExpression::new_bool(question.key_bound)),
            ("actors".to_string(), RestrictedExpression::new_set(actors)),
        ];
        pairs.extend(caller.authenticated_client().map(|client| text_pair("client", client)));
        if let Some(path) = question.elevation {
            let pair = text_pair("path", path);
            // One attribute of a name of its own is always a record.
            pairs.extend(
                RestrictedExpression::new_record([pair])
                    .ok()
                    .map(|record| ("elevation".to_string(), record)),
            );
        }
        pairs
    }

    fn named_user(&self, id: &str) -> RestrictedExpression {
        RestrictedExpression::new_entity_uid(self.uid(Kind::User, id))
    }

    /// The attributes of a context that tell of a moment.
    fn pairs(&self, moment: Moment) -> [(String, RestrictedExpression); 2] {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let source = known.address(moment.source.to_canonical());
        [("time".to_string(), known.time(moment.now)), ("source".to_string(), source)]
    }
}

fn subject_id(subject: &Principal) -> String {
    id_of(&subject.issuer, &subject.subject)
}

fn made(
    pairs: impl IntoIterator<Item = (String, RestrictedExpression)>,
) -> Result<Context, String> {
    Context::from_pairs(pairs).map_err(|cause| format!("the context: {cause}"))
}

fn texts<'a>(values: impl IntoIterator<Item = &'a String>) -> RestrictedExpression {
    RestrictedExpression::new_set(values.into_iter().cloned().map(RestrictedExpression::new_string))
}

fn names_of(principal: &Principal) -> [(String, RestrictedExpression); 2] {
    [text_pair("issuer", &principal.issuer), text_pair("subject", &principal.subject)]
}

fn text_pair(name: &str, text: &str) -> (String, RestrictedExpression) {
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
