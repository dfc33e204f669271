//! Issuing: decide, record, sign. In this order, and never one without the
//! other.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Broker;
use super::audit::{Decision, Receipt, Record};
use super::authenticate::Caller;
use super::aws;
use super::config::Role;
use super::policy::{Granted, Question, Verdict};
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// The `typ` of the tokens (RFC 9068 section 2.1).
pub const TOKEN_TYPE: &str = "at+jwt";

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
    /// From where it is asked.
    pub source: IpAddr,
    /// The id of the request.
    pub request_id: Uuid,
}

/// Why nothing was issued.
#[derive(Debug)]
pub enum Refusal {
    /// Policy says no.
    Denied(String),
    /// The scope cannot be had.
    Scope(String),
    /// The role is not for this audience.
    Audience(String),
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
    #[serde(flatten)]
    aws: aws::Claims,
}

#[derive(Serialize)]
struct SubjectId {
    format: &'static str,
    iss: String,
    sub: String,
}

/// A token that lacks its signature, until there is a receipt for it.
struct Draft {
    claims: Claims,
    granted: Granted,
}

impl Broker {
    /// Decides on a token, records the decision, and signs the token.
    pub async fn issue(&self, caller: &Caller, ask: &Ask) -> Result<Issued, Refusal> {
        let now = self.clock.now();
        let decided = self.decide(caller, ask).and_then(|granted| {
            let aws = self.for_aws(caller, ask).map_err(|refusal| (refusal, None))?;
            Ok((granted, aws))
        });
        let (granted, aws) = match decided {
            Ok(decided) => decided,
            Err((refusal, policy_id)) => {
                let record = self.denial(caller, ask, now, &refusal, policy_id);
                // It is used up at once: a denial has no effect to hand over.
                let _ = self.audit.append(record).await.map_err(Refusal::Unrecorded)?;
                return Err(refusal);
            }
        };
        let draft = self.draft(caller, ask, now, granted, aws);
        let record = self.issuance(caller, ask, now, &draft);
        let receipt = self.audit.append(record.clone()).await.map_err(Refusal::Unrecorded)?;
        match self.sign(draft, receipt) {
            Ok(issued) => Ok(issued),
            Err(error) => {
                let aborted = record.aborted("the token could not be signed");
                let _ = self.audit.append(aborted).await.map_err(Refusal::Unrecorded)?;
                Err(Refusal::Failed(error))
            }
        }
    }

    fn decide(&self, caller: &Caller, ask: &Ask) -> Result<Granted, (Refusal, Option<String>)> {
        let role = self.role(ask).map_err(|refusal| (refusal, None))?;
        let verdict = self.policy.decide(
            caller,
            &Question {
                role: &ask.role,
                role_scopes: &role.scopes,
                role_ttl: role.max_ttl,
                audience: &ask.audience,
                scope: ask.scope.as_ref(),
                ttl: ask.ttl,
            },
        );
        let denied = |why: &str| {
            Refusal::Denied(format!("{why} the role '{}' to '{}'", ask.role, caller.id()))
        };
        match verdict {
            Verdict::Granted(granted) => Ok(granted),
            Verdict::ScopeDenied => {
                let why = format!(
                    "no policy permits all of the scope that was asked for, in the role '{}'",
                    ask.role
                );
                Err((Refusal::Scope(why), None))
            }
            Verdict::Denied { forbidden_by: None } => Err((denied("no policy permits"), None)),
            Verdict::Denied { forbidden_by } => Err((denied("a policy forbids"), forbidden_by)),
            Verdict::Failed { why } => {
                tracing::error!(request_id = %ask.request_id, why, "a policy cannot be evaluated");
                Err((denied("a policy failed, which denies"), None))
            }
        }
    }

    /// The role that is asked for, where it can be had for this audience and scope
    /// at all.
    fn role(&self, ask: &Ask) -> Result<&Role, Refusal> {
        let role = self
            .roles
            .get(&ask.role)
            .ok_or_else(|| Refusal::Denied(format!("there is no role '{}'", ask.role)))?;
        if !role.audiences.contains(&ask.audience) {
            let possible: Vec<_> = role.audiences.iter().map(|a| format!("'{a}'")).collect();
            return Err(Refusal::Audience(format!(
                "the role '{}' is for {}, not for '{}'",
                ask.role,
                possible.join(", "),
                ask.audience
            )));
        }
        let unknown = ask.scope.iter().flatten().find(|scope| !role.scopes.contains(*scope));
        if let Some(unknown) = unknown {
            return Err(Refusal::Scope(format!(
                "the role '{}' has no scope '{unknown}'",
                ask.role
            )));
        }
        Ok(role)
    }

    /// What AWS is told about the caller in this role.
    fn for_aws(&self, caller: &Caller, ask: &Ask) -> Result<aws::Claims, Refusal> {
        let Some(settings) = self.roles.get(&ask.role).and_then(|role| role.aws.as_ref()) else {
            return Ok(aws::Claims::default());
        };
        settings.fill(&caller.principal().subject, caller.tags()).map_err(|why| {
            Refusal::Denied(format!(
                "the role '{}' cannot be given to '{}': {why}",
                ask.role,
                caller.id()
            ))
        })
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
            aws,
        };
        Draft { claims, granted }
    }

    /// Makes the token, in exchange for the receipt of its record.
    fn sign(&self, draft: Draft, receipt: Receipt) -> Result<Issued> {
        if !receipt.redeem(draft.claims.jti) {
            return Err(Error::new(ErrorKind::Other, "the receipt is for another token"));
        }
        Ok(Issued {
            token: self.keys.active().sign(TOKEN_TYPE, &draft.claims)?,
            ttl: draft.granted.ttl,
            scope: draft.granted.scope,
            role: draft.claims.role,
            subject: draft.claims.sub,
        })
    }

    fn issuance(&self, caller: &Caller, ask: &Ask, at: OffsetDateTime, draft: &Draft) -> Record {
        Record {
            decision: Decision::Issued,
            reason: "a policy permits it".into(),
            scope: draft.claims.scope.clone(),
            ttl: draft.granted.ttl.as_secs(),
            jti: Some(draft.claims.jti),
            policy_id: Some(draft.granted.policy_id.clone()),
            ..self.record(caller, ask, at)
        }
    }

    fn denial(
        &self,
        caller: &Caller,
        ask: &Ask,
        at: OffsetDateTime,
        refusal: &Refusal,
        policy_id: Option<String>,
    ) -> Record {
        Record { reason: refusal.to_string(), policy_id, ..self.record(caller, ask, at) }
    }

    /// What every record about this request says: that it was denied, unless
    /// somebody says otherwise.
    fn record(&self, caller: &Caller, ask: &Ask, at: OffsetDateTime) -> Record {
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
            scope: ask.scope.as_ref().map(joined).unwrap_or_default(),
            ttl: ask.ttl.map_or(0, |ttl| ttl.as_secs()),
            jti: None,
            policy_id: None,
            policy_hash: self.policy.hash().to_string(),
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Denied(why) | Self::Scope(why) | Self::Audience(why) => f.write_str(why),
            Self::Unrecorded(error) | Self::Failed(error) => error.fmt(f),
        }
    }
}

/// A scope as parameters, claims and records have it (RFC 6749 section 3.3).
pub(super) fn joined(scope: &BTreeSet<String>) -> String {
    scope.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}
