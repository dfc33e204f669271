//! A broker that is operated from here and runs elsewhere: its API, asked as whoever a
//! profile is for.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::App;
use super::args::Wanted;
use super::prepare::{Prepared, configured};
use crate::api::{Client, Failure, StepUp};
use crate::cache::Cache;
use crate::credential::Credential;
use crate::error::{Error, ErrorKind, Result};
use crate::host::interact::Silent;
use crate::host::{Host, process};
use crate::identity::Strength;
use crate::mint::broker::Server;
use crate::oidc::jwt;
use crate::pipeline::{self, Identified};
use crate::plan::Plan;
use crate::reach::{Effort, Wish};
use crate::wire::elevation::Elevation;

/// A broker, and who asks it.
#[derive(Clone)]
pub(crate) struct Elsewhere {
    host: Host,
    cache: Arc<Cache>,
    plan: Plan,
    server: Server,
    effort: Effort,
    /// Who was found to ask, where that is kept.
    known: Option<Arc<Mutex<Option<Identified>>>>,
    /// The profile, where it is not what a command without one goes by.
    named: Option<String>,
}

/// How long a proof has to be good still, for it to be shown once more.
const LEFT: time::Duration = time::Duration::seconds(30);

impl Elsewhere {
    /// The broker of this profile; of the one which a run would use, where none is named.
    pub(crate) fn open(app: &App, profile: Option<&str>) -> Result<Self> {
        let wanted = Wanted { profile: profile.map(String::from), ..Wanted::default() };
        Self::of(configured(app, &wanted)?.at_broker(&app.host)?)
    }

    /// The broker that is the target of what was prepared.
    pub(crate) fn of(prepared: Prepared) -> Result<Self> {
        let Some(server) = prepared.plan.target.broker().cloned() else {
            let message = format!("the profile '{}' is none of a broker", prepared.plan.profile);
            return Err(Error::new(ErrorKind::Config, message));
        };
        let host = prepared.asking()?;
        // Somebody is at it, and what failed before is no reason not to try.
        prepared.plan.insist(&host, Wish::Overridden);
        let Prepared { cache, plan, .. } = prepared;
        let named = plan.named_profile().map(String::from);
        Ok(Self { host, cache, plan, server, effort: Effort::MINT, known: None, named })
    }

    /// What a command has to say besides to be about this broker.
    pub(crate) fn at(&self) -> String {
        self.named.as_ref().map(|profile| format!(" --at {profile}")).unwrap_or_default()
    }

    /// The same for whoever looks again and again: an address that fails is not left alone, and
    /// who asks is proved anew only once that proof is good no more. To prove it may take an
    /// exchange, or a command.
    pub(crate) fn looking(&self) -> Self {
        Self { effort: Effort::LOOK, known: Some(Arc::default()), ..self.clone() }
    }

    /// The same at the end of a run: nobody waits for it for long, nor logs in for it.
    pub(crate) fn ending(&self) -> Self {
        Self { effort: Effort::REVOKE, ..self.quietly() }
    }

    /// The same in the background, where nobody is asked for anything, nor told.
    pub(crate) fn quietly(&self) -> Self {
        let host = Host { interact: Arc::new(Silent), ..self.host.clone() };
        Self { host, ..self.clone() }
    }

    /// Asks it for one thing. Where it wants a login that is fresher or stronger than the one
    /// that there is, that is what the person is asked for, once. Where it does not accept what
    /// it is shown, because that has expired meanwhile, it is shown another one, once.
    pub(crate) fn ask<T>(&self, ask: impl AsyncFn(&Client<'_>) -> Result<T, Failure>) -> Result<T> {
        let identified = match self.kept() {
            Some(known) => known,
            None => self.found()?,
        };
        let shown = identified.assertion.token.clone();
        let answer = match self.ask_as(identified, &ask) {
            Err(Failure::Unaccepted(error)) => match self.found() {
                Ok(anew) if !anew.assertion.token.ct_eq(shown.expose()) => self.ask_as(anew, &ask),
                Ok(_) => return Err(error),
                Err(other) => return Err(other.because_of(error.to_string())),
            },
            answer => answer,
        };
        match answer {
            Err(Failure::StepUp(StepUp { mut strength, error: wanted })) => {
                if strength.is_any() {
                    strength.max_age = Some(Duration::ZERO);
                }
                let identified =
                    self.identified(&strength).map_err(|error| match error.kind() {
                        ErrorKind::LoginRequired => error.because_of(wanted.to_string()),
                        _ => error,
                    })?;
                Ok(self.ask_as(identified, &ask)?)
            }
            answer => Ok(answer?),
        }
    }

    /// Forgets what is cached in a role that came of a grant which has ended: of this one, or,
    /// where this one is had, of an earlier one. It would be handed out until it expires.
    pub(crate) fn forget_ended(&self, elevation: &Elevation) {
        let is_had = elevation.is_had();
        let is_over = |credential: &Credential| {
            let Some(token) = credential.material.token() else { return false };
            // An opaque one does not say under which it was issued.
            let Ok(read) = jwt::decode_unverified(token.expose()) else { return true };
            let grant = read.claims.get("elevation").and_then(|grant| grant.get("id"));
            grant.is_some_and(|grant| (grant == elevation.id.as_str()) != is_had)
        };
        if elevation.drill || !(is_had || elevation.ended.is_some()) {
            return;
        }
        if let Err(error) = self.cache.forget_in_role(&elevation.role, is_over) {
            self.host.interact.warn(&format!(
                "what is cached of an earlier grant cannot be removed (--refresh passes it over): {error}"
            ));
        }
    }

    /// The key of this device, by its thumbprint, where credentials of the profile are bound
    /// to it.
    pub(crate) fn thumbprint(&self) -> Result<Option<String>> {
        if !self.plan.wants_key() {
            return Ok(None);
        }
        Ok(Some(self.cache.device_key()?.thumbprint().to_string()))
    }

    /// Who was found to ask before, as long as that is good.
    fn kept(&self) -> Option<Identified> {
        let known = self.known.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        let soon = self.host.corrected_now().saturating_add(LEFT);
        known.clone().filter(|known| known.assertion.expires_at > soon)
    }

    /// Who asks, found anew.
    fn found(&self) -> Result<Identified> {
        let found = self.identified(&Strength::default())?;
        if let Some(known) = &self.known {
            *known.lock().unwrap_or_else(PoisonError::into_inner) = Some(found.clone());
        }
        Ok(found)
    }

    fn identified(&self, strength: &Strength) -> Result<Identified> {
        pipeline::assertion(&self.host, &self.cache, &self.plan, strength)
    }

    fn ask_as<T>(
        &self,
        who: Identified,
        ask: &impl AsyncFn(&Client<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let client = Client::new(&self.host, &self.server, who.assertion);
        let client = client.with_key(who.key).with_effort(self.effort);
        process::runtime()?.block_on(ask(&client))
    }
}
