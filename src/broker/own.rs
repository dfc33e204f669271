//! The broker's own tokens, when they come back to it.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Broker;
use super::authenticate::{Caller, Fault, Parent, Rejection, unacceptable};
use super::issue::TOKEN_TYPE;
use super::keys::Snapshot;
use super::policy::Policy;
use super::proof;
use crate::credential::{Principal, TokenType};
use crate::dpop::{Bound, Proof};
use crate::error::{Error, ErrorKind};
use crate::oidc::Expectations;
use crate::oidc::jwt::{self, ALGORITHMS, LEEWAY};
use crate::secret::Secret;

/// How many tokens may be exchanged one for the other, in a row.
const MAX_ANCESTORS: usize = 16;

/// A token that this broker signed, and that somebody may still accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnToken {
    /// Its id.
    pub jti: Uuid,
    /// For whom it was issued.
    pub principal: Principal,
    /// The same as one text: its `sub`.
    pub subject: String,
    /// Whom it is for.
    pub audience: String,
    /// The client it was issued to.
    pub client: String,
    /// Its role.
    pub role: String,
    /// What it covers, separated by spaces.
    pub scope: String,
    /// When it was issued.
    pub issued_at: OffsetDateTime,
    /// When it ends.
    pub expires_at: OffsetDateTime,
    /// The ids of the broker's own tokens that it came of by exchange, the first one
    /// first.
    pub ancestors: Vec<Uuid>,
    /// The ids of the keys that signed those, and of the one that signed it.
    pub keys: BTreeSet<String>,
    /// The thumbprint of the key that it is bound to.
    pub key: Option<String>,
}

/// The claims that only tokens of a broker have.
#[derive(Deserialize)]
struct Claims {
    sub_id: SubjectId,
    aud: String,
    jti: Uuid,
    client_id: String,
    role: String,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    ancestors: Vec<Uuid>,
    #[serde(default)]
    ancestor_keys: BTreeSet<String>,
}

#[derive(Deserialize)]
struct SubjectId {
    iss: String,
    sub: String,
}

impl Broker {
    /// Reads a token that this broker signed. `None` for all others, and for those
    /// that ended so long ago that nobody accepts them any more. One that ended just
    /// now, or that was revoked, is read; but none whose key was revoked, nor one that
    /// came of a token whose key was.
    ///
    /// # Errors
    /// Where the broker cannot tell at present which keys are its own.
    pub async fn own_token(&self, token: &Secret<String>) -> Result<Option<OwnToken>, Error> {
        Ok(self.signed_by(&*self.keys.current().await?, token))
    }

    fn signed_by(&self, keys: &Snapshot, token: &Secret<String>) -> Option<OwnToken> {
        let unverified = jwt::decode_unverified(token.expose()).ok()?;
        // Other things may be signed by the same keys one day.
        if unverified.header.get("typ").and_then(Value::as_str) != Some(TOKEN_TYPE) {
            return None;
        }
        let expected = Expectations {
            issuer: self.issuer.as_str(),
            // Whoever it is for: the signature says that it is.
            audiences: &jwt::audience(&unverified.claims),
            algorithms: ALGORITHMS,
            nonce: None,
            now: self.clock.now(),
            leeway: LEEWAY,
        };
        let verified = jwt::verify(token.expose(), keys.verifying(), &expected).ok()?;
        let key = match Bound::of(&verified.all) {
            Bound::No => None,
            Bound::To(key) => Some(key),
            Bound::Otherwise => return None,
        };
        let claims: Claims = serde_json::from_value(Value::Object(verified.all)).ok()?;
        let mut signers = claims.ancestor_keys;
        signers.insert(unverified.header.get("kid").and_then(Value::as_str)?.into());
        // It ends with those that it came of, so their keys are shown as long as it is good.
        if !signers.iter().all(|kid| keys.shows(kid)) {
            return None;
        }
        Some(OwnToken {
            jti: claims.jti,
            principal: Principal { issuer: claims.sub_id.iss, subject: claims.sub_id.sub },
            subject: verified.principal.subject,
            audience: claims.aud,
            client: claims.client_id,
            role: claims.role,
            scope: claims.scope,
            issued_at: verified.issued_at?,
            expires_at: verified.expires_at,
            ancestors: claims.ancestors,
            keys: signers,
            key,
        })
    }

    /// Verifies a token and says who is calling. Where the broker is among the
    /// issuers that it trusts, a token that it revoked proves nothing, and whoever
    /// shows one of its tokens is bound by what that token is good for. The token says
    /// all that these policies need. One that is bound to a key counts only with a proof
    /// by that key.
    pub(super) async fn caller(
        &self,
        token: &Secret<String>,
        token_type: TokenType,
        policy: &Policy,
        proof: Option<&Proof>,
    ) -> Result<Caller, Rejection> {
        let proved = async {
            let caller = self.identify(token, token_type, policy).await?;
            self.check_key(&caller, proof)?;
            Ok(caller)
        };
        self.metrics.authentication(proved).await
    }

    fn check_key(&self, caller: &Caller, proof: Option<&Proof>) -> Result<(), Rejection> {
        let refused = |fault, why| {
            self.metrics.proof_rejected(fault);
            Err(Rejection::Token(Fault::Bound, unacceptable(why)))
        };
        match (caller.key(), proof) {
            (Some(key), Some(proof)) if key != proof.thumbprint => {
                refused(proof::Fault::Key, "it is bound to another key than the DPoP proof is by")
            }
            (Some(_), None) => {
                refused(proof::Fault::Missing, "it is bound to a key: a DPoP proof must go with it")
            }
            _ => Ok(()),
        }
    }

    async fn identify(
        &self,
        token: &Secret<String>,
        token_type: TokenType,
        policy: &Policy,
    ) -> Result<Caller, Rejection> {
        let caller = self.authenticator.authenticate(token, token_type, policy.needs()).await?;
        if caller.principal().issuer != self.issuer.as_str() {
            return Ok(caller);
        }
        let refused = |fault: Fault, why: &str| Rejection::Token(fault, unacceptable(why));
        let unavailable = |what: &str, error: Error| {
            tracing::error!(%error, "{what} cannot be read");
            Rejection::Unavailable(Error::new(
                ErrorKind::Io,
                "the broker cannot tell at present whether the token was revoked",
            ))
        };
        let own = self.own_token(token).await.map_err(|error| unavailable("keys", error))?;
        let own =
            own.ok_or_else(|| refused(Fault::Invalid, "it is not an access token of this broker"))?;
        // What is given for it ends with it, so nothing is forgiven a clock here.
        if own.expires_at <= self.clock.now() {
            return Err(refused(Fault::Expired, "it has expired"));
        }
        if own.ancestors.len() >= MAX_ANCESTORS {
            return Err(refused(
                Fault::Invalid,
                "too many tokens were exchanged one for the other",
            ));
        }
        match self.is_revoked(&own).await {
            Ok(false) => Ok(caller.bound_by(own.into())),
            Ok(true) => Err(refused(Fault::Revoked, "it was revoked")),
            Err(error) => Err(unavailable("revocations", error)),
        }
    }
}

impl From<OwnToken> for Parent {
    fn from(own: OwnToken) -> Self {
        let mut lineage = own.ancestors;
        lineage.push(own.jti);
        let scope = own.scope.split_ascii_whitespace().map(String::from).collect();
        Self { jti: own.jti, lineage, keys: own.keys, scope }
    }
}
