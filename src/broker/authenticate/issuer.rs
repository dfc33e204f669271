//! One trusted issuer: its keys, and what its tokens must say.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::{Map, Value};
use time::Duration;
use url::Url;

use super::ahead::Part;
use super::asking::fetched;
use super::caller::Fingerprint;
use super::discovered::Discovered;
use super::fitting::{self, Fitting};
use super::names::{self, Names};
use super::review::Reviewer;
use super::waiting::Waiting;
use super::{Caller, FetchedKeys, MayAct, Rejection, actor, key_file, unacceptable};
use crate::broker::config::{Assertions, RequiredClaim, TrustedIssuer};
use crate::broker::trusted_file;
use crate::credential::TokenType;
use crate::error::{Error, ErrorKind, Result, foreign};
use crate::host::Host;
use crate::host::clock::{Clock, SkewMeter};
use crate::host::http::HttpClient;
use crate::oidc::jwt::{self, ALGORITHMS, Algorithm, Unverified};
use crate::oidc::remote_keys::{Failure, Failures, Kept, MAX_KEY_AGE};
use crate::oidc::{Claims, Expectations, Issuer, Keys, NoDocuments, RemoteKeys, Seen};
use crate::trace;

/// An issuer of the list.
pub(in crate::broker) struct Trusted {
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
    /// When each part is fetched again ahead of all need, where that has failed, by the time that
    /// the machine has been running.
    again_at: Mutex<[Duration; Part::ALL.len()]>,
}

/// What an issuer's tokens must say.
#[derive(Clone)]
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

impl Trusted {
    pub(super) fn new(
        name: &str,
        config: &TrustedIssuer,
        own: &Issuer,
        host: &Host,
        (waiting, seen): (Waiting, &Arc<Seen>),
    ) -> Result<Self> {
        // Of those that are good once, none comes again.
        let seen = (config.assertions == Assertions::UntilExpiry).then_some(seen);
        let (failures, skew) = (Failures::default(), SkewMeter::default());
        let ca = trusted_file::read_authorities(config.ca_file.as_ref())?;
        Ok(Self {
            made_of: (config.clone(), ca.clone()),
            issuer: config.issuer.clone(),
            requirements: Requirements::new(name, config, own),
            algorithms: config.algorithms.clone().unwrap_or_else(|| ALGORITHMS.to_vec()),
            leeway: config.leeway.try_into().unwrap_or(jwt::LEEWAY),
            keys: KeySource::new(config, ca, host, (&failures, &skew), seen)?,
            failures,
            skew,
            max_age: max_age(config),
            clock: host.clock.clone(),
            waiting,
            again_at: Mutex::default(),
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
    pub(super) fn keys(&self) -> Option<FetchedKeys<'_>> {
        let (age, version) = match &self.keys {
            KeySource::File(_) | KeySource::Review(_) => return None,
            KeySource::Uri(keys) => (keys.age(), keys.version()),
            KeySource::Discovery(discovered) => {
                discovered.in_use().map_or((None, None), |keys| (keys.age(), keys.version()))
            }
        };
        let (failures, skew) = (self.failures.get(), self.skew.get());
        Some(FetchedKeys {
            name: &self.requirements.name,
            age,
            max_age: self.max_age,
            failures,
            skew,
            retry_in: self.retry_in(),
            version,
        })
    }

    /// In how long something of it is fetched again that could not be fetched ahead of all need.
    fn retry_in(&self) -> Duration {
        let due = Part::ALL.into_iter().filter(|part| self.is_due(*part));
        due.map(|part| self.left_alone(part)).max().unwrap_or_default()
    }

    /// How much longer it is left alone because this could not be fetched ahead of all need.
    pub(super) fn left_alone(&self, part: Part) -> Duration {
        let again_at = self.again_at.lock().unwrap_or_else(PoisonError::into_inner)[part as usize];
        (again_at - self.clock.uptime()).max(Duration::ZERO)
    }

    /// Leaves it alone for so long, because this could not be fetched.
    pub(super) fn leave_alone(&self, part: Part, pause: Duration) {
        let again_at = self.clock.uptime() + pause;
        self.again_at.lock().unwrap_or_else(PoisonError::into_inner)[part as usize] = again_at;
    }

    /// Whether it is time to fetch this ahead of all need.
    pub(super) fn is_due(&self, part: Part) -> bool {
        match &self.keys {
            KeySource::File(_) | KeySource::Review(_) => false,
            KeySource::Uri(keys) => part == Part::Keys && keys.is_due(),
            KeySource::Discovery(discovered) => discovered.is_due(part),
        }
    }

    /// Asks whoever is asked when one of its tokens comes, and says what they answered. `None`
    /// where nobody is.
    pub(super) async fn ask(&self) -> Option<Result<String>> {
        match &self.keys {
            KeySource::File(_) => None,
            KeySource::Uri(keys) => Some(fetched(keys).await),
            KeySource::Discovery(discovered) => Some(discovered.ask().await),
            KeySource::Review(reviewer) => Some(reviewer.ask_for_none().await),
        }
    }

    /// The keys that are at hand, to be looked at.
    pub(super) fn fitting(&self) -> Option<Fitting<'_>> {
        let fetched = |keys: &RemoteKeys| Some((keys.url().to_string(), keys.at_hand()?));
        let (place, keys) = match &self.keys {
            KeySource::File(keys) => {
                (fitting::named(self.made_of.0.jwks_file.as_deref()), keys.clone())
            }
            KeySource::Uri(keys) => fetched(keys)?,
            KeySource::Discovery(discovered) => fetched(discovered.in_use()?.as_ref())?,
            KeySource::Review(_) => return None,
        };
        let table = format!("trusted_issuer.{}", self.requirements.name);
        Some(Fitting { table, place, keys, accepted: &self.algorithms })
    }

    /// Fetches this, as [`RemoteKeys::renew`] does.
    pub(super) async fn renew(&self, part: Part, pause: Duration) -> Result<()> {
        match &self.keys {
            KeySource::File(_) | KeySource::Review(_) => Ok(()),
            KeySource::Uri(keys) => keys.renew(pause).await,
            KeySource::Discovery(discovered) => discovered.renew(part, pause).await,
        }
    }

    /// The keys at hand and where they are from, where they were fetched and may outlast
    /// this process.
    pub(super) fn kept(&self) -> Option<(Url, Kept)> {
        match &self.keys {
            KeySource::File(_) | KeySource::Review(_) => None,
            KeySource::Uri(keys) => Some((keys.url().clone(), keys.kept()?)),
            KeySource::Discovery(discovered) => discovered.kept(),
        }
    }

    /// Goes on with keys that were kept, as [`RemoteKeys::resume`] does.
    ///
    /// # Errors
    /// Where they are from another address than the configuration has now.
    pub(super) fn resume(&self, address: Url, kept: &Kept, pause: Duration) -> Result<()> {
        match &self.keys {
            KeySource::Discovery(discovered) => discovered.resume(address, kept, pause),
            KeySource::Uri(keys) if *keys.url() == address => keys.resume(kept, pause),
            KeySource::File(_) | KeySource::Review(_) | KeySource::Uri(_) => {
                let message = format!("they were fetched from {address}");
                Err(Error::new(ErrorKind::Config, message)
                    .because_of("the configuration names another place"))
            }
        }
    }

    /// Names how its keys are found, as the configuration has it: through a discovery document
    /// or at an address, and by which authorities.
    pub(super) fn found_by(&self) -> Fingerprint {
        let (config, ca) = &self.made_of;
        let address = config.jwks_uri.as_ref().map(|uri| uri.as_str().as_bytes());
        let mut context = Context::new(&SHA256);
        for part in [address, ca.as_deref()] {
            context.update(&[u8::from(part.is_some())]);
            let part = part.unwrap_or_default();
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        hash
    }

    /// Whether its keys are fetched.
    pub(super) fn has_remote_keys(&self) -> bool {
        matches!(self.keys, KeySource::Uri(_) | KeySource::Discovery(_))
    }

    /// The name of its table.
    pub(super) fn name(&self) -> &str {
        &self.requirements.name
    }

    /// Its identifier.
    pub(super) fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// How old its keys may become.
    pub(super) fn max_age(&self) -> Duration {
        self.max_age
    }

    /// The clock by which their age is told.
    pub(super) fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
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
    pub(super) async fn verify(&self, token: Unverified<'_>) -> Result<Claims, Rejection> {
        self.verify_for(token, &self.requirements.audiences, None).await
    }

    /// The same of a token for one of these, with this nonce where one was sent.
    pub(super) async fn verify_for(
        &self,
        token: Unverified<'_>,
        audiences: &[String],
        nonce: Option<&str>,
    ) -> Result<Claims, Rejection> {
        let expected = Expectations {
            issuer: self.issuer.as_str(),
            audiences,
            algorithms: &self.algorithms,
            nonce,
            now: self.clock.now(),
            leeway: self.leeway,
        };
        let verifying = pin!(self.verify_by_keys(token, &expected));
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
        mut token: Unverified<'_>,
        expected: &Expectations<'_>,
    ) -> Result<Claims, Failure> {
        match &self.keys {
            KeySource::File(keys) => Ok(token.verify(keys, expected)?),
            KeySource::Uri(keys) => keys.verify(&mut token, expected, &NoDocuments).await,
            KeySource::Review(reviewer) => Box::pin(reviewer.verify(token, expected)).await,
            KeySource::Discovery(discovered) => discovered.verify(&mut token, expected).await,
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

    /// The same of ID tokens that were issued to this client of the broker's own.
    pub(super) fn for_client(&self, client: &str) -> Self {
        Self { audiences: vec![client.into()], clients: None, ..self.clone() }
    }

    /// Whether a token may be for this audience.
    pub(super) fn takes(&self, audience: &str) -> bool {
        self.audiences.iter().any(|one| one == audience)
    }

    /// The name of the issuer's table.
    pub(super) fn name(&self) -> &str {
        &self.name
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

/// Whether it is an ID token: said to be one, or with claims that only those have (OpenID Connect
/// Core sections 2 and 3.3.2.11; FAPI 1.0 part 2 section 5.1.1). Whoever shows it may say that it is
/// something else.
fn is_id_token(claims: &Claims, token_type: TokenType) -> bool {
    let has = |name: &&str| claims.all.contains_key(*name);
    // Keycloak says of each token which of its kinds it is; access tokens of earlier versions
    // have the nonce, too.
    let kind = claims.all.get("typ").and_then(Value::as_str);
    token_type == TokenType::IdToken
        || kind == Some("ID")
        || ["at_hash", "c_hash", "s_hash"].iter().any(has)
        || kind != Some("Bearer") && has(&"nonce")
}

fn has(claims: &Map<String, Value>, name: &str, wanted: &RequiredClaim) -> bool {
    let is = |value: &Value| match wanted {
        RequiredClaim::Text(text) => value.as_str() == Some(text),
        RequiredClaim::Flag(flag) => value.as_bool() == Some(*flag),
        RequiredClaim::Number(number) => value.as_i64() == Some(*number),
        RequiredClaim::AnyOf(texts) => value.as_str().is_some_and(|text| texts.contains(text)),
        RequiredClaim::Like(like) => {
            names::scalar(value).is_some_and(|text| like.matches.matches(&text))
        }
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
        (failures, skew): (&Failures, &SkewMeter),
        seen: Option<&Arc<Seen>>,
    ) -> Result<Self> {
        if let Some(path) = &config.jwks_file {
            return Ok(Self::File(key_file::read(path)?.remembering(seen.cloned())));
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
                Self::Uri(Box::new(keys.counting(failures).remembering(seen.cloned())))
            }
            None => {
                let issuer = config.issuer.clone();
                let keys = Discovered::new(issuer, http, clock, max_age, failures);
                Self::Discovery(Box::new(keys.remembering(seen.cloned())))
            }
        })
    }
}

/// How long keys are used after they were last fetched.
fn max_age(config: &TrustedIssuer) -> Duration {
    Duration::try_from(config.max_key_age).unwrap_or(MAX_KEY_AGE)
}
