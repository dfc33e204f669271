//! The public keys of an issuer (RFC 7517), fetched when needed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use time::{Duration, OffsetDateTime};
use url::Url;

use super::jwt::{self, Claims, Expectations, Refusal};
use crate::error::{Error, ErrorKind, Result};
use crate::host::clock::Clock;
use crate::host::http::{HttpClient, Response};

/// How many keys an issuer may have.
const MAX_KEYS: usize = 200;

/// How long keys are kept where the issuer says nothing.
const DEFAULT_AGE: Duration = Duration::hours(1);

/// The bounds within which an issuer's `Cache-Control` is followed.
const AGES: std::ops::RangeInclusive<i64> = 60..=86_400;

/// How long to wait before keys are fetched again because a token names an
/// unknown one: anybody can make up such tokens.
const REFETCH_AFTER: Duration = Duration::seconds(30);

/// How long to wait before an issuer that could not be reached is asked again.
const RETRY_AFTER: Duration = Duration::seconds(5);

/// A set of public keys.
#[derive(Clone, Debug, Default)]
pub struct Keys(Vec<Key>);

#[derive(Clone, Debug)]
struct Key {
    kid: Option<String>,
    /// The algorithms for which the key may be used.
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl Keys {
    /// Reads a JWKS. Keys that cannot be used (another purpose, an unknown
    /// curve, a shared secret) are passed over.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(bytes).map_err(|cause| {
            Error::new(ErrorKind::Verification, "the key set of the issuer cannot be understood")
                .because(cause)
        })?;
        if set.keys.len() > MAX_KEYS {
            return Err(Error::new(
                ErrorKind::Verification,
                "the key set of the issuer is too large",
            )
            .because_of(format!("it has more than {MAX_KEYS} keys")));
        }
        Ok(Self(set.keys.into_iter().filter_map(Key::parse).collect()))
    }

    /// The keys that may have signed a token with this key id and algorithm.
    pub fn candidates<'a>(
        &'a self,
        kid: Option<&'a str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &'a DecodingKey> {
        self.0
            .iter()
            .filter(move |key| key.algorithms.contains(&algorithm))
            .filter(move |key| kid.is_none() || key.kid.as_deref() == kid)
            .map(|key| &key.key)
    }
}

impl Key {
    fn parse(value: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        let fits: &[Algorithm] = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => &[RS256, RS384, RS512, PS256, PS384, PS512],
            AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
                EllipticCurve::P256 => &[ES256],
                EllipticCurve::P384 => &[ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(okp) if okp.curve == EllipticCurve::Ed25519 => {
                &[EdDSA]
            }
            _ => return None,
        };
        // RFC 7517 section 4.4: a key that names its algorithm is for no other.
        let algorithms: Vec<Algorithm> = match &jwk.common.key_algorithm {
            None => fits.to_vec(),
            Some(named) => {
                let named = named.to_string();
                fits.iter().copied().filter(|a| format!("{a:?}") == named).collect()
            }
        };
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Self { kid: jwk.common.key_id, algorithms, key })
    }
}

/// Where public documents may be kept between runs.
pub trait Documents: Send + Sync {
    /// A document that was kept and may still be used.
    fn get(&self, name: &str) -> Option<Vec<u8>>;
    /// Keeps a document until then.
    fn put(&self, name: &str, bytes: &[u8], until: OffsetDateTime);
}

/// Keeps nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoDocuments;

impl Documents for NoDocuments {
    fn get(&self, _: &str) -> Option<Vec<u8>> {
        None
    }
    fn put(&self, _: &str, _: &[u8], _: OffsetDateTime) {}
}

/// The keys behind a `jwks_uri`: fetched at first need, kept as long as the
/// issuer allows, fetched again (at most once in [`REFETCH_AFTER`]) when a
/// token names an unknown one, and used beyond their age while the issuer
/// cannot be reached.
pub struct RemoteKeys {
    url: Url,
    http: HttpClient,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Held while keys are fetched: once for all who want them.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Clone, Default)]
struct State {
    held: Option<Fetched>,
    failed: Option<(OffsetDateTime, Error)>,
}

#[derive(Clone)]
struct Fetched {
    keys: Arc<Keys>,
    at: OffsetDateTime,
    until: OffsetDateTime,
}

impl RemoteKeys {
    /// The keys at this address. Nothing is fetched yet.
    pub fn new(url: Url, http: HttpClient, clock: Arc<dyn Clock>) -> Self {
        Self { url, http, clock, state: Mutex::default(), fetching: tokio::sync::Mutex::new(()) }
    }

    /// Verifies a token by these keys.
    pub async fn verify(
        &self,
        token: &str,
        expected: &Expectations<'_>,
        documents: &dyn Documents,
    ) -> Result<Claims> {
        let fetched = self.current(documents).await?;
        match jwt::verify(token, &fetched.keys, expected) {
            Err(Refusal::UnknownKey(error)) => {
                if self.clock.now() - fetched.at < REFETCH_AFTER {
                    return Err(error);
                }
                let turn = self.fetching.lock().await;
                let fetched = self.fetch_once(Some(&fetched), documents, turn).await?;
                Ok(jwt::verify(token, &fetched.keys, expected)?)
            }
            other => Ok(other?),
        }
    }

    /// The keys at hand, fetched where there are none or they are too old.
    async fn current(&self, documents: &dyn Documents) -> Result<Fetched> {
        let held = self.state().held.clone();
        let now = self.clock.now();
        if let Some(fetched) = &held
            && now < fetched.until
        {
            return Ok(fetched.clone());
        }
        if held.is_none()
            && let Some(keys) = documents.get(self.url.as_str()).and_then(|b| Keys::parse(&b).ok())
        {
            // Their age is not known, so an unknown key id may fetch at once.
            let at = now - REFETCH_AFTER;
            let fetched = Fetched { keys: Arc::new(keys), at, until: now + DEFAULT_AGE };
            self.hold(&fetched);
            return Ok(fetched);
        }
        let turn = match (self.fetching.try_lock(), &held) {
            (Ok(turn), _) => turn,
            // They are being fetched at this moment; those at hand will do.
            (Err(_), Some(old)) => return Ok(old.clone()),
            (Err(_), None) => self.fetching.lock().await,
        };
        match (self.fetch_once(held.as_ref(), documents, turn).await, held) {
            (Ok(fetched), _) => Ok(fetched),
            (Err(error), Some(old)) if error.kind() == ErrorKind::Unreachable => {
                tracing::warn!(url = %self.url, %error, "issuer keys could not be fetched; using those at hand");
                // Not asked again for every single token while it is down.
                let old = Fetched { until: now + REFETCH_AFTER, ..old };
                self.hold(&old);
                Ok(old)
            }
            (Err(error), _) => Err(error),
        }
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
            && self.clock.now() - at < RETRY_AFTER
        {
            return Err(error);
        }
        let outcome = self.fetch(documents).await;
        self.state().failed = outcome.as_ref().err().map(|error| (self.clock.now(), error.clone()));
        outcome
    }

    async fn fetch(&self, documents: &dyn Documents) -> Result<Fetched> {
        let response = self
            .http
            .get(&self.url)
            .await
            .map_err(|error| error.context("the keys of the issuer cannot be fetched"))?;
        if let Some(outage) = response.outage(self.url.as_str()) {
            return Err(outage.context("the keys of the issuer cannot be fetched"));
        }
        if !response.status.is_success() {
            return Err(Error::new(
                ErrorKind::Unreachable,
                "the keys of the issuer cannot be fetched",
            )
            .because_of(format!("{} answered {}", self.url, response.status.as_u16())));
        }
        let keys = Keys::parse(response.body.expose())?;
        let now = self.clock.now();
        let until = now + max_age(&response).unwrap_or(DEFAULT_AGE);
        documents.put(self.url.as_str(), response.body.expose(), until);
        let fetched = Fetched { keys: Arc::new(keys), at: now, until };
        self.hold(&fetched);
        Ok(fetched)
    }

    fn hold(&self, fetched: &Fetched) {
        self.state().held = Some(fetched.clone());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long an answer may be kept, by its `Cache-Control` and within [`AGES`].
pub fn max_age(response: &Response) -> Option<Duration> {
    let value = response.headers.get(reqwest::header::CACHE_CONTROL)?.to_str().ok()?;
    let seconds = value
        .split(',')
        .find_map(|directive| directive.trim().strip_prefix("max-age="))
        .and_then(|seconds| seconds.parse::<i64>().ok())?;
    Some(Duration::seconds(seconds.clamp(*AGES.start(), *AGES.end())))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use jsonwebtoken::EncodingKey;
    use serde_json::json;

    /// A fresh ES256 key: the private half, and the public one as a JWK.
    pub(crate) fn es256(kid: &str) -> (EncodingKey, Value) {
        use aws_lc_rs::rand::SystemRandom;
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
                .unwrap();
        let private = EncodingKey::from_ec_der(pkcs8.as_ref());
        let mut jwk =
            serde_json::to_value(Jwk::from_encoding_key(&private, Algorithm::ES256).unwrap())
                .unwrap();
        jwk["kid"] = json!(kid);
        (private, jwk)
    }

    fn count(keys: &Value, kid: Option<&str>, algorithm: Algorithm) -> usize {
        Keys::parse(keys.to_string().as_bytes()).unwrap().candidates(kid, algorithm).count()
    }

    #[test]
    fn unusable_keys_are_passed_over() {
        let (_, good) = es256("good");
        let mut for_encryption = good.clone();
        for_encryption["use"] = json!("enc");
        let set = json!({"keys": [
            for_encryption, {"kty": "oct", "k": "AAAA", "kid": "good", "alg": "HS256"},
            {"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"}, {"kty": "new"}, 7, good,
        ]});
        assert_eq!(count(&set, Some("good"), Algorithm::ES256), 1);
        assert_eq!(count(&set, None, Algorithm::HS256), 0);
        assert_eq!(count(&set, None, Algorithm::RS256), 0);
    }

    #[test]
    fn a_key_that_names_its_algorithm_is_for_no_other() {
        let rsa =
            |alg: Value| json!({"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB", "alg": alg}]});
        assert_eq!(count(&rsa(json!("RS256")), None, Algorithm::RS256), 1);
        assert_eq!(count(&rsa(json!("RS256")), None, Algorithm::PS256), 0);
        assert_eq!(count(&rsa(json!("RSA-OAEP")), None, Algorithm::RS256), 0);
        assert_eq!(count(&rsa(Value::Null), None, Algorithm::PS256), 1);
    }

    #[test]
    fn what_is_no_key_set_is_refused() {
        for bad in ["", "[]", "{}", "<html>", r#"{"keys": {}}"#] {
            assert!(Keys::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let many = json!({"keys": vec![json!({}); MAX_KEYS + 1]}).to_string();
        assert!(Keys::parse(many.as_bytes()).unwrap_err().to_string().contains("more than"));
    }
}
