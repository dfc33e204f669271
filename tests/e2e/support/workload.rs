//! Jobs whose issuer is nobody: a broker has its keys in a file.

use std::path::PathBuf;
use std::time::SystemTime;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::home::Home;

/// An issuer without a server.
pub(crate) struct Workloads {
    key: EncodingKey,
    issuer: &'static str,
    /// The file with its public keys.
    pub(crate) jwks: PathBuf,
}

impl Workloads {
    /// Puts its keys into this home.
    pub(crate) fn of(issuer: &'static str, home: &Home) -> Self {
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let key = EncodingKey::from_ec_der(pkcs8.unwrap().as_ref());
        let public = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
        let jwks = serde_json::to_string(&JwkSet { keys: vec![public] }).unwrap();
        Self { key, issuer, jwks: home.write("workloads.json", jwks) }
    }

    /// Proof of being this job, for this audience, with further claims.
    pub(crate) fn assertion(&self, job: &str, audience: &str, more: &Value) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({
            "iss": self.issuer, "sub": job, "aud": audience, "iat": now, "exp": now + 1200,
        });
        let all = claims.as_object_mut().unwrap();
        all.extend(more.as_object().cloned().unwrap_or_default());
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.key).unwrap()
    }
}

/// A form that asks for this role with this assertion.
pub(crate) fn exchange<'a>(
    assertion: &'a str,
    audience: &'a str,
    role: &'a str,
) -> [(&'static str, &'a str); 5] {
    [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", assertion),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ("audience", audience),
        ("role", role),
    ]
}
