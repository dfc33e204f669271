//! Credentials of one run, which are revoked at its end.

use time::Duration;

use crate::credential::{Assertion, Credential};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::process;
use crate::mint::Exchange;
use crate::plan::Plan;

/// A credential that only one run has.
#[derive(Clone, Debug)]
pub struct OwnCredential {
    /// The credential.
    pub credential: Credential,
    /// What it came of, and has to last as long as it.
    pub(super) steps: Vec<Step>,
}

/// An exchange on the way, and what it yielded.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) exchange: Exchange,
    pub(super) yielded: Assertion,
}

impl Step {
    /// Revokes what it yielded. Failing is told and no more: nobody else has it.
    pub(super) async fn revoke(&self, host: &Host) {
        if let Err(error) = self.exchange.revoke(host, &self.yielded).await {
            host.interact.warn(&format!(
                "the token for the role '{}', which was a step to the credential, could not be revoked and stays good until it ends: {error}",
                self.exchange.role
            ));
        }
    }
}

/// Revokes a credential of this plan, and what it came of. What has ended by itself is
/// left alone.
///
/// # Errors
/// Whatever keeps it from being revoked: it stays good until it ends.
pub fn revoke(host: &Host, plan: &Plan, own: &OwnCredential) -> Result<()> {
    if own.credential.lifetime.remaining(host.clock.now()) <= Duration::ZERO {
        return Ok(());
    }
    let target = plan.target.open();
    let Some(revocation) = target.revocation() else {
        return Err(Error::new(ErrorKind::Config, "its target cannot revoke credentials"));
    };
    process::runtime()?.block_on(async {
        let revoked = revocation.revoke(host, &own.credential).await;
        for step in &own.steps {
            step.revoke(host).await;
        }
        revoked
    })
}
