//! Who changes what a broker has, as the records of it name them.

use std::net::IpAddr;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Decision, Record};
use crate::broker::authenticate::Caller;
use crate::credential::Principal;
use crate::oidc::Issuer;

/// In whose name something is done.
#[derive(Clone, Debug)]
pub struct Author {
    principal: Principal,
    /// The same for people.
    said: String,
    /// What of a request its records say; nothing where it is done beside the broker, or by
    /// the broker itself.
    request: Option<Request>,
}

/// A request that somebody is permitted, as records have it.
#[derive(Clone, Debug)]
struct Request {
    id: Uuid,
    client: String,
    source: String,
    policy_id: String,
    policy_hash: String,
}

impl Author {
    /// Somebody who runs the broker, beside it.
    pub fn operator(issuer: &Issuer) -> Self {
        let principal = Principal { issuer: issuer.as_str().into(), subject: "operator".into() };
        Self { principal, said: "an operator".into(), request: None }
    }

    /// Somebody who asks for it from elsewhere, by this permit of these policies.
    pub fn caller(
        caller: &Caller,
        source: IpAddr,
        request_id: Uuid,
        (policy_id, policy_hash): (&str, &str),
    ) -> Self {
        let request = Request {
            id: request_id,
            client: caller.client().to_string(),
            source: source.to_canonical().to_string(),
            policy_id: policy_id.to_string(),
            policy_hash: policy_hash.to_string(),
        };
        Self {
            principal: caller.principal().clone(),
            said: format!("'{}'", caller.id()),
            request: Some(request),
        }
    }

    /// Who it is, for people.
    pub fn said(&self) -> &str {
        &self.said
    }

    /// A record of something that they do to the broker.
    pub fn record(&self, at: OffsetDateTime, action: &str, decision: Decision) -> Record {
        self.signed(Record::of_the_broker(at, action, decision, self.principal.clone()))
    }

    /// The same record, in their name where they have asked for it from elsewhere.
    pub fn signed(&self, record: Record) -> Record {
        let Some(request) = self.request.clone() else { return record };
        Record {
            request_id: request.id,
            principal: self.principal.clone(),
            actor: None,
            client: request.client,
            source: request.source,
            policy_id: Some(request.policy_id),
            policy_hash: request.policy_hash,
            ..record
        }
    }
}
