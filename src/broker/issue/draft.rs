//! What a token says, before it is signed.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::broker::elevation::ElevationClaim;
use crate::broker::opaque::{self, OpaqueSeal};
use crate::broker::policy::Granted;
use crate::broker::store::Effect;
use crate::broker::told::AdditionalClaims;
use crate::error::{Error, ErrorKind, Result};
use crate::oidc::jwt::LEEWAY;
use crate::secret::Secret;

/// The claims of a token (RFC 9068 section 2.2).
#[derive(Serialize)]
pub(super) struct Claims {
    pub(super) iss: String,
    /// The caller's id: issuer and subject as one, so that it means one person
    /// wherever it is read.
    pub(super) sub: String,
    /// The same, in parts (RFC 9493 section 3.2.4).
    pub(super) sub_id: SubjectId,
    pub(super) aud: String,
    pub(super) iat: i64,
    pub(super) exp: i64,
    pub(super) jti: Uuid,
    pub(super) client_id: String,
    pub(super) role: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) scope: String,
    /// The ids of the broker's own tokens that it came of by exchange, the first one
    /// first. Where one of them is revoked, so is this.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) ancestors: Vec<Uuid>,
    /// The ids of the keys that signed those. Where one of them is revoked, so is this.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) ancestor_keys: BTreeSet<String>,
    /// The key that it is bound to (RFC 9449 section 6.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cnf: Option<Confirmation>,
    /// Ours: the grant under which it was issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) elevation: Option<ElevationClaim>,
    /// Who acts for the subject (RFC 8693 section 4.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) act: Option<Value>,
    /// Who may, as the subject's token said (RFC 8693 section 4.4): otherwise an
    /// exchange would be a way around it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) may_act: Option<Value>,
    #[serde(flatten)]
    pub(super) told: AdditionalClaims,
}

/// The claims of a token that is on record.
#[derive(Serialize)]
pub(super) struct Recorded {
    #[serde(flatten)]
    pub(super) claims: Claims,
    /// The number of its record in the audit log.
    pub(super) log_sequence: u64,
}

#[derive(Serialize)]
pub(super) struct SubjectId {
    pub(super) format: &'static str,
    pub(super) iss: String,
    pub(super) sub: String,
}

#[derive(Serialize)]
pub(super) struct Confirmation {
    pub(super) jkt: String,
}

/// A token that lacks its signature, until there is a receipt for it.
pub(super) struct Draft {
    pub(super) claims: Claims,
    pub(super) granted: Granted,
}

impl Draft {
    /// What comes about with the record: what an opaque token says is kept.
    pub(super) fn effects(
        &self,
        seal: &OpaqueSeal,
        opaque: Option<&Secret<String>>,
    ) -> Result<Vec<Effect>> {
        let Some(hash) = opaque.and_then(opaque::hash) else { return Ok(Vec::new()) };
        let claims = serde_json::to_string(&self.claims).map_err(|cause| {
            Error::new(ErrorKind::Other, "the claims cannot be written").because(cause)
        })?;
        let end = OffsetDateTime::from_unix_timestamp(self.claims.exp).map_err(|cause| {
            Error::new(ErrorKind::Other, "the token would never end").because(cause)
        })?;
        let keep_until = end.saturating_add(LEEWAY);
        Ok(vec![Effect::AddOpaque(seal.over(hash, claims, keep_until))])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::broker::elevation::Path;
    use crate::broker::told::claims::is_own;

    #[test]
    fn no_role_says_what_the_broker_says_itself() {
        let claims = Claims {
            iss: String::new(),
            sub: String::new(),
            sub_id: SubjectId { format: "iss_sub", iss: String::new(), sub: String::new() },
            aud: String::new(),
            iat: 0,
            exp: 0,
            jti: Uuid::nil(),
            client_id: String::new(),
            role: String::new(),
            scope: "a".into(),
            ancestors: vec![Uuid::nil()],
            ancestor_keys: ["k".to_string()].into(),
            cnf: Some(Confirmation { jkt: String::new() }),
            elevation: Some(ElevationClaim {
                id: Uuid::nil(),
                path: Path::Ordinary,
                reason_sha256: String::new(),
            }),
            act: Some(json!({})),
            may_act: Some(json!({})),
            told: AdditionalClaims::default(),
        };
        let all = serde_json::to_value(Recorded { claims, log_sequence: 1 }).unwrap();
        let names: Vec<_> = all.as_object().unwrap().keys().cloned().collect();
        assert_eq!(names.len(), 17, "{names:?}");
        assert!(names.iter().all(|name| is_own(name)), "{names:?}");
    }
}
