//! Where messages go.

mod command;
mod email;
mod pagerduty;
mod slack;
mod teams;
mod web;
mod webhook;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use time::OffsetDateTime;

use super::Message;
use crate::broker::config::{self, ChannelKind, NotifyChannel};
use crate::broker::directory::Directory;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::oidc::Issuer;

/// How long a channel may take for a message, where it says nothing else.
const ATTEMPT: Duration = Duration::from_secs(10);

/// How many messages are under way at once on a channel, where it says nothing else.
const AT_ONCE: u32 = 16;

/// Where messages go.
#[async_trait]
pub(super) trait Channel: Send + Sync {
    /// To whom a message goes: somebody by their name in the directory, or an address; `""` where
    /// the channel is one place.
    fn addressees(&self, message: &Message) -> Vec<String> {
        if message.is_for_teams() { vec![String::new()] } else { Vec::new() }
    }

    /// How long it may take.
    fn limit(&self) -> Duration {
        ATTEMPT
    }

    /// How many messages may be under way there at once.
    fn at_once(&self) -> u32 {
        AT_ONCE
    }

    /// Whether it is told that something is over which it was told of, whatever kind of message
    /// says so.
    fn follows(&self) -> bool {
        false
    }

    /// Brings a message there, and returns when it is there for certain. Whoever calls it may
    /// lose patience, and call it again with the same.
    async fn deliver(&self, parcel: &Parcel<'_>) -> Result<(), Refused>;
}

/// A message on its way.
pub(super) struct Parcel<'a> {
    /// What it says.
    pub(super) message: &'a Message,
    /// To whom it goes; see [`Channel::addressees`].
    pub(super) addressee: &'a str,
    /// Who the people are, where the broker knows any.
    pub(super) people: Option<&'a Directory>,
    /// What time it is.
    pub(super) now: OffsetDateTime,
}

impl Parcel<'_> {
    /// How to reach somebody, by the kind of contact that the directory has of them.
    pub(super) fn contact(&self, name: &str, kind: &str) -> Option<&str> {
        self.people?.named(name)?.contacts.get(kind).map(String::as_str)
    }

    /// The people whom the message is for and who have such a contact, with it.
    pub(super) fn reachable(&self, kind: &str) -> impl Iterator<Item = (&str, &str)> {
        let names = self.message.names().iter();
        names.filter_map(move |name| Some((name.as_str(), self.contact(name, kind)?)))
    }
}

/// Why a message was not taken.
pub(super) struct Refused {
    pub(super) error: Error,
    /// When the receiver wants to be asked again at the earliest.
    pub(super) retry_after: Option<Duration>,
    /// Whether it is this message, or its addressee, that the receiver does not take; others may
    /// go well.
    pub(super) is_about_message: bool,
}

impl Refused {
    /// It is this message that is not taken.
    pub(super) fn message(error: Error) -> Self {
        Self { error, retry_after: None, is_about_message: true }
    }
}

/// The receiver is out of order.
impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self { error, retry_after: None, is_about_message: false }
    }
}

/// A channel, and what is said of it.
pub(super) struct Named {
    config: NotifyChannel,
    pub(super) channel: Box<dyn Channel>,
}

impl Named {
    /// Whether it gets this message at all.
    fn wants(&self, message: &Message) -> bool {
        let wants = |kind: &str| self.config.wants(kind, message.of_role());
        let is_over = || self.channel.follows() && message.ended().iter().any(|kind| wants(kind));
        wants(message.kind()) || is_over()
    }

    /// To whom a message goes here.
    pub(super) fn addressees(&self, message: &Message) -> Vec<String> {
        if self.wants(message) { self.channel.addressees(message) } else { Vec::new() }
    }

    /// How long is tried to deliver something.
    pub(super) fn give_up_after(&self) -> Duration {
        self.config.give_up_after
    }
}

/// All channels.
#[derive(Default)]
pub struct Channels(BTreeMap<String, Arc<Named>>);

impl Channels {
    /// The channels that the configuration names.
    ///
    /// # Errors
    /// Where one of them can never work, as without its secret. One that is out of order at the
    /// moment is no error.
    pub fn new(config: &config::Notify, issuer: &Issuer, host: &Host) -> Result<Self> {
        let open = |(name, config): (&String, &NotifyChannel)| {
            let channel = open(config, issuer, host);
            let channel = channel.map_err(|error| error.context(format!("[notify.{name}]")))?;
            Ok((name.clone(), Arc::new(Named { config: config.clone(), channel })))
        };
        config.iter().map(open).collect::<Result<_>>().map(Self)
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<Named>> {
        self.0.get(name).cloned()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Arc<Named>)> {
        self.0.iter()
    }

    /// Their names.
    pub fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// Channels for tests, by their names.
    #[cfg(test)]
    pub(super) fn of(channels: Vec<(&str, NotifyChannel, Box<dyn Channel>)>) -> Self {
        let named = |(name, config, channel): (&str, _, _)| {
            (name.to_string(), Arc::new(Named { config, channel }))
        };
        Self(channels.into_iter().map(named).collect())
    }
}

fn open(config: &NotifyChannel, issuer: &Issuer, host: &Host) -> Result<Box<dyn Channel>> {
    let origin = crate::broker::audit::origin(issuer);
    Ok(match config.kind {
        ChannelKind::Slack => Box::new(slack::Slack::new(config, origin, host)?),
        ChannelKind::Teams => Box::new(teams::Teams::new(config, origin, host)?),
        ChannelKind::Pagerduty => Box::new(pagerduty::PagerDuty::new(config, origin, host)?),
        ChannelKind::Webhook => Box::new(webhook::Webhook::new(config, origin, host)?),
        ChannelKind::Email => Box::new(email::Email::new(config, origin, host)?),
        ChannelKind::Command => Box::new(command::Command::new(config, origin, host)?),
    })
}
