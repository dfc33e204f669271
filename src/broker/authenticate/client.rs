//! Which client is asking: an assertion that it signs, made for this broker alone
//! (RFC 7523 sections 2.2 and 3).
//!
//! Who calls, and through which client, are two things: the one is told by a token of an
//! issuer, the other by this.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use time::{Duration, OffsetDateTime};

use super::fitting::{self, Fitting};
use super::waiting::{Everybody, Waiting};
use super::{FetchedKeys, key_file};
use crate::broker::config::{self, Binding};
use crate::broker::trusted_file;
use crate::error::{Error, ErrorKind, Result, foreign};
use crate::host::Host;
use crate::host::clock::{Clock, SkewMeter};
use crate::host::http::HttpClient;
use crate::oidc::jwt::{self, ALGORITHMS, Algorithm, LEEWAY, Unverified};
use crate::oidc::remote_keys::{Failure, MAX_KEY_AGE};
use crate::oidc::{Claims, Expectations, Issuer, Keys, NoDocuments, RemoteKeys};
use crate::secret::Secret;

/// How much longer an assertion may be good: it is made for one request.
pub const MAX_LIFETIME: Duration = Duration::minutes(5);

/// How long its id may be, in bytes.
const MAX_JTI: usize = 512;

/// The `typ` that it may have, besides none. Tokens of other kinds that a client signs
/// with the same key authenticate nobody.
const TYPES: [&str; 2] = ["jwt", "client-authentication+jwt"];

/// The clients that authenticate, with their keys.
pub struct Clients {
    known: BTreeMap<String, Arc<Known>>,
    audience: [String; 1],
    clock: Arc<dyn Clock>,
}

struct Known {
    /// What it was made of.
    made_of: (config::Client, Option<Vec<u8>>),
    keys: KeySource,
    algorithms: Vec<Algorithm>,
    waiting: Waiting,
}

enum KeySource {
    File(Keys),
    Uri(Box<RemoteKeys>),
}

/// A good assertion, which may have been used before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assertion {
    /// The client that made it.
    pub client: String,
    /// What tells it from all others that are good at this time.
    pub id: String,
    /// Until when it may be good.
    pub until: OffsetDateTime,
}

/// Why an assertion is not accepted.
#[derive(Debug)]
pub enum Unproved {
    /// There is no such client, or none that authenticates.
    Unknown(Error),
    /// The assertion is not good.
    Invalid(Error),
    /// The client's keys cannot be had at present.
    Unavailable(Error),
}

impl Clients {
    /// No client at all.
    pub(super) fn nobody(own: &Issuer, host: &Host) -> Self {
        let audience = [own.as_str().to_string()];
        Self { known: BTreeMap::new(), audience, clock: host.clock.clone() }
    }

    /// Reads what the configuration names. Nothing is fetched yet, and who is the same as
    /// before goes on with the keys that were. Requests wait for keys among `everybody` who
    /// waits for some.
    pub(super) fn anew(
        &self,
        config: &config::Clients,
        own: &Issuer,
        host: &Host,
        everybody: &Everybody,
    ) -> Result<Self> {
        let known = config
            .iter()
            .filter(|(_, client)| client.authenticates())
            .map(|(name, client)| {
                let new = Known::new(client, host, everybody)
                    .map_err(|error| error.context(format!("[client.{name}] cannot be used")))?;
                let new = Arc::new(new);
                let same = self.known.get(name).filter(|before| new.may_go_on_as(before));
                Ok((name.clone(), same.unwrap_or(&new).clone()))
            })
            .collect::<Result<_>>()?;
        Ok(Self { known, ..Self::nobody(own, host) })
    }

    /// Those whose keys are fetched, by name, with their keys.
    pub(super) fn remote(&self) -> impl Iterator<Item = (&str, &RemoteKeys)> {
        self.known.iter().filter_map(|(name, known)| match &known.keys {
            KeySource::File(_) => None,
            KeySource::Uri(keys) => Some((name.as_str(), keys.as_ref())),
        })
    }

    /// What is known of the keys that are fetched, by client.
    pub fn keys(&self) -> impl Iterator<Item = FetchedKeys<'_>> {
        self.remote().map(|(name, keys)| FetchedKeys {
            name,
            age: keys.age(),
            max_age: MAX_KEY_AGE,
            failures: keys.failures(),
            skew: None,
            retry_in: Duration::ZERO,
            version: keys.version(),
        })
    }

    /// The keys that are at hand, to be looked at.
    pub(super) fn fitting(&self) -> impl Iterator<Item = Fitting<'_>> {
        self.known.iter().filter_map(|(name, known)| {
            let (place, keys) = match &known.keys {
                KeySource::File(keys) => {
                    (fitting::named(known.made_of.0.jwks_file.as_deref()), keys.clone())
                }
                KeySource::Uri(keys) => (keys.url().to_string(), keys.at_hand()?),
            };
            let table = format!("client.{name}");
            Some(Fitting { table, place, keys, accepted: &known.algorithms })
        })
    }

    /// Verifies an assertion, but for whether it was used before.
    ///
    /// The clients that are configured are looked at before any key is fetched.
    pub async fn verify(&self, assertion: &Secret<String>) -> Result<Assertion, Unproved> {
        let mut unverified = jwt::decode_unverified(assertion.expose()).map_err(invalid)?;
        check_type(&unverified.header).map_err(Unproved::Invalid)?;
        let named = |name: &str| unverified.claims.get(name).and_then(Value::as_str);
        let client = named("sub").unwrap_or_default().to_string();
        let client = client.as_str();
        let Some(known) = self.known.get(client) else {
            return Err(Unproved::Unknown(unacceptable(format!(
                "there is no client '{}' that authenticates in this way",
                foreign(client)
            ))));
        };
        // One for several is one that another of them can use here.
        if unverified.claims.get("aud") != Some(&Value::String(self.audience[0].clone())) {
            return Err(Unproved::Invalid(unacceptable(format!(
                "its audience is not '{}' alone, as a text",
                self.audience[0]
            ))));
        }
        let now = self.clock.now();
        let expected = Expectations {
            issuer: client,
            audiences: &self.audience,
            algorithms: &known.algorithms,
            nonce: None,
            now,
            leeway: LEEWAY,
        };
        let claims = known.verify(client, &mut unverified, &expected).await?;
        if claims.expires_at > now.saturating_add(MAX_LIFETIME).saturating_add(LEEWAY) {
            return Err(Unproved::Invalid(unacceptable(format!(
                "it is good for longer than {} minutes",
                MAX_LIFETIME.whole_minutes()
            ))));
        }
        Ok(Assertion {
            client: client.into(),
            id: id(client, &claims.all).map_err(Unproved::Invalid)?,
            until: claims.expires_at.saturating_add(LEEWAY),
        })
    }
}

impl Known {
    fn new(config: &config::Client, host: &Host, everybody: &Everybody) -> Result<Self> {
        let algorithms = config.algorithms.clone().unwrap_or_else(|| ALGORITHMS.to_vec());
        let ca = trusted_file::read_authorities(config.ca_file.as_ref())?;
        let made_of = (config.clone(), ca.clone());
        let keys = KeySource::new(config, ca, host)?;
        Ok(Self { made_of, keys, algorithms, waiting: Waiting::among(everybody) })
    }

    /// Whether one from before can take its place, as with issuers.
    fn may_go_on_as(&self, before: &Self) -> bool {
        !matches!(self.keys, KeySource::File(_)) && self.made_of == before.made_of
    }

    async fn verify(
        &self,
        client: &str,
        assertion: &mut Unverified<'_>,
        expected: &Expectations<'_>,
    ) -> Result<Claims, Unproved> {
        let verifying = async {
            match &self.keys {
                KeySource::File(keys) => Ok(assertion.verify(keys, expected)?),
                KeySource::Uri(keys) => keys.verify(assertion, expected, &NoDocuments).await,
            }
        };
        let full = || {
            let why = "so many requests wait for them already that no other one may";
            Failure::NoKeys(Error::new(ErrorKind::Unreachable, why))
        };
        let verified = self.waiting.within(verifying).await.unwrap_or_else(|| Err(full()));
        verified.map_err(|failure| match failure {
            Failure::Refused(refusal) => invalid(refusal.into()),
            // Why is for the log alone, as with the keys of issuers.
            Failure::NoKeys(error) => {
                tracing::warn!(client, %error, "the keys of a client cannot be had");
                let why = format!("the keys of the client '{client}' cannot be had at present");
                Unproved::Unavailable(Error::new(ErrorKind::Unreachable, why))
            }
        })
    }
}

impl KeySource {
    fn new(config: &config::Client, ca: Option<Vec<u8>>, host: &Host) -> Result<Self> {
        if let Some(path) = &config.jwks_file {
            return key_file::read(path).map(Self::File);
        }
        let uri = config.jwks_uri.clone().ok_or_else(|| {
            Error::new(ErrorKind::Config, "it names no keys, by which it could be known")
        })?;
        let http = HttpClient::new(host.clock.clone(), SkewMeter::default(), ca).telling_trace();
        Ok(Self::Uri(Box::new(RemoteKeys::new(uri, http, host.clock.clone()))))
    }
}

/// Hashed: a client chooses it, and it is kept for a while.
fn id(client: &str, claims: &Map<String, Value>) -> Result<String> {
    let jti = claims.get("jti").and_then(Value::as_str).unwrap_or_default();
    if jti.is_empty() || jti.len() > MAX_JTI {
        return Err(unacceptable(format!("its jti is not a text of 1 to {MAX_JTI} bytes")));
    }
    let mut hash = Context::new(&SHA256);
    for part in [client, jti] {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    Ok(URL_SAFE_NO_PAD.encode(hash.finish()))
}

fn check_type(header: &Map<String, Value>) -> Result<()> {
    let typ = match header.get("typ") {
        None => return Ok(()),
        Some(typ) => typ.as_str().unwrap_or_default(),
    };
    if TYPES.iter().any(|known| jwt::is_media_type(typ, known)) {
        return Ok(());
    }
    Err(unacceptable("its header names another type than a JWT for client authentication"))
}

/// What is wrong with a token, said of an assertion.
fn invalid(error: Error) -> Unproved {
    let said = unacceptable(error.causes().first().cloned().unwrap_or_default());
    Unproved::Invalid(error.hints().iter().fold(said, |said, hint| said.hint(hint)))
}

fn unacceptable(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Verification, "the client assertion is not acceptable").because_of(why)
}

/// Looks whether somebody who comes as a client may: either it has authenticated, or it
/// need not, and proves a key where it must.
///
/// # Errors
/// What whoever comes is told, where they may not.
pub fn admit(
    clients: &config::Clients,
    name: &str,
    authenticated: bool,
    key_bound: bool,
) -> Result<()> {
    let Some(client) = clients.get(name) else { return Ok(()) };
    let refused = |why: String| Err(Error::new(ErrorKind::Verification, why));
    if client.authenticates() && !authenticated {
        return refused(format!("the client '{name}' has to authenticate, by private_key_jwt"));
    }
    if client.dpop == Binding::Required && !key_bound {
        return refused(format!(
            "the client '{name}' has to prove a key of its own, by a DPoP proof"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod fuzz;
