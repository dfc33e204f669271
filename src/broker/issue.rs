//! Issuing: decide, record, sign. In this order, and never one without the
//! other.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Broker;
use super::audit::{Decision, Receipt, Record};
use super::authenticate::Caller;
use super::aws;
use super::decide::{Denied, Rules, Wanted, Why};
use super::denials::Tally;
use super::policy::{Granted, Policy};
use super::proof::{Fault, Refused, consume};
use super::store::{Effect, Once, Unit};
use crate::dpop::Proof;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// The `typ` of the tokens (RFC 9068 section 2.1).
pub const TOKEN_TYPE: &str = "at+jwt";

/// How long the reason of a denial and the scope that was asked for are on record, in
/// bytes: whoever can ask can have such records written.
const MAX_REASON: usize = 512;
const MAX_SCOPE: usize = 1024;

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
    /// From where it is asked.
    pub source: IpAddr,
    /// The id of the request.
    pub request_id: Uuid,
}

/// Why nothing was issued.
#[derive(Debug)]
pub enum Refusal {
    /// Policy says no.
    Denied {
        /// What the caller is told.
        said: String,
        /// What goes on record, which names the caller elsewhere.
        reason: String,
    },
    /// The same, and it was said so often lately that it is only counted.
    TooMany {
        /// When to ask again.
        retry_after: Duration,
    },
    /// The scope cannot be had.
    Scope(String),
    /// The role is not for this audience.
    Audience(String),
    /// The role's tokens are bound to a key, and none was proved.
    Unbound(String),
    /// The proof of a key was used before.
    Replayed,
    /// The decision could not be recorded, so it has no effect.
    Unrecorded(Error),
    /// Something of the broker's own failed.
    Failed(Error),
}

/// A token, on record.
#[derive(Debug)]
pub struct Issued {
    /// The token.
    pub token: Secret<String>,
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
}

/// The claims of a token (RFC 9068 section 2.2).
#[derive(Serialize)]
struct Claims {
    iss: String,
    /// The caller's id: issuer and subject as one, so that it means one person
    /// wherever it is read.
    sub: String,
    /// The same, in parts (RFC 9493 section 3.2.4).
    sub_id: SubjectId,
    aud: String,
    iat: i64,
    exp: i64,
    jti: Uuid,
    client_id: String,
    role: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    scope: String,
    /// The ids of the broker's own tokens that it came of by exchange, the first one
    /// first. Where one of them is revoked, so is this.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ancestors: Vec<Uuid>,
    /// The ids of the keys that signed those. Where one of them is revoked, so is this.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    ancestor_keys: BTreeSet<String>,
    /// The key that it is bound to (RFC 9449 section 6.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    cnf: Option<Confirmation>,
    #[serde(flatten)]
    aws: aws::Claims,
}

/// The claims of a token that is on record.
#[derive(Serialize)]
struct Recorded {
    #[serde(flatten)]
    claims: Claims,
    /// The number of its record in the audit log.
    log_sequence: u64,
}

#[derive(Serialize)]
struct SubjectId {
    format: &'static str,
    iss: String,
    sub: String,
}

#[derive(Serialize)]
struct Confirmation {
    jkt: String,
}

/// A token that lacks its signature, until there is a receipt for it.
struct Draft {
    claims: Claims,
    granted: Granted,
}

impl Broker {
    /// Decides on a token by these policies, records the decision, and signs the token.
    pub async fn issue(
        &self,
        policy: &Policy,
        caller: &Caller,
        ask: &Ask,
    ) -> Result<Issued, Refusal> {
        let now = self.clock.now();
        self.sweep(now);
        let rules = Rules { policy, roles: &self.roles };
        let (granted, aws) = match rules.decide(caller, ask.wanted(), now) {
            Ok(decided) => decided,
            Err(mut denied) => {
                let policy_id = denied.policy_id.take();
                if denied.why == Why::Unbound {
                    self.metrics.proof_rejected(Fault::Missing);
                }
                let record = Record {
                    scope: self.asked_scope(ask),
                    policy_id,
                    ..self.record(policy, caller, ask, now)
                };
                return Err(self.deny(record, ask.proof.as_ref(), denied.into()).await);
            }
        };
        let draft = self.draft(caller, ask, now, granted, aws);
        let record = Record {
            decision: Decision::Issued,
            reason: match &draft.claims.cnf {
                None => "a policy permits it".into(),
                Some(key) => format!("a policy permits it, bound to the key {}", key.jkt),
            },
            scope: draft.claims.scope.clone(),
            ttl: draft.granted.ttl.as_secs(),
            jti: Some(draft.claims.jti),
            policy_id: Some(draft.granted.policy_id.clone()),
            ..self.record(policy, caller, ask, now)
        };
        // What it comes of may have been revoked since that was looked at.
        let lineage = caller.parent().map(|parent| parent.lineage.as_slice()).unwrap_or_default();
        let lineage: Vec<_> = lineage.iter().map(Uuid::to_string).collect();
        let mut unit = unit(record.clone(), ask.proof.as_ref());
        if !lineage.is_empty() {
            let kind = Once::RevokedToken;
            unit.effects.insert(0, Effect::IfUnused { kind, ids: lineage.clone() });
        }
        let receipt = self.metrics.recording(self.audit.commit(unit)).await;
        let Some(receipt) = receipt.map_err(Refusal::Unrecorded)? else {
            return Err(self.overtaken(policy, caller, ask, record, &lineage).await);
        };
        match self.sign(draft, receipt).await {
            Ok(issued) => Ok(issued),
            Err(error) => {
                let aborted = record.aborted("the token could not be signed");
                let _ = self
                    .metrics
                    .recording(self.audit.append(aborted))
                    .await
                    .map_err(Refusal::Unrecorded)?;
                Err(Refusal::Failed(error))
            }
        }
    }

    /// What became of what was decided: nothing was kept of it, because somebody has
    /// revoked what the token comes of, or used the proof of a key, since that was looked at.
    async fn overtaken(
        &self,
        policy: &Policy,
        caller: &Caller,
        ask: &Ask,
        record: Record,
        lineage: &[String],
    ) -> Refusal {
        let denied =
            Record { scope: self.asked_scope(ask), ..self.record(policy, caller, ask, record.at) };
        match self.store.any_consumed(Once::RevokedToken, lineage).await {
            Err(error) => Refusal::Unrecorded(error),
            Ok(true) => {
                let said = "the token that is to be exchanged was revoked".to_string();
                let refusal = Refusal::Denied { reason: said.clone(), said };
                // The proof, where there is one, may not have been used yet.
                self.deny(denied, ask.proof.as_ref(), refusal).await
            }
            Ok(false) => {
                self.metrics.proof_rejected(Fault::Replayed);
                self.deny(denied, None, Refusal::Replayed).await
            }
        }
    }

    /// Puts a denial on record, with what proof of a key was used for it; where it was used
    /// before, that is why. Returns what is told.
    async fn deny(&self, record: Record, proof: Option<&Proof>, refusal: Refusal) -> Refusal {
        let (principal, now) = (&record.principal, record.at);
        if let Err(retry_after) = self.denials.admit(principal, now, self.clock.uptime()) {
            tracing::info!(request_id = %record.request_id, %refusal, "denied, and only counted");
            return Refusal::TooMany { retry_after };
        }
        let told = Record { reason: refusal.on_record(), ..record.clone() };
        // A receipt is used up at once: a denial has no effect to hand over.
        match self.metrics.recording(self.audit.commit(unit(told, proof))).await {
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
        aws: aws::Claims,
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
            jti: Uuid::new_v4(),
            client_id: caller.client().to_string(),
            role: ask.role.clone(),
            scope: joined(&granted.scope),
            ancestors: caller.parent().map(|parent| parent.lineage.clone()).unwrap_or_default(),
            ancestor_keys: caller.parent().map(|parent| parent.keys.clone()).unwrap_or_default(),
            cnf: ask.proof.as_ref().map(|proof| Confirmation { jkt: proof.thumbprint.clone() }),
            aws,
        };
        Draft { claims, granted }
    }

    /// Makes the token, in exchange for the receipt of its record.
    async fn sign(&self, draft: Draft, receipt: Receipt) -> Result<Issued> {
        let Draft { claims, granted } = draft;
        let log_sequence = receipt
            .redeem(claims.jti)
            .ok_or_else(|| Error::new(ErrorKind::Other, "the receipt is for another token"))?;
        let recorded = Recorded { claims, log_sequence };
        let token = self.keys.current().await?.active().sign(TOKEN_TYPE, &recorded)?;
        let Recorded { claims, .. } = recorded;
        Ok(Issued {
            token,
            ttl: granted.ttl,
            scope: granted.scope,
            role: claims.role,
            subject: claims.sub,
            bound: claims.cnf.is_some(),
        })
    }

    /// The scope that was asked for, as a denial has it: of what the role does not have
    /// only how much it was, and a hash to compare with.
    fn asked_scope(&self, ask: &Ask) -> String {
        let role = self.roles.get(&ask.role);
        let (mut shown, mut others) = (String::new(), BTreeSet::new());
        for scope in ask.scope.iter().flatten() {
            let known = role.is_some_and(|role| role.scopes.contains(scope));
            if known && shown.len() + scope.len() < MAX_SCOPE {
                shown += if shown.is_empty() { "" } else { " " };
                shown += scope;
            } else {
                others.insert(scope.clone());
            }
        }
        if !others.is_empty() {
            let hash = digest(&SHA256, joined(&others).as_bytes());
            let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            shown += if shown.is_empty() { "" } else { " " };
            // No scope has a quotation mark.
            shown += &format!("\"{} others, SHA-256 {hash}\"", others.len());
        }
        shown
    }

    /// Records how many requests were denied and only counted.
    pub(super) async fn summarize(&self, tallies: Vec<Tally>) {
        for tally in tallies {
            let record = Record {
                at: self.clock.now(),
                request_id: Uuid::nil(),
                action: "issue".into(),
                decision: Decision::Denied,
                reason: format!(
                    "so many requests were denied that {} since {} are only counted",
                    tally.count,
                    tally.since.replace_nanosecond(0).unwrap_or(tally.since)
                ),
                principal: tally.principal.clone(),
                client: String::new(),
                source: String::new(),
                role: String::new(),
                audience: String::new(),
                scope: String::new(),
                ttl: 0,
                jti: None,
                parent: None,
                policy_id: None,
                policy_hash: self.policies().hash().to_string(),
                count: tally.count,
            };
            if let Err(error) = self.metrics.recording(self.audit.append(record)).await {
                tracing::error!(%error, "what was only counted cannot be recorded at present");
                self.denials.give_back(tally);
            }
        }
    }

    /// What every record about this request says: that it was denied, unless
    /// somebody says otherwise.
    fn record(&self, policy: &Policy, caller: &Caller, ask: &Ask, at: OffsetDateTime) -> Record {
        Record {
            at,
            request_id: ask.request_id,
            action: "issue".into(),
            decision: Decision::Denied,
            reason: String::new(),
            principal: caller.principal().clone(),
            client: caller.client().to_string(),
            source: ask.source.to_canonical().to_string(),
            role: ask.role.clone(),
            audience: ask.audience.clone(),
            scope: String::new(),
            ttl: ask.ttl.map_or(0, |ttl| ttl.as_secs()),
            jti: None,
            parent: caller.parent().map(|parent| parent.jti),
            policy_id: None,
            policy_hash: policy.hash().to_string(),
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
        }
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        match denied.why {
            Why::Scope => Self::Scope(denied.said),
            Why::Audience => Self::Audience(denied.said),
            Why::Unbound => Self::Unbound(denied.said),
            _ => Self::Denied { said: denied.said, reason: denied.reason },
        }
    }
}

impl Refusal {
    /// Why, as a record has it: short, whatever was asked for.
    fn on_record(&self) -> String {
        let mut reason = match self {
            Self::Denied { reason, .. } => reason.clone(),
            other => other.to_string(),
        };
        if reason.len() > MAX_REASON {
            reason.truncate(reason.floor_char_boundary(MAX_REASON));
            reason.push('…');
        }
        reason
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Denied { said, .. } => f.write_str(said),
            Self::TooMany { .. } => f.write_str(
                "it is denied, and so many requests were denied lately that they are only counted",
            ),
            Self::Scope(why) | Self::Audience(why) | Self::Unbound(why) => f.write_str(why),
            Self::Replayed => Refused::replayed().error.fmt(f),
            Self::Unrecorded(error) | Self::Failed(error) => error.fmt(f),
        }
    }
}

/// A record, and with it that the proof of a key is used up that it is about.
fn unit(record: Record, proof: Option<&Proof>) -> Unit {
    let at = record.at;
    let unit = Unit::of(record);
    proof.into_iter().fold(unit, |unit, proof| unit.with(consume(proof, at)))
}

/// A scope as parameters, claims and records have it (RFC 6749 section 3.3).
pub(super) fn joined(scope: &BTreeSet<String>) -> String {
    scope.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}
