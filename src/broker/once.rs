//! What may be used once: assertions of some issuers, and keys by which a client tells that
//! it asks again.
//!
//! What is issued for one uses it up in the same commit, by its hash. So of two
//! requests at once one is first, and what was used before a crash stays used. Which request
//! that was tells the id of the token, which follows from all of the request and from when the
//! assertion was used: whoever sends another one does not find theirs on record.
//!
//! An answer can get lost. Whoever sends the very same request again soon, from the same
//! address, through the same client where one has authenticated, and with a proof by the
//! same key where there was one, is given another token, and the one before is revoked in
//! that commit: at any time one token that came of the assertion is good. Anything else is
//! a second use.
//!
//! Of an assertion that is good until it expires any number of tokens may come, and the
//! broker cannot tell one that is asked for again from another one. The client can: requests
//! with the same `idempotency_key` of the same caller are the same one, from whatever address:
//! a machine that asks again may come by another of its networks.

use std::net::IpAddr;

use aws_lc_rs::digest::{Context, SHA256};
use data_encoding::HEXLOWER;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::Broker;
use super::audit::{Decision, Receipt, Record, micros};
use super::authenticate::{Actor, Caller, Fingerprint};
use super::config::{MAX_LEEWAY, MAX_TTL};
use super::grounds::{Grounds, Overtaken, nothing_against};
use super::ids;
use super::issue::{Ask, joined};
use super::store::{Consumed, Effect, Filter, Once, Revocable, Unit};
use crate::error::Result;
use crate::oidc::jwt::LEEWAY;

/// How long after a use the same request may be sent again.
const RETRY_WITHIN: Duration = Duration::minutes(1);

/// How many tokens may be issued for one assertion, one after the other.
const TRIES: u32 = 4;

/// What a request uses up, and what it uses that for.
pub(super) struct Uses {
    /// The assertions, or the client's key in their place.
    assertions: Vec<Fingerprint>,
    /// What it is that somebody else used, where somebody did.
    taken: Overtaken,
    request: Fingerprint,
    at: OffsetDateTime,
    keep_until: OffsetDateTime,
}

/// A use that can be committed.
struct Turn {
    jti: Uuid,
    effects: Vec<Effect>,
    /// The token that is revoked with it, and when the first one was issued.
    before: Option<(Uuid, OffsetDateTime)>,
}

impl Uses {
    /// What of this request may be used once; `None` where nothing is.
    pub(super) fn of(caller: &Caller, ask: &Ask, now: OffsetDateTime) -> Option<Self> {
        let mut assertions: Vec<_> = caller.proven().filter_map(Caller::used_up).collect();
        // Whoever acts for themselves may show the same one twice.
        assertions.dedup();
        let mut taken = Overtaken::Reused;
        let mut ends = caller.proven().map(Caller::expires_at).max().unwrap_or(now);
        if assertions.is_empty() {
            assertions.push(named(caller, ask.idempotency_key.as_deref()?));
            taken = Overtaken::Repeated;
            ends = now.saturating_add(RETRY_WITHIN);
        }
        let longest = Duration::try_from(MAX_LEEWAY).unwrap_or(Duration::MAX);
        let source = (taken == Overtaken::Reused).then(|| network(ask.source));
        Some(Self {
            request: fingerprint(&assertions, caller, ask, &source.unwrap_or_default()),
            assertions,
            taken,
            at: now,
            keep_until: ends.saturating_add(longest),
        })
    }

    /// The id of the token of a try, of those that began with the first one at this time: whoever
    /// tries again knows which one to revoke. A client's key may come again when nobody knows
    /// any more that it was used.
    fn jti(&self, number: u32, first: OffsetDateTime) -> Uuid {
        let mut context = Context::new(&SHA256);
        context.update(b"tmpcred jti of an assertion's use v2\0");
        context.update(&self.request);
        context.update(&micros(first).to_be_bytes());
        context.update(&number.to_be_bytes());
        ids::derived(first, &finished(context))
    }

    /// The use that is the first one.
    fn first(&self) -> Turn {
        let assertions = self.assertions.iter().map(|hash| HEXLOWER.encode(hash));
        let effects = assertions.map(|id| self.consume(Once::Assertion, id)).collect();
        Turn { jti: self.jti(0, self.at), effects, before: None }
    }

    fn consume(&self, kind: Once, id: String) -> Effect {
        Effect::Consume(Consumed { kind, id, at: self.at, keep_until: self.keep_until })
    }
}

impl Broker {
    /// Puts an issuance on record with the next of these uses, if all is so that it rests
    /// on. `effects` are what else comes about with a token of this id, which the record
    /// gets.
    ///
    /// # Errors
    /// As with [`Audit::commit`](super::audit::Audit::commit).
    pub(super) async fn commit_use(
        &self,
        uses: &Uses,
        grounds: &Grounds<'_>,
        record: &mut Record,
        mut effects: impl FnMut(Uuid) -> Result<Vec<Effect>>,
    ) -> Result<Result<Receipt, Overtaken>> {
        // Most are the first use, and the commit tells where one is not. Each time somebody is
        // quicker, one try is gone.
        let mut next = Some(uses.first());
        for _ in 0..=TRIES + 1 {
            let Some(turn) = next else { break };
            record.jti = Some(turn.jti);
            let mut unit = Unit::of(record.clone());
            unit.records.extend(turn.before.map(|(before, _)| Record {
                action: "revoke".into(),
                decision: Decision::Revoked,
                reason: "the same request was sent again, and got another token".into(),
                jti: Some(before),
                ..record.clone()
            }));
            unit.effects = grounds.effects(uses.at);
            // Where all was revoked that came of it, it has served its purpose.
            let first = turn.before.and_then(|(_, first)| grounds.as_of(first));
            unit.effects.extend(first.map(|one| Effect::IfNotRevoked(Revocable::together([one]))));
            unit.effects.extend(turn.effects);
            unit.effects.extend(effects(turn.jti)?);
            if let Some(receipt) = self.audit.commit(unit).await? {
                return Ok(Ok(receipt));
            }
            // Whoever shows what was used is told that, and no more.
            next = self.next_turn(uses).await?;
            if next.is_none() {
                break;
            }
            if let Some(by) = self.overtaken_in(grounds, uses.at).await? {
                return Ok(Err(by));
            }
        }
        match next {
            // Nobody has used it, so it is nothing that anybody could be told of it.
            Some(Turn { before: None, .. }) => Err(nothing_against()),
            _ => Ok(Err(uses.taken)),
        }
    }

    async fn next_turn(&self, uses: &Uses) -> Result<Option<Turn>> {
        let mut first = None;
        for assertion in &uses.assertions {
            let at = self.store.consumed_at(Once::Assertion, &HEXLOWER.encode(assertion)).await?;
            first = first.or(at);
        }
        let Some(first) = first else { return Ok(Some(uses.first())) };
        let is_soon = (uses.at - first).abs() <= RETRY_WITHIN;
        if !is_soon || !self.was_issued(uses.jti(0, first)).await? {
            return Ok(None);
        }
        for number in 1..TRIES {
            let jti = uses.jti(number, first);
            let name = jti.to_string();
            if self.store.consumed_at(Once::AssertionUse, &name).await?.is_some() {
                continue;
            }
            // How long that one lives is not known here: as long as this one, or longer.
            let lives = Duration::try_from(MAX_TTL).unwrap_or(Duration::MAX);
            let before = uses.jti(number - 1, first);
            let revoked = Consumed {
                kind: Once::RevokedToken,
                // Where its holder has revoked it, the assertion has served its purpose.
                id: before.to_string(),
                at: uses.at,
                keep_until: uses.at.saturating_add(lives).saturating_add(LEEWAY),
            };
            let effects = vec![uses.consume(Once::AssertionUse, name), Effect::Consume(revoked)];
            return Ok(Some(Turn { jti, effects, before: Some((before, first)) }));
        }
        Ok(None)
    }

    async fn was_issued(&self, jti: Uuid) -> Result<bool> {
        let decision = Some(Decision::Issued);
        let filter = Filter { jti: Some(jti), decision, ..Filter::default() };
        Ok(!self.store.find(&filter, 1).await?.is_empty())
    }
}

/// The key by which a caller tells that it asks again; another caller's is another one.
fn named(caller: &Caller, key: &str) -> Fingerprint {
    hash(b"tmpcred idempotency key v1\0", [caller.id().as_bytes(), key.as_bytes()])
}

/// Names all that has to be the same for a request to be the same, with where it came from
/// where that has to be.
fn fingerprint(
    assertions: &[Fingerprint],
    caller: &Caller,
    ask: &Ask,
    source: &str,
) -> Fingerprint {
    let scope = ask.scope.as_ref().map_or_else(|| "*".into(), joined);
    let ttl = ask.ttl.map_or_else(String::new, |ttl| ttl.as_secs().to_string());
    // A token that is bound to another key is another token.
    let key = ask.proof.as_ref().map_or_else(String::new, |proof| proof.thumbprint.clone());
    // So is one that another client gets, or nobody's in particular. No client has no name.
    let client = caller.authenticated_client().unwrap_or_default();
    // So is one under another grant, or of another form.
    let grant = ask.elevation.map_or_else(String::new, |id| id.to_string());
    let form = if ask.jwt { "jwt" } else { "" };
    let asked = [&ask.role, &ask.audience, &scope, &ttl, source, &key, client, &grant, form];
    let asked = asked.map(str::as_bytes);
    let parties = [caller.id()].into_iter().chain(caller.actors().iter().map(Actor::id));
    let parties = parties.map(str::as_bytes);
    let parts = assertions.iter().map(|hash| hash.as_slice()).chain(asked).chain(parties);
    hash(b"tmpcred use of an assertion v2\0", parts)
}

fn hash<'a>(what: &[u8], parts: impl IntoIterator<Item = &'a [u8]>) -> Fingerprint {
    let mut context = Context::new(&SHA256);
    context.update(what);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    finished(context)
}

fn finished(context: Context) -> Fingerprint {
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// Where a request came from, as far as it stays the same: a machine changes its address
/// within its /64 of IPv6.
fn network(source: IpAddr) -> String {
    match source.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => (address.to_bits() >> 64).to_string(),
    }
}

#[cfg(test)]
mod tests;
