//! Seeing to a cached credential in a process that nobody waits for.

use super::minting::Minted;
use super::{Run, Terms};
use crate::cache::{Cache, CredentialKey, Lead};
use crate::credential::{Caller, Credential};
use crate::error::Result;
use crate::host::{Host, process};
use crate::identity::IdentitySource;
use crate::plan::Plan;
use crate::reach::Effort;

/// Gets a credential to follow the cached one that ends at `ends`, before anybody has to
/// wait for it. It gives way to whoever is at it, and is done where somebody was.
pub fn renew_ahead(
    host: &Host,
    cache: &Cache,
    plan: &Plan,
    ends: time::OffsetDateTime,
) -> Result<()> {
    cache.tidy_ahead();
    let Some(beside) = Beside::of(host, cache, plan, ends)? else { return Ok(()) };
    let Some(lead) = beside.lead()? else { return Ok(()) };
    // Where it fails, those who wait try by themselves: more is done for them.
    beside.keep(process::runtime()?.block_on(beside.mint())?, lead);
    Ok(())
}

/// Gets a credential in place of the cached one that ends at `ends`, where whoever issued that
/// says that it is good no more. It gives way as [`renew_ahead`] does. Where no other one can
/// be had, there is none.
pub fn replace_if_revoked(
    host: &Host,
    cache: &Cache,
    plan: &Plan,
    ends: time::OffsetDateTime,
) -> Result<()> {
    let Some(beside) = Beside::of(host, cache, plan, ends)? else { return Ok(()) };
    let Some(old) = beside.old()? else { return Ok(()) };
    let target = plan.target.open();
    let runtime = process::runtime()?;
    let is_good = match target.standing(&old) {
        Some(standing) => runtime.block_on(standing.is_good(host, &old))?,
        None => true,
    };
    // (Where nobody can tell, it is looked at again soon.)
    cache.checked(&beside.key);
    if is_good {
        return Ok(());
    }
    let Some(lead) = beside.lead()? else { return Ok(()) };
    match runtime.block_on(beside.mint()) {
        Ok(minted) => {
            beside.keep(minted, lead);
            Ok(())
        }
        Err(error) => {
            cache.forget_credential(&beside.key, &lead)?;
            Err(error)
        }
    }
}

/// A cached credential that is seen to beside those who use it.
struct Beside<'a> {
    run: Run<'a>,
    source: Box<dyn IdentitySource>,
    caller: Caller,
    key: CredentialKey,
    ends: time::OffsetDateTime,
}

impl<'a> Beside<'a> {
    /// Whoever is not logged in has nothing to see to.
    fn of(
        host: &'a Host,
        cache: &'a Cache,
        plan: &'a Plan,
        ends: time::OffsetDateTime,
    ) -> Result<Option<Self>> {
        let run = Run::new(host, cache, plan, Terms::default());
        let source = run.source()?;
        let Some(caller) = run.caller(&*source)? else { return Ok(None) };
        let key = run.key(&caller)?;
        Ok(Some(Self { run, source, caller, key, ends }))
    }

    /// The credential, unless it is gone or another one has taken its place.
    fn old(&self) -> Result<Option<Credential>> {
        let old = self.run.read(&self.key)?;
        Ok(old.filter(|old| old.lifetime.expires_at <= self.ends))
    }

    /// The right to replace it, unless somebody is at it, or has been.
    fn lead(&self) -> Result<Option<Lead>> {
        let Some(lead) = self.run.cache.lead_credential_if_free(&self.key) else {
            return Ok(None);
        };
        Ok(self.old()?.map(|_| lead))
    }

    async fn mint(&self) -> Result<Minted> {
        self.run.mint(&*self.source, Effort::AHEAD).await
    }

    fn keep(&self, minted: Minted, lead: Lead) {
        self.run.keep_for(&self.caller, &self.key, minted.principal, &minted.credential, lead);
    }
}
