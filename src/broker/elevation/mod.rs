//! Elevation: to have a role for a while, because others approved.
//!
//! [`life`] is what becomes of a request, without any effect: which event leads from which
//! state to which. [`tally`] counts who has approved. [`desk`] is where requests are taken:
//! it looks at the rules, asks policy, and commits what follows together with its record.
//! What happens by the clock alone is seen to by [`due`].
//!
//! The store changes a grant only if it still is the one that was looked at, by its version;
//! so of two events at once one is first, and the other is weighed again by what came of that.
//! What the store has is sealed, as opaque tokens are: whoever writes the database makes no
//! grants.

mod admission;
mod against;
mod allowed;
mod crowd;
mod desk;
mod drill;
mod due;
mod eligible;
mod entry;
mod erase;
mod legible;
mod life;
mod list;
mod names;
mod reach;
mod seal;
mod sift;
mod signed;
mod tally;
mod telling;
pub mod uses;
mod verdict;

use std::collections::BTreeSet;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

pub(in crate::broker) use admission::{Tickets, check_extent};
pub(in crate::broker) use allowed::known;
pub(in crate::broker) use crowd::Crowds;
pub(in crate::broker) use desk::{longest, party};
pub use drill::Tried;
pub(in crate::broker) use eligible::Eligible;
pub use entry::{ElevationClaim, Underway};
pub use life::{Access, Event, Refused, Review};
pub use list::{Page, Seen, Which};
pub(in crate::broker) use reach::Reach;
pub(in crate::broker) use seal::ElevationSeal;
pub(in crate::broker) use signed::{At, id_of, once_of};
pub use signed::{NotTaken, SignedApproval, SignedRequest};
pub use tally::{Need, Tally};
pub(in crate::broker) use verdict::UNCHECKABLE;
pub use verdict::{Busy, Refusal, Request, Verdict};

use super::audit::micros;
use super::authenticate::Actor;
use super::config::{Role, Threshold, TokenFormat};

/// What asks for a role, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elevation {
    /// Its id.
    pub id: Uuid,
    /// Grows by one with each event.
    pub version: u64,
    /// What is asked for: none of it ever changes.
    pub asked: Asked,
    /// Whether the role is had.
    pub access: Access,
    /// Whether what was done was looked at.
    pub review: Review,
    /// Who approved, in that order.
    pub approvals: Vec<Approval>,
    /// When it was approved by enough for the first time.
    #[serde(with = "moments")]
    pub approved_at: Option<OffsetDateTime>,
    /// From when to when the role is had, once it has begun.
    pub grant: Option<Span>,
    /// What ended it.
    pub ended: Option<Ended>,
    /// Who reviewed it.
    pub reviewed: Option<Reviewed>,
    /// Of a drill that was given back: what policy said of a token under it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<Tried>,
    /// What was issued under it; nothing for those that never began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yields: Option<Yields>,
}

/// Of which kinds tokens under a grant are: as its role had them when it began, and when it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Yields {
    /// Whether there are signed ones, which somebody takes until they expire without asking.
    pub signed: bool,
    /// Whether AWS reads them, whose sessions then last by themselves.
    pub aws: bool,
}

impl Yields {
    /// What a role yields.
    pub fn of(role: &Role) -> Self {
        Self { signed: role.token_format == TokenFormat::Jwt, aws: role.aws.is_some() }
    }
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// On which path.
    pub path: Path,
    /// Whether it only is practised: nothing is issued under it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drill: bool,
    /// By whom.
    pub by: Party,
    /// Who acts for them, the one who does so now first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actors: Vec<Party>,
    /// The role.
    pub role: String,
    /// Whom its tokens are for.
    pub audience: String,
    /// What its tokens cover; `None`: whatever policy gives.
    pub scope: Option<BTreeSet<String>>,
    /// For how long, in seconds.
    pub ttl: u64,
    /// When it is to start; `None`: once it is approved.
    #[serde(with = "moments")]
    pub start: Option<OffsetDateTime>,
    /// The thumbprint of the key that its tokens will be bound to, where they will.
    pub key: Option<String>,
    /// Why.
    pub reason: String,
    /// The ticket.
    pub ticket: Option<String>,
    /// Whether it was not looked whether there is the ticket, though the role wants that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ticket_unchecked: bool,
    /// When.
    #[serde(with = "moment")]
    pub at: OffsetDateTime,
    /// Until when it can be approved.
    #[serde(with = "moment")]
    pub lapses_at: OffsetDateTime,
    /// From which address.
    pub source: String,
    /// What was signed, where it was asked for by a signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<SignedRequest>,
}

impl Asked {
    /// Whether those who act were there when it was asked for: it was approved for them.
    pub(in crate::broker) fn covers(&self, acting: &[Actor]) -> bool {
        acting.iter().map(Actor::principal).all(|actor| {
            let same =
                |known: &Party| (&known.issuer, &known.subject) == (&actor.issuer, &actor.subject);
            self.actors.iter().any(same)
        })
    }

    /// What has to be approved of it. Nobody knows who has started a machine: whoever did may be
    /// among those who approve, so that of each one more has to.
    pub(in crate::broker) fn thresholds(&self, of_role: &[Threshold]) -> Vec<Threshold> {
        let more = u32::from(self.by.person.is_none());
        let of_this = |threshold: &Threshold| Threshold {
            count: threshold.count.saturating_add(more),
            ..threshold.clone()
        };
        of_role.iter().map(of_this).collect()
    }

    /// The ticket, for people, who are told where nobody has looked whether there is one.
    pub(in crate::broker) fn ticket_said(&self) -> Option<String> {
        let unchecked = if self.ticket_unchecked { NOT_CHECKED } else { "" };
        self.ticket.as_ref().map(|ticket| format!("{ticket}{unchecked}"))
    }

    /// Whether it is the same request again, whenever and from wherever it came.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let what = |one: &Self| {
            let Self { role, audience, scope, ttl, key, reason, ticket, .. } = one.clone();
            (role, audience, scope, ttl, key, reason, ticket)
        };
        // As it is stored.
        let how = |one: &Self| (one.path, one.drill, one.start.map(micros));
        let acting = |one: &Self| one.actors.iter().map(Party::id).collect::<Vec<_>>();
        what(self) == what(other) && how(self) == how(other) && acting(self) == acting(other)
    }

    /// What nobody in particular asks for: this role, and all else as it may be.
    pub(in crate::broker) fn by_nobody(role: &str, now: OffsetDateTime) -> Self {
        Self {
            path: Path::Ordinary,
            drill: false,
            by: Party { issuer: String::new(), subject: String::new(), person: None },
            actors: Vec::new(),
            role: role.into(),
            audience: String::new(),
            scope: None,
            ttl: 0,
            start: None,
            key: None,
            reason: String::new(),
            ticket: None,
            ticket_unchecked: false,
            at: now,
            lapses_at: now,
            source: String::new(),
            signed: None,
        }
    }
}

/// How a grant comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// By approvals.
    Ordinary,
    /// Without, because there is an emergency.
    Emergency,
    /// By approvals, of which all may be signatures, because no identity provider can say who
    /// somebody is.
    ProviderDown,
}

impl Path {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ordinary => "ordinary",
            Self::Emergency => "emergency",
            Self::ProviderDown => "provider-down",
        }
    }
}

/// Somebody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Party {
    /// The issuer who says who they are.
    pub issuer: String,
    /// Who they are there.
    pub subject: String,
    /// Who they are in the directory, whoever says so. Nothing for those who are no people.
    pub person: Option<String>,
}

impl Party {
    /// By what they are told from others: the person, else issuer and subject.
    pub fn key(&self) -> String {
        match &self.person {
            Some(person) => format!("person {person}"),
            None => self.id(),
        }
    }

    /// Issuer and subject as one.
    pub fn id(&self) -> String {
        super::authenticate::id_of(&self.issuer, &self.subject)
    }

    /// Whether they are one, by whatever name.
    pub fn is(&self, other: &Self) -> bool {
        let same_person = self.person.is_some() && self.person == other.person;
        same_person || (&self.issuer, &self.subject) == (&other.issuer, &other.subject)
    }
}

/// That somebody approved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Who.
    pub by: Party,
    /// When.
    #[serde(with = "moment")]
    pub at: OffsetDateTime,
    /// What: the hash that they were shown.
    pub hash: String,
    /// Why, where they said so.
    pub reason: Option<String>,
    /// Those of their groups that were asked for: of no others they have approved, whatever
    /// they come to be in.
    pub groups: BTreeSet<String>,
    /// What they signed, where they approved by a signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<SignedApproval>,
    /// Whether it did not count when the role began to be had.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub void: bool,
}

/// From when to when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// When it began.
    #[serde(with = "moment")]
    pub from: OffsetDateTime,
    /// When it ends at the latest.
    #[serde(with = "moment")]
    pub until: OffsetDateTime,
}

/// What ended it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ended {
    /// Who; nobody where the clock did.
    pub by: Option<Party>,
    /// When.
    #[serde(with = "moment")]
    pub at: OffsetDateTime,
    /// Why, where somebody said so.
    pub reason: Option<String>,
}

/// That somebody looked at what was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reviewed {
    /// Who.
    pub by: Party,
    /// When.
    #[serde(with = "moment")]
    pub at: OffsetDateTime,
    /// What they found.
    pub note: String,
}

impl Elevation {
    /// What is asked for, with all that it would be had by, as one hash: who approves that
    /// approves nothing else. `rules` names the version of policies and roles.
    pub fn hash(&self, rules: &str) -> String {
        // Field by field in the order of the type: the same text for the same request.
        let text = serde_json::to_vec(&(HASHED, self.id, &self.asked, rules)).unwrap_or_default();
        HEXLOWER.encode(digest(&SHA256, &text).as_ref())
    }

    /// Whether the role is had at this moment. That it has begun is no question of the clock,
    /// which at another replica may be a little behind.
    pub fn is_active(&self, now: OffsetDateTime) -> bool {
        self.access.is_had() && self.grant.is_some_and(|grant| now < grant.until)
    }

    /// The same with what these roles yield at this moment, where it is had or was.
    #[must_use]
    pub fn noting<'a>(mut self, roles: impl IntoIterator<Item = &'a Role>) -> Self {
        for now in roles.into_iter().map(Yields::of).filter(|_| self.grant.is_some()) {
            let before = self.yields.unwrap_or_default();
            let (signed, aws) = (before.signed || now.signed, before.aws || now.aws);
            self.yields = Some(Yields { signed, aws });
        }
        self
    }

    /// The hash of the reason: what tokens and clouds are told of it.
    pub fn reason_hash(&self) -> String {
        let text = self.asked.reason.as_bytes();
        HEXLOWER.encode(digest(&SHA256, text).as_ref())
    }

    /// Whether this is somebody for whom it is, or who acts for them.
    pub fn is_for(&self, party: &Party) -> bool {
        self.asked.by.is(party) || self.asked.actors.iter().any(|actor| actor.is(party))
    }
}

/// What is said behind a ticket of which nobody has looked whether there is one.
const NOT_CHECKED: &str = " (not checked)";

/// What the hashed text begins with.
const HASHED: &str = "tmpcred elevation v1";

/// A moment as it is stored: microseconds since 1970.
mod moment {
    use serde::{Deserialize, Deserializer, Serializer};
    use time::OffsetDateTime;

    pub(super) fn serialize<S: Serializer>(
        at: &OffsetDateTime,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(super::micros(*at))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<OffsetDateTime, D::Error> {
        let micros = i64::deserialize(deserializer)?;
        super::moment_of(micros).ok_or_else(|| serde::de::Error::custom("it is no moment"))
    }
}

/// The same, of one that may be missing.
mod moments {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use time::OffsetDateTime;

    pub(super) fn serialize<S: Serializer>(
        at: &Option<OffsetDateTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        at.map(super::micros).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<OffsetDateTime>, D::Error> {
        let Some(micros) = Option::<i64>::deserialize(deserializer)? else { return Ok(None) };
        super::moment_of(micros)
            .map(Some)
            .ok_or_else(|| serde::de::Error::custom("it is no moment"))
    }
}

fn moment_of(micros: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).ok()
}

#[cfg(test)]
mod many;
#[cfg(test)]
mod tests;
