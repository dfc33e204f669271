//! The way of a credential: cache hit, or identity, exchanges and mint.
//!
//! This is the only place that knows the order of the steps.

mod ahead;
mod identified;
mod minting;
mod own;

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Instant;

use time::Duration;

pub use ahead::{renew_ahead, replace_if_revoked};
pub use identified::{Identified, assertion};
pub use own::{OwnCredential, revoke};

use self::minting::Minted;
use crate::cache::{CHECK_AFTER, Cache, CredentialKey, Lead, Turn};
use crate::credential::{Assertion, Caller, Credential, Principal};
use crate::dpop::DeviceKey;
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::process;
use crate::identity::{Context, IdentitySource, LoginOptions, Readiness};
use crate::plan::Plan;
use crate::reach::{Effort, Wish};
use crate::secret::Secret;
use crate::trace;

/// On which terms a run gets its credential, besides the plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// A cached credential will not do.
    pub refresh: bool,
    /// What must at least be left of its lifetime.
    pub min_ttl: Option<std::time::Duration>,
    /// Whoever uses it asks again when less than this is left. A new one is minted
    /// before, as [its lifetime](crate::credential::Lifetime::asked_again_window) tells.
    pub asked_again: Option<std::time::Duration>,
    /// Whether whoever asks can have a new one fetched beside, so that nobody has to
    /// wait for it: [`Origin::Ageing`] tells when.
    pub ahead: bool,
    /// Whether the tokens of brokers that are steps to a new one are revoked once they have
    /// served: whoever trades one in does not look back.
    pub revokes_steps: bool,
}

/// Where a credential came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was in the cache.
    Cache,
    /// The same, and it will soon be due for renewal: it is for this process to see to
    /// that, with [`renew_ahead`] in another one.
    Ageing,
    /// The same, and nobody has looked of late whether it was revoked meanwhile: it is for
    /// this process to see to that, with [`replace_if_revoked`] in another one.
    Unchecked,
    /// It was minted in this run, or by another process while this one waited.
    Minted,
    /// It was in the cache and due for renewal, but no new one could be had.
    Stale,
}

/// Gets the credential that the plan describes.
///
/// A hit in the cache starts no runtime and touches no network. On a miss one
/// process of this user does the work, and the others get what it got.
pub fn credential(
    host: &Host,
    cache: &Cache,
    plan: &Plan,
    terms: Terms,
) -> Result<(Credential, Origin)> {
    let run = Run::new(host, cache, plan, terms);
    let source = run.source()?;
    let caller = run.caller(&*source)?;
    if let Some(caller) = &caller
        && !terms.refresh
        && let key = run.key(caller)?
        && let Some(credential) = run.look(&key)?
    {
        tracing::debug!(profile = plan.profile, "the cached credential serves");
        let origin = run.origin_of_hit(&key, &credential);
        return Ok((credential, origin));
    }
    process::runtime()?.block_on(run.cold(&*source, caller))
}

/// Gets a credential to follow one that is about to end: the one that another
/// process has got meanwhile, or a new one. What cannot be had is an error here, however
/// much of the old one is left.
pub fn next_credential(
    host: &Host,
    cache: &Cache,
    plan: &Plan,
    old: &Credential,
    terms: Terms,
) -> Result<Credential> {
    let replaced = OnceCell::from(Some(old.material.secret().clone()));
    let run = Run { replaced, ..Run::new(host, cache, plan, terms) };
    let source = run.source()?;
    let caller = run.caller(&*source)?;
    if let Some(caller) = &caller
        && let Some(credential) = run.look(&run.key(caller)?)?
    {
        return Ok(credential);
    }
    process::runtime()?.block_on(async {
        let caller = match caller {
            Some(caller) => caller,
            None => run.establish(&*source).await?,
        };
        let key = run.key(&caller)?;
        run.lead(&*source, &caller, &key).await.map(|(credential, _)| credential)
    })
}

/// Gets a credential that nobody else has or will get: it is neither taken from the
/// cache nor kept there, so that it can be revoked. The session is shared as ever.
///
/// `begins` is called before anything is asked for that would last. Where it fails, nothing is.
/// Whoever was not known had to log in before; whose session has ended meanwhile does so after it.
pub fn own_credential(
    host: &Host,
    cache: &Cache,
    plan: &Plan,
    terms: Terms,
    begins: &dyn Fn() -> Result<()>,
) -> Result<OwnCredential> {
    let terms = Terms { revokes_steps: true, ..terms };
    let run = Run::new(host, cache, plan, terms);
    let source = run.source()?;
    let caller = run.caller(&*source)?;
    process::runtime()?.block_on(async {
        if caller.is_none() {
            run.establish(&*source).await?;
        }
        begins()?;
        run.own(run.mint(&*source, Effort::MINT).await?).await
    })
}

/// The same from an assertion that is at hand, in place of one by the plan's identity.
pub fn own_credential_from(
    host: &Host,
    cache: &Cache,
    plan: &Plan,
    assertion: Assertion,
    terms: Terms,
) -> Result<OwnCredential> {
    let terms = Terms { revokes_steps: true, ..terms };
    if terms.refresh {
        plan.insist(host, Wish::Overridden);
    }
    let run = Run::new(host, cache, plan, terms);
    process::runtime()?.block_on(async { run.own(run.turn(assertion, Effort::MINT).await?).await })
}

struct Run<'a> {
    host: &'a Host,
    cache: &'a Cache,
    plan: &'a Plan,
    terms: Terms,
    /// With `--refresh`: what was cached when the run started. What another
    /// process mints meanwhile will do.
    replaced: OnceCell<Option<Secret<String>>>,
    /// The key of this device, where the plan wants it.
    device: OnceCell<Arc<DeviceKey>>,
}

impl<'a> Run<'a> {
    fn new(host: &'a Host, cache: &'a Cache, plan: &'a Plan, terms: Terms) -> Self {
        Self { host, cache, plan, terms, replaced: OnceCell::new(), device: OnceCell::new() }
    }

    /// What proves who is calling, where it can be used here.
    fn source(&self) -> Result<Box<dyn IdentitySource>> {
        let identity = &self.plan.identity;
        let source = identity.settings.open(&identity.name);
        let unusable = |why| {
            let message = format!("the identity '{}' cannot be used here", identity.name);
            Error::new(ErrorKind::Config, message).because_of(why)
        };
        match source.readiness(self.host) {
            Readiness::Ready(_) => Ok(source),
            Readiness::Absent(why) => Err(unusable(why)
                .hint("set what is missing, or use another identity; `tmpcred explain` shows which can be used here")),
            Readiness::Misconfigured { why, hint } => Err(unusable(why).hint(hint)),
        }
    }

    /// Whom a cached credential is for. Where the index is lost, the session may not be.
    fn caller(&self, source: &dyn IdentitySource) -> Result<Option<Caller>> {
        let cx = self.context();
        match (source.caller(cx)?, source.session()) {
            (None, Some(session)) => session.whose(cx),
            (caller, _) => Ok(caller),
        }
    }

    fn context(&self) -> Context<'a> {
        Context::new(self.host, self.cache).with_effort(Effort::MINT)
    }

    fn key(&self, caller: &Caller) -> Result<CredentialKey> {
        let key = CredentialKey::of(&self.plan.fingerprint(), caller);
        Ok(match self.device()? {
            Some(device) => key.bound_to(device.thumbprint()),
            None => key,
        })
    }

    /// The key of this device, where anything on the way is bound to it.
    fn device(&self) -> Result<Option<Arc<DeviceKey>>> {
        if !self.plan.wants_key() {
            return Ok(None);
        }
        if self.device.get().is_none() {
            // Nobody else has looked.
            let _ = self.device.set(Arc::new(self.cache.device_key()?));
        }
        Ok(self.device.get().cloned())
    }

    /// A cached credential that is fresh enough, and not the one that this run
    /// is to replace.
    fn look(&self, key: &CredentialKey) -> Result<Option<Credential>> {
        let step = trace::step("cache");
        let found = step.within(|| self.look_up(key));
        if let Ok(found) = &found {
            step.note("tmpcred.cache.hit", found.is_some());
        }
        found
    }

    fn look_up(&self, key: &CredentialKey) -> Result<Option<Credential>> {
        let found = self.read(key)?;
        let replaced = self.replaced.get().and_then(Option::as_ref);
        Ok(found.filter(|credential| {
            let same = replaced.is_some_and(|old| old.ct_eq(credential.material.secret().expose()));
            !same && self.is_fresh(credential)
        }))
    }

    /// A failing cache is no reason to fail, but a locked one is: whoever could
    /// be logged in again would lose the session that the keyring holds.
    fn read(&self, key: &CredentialKey) -> Result<Option<Credential>> {
        match self.cache.credential(key) {
            Err(error) if !matches!(error.kind(), ErrorKind::KeyringLocked | ErrorKind::Config) => {
                self.host.interact.warn(&format!("the cache cannot be read: {error}"));
                Ok(None)
            }
            other => other,
        }
    }

    fn is_fresh(&self, credential: &Credential) -> bool {
        let lifetime = &credential.lifetime;
        let remaining = lifetime.remaining(self.host.clock.now());
        match self.terms.min_ttl {
            Some(wanted) => remaining >= wanted,
            None => remaining > self.due(credential),
        }
    }

    /// Whether a fresh credential will be due for renewal within another refresh window,
    /// and has had half of its time until then.
    fn is_ageing(&self, credential: &Credential) -> bool {
        let (lifetime, due) = (&credential.lifetime, self.due(credential));
        let ahead = credential.refresh_window().min((lifetime.ttl() - due) / 2);
        lifetime.remaining(self.host.clock.now()) <= due + ahead
    }

    /// Whether something is to be done for a cached credential that serves, and by this process.
    fn origin_of_hit(&self, key: &CredentialKey, credential: &Credential) -> Origin {
        if !self.terms.ahead {
            return Origin::Cache;
        }
        if self.is_ageing(credential) {
            // What is renewed need not be looked at.
            return if self.cache.claim_ahead(key) { Origin::Ageing } else { Origin::Cache };
        }
        let lifetime = &credential.lifetime;
        let age = lifetime.ttl() - lifetime.remaining(self.host.clock.now());
        let unchecked = age >= CHECK_AFTER
            && self.plan.target.issuer().is_some()
            && self.cache.claim_check(key)
            && self.plan.target.open().standing(credential).is_some();
        if unchecked { Origin::Unchecked } else { Origin::Cache }
    }

    /// How long before its end a credential is due for renewal, or before whoever uses it
    /// asks again.
    fn due(&self, credential: &Credential) -> Duration {
        let wanted = self.terms.asked_again.map(Duration::try_from);
        let wanted = wanted.and_then(Result::ok).unwrap_or_default();
        credential.refresh_window().max(credential.lifetime.asked_again_window(wanted))
    }

    async fn cold(
        &self,
        source: &dyn IdentitySource,
        caller: Option<Caller>,
    ) -> Result<(Credential, Origin)> {
        let caller = match caller {
            Some(caller) => caller,
            None => self.establish(source).await?,
        };
        let key = self.key(&caller)?;
        if self.terms.refresh {
            let old = self.read(&key)?.map(|credential| credential.material.secret().clone());
            // Nothing has looked yet.
            let _ = self.replaced.set(old);
        }
        match self.lead(source, &caller, &key).await {
            Err(error) => self.ride_out(&key, error),
            ok => ok,
        }
    }

    /// Finds out who is calling, logging in where that is what it takes.
    async fn establish(&self, source: &dyn IdentitySource) -> Result<Caller> {
        let audience = self.plan.assertion_audience();
        let Some(session) = source.session() else {
            return Ok(source.assertion(self.context(), &audience).await?.principal.into());
        };
        let options = LoginOptions { audiences: vec![audience], ..Default::default() };
        let who = session.login(self.context(), &options).await?;
        // There may be more to it than the principal. A login need not have been kept.
        let caller = self.caller(source)?.filter(|caller| caller.is(&who));
        Ok(caller.unwrap_or_else(|| who.into()))
    }

    /// What was minted for this run alone, where it lasts as long as this run asks.
    async fn own(&self, minted: Minted) -> Result<OwnCredential> {
        let own = OwnCredential { credential: minted.credential, steps: minted.steps };
        let Err(short) = self.require_min_ttl(&own.credential) else { return Ok(own) };
        // Nobody gets it, and nobody else would end it.
        if let Err(error) = own::end(self.host, self.plan, &own).await {
            self.host.interact.warn(&format!(
                "a credential that is too short could not be revoked and stays good until it ends: {error}"
            ));
        }
        Err(short)
    }

    /// Mints under the credential's lock, or takes what another process minted.
    async fn lead(
        &self,
        source: &dyn IdentitySource,
        caller: &Caller,
        key: &CredentialKey,
    ) -> Result<(Credential, Origin)> {
        // Nobody waits long for a new one while the old one serves, for whoever is at it neither.
        let spare = self.cache.credential(key).ok().flatten().is_some_and(|c| self.serves(&c));
        let effort = if spare { Effort::RENEW } else { Effort::MINT };
        let (started, limit) = (Instant::now(), effort.to_wait_for_others());
        let lead = match self.cache.lead_credential(key, limit, || self.look(key))? {
            Turn::Done(credential) => return Ok((credential, Origin::Minted)),
            Turn::Lead(lead) => lead,
        };
        let effort = effort.after(started.elapsed());
        let Minted { credential, principal: now, .. } = match self.mint(source, effort).await {
            Ok(minted) => minted,
            Err(error) => {
                match error.kind() {
                    // Whether a run may ask is its own matter: another may.
                    ErrorKind::LoginRequired if !self.host.interact.may_ask() => drop(lead),
                    // Those who have no use for the old one have more done for them.
                    ErrorKind::Unreachable if spare => drop(lead),
                    _ => lead.fail(&error),
                }
                return Err(error);
            }
        };
        self.keep_for(caller, key, now, &credential, lead);
        // Kept all the same: it is good for whoever wants less.
        self.require_min_ttl(&credential)?;
        Ok((credential, Origin::Minted))
    }

    /// Keeps what was minted for `caller` under `key`, as whoever it turned out to be.
    fn keep_for(
        &self,
        caller: &Caller,
        key: &CredentialKey,
        now: Principal,
        credential: &Credential,
        lead: Lead,
    ) {
        if caller.is(&now) {
            return self.keep(key, credential, lead);
        }
        // A login on the way was somebody else's, or the job's token another's: it is
        // another credential.
        lead.succeed();
        let Ok(key) = self.key(&caller.clone().known_as(now)) else { return };
        // Whoever is at that one has one of their own, or had; this one is good in any case.
        if let Some(lead) = self.cache.lead_credential_if_free(&key)
            && self.look(&key).ok().flatten().is_none()
        {
            self.keep(&key, credential, lead);
        }
    }

    /// A cache that fails never throws a good credential away.
    fn keep(&self, key: &CredentialKey, credential: &Credential, lead: Lead) {
        if let Err(error) = self.cache.keep_credential(key, credential, &self.plan.profile, &lead) {
            self.host.interact.warn(&format!("the credential could not be kept: {error}"));
        }
        lead.succeed();
    }

    /// Refuses a new credential that does not last as long as this run asks.
    fn require_min_ttl(&self, credential: &Credential) -> Result<()> {
        let remaining = credential.lifetime.remaining(self.host.clock.now());
        match self.terms.min_ttl {
            Some(wanted) if remaining < wanted => Err(Error::new(
                ErrorKind::Denied,
                format!(
                    "no credential with {} left can be had",
                    humantime::format_duration(wanted)
                ),
            )
            .because_of(format!("a new one is good for {} seconds", remaining.whole_seconds()))
            .hint("ask for less with --min-ttl, or for more with --ttl where policy allows it")),
            _ => Ok(()),
        }
    }

    /// When no new credential can be had, the cached one serves until it ends;
    /// but not where somebody said no.
    fn ride_out(&self, key: &CredentialKey, error: Error) -> Result<(Credential, Origin)> {
        let said_no = matches!(error.kind(), ErrorKind::Denied | ErrorKind::ApprovalPending);
        let excused = !said_no && error.kind() != ErrorKind::KeyringLocked;
        if excused && let Some(credential) = self.read(key)?.filter(|cached| self.serves(cached)) {
            self.host.interact.warn(&format!(
                "no new credential could be had, so the cached one is used while it lasts: {error}"
            ));
            return Ok((credential, Origin::Stale));
        }
        Err(error)
    }

    /// Whether a cached credential will do although it is due for renewal.
    fn serves(&self, cached: &Credential) -> bool {
        let wanted = self.terms.min_ttl.unwrap_or_default();
        let left = cached.lifetime.remaining(self.host.clock.now());
        !self.terms.refresh && left >= wanted
    }
}
