//! Asking once all whom a broker asks for keys, or to review tokens: whether they answer is told to
//! those who want to know beforehand.

use std::time::Duration;

use futures_util::future::join_all;

use super::Authenticator;
use crate::error::{Error, ErrorKind, Result};
use crate::oidc::{Issuer, RemoteKeys};

/// How long is waited for each of them, together.
const PATIENCE: Duration = Duration::from_secs(20);

/// Somebody who was asked.
#[derive(Debug)]
pub struct Asked {
    /// Their table in the configuration.
    pub table: String,
    /// What they answered.
    pub answer: Result<String>,
}

impl Authenticator {
    /// Asks all of them at once: issuers and clients for their keys, and API servers to review a
    /// token that is none. Whose keys are in a file is not asked, nor is the broker itself, whose
    /// issuer this is.
    pub(in crate::broker) async fn ask(&self, own: &Issuer) -> Vec<Asked> {
        let issuers = self.trusted.values().map(|(trusted, _)| trusted);
        let issuers = issuers.filter(|trusted| trusted.issuer() != own).map(|trusted| async {
            let table = format!("trusted_issuer.{}", trusted.name());
            in_time(trusted.ask()).await.map(|answer| Asked { table, answer })
        });
        let clients = self.clients.remote().map(|(name, keys)| async move {
            let answer = in_time(async { Some(fetched(keys).await) }).await?;
            Some(Asked { table: format!("client.{name}"), answer })
        });
        let (issuers, clients) = tokio::join!(join_all(issuers), join_all(clients));
        issuers.into_iter().chain(clients).flatten().collect()
    }
}

async fn in_time(asking: impl Future<Output = Option<Result<String>>>) -> Option<Result<String>> {
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| {
        let said = format!("there was no answer within {} seconds", PATIENCE.as_secs());
        Some(Err(Error::new(ErrorKind::Unreachable, said)))
    })
}

/// Fetches keys, and says what came.
pub(super) async fn fetched(keys: &RemoteKeys) -> Result<String> {
    keys.renew(time::Duration::ZERO).await?;
    came(keys)
}

/// What was fetched there.
///
/// # Errors
/// Where it is of no use.
pub(super) fn came(keys: &RemoteKeys) -> Result<String> {
    match keys.number() {
        0 => Err(Error::new(ErrorKind::Verification, format!("{} has no keys", keys.url()))
            .because_of("there is no public key by which a signature could be verified")),
        number => Ok(format!("keys from {}: {number}", keys.url())),
    }
}
