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
    pub(super) steps: Vec<Exchanged>,
}

/// An exchange on the way, and what it yielded.
#[derive(Clone, Debug)]
pub(super) struct Exchanged {
    pub(super) exchange: Exchange,
    pub(super) yielded: Assertion,
}

impl Exchanged {
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

impl OwnCredential {
    /// Whether there is nothing left to revoke: it has ended by itself, and what it came of.
    pub fn is_over(&self, host: &Host) -> bool {
        let now = host.corrected_now();
        self.has_ended(host) && self.steps.iter().all(|step| step.yielded.expires_at <= now)
    }

    fn has_ended(&self, host: &Host) -> bool {
        self.credential.lifetime.remaining(host.clock.now()) <= Duration::ZERO
    }
}

/// Revokes a credential of this plan, and what it came of. What has ended by itself is
/// left alone.
///
/// # Errors
/// Whatever keeps it from being revoked: it stays good until it ends.
pub fn revoke(host: &Host, plan: &Plan, own: &OwnCredential) -> Result<()> {
    if own.is_over(host) {
        return Ok(());
    }
    process::runtime()?.block_on(end(host, plan, own))
}

/// The same.
pub(super) async fn end(host: &Host, plan: &Plan, own: &OwnCredential) -> Result<()> {
    let target = plan.target.open();
    let revoked = match target.revocation() {
        _ if own.has_ended(host) => Ok(()),
        Some(revocation) => revocation.revoke(host, &own.credential).await,
        None => Err(Error::new(ErrorKind::Config, "its target cannot revoke credentials")),
    };
    // They may outlast it.
    for step in &own.steps {
        step.revoke(host).await;
    }
    revoked
}
