//! Who a plan is for, proved to its target, without a credential: for what is asked of a broker
//! besides one.

use std::sync::Arc;

use super::{Run, Terms};
use crate::cache::Cache;
use crate::credential::Assertion;
use crate::dpop::DeviceKey;
use crate::error::Result;
use crate::host::{Host, process};
use crate::identity::{Strength, assertion_of};
use crate::plan::Plan;
use crate::reach::Effort;
use crate::trace;

/// Who somebody is, as their target is shown it.
#[derive(Clone, Debug)]
pub struct Identified {
    /// The proof, bound to the target's audience.
    pub assertion: Assertion,
    /// The key of this device, where anything on the way may be bound to it.
    pub key: Option<Arc<DeviceKey>>,
}

/// Gets an assertion of whoever this plan is for, for the audience of its target: from the
/// session that is there, by a refresh, or by a login where that is what it takes and this run
/// may ask; and through the plan's exchanges. It comes of a login that is as strong as
/// `strength` wants it.
///
/// # Errors
/// Whatever keeps it from being had; [`Strength::check`] where it is not strong enough.
pub fn assertion(
    host: &Host,
    cache: &Cache,
    plan: &Plan,
    strength: &Strength,
) -> Result<Identified> {
    let run = Run::new(host, cache, plan, Terms::default());
    process::runtime()?.block_on(run.identified(strength))
}

impl Run<'_> {
    async fn identified(&self, strength: &Strength) -> Result<Identified> {
        let source = self.source()?;
        let step = trace::step("identity");
        step.note("tmpcred.identity.source", self.plan.identity.settings.kind());
        let audience = self.plan.assertion_audience();
        let proving = assertion_of(&*source, self.context(), &audience, strength);
        let proved = step.around(proving).await;
        let mut assertion = proved.inspect_err(|error| step.failed(error.kind().name()))?;
        drop(step);
        let key = self.device()?;
        for step in &self.plan.exchanges {
            assertion = step.perform(self.host, &assertion, key.as_deref(), Effort::MINT).await?;
        }
        Ok(Identified { assertion, key })
    }
}
