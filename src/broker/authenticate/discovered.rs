//! The keys of an issuer whose address its discovery document gives.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use time::Duration;
use url::Url;

use super::ahead::Part;
use super::asking::came;
use crate::error::{Error, Result};
use crate::host::clock::Clock;
use crate::host::http::HttpClient;
use crate::oidc::documents::fetch_ahead;
use crate::oidc::jwt::{Refusal, Unverified};
use crate::oidc::remote_keys::{Failure, Failures, Kept};
use crate::oidc::{Claims, Discovery, Expectations, Issuer, NoDocuments, RemoteKeys, Seen};

/// How long to wait before an issuer that could not be reached is asked again.
const RETRY_AFTER: Duration = Duration::seconds(5);

/// How long to wait before a document is asked for again because a token names a key
/// that is not where it says.
const ASK_AFTER: Duration = Duration::seconds(30);

/// Keys whose address a discovery document gives.
pub(super) struct Discovered {
    issuer: Issuer,
    http: HttpClient,
    clock: Arc<dyn Clock>,
    /// How long the document, and keys, are used after they were last fetched.
    max_age: Duration,
    /// Held while the document is fetched, so that it is fetched once for all who wait.
    fetching: tokio::sync::Mutex<()>,
    /// Where it is kept in mind what its keys have signed.
    seen: Option<Arc<Seen>>,
    failures: Failures,
    state: Mutex<State>,
}

/// Moments are told by the time that the machine has been running: the clock may be
/// set meanwhile.
#[derive(Default)]
struct State {
    found: Option<Found>,
    failed: Option<(Duration, Error)>,
}

/// The keys at the address that a document gave.
#[derive(Clone)]
struct AtHand {
    keys: Arc<RemoteKeys>,
    /// Those at the address before, which serve until there are some at this one.
    before: Option<Arc<RemoteKeys>>,
}

/// What the last document said.
#[derive(Clone)]
struct Found {
    address: Url,
    keys: AtHand,
    /// When the document was fetched.
    at: Duration,
    /// From when on it is fetched again ahead of all need.
    ahead_at: Duration,
    /// When it is to be fetched again in any case.
    until: Duration,
}

impl Discovered {
    /// Nothing is fetched yet.
    pub(super) fn new(
        issuer: Issuer,
        http: HttpClient,
        clock: Arc<dyn Clock>,
        max_age: Duration,
        failures: Failures,
    ) -> Self {
        let (fetching, state) = (tokio::sync::Mutex::new(()), Mutex::default());
        Self { issuer, http, clock, max_age, seen: None, fetching, failures, state }
    }

    /// Keeps in mind there what its keys have signed.
    #[must_use]
    pub(super) fn remembering(self, seen: Option<Arc<Seen>>) -> Self {
        Self { seen, ..self }
    }

    /// Those by which tokens are verified now.
    pub(super) fn in_use(&self) -> Option<Arc<RemoteKeys>> {
        self.state().found.as_ref().map(|found| found.keys.in_use().clone())
    }

    /// Whether it is time to fetch this ahead of all need.
    pub(super) fn is_due(&self, part: Part) -> bool {
        match part {
            Part::Document => {
                let now = self.clock.uptime();
                self.state().found.as_ref().is_none_or(|found| now >= found.ahead_at)
            }
            // Where they are is not known before.
            Part::Keys => self.at_hand().is_some_and(|at_hand| at_hand.keys.is_due()),
        }
    }

    fn at_hand(&self) -> Option<AtHand> {
        self.state().found.as_ref().map(|found| found.keys.clone())
    }

    /// Fetches this ahead of all need, as [`RemoteKeys::renew`] does; keys at a place that is
    /// new at once.
    pub(super) async fn renew(&self, part: Part, pause: Duration) -> Result<()> {
        if part == Part::Document {
            self.renew_document(pause).await?;
        }
        match self.at_hand() {
            Some(AtHand { keys, .. }) if part == Part::Keys || keys.age().is_none() => {
                keys.renew(pause).await
            }
            _ => Ok(()),
        }
    }

    /// Fetches the document and the keys, and says what came.
    pub(super) async fn ask(&self) -> Result<String> {
        self.renew(Part::Document, Duration::ZERO).await?;
        self.in_use().map_or_else(|| Ok(String::new()), |keys| came(&keys))
    }

    async fn renew_document(&self, pause: Duration) -> Result<()> {
        let _turn = self.fetching.lock().await;
        if !self.is_due(Part::Document) {
            return Ok(());
        }
        let error = match Discovery::ask(&self.issuer, &self.issuer, &self.http).await {
            Ok((discovery, freshness)) => {
                self.found(discovery.jwks_uri, freshness.age);
                return Ok(());
            }
            Err(error) => error,
        };
        self.failures.count();
        let now = self.clock.uptime();
        if let Some(found) = &mut self.state().found {
            let end = found.at.saturating_add(self.max_age);
            found.until = found.until.max(now + pause).min(end);
        }
        Err(error)
    }

    /// The keys at hand and where they are from, where they may outlast this process.
    pub(super) fn kept(&self) -> Option<(Url, Kept)> {
        let keys = self.in_use()?;
        Some((keys.url().clone(), keys.kept()?))
    }

    /// Goes on with keys that were kept, as [`RemoteKeys::resume`] does.
    pub(super) fn resume(&self, address: Url, kept: &Kept, pause: Duration) -> Result<()> {
        if self.at_hand().is_some() {
            return Ok(());
        }
        self.found(address, Duration::ZERO).keys.resume(kept, pause)?;
        if let Some(found) = &mut self.state().found {
            // When the document was fetched was not kept; the keys were there at that time.
            (found.at, found.ahead_at) = (kept.good_at, self.clock.uptime());
            found.until = (found.ahead_at + pause).min(found.at.saturating_add(self.max_age));
        }
        Ok(())
    }

    /// Verifies a token by them.
    pub(super) async fn verify(
        &self,
        token: &mut Unverified<'_>,
        expected: &Expectations<'_>,
    ) -> Result<Claims, Failure> {
        let at_hand = self.keys().await.map_err(Failure::NoKeys)?;
        let verified = at_hand.verify(token, expected).await;
        if !matches!(verified, Err(Failure::Refused(Refusal::UnknownKey(_)))) {
            return verified;
        }
        // They may be elsewhere by now.
        match self.moved(&at_hand).await {
            Some(elsewhere) => elsewhere.verify(token, expected).await,
            None => verified,
        }
    }

    /// The keys, by the address that the issuer's discovery document gives now.
    async fn keys(&self) -> Result<AtHand> {
        let now = self.clock.uptime();
        let held = self.state().found.clone();
        if let Some(found) = &held
            && now < found.until
        {
            return Ok(found.keys.clone());
        }
        let usable = held.filter(|found| now < found.at.saturating_add(self.max_age));
        let _turn = match (self.fetching.try_lock(), usable) {
            (Ok(turn), _) => turn,
            // Somebody asks the issuer at this moment; the keys at hand will do.
            (Err(_), Some(found)) => return Ok(found.keys),
            (Err(_), None) => self.fetching.lock().await,
        };
        let (found, failed) = {
            let state = self.state();
            (state.found.clone(), state.failed.clone())
        };
        // Somebody else has asked meanwhile.
        if let Some(found) = found.filter(|found| now < found.until) {
            return Ok(found.keys);
        }
        let error = match failed {
            Some((at, error)) if self.clock.uptime() - at < RETRY_AFTER => error,
            _ => match Box::pin(Discovery::ask(&self.issuer, &self.issuer, &self.http)).await {
                Ok((discovery, freshness)) => {
                    return Ok(self.found(discovery.jwks_uri, freshness.age));
                }
                Err(error) => {
                    self.failures.count();
                    self.state().failed = Some((self.clock.uptime(), error.clone()));
                    error
                }
            },
        };
        self.despite(error)
    }

    /// The keys elsewhere, where the document says that they are not where those at hand
    /// came from. It is asked seldom: anybody can make up the id of a key.
    async fn moved(&self, at_hand: &AtHand) -> Option<AtHand> {
        let now = self.clock.uptime();
        {
            let mut state = self.state();
            let found = state.found.as_mut()?;
            if Arc::ptr_eq(&found.keys.keys, &at_hand.keys) {
                if now < found.at.saturating_add(ASK_AFTER) {
                    return None;
                }
                found.until = now;
            }
        }
        let keys = self.keys().await.ok()?;
        (!Arc::ptr_eq(&keys.keys, &at_hand.keys)).then_some(keys)
    }

    /// Keeps what a document says: its address, with the keys at hand where it is
    /// still the same.
    fn found(&self, address: Url, age: Duration) -> AtHand {
        let at = self.clock.uptime();
        let mut state = self.state();
        let keys = match &state.found {
            Some(found) if found.address == address => found.keys.clone(),
            other => {
                let keys = RemoteKeys::new(address.clone(), self.http.clone(), self.clock.clone());
                let keys = keys.with_max_age(self.max_age).counting(self.failures.clone());
                let keys = keys.remembering(self.seen.clone());
                let before = other.as_ref().map(|found| found.keys.in_use().clone());
                AtHand { keys: Arc::new(keys), before }
            }
        };
        let life = age.min(self.max_age);
        let (ahead_at, until) = (at + fetch_ahead(life), at + life);
        let found = Found { address, keys: keys.clone(), at, ahead_at, until };
        *state = State { found: Some(found), failed: None };
        keys
    }

    /// The keys at hand, where the document cannot be had: the issuer may be down, and
    /// the keys it had are still its own, for a while.
    fn despite(&self, error: Error) -> Result<AtHand> {
        let (issuer, now) = (&self.issuer, self.clock.uptime());
        match &mut self.state().found {
            Some(found) if now < found.at.saturating_add(self.max_age) => {
                tracing::warn!(%issuer, %error, "a discovery document cannot be had; using the keys at hand");
                // Not asked again for every single token while it is down, be it that
                // somebody made up the id of a key.
                let end = found.at.saturating_add(self.max_age);
                found.until = found.until.max(now.saturating_add(ASK_AFTER)).min(end);
                Ok(found.keys.clone())
            }
            Some(_) => {
                tracing::error!(%issuer, %error, "a discovery document cannot be had; the keys at hand are too old");
                Err(error)
            }
            None => Err(error),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AtHand {
    /// Those by which tokens are verified now.
    fn in_use(&self) -> &Arc<RemoteKeys> {
        self.earlier().unwrap_or(&self.keys)
    }

    /// Those at the address before, where none were had at this one yet. Once there were, those
    /// before are good no more, even if these are withdrawn.
    fn earlier(&self) -> Option<&Arc<RemoteKeys>> {
        self.before.as_ref().filter(|_| !self.keys.were_had())
    }

    async fn verify(
        &self,
        token: &mut Unverified<'_>,
        expected: &Expectations<'_>,
    ) -> Result<Claims, Failure> {
        let Some(before) = self.earlier() else {
            return self.keys.verify(token, expected, &NoDocuments).await;
        };
        // One waits for an address that does not answer, and not all who come meanwhile.
        if self.keys.are_awaited() {
            return match before.verify(token, expected, &NoDocuments).await {
                // Those may be gone from there.
                Err(Failure::NoKeys(_) | Failure::Refused(Refusal::UnknownKey(_))) => {
                    self.keys.verify(token, expected, &NoDocuments).await
                }
                verified => verified,
            };
        }
        match self.keys.verify(token, expected, &NoDocuments).await {
            Err(Failure::NoKeys(error)) if !self.keys.were_had() => {
                tracing::warn!(%error, "an issuer's keys are not where its document says; using those from before");
                before.verify(token, expected, &NoDocuments).await
            }
            verified => verified,
        }
    }
}
