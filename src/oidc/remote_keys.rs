//! The keys behind a `jwks_uri`, fetched when needed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reqwest::StatusCode;
use time::Duration;
use url::Url;

use super::documents::{Documents, Freshness, MIN_AGE, NoDocuments, fetch_ahead};
use super::jwt::{Claims, Expectations, Refusal, Unverified};
use super::keys::Keys;
use super::seen::Seen;
use crate::error::{Error, ErrorKind, Result};
use crate::host::clock::Clock;
use crate::host::http::HttpClient;

/// How long to wait before keys are fetched again because a token names an
/// unknown one: anybody can make up such tokens.
const REFETCH_AFTER: Duration = Duration::seconds(30);

/// How long to wait before an issuer whose keys could not be had is asked again.
const RETRY_AFTER: Duration = Duration::seconds(5);

/// How long keys are used after they were last fetched, where nobody says otherwise.
pub const MAX_KEY_AGE: Duration = Duration::days(1);

/// Why a token was not verified.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The keys cannot be had, which is no fault of the token. The error tells of
    /// addresses and answers that are none of the business of whoever presents it.
    NoKeys(Error),
    /// The token is not acceptable.
    Refused(Refusal),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NoKeys(error) => error,
            Failure::Refused(refusal) => refusal.into(),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The keys behind a `jwks_uri`: fetched at first need, kept as long as the
/// issuer allows, fetched again (at most once in [`REFETCH_AFTER`]) when a
/// token names an unknown one, and used beyond their age, within limits, while they
/// cannot be fetched.
pub struct RemoteKeys {
    url: Url,
    http: HttpClient,
    clock: Arc<dyn Clock>,
    max_age: Duration,
    /// Where it is kept in mind what they have signed.
    seen: Option<Arc<Seen>>,
    state: Mutex<State>,
    /// Whether there were any at some time.
    were_had: AtomicBool,
    /// Held while keys are fetched: once for all who want them.
    fetching: tokio::sync::Mutex<()>,
    failures: Failures,
}

/// How often keys could not be fetched. Clones share the count.
#[derive(Clone, Debug, Default)]
pub struct Failures(Arc<AtomicU64>);

impl Failures {
    /// Counts another one.
    pub fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Moments are told by the time that the machine has been running: the clock may be
/// set meanwhile.
#[derive(Clone, Default)]
struct State {
    held: Option<Fetched>,
    failed: Option<(Duration, Error)>,
}

#[derive(Clone)]
struct Fetched {
    keys: Arc<Keys>,
    /// When they were last known to be the issuer's.
    good_at: Duration,
    /// From when on they may be fetched again for a token that names another one.
    again_at: Duration,
    /// From when on they are fetched again by whoever does that ahead of all need.
    ahead_at: Duration,
    /// When they are to be fetched again in any case.
    until: Duration,
    /// What the issuer sent, where that may outlast this process.
    document: Option<Arc<[u8]>>,
}

/// Keys as they can be kept.
#[derive(Clone)]
pub struct Kept {
    /// What the issuer sent.
    pub document: Arc<[u8]>,
    /// When they were last known to be the issuer's, by [`Clock::uptime`].
    pub good_at: Duration,
}

impl RemoteKeys {
    /// The keys at this address. Nothing is fetched yet.
    pub fn new(url: Url, http: HttpClient, clock: Arc<dyn Clock>) -> Self {
        Self {
            url,
            http,
            clock,
            max_age: MAX_KEY_AGE,
            seen: None,
            state: Mutex::default(),
            were_had: AtomicBool::default(),
            fetching: tokio::sync::Mutex::new(()),
            failures: Failures::default(),
        }
    }

    /// Uses keys for this long after they were last fetched, and no longer.
    #[must_use]
    pub fn with_max_age(self, max_age: Duration) -> Self {
        Self { max_age, ..self }
    }

    /// Keeps in mind there what they have signed.
    #[must_use]
    pub fn remembering(self, seen: Option<Arc<Seen>>) -> Self {
        Self { seen, ..self }
    }

    /// Counts here how often keys cannot be fetched.
    #[must_use]
    pub fn counting(self, failures: Failures) -> Self {
        Self { failures, ..self }
    }

    /// How often they, or what else is counted with them, could not be fetched.
    pub fn failures(&self) -> u64 {
        self.failures.get()
    }

    /// How long ago the keys at hand were fetched, where there are any.
    pub fn age(&self) -> Option<Duration> {
        let held = self.state().held.as_ref().map(|held| held.good_at);
        held.map(|at| self.clock.uptime() - at)
    }

    /// Whether there were any at some time, also where they are withdrawn by now.
    pub fn were_had(&self) -> bool {
        self.were_had.load(Ordering::Relaxed)
    }

    /// Whether somebody waits for them at this moment.
    pub fn are_awaited(&self) -> bool {
        self.fetching.try_lock().is_err()
    }

    /// The version of those.
    pub fn version(&self) -> Option<String> {
        self.state().held.as_ref().map(|held| held.keys.version().to_string())
    }

    /// The keys at hand, where there are any.
    pub fn at_hand(&self) -> Option<Keys> {
        self.state().held.as_ref().map(|held| Keys::clone(&held.keys))
    }

    /// How many of the keys at hand can be used.
    pub fn number(&self) -> usize {
        self.state().held.as_ref().map_or(0, |held| held.keys.len())
    }

    /// Verifies a token by these keys.
    pub async fn verify(
        &self,
        token: &mut Unverified<'_>,
        expected: &Expectations<'_>,
        documents: &dyn Documents,
    ) -> Result<Claims, Failure> {
        let fetched = self.current(documents).await.map_err(Failure::NoKeys)?;
        match token.verify(&fetched.keys, expected) {
            Err(Refusal::UnknownKey(error)) => {
                if self.clock.uptime() < fetched.again_at {
                    return Err(Failure::Refused(Refusal::UnknownKey(error)));
                }
                let turn = self.fetching.lock().await;
                // (Elsewhere: requests that fetch nothing need not carry the room for it.)
                let fetched = Box::pin(self.fetch_once(Some(&fetched), documents, turn)).await;
                let fetched = fetched.map_err(Failure::NoKeys)?;
                Ok(token.verify(&fetched.keys, expected)?)
            }
            other => Ok(other?),
        }
    }

    /// Whether it is time to fetch them ahead of all need: there are none, or most of their
    /// life is over.
    pub fn is_due(&self) -> bool {
        let now = self.clock.uptime();
        self.state().held.as_ref().is_none_or(|held| now >= held.ahead_at)
    }

    /// Fetches them ahead of all need. Where that fails, those at hand serve: for `pause` at
    /// least nobody else tries it, which is how long whoever calls this may take to come again.
    pub async fn renew(&self, pause: Duration) -> Result<()> {
        let _turn = self.fetching.lock().await;
        // Somebody may have needed them meanwhile.
        if !self.is_due() {
            return Ok(());
        }
        let Err(error) = self.fetch(&NoDocuments).await else {
            self.state().failed = None;
            return Ok(());
        };
        self.failures.count();
        let now = self.clock.uptime();
        if let Some(held) = &mut self.state().held {
            let end = self.end(held);
            held.until = held.until.max(now + pause).min(end);
        }
        Err(error)
    }

    /// The keys at hand, where they may outlast this process.
    pub fn kept(&self) -> Option<Kept> {
        let state = self.state();
        let held = state.held.as_ref()?;
        Some(Kept { document: held.document.clone()?, good_at: held.good_at })
    }

    /// Goes on with keys that were kept, unless there are some already. They are to be fetched
    /// again at once, for which whoever does that has as long as `pause`.
    pub fn resume(&self, kept: &Kept, pause: Duration) -> Result<()> {
        let keys = Arc::new(self.read(&kept.document)?);
        let (now, good_at) = (self.clock.uptime(), kept.good_at);
        let (again_at, ahead_at, until) = (now, now, now + pause);
        let document = Some(kept.document.clone());
        let fetched = Fetched { keys, good_at, again_at, ahead_at, until, document };
        let until = until.min(self.end(&fetched));
        self.were_had.store(true, Ordering::Relaxed);
        self.state().held.get_or_insert(Fetched { until, ..fetched });
        Ok(())
    }

    /// The address of the keys.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The keys at hand, fetched where there are none or they are too old.
    async fn current(&self, documents: &dyn Documents) -> Result<Fetched> {
        let held = self.state().held.clone();
        let now = self.clock.uptime();
        if let Some(fetched) = &held
            && now < fetched.until
        {
            return Ok(fetched.clone());
        }
        if let Some(keys) = documents.get(self.url.as_str()).and_then(|b| self.read(&b).ok()) {
            // How much longer they may be kept is asked again soon. When they were
            // fetched is not known, so an unknown key id may fetch at once.
            let until = now + MIN_AGE;
            let fetched = Fetched {
                keys: Arc::new(keys),
                good_at: now,
                again_at: now,
                ahead_at: now,
                until,
                document: None,
            };
            self.hold(&fetched);
            return Ok(fetched);
        }
        let old = held.as_ref().filter(|old| now < self.end(old));
        let turn = match (self.fetching.try_lock(), old) {
            (Ok(turn), _) => turn,
            // They are being fetched at this moment; those at hand will do.
            (Err(_), Some(old)) => return Ok(old.clone()),
            (Err(_), None) => self.fetching.lock().await,
        };
        let error = match Box::pin(self.fetch_once(held.as_ref(), documents, turn)).await {
            Ok(fetched) => return Ok(fetched),
            Err(error) => error,
        };
        // An answer that there are none may have taken them away.
        let Some(old) = self.state().held.clone() else { return Err(error) };
        if now < self.end(&old) {
            tracing::warn!(url = %self.url, %error, "issuer keys cannot be fetched; using those at hand");
            // Not asked again for every single token while it is down.
            let old = Fetched { until: (now + REFETCH_AFTER).min(self.end(&old)), ..old };
            self.hold(&old);
            return Ok(old);
        }
        tracing::error!(url = %self.url, %error, "issuer keys cannot be fetched; those at hand are too old");
        Err(error)
    }

    fn read(&self, document: &[u8]) -> Result<Keys> {
        Ok(Keys::parse(document)?.remembering(self.seen.clone()))
    }

    /// When keys are good no more, whether or not there are others.
    fn end(&self, fetched: &Fetched) -> Duration {
        fetched.good_at.saturating_add(self.max_age)
    }

    /// Fetches, unless somebody else did since `seen`, or failed a moment ago.
    async fn fetch_once(
        &self,
        seen: Option<&Fetched>,
        documents: &dyn Documents,
        _turn: tokio::sync::MutexGuard<'_, ()>,
    ) -> Result<Fetched> {
        let State { held, failed } = self.state().clone();
        if let Some(held) = held
            && seen.is_none_or(|seen| !Arc::ptr_eq(&seen.keys, &held.keys))
        {
            return Ok(held);
        }
        if let Some((at, error)) = failed
            && self.clock.uptime() - at < RETRY_AFTER
        {
            return Err(error);
        }
        let outcome = self.fetch(documents).await;
        if outcome.is_err() {
            self.failures.count();
        }
        self.state().failed =
            outcome.as_ref().err().map(|error| (self.clock.uptime(), error.clone()));
        outcome.map_err(|error| error.context("the keys of the issuer cannot be fetched"))
    }

    async fn fetch(&self, documents: &dyn Documents) -> Result<Fetched> {
        let response = self.http.get(&self.url).await?;
        if let Some(outage) = response.outage(self.url.as_str()) {
            return Err(outage);
        }
        if !response.status.is_success() {
            if matches!(response.status, StatusCode::NOT_FOUND | StatusCode::GONE) {
                // Somebody is there and has none: those at hand are withdrawn.
                self.state().held = None;
                documents.put(self.url.as_str(), &[], self.clock.now());
            }
            let status = response.status.as_u16();
            return Err(Error::new(
                ErrorKind::Unreachable,
                format!("{} answered {status}", self.url),
            ));
        }
        let keys = self.read(response.body.expose())?;
        let now = self.clock.uptime();
        let Freshness { age, keep } = Freshness::of(&response);
        if keep {
            documents.put(self.url.as_str(), response.body.expose(), self.clock.now() + age);
        }
        let life = age.min(self.max_age);
        let fetched = Fetched {
            keys: Arc::new(keys),
            good_at: now,
            again_at: now + REFETCH_AFTER,
            ahead_at: now + fetch_ahead(life),
            until: now + life,
            document: keep.then(|| response.body.expose().as_slice().into()),
        };
        self.hold(&fetched);
        Ok(fetched)
    }

    fn hold(&self, fetched: &Fetched) {
        self.were_had.store(true, Ordering::Relaxed);
        self.state().held = Some(fetched.clone());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
