//! A program that gets the message as JSON on its standard input.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;

use super::{Channel, Parcel, Refused};
use crate::broker::config::NotifyChannel;
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::env::Env;
use crate::host::process::printed::{Limit, told};
use crate::secret::Secret;

/// How much longer than the program may take is waited for it: its end is told then.
const GRACE: Duration = Duration::from_secs(5);

/// A program.
pub(super) struct Command {
    words: Vec<String>,
    limit: Limit,
    env: Env,
    origin: String,
}

impl Command {
    pub(super) fn new(config: &NotifyChannel, origin: String, host: &Host) -> Result<Self> {
        let words = config.command.clone();
        let words =
            words.ok_or_else(|| Error::new(ErrorKind::Config, "it has no program to start"))?;
        let limit = config.timeout.unwrap_or_default();
        Ok(Self { words, limit, env: host.env.clone(), origin })
    }
}

#[async_trait]
impl Channel for Command {
    fn limit(&self) -> Duration {
        self.limit.0 + GRACE
    }

    async fn deliver(&self, parcel: &Parcel<'_>) -> Result<(), Refused> {
        let message = parcel.message;
        let contacts: BTreeMap<_, _> = message
            .names()
            .iter()
            .filter_map(|name| Some((name, &parcel.people?.named(name)?.contacts)))
            .collect();
        let input = json!({ "broker": self.origin, "message": message, "contacts": contacts });
        let input = Secret::new(format!("{input}\n").into_bytes());
        let outcome = told(&self.env, &self.words, &input, self.limit).await;
        outcome.map_err(|error| match error.kind() {
            // It would take as long for others.
            ErrorKind::Unreachable => error.into(),
            _ => Refused::message(error),
        })
    }
}
