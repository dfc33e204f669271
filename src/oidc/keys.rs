//! The public keys of an issuer (RFC 7517).

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use data_encoding::HEXLOWER;
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse, ThumbprintHash,
};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::Deserialize;
use serde_json::Value;

use super::jwt::{self, ALGORITHMS};
use super::seen::Seen;
use crate::error::{Error, ErrorKind, Result};

/// How many keys an issuer may have.
const MAX_KEYS: usize = 200;

/// What PEM begins with, which people take for a key set.
const PEM: &[u8] = b"-----BEGIN";

/// A set of public keys.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    keys: Vec<Key>,
    version: String,
    /// Where it is kept in mind what they have signed.
    seen: Option<Arc<Seen>>,
}

/// How much of the hash of a key set names its version, in bytes.
const VERSION: usize = 8;

#[derive(Clone, Debug)]
struct Key {
    kid: Option<String>,
    /// The algorithms for which the key may be used.
    algorithms: Vec<Algorithm>,
    /// The algorithm that it names, where that is one for signatures, and a key of its type can
    /// be for no such one.
    misnamed: Option<String>,
    key: DecodingKey,
    /// RFC 7638.
    thumbprint: String,
}

/// A key that may have signed a token.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    key: &'a Key,
    algorithm: Algorithm,
    seen: Option<&'a Seen>,
}

impl<'a> Candidate<'a> {
    /// Names the key (RFC 7638, with SHA-256).
    pub fn thumbprint(&self) -> &'a str {
        &self.key.thumbprint
    }

    /// Whether it has signed this token (RFC 7515 section 5.2): all before the last dot.
    pub fn has_signed(&self, token: &str) -> bool {
        let (message, signature) = token.rsplit_once('.').unwrap_or((token, ""));
        let verified = || {
            crypto::verify(signature, message.as_bytes(), &self.key.key, self.algorithm)
                .unwrap_or(false)
        };
        let Some(seen) = self.seen else { return verified() };
        let name = Seen::name(&self.key.thumbprint, token);
        if seen.has(&name) {
            return true;
        }
        let verified = verified();
        if verified {
            seen.keep(name);
        }
        verified
    }
}

impl Keys {
    /// Reads a JWKS. Keys that cannot be used (another purpose, an unknown
    /// curve, a shared secret) are passed over.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        // RFC 8259 section 8.1: a mark of the byte order may be passed over.
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let set: Set = serde_json::from_slice(text).map_err(|cause| {
            let what = "the key set of the issuer cannot be understood";
            let error = Error::new(ErrorKind::Verification, what);
            match text.trim_ascii_start().starts_with(PEM) {
                true => error
                    .because_of("it is PEM, and no key set")
                    .hint("a JWKS is a JSON object with `keys`: RFC 7517 section 5"),
                false => error.because(cause),
            }
        })?;
        if set.keys.len() > MAX_KEYS {
            return Err(Error::new(
                ErrorKind::Verification,
                "the key set of the issuer is too large",
            )
            .because_of(format!("it has more than {MAX_KEYS} keys")));
        }
        let version = HEXLOWER.encode(&digest(&SHA256, bytes).as_ref()[..VERSION]);
        let keys = set.keys.into_iter().filter_map(Key::parse).collect();
        Ok(Self { keys, version, seen: None })
    }

    /// Keeps in mind there what they have signed.
    #[must_use]
    pub fn remembering(self, seen: Option<Arc<Seen>>) -> Self {
        Self { seen, ..self }
    }

    /// Tells one version of the document from another: a part of its SHA-256.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether there is none that can be used.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many can be used.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// The algorithms for which there are keys.
    pub fn algorithms(&self) -> Vec<Algorithm> {
        let has = |one: &Algorithm| self.keys.iter().any(|key| key.algorithms.contains(one));
        ALGORITHMS.iter().copied().filter(has).collect()
    }

    /// The keys that name an algorithm which they cannot be for, by their ids, each with that one.
    pub fn misnamed(&self) -> impl Iterator<Item = (&str, &str)> {
        self.keys.iter().filter_map(|key| {
            let id = key.kid.as_deref().unwrap_or(&key.thumbprint);
            Some((id, key.misnamed.as_deref()?))
        })
    }

    /// Whether there is a key of this id.
    pub fn has(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid.as_deref() == Some(kid))
    }

    /// The keys that may have signed a token with this key id and algorithm.
    pub fn candidates<'a>(
        &'a self,
        kid: Option<&'a str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = Candidate<'a>> {
        self.keys
            .iter()
            .filter(move |key| key.algorithms.contains(&algorithm))
            .filter(move |key| kid.is_none() || key.kid.as_deref() == kid)
            .map(move |key| Candidate { key, algorithm, seen: self.seen.as_deref() })
    }
}

impl Key {
    fn parse(value: Value) -> Option<Self> {
        let named = value.get("alg").and_then(Value::as_str).map(String::from);
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        // RFC 7517 section 4.3.
        if jwk.common.key_operations.as_ref().is_some_and(|o| !o.contains(&KeyOperations::Verify)) {
            return None;
        }
        use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        let fits: &[Algorithm] = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => &[RS256, RS384, RS512, PS256, PS384, PS512],
            AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
                EllipticCurve::P256 if are_long([&ec.x, &ec.y], 32) => &[ES256],
                EllipticCurve::P384 if are_long([&ec.x, &ec.y], 48) => &[ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(okp)
                if okp.curve == EllipticCurve::Ed25519 && are_long([&okp.x], 32) =>
            {
                &[EdDSA]
            }
            _ => return None,
        };
        // RFC 7517 section 4.4: a key that names its algorithm is for no other.
        let among = |all: &[Algorithm], name: &str| -> Vec<Algorithm> {
            all.iter().copied().filter(|a| jwt::is_name_of(name, *a)).collect()
        };
        let algorithms = named.as_deref().map_or_else(|| fits.to_vec(), |name| among(fits, name));
        // One for encryption is another matter.
        let signs = |name: &String| !among(ALGORITHMS, name).is_empty();
        let misnamed = named.filter(|name| algorithms.is_empty() && signs(name));
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        let thumbprint = jwk.thumbprint(ThumbprintHash::SHA256).ok()?;
        Some(Self { kid: jwk.common.key_id, algorithms, misnamed, key, thumbprint })
    }
}

/// Whether each of these numbers has so many octets (RFC 7518 section 6.2.1.2, RFC 8037 section 2).
/// Two that have as many together are the same point, and would be a key by another name.
fn are_long<const N: usize>(numbers: [&String; N], octets: usize) -> bool {
    numbers
        .into_iter()
        .all(|number| URL_SAFE_NO_PAD.decode(number).is_ok_and(|decoded| decoded.len() == octets))
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
    fn the_newer_name_of_ed25519_means_the_same() {
        let x = URL_SAFE_NO_PAD.encode([7; 32]);
        let key = |alg: &str| json!({"kty": "OKP", "crv": "Ed25519", "x": x, "alg": alg});
        for alg in ["EdDSA", "Ed25519"] {
            assert_eq!(count(&json!({"keys": [key(alg)]}), None, Algorithm::EdDSA), 1, "{alg}");
        }
        assert_eq!(count(&json!({"keys": [key("Ed448")]}), None, Algorithm::EdDSA), 0);
        // Of another curve it is a mistake.
        let (_, mut other) = es256("a");
        other["alg"] = json!("Ed25519");
        let keys = Keys::parse(json!({"keys": [other]}).to_string().as_bytes()).unwrap();
        assert_eq!(keys.misnamed().collect::<Vec<_>>(), [("a", "Ed25519")]);
    }

    #[test]
    fn a_key_has_one_name() {
        let (_, good) = es256("a");
        let number = |name: &str| URL_SAFE_NO_PAD.decode(good[name].as_str().unwrap()).unwrap();
        let (x, y) = (number("x"), number("y"));
        let cut = |at: usize| {
            let whole = [x.clone(), y.clone()].concat();
            let mut other = good.clone();
            other["x"] = json!(URL_SAFE_NO_PAD.encode(&whole[..at]));
            other["y"] = json!(URL_SAFE_NO_PAD.encode(&whole[at..]));
            count(&json!({"keys": [other]}), None, Algorithm::ES256)
        };
        assert_eq!([31, 32, 33].map(cut), [0, 1, 0]);
        let short = URL_SAFE_NO_PAD.encode([7; 31]);
        let short = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": short}]});
        assert_eq!(count(&short, None, Algorithm::EdDSA), 0);
    }

    #[test]
    fn a_key_that_names_what_it_cannot_be_for_is_known() {
        let (_, mut key) = es256("a");
        let read =
            |key: &Value| Keys::parse(json!({"keys": [key]}).to_string().as_bytes()).unwrap();
        let good = read(&key);
        assert_eq!((good.algorithms(), good.misnamed().count()), (vec![Algorithm::ES256], 0));
        key["alg"] = json!("RS256");
        let keys = read(&key);
        assert_eq!(keys.misnamed().collect::<Vec<_>>(), [("a", "RS256")]);
        assert_eq!(keys.algorithms(), []);
        // For encryption.
        key["alg"] = json!("RSA-OAEP");
        assert_eq!(read(&key).misnamed().count(), 0);
    }

    #[test]
    fn what_is_no_key_set_is_refused() {
        let pem = Keys::parse(b"\n-----BEGIN PUBLIC KEY-----\nAA==").unwrap_err();
        assert!(pem.to_string().contains("it is PEM") && !pem.hints().is_empty(), "{pem}");
        for bad in ["", "[]", "{}", "<html>", r#"{"keys": {}}"#] {
            assert!(Keys::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(
            Keys::parse("\u{feff}{\"keys\": []}".as_bytes()).is_ok(),
            "as some editors write it"
        );
        let many = json!({"keys": vec![json!({}); MAX_KEYS + 1]}).to_string();
        assert!(Keys::parse(many.as_bytes()).unwrap_err().to_string().contains("more than"));
    }
}
