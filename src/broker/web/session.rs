//! That somebody is signed in: what their browser carries, and what it is worth now.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::{Duration, OffsetDateTime};

use crate::broker::Broker;
use crate::broker::audit::micros;
use crate::broker::authenticate::{Caller, unacceptable};
use crate::broker::config::Web;
use crate::broker::rulebook::Rulebook;
use crate::credential::Principal;
use crate::error::{Error, Result};
use crate::oidc::Claims;

/// That somebody is signed in, with what the provider said of them.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::broker) struct Session {
    /// What a form has to say so that it is one of this session.
    csrf: String,
    /// The client that they signed in by.
    client: String,
    /// When, in microseconds.
    at: i64,
    /// Until when it lasts, in seconds.
    until: i64,
    /// All that the ID token said.
    claims: Map<String, Value>,
}

/// Why a session is worth nothing any more.
#[derive(Debug)]
pub(in crate::broker) enum Ended {
    /// Its time is over, or people sign in elsewhere now.
    Over,
    /// Somebody ended it, together with tokens.
    CutOff,
    /// Who it is of is not in the directory of people.
    Stranger,
    /// What the provider said of them is not enough any more.
    Unacceptable(Error),
    /// It cannot be told at present.
    Unavailable(Error),
}

impl Session {
    /// A new one, of whom a verified ID token tells.
    pub(in crate::broker) fn new(
        claims: Claims,
        web: &Web,
        ends_with_token: bool,
        now: OffsetDateTime,
    ) -> Self {
        let lasts = Duration::try_from(web.session).unwrap_or(Duration::ZERO);
        let until = now.saturating_add(lasts);
        let until = if ends_with_token { until.min(claims.expires_at) } else { until };
        Self {
            csrf: super::provider::random(),
            client: web.client_id.clone(),
            at: micros(now),
            until: until.unix_timestamp(),
            claims: claims.all,
        }
    }

    /// The same in place of another one, whose forms stay good where it is of the same person: they
    /// may be open in other tabs.
    pub(in crate::broker) fn in_place_of(self, other: Option<Self>) -> Self {
        let whose = |one: &Self| {
            let claim = |name: &str| one.claims.get(name).cloned();
            (claim("iss"), claim("sub"))
        };
        match other.filter(|other| whose(other) == whose(&self)) {
            Some(other) => Self { csrf: other.csrf, ..self },
            None => self,
        }
    }

    /// What a form has to say so that it is one of this session.
    pub(in crate::broker) fn csrf(&self) -> &str {
        &self.csrf
    }

    /// How long it lasts, in seconds.
    pub(in crate::broker) fn lasts(&self, now: OffsetDateTime) -> i64 {
        self.until - now.unix_timestamp()
    }

    fn claims(&self) -> Option<Claims> {
        let text = |name: &str| self.claims.get(name)?.as_str().map(String::from);
        Some(Claims {
            principal: Principal { issuer: text("iss")?, subject: text("sub")? },
            audience: vec![self.client.clone()],
            issued_at: None,
            expires_at: OffsetDateTime::from_unix_timestamp(self.until).ok()?,
            all: self.claims.clone(),
        })
    }
}

impl Broker {
    /// Whose session it is, by what is so at this moment: the provider, the directory and
    /// what was cut off.
    pub(in crate::broker) async fn caller_of(
        &self,
        book: &Rulebook,
        session: &Session,
    ) -> Result<Caller, Ended> {
        let (Some(web), Some(claims)) = (&book.config().web, session.claims()) else {
            return Err(Ended::Over);
        };
        let issuer = book.config().trusted_issuer.get(&web.issuer);
        let same = issuer.is_some_and(|one| one.issuer.as_str() == claims.principal.issuer);
        let is_over = session.lasts(self.clock.now()) <= 0;
        if is_over || !same || session.client != web.client_id {
            return Err(Ended::Over);
        }
        let caller = book.authenticator().resumed(claims, &web.client_id, book.needs());
        let caller = caller.map_err(Ended::Unacceptable)?;
        // A session is of one person, and shows no key.
        if !caller.actors().is_empty() || caller.key().is_some() {
            let why = "somebody acts for its subject, or it is bound to a key";
            return Err(Ended::Unacceptable(unacceptable(why)));
        }
        let principal = caller.principal();
        if book.directory().is_none_or(|people| people.person(principal).is_none()) {
            return Err(Ended::Stranger);
        }
        let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(session.at) * 1000);
        let at = at.map_err(|_| Ended::Over)?;
        match self.is_cut_off_since(principal, &web.client_id, at).await {
            Ok(false) => Ok(caller),
            Ok(true) => Err(Ended::CutOff),
            Err(error) => Err(Ended::Unavailable(error)),
        }
    }
}
