//! A broker that is operated from here and runs elsewhere: its API, asked as whoever a
//! profile is for.

use std::time::Duration;

use super::App;
use super::args::Wanted;
use super::prepare::{Prepared, configured};
use crate::api::{Client, Failure, StepUp};
use crate::error::{Error, ErrorKind, Result};
use crate::host::{Host, process};
use crate::identity::Strength;
use crate::mint::broker::Server;
use crate::pipeline::{self, Identified};
use crate::reach::Wish;

/// A broker, and who asks it.
pub(crate) struct Elsewhere {
    prepared: Prepared,
    host: Host,
    server: Server,
}

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
        Ok(Self { prepared, host, server })
    }

    /// Asks it for one thing. Where it wants a login that is fresher or stronger than the one
    /// that there is, that is what the person is asked for, once.
    pub(crate) fn ask<T>(&self, ask: impl AsyncFn(&Client<'_>) -> Result<T, Failure>) -> Result<T> {
        match self.ask_as(self.identified(&Strength::default())?, &ask) {
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

    /// The key of this device, by its thumbprint, where credentials of the profile are bound
    /// to it.
    pub(crate) fn thumbprint(&self) -> Result<Option<String>> {
        if !self.prepared.plan.wants_key() {
            return Ok(None);
        }
        Ok(Some(self.prepared.cache.device_key()?.thumbprint().to_string()))
    }

    fn identified(&self, strength: &Strength) -> Result<Identified> {
        pipeline::assertion(&self.host, &self.prepared.cache, &self.prepared.plan, strength)
    }

    fn ask_as<T>(
        &self,
        who: Identified,
        ask: &impl AsyncFn(&Client<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let client = Client::new(&self.host, &self.server, who.assertion).with_key(who.key);
        process::runtime()?.block_on(ask(&client))
    }
}
