//! What a broker goes by at one moment: its policies, with the roles, clients, issuers, limits
//! and routes that they are in force with.
//!
//! A request takes the rulebook once, when it begins, and goes by it to its end. So nothing
//! is decided by the policies of one version about the roles of another.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use time::OffsetDateTime;

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
    sources: Vec<Source>,
    policy: Policy,
    authenticator: Arc<Authenticator>,
    rates: Arc<Rates>,
    channels: Arc<Channels>,
    pages: Option<Arc<Pages>>,
}

impl Rulebook {
    /// Reads and checks what the configuration names; nothing is fetched. What is the same as
    /// `before` goes on: keys of issuers that were fetched, and how much of a rate is used up.
    /// Rules that nobody can meet are refused, unless they are those of `before` and people
    /// have left.
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
        let known = before.and_then(|before| before.directory());
        let directory = config.directory(host.clock.now())?;
        let directory = directory.map(|people| match known {
            Some(known) => Arc::new(people.following(known)),
            None => people,
        });
        let policy = Policy::load(policies, World::of(&config, directory.as_ref()))?;
        if let Err(error) = can_be_had(&config, &policy, host.clock.now()) {
            // Whoever has left is gone, whatever that leaves. What is new has to be possible.
            let same = |before: &Self| before.policy.rules_hash() == policy.rules_hash();
            let have_left = known.is_some() && directory.is_some() && before.is_some_and(same);
            if !have_left {
                return Err(error);
            }
            tracing::error!(%error, "the directory of people leaves too few to approve");
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
        Ok(Self {
            config,
            sources: policies.to_vec(),
            policy,
            authenticator: Arc::new(authenticator),
            rates: Arc::new(rates),
            channels: Arc::new(channels),
            pages: pages.map(Arc::new),
        })
    }

    /// The same without those who are not in the directory any more, as it is read now, and as
    /// far as it can be where something is wrong with it; `None` where nobody has left it.
    pub(super) fn without_who_left(&self, host: &Host) -> Result<Option<Self>> {
        let (config, now) = (&self.config, host.clock.now());
        let Some(known) = self.directory() else { return Ok(None) };
        let read = config.directory(now).or_else(|error| {
            let rough = config.directory_roughly(known).ok_or(error)?;
            // That it cannot be used is told by whoever refuses it.
            tracing::debug!("what can be read of the directory of people says who has left");
            Ok::<_, Error>(Some(Arc::new(rough)))
        })?;
        let left = read.and_then(|newer| known.less(&newer));
        let Some(directory) = left.map(Arc::new) else { return Ok(None) };
        let policy = Policy::load(&self.sources, World::of(config, Some(&directory)))?;
        Ok(Some(Self {
            config: config.clone(),
            sources: self.sources.clone(),
            policy,
            authenticator: self.authenticator.clone(),
            rates: self.rates.clone(),
            channels: self.channels.clone(),
            pages: self.pages.clone(),
        }))
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
        self.pages.as_deref()
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

/// Whether there are people enough for all that has to be approved.
fn can_be_had(config: &Config, policy: &Policy, now: OffsetDateTime) -> Result<()> {
    config.check_people(policy.directory().map(AsRef::as_ref))?;
    let reach = Reach::of(Rules { policy, roles: &config.role }, now);
    match reach.never.into_iter().next() {
        None => Ok(()),
        Some(never) => Err(Error::new(ErrorKind::Config, never)
            .hint("`tmpcred broker policy check` says what else there is")),
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
