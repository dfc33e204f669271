//! Revoking many tokens at once: those of a subject, an issuer, a role or a client that
//! were issued before a time.
//!
//! That is one row, however many tokens there are; whoever looks whether a token is good
//! holds against it what the token says. `tmpcred broker revoke` writes it beside running
//! brokers, which look with each request; and a running one writes it for whoever policy lets
//! revoke.

mod known;
mod reach;
mod survey;

use std::collections::BTreeSet;
use std::sync::Arc;

use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime, UtcOffset};
use tokio::time::Instant;
use uuid::Uuid;

pub use self::known::issuer_meant;
pub use self::reach::Reached;
use super::Broker;
use super::audit::leaf::{self, ERASED};
use super::audit::{Author, Decision, Record};
use super::authenticate::Actor;
use super::config::{Config, MAX_TTL};
use super::directory::ids_of;
use super::keys::{CheckpointKeys, Kek};
use super::opaque;
use super::own::OwnToken;
use super::store::{
    self, Consumed, Cutoff, Effect, Filter, Issuance, Once, Outcome, Revocable, Store, Unit, Whose,
};
use crate::credential::Principal;
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::clock::Clock;
use crate::oidc::Issuer;
use crate::oidc::jwt::LEEWAY;
use crate::secret::Secret;
use crate::trace;

/// How far the clocks of a broker, its database and whoever runs it may be apart.
pub(super) const CLOCKS_DIFFER: Duration = Duration::seconds(5);

/// How far two clocks are apart that say this; `None` where that does not matter.
pub(super) fn apart(one: OffsetDateTime, other: OffsetDateTime) -> Option<String> {
    let differ = (one - other).abs();
    let seconds = std::time::Duration::from_secs(differ.whole_seconds().unsigned_abs());
    (differ > CLOCKS_DIFFER).then(|| humantime::format_duration(seconds).to_string())
}

/// How long it may take to count tokens where somebody waits for an answer.
const COUNT_FOR: std::time::Duration = std::time::Duration::from_secs(5);

/// What is revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// One token, by its id.
    Token(Uuid),
    /// All of these that were issued before a time.
    Many {
        /// Whose.
        whose: Whose,
        /// Before when; now where left out.
        before: Option<OffsetDateTime>,
    },
}

/// What was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// How many tokens that were good, as far as the log tells; `None` where they could not
    /// be counted.
    pub tokens: Option<u64>,
    /// Before when they were issued.
    pub before: OffsetDateTime,
    /// Whether any token of theirs of late is on record, be it good or not; `None` where that
    /// is not looked at, or cannot be told.
    pub on_record: Option<bool>,
}

/// Who runs a broker, at its database.
pub struct Operator {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    by: Author,
    /// The broker's issuer.
    issuer: Issuer,
    /// How long tokens may take to be counted.
    count_for: Option<std::time::Duration>,
}

impl Operator {
    /// Opens the database of the broker that this file describes. Needs a runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where there is none, or where the key-encryption key, by which
    /// the end of the audit log is sealed, is not at hand.
    pub async fn open(host: &Host, config: &Config) -> Result<Self> {
        let kek = Kek::load(&config.keys, &host.env).await?;
        let store = store::open_existing(&config.store, &host.env).await?;
        let keys = CheckpointKeys::of_broker(&store, &kek, &config.issuer).await?;
        store.seal_with(keys.root_key().seal_of_log()).await?;
        Ok(Self::beside(Arc::new(store), host.clock.clone(), config.issuer.clone()))
    }

    /// The operator of a broker with this issuer and this database, which seals the end of
    /// its log.
    pub fn beside(store: Arc<dyn Store>, clock: Arc<dyn Clock>, issuer: Issuer) -> Self {
        Self { store, clock, by: Author::operator(&issuer), issuer, count_for: None }
    }

    /// The same, in the name of somebody who waits for an answer.
    pub(super) fn on_behalf_of(self, by: Author) -> Self {
        Self { by, count_for: Some(COUNT_FOR), ..self }
    }

    /// Revokes, and puts that on record in the same commit.
    ///
    /// # Errors
    /// A token that this broker did not issue; a time that is yet to come; where no time is
    /// said, clocks that differ about it.
    pub async fn revoke(&self, what: &What, reason: &str) -> Result<Revoked> {
        let here = self.clock.now();
        let now = self.store.now().await?.unwrap_or(here);
        let (whose, before) = match what {
            What::Token(jti) => return self.revoke_one(*jti, reason, now).await,
            What::Many { whose, before } => (whose, *before),
        };
        // What was issued until then was revoked already, and is not counted: that is no reason to
        // wait with this.
        let since = self.store.revoked_until(whose).await;
        let before = match before {
            Some(before) => {
                self.require_passed(before, now).await?;
                self.cut_off(whose, before, reason, now).await?;
                before
            }
            None => {
                let before = self.require_one_time(here, now).await?;
                let number = self.cut_off(whose, before, reason, now).await?;
                // What was put on record meanwhile ends as well.
                match self.newest(now, number).await?.filter(|at| *at >= before) {
                    Some(newest) => {
                        let before = newest.saturating_add(Duration::MICROSECOND);
                        self.cut_off(whose, before, reason, now).await?;
                        before
                    }
                    None => before,
                }
            }
        };
        Ok(self.revoked(whose, (since, before), now).await)
    }

    /// The latest moment that is on record under a lower number than this, where it has not
    /// passed. Numbers and moments are not in the same order: each broker has its own clock.
    async fn newest(&self, now: OffsetDateTime, below: u64) -> Result<Option<OffsetDateTime>> {
        self.store.latest(now, below).await
    }

    /// Whether something is on record of a moment before this one, which has not passed: by the
    /// clock of a broker that is ahead.
    async fn is_on_record(&self, before: OffsetDateTime, now: OffsetDateTime) -> Result<bool> {
        Ok(self.newest(now, u64::MAX).await?.is_some_and(|at| before <= second_after(at)))
    }

    /// Refuses to say by this clock when now is where others know better. By one that is
    /// behind, what was issued just now would stay good; by one that is ahead, what is yet to
    /// be issued never would be, and that could not be taken back. Returns a moment that all
    /// that is on record is before: a broker's clock may be ahead by a little.
    async fn require_one_time(
        &self,
        here: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Result<OffsetDateTime> {
        let newest = self.newest(now, u64::MAX).await?.filter(|at| *at > now);
        let others = [(now, "the database's clock"), (newest.unwrap_or(now), "the newest record")];
        for ((other, whose), is_record) in others.into_iter().zip([false, true]) {
            if let Some(differ) = apart(other, here) {
                return Err(Error::new(ErrorKind::Config, "it cannot be told what time it is")
                    .because_of(format!(
                        "by {whose} it is {}, and by this machine's {}: they are {differ} apart",
                        written(other),
                        written(here),
                    ))
                    .hint(match is_record {
                        false => "set the one that is wrong, or say by --before what is revoked".into(),
                        true => format!(
                            "a broker's clock is ahead: set it, and revoke what it has issued as well by --before {}; nothing of it is issued until then",
                            written(second_after(other)),
                        ),
                    }));
            }
        }
        Ok(newest.map_or(now, |at| at.saturating_add(Duration::MICROSECOND)))
    }

    /// The id of a token that somebody has: it is not looked at whether it is good.
    ///
    /// # Errors
    /// Whatever is no token of this broker.
    pub async fn id_of(&self, token: &Secret<String>) -> Result<Uuid> {
        let claims = match opaque::hash(token) {
            Some(hash) => {
                let kept = self.store.opaque(&hash).await?;
                kept.and_then(|kept| serde_json::from_str(&kept.claims).ok())
            }
            None => crate::oidc::jwt::decode_unverified(token.expose()).ok().map(|t| t.claims),
        };
        let jti = claims.as_ref().and_then(|claims| claims.get("jti")?.as_str()?.parse().ok());
        jti.ok_or_else(|| Error::new(ErrorKind::Usage, "that is no token of a broker"))
    }

    /// Lets go of the database.
    pub async fn close(self) {
        self.store.close().await;
    }

    async fn revoke_one(&self, jti: Uuid, reason: &str, now: OffsetDateTime) -> Result<Revoked> {
        let (issued, end) = self.issued(jti).await?;
        let was_good = end > now && !self.is_cut_off(&issued).await?;
        let revoked = Effect::Consume(Consumed {
            kind: Once::RevokedToken,
            id: jti.to_string(),
            at: now,
            keep_until: end.saturating_add(LEEWAY),
        });
        let record = self.by.signed(Record {
            at: now,
            request_id: Uuid::new_v4(),
            trace_id: trace::id(),
            action: "revoke".into(),
            decision: Decision::Revoked,
            reason: format!("{} revoked it: {reason}", self.by.said()),
            claims: None,
            policy_id: None,
            policy_hash: String::new(),
            ..issued
        });
        let done = self.commit(Unit::of(record).with(revoked)).await?.is_some();
        let tokens = Some(u64::from(done && was_good));
        Ok(Revoked { tokens, before: now, on_record: Some(true) })
    }

    /// Returns the number of its record.
    async fn cut_off(
        &self,
        whose: &Whose,
        before: OffsetDateTime,
        reason: &str,
        now: OffsetDateTime,
    ) -> Result<u64> {
        let longest = Duration::try_from(MAX_TTL).unwrap_or(Duration::MAX);
        let cutoff = Cutoff {
            whose: whose.clone(),
            before,
            at: now,
            keep_until: before.saturating_add(longest).saturating_add(LEEWAY),
        };
        let text = |text: &str| text.to_string();
        let (kind, id) = whose.parts();
        let record = self.by.record(now, "revoke-many", Decision::Revoked);
        let record = Record {
            reason: format!(
                "{} revoked what was issued before {} ({kind} {id}): {reason}",
                self.by.said(),
                written(before)
            ),
            // Where somebody has asked for it from elsewhere, it says by which one.
            client: match whose {
                Whose::Client(client) if record.client.is_empty() => text(client),
                _ => record.client.clone(),
            },
            role: if let Whose::Role(role) = whose { text(role) } else { String::new() },
            ..record
        };
        let number = self.commit(Unit::of(record).with(Effect::CutOff(cutoff))).await?;
        number.ok_or_else(|| Error::new(ErrorKind::Other, "it could not be revoked"))
    }

    async fn revoked(
        &self,
        whose: &Whose,
        (since, before): (Result<Option<OffsetDateTime>>, OffsetDateTime),
        now: OffsetDateTime,
    ) -> Revoked {
        // It takes long where there are many, and changes nothing about them.
        let until = self.count_for.map(|most| Instant::now() + most);
        let counting = async { self.store.count_issued(whose, (since?, before), now).await };
        let tokens = in_time(until, counting).await.inspect_err(|error| {
            tracing::warn!(%error, "how many tokens were revoked cannot be told");
        });
        let on_record = match tokens {
            Ok(0) => in_time(until, self.knows(whose, now)).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "whether tokens of late are on record cannot be told");
                None
            }),
            // Those are on record.
            Ok(_) => Some(true),
            Err(_) => None,
        };
        Revoked { tokens: tokens.ok(), before, on_record }
    }

    /// Returns the number of the first record, where all was as it has to be.
    async fn commit(&self, unit: Unit) -> Result<Option<u64>> {
        unit.records.iter().try_for_each(leaf::check)?;
        let outcomes = self.store.commit(&[unit]).await?;
        Ok(outcomes.into_iter().find_map(|outcome| match outcome {
            Outcome::Committed { first } => Some(first),
            Outcome::Refused => None,
        }))
    }
}

/// What comes of this until then, where somebody waits for it.
async fn in_time<T>(until: Option<Instant>, work: impl Future<Output = Result<T>>) -> Result<T> {
    let Some(until) = until else { return work.await };
    tokio::time::timeout_at(until, work).await.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Io, "it takes too long to look through the log"))
    })
}

/// The next whole second.
fn second_after(at: OffsetDateTime) -> OffsetDateTime {
    in_seconds(at).saturating_add(Duration::SECOND)
}

/// As tokens say when they were issued.
pub(super) fn in_seconds(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_nanosecond(0).unwrap_or(at)
}

/// The first second in which something is issued that is not before this.
pub(super) fn next_issued(before: OffsetDateTime) -> OffsetDateTime {
    if in_seconds(before) == before { before } else { second_after(before) }
}

/// A time in whole seconds, as people write it.
pub(super) fn written(at: OffsetDateTime) -> String {
    let at = in_seconds(at).to_offset(UtcOffset::UTC);
    // What RFC 3339 has no words for is far from any time that a token has.
    at.format(&Rfc3339).unwrap_or_else(|_| at.to_string())
}

impl Broker {
    /// A token and those that it came of, as far as they can be revoked together with others.
    pub(super) async fn issuances_of(&self, token: &OwnToken) -> Result<Vec<Issuance>> {
        let own = Issuance { at: token.issued_at, names: self.names(token), erased: false };
        let mut tokens = vec![own];
        tokens.extend(self.issuances(&token.ancestors).await?);
        Ok(tokens)
    }

    /// Whether what somebody was given through this client at this moment was revoked together
    /// with others.
    pub(super) async fn is_cut_off_since(
        &self,
        principal: &Principal,
        client: &str,
        at: OffsetDateTime,
    ) -> Result<bool> {
        let names = all_names(principal, std::iter::empty(), ("", client), &self.issuer);
        let issued = [Issuance { at, names, erased: false }];
        self.store.any_revoked(Revocable::together(issued)).await
    }

    /// The tokens with these ids, as far as the log tells of them.
    pub(super) async fn issuances(&self, jtis: &[Uuid]) -> Result<Vec<Issuance>> {
        let mut tokens = Vec::new();
        for jti in jtis {
            let filter =
                Filter { jti: Some(*jti), decision: Some(Decision::Issued), ..Filter::default() };
            // The log alone knows their roles and clients.
            if let Some((_, record)) = self.store.find(&filter, 1).await?.pop() {
                let record = record.ok_or_else(unreadable)?;
                tokens.push(self.issuance(&record));
            }
        }
        Ok(tokens)
    }

    /// The token that this record is of, as far as it can be revoked together with others.
    pub(super) fn issuance(&self, record: &Record) -> Issuance {
        issuance(record, &self.issuer)
    }

    /// All by which a token can be revoked together with others.
    fn names(&self, token: &OwnToken) -> BTreeSet<Whose> {
        let actors = token.actors.iter().map(Actor::id).map(String::from);
        let (role, client) = (&token.role, &token.client);
        let mut names = all_names(&token.principal, actors, (role, client), &self.issuer);
        names.extend(token.elevation.as_ref().map(|grant| Whose::Grant(grant.id)));
        names
    }
}

/// The token that this record of a broker with this issuer is of.
fn issuance(record: &Record, own: &Issuer) -> Issuance {
    let actors = record.actor.as_deref().unwrap_or_default();
    let actors = actors.split_ascii_whitespace().map(String::from);
    let mut names = all_names(&record.principal, actors, (&record.role, &record.client), own);
    names.extend(record.elevation.map(Whose::Grant));
    Issuance {
        // As it says itself, in seconds: else what came of one would be good for longer.
        at: in_seconds(record.at),
        names,
        // Where nobody knows whose it was, it may be the one who is meant.
        erased: record.principal.subject == ERASED,
    }
}

fn all_names(
    principal: &Principal,
    actors: impl Iterator<Item = String>,
    (role, client): (&str, &str),
    own: &Issuer,
) -> BTreeSet<Whose> {
    let mut names: BTreeSet<Whose> =
        [Whose::Everybodys, Whose::Role(role.into()), Whose::Client(client.into())].into();
    for id in ids_of(principal, own.as_str()).into_iter().chain(actors) {
        let issuer = id.split_once('#').map_or("", |(issuer, _)| issuer);
        names.insert(Whose::Issuer(issuer.into()));
        names.insert(Whose::Subject(id));
    }
    names
}

fn unreadable() -> Error {
    Error::new(ErrorKind::Io, "the record of a token cannot be read")
        .hint("`tmpcred broker audit verify` says more")
}
