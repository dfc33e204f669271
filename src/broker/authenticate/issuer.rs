//! One trusted issuer: its keys, and what its tokens must say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};
use time::Duration;
use url::Url;

use super::names::{self, Names};
use super::review::Reviewer;
use super::waiting::Waiting;
use super::{Caller, IssuerKeys, MayAct, Rejection, actor, unacceptable};
use crate::broker::config::{RequiredClaim, TrustedIssuer};
use crate::broker::trusted_file;
use crate::credential::TokenType;
use crate::error::{Error, ErrorKind, Result, foreign};
use crate::host::Host;
use crate::host::clock::{Clock, SkewMeter};
use crate::host::http::HttpClient;
use crate::oidc::jwt::{self, ALGORITHMS, Algorithm, Refusal};
use crate::oidc::remote_keys::{Failure, Failures, MAX_KEY_AGE};
use crate::oidc::{Claims, Discovery, Expectations, Issuer, Keys, NoDocuments, RemoteKeys};
use crate::secret::Secret;
use crate::trace;

/// How large a file with keys or certificates may be.
pub(super) const MAX_FILE: u64 = 1024 * 1024;

/// How long to wait before an issuer that could not be reached is asked again.
const RETRY_AFTER: Duration = Duration::seconds(5);

/// How long to wait before a document is asked for again because a token names a key
/// that is not where it says.
const ASK_AFTER: Duration = Duration::seconds(30);

/// An issuer of the list.
pub(super) struct Trusted {
    /// What it was made of.
    made_of: (TrustedIssuer, Option<Vec<u8>>),
    issuer: Issuer,
    requirements: Requirements,
    algorithms: Vec<Algorithm>,
    leeway: Duration,
    keys: KeySource,
    failures: Failures,
    skew: SkewMeter,
    max_age: Duration,
    clock: Arc<dyn Clock>,
    waiting: Waiting,
}

/// What an issuer's tokens must say.
pub(super) struct Requirements {
    /// The name of the issuer's table.
    name: String,
    /// The broker's own issuer.
    own: String,
    audiences: Vec<String>,
    clients: Option<BTreeSet<String>>,
    names: Names,
    required_claims: BTreeMap<String, RequiredClaim>,
}

/// Where an issuer's keys come from.
enum KeySource {
    File(Keys),
    Uri(Box<RemoteKeys>),
    Discovery(Box<Discovered>),
    /// There are none: somebody else verifies its tokens.
    Review(Box<Reviewer>),
}

/// Keys whose address a discovery document gives.
struct Discovered {
    issuer: Issuer,
    http: HttpClient,
    clock: Arc<dyn Clock>,
    /// How long the document, and keys, are used after they were last fetched.
    max_age: Duration,
    /// Held while the document is fetched, so that it is fetched once for all who wait.
    fetching: tokio::sync::Mutex<()>,
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
    /// When it is to be fetched again.
    until: Duration,
}

impl Trusted {
    pub(super) fn new(
        name: &str,
        config: &TrustedIssuer,
        own: &Issuer,
        host: &Host,
        waiting: Waiting,
    ) -> Result<Self> {
        let (failures, skew) = (Failures::default(), SkewMeter::default());
        let ca = config.ca_file.as_deref().map(|path| trusted_file::read(path, MAX_FILE));
        let ca = ca.transpose()?;
        Ok(Self {
            made_of: (config.clone(), ca.clone()),
            issuer: config.issuer.clone(),
            requirements: Requirements::new(name, config, own),
            algorithms: config.algorithms.clone().unwrap_or_else(|| ALGORITHMS.to_vec()),
            leeway: config.leeway.try_into().unwrap_or(jwt::LEEWAY),
            keys: KeySource::new(config, ca, host, &failures, &skew)?,
            failures,
            skew,
            max_age: max_age(config),
            clock: host.clock.clone(),
            waiting,
        })
    }

    /// Whether one from before can take its place, which may have fetched keys. Keys of a file
    /// are there either way, and these are the newer ones.
    pub(super) fn may_go_on_as(&self, before: &Self) -> bool {
        !matches!(self.keys, KeySource::File(_))
            && self.made_of == before.made_of
            && self.requirements.name == before.requirements.name
    }

    /// What is known of its keys, where they are fetched at all.
    pub(super) fn keys(&self) -> Option<IssuerKeys<'_>> {
        let (age, version) = match &self.keys {
            KeySource::File(_) | KeySource::Review(_) => return None,
            KeySource::Uri(keys) => (keys.age(), keys.version()),
            KeySource::Discovery(discovered) => {
                let found = discovered.state().found.clone();
                let in_use = found.map(|found| found.keys.in_use().clone());
                in_use.map_or((None, None), |keys| (keys.age(), keys.version()))
            }
        };
        let (failures, skew) = (self.failures.get(), self.skew.get());
        Some(IssuerKeys {
            name: &self.requirements.name,
            age,
            max_age: self.max_age,
            failures,
            skew,
            version,
        })
    }

    /// Says in the trace by which keys a token was verified, or not.
    pub(super) fn note_keys(&self) {
        if let KeySource::File(keys) = &self.keys {
            trace::note("tmpcred.jwks.version", keys.version().to_string());
        }
        let Some(keys) = self.keys() else { return };
        if let Some(version) = keys.version {
            trace::note("tmpcred.jwks.version", version);
        }
        if let Some(age) = keys.age {
            trace::note("tmpcred.jwks.age", age.as_seconds_f64());
        }
        // Where there are some, it may be left alone for a while.
        trace::note("tmpcred.jwks.failures", i64::try_from(keys.failures).unwrap_or(i64::MAX));
    }

    /// Verifies a token of this issuer.
    pub(super) async fn verify(&self, token: &Secret<String>) -> Result<Claims, Rejection> {
        let expected = Expectations {
            issuer: self.issuer.as_str(),
            audiences: &self.requirements.audiences,
            algorithms: &self.algorithms,
            nonce: None,
            now: self.clock.now(),
            leeway: self.leeway,
        };
        let verifying = self.verify_by_keys(token.expose(), &expected);
        let Some(verified) = self.waiting.within(verifying).await else {
            let why = "so many requests wait for them already that no other one may";
            return Err(self.unavailable(Error::new(ErrorKind::Unreachable, why)));
        };
        verified.map_err(|failure| match failure {
            Failure::Refused(refusal) => Rejection::of(refusal),
            Failure::NoKeys(error) => self.unavailable(error),
        })
    }

    async fn verify_by_keys(
        &self,
        token: &str,
        expected: &Expectations<'_>,
    ) -> Result<Claims, Failure> {
        match &self.keys {
            KeySource::File(keys) => Ok(jwt::verify(token, keys, expected)?),
            KeySource::Uri(keys) => keys.verify(token, expected, &NoDocuments).await,
            KeySource::Review(reviewer) => reviewer.verify(token, expected).await,
            KeySource::Discovery(found) => {
                let at_hand = found.keys().await.map_err(Failure::NoKeys)?;
                let verified = at_hand.verify(token, expected).await;
                if !matches!(verified, Err(Failure::Refused(Refusal::UnknownKey(_)))) {
                    return verified;
                }
                // They may be elsewhere by now.
                match found.moved(&at_hand).await {
                    Some(elsewhere) => elsewhere.verify(token, expected).await,
                    None => verified,
                }
            }
        }
    }

    /// Why is for the log alone: it tells of addresses, redirects and certificates in
    /// the broker's network.
    fn unavailable(&self, error: Error) -> Rejection {
        let issuer = &self.issuer;
        let told = match &self.keys {
            KeySource::Review(_) => {
                tracing::warn!(%issuer, %error, "a token cannot be reviewed");
                format!("tokens of the issuer '{issuer}' cannot be verified at present")
            }
            _ => {
                tracing::warn!(%issuer, %error, "the keys of an issuer cannot be had");
                format!("the keys of the issuer '{issuer}' cannot be had at present")
            }
        };
        Rejection::Unavailable(Error::new(ErrorKind::Unreachable, told))
    }

    /// What its tokens must say.
    pub(super) fn requirements(&self) -> &Requirements {
        &self.requirements
    }
}

impl Requirements {
    /// `own` is the broker's issuer: the audience where the issuer's table has none.
    pub(super) fn new(name: &str, config: &TrustedIssuer, own: &Issuer) -> Self {
        let exact = own.as_str();
        // The audience that a client asks for has no slash at the end.
        let default = || [exact, exact.trim_end_matches('/')].map(String::from).into();
        let audiences: BTreeSet<String> = config.audiences.clone().unwrap_or_else(default);
        Self {
            name: name.into(),
            own: exact.into(),
            audiences: audiences.into_iter().collect(),
            clients: config.clients.clone(),
            names: Names::of(config),
            required_claims: config.required_claims.clone(),
        }
    }

    /// Whether a token may be for this audience.
    pub(super) fn takes(&self, audience: &str) -> bool {
        self.audiences.iter().any(|one| one == audience)
    }

    /// Checks what goes beyond a good token, and says who is calling.
    pub(super) fn caller(&self, claims: Claims, token_type: TokenType) -> Result<Caller> {
        // Logout tokens (OpenID Connect Back-Channel Logout section 2.4) and other security
        // event tokens (RFC 8417 section 2.2) tell of somebody who is not there.
        if claims.all.contains_key("events") {
            return Err(unacceptable("it tells of an event, not of who is calling"));
        }
        // OpenID Connect Core section 3.1.3.7: who was given an ID token is its `azp`, and
        // without a list of clients the audiences say who that may be.
        if self.clients.is_none()
            && is_id_token(&claims, token_type)
            && let Some(azp) = claims.all.get("azp")
            && !azp.as_str().is_some_and(|azp| self.audiences.iter().any(|a| a == azp))
        {
            return Err(unacceptable("it is an ID token that was issued to another client")
                .hint("the broker's `clients` say whose ID tokens are accepted besides"));
        }
        let client = self.names.client(&claims, token_type);
        if let Some(clients) = &self.clients
            && !client.is_some_and(|client| clients.contains(client))
        {
            return Err(unacceptable(match client {
                Some(client) => format!(
                    "it was issued to the client '{}', which is not accepted here",
                    foreign(client)
                ),
                None => "it does not say which client it was issued to".into(),
            }));
        }
        let client = client.unwrap_or(&self.name).to_string();
        for (name, wanted) in &self.required_claims {
            if !has(&claims.all, name, wanted) {
                return Err(unacceptable(format!("its claim '{name}' is not as required here")));
            }
        }
        // RFC 8693 section 4.1: passed on without its actors, it would hide who acts.
        let issuer = &claims.principal.issuer;
        let actors = actor::chain(&claims.all, issuer, *issuer == self.own)?;
        let may_act = MayAct::read(&claims.all, issuer)?;
        let caller = Caller::new(claims, &self.names, client)?;
        Ok(caller.acted_for(actors, may_act))
    }
}

/// Whether it is an ID token: said to be one, or with claims that only those have
/// (OpenID Connect Core section 3.3.2.11).
fn is_id_token(claims: &Claims, token_type: TokenType) -> bool {
    token_type == TokenType::IdToken
        || ["at_hash", "c_hash"].iter().any(|name| claims.all.contains_key(*name))
}

fn has(claims: &Map<String, Value>, name: &str, wanted: &RequiredClaim) -> bool {
    let is = |value: &Value| match wanted {
        RequiredClaim::Text(text) => value.as_str() == Some(text),
        RequiredClaim::Flag(flag) => value.as_bool() == Some(*flag),
        RequiredClaim::Number(number) => value.as_i64() == Some(*number),
        RequiredClaim::AnyOf(texts) => value.as_str().is_some_and(|text| texts.contains(text)),
    };
    match names::claim(claims, name) {
        Some(Value::Array(values)) => values.iter().any(is),
        Some(value) => is(value),
        None => false,
    }
}

impl KeySource {
    fn new(
        config: &TrustedIssuer,
        ca: Option<Vec<u8>>,
        host: &Host,
        failures: &Failures,
        skew: &SkewMeter,
    ) -> Result<Self> {
        if let Some(path) = &config.jwks_file {
            let keys = Keys::parse(&trusted_file::read(path, MAX_FILE)?)
                .map_err(|error| error.context(format!("{} cannot be used", path.display())))?;
            return Ok(Self::File(keys));
        }
        let (clock, failures) = (host.clock.clone(), failures.clone());
        let http = HttpClient::new(clock.clone(), skew.clone(), ca).telling_trace();
        let max_age = max_age(config);
        if let Some(review) = &config.token_review {
            let reviewer = Reviewer::new(config, review, http, clock)?;
            return Ok(Self::Review(Box::new(reviewer)));
        }
        Ok(match &config.jwks_uri {
            Some(uri) => {
                let keys = RemoteKeys::new(uri.clone(), http, clock).with_max_age(max_age);
                Self::Uri(Box::new(keys.counting(failures)))
            }
            None => Self::Discovery(Box::new(Discovered {
                issuer: config.issuer.clone(),
                http,
                clock,
                max_age,
                fetching: tokio::sync::Mutex::new(()),
                failures,
                state: Mutex::default(),
            })),
        })
    }
}

/// How long keys are used after they were last fetched.
fn max_age(config: &TrustedIssuer) -> Duration {
    Duration::try_from(config.max_key_age).unwrap_or(MAX_KEY_AGE)
}

impl AtHand {
    /// Those by which tokens are verified now.
    fn in_use(&self) -> &Arc<RemoteKeys> {
        self.before.as_ref().filter(|_| self.keys.age().is_none()).unwrap_or(&self.keys)
    }

    async fn verify(&self, token: &str, expected: &Expectations<'_>) -> Result<Claims, Failure> {
        match (self.keys.verify(token, expected, &NoDocuments).await, &self.before) {
            (Err(Failure::NoKeys(error)), Some(before)) if self.keys.age().is_none() => {
                tracing::warn!(%error, "an issuer's keys are not where its document says; using those from before");
                before.verify(token, expected, &NoDocuments).await
            }
            (verified, _) => verified,
        }
    }
}

impl Discovered {
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
            _ => match Discovery::ask(&self.issuer, &self.issuer, &self.http).await {
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
                let before = other.as_ref().map(|found| found.keys.in_use().clone());
                AtHand { keys: Arc::new(keys), before }
            }
        };
        let until = at + age.min(self.max_age);
        *state =
            State { found: Some(Found { address, keys: keys.clone(), at, until }), failed: None };
        keys
    }

    /// The keys at hand, where the document cannot be had: the issuer may be down, and
    /// the keys it had are still its own, for a while.
    fn despite(&self, error: Error) -> Result<AtHand> {
        let (issuer, now) = (&self.issuer, self.clock.uptime());
        match self.state().found.clone() {
            Some(found) if now < found.at.saturating_add(self.max_age) => {
                tracing::warn!(%issuer, %error, "a discovery document cannot be had; using the keys at hand");
                Ok(found.keys)
            }
            Some(_) => {
                tracing::error!(%issuer, %error, "a discovery document cannot be had; the keys at hand are too old");
                Err(error)
            }
            None => Err(error),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
