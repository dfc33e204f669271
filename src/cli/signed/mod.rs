//! Asking, approving and having by signatures, while no identity provider can say who somebody
//! is.

mod grant;
mod key;
mod known;

use std::sync::Arc;

use time::{Duration, OffsetDateTime};

use super::App;
use super::args::{SigningKey, Wanted};
use super::misuse;
use super::prepare::{Prepared, configured};
use crate::api::{Client, Failure};
use crate::error::{Error, ErrorKind, Result};
use crate::host::interact::Silent;
use crate::host::{Host, process};
use crate::mint::broker::Server;
use crate::oidc::Issuer;
use crate::reach::{Effort, Wish};
use crate::sshsig::{self, Nonce, Said, Signed, Statement};

pub(crate) use grant::{Ask, SignedGrant, begin, tell};
pub(crate) use key::Signer;
pub(crate) use known::{Kept, Known};

/// How long what is used at once is good.
pub(crate) const SHORT: Duration = Duration::minutes(5);

/// A broker, asked by nobody in particular, and what somebody signs for it.
#[derive(Clone)]
pub(crate) struct Desk {
    host: Host,
    server: Server,
    effort: Effort,
}

impl Desk {
    /// The broker of this profile; of the one which a run would use, where none is named.
    pub(crate) fn open(app: &App, profile: Option<&str>) -> Result<(Self, Prepared)> {
        let wanted = Wanted { profile: profile.map(String::from), ..Wanted::default() };
        let prepared = configured(app, &wanted)?.at_broker(&app.host)?;
        Ok((Self::of(&prepared)?, prepared))
    }

    /// The broker that is the target of what was prepared.
    pub(crate) fn of(prepared: &Prepared) -> Result<Self> {
        let profile = &prepared.plan.profile;
        let Some(server) = prepared.plan.target.broker().cloned() else {
            let message = format!("the profile '{profile}' is none of a broker");
            return Err(Error::new(ErrorKind::Config, message)
                .hint("name a profile whose target is the broker to be asked"));
        };
        let host = prepared.asking()?;
        // Somebody is at it, and what failed before is no reason not to try.
        prepared.plan.insist(&host, Wish::Overridden);
        Ok(Self { host, server, effort: Effort::MINT })
    }

    /// The same for whoever looks again and again: an address that fails is not left alone.
    pub(crate) fn looking(&self) -> Self {
        Self { effort: Effort::LOOK, ..self.clone() }
    }

    /// The same at the end of a run: nobody waits for it for long.
    pub(crate) fn ending(&self) -> Self {
        Self { effort: Effort::REVOKE, ..self.clone() }
    }

    /// The same in the background, where nobody is told anything.
    pub(crate) fn quietly(&self) -> Self {
        let host = Host { interact: Arc::new(Silent), ..self.host.clone() };
        Self { host, ..self.clone() }
    }

    /// Its issuer identifier.
    pub(crate) fn broker(&self) -> &Issuer {
        self.server.issuer()
    }

    /// Asks it for one thing.
    pub(crate) fn ask<T>(&self, ask: impl AsyncFn(&Client<'_>) -> Result<T, Failure>) -> Result<T> {
        let client = Client::of_nobody(&self.host, &self.server).with_effort(self.effort);
        Ok(process::runtime()?.block_on(ask(&client))?)
    }

    /// The rules that are in force; where they cannot be had, those that it said last.
    pub(crate) fn rules(&self) -> Result<String> {
        match self.ask(async |client| client.rules().await) {
            Ok(told) if told.broker == self.broker().as_str() => {
                let rules = told.rules;
                Known::change(&self.host, self.broker(), |known| {
                    known.rules = Some(rules.clone())
                })?;
                Ok(rules)
            }
            Ok(told) => {
                let message = "another broker answers than the configuration names";
                Err(Error::new(ErrorKind::Verification, message)
                    .because_of(format!("it is {}", crate::error::foreign(&told.broker))))
            }
            Err(error) => {
                let known = Known::of(&self.host, self.broker()).rules;
                known.filter(|_| error.kind() == ErrorKind::Unreachable).ok_or_else(|| {
                    error.hint(
                        "where only others reach the broker, they tell: --out FILE --rules HASH",
                    )
                })
            }
        }
    }
}

/// Says something to a broker, and signs it.
pub(crate) fn say(
    host: &Host,
    broker: &Issuer,
    (person, signer): (&str, &Signer),
    said: Said,
    lasting: Duration,
) -> Result<Signed> {
    let made = host.corrected_now().replace_nanosecond(0).map_err(|cause| {
        Error::new(ErrorKind::Other, "the time cannot be written down").because(cause)
    })?;
    let expires: OffsetDateTime = made.saturating_add(lasting);
    let (broker, nonce) = (broker.clone(), Nonce::random()?);
    let statement = Statement { broker, nonce, person: person.into(), said, made, expires };
    Signed::make(statement, |text| signer.sign(host, text))
}

/// Who somebody is in a broker's directory.
pub(crate) fn person(named: Option<&str>, known: &Known) -> Result<String> {
    named.map(String::from).or_else(|| known.person.clone()).ok_or_else(|| {
        misuse("it is not known who you are in the broker's directory")
            .because_of("you have not enrolled a key from here")
            .hint("name yourself: --person NAME")
    })
}

/// Refuses options about a key where nothing is signed.
pub(crate) fn check(provider_down: bool, key: &SigningKey) -> Result<()> {
    let SigningKey { key, agent, keyring } = key;
    match !provider_down && (key.is_some() || *agent || *keyring) {
        true => Err(misuse("a key is of use with --provider-down alone")),
        false => Ok(()),
    }
}

/// Reads statements, whoever signed them.
pub(crate) fn read(text: &str) -> Result<Vec<Signed>> {
    sshsig::read(text, sshsig::Demands::default())
}
