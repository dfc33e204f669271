//! What a broker goes by at one moment: its policies, with the roles, clients, issuers, limits
//! and routes that they are in force with.
//!
//! A request takes the rulebook once, when it begins, and goes by it to its end. So nothing
//! is decided by the policies of one version about the roles of another.

use std::collections::BTreeMap;
use std::ops::Deref;

use super::authenticate::Authenticator;
use super::config::{self, Authz, Config, Role};
use super::decide::Rules;
use super::directory::Directory;
use super::elevation::Reach;
use super::notify::{Channels, View};
use super::policy::{Policy, Source, World};
use super::rate::Rates;
use super::web::Pages;
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;

/// All that is in force together. It is as good as its policies where these are asked for.
pub struct Rulebook {
    config: Config,
    policy: Policy,
    authenticator: Authenticator,
    rates: Rates,
    channels: Channels,
    pages: Option<Pages>,
}

impl Rulebook {
    /// Reads and checks what the configuration names; nothing is fetched. What is the same as
    /// `before` goes on: keys of issuers that were fetched, and how much of a rate is used up.
    ///
    /// # Errors
    /// Whatever is wrong with any of it.
    pub(super) fn new(
        config: Config,
        policies: &[Source],
        host: &Host,
        before: Option<&Self>,
    ) -> Result<Self> {
        let (trusted, clients) = (&config.trusted_issuer, &config.client);
        let authenticator = match before {
            None => Authenticator::new(trusted, clients, &config.issuer, host)?,
            Some(before) => before.authenticator.anew(trusted, clients, &config.issuer, host)?,
        };
        let directory = config.directory(host.clock.now())?;
        config.check_people(directory.as_deref())?;
        let policy = Policy::load(policies, World::of(&config, directory.as_ref()))?;
        let reach = Reach::of(Rules { policy: &policy, roles: &config.role }, host.clock.now());
        if let Some(never) = reach.never.first() {
            return Err(Error::new(ErrorKind::Config, never.clone())
                .hint("`tmpcred broker policy check` says what else there is"));
        }
        for (name, role) in &config.role {
            if role.elevation.is_some() && role.aws.as_ref().is_some_and(|aws| !aws.names_grants())
            {
                tracing::warn!(
                    role = name,
                    "what AWS is told does not say under which grant the role is had"
                );
            }
        }
        let rates = match before {
            None => Rates::new(&config.limits),
            Some(before) => before.rates.anew(&config.limits),
        };
        let channels = Channels::new(&config.notify, &config.issuer, host)?;
        let pages = Pages::new(&config, host)?;
        Ok(Self { config, policy, authenticator, rates, channels, pages })
    }

    /// The configuration that it is by.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// The roles, by name.
    pub(super) fn roles(&self) -> &BTreeMap<String, Role> {
        &self.config.role
    }

    /// The clients that the broker knows.
    pub(super) fn clients(&self) -> &config::Clients {
        &self.config.client
    }

    /// What is decided for proxies, where anything is.
    pub(super) fn authz(&self) -> Option<&Authz> {
        self.config.authz.as_ref()
    }

    /// Where people sign in to the pages, where there are any.
    pub(super) fn pages(&self) -> Option<&Pages> {
        self.pages.as_ref()
    }

    /// Who is calling, by a token of a trusted issuer.
    pub(super) fn authenticator(&self) -> &Authenticator {
        &self.authenticator
    }

    /// How often somebody may ask.
    pub(super) fn rates(&self) -> &Rates {
        &self.rates
    }
}

impl View for Rulebook {
    fn channels(&self) -> &Channels {
        &self.channels
    }

    fn people(&self) -> Option<&Directory> {
        self.directory().map(AsRef::as_ref)
    }
}

impl Deref for Rulebook {
    type Target = Policy;

    fn deref(&self) -> &Policy {
        &self.policy
    }
}
