//! The broker's own tokens, when they come back to it.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Broker;
use super::authenticate::{Actor, Caller, Fault, MayAct, Parent, Rejection, actor, unacceptable};
use super::issue::TOKEN_TYPE;
use super::keys::Snapshot;
use super::metrics;
use super::opaque;
use super::policy::Policy;
use super::proof;
use crate::credential::{Principal, TokenType};
use crate::dpop::{Bound, Proof};
use crate::error::{Error, ErrorKind};
use crate::oidc::Expectations;
use crate::oidc::jwt::{self, ALGORITHMS, LEEWAY, Unverified};
use crate::secret::Secret;
use crate::trace;

/// How many tokens may be exchanged one for the other, in a row.
const MAX_ANCESTORS: usize = 16;

/// A token that somebody shows.
#[derive(Clone, Copy)]
pub(super) struct Shown<'a> {
    /// The token.
    pub(super) token: &'a Secret<String>,
    /// What they say it is.
    pub(super) token_type: TokenType,
}

/// A token that this broker issued, and that somebody may still accept.
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
    /// The ids of the keys that signed those, and of the one that signed it where one did.
    pub keys: BTreeSet<String>,
    /// The thumbprint of the key that it is bound to.
    pub key: Option<String>,
    /// Who acts for its subject: first who does so now, then those before them.
    pub actors: Vec<Actor>,
    /// Who may become the first of them, where it says so.
    pub may_act: Option<MayAct>,
    /// The number of its record in the audit log, where it says so: an opaque one was made
    /// before anybody could know it.
    pub log_sequence: Option<u64>,
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
    #[serde(default)]
    log_sequence: Option<u64>,
}

#[derive(Deserialize)]
struct SubjectId {
    iss: String,
    sub: String,
}

impl Broker {
    /// Reads a token that this broker signed, or has the hash of. `None` for all others, and for those
    /// that ended so long ago that nobody accepts them any more. One that ended just
    /// now, or that was revoked, is read; but none whose key was revoked, nor one that
    /// came of a token whose key was.
    ///
    /// # Errors
    /// Where the broker cannot tell at present which keys are its own.
    pub async fn own_token(&self, token: &Secret<String>) -> Result<Option<OwnToken>, Error> {
        let keys = self.keys.current().await?;
        let Some(hash) = opaque::hash(token) else {
            let Some(unverified) = self.perhaps_own(token) else { return Ok(None) };
            let signer = unverified.header.get("kid").and_then(Value::as_str);
            let keys = self.with_keys_of(keys, signer, &unverified.claims).await?;
            return Ok(self.signed_by(&keys, token, &unverified));
        };
        let Some(kept) = self.store.opaque(&hash).await? else { return Ok(None) };
        let Some(claims) = self.opaque_seal.open(&kept) else { return Ok(None) };
        let keys = self.with_keys_of(keys, None, &claims).await?;
        let own = self.read_claims(&keys, claims, None);
        Ok(own.filter(|own| own.expires_at.saturating_add(LEEWAY) > self.clock.now()))
    }

    /// What a token says that calls itself one of this broker. Nothing of it is verified.
    fn perhaps_own(&self, token: &Secret<String>) -> Option<Unverified> {
        let unverified = jwt::decode_unverified(token.expose()).ok()?;
        // Other things may be signed by the same keys one day.
        let is_own = unverified.header.get("typ").and_then(Value::as_str) == Some(TOKEN_TYPE)
            && unverified.claims.get("iss").and_then(Value::as_str) == Some(self.issuer.as_str());
        is_own.then_some(unverified)
    }

    /// The keys, with those by which a token is said to be, if there are such. Another process
    /// may sign by one that this one has not seen yet, as it does at once when the one before
    /// is revoked: its tokens can be revoked here from the first moment on.
    async fn with_keys_of(
        &self,
        keys: Arc<Snapshot>,
        signer: Option<&str>,
        claims: &Map<String, Value>,
    ) -> Result<Arc<Snapshot>, Error> {
        let ancestors = claims.get("ancestor_keys").and_then(Value::as_array);
        let mut named =
            signer.into_iter().chain(ancestors.into_iter().flatten().filter_map(Value::as_str));
        if named.all(|kid| keys.knows(kid)) { Ok(keys) } else { self.keys.newest().await }
    }

    fn signed_by(
        &self,
        keys: &Snapshot,
        token: &Secret<String>,
        unverified: &Unverified,
    ) -> Option<OwnToken> {
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
        let signer = unverified.header.get("kid").and_then(Value::as_str)?;
        self.read_claims(keys, verified.all, Some(signer))
    }

    /// What the claims of a token of this broker say, by the keys at hand. `signer` is the
    /// id of the one that signed it, where it is signed.
    fn read_claims(
        &self,
        keys: &Snapshot,
        all: Map<String, Value>,
        signer: Option<&str>,
    ) -> Option<OwnToken> {
        let moment = |name: &str| jwt::moment(&all, name).ok().flatten();
        let (issued_at, expires_at) = (moment("iat")?, moment("exp")?);
        let subject = all.get("sub")?.as_str()?.to_string();
        let actors = actor::chain(&all, self.issuer.as_str(), true).ok()?;
        let may_act = MayAct::read(&all, self.issuer.as_str()).ok()?;
        let key = match Bound::of(&all) {
            Bound::No => None,
            Bound::To(key) => Some(key),
            Bound::Otherwise => return None,
        };
        let claims: Claims = serde_json::from_value(Value::Object(all)).ok()?;
        let mut signers = claims.ancestor_keys;
        signers.extend(signer.map(String::from));
        // It ends with those that it came of, so their keys are shown as long as it is good.
        if !signers.iter().all(|kid| keys.shows(kid)) {
            return None;
        }
        Some(OwnToken {
            jti: claims.jti,
            principal: Principal { issuer: claims.sub_id.iss, subject: claims.sub_id.sub },
            subject,
            audience: claims.aud,
            client: claims.client_id,
            role: claims.role,
            scope: claims.scope,
            issued_at,
            expires_at,
            ancestors: claims.ancestors,
            keys: signers,
            key,
            actors,
            may_act,
            log_sequence: claims.log_sequence,
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
        let caller = self.party(Shown { token, token_type }, policy, proof).await?;
        if !caller.actors().is_empty() {
            let why = "somebody acts on behalf of its subject";
            return Err(Rejection::Token(Fault::Invalid, unacceptable(why)));
        }
        Ok(caller)
    }

    /// The same for a token that others may act with, together with the token of who
    /// acts, where there is one (RFC 8693 section 2.1). Each of the two that is bound to a
    /// key counts only with a proof by that key, and a request has one proof.
    pub(super) async fn parties(
        &self,
        subject: Shown<'_>,
        actor: Option<Shown<'_>>,
        policy: &Policy,
        proof: Option<&Proof>,
    ) -> Result<Caller, Rejection> {
        let caller = self.party(subject, policy, proof).await?;
        let Some(actor) = actor else { return Ok(caller) };
        let actor = self.party(actor, policy, proof).await.map_err(|why| {
            let of_actor = |error: Error| error.context("the actor's token");
            match why {
                Rejection::Token(fault, error) => Rejection::Token(fault, of_actor(error)),
                Rejection::Unavailable(error) => Rejection::Unavailable(of_actor(error)),
            }
        })?;
        let caller =
            caller.acted_for_by(actor).map_err(|error| Rejection::Token(Fault::Invalid, error))?;
        if caller.lineage().len() > MAX_ANCESTORS {
            return Err(Rejection::Token(Fault::Invalid, too_many_exchanged()));
        }
        Ok(caller)
    }

    async fn party(
        &self,
        shown: Shown<'_>,
        policy: &Policy,
        proof: Option<&Proof>,
    ) -> Result<Caller, Rejection> {
        let proved = async {
            let caller = self.identify(shown.token, shown.token_type, policy).await?;
            self.check_key(&caller, proof)?;
            Ok(caller)
        };
        let step = trace::step("authenticate");
        let outcome = step.around(self.metrics.authentication(proved)).await;
        if let Err(rejection) = &outcome {
            step.failed(metrics::of_rejection(rejection));
        }
        outcome
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
        if opaque::hash(token).is_some() {
            let why = "it is an opaque token, which proves nothing but about itself";
            return Err(Rejection::Token(Fault::Invalid, unacceptable(why)));
        }
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
            return Err(Rejection::Token(Fault::Invalid, too_many_exchanged()));
        }
        match self.is_revoked(&own).await {
            Ok(false) => Ok(caller.bound_by(own.into())),
            Ok(true) => Err(refused(Fault::Revoked, "it was revoked")),
            Err(error) => Err(unavailable("revocations", error)),
        }
    }
}

fn too_many_exchanged() -> Error {
    unacceptable("too many tokens were exchanged one for the other")
}

impl From<OwnToken> for Parent {
    fn from(own: OwnToken) -> Self {
        let mut lineage = own.ancestors;
        lineage.push(own.jti);
        let scope = own.scope.split_ascii_whitespace().map(String::from).collect();
        Self { jti: own.jti, lineage, keys: own.keys, scope }
    }
}
