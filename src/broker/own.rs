//! The broker's own tokens, when they come back to it.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Broker;
use super::authenticate::{
    Actor, Authenticator, Caller, Fault, MayAct, Parent, Rejection, actor, unacceptable,
};
use super::elevation::ElevationClaim;
use super::issue::TOKEN_TYPE;
use super::keys::Snapshot;
use super::metrics;
use super::opaque;
use super::proof;
use super::rulebook::Rulebook;
use super::told;
use crate::credential::{Principal, TokenType};
use crate::dpop::{Bound, Proof};
use crate::error::{Error, ErrorKind};
use crate::oidc::Expectations;
use crate::oidc::jwt::{self, ALGORITHMS, LEEWAY, Refusal, Unverified};
use crate::secret::Secret;
use crate::trace;
use crate::wire::RevocationReach;

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

/// Why a token is not accepted that is shown to the broker as its own. It is counted; whoever
/// shows the token is told no more than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It has ended.
    Expired,
    /// It was revoked, or a key that signed it, or one of those that it came of.
    Revoked,
    /// A key signed it that this broker does not show, as far as it knows, and never revoked.
    UnknownKey,
    /// It is for another audience, or not for the eyes of who asks about it.
    Audience,
    /// It is bound to a key that was not proved.
    Bound,
    /// Anything else: above all, it is none of this broker's.
    Invalid,
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
    /// The grant under which it was issued, where it was under one.
    pub elevation: Option<ElevationClaim>,
    /// What it says besides: the claims of its role.
    pub claims: Map<String, Value>,
    /// Whom its revocation reaches.
    pub reach: RevocationReach,
}

impl OwnToken {
    /// Whoever shows it: who acts by it, where somebody does.
    pub(super) fn bearer(&self) -> &Principal {
        self.actors.first().map_or(&self.principal, Actor::principal)
    }
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
    #[serde(default)]
    elevation: Option<ElevationClaim>,
}

#[derive(Deserialize)]
struct SubjectId {
    iss: String,
    sub: String,
}

impl Broker {
    /// Reads a token that this broker signed, or has the hash of; says why not of all others, and of those
    /// that ended so long ago that nobody accepts them any more. One that ended just
    /// now, or that was revoked, is read; but none whose key was revoked, nor one that
    /// came of a token whose key was.
    ///
    /// # Errors
    /// Where the broker cannot tell at present which keys are its own.
    pub async fn own_token(&self, token: &Secret<String>) -> Result<Result<OwnToken, Flaw>, Error> {
        let keys = self.keys.current().await?;
        let Some(hash) = opaque::hash(token) else {
            let Some(mut unverified) = self.perhaps_own(token) else {
                return Ok(Err(Flaw::Invalid));
            };
            let signer = unverified.header.get("kid").and_then(Value::as_str);
            let keys = self.with_keys_of(keys, signer, &unverified.claims).await?;
            return Ok(self.signed_by(&keys, &mut unverified));
        };
        let Some(kept) = self.store.opaque(&hash).await? else { return Ok(Err(Flaw::Invalid)) };
        let Some(claims) = self.opaque_seal.open(&kept) else { return Ok(Err(Flaw::Invalid)) };
        let keys = self.with_keys_of(keys, None, &claims).await?;
        Ok(self.read_claims(&keys, claims, None))
    }

    /// What a token says that calls itself one of this broker. Nothing of it is verified.
    fn perhaps_own<'t>(&self, token: &'t Secret<String>) -> Option<Unverified<'t>> {
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
        unverified: &mut Unverified<'_>,
    ) -> Result<OwnToken, Flaw> {
        let expected = Expectations {
            issuer: self.issuer.as_str(),
            // Whoever it is for: the signature says that it is.
            audiences: &jwt::audience(&unverified.claims),
            algorithms: ALGORITHMS,
            nonce: None,
            now: self.clock.now(),
            leeway: LEEWAY,
        };
        let signer = unverified.header.get("kid").and_then(Value::as_str).ok_or(Flaw::Invalid)?;
        let signer = &signer.to_string();
        match unverified.verify(keys.verifying(), &expected) {
            Ok(verified) => self.read_claims(keys, verified.all, Some(signer)),
            Err(Refusal::Expired(_)) => Err(Flaw::Expired),
            Err(Refusal::Invalid(_)) => Err(Flaw::Invalid),
            Err(Refusal::UnknownKey(_)) => Err(self.without_key(keys, signer, &unverified.claims)),
        }
    }

    /// What is the matter with a token whose key is none that is shown. What it says itself
    /// proves nothing: that counts only against it.
    fn without_key(&self, keys: &Snapshot, signer: &str, claims: &Map<String, Value>) -> Flaw {
        let end = jwt::moment(claims, "exp").ok().flatten();
        let ended = end.is_none_or(|end| end.saturating_add(LEEWAY) <= self.clock.now());
        match ended {
            _ if keys.has_revoked(signer) => Flaw::Revoked,
            // A key is shown for longer than what it signed is good.
            true => Flaw::Expired,
            false => Flaw::UnknownKey,
        }
    }

    /// What the claims of a token of this broker say, by the keys at hand. `signer` is the
    /// id of the one that signed it, where it is signed.
    fn read_claims(
        &self,
        keys: &Snapshot,
        all: Map<String, Value>,
        signer: Option<&str>,
    ) -> Result<OwnToken, Flaw> {
        let own = self.parse_claims(all, signer).ok_or(Flaw::Invalid)?;
        if own.expires_at.saturating_add(LEEWAY) <= self.clock.now() {
            return Err(Flaw::Expired);
        }
        // It ends with those that it came of, so their keys are shown as long as it is good.
        match own.keys.iter().find(|kid| !keys.shows(kid)) {
            None => Ok(own),
            Some(kid) if keys.has_revoked(kid) => Err(Flaw::Revoked),
            Some(_) => Err(Flaw::UnknownKey),
        }
    }

    fn parse_claims(&self, mut all: Map<String, Value>, signer: Option<&str>) -> Option<OwnToken> {
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
        let others: Vec<_> =
            all.keys().filter(|name| !told::claims::is_own(name)).cloned().collect();
        let others = others.into_iter().filter_map(|name| all.remove_entry(&name)).collect();
        let claims: Claims = serde_json::from_value(Value::Object(all)).ok()?;
        let mut signers = claims.ancestor_keys;
        signers.extend(signer.map(String::from));
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
            elevation: claims.elevation,
            claims: others,
            reach: match signer {
                Some(_) => RevocationReach::Introspection,
                None => RevocationReach::Everywhere,
            },
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
        book: &Rulebook,
        proof: Option<&Proof>,
    ) -> Result<Caller, Rejection> {
        let caller = self.party(Shown { token, token_type }, book, proof).await?;
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
        book: &Rulebook,
        proof: Option<&Proof>,
    ) -> Result<Caller, Rejection> {
        let caller = self.party(subject, book, proof).await?;
        let Some(actor) = actor else { return Ok(caller) };
        let actor = self.party(actor, book, proof).await.map_err(|why| {
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
        book: &Rulebook,
        proof: Option<&Proof>,
    ) -> Result<Caller, Rejection> {
        // (Each of these by its place: handed over, it would be there twice.)
        let proved = pin!(async {
            let caller = self.identify(shown.token, shown.token_type, book).await?;
            self.check_key(&caller, proof)?;
            Ok(caller)
        });
        let counted = pin!(self.metrics.authentication(proved));
        let step = trace::step("authenticate");
        let outcome = step.around(counted).await;
        if let Err(rejection) = &outcome {
            step.failed(metrics::of_rejection(rejection));
        }
        outcome
    }

    fn check_key(&self, caller: &Caller, proof: Option<&Proof>) -> Result<(), Rejection> {
        let refused = |fault, why| {
            self.metrics.proof_rejected(fault);
            if caller.parent().is_some() {
                self.metrics.own_refused(Flaw::Bound);
            }
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
        book: &Rulebook,
    ) -> Result<Caller, Rejection> {
        if opaque::hash(token).is_some() {
            self.metrics.own_refused(Flaw::Invalid);
            let why = "it is an opaque token, which proves nothing but about itself";
            return Err(Rejection::Token(Fault::Invalid, unacceptable(why)));
        }
        let authenticator = book.authenticator();
        let authenticated = authenticator.authenticate(token, token_type, book.needs()).await;
        let caller = match authenticated {
            Ok(caller) if caller.principal().issuer != self.issuer.as_str() => return Ok(caller),
            Ok(caller) => caller,
            Err(rejection) => {
                if let Rejection::Token(fault, _) = &rejection {
                    self.count_refused(token, *fault, authenticator).await;
                }
                return Err(rejection);
            }
        };
        let refused = |flaw: Flaw, why: &str| {
            self.metrics.own_refused(flaw);
            Rejection::Token(flaw.into(), unacceptable(why))
        };
        let unavailable = |what: &str, error: Error| {
            tracing::error!(%error, "{what} cannot be read");
            Rejection::Unavailable(Error::new(
                ErrorKind::Io,
                "the broker cannot tell at present whether the token was revoked",
            ))
        };
        let own = self.own_token(token).await.map_err(|error| unavailable("keys", error))?;
        let own = own.map_err(|flaw| {
            self.metrics.own_refused(flaw);
            let why = "it is not an access token of this broker";
            Rejection::Token(Fault::Invalid, unacceptable(why))
        })?;
        // What is given for it ends with it, so nothing is forgiven a clock here.
        if own.expires_at <= self.clock.now() {
            return Err(refused(Flaw::Expired, "it has expired"));
        }
        if own.ancestors.len() >= MAX_ANCESTORS {
            self.metrics.own_refused(Flaw::Invalid);
            return Err(Rejection::Token(Fault::Invalid, too_many_exchanged()));
        }
        match self.is_revoked(&own).await {
            Ok(false) => Ok(caller.bound_by(own.into())),
            Ok(true) => Err(refused(Flaw::Revoked, "it was revoked")),
            Err(error) => Err(unavailable("revocations", error)),
        }
    }

    /// Counts a token that was refused before anybody looked whether it is the broker's own,
    /// where it says that it is.
    async fn count_refused(&self, token: &Secret<String>, fault: Fault, by: &Authenticator) {
        let unverified = jwt::decode_unverified(token.expose());
        let claims = unverified.map(|token| token.claims).unwrap_or_default();
        if claims.get("iss").and_then(Value::as_str) != Some(self.issuer.as_str()) {
            return;
        }
        let flaw = match self.own_token(token).await {
            // Who fetches its keys as those of any issuer may not have them yet.
            Ok(Ok(_)) if fault == Fault::UnknownKey => Flaw::UnknownKey,
            Ok(Ok(own)) if !by.takes(self.issuer.as_str(), &own.audience) => Flaw::Audience,
            Ok(Ok(_)) => Flaw::Invalid,
            Ok(Err(flaw)) => flaw,
            // It is refused for another reason, which is told.
            Err(_) => return,
        };
        self.metrics.own_refused(flaw);
    }
}

impl From<Flaw> for Fault {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::Expired => Self::Expired,
            Flaw::Revoked => Self::Revoked,
            Flaw::UnknownKey => Self::UnknownKey,
            Flaw::Bound => Self::Bound,
            Flaw::Audience | Flaw::Invalid => Self::Invalid,
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
        Self { jti: own.jti, lineage, keys: own.keys, scope, elevation: own.elevation }
    }
}
