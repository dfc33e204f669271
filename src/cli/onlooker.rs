//! Looks whether the grant of a command that runs still stands: somebody may revoke it.
//!
//! It is one request every few seconds, by the session that there is, in a thread of its own.
//! Nobody is asked for anything meanwhile, and looking in vain is no news: the grant ends by the
//! clock in any case.

use std::time::Duration;

use uuid::Uuid;

use super::commands::elevate::request;
use super::elsewhere::Elsewhere;
use super::signed::{Desk, SignedGrant};
use crate::deliver::deadline::Recall;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::elevation::Elevation;

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(4);

/// How much later at most, by chance: many commands may have been started by the same clock.
const JITTER_MS: u16 = 2000;

/// Whom it asks, and about what.
pub(crate) enum Onlooker {
    /// By a session.
    Session(Box<Elsewhere>, Uuid),
    /// By the request that was signed.
    Signed(Box<Desk>, String),
}

impl Onlooker {
    /// Looks at this one.
    pub(crate) fn at(broker: &Elsewhere, id: Uuid) -> Self {
        Self::Session(Box::new(broker.quietly().looking()), id)
    }

    /// Looks at one that was asked for by a signature.
    pub(crate) fn of(grant: &SignedGrant) -> Result<Self> {
        Ok(Self::Signed(Box::new(grant.desk().quietly().looking()), grant.text()?))
    }

    /// Begins to look, until it has ended or the command has.
    pub(crate) fn begin(self, recall: Recall) -> Result<()> {
        let thread = std::thread::Builder::new().name("onlooker".into());
        thread.spawn(move || self.run(&recall)).map(drop).map_err(|cause| {
            Error::new(ErrorKind::Io, "the grant cannot be watched").because(cause)
        })
    }

    fn run(&self, recall: &Recall) {
        while recall.rest(pause()) {
            match recall.busy(|| self.look()) {
                Ok(latest) => {
                    if let Some(why) = request::ended_by(&latest) {
                        recall.come(why);
                        return;
                    }
                }
                Err(error) => tracing::debug!(%error, "it cannot be told whether the grant stands"),
            }
        }
    }

    fn look(&self) -> Result<Elevation> {
        match self {
            Self::Session(broker, id) => broker.ask(async |client| client.elevation(*id).await),
            Self::Signed(desk, text) => desk.ask(async |client| client.bring(text).await),
        }
    }
}

fn pause() -> Duration {
    let mut random = [0; 2];
    // Without randomness there is none.
    let drawn = aws_lc_rs::rand::fill(&mut random).map_or(0, |()| u16::from_ne_bytes(random));
    EVERY + Duration::from_millis((drawn % JITTER_MS).into())
}
