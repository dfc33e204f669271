//! Proofs of a key (DPoP, RFC 9449), as the broker takes them: each once, and where that
//! is asked for only with a nonce of its own.
//!
//! That a proof was used up is in the store, so that all processes of a broker know it;
//! for a token it is in one commit with the record of it. Nonces need no store: any
//! process can tell one that another gave.

mod nonce;

use axum::http::HeaderMap;
use time::OffsetDateTime;

pub use nonce::{Nonces, Place};

use super::Broker;
use super::config::{self, Config};
use super::keys::RootKey;
use super::store::{Consumed, Effect, Once};
use crate::dpop::{self, Expected, Proof, Shown, Target};
use crate::error::{Error, ErrorKind};
use crate::oidc::Issuer;
use crate::secret::Secret;
use crate::wire;

/// What proofs have to be like.
pub struct Proofs {
    /// The addresses at which callers reach the broker.
    addresses: Vec<Issuer>,
    /// Those of the token endpoint.
    targets: Vec<Target>,
    required: config::Nonces,
    nonces: Nonces,
}

/// Why a proof is not accepted, as far as it is worth counting apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not good by itself.
    Of(dpop::Fault),
    /// It has no nonce of the broker's, or an old one.
    Nonce,
    /// It was used before.
    Replayed,
    /// It is by another key than the token is bound to.
    Key,
    /// There is none, and there has to be.
    Missing,
}

/// A proof that is not accepted.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub fault: Fault,
    /// What whoever sent it is told.
    pub error: Error,
}

impl Refused {
    /// A proof that is not accepted for this reason.
    pub fn new(fault: Fault, why: &str) -> Self {
        let error = Error::new(ErrorKind::Verification, "the DPoP proof is not acceptable");
        Self { fault, error: error.because_of(why) }
    }

    /// One that was used before.
    pub fn replayed() -> Self {
        Self::new(Fault::Replayed, "it was used before: each request needs one of its own")
    }
}

impl From<dpop::Refusal> for Refused {
    fn from(refusal: dpop::Refusal) -> Self {
        Self { fault: Fault::Of(refusal.fault), error: refusal.error }
    }
}

impl Proofs {
    pub(super) fn new(config: &Config, root_key: &RootKey) -> Self {
        let urls = [&config.issuer].into_iter().chain(&config.dpop.urls);
        let addresses: Vec<Issuer> = urls.cloned().collect();
        Self {
            targets: targets_of(&addresses, wire::TOKEN_PATH),
            addresses,
            required: config.dpop.nonces,
            nonces: Nonces::new(root_key, &config.issuer),
        }
    }

    /// The nonces.
    pub fn nonces(&self) -> &Nonces {
        &self.nonces
    }

    /// Whether proofs for the token endpoint need a nonce.
    pub fn wants_nonces(&self) -> bool {
        self.required == config::Nonces::Required
    }

    /// The addresses of this path.
    pub fn targets_of(&self, path: &str) -> Vec<Target> {
        targets_of(&self.addresses, path)
    }

    /// The same as [`check_nonce`](Self::check_nonce), as proofs for the token endpoint are.
    pub fn check_required(
        &self,
        proof: &Proof,
        place: Place,
        now: OffsetDateTime,
    ) -> Result<(), Refused> {
        self.check_nonce(proof, place, self.required, now)
    }

    /// Checks what of a proof only this broker can tell, but for whether it was used.
    ///
    /// # Errors
    /// [`Fault::Nonce`], where there is no good one.
    pub fn check_nonce(
        &self,
        proof: &Proof,
        place: Place,
        required: config::Nonces,
        now: OffsetDateTime,
    ) -> Result<(), Refused> {
        match (&proof.nonce, required) {
            (None, config::Nonces::Optional) => Ok(()),
            (Some(nonce), _) if self.nonces.accept(place, nonce, now) => Ok(()),
            (Some(_), _) => Err(Refused::new(Fault::Nonce, "its nonce is not one of late")),
            (None, config::Nonces::Required) => {
                Err(Refused::new(Fault::Nonce, "it needs the nonce that comes with this answer"))
            }
        }
    }
}

fn targets_of(addresses: &[Issuer], path: &str) -> Vec<Target> {
    addresses.iter().filter_map(|address| Target::of(&address.join(path))).collect()
}

impl Broker {
    /// The proof of a request for a token, where there is one. `subject_token` is what
    /// the token is asked for with.
    pub(super) fn token_proof(
        &self,
        headers: &HeaderMap,
        subject_token: &Secret<String>,
    ) -> Result<Option<Proof>, Refused> {
        let Some(proof) = header(headers)? else { return Ok(None) };
        let now = self.clock.now();
        let expected = Expected {
            method: "POST",
            targets: &self.proofs.targets,
            shown: Shown::Within(subject_token.expose()),
            now,
        };
        let proof = dpop::verify(proof, &expected)?;
        self.proofs.check_required(&proof, Place::Token, now)?;
        Ok(Some(proof))
    }
}

/// The one proof of a request (RFC 9449 section 4.3).
pub fn header(headers: &HeaderMap) -> Result<Option<&str>, Refused> {
    let mut given = headers.get_all(dpop::HEADER).iter();
    let malformed = |why| Refused::new(Fault::Of(dpop::Fault::Malformed), why);
    match (given.next(), given.next()) {
        (None, _) => Ok(None),
        (Some(one), None) => {
            one.to_str().map(Some).map_err(|_| malformed("it is not a signed JWT"))
        }
        (Some(_), Some(_)) => Err(malformed("a request may have one DPoP header only")),
    }
}

/// That a proof is used up, if it was not before.
pub fn consume(proof: &Proof, at: OffsetDateTime) -> Effect {
    Effect::Consume(Consumed {
        kind: Once::DpopProof,
        id: proof.id.clone(),
        at,
        keep_until: proof.until,
    })
}
