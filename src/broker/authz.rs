//! Deciding about requests that a proxy holds up: by the tokens that come with them, and
//! where these are bound to a key, by proofs.
//!
//! What cannot be known is refused: revocations are looked up for each request, and an
//! answer that would rest on older ones than is allowed is none.

use std::collections::BTreeSet;
use std::net::IpAddr;

use tokio::time::Instant;

use super::Broker;
use super::config::{Authz, Binding, Route};
use super::own::{Flaw, OwnToken};
use super::proof::{Fault, Place, Refused, consume};
use super::store::Unit;
use crate::dpop::{self, Expected, Proof, Shown, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// A request that a proxy holds up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held<'a> {
    /// What is asked for.
    pub(super) route: &'a Route,
    /// The method.
    pub(super) method: &'a str,
    /// The addresses that it may have gone to, of which there is one at least.
    pub(super) targets: &'a [Target],
    /// What came along.
    pub(super) shown: Credentials<'a>,
    /// Where it comes from, where the proxy says so.
    pub(super) from: Option<IpAddr>,
}

/// The token of a request, and the scheme by which it is shown.
#[derive(Clone, Copy, Debug)]
pub(super) enum Credentials<'a> {
    /// RFC 6750.
    Bearer(&'a Secret<String>),
    /// RFC 9449, with the proof, where there is one.
    Bound(&'a Secret<String>, Option<&'a str>),
}

/// Why a request is not let through.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The token is not good, or not for this.
    Token(&'static str),
    /// The proof is not good.
    Proof(Refused),
    /// The token is good, and not for so much.
    Scope(BTreeSet<String>),
    /// It is of another role.
    Role,
    /// The broker cannot tell at present.
    Unavailable(Error),
}

impl Broker {
    /// Decides about a request. Returns the token by which it may pass.
    pub(super) async fn authorize(
        &self,
        config: &Authz,
        held: Held<'_>,
    ) -> Result<OwnToken, Refusal> {
        let (token, proof) = match held.shown {
            Credentials::Bearer(token) => (token, None),
            Credentials::Bound(token, proof) => (token, proof),
        };
        // By a clock that is behind, one that has expired would be good.
        self.check_clock().await.map_err(Refusal::Unavailable)?;
        let own = self.own_token(token).await.map_err(Refusal::Unavailable)?;
        let own =
            own.map_err(|flaw| self.flawed(flaw, "it is not a token of this broker that is good"))?;
        let outcome = self.judge(config, &held, &own, (token, proof)).await;
        let mut routes = config.route.iter();
        let named = routes.find(|(_, route)| std::ptr::eq(*route, held.route));
        let route = named.map_or("", |(name, _)| name);
        let said = match &outcome {
            Ok(()) => "allowed",
            Err(Refusal::Unavailable(_)) => "unavailable",
            Err(_) => "denied",
        };
        let what = (route, held.method, held.targets.first().map_or("", Target::as_str));
        self.note_decision(&own, what, said, held.from);
        outcome.map(|()| own)
    }

    /// Whether this token is good for that request.
    async fn judge(
        &self,
        config: &Authz,
        held: &Held<'_>,
        own: &OwnToken,
        (token, proof): (&Secret<String>, Option<&str>),
    ) -> Result<(), Refusal> {
        if own.expires_at <= self.clock.now() {
            return Err(self.flawed(Flaw::Expired, "it has expired"));
        }
        if own.audience != held.route.audience {
            return Err(self.flawed(Flaw::Audience, "it is for another audience"));
        }
        let proof = self.check_proof(config, held, own, token, proof)?;
        if !held.route.roles.is_empty() && !held.route.roles.contains(&own.role) {
            return Err(Refusal::Role);
        }
        let has: BTreeSet<&str> = own.scope.split_ascii_whitespace().collect();
        if !held.route.scopes.iter().all(|scope| has.contains(scope.as_str())) {
            return Err(Refusal::Scope(held.route.scopes.clone()));
        }
        if let Some(proof) = proof {
            self.use_up(&proof).await?;
        }
        // Last, so that the answer rests on nothing older.
        self.require_unrevoked(config, own).await
    }

    /// Counts what is the matter with a token. Returns what is told.
    fn flawed(&self, flaw: Flaw, why: &'static str) -> Refusal {
        self.metrics.own_refused(flaw);
        Refusal::Token(why)
    }

    /// The proof that goes with a token that is bound; `None` with one that is not.
    fn check_proof(
        &self,
        config: &Authz,
        held: &Held<'_>,
        own: &OwnToken,
        token: &Secret<String>,
        proof: Option<&str>,
    ) -> Result<Option<Proof>, Refusal> {
        let refused = |fault, why| Err(Refusal::Proof(Refused::new(fault, why)));
        let key = match (&own.key, held.shown) {
            (None, Credentials::Bearer(_)) if held.route.dpop == Binding::Optional => {
                return Ok(None);
            }
            (None, _) => {
                return Err(Refusal::Token("it is not bound to a key, and has to be"));
            }
            // RFC 9449 section 7.2: else it would be as good as any other, once stolen.
            (Some(_), Credentials::Bearer(_)) => {
                let why = "it is bound to a key, and shown as one that is not";
                return Err(self.flawed(Flaw::Bound, why));
            }
            (Some(key), Credentials::Bound(..)) => key,
        };
        let Some(proof) = proof else {
            return refused(Fault::Missing, "there is none: the header DPoP is missing");
        };
        let now = self.clock.now();
        let expected = Expected {
            method: held.method,
            targets: held.targets,
            shown: Shown::With(token.expose()),
            now,
        };
        let proof =
            dpop::verify(proof, &expected).map_err(|refusal| Refusal::Proof(refusal.into()))?;
        if proof.thumbprint != *key {
            return refused(Fault::Key, "it is by another key than the token is bound to");
        }
        self.proofs
            .check_nonce(&proof, Place::Resource, config.nonces, now)
            .map_err(Refusal::Proof)?;
        Ok(Some(proof))
    }

    /// Uses a proof up, durably and for all processes of this broker.
    async fn use_up(&self, proof: &Proof) -> Result<(), Refusal> {
        let now = self.clock.now();
        let unit = Unit::default().with(consume(proof, now));
        match self.audit.commit(unit).await {
            Ok(Some(_)) => {
                self.sweep(now);
                Ok(())
            }
            Ok(None) => Err(Refusal::Proof(Refused::replayed())),
            Err(error) => Err(Refusal::Unavailable(error)),
        }
    }

    /// Refuses a token that was revoked, or of which that cannot be known in time.
    async fn require_unrevoked(&self, config: &Authz, own: &OwnToken) -> Result<(), Refusal> {
        let (began, bound) = (Instant::now(), config.revocations_within);
        let stale = || {
            Refusal::Unavailable(
                Error::new(ErrorKind::Io, "what is known of revocations is too old").because_of(
                    format!("it could not be read within {}", humantime::format_duration(bound)),
                ),
            )
        };
        match tokio::time::timeout(bound, self.is_revoked(own)).await {
            Ok(Ok(false)) if began.elapsed() <= bound => Ok(()),
            Ok(Ok(false)) | Err(_) => Err(stale()),
            Ok(Ok(true)) => Err(self.flawed(Flaw::Revoked, "it was revoked")),
            Ok(Err(error)) => Err(Refusal::Unavailable(error)),
        }
    }
}
