//! What is kept of a login between runs.

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::aws::sso::oidc::{Registration, Tokens};
use crate::credential::{Assertion, Lifetime, Principal, TokenType};
use crate::error::Result;
use crate::host::Host;
use crate::secret::{Secret, bare, bare_option};

/// The version of the form in which a session rests. One of another version
/// counts as absent: the person logs in again.
const VERSION: u32 = 1;

/// The least time that the access token must still have, so that it outlives the
/// requests it is for.
const MARGIN: Duration = Duration::seconds(60);

/// A session at IAM Identity Center.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Session {
    v: u32,
    start_url: String,
    /// AWS does not say who logged in. Each login has a name of its own, so that
    /// nobody gets what was cached for somebody else.
    subject: String,
    #[serde(with = "time::serde::timestamp")]
    pub(super) since: OffsetDateTime,
    #[serde(serialize_with = "bare")]
    pub(super) access_token: Secret<String>,
    lifetime: Lifetime,
    #[serde(serialize_with = "bare_option")]
    pub(super) refresh_token: Option<Secret<String>>,
    /// Only the client that a refresh token was given to may use it.
    pub(super) client: Registration,
}

/// A session as it rests: one that can be used, or what is left of one that AWS has
/// ended.
pub(super) enum Stored {
    Session(Session),
    Ended(Ended),
}

/// What is left of a session that AWS has ended: whose it was. What was cached for
/// them is good until it expires.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ended {
    v: u32,
    start_url: String,
    subject: String,
    #[serde(with = "time::serde::timestamp")]
    pub(super) since: OffsetDateTime,
    ended: bool,
}

impl Session {
    /// The session that a login yields.
    pub(super) fn begin(
        host: &Host,
        start_url: &str,
        client: Registration,
        tokens: Tokens,
    ) -> Result<Self> {
        let lifetime = lifetime(host, &tokens)?;
        Ok(Self {
            v: VERSION,
            start_url: start_url.to_string(),
            subject: format!("login-{}", uuid::Uuid::new_v4().simple()),
            since: host.corrected_now(),
            access_token: tokens.access_token,
            lifetime,
            refresh_token: tokens.refresh_token,
            client,
        })
    }

    /// Takes the answer to a renewal over.
    pub(super) fn renew(&mut self, host: &Host, tokens: Tokens) -> Result<()> {
        // First of all: the old one may be used up.
        if let Some(rotated) = tokens.refresh_token.clone() {
            self.refresh_token = Some(rotated);
        }
        self.lifetime = lifetime(host, &tokens)?;
        self.access_token = tokens.access_token;
        Ok(())
    }

    /// Writes the session down.
    pub(super) fn encode(&self) -> Secret<Vec<u8>> {
        // Strings and numbers always have a JSON form.
        Secret::new(serde_json::to_vec(self).unwrap_or_default())
    }

    /// What is left of it once AWS has ended it.
    pub(super) fn end(self) -> Ended {
        let Self { v, start_url, subject, since, .. } = self;
        Ended { v, start_url, subject, since, ended: true }
    }

    /// Who logged in, as far as that can be told.
    pub(super) fn principal(&self) -> Principal {
        Principal { issuer: self.start_url.clone(), subject: self.subject.clone() }
    }

    /// Whether another process made this one of `used`.
    pub(super) fn is_renewal_of(&self, used: &Self) -> bool {
        self.principal() == used.principal() && !self.access_token.ct_eq(used.access_token.expose())
    }

    /// Whether the access token lasts long enough to be used.
    pub(super) fn is_alive(&self, local_now: OffsetDateTime) -> bool {
        let margin = MARGIN.min(self.lifetime.ttl() / 4);
        self.lifetime.remaining(local_now) > margin
    }

    /// Whether it can be renewed: the client must be registered still.
    pub(super) fn is_renewable(&self, now: OffsetDateTime) -> bool {
        self.refresh_token.is_some() && self.client.expires_at() > now
    }

    /// The assertion that it yields.
    pub(super) fn assertion(&self) -> Assertion {
        Assertion {
            token: self.access_token.clone(),
            token_type: TokenType::AccessToken,
            principal: self.principal(),
            expires_at: self.lifetime.expires_at,
            grant_ends: None,
        }
    }
}

impl Stored {
    /// Reads a session back. `None` where it is broken, of another version, or not
    /// of this portal. `by_clock` yields a lifetime by the clock as it
    /// stands now.
    pub(super) fn decode(
        bytes: &Secret<Vec<u8>>,
        start_url: &str,
        by_clock: impl Fn(Lifetime) -> Lifetime,
    ) -> Option<Self> {
        let ours = |v: u32, portal: &str, subject: &str| {
            v == VERSION && portal == start_url && !subject.is_empty()
        };
        if let Ok(mut session) = serde_json::from_slice::<Session>(bytes.expose()) {
            session.lifetime = by_clock(session.lifetime);
            return ours(session.v, &session.start_url, &session.subject)
                .then_some(Self::Session(session));
        }
        let ended: Ended = serde_json::from_slice(bytes.expose()).ok()?;
        (ended.ended && ours(ended.v, &ended.start_url, &ended.subject))
            .then_some(Self::Ended(ended))
    }

    /// Whose it is or was, as far as that can be told.
    pub(super) fn principal(&self) -> Principal {
        match self {
            Self::Session(session) => session.principal(),
            Self::Ended(ended) => {
                Principal { issuer: ended.start_url.clone(), subject: ended.subject.clone() }
            }
        }
    }
}

impl Ended {
    /// Writes it down.
    pub(super) fn encode(&self) -> Secret<Vec<u8>> {
        Secret::new(serde_json::to_vec(self).unwrap_or_default())
    }
}

fn lifetime(host: &Host, tokens: &Tokens) -> Result<Lifetime> {
    let now = host.corrected_now();
    let end = tokens.expires_at(now)?;
    Ok(Lifetime::new(now, end, host.skew.get(), host.clock.machine_started()))
}
