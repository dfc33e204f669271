//! Issuing: decide, record, sign. In this order, and never one without the
//! other.

mod asked;
mod draft;
mod refusal;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

pub(super) use asked::UNKNOWN;
use draft::{Claims, Confirmation, Draft, Recorded, SubjectId};
pub use refusal::Refusal;

use super::Broker;
use super::audit::{Decision, Receipt, Record};
use super::authenticate::{Actor, Caller, MayAct, actor};
use super::decide::{Rules, Wanted, Why};
use super::denials::Tally;
use super::elevation::Underway;
use super::grounds::Overtaken;
use super::ids;
use super::keys::SigningKey;
use super::once::Uses;
use super::origins::{Place, Used};
use super::policy::Granted;
use super::proof::{Fault, consume};
use super::readiness::clocks_differ;
use super::rulebook::Rulebook;
use super::store::Unit;
use super::told::AdditionalClaims;
use crate::dpop::Proof;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;
use crate::trace;
use crate::wire::RevocationReach;

/// The `typ` of the tokens (RFC 9068 section 2.1).
pub const TOKEN_TYPE: &str = "at+jwt";

/// How many times another key is looked for because the one that was to sign was revoked.
const MAX_OTHER_KEYS: u32 = 3;

/// What a caller asks for.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The role.
    pub role: String,
    /// Whom the token is for.
    pub audience: String,
    /// The scope; `None`: whatever can be had.
    pub scope: Option<BTreeSet<String>>,
    /// The lifetime; `None`: as long as can be had.
    pub ttl: Option<Duration>,
    /// The proof of a key that the token is to be bound to.
    pub proof: Option<Proof>,
    /// The grant under which it is asked for; where left out, the one that the caller has.
    pub elevation: Option<Uuid>,
    /// By which the client tells that it asks again.
    pub idempotency_key: Option<String>,
    /// Whether nothing but a JWT will do.
    pub jwt: bool,
    /// From where it is asked.
    pub source: IpAddr,
    /// The id of the request.
    pub request_id: Uuid,
}

/// A token, on record.
#[derive(Debug)]
pub struct Issued {
    /// The token.
    pub token: Secret<String>,
    /// Whom its revocation reaches.
    pub reach: RevocationReach,
    /// When it ends, in seconds since 1970.
    pub expires_at: i64,
    /// How long it is good.
    pub ttl: Duration,
    /// What it covers.
    pub scope: BTreeSet<String>,
    /// Its role.
    pub role: String,
    /// Its subject.
    pub subject: String,
    /// Whether it is bound to a key.
    pub bound: bool,
    /// When the grant ends under which it was issued, in seconds since 1970.
    pub grant_ends: Option<i64>,
    /// The number of its record in the audit log.
    pub log_sequence: u64,
}

/// A random part of this, in whole seconds.
fn jitter(most: Duration) -> Duration {
    if most.is_zero() {
        return most;
    }
    let mut bytes = [0; 8];
    // Without randomness there is none.
    let drawn = aws_lc_rs::rand::fill(&mut bytes).map_or(0, |()| u64::from_be_bytes(bytes));
    Duration::from_secs(drawn % (most.as_secs() + 1))
}

impl Broker {
    /// Decides on a token by these policies, records the decision, and signs the token.
    pub async fn issue(
        &self,
        book: &Rulebook,
        caller: &Caller,
        ask: &Ask,
    ) -> Result<Issued, Refusal> {
        let now = self.clock.now();
        self.sweep(now);
        if let Some(parent) = caller.parent() {
            let used = Used::token(parent.jti, ask.source, Place::Exchange);
            self.origins.used(&book.config().origins, used);
        }
        let rules = Rules { policy: book, roles: book.roles() };
        let underway = self.underway(book, caller, ask, now).await.map_err(Refusal::Unrecorded)?;
        let decided = underway.and_then(|grant| {
            let wanted = Wanted { elevation: grant.as_ref(), ..ask.wanted() };
            rules.decide_in_trace(caller, wanted, now).map(|decided| (decided, grant))
        });
        let ((granted, told), grant) = match decided {
            Ok(decided) => decided,
            Err(mut denied) => {
                let policy_id = denied.policy_id.take();
                if denied.why == Why::Unbound {
                    self.metrics.proof_rejected(Fault::Missing);
                }
                let record = Record { policy_id, ..self.denial(book, caller, ask, now) };
                return Err(self.deny(record, ask.proof.as_ref(), denied.into()).await);
            }
        };
        let mut granted = granted;
        if let Some(role) = book.roles().get(&ask.role) {
            granted.ttl -= jitter(role.ttl_jitter.min(granted.ttl / 4));
        }
        let mut draft = self.draft(caller, ask, now, granted, told);
        // Under a grant of its own, or come of one by an exchange.
        let claim = grant.as_ref().map(Underway::claim).or_else(|| caller.grant().cloned());
        draft.claims.elevation = claim;
        let mut record = Record {
            decision: Decision::Issued,
            reason: match &draft.claims.cnf {
                None => "a policy permits it".into(),
                Some(key) => format!("a policy permits it, bound to the key {}", key.jkt),
            } + &asked_by(caller),
            scope: draft.claims.scope.clone(),
            ttl: draft.granted.ttl.as_secs(),
            jti: Some(draft.claims.jti),
            elevation: draft.claims.elevation.as_ref().map(|grant| grant.id),
            claims: draft.claims.told.on_record(),
            policy_id: Some(draft.granted.policy_id.clone()),
            ..self.record(book, caller, ask, now)
        };
        let opaque = book.opaque_token(&ask.role, &draft.granted).map_err(Refusal::Failed)?;
        let grounds = self.grounds(caller, ask, &record).await.map_err(Refusal::Unrecorded)?;
        let grant_ends = grant.as_ref().map(Underway::until);
        let mut grounds = grounds.under(grant);
        let uses = Uses::of(caller, ask, now);
        let mut others = 0;
        let (receipt, signer) = loop {
            let signer = match opaque {
                None => Some(self.signer(&ask.audience).await?),
                Some(_) => None,
            };
            grounds = grounds.signed_by(signer.as_ref().map(|key| key.kid().to_string()));
            let committed = self.commit_issuance(&grounds, uses.as_ref(), &mut record, |jti| {
                draft.claims.jti = jti;
                draft.effects(&self.opaque_seal, opaque.as_ref())
            });
            let committed = self.metrics.recording(committed).await;
            match committed.map_err(Refusal::Unrecorded)? {
                Ok(receipt) => break (receipt, signer),
                // This process has not seen that yet, and will sign by the next one.
                Err(Overtaken::KeyRevoked) if others < MAX_OTHER_KEYS => {
                    others += 1;
                    self.keys.newest().await.map_err(Refusal::Unrecorded)?;
                }
                Err(by) => {
                    let denied = self.denial(book, caller, ask, now);
                    return Err(self.overtaken(denied, ask.proof.as_ref(), by).await);
                }
            }
        };
        match self.hand_over(draft, (opaque, signer), receipt) {
            Ok(issued) => {
                let issued = Issued { grant_ends, ..issued };
                let end = now.saturating_add(issued.ttl.try_into().unwrap_or_default());
                if let Some(jti) = record.jti {
                    self.origins.issued(jti, ask.source);
                }
                if self.renewals.note(caller, (&ask.role, &ask.audience), end, now) {
                    self.metrics.renewed(&ask.role);
                }
                Ok(issued)
            }
            Err(refusal) => {
                let aborted = record.aborted("the token could not be signed");
                let _ = self
                    .metrics
                    .recording(self.audit.append(aborted))
                    .await
                    .map_err(Refusal::Unrecorded)?;
                Err(refusal)
            }
        }
    }

    /// The key that signs tokens for this audience. It is what the record rests on, so no other one
    /// may sign the token, whatever becomes known meanwhile.
    async fn signer(&self, audience: &str) -> Result<Arc<SigningKey>, Refusal> {
        // Where they cannot be read any more, they may be again soon.
        let keys = self.keys.current().await.map_err(Refusal::Unrecorded)?;
        keys.signing(self.signing.get(audience).copied()).cloned().map_err(Refusal::Failed)
    }

    /// What became of what was decided, where somebody was quicker. Returns what is told.
    async fn overtaken(&self, denied: Record, proof: Option<&Proof>, by: Overtaken) -> Refusal {
        match by {
            // The proof, where there is one, may not have been used yet.
            Overtaken::Revoked => {
                let said = "the token that is to be exchanged was revoked".to_string();
                let refusal = Refusal::Denied { reason: said.clone(), said };
                self.deny(denied, proof, refusal).await
            }
            Overtaken::CutOff { until } => {
                let left = Duration::try_from(until - self.clock.now()).unwrap_or_default();
                self.deny(denied, proof, Refusal::CutOff { until, left }).await
            }
            Overtaken::KeyRevoked => Refusal::Unrecorded(
                Error::new(ErrorKind::Other, "no key that is good is there to sign")
                    .because_of("one after the other was revoked"),
            ),
            Overtaken::ClocksDiffer { by } => Refusal::Unrecorded(clocks_differ(by)),
            Overtaken::Elevation => {
                let said = "the grant has ended".to_string();
                let refusal = Refusal::Denied { reason: said.clone(), said };
                self.deny(denied, proof, refusal).await
            }
            Overtaken::Unenrolled => {
                let said = "the key by which it was signed does not count any more".to_string();
                let refusal = Refusal::Denied { reason: said.clone(), said };
                self.deny(denied, proof, refusal).await
            }
            Overtaken::Repeated => self.deny(denied, proof, Refusal::Repeated).await,
            Overtaken::Reused => self.deny(denied, proof, Refusal::Reused).await,
            Overtaken::Replayed => {
                self.metrics.proof_rejected(Fault::Replayed);
                self.deny(denied, None, Refusal::Replayed).await
            }
        }
    }

    /// Puts a denial on record, with what proof of a key was used for it; where it was used
    /// before, that is why. Returns what is told.
    async fn deny(&self, record: Record, proof: Option<&Proof>, refusal: Refusal) -> Refusal {
        let (principal, action, now) = (&record.principal, &record.action, record.at);
        if let Err(retry_after) = self.denials.admit(principal, action, now, self.clock.uptime()) {
            tracing::info!(request_id = %record.request_id, %refusal, "denied, and only counted");
            return match refusal {
                // Asking again is of no use.
                Refusal::Reused
                | Refusal::Repeated
                | Refusal::Replayed
                | Refusal::CutOff { .. } => refusal,
                _ => Refusal::TooMany { retry_after },
            };
        }
        let reason = refusal.on_record() + &record.reason;
        let told = Record { reason, ..record.clone() };
        let effects = proof.map(|proof| consume(proof, now)).into_iter().collect();
        let unit = Unit { records: vec![told], effects };
        // A receipt is used up at once: a denial has no effect to hand over.
        match self.metrics.recording(self.audit.commit(unit)).await {
            Ok(Some(_)) => refusal,
            Ok(None) => {
                self.metrics.proof_rejected(Fault::Replayed);
                let record = Record { reason: Refusal::Replayed.on_record(), ..record };
                match self.metrics.recording(self.audit.append(record)).await {
                    Ok(_) => Refusal::Replayed,
                    Err(error) => Refusal::Unrecorded(error),
                }
            }
            Err(error) => Refusal::Unrecorded(error),
        }
    }

    fn draft(
        &self,
        caller: &Caller,
        ask: &Ask,
        now: OffsetDateTime,
        granted: Granted,
        told: AdditionalClaims,
    ) -> Draft {
        let principal = caller.principal();
        let claims = Claims {
            iss: self.issuer.as_str().to_string(),
            sub: caller.id().to_string(),
            sub_id: SubjectId {
                format: "iss_sub",
                iss: principal.issuer.clone(),
                sub: principal.subject.clone(),
            },
            aud: ask.audience.clone(),
            iat: now.unix_timestamp(),
            exp: now.unix_timestamp().saturating_add_unsigned(granted.ttl.as_secs()),
            jti: ids::new(now),
            client_id: caller.requester().client().to_string(),
            role: ask.role.clone(),
            scope: joined(&granted.scope),
            ancestors: caller.lineage(),
            ancestor_keys: caller.lineage_keys(),
            cnf: ask.proof.as_ref().map(|proof| Confirmation { jkt: proof.thumbprint.clone() }),
            elevation: None,
            act: actor::claim(caller.actors()),
            may_act: caller.may_act().map(MayAct::claim),
            told,
        };
        Draft { claims, granted }
    }

    /// Makes the token, or hands over the one that was made, in exchange for the receipt
    /// of its record.
    fn hand_over(
        &self,
        draft: Draft,
        (opaque, signer): (Option<Secret<String>>, Option<Arc<SigningKey>>),
        receipt: Receipt,
    ) -> Result<Issued, Refusal> {
        let Draft { claims, granted } = draft;
        let log_sequence = receipt.redeem(claims.jti).ok_or_else(|| {
            Refusal::Failed(Error::new(ErrorKind::Other, "the receipt is for another token"))
        })?;
        let recorded = Recorded { claims, log_sequence };
        let reach = match &opaque {
            Some(_) => RevocationReach::Everywhere,
            None => RevocationReach::Introspection,
        };
        let token = match (opaque, signer) {
            (Some(token), _) => token,
            (None, Some(key)) => {
                let step = trace::step("sign");
                step.note("tmpcred.key.id", key.kid().to_string());
                key.sign(TOKEN_TYPE, &recorded).map_err(Refusal::Failed)?
            }
            (None, None) => {
                let error = Error::new(ErrorKind::Other, "nothing is there to sign with");
                return Err(Refusal::Failed(error));
            }
        };
        let Recorded { claims, .. } = recorded;
        Ok(Issued {
            token,
            reach,
            expires_at: claims.exp,
            ttl: granted.ttl,
            scope: granted.scope,
            role: claims.role,
            subject: claims.sub,
            bound: claims.cnf.is_some(),
            grant_ends: None,
            log_sequence,
        })
    }

    /// Records how many requests were denied and only counted.
    pub(super) async fn summarize(&self, tallies: Vec<Tally>) {
        let mut tallies = tallies.into_iter();
        for tally in tallies.by_ref() {
            let (now, name) = (self.clock.now(), tally.principal.clone());
            let record = Record {
                request_id: Uuid::nil(),
                trace_id: None,
                reason: format!(
                    "so many requests were denied that {} since {} are only counted",
                    tally.count,
                    tally.since.replace_nanosecond(0).unwrap_or(tally.since)
                ),
                policy_hash: self.policies().hash().to_string(),
                count: tally.count,
                ..Record::of_the_broker(now, &tally.action, Decision::Denied, name)
            };
            if let Err(error) = self.metrics.recording(self.audit.append(record)).await {
                tracing::error!(%error, "what was only counted cannot be recorded at present");
                self.denials.give_back(tally);
                break;
            }
        }
        // Nor could those.
        tallies.for_each(|tally| self.denials.give_back(tally));
    }

    /// What the record of a denial says, but why.
    fn denial(&self, book: &Rulebook, caller: &Caller, ask: &Ask, at: OffsetDateTime) -> Record {
        let ((scope, reason), (role, audience)) = (book.asked_scope(ask), book.asked_for(ask));
        let (role, audience) = (role.to_string(), audience.to_string());
        let reason = reason + &asked_by(caller);
        Record { scope, reason, role, audience, ..self.record(book, caller, ask, at) }
    }

    /// What every record about this request says: that it was denied, unless
    /// somebody says otherwise.
    fn record(&self, book: &Rulebook, caller: &Caller, ask: &Ask, at: OffsetDateTime) -> Record {
        Record {
            at,
            request_id: ask.request_id,
            trace_id: trace::id(),
            action: "issue".into(),
            decision: Decision::Denied,
            reason: String::new(),
            principal: caller.principal().clone(),
            actor: acting(caller.actors()),
            client: caller.requester().client().to_string(),
            source: ask.source.to_canonical().to_string(),
            role: ask.role.clone(),
            audience: ask.audience.clone(),
            scope: String::new(),
            ttl: ask.ttl.map_or(0, |ttl| ttl.as_secs()),
            jti: None,
            parent: caller.parent().map(|parent| parent.jti),
            elevation: None,
            claims: None,
            policy_id: None,
            policy_hash: book.hash().to_string(),
            count: 1,
        }
    }
}

impl Ask {
    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            role: &self.role,
            audience: &self.audience,
            scope: self.scope.as_ref(),
            ttl: self.ttl,
            key_bound: self.proof.is_some(),
            jwt: self.jwt,
            elevation: None,
            source: self.source,
        }
    }
}

/// How it was asked for, where nobody logged in for it.
fn asked_by(caller: &Caller) -> String {
    caller.signed().map(|signed| format!(", asked for {}", signed.said())).unwrap_or_default()
}

/// Those who act, as a record names them.
pub(super) fn acting(actors: &[Actor]) -> Option<String> {
    // No id has a space.
    let ids: Vec<_> = actors.iter().map(Actor::id).collect();
    (!ids.is_empty()).then(|| ids.join(" "))
}

/// A scope as parameters, claims and records have it (RFC 6749 section 3.3).
pub(super) fn joined(scope: &BTreeSet<String>) -> String {
    scope.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}
