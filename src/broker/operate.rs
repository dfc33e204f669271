//! Operating a broker from elsewhere: revoking tokens of others, and looking after it.
//!
//! Whoever asks shows who they are as one who introspects does, and policy decides
//! (`Action::"revoke"`, `Action::"administer"`). Holding a token is not enough, and one of the
//! broker's own proves nothing here either. What may be used once is used up before anything
//! is decided, unless they are denied all the time; what is denied is on record, and so is
//! whatever changes something, in the name of who asked for it.

use std::net::IpAddr;
use std::time::Duration;

use data_encoding::HEXLOWER;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Broker;
use super::audit::leaf::ERASED;
use super::audit::{Author, Decision, Record};
use super::authenticate::{Caller, unacceptable};
use super::client::Proved;
use super::config::{Config, Endpoint, MAX_LEEWAY};
use super::cutoff::{Operator, Reached, Revoked, What};
use super::decide::{Denied, Rules};
use super::issue::UNKNOWN;
use super::policy::{Moment, Named, Operation, Tokens};
use super::proof::{self, Place, consume};
use super::rate::{Asking, TooOften};
use super::rulebook::Rulebook;
use super::store::{Consumed, Effect, Filter, Once, Unit};
use crate::credential::Principal;
use crate::dpop::{self, Expected, Proof, Shown, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// What is said of an assertion that is good once, where it was used.
pub(super) const USED_UP: &str = "it may be used once, and was";

/// A token by which somebody shows who they are.
#[derive(Clone, Copy, Debug)]
pub enum Credentials<'a> {
    /// RFC 6750.
    Bearer(&'a Secret<String>),
    /// RFC 9449, with the proof, where there is one, and the method and path that it is for.
    Bound(&'a Secret<String>, Option<&'a str>, (&'a str, &'a str)),
}

/// Why nobody is taken for who they come as.
#[derive(Debug)]
pub(super) enum Unproved {
    /// The token is not good.
    Token(Error),
    /// The proof is not good.
    Proof(proof::Refused),
    /// They were denied so much of late with proofs by this key that another one is not used up
    /// for that.
    Counted {
        /// When to ask again.
        retry_after: Duration,
    },
    /// They ask too often.
    TooOften(TooOften),
    /// The broker cannot tell at present.
    Unavailable(Error),
}

/// Who asks, from where, and by which request.
pub(super) struct Asked {
    pub(super) caller: Caller,
    pub(super) source: IpAddr,
    pub(super) request_id: Uuid,
}

/// Why something is not done.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Policy says no.
    Denied(String),
    /// The same, and it was said so often lately that it is only counted.
    Counted {
        /// When to ask again.
        retry_after: Duration,
    },
    /// That it is denied could not be recorded.
    Unrecorded(Error),
}

impl Broker {
    /// Who shows this to ask for that, which counts. When this returns, whatever of it may be
    /// used once is used up.
    pub(super) async fn operator(
        &self,
        book: &Rulebook,
        shown: Credentials<'_>,
        endpoint: Endpoint,
    ) -> Result<Caller, Unproved> {
        let (caller, proof) = self.shown_by(book, shown).await?;
        let counted = self.turn(book, &caller, proof.as_ref(), endpoint).await;
        counted.map_err(Unproved::TooOften)?;
        self.use_up_shown(&caller, proof.as_ref()).await?;
        Ok(caller)
    }

    /// Counts that somebody asks for this who has shown who they are, unless something of what
    /// they show was used before: that may be in anybody's hands, and nothing comes of it.
    ///
    /// # Errors
    /// Where they did so too often of late.
    pub(super) async fn turn(
        &self,
        book: &Rulebook,
        caller: &Caller,
        proof: Option<&Proof>,
        endpoint: Endpoint,
    ) -> Result<(), TooOften> {
        if !book.rates().limit_callers(endpoint) {
            return Ok(());
        }
        let assertions: Vec<_> = caller.proven().filter_map(Caller::used_up).collect();
        let assertions: Vec<_> = assertions.iter().map(|hash| HEXLOWER.encode(hash)).collect();
        let proofs: Vec<_> = proof.iter().map(|proof| proof.id.clone()).collect();
        for (kind, ids) in [(Once::Assertion, assertions), (Once::DpopProof, proofs)] {
            // Where that cannot be told, it counts.
            if !ids.is_empty() && self.store.any_consumed(kind, &ids).await.unwrap_or(false) {
                return Ok(());
            }
        }
        self.count(book, caller.asking(), endpoint)
    }

    /// Counts that somebody asks for this.
    ///
    /// # Errors
    /// Where they did so too often of late.
    pub(super) fn count(
        &self,
        book: &Rulebook,
        principal: &Principal,
        endpoint: Endpoint,
    ) -> Result<(), TooOften> {
        let who = Asking { principal, own: self.issuer.as_str() };
        book.rates().caller(who, endpoint, self.clock.uptime())
    }

    /// The same, with the proof that was shown and is not used up yet.
    pub(super) async fn shown_by(
        &self,
        book: &Rulebook,
        shown: Credentials<'_>,
    ) -> Result<(Caller, Option<Proof>), Unproved> {
        let (token, proof) = match shown {
            Credentials::Bearer(token) => (token, None),
            Credentials::Bound(token, proof, at) => (token, Some(self.proof_at(token, proof, at)?)),
        };
        let caller = self.bearer(token, book, proof.as_ref()).await?;
        // By a token alone nobody comes under the name of a client that has to do more.
        let caller = self
            .through(book, caller, &Proved::default(), proof.is_some())
            .map_err(|why| Unproved::Token(why.into()))?;
        if proof.is_some() && caller.key().is_none() {
            let why = "it is not bound to a key, and shown as one that is";
            return Err(Unproved::Token(unacceptable(why)));
        }
        Ok((caller, proof))
    }

    /// The proof of a request to this path.
    pub(super) fn proof_at(
        &self,
        token: &Secret<String>,
        proof: Option<&str>,
        (method, path): (&str, &str),
    ) -> Result<Proof, Unproved> {
        let Some(proof) = proof else {
            let why = "there is none: the header DPoP is missing";
            return Err(Unproved::Proof(proof::Refused::new(proof::Fault::Missing, why)));
        };
        let now = self.clock.now();
        let targets: Vec<Target> = self.proofs.targets_of(path);
        let shown = Shown::With(token.expose());
        let expected = Expected { method, targets: &targets, shown, now };
        let proof =
            dpop::verify(proof, &expected).map_err(|refused| Unproved::Proof(refused.into()))?;
        self.proofs.check_required(&proof, Place::Token, now).map_err(Unproved::Proof)?;
        Ok(proof)
    }

    /// Uses up what may be shown once, durably and for all processes of this broker. Whoever was
    /// denied so much of late with proofs by this key does not get to that: they make as many as
    /// they like, and each leaves something in the store. Another key takes another assertion,
    /// which their issuer has to give them.
    async fn use_up_shown(&self, caller: &Caller, proof: Option<&Proof>) -> Result<(), Unproved> {
        let now = self.clock.now();
        if let Some(proof) = proof {
            let (who, key, up) = (caller.principal(), &proof.thumbprint, self.clock.uptime());
            if let Some(retry_after) = self.denials.are_refused(who, key, up) {
                return Err(Unproved::Counted { retry_after });
            }
            self.use_up_proof(proof).await?;
        }
        let Some(assertion) = caller.used_up() else { return Ok(()) };
        let longest = time::Duration::try_from(MAX_LEEWAY).unwrap_or(time::Duration::MAX);
        let used = Effect::Consume(Consumed {
            kind: Once::Assertion,
            id: HEXLOWER.encode(&assertion),
            at: now,
            keep_until: caller.expires_at().saturating_add(longest),
        });
        match self.used_up(used).await? {
            true => Ok(()),
            false => Err(Unproved::Token(unacceptable(USED_UP))),
        }
    }

    /// Whether somebody was known by an assertion that is good once, and was used up.
    pub(super) async fn was_used(&self, caller: &Caller) -> Result<bool> {
        let Some(assertion) = caller.used_up() else { return Ok(false) };
        self.store.any_consumed(Once::Assertion, &[HEXLOWER.encode(&assertion)]).await
    }

    /// The same of a proof alone.
    pub(super) async fn use_up_proof(&self, proof: &Proof) -> Result<(), Unproved> {
        match self.used_up(consume(proof, self.clock.now())).await? {
            true => Ok(()),
            false => Err(Unproved::Proof(proof::Refused::replayed())),
        }
    }

    /// Whether this was not used before.
    async fn used_up(&self, effect: Effect) -> Result<bool, Unproved> {
        let committed = self.audit.commit(Unit::default().with(effect)).await;
        let is_first = committed.map_err(Unproved::Unavailable)?.is_some();
        self.sweep(self.clock.now());
        Ok(is_first)
    }

    /// Decides about an operation, and puts a denial on record. Returns in whose name it is
    /// done.
    pub(super) async fn permit(
        &self,
        book: &Rulebook,
        asked: &Asked,
        operation: &Operation,
    ) -> Result<Author, Refusal> {
        let moment = Moment { now: self.clock.now(), source: asked.source };
        let rules = Rules { policy: book, roles: book.roles() };
        match rules.operate_in_trace(&asked.caller, operation, moment) {
            Ok(permit) => {
                let by = (permit.as_str(), book.hash());
                Ok(Author::caller(&asked.caller, asked.source, asked.request_id, by))
            }
            Err(denied) => Err(self.deny_operation(book, asked, operation, denied).await),
        }
    }

    /// Puts a denial on record, unless there were many of late. Returns what is told.
    pub(super) async fn deny_operation(
        &self,
        book: &Rulebook,
        asked: &Asked,
        operation: &Operation,
        denied: Denied,
    ) -> Refusal {
        let (now, policy_id) = (self.clock.now(), denied.policy_id.unwrap_or_default());
        let by = (policy_id.as_str(), book.hash());
        let author = Author::caller(&asked.caller, asked.source, asked.request_id, by);
        let record = Record {
            reason: denied.reason,
            // What is in the tree as it is can never be erased.
            role: match operation {
                Operation::Revoke(Tokens { role: Some(role), .. }) => {
                    if book.roles().contains_key(role) { role } else { UNKNOWN }
                }
                _ => "",
            }
            .to_string(),
            ..author.record(now, operation.action(), Decision::Denied)
        };
        let record = Record { policy_id: record.policy_id.filter(|id| !id.is_empty()), ..record };
        if let Err(retry_after) = self.admit_denial(&asked.caller, &record.action, now) {
            let reason = record.reason;
            tracing::info!(request_id = %asked.request_id, reason, "denied, and only counted");
            return Refusal::Counted { retry_after };
        }
        // A receipt is used up at once: a denial has no effect to hand over.
        match self.metrics.recording(self.audit.append(record)).await {
            Ok(_) => Refusal::Denied(denied.said),
            Err(error) => Refusal::Unrecorded(error),
        }
    }

    /// Whether it may go on record by itself that somebody who has shown who they are is denied
    /// this. Otherwise it is counted, and may be asked for again after this time.
    pub(super) fn admit_denial(
        &self,
        caller: &Caller,
        action: &str,
        now: OffsetDateTime,
    ) -> Result<(), Duration> {
        let (who, up) = (caller.principal(), self.clock.uptime());
        if let Some(key) = caller.key() {
            self.denials.of_prover(who, key, up);
        }
        self.denials.admit(who, action, now, up)
    }

    /// One token, as policies are told of it: as the log tells. Of one that is on record nowhere
    /// they are told no more than that it is one.
    pub(super) async fn token_on_record(&self, jti: Uuid) -> Result<Tokens> {
        let filter =
            Filter { jti: Some(jti), decision: Some(Decision::Issued), ..Filter::default() };
        let mut one = Tokens::named(Named::Token);
        if let Some((_, Some(record))) = self.store.find(&filter, 1).await?.pop() {
            one.role = Some(record.role);
            one.issuer = Some(record.principal.issuer.clone());
            one.client = Some(record.client).filter(|client| client != ERASED);
            one.subject = Some(record.principal).filter(|who| who.subject != ERASED);
        }
        Ok(one)
    }

    /// The id of a token of this broker, whether it is good or not; `None` where it is none.
    ///
    /// # Errors
    /// Where that cannot be told at present.
    pub(super) async fn id_shown(&self, token: &Secret<String>) -> Result<Option<Uuid>> {
        match self.revoker().id_of(token).await {
            Ok(jti) => Ok(Some(jti)),
            Err(error) if error.kind() == ErrorKind::Usage => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Refuses what there cannot be: see [`Operator::require_known`].
    ///
    /// # Errors
    /// As there.
    pub(super) async fn require_known(&self, config: &Config, what: &What) -> Result<()> {
        self.revoker().require_known(config, what).await
    }

    /// Whom it reaches that this is revoked: see [`Operator::reached`].
    pub(super) async fn reached(
        &self,
        book: &Rulebook,
        what: &What,
        before: OffsetDateTime,
    ) -> Reached {
        self.revoker().reached(book.config(), Some(&**book), what, before).await
    }

    fn revoker(&self) -> Operator {
        Operator::beside(self.store.clone(), self.clock.clone(), self.issuer.clone())
    }

    /// What somebody who is permitted to revoke this would. Nothing is changed.
    ///
    /// # Errors
    /// As with [`Operator::would_revoke`].
    pub(super) async fn would_revoke_for(&self, by: Author, what: &What) -> Result<Revoked> {
        let said = by.said().to_string();
        let would = self.revoker().on_behalf_of(by).would_revoke(what).await?;
        let of = match what {
            What::Token(_) => "token",
            What::Many { whose, .. } => whose.parts().0,
        };
        tracing::info!(by = said, of, tokens = would.tokens, "it is told what would be revoked");
        Ok(would)
    }

    /// Revokes what somebody is permitted to. When this returns, it is durable, and so is its
    /// record; all processes of this broker look with each request.
    ///
    /// # Errors
    /// As with [`Operator::revoke`].
    pub(super) async fn revoke_for(&self, by: Author, what: &What, why: &str) -> Result<Revoked> {
        let said = by.said().to_string();
        let revoked = self.revoker().on_behalf_of(by).revoke(what, why).await?;
        tracing::info!(by = said, tokens = revoked.tokens, "revoked");
        self.sweep(self.clock.now());
        Ok(revoked)
    }
}
