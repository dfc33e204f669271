//! One trusted issuer: its keys, and what its tokens must say.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};
use time::{Duration, OffsetDateTime};
use url::Url;

use super::{Caller, Rejection, caller, unacceptable};
use crate::broker::config::{RequiredClaim, TrustedIssuer};
use crate::broker::trusted_file;
use crate::credential::TokenType;
use crate::error::{Error, ErrorKind, Result, foreign};
use crate::host::Host;
use crate::host::clock::{Clock, SkewMeter};
use crate::host::http::HttpClient;
use crate::oidc::jwt::{self, ALGORITHMS, Algorithm};
use crate::oidc::{
    Claims, Discovery, Documents, Expectations, Issuer, Keys, NoDocuments, RemoteKeys,
};
use crate::secret::Secret;

const MAX_FILE: u64 = 1024 * 1024;

/// How long to wait before an issuer that could not be reached is asked again.
const RETRY_AFTER: Duration = Duration::seconds(5);

/// An issuer of the list.
pub(super) struct Trusted {
    /// The name of its table.
    name: String,
    issuer: Issuer,
    audiences: Vec<String>,
    algorithms: Vec<Algorithm>,
    clients: Option<BTreeSet<String>>,
    leeway: Duration,
    groups_claim: String,
    required_claims: BTreeMap<String, RequiredClaim>,
    keys: KeySource,
    clock: Arc<dyn Clock>,
}

/// Where an issuer's keys come from.
enum KeySource {
    File(Keys),
    Uri(Box<RemoteKeys>),
    Discovery(Box<Discovered>),
}

/// Keys whose address a discovery document gives.
struct Discovered {
    http: HttpClient,
    documents: Memory,
    /// Held while the document is fetched, so that it is fetched once for all who wait.
    fetching: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    keys: Option<(Url, Arc<RemoteKeys>)>,
    failed: Option<(OffsetDateTime, Error)>,
}

/// Public documents, for as long as they may be kept.
struct Memory {
    clock: Arc<dyn Clock>,
    kept: Mutex<HashMap<String, (Vec<u8>, OffsetDateTime)>>,
}

impl Documents for Memory {
    fn get(&self, name: &str) -> Option<Vec<u8>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(name)
            .filter(|(_, until)| self.clock.now() < *until)
            .map(|(bytes, _)| bytes.clone())
    }
    fn put(&self, name: &str, bytes: &[u8], until: OffsetDateTime) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(name.to_string(), (bytes.to_vec(), until));
    }
}

impl Trusted {
    pub(super) fn new(
        name: &str,
        config: &TrustedIssuer,
        own: &Issuer,
        host: &Host,
    ) -> Result<Self> {
        let own = || {
            // The audience that a client asks for has no slash at the end.
            let exact = own.as_str();
            [exact, exact.trim_end_matches('/')].map(String::from).into()
        };
        let audiences: BTreeSet<String> = config.audiences.clone().unwrap_or_else(own);
        Ok(Self {
            name: name.into(),
            issuer: config.issuer.clone(),
            audiences: audiences.into_iter().collect(),
            algorithms: config.algorithms.clone().unwrap_or_else(|| ALGORITHMS.to_vec()),
            clients: config.clients.clone(),
            leeway: config.leeway.try_into().unwrap_or(jwt::LEEWAY),
            groups_claim: config.groups_claim.clone(),
            required_claims: config.required_claims.clone(),
            keys: KeySource::new(config, host).map_err(|error| {
                error.context(format!("[trusted_issuer.{name}] cannot be used"))
            })?,
            clock: host.clock.clone(),
        })
    }

    /// Verifies a token of this issuer.
    pub(super) async fn verify(&self, token: &Secret<String>) -> Result<Claims, Rejection> {
        let expected = Expectations {
            issuer: self.issuer.as_str(),
            audiences: &self.audiences,
            algorithms: &self.algorithms,
            nonce: None,
            now: self.clock.now(),
            leeway: self.leeway,
        };
        let token = token.expose();
        let verified = match &self.keys {
            KeySource::File(keys) => jwt::verify(token, keys, &expected).map_err(Error::from),
            KeySource::Uri(keys) => keys.verify(token, &expected, &NoDocuments).await,
            KeySource::Discovery(found) => {
                let keys = found
                    .keys(&self.issuer, &self.clock)
                    .await
                    .map_err(|error| self.unavailable(error))?;
                keys.verify(token, &expected, &NoDocuments).await
            }
        };
        verified.map_err(|error| match error.kind() {
            ErrorKind::Verification => Rejection::Token(error),
            _ => self.unavailable(error),
        })
    }

    fn unavailable(&self, error: Error) -> Rejection {
        tracing::warn!(issuer = %self.issuer, %error, "the keys of an issuer cannot be had");
        Rejection::Unavailable(Error::new(
            ErrorKind::Unreachable,
            format!("the keys of the issuer '{}' cannot be had at present", self.issuer),
        ))
    }

    /// Checks what goes beyond a good token, and says who is calling.
    pub(super) fn caller(&self, claims: Claims, token_type: TokenType) -> Result<Caller> {
        // RFC 7800: it is good only together with a key, whose possession nobody proved.
        if claims.all.contains_key("cnf") {
            return Err(unacceptable("it is bound to a key, which was not proved to be held"));
        }
        // RFC 8693 section 4.1: passing it on without its actor would hide who acts.
        if claims.all.contains_key("act") {
            return Err(unacceptable("somebody acts on behalf of its subject"));
        }
        let client = caller::client(&claims, token_type);
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
        Caller::new(claims, &self.groups_claim, client)
    }
}

fn has(claims: &Map<String, Value>, name: &str, wanted: &RequiredClaim) -> bool {
    let is = |value: &Value| match wanted {
        RequiredClaim::Text(text) => value.as_str() == Some(text),
        RequiredClaim::Flag(flag) => value.as_bool() == Some(*flag),
        RequiredClaim::Number(number) => value.as_i64() == Some(*number),
        RequiredClaim::AnyOf(texts) => value.as_str().is_some_and(|text| texts.contains(text)),
    };
    match claims.get(name) {
        Some(Value::Array(values)) => values.iter().any(is),
        Some(value) => is(value),
        None => false,
    }
}

impl KeySource {
    fn new(config: &TrustedIssuer, host: &Host) -> Result<Self> {
        let read = |path: &Path| trusted_file::read(path, MAX_FILE);
        if let Some(path) = &config.jwks_file {
            let keys = Keys::parse(&read(path)?)
                .map_err(|error| error.context(format!("{} cannot be used", path.display())))?;
            return Ok(Self::File(keys));
        }
        let ca = config.ca_file.as_deref().map(read).transpose()?;
        let http = HttpClient::new(host.clock.clone(), SkewMeter::default(), ca);
        Ok(match &config.jwks_uri {
            Some(uri) => {
                Self::Uri(Box::new(RemoteKeys::new(uri.clone(), http, host.clock.clone())))
            }
            None => Self::Discovery(Box::new(Discovered {
                http,
                documents: Memory { clock: host.clock.clone(), kept: Mutex::default() },
                fetching: tokio::sync::Mutex::new(()),
                state: Mutex::default(),
            })),
        })
    }
}

impl Discovered {
    /// The keys, by the address that the issuer's discovery document gives now.
    async fn keys(&self, issuer: &Issuer, clock: &Arc<dyn Clock>) -> Result<Arc<RemoteKeys>> {
        let _turn = match self.fetching.try_lock() {
            Ok(turn) => turn,
            // Somebody asks the issuer at this moment; the keys at hand will do.
            Err(_) => match self.held() {
                Some(keys) => return Ok(keys),
                None => self.fetching.lock().await,
            },
        };
        let failed = self.state().failed.clone();
        let outcome = match failed {
            Some((at, error)) if clock.now() - at < RETRY_AFTER => Err(error),
            _ => {
                let found =
                    Discovery::fetch(issuer, &self.http, clock.as_ref(), &self.documents).await;
                self.state().failed = found.clone().err().map(|error| (clock.now(), error));
                found
            }
        };
        match outcome {
            Ok(discovery) => Ok(self.at(discovery.jwks_uri, clock)),
            // The issuer may be down; the keys it had are still its own.
            Err(error) => self.held().ok_or(error),
        }
    }

    /// The keys at this address: those at hand where it is still the same.
    fn at(&self, address: Url, clock: &Arc<dyn Clock>) -> Arc<RemoteKeys> {
        let mut state = self.state();
        match &state.keys {
            Some((known, keys)) if *known == address => keys.clone(),
            _ => {
                let keys = RemoteKeys::new(address.clone(), self.http.clone(), clock.clone());
                let keys = Arc::new(keys);
                state.keys = Some((address, keys.clone()));
                keys
            }
        }
    }

    fn held(&self) -> Option<Arc<RemoteKeys>> {
        self.state().keys.as_ref().map(|(_, keys)| keys.clone())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
