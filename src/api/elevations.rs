//! Elevations, as a broker is asked for them and about them.

use serde::Serialize;
use uuid::Uuid;

use super::{Client, Failure};
use crate::wire::elevation::{ELEVATIONS_PATH, Elevation, Page};
use crate::wire::uses::Uses;

/// A request for a role.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Wanted<'a> {
    /// The role.
    pub role: &'a str,
    /// Whom its tokens are for.
    pub audience: Option<&'a str>,
    /// What they cover, separated by spaces.
    pub scope: Option<String>,
    /// For how long, in seconds.
    pub ttl: Option<u64>,
    /// Why.
    pub reason: &'a str,
    /// The ticket.
    pub ticket: Option<&'a str>,
    /// When it is to start (RFC 3339).
    pub start: Option<String>,
    /// At once, without approval.
    pub emergency: Option<bool>,
    /// Only to practise it.
    pub drill: Option<bool>,
    /// The thumbprint of the key that its tokens are to be bound to.
    pub dpop_jkt: Option<&'a str>,
    /// The same where the same is asked for again.
    pub idempotency_key: &'a str,
}

/// Which elevations are listed.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Listed<'a> {
    /// `mine`, `to-approve`, `active` or `to-review`.
    pub which: &'a str,
    /// How many at most.
    pub limit: u32,
}

/// What is done about one.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Event<'a> {
    /// The hash of what is approved.
    pub hash: Option<&'a str>,
    /// Why.
    pub reason: Option<&'a str>,
    /// What a review found: `reviewed` or `disputed`.
    pub outcome: Option<&'a str>,
    /// What is to be known of it.
    pub note: Option<&'a str>,
}

impl Client<'_> {
    /// Asks for a role. By its `idempotency_key` a request is the same one, so it is asked for
    /// again where nobody answers.
    ///
    /// # Errors
    /// As with [`Client::get`].
    pub async fn elevate(&self, wanted: &Wanted<'_>) -> Result<Elevation, Failure> {
        self.post_again(ELEVATIONS_PATH, wanted).await
    }

    /// An elevation, as it is now.
    ///
    /// # Errors
    /// As with [`Client::get`].
    pub async fn elevation(&self, id: Uuid) -> Result<Elevation, Failure> {
        self.get(&format!("{ELEVATIONS_PATH}/{id}"), &()).await
    }

    /// What was done under a grant.
    ///
    /// # Errors
    /// As with [`Client::get`].
    pub async fn uses(&self, id: Uuid) -> Result<Uses, Failure> {
        self.get(&format!("{ELEVATIONS_PATH}/{id}/uses"), &()).await
    }

    /// Those of one kind, the newest first.
    ///
    /// # Errors
    /// As with [`Client::get`].
    pub async fn elevations(&self, listed: &Listed<'_>) -> Result<Page, Failure> {
        self.get(ELEVATIONS_PATH, listed).await
    }

    /// Does something about one: `approve`, `deny`, `withdraw`, `activate`, `relinquish`,
    /// `revoke` or `review`.
    ///
    /// # Errors
    /// As with [`Client::post`].
    pub async fn settle(
        &self,
        id: Uuid,
        what: &str,
        event: &Event<'_>,
    ) -> Result<Elevation, Failure> {
        let path = format!("{ELEVATIONS_PATH}/{id}/{what}");
        match what {
            // The second time it is so already.
            "approve" | "activate" => self.post_again(&path, event).await,
            _ => self.post(&path, event).await,
        }
    }
}
