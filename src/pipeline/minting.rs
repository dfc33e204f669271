//! From an assertion to a credential, step by step.

use std::time::Instant;

use time::Duration;

use super::Run;
use super::own::Exchanged;
use crate::credential::{Assertion, Credential, Principal};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{IdentitySource, in_place_of};
use crate::reach::{Effort, Wish};
use crate::trace::{self, Step};

/// What came of an assertion.
pub(super) struct Minted {
    pub(super) credential: Credential,
    pub(super) principal: Principal,
    /// What it came of, and was not revoked.
    pub(super) steps: Vec<Exchanged>,
}

impl Run<'_> {
    pub(super) async fn mint(&self, source: &dyn IdentitySource, effort: Effort) -> Result<Minted> {
        if self.terms.refresh {
            self.plan.insist(self.host, Wish::Overridden);
        }
        let (started, audience) = (Instant::now(), self.plan.assertion_audience());
        let cx = self.context().with_effort(effort);
        let step = trace::step("identity");
        step.note("tmpcred.identity.source", self.plan.identity.settings.kind());
        let assertion = failing(&step, step.around(source.assertion(cx, &audience)).await)?;
        drop(step);
        tracing::debug!(profile = self.plan.profile, "an assertion is at hand");
        let effort = effort.after_assertion(started.elapsed());
        match self.turn(assertion.clone(), effort).await {
            // What looks like a session here may be none there.
            Err(refused) => {
                let another = in_place_of(source, cx, &assertion, &audience, refused).await?;
                self.turn(another, effort).await
            }
            minted => minted,
        }
    }

    /// Turns an assertion into a credential. Tokens that were steps to it have served, and
    /// are revoked where that is asked for; but not where its target is the broker that
    /// they are from: revoking them there would reach the credential.
    pub(super) async fn turn(&self, assertion: Assertion, effort: Effort) -> Result<Minted> {
        let mut steps = Vec::new();
        let minted = self.turn_through(assertion, effort, &mut steps).await;
        if self.terms.revokes_steps {
            let needed = |step: &Exchanged| {
                minted.is_ok() && self.plan.target.issuer() == Some(step.exchange.server.issuer())
            };
            for step in steps.extract_if(.., |step| !needed(step)) {
                step.revoke(self.host).await;
            }
        }
        let (credential, principal) = minted?;
        Ok(Minted { credential, principal, steps })
    }

    /// The same. Each exchange on the way, and what it yielded, goes into `steps`.
    async fn turn_through(
        &self,
        mut assertion: Assertion,
        effort: Effort,
        steps: &mut Vec<Exchanged>,
    ) -> Result<(Credential, Principal)> {
        let principal = assertion.principal.clone();
        let started = Instant::now();
        let device = self.device()?;
        for step in &self.plan.exchanges {
            let effort = effort.after(started.elapsed());
            let part = trace::step("exchange");
            part.note("tmpcred.role", step.role.clone());
            let exchanged = step.perform(self.host, &assertion, device.as_deref(), effort);
            assertion = failing(&part, part.around(exchanged).await)?;
            steps.push(Exchanged { exchange: step.clone(), yielded: assertion.clone() });
        }
        let mut target = self.plan.target.open();
        target.with_effort(effort.after(started.elapsed()));
        if let Some(device) = device {
            target.with_key(device);
        }
        let part = trace::step("mint");
        part.note("tmpcred.role", self.plan.request.role.clone());
        let minting = target.mint(self.host, &assertion, &self.plan.request);
        let credential = failing(&part, part.around(minting).await)?;
        drop(part);
        let remaining = credential.lifetime.remaining(self.host.clock.now());
        if remaining <= Duration::ZERO {
            return Err(Error::new(
                ErrorKind::Verification,
                "the new credential has expired already",
            )
            .hint("check this machine's clock"));
        }
        tracing::info!(
            profile = self.plan.profile,
            role = credential.role,
            seconds = remaining.whole_seconds(),
            "a credential has been minted"
        );
        Ok((credential, principal))
    }
}

/// Says in the trace where a part of the way failed.
fn failing<T>(step: &Step, outcome: Result<T>) -> Result<T> {
    outcome.inspect_err(|error| step.failed(error.kind().name()))
}
