//! Introspection: what a token is, told to those who may know.
//!
//! A token may always ask about itself. Anybody else proves who they are by a token
//! of a trusted issuer, or is a client that has authenticated, and policy decides
//! (`Action::"introspect"`). The broker's
//! own tokens prove nothing else here: those to whom they are shown would otherwise
//! ask in the name of those who showed them. Nor does a token that is bound to a key, where
//! whoever shows it has not proved the key for this very request. It may be asked about by
//! itself all the same, so that those to whom it was shown, who have no key, can look whether
//! it was revoked.

use std::net::IpAddr;

use super::Broker;
use super::audit::Decision;
use super::authenticate::{Caller, Rejection, unacceptable};
use super::config::Endpoint;
use super::operate::{Credentials, USED_UP, Unproved};
use super::own::{Flaw, OwnToken};
use super::policy::Moment;
use super::proof::{self, Fault};
use super::rate::TooOften;
use super::rulebook::Rulebook;
use super::store::Filter;
use crate::credential::TokenType;
use crate::dpop::Proof;
use crate::error::Error;
use crate::secret::Secret;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub enum Asker<'a> {
    /// Whoever shows this token.
    Shown(Credentials<'a>),
    /// A client that has authenticated, by its id.
    Client(&'a str),
}

impl Asker<'_> {
    /// Whether it is the token that is asked about, which says nothing of who asks.
    pub fn is_itself(&self, token: &Secret<String>) -> bool {
        match self {
            Self::Shown(Credentials::Bearer(shown) | Credentials::Bound(shown, ..)) => {
                shown.ct_eq(token.expose())
            }
            Self::Client(_) => false,
        }
    }
}

/// Why nothing was told.
#[derive(Debug)]
pub enum Refusal {
    /// The caller did not prove who they are.
    Unauthenticated(Error),
    /// The caller did not prove the key that their token is bound to.
    Proof(proof::Refused),
    /// They ask too often.
    TooOften(TooOften),
    /// The broker cannot tell at present.
    Unavailable(Error),
}

impl From<Unproved> for Refusal {
    fn from(unproved: Unproved) -> Self {
        match unproved {
            Unproved::Token(error) => Self::Unauthenticated(error),
            Unproved::Proof(refused) => Self::Proof(refused),
            Unproved::Counted { .. } => Self::Unauthenticated(unacceptable("denied too often")),
            Unproved::TooOften(too_often) => Self::TooOften(too_often),
            Unproved::Unavailable(error) => Self::Unavailable(error),
        }
    }
}

impl Broker {
    /// Tells about a token that is good at this moment; `None` for one that is not,
    /// and for one that the caller may not know of, which looks the same.
    pub async fn introspect(
        &self,
        book: &Rulebook,
        asker: Asker<'_>,
        token: &Secret<String>,
        source: IpAddr,
    ) -> Result<Option<OwnToken>, Refusal> {
        let (caller, proof) = match asker {
            Asker::Shown(shown) if asker.is_itself(token) => match shown {
                Credentials::Bearer(_) => (None, None),
                Credentials::Bound(shown, proof, at) => {
                    (None, Some(self.proof_at(shown, proof, at)?))
                }
            },
            // Nothing comes of it, so an assertion that is good once is not used up. But one that
            // was may be in anybody's hands.
            Asker::Shown(shown) => {
                let (caller, proof) = self.shown_by(book, shown).await?;
                if self.was_used(&caller).await.map_err(Refusal::Unavailable)? {
                    return Err(Refusal::Unauthenticated(unacceptable(USED_UP)));
                }
                (Some(caller), proof)
            }
            Asker::Client(client) => {
                (Some(Caller::of_client(&self.issuer, client, self.clock.now())), None)
            }
        };
        if let Some(caller) = &caller {
            let counted = self.count(book, caller.asking(), Endpoint::Introspect);
            counted.map_err(Refusal::TooOften)?;
        }
        let own = match self.known_to(caller.as_ref(), book, token, source).await? {
            Ok(own) => own,
            // Why is counted, and told to nobody. A proof is not used up for that: anybody can
            // make one for what is no token, and would leave something in the store.
            Err(flaw) => {
                self.metrics.own_refused(flaw);
                return Ok(None);
            }
        };
        if let Some(proof) = proof {
            // (That of somebody else is by the key of their own token.)
            if caller.is_none() && own.key.as_ref() != Some(&proof.thumbprint) {
                let why = "it is by another key than the token is bound to";
                return Err(Refusal::Proof(proof::Refused::new(Fault::Key, why)));
            }
            self.use_up_proof(&proof).await?;
        }
        // One that is dead may be in anybody's hands, and is told of as often as they like.
        if caller.is_none() {
            let counted = self.count(book, own.bearer(), Endpoint::Introspect);
            counted.map_err(Refusal::TooOften)?;
        }
        self.with_its_record(own).await.map(Some).map_err(Refusal::Unavailable)
    }

    /// The token, where it is good and whoever asks may know of it.
    async fn known_to(
        &self,
        caller: Option<&Caller>,
        book: &Rulebook,
        token: &Secret<String>,
        source: IpAddr,
    ) -> Result<Result<OwnToken, Flaw>, Refusal> {
        // By a clock that is behind, one that has expired would be good.
        self.check_clock().await.map_err(Refusal::Unavailable)?;
        let own = match self.own_token(token).await.map_err(Refusal::Unavailable)? {
            Ok(own) if own.expires_at <= self.clock.now() => return Ok(Err(Flaw::Expired)),
            Ok(own) => own,
            Err(flaw) => return Ok(Err(flaw)),
        };
        if let Some(caller) = caller {
            let moment = Moment { now: self.clock.now(), source };
            match book.may_introspect(caller, &own.role, &own.audience, moment) {
                Ok(true) => {}
                Ok(false) => {
                    let (caller, audience) = (caller.id(), &own.audience);
                    tracing::info!(caller, audience, "policy lets the caller not introspect");
                    return Ok(Err(Flaw::Audience));
                }
                Err(why) => {
                    tracing::error!(why, "a policy cannot be evaluated, which denies");
                    return Ok(Err(Flaw::Audience));
                }
            }
        }
        let by = caller.map(Caller::id);
        match self.is_revoked(&own).await {
            Ok(false) => {
                self.note_introspection(&own, by, "active");
                Ok(Ok(own))
            }
            Ok(true) => {
                self.note_introspection(&own, by, "revoked");
                Ok(Err(Flaw::Revoked))
            }
            Err(error) => Err(Refusal::Unavailable(error)),
        }
    }

    /// The same token, with the number of its record.
    async fn with_its_record(&self, own: OwnToken) -> Result<OwnToken, Error> {
        if own.log_sequence.is_some() {
            return Ok(own);
        }
        let (jti, decision) = (Some(own.jti), Some(Decision::Issued));
        let filter = Filter { jti, decision, ..Filter::default() };
        let log_sequence = self.store.find(&filter, 1).await?.pop().map(|(number, _)| number);
        Ok(OwnToken { log_sequence, ..own })
    }

    /// Who bears a token of a trusted issuer, with a proof of the key that it is bound to where
    /// it is.
    pub(super) async fn bearer(
        &self,
        bearer: &Secret<String>,
        book: &Rulebook,
        proof: Option<&Proof>,
    ) -> Result<Caller, Unproved> {
        let caller = self.caller(bearer, TokenType::Jwt, book, proof).await;
        let caller = caller.map_err(|rejection| match rejection {
            Rejection::Token(_, error) => Unproved::Token(error),
            Rejection::Unavailable(error) => Unproved::Unavailable(error),
        })?;
        // Also where the broker is among the issuers that it trusts.
        if caller.parent().is_some() {
            let why = "a token of this broker is no proof of who asks about others";
            return Err(Unproved::Token(unacceptable(why)));
        }
        Ok(caller)
    }
}
