//! Services that prove who they are by tokens of an issuer whose keys are in a file.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::broker::{API, Broker, BrokerOptions};
use super::home::Home;
use super::http::{Http, Reply};
use super::wait::wait_until;

/// Their issuer, which no server stands for.
pub(crate) const ISSUER: &str = "https://services.example.com";

/// A broker that trusts them.
pub(crate) struct Services {
    /// The broker.
    pub(crate) broker: Broker,
    /// The file with the keys of their issuer.
    pub(crate) jwks: PathBuf,
    key: jsonwebtoken::EncodingKey,
    _keys: Home,
}

/// A key of an issuer, and the set of keys with its public half.
pub(crate) fn new_key() -> (jsonwebtoken::EncodingKey, String) {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
    use jsonwebtoken::jwk::{Jwk, JwkSet};
    let pkcs8 =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
    let key = jsonwebtoken::EncodingKey::from_ec_der(pkcs8.unwrap().as_ref());
    let public = Jwk::from_encoding_key(&key, jsonwebtoken::Algorithm::ES256).unwrap();
    (key, serde_json::to_string(&JwkSet { keys: vec![public] }).unwrap())
}

impl Services {
    /// Starts the broker with these policies.
    pub(crate) fn start(policy: &str) -> Self {
        Self::start_in(Home::new(), policy, "")
    }

    /// The same in this home, and with more tables of `broker.toml`.
    pub(crate) fn start_in(home: Home, policy: &str, more: &str) -> Self {
        let (key, set) = new_key();
        let keys = Home::new();
        let jwks = keys.write("jwks.json", set);
        let mut options = BrokerOptions::trusting("http://127.0.0.1:9");
        options.policy = policy.into();
        options.more = format!(
            "\n[trusted_issuer.services]\nissuer = \"{ISSUER}\"\njwks_file = \"{}\"\n{more}",
            jwks.display()
        );
        Self { broker: Broker::start_in(home, &options), jwks, key, _keys: keys }
    }

    /// A token that says who a service is.
    pub(crate) fn assertion(&self) -> String {
        self.assertion_by(&self.key, ISSUER)
    }

    /// The same that says this besides.
    pub(crate) fn assertion_with(&self, more: Value) -> String {
        self.signed(&self.key, ISSUER, more)
    }

    /// The same by another key, of another issuer.
    pub(crate) fn assertion_by(&self, key: &jsonwebtoken::EncodingKey, issuer: &str) -> String {
        self.signed(key, issuer, json!({}))
    }

    fn signed(&self, key: &jsonwebtoken::EncodingKey, issuer: &str, more: Value) -> String {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let mut claims = json!({
            "iss": issuer, "sub": "job", "aud": self.broker.url(),
            "iat": now.as_secs(), "exp": now.as_secs() + 300,
        });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
        jsonwebtoken::encode(&header, &claims, key).unwrap()
    }

    /// Asks for a token of this role, by this assertion.
    pub(crate) fn exchange(&self, http: &mut Http, assertion: &str, role: &str) -> Reply {
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("subject_token", assertion),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
            ("audience", API),
            ("role", role),
        ];
        http.form(&format!("{}/token", self.broker.url()), &form).unwrap()
    }

    /// Asks for a token to read, and returns the status of the answer.
    pub(crate) fn ask(&self, http: &mut Http) -> u16 {
        self.exchange(http, &self.assertion(), "reader").status
    }

    /// Does something while others ask for tokens to read, all the time. It is handed what
    /// waits until they have had some more answers. Returns the statuses of all answers.
    pub(crate) fn under_load(&self, work: impl FnOnce(&dyn Fn())) -> BTreeSet<u16> {
        let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        let (mut http, mut statuses) = (Http::new(), BTreeSet::new());
                        while !stop.load(Ordering::Relaxed) {
                            statuses.insert(self.ask(&mut http));
                            asked.fetch_add(1, Ordering::Relaxed);
                        }
                        statuses
                    })
                })
                .collect();
            let more = || {
                let before = asked.load(Ordering::Relaxed);
                wait_until("more requests", Duration::from_secs(30), || {
                    (asked.load(Ordering::Relaxed) > before + 6).then_some(())
                });
            };
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                more();
                work(&more);
            }));
            stop.store(true, Ordering::Relaxed);
            let statuses = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
            done.map(|()| statuses).unwrap_or_else(|why| std::panic::resume_unwind(why))
        })
    }

    /// Writes these policies, has all read anew, and waits until the log says so.
    #[track_caller]
    pub(crate) fn reload(&self, policy: &str, says: &str) {
        self.broker.home.write("policy.cedar", policy);
        self.hang_up(says);
    }

    /// Has all read anew, and waits until the log says so.
    #[track_caller]
    pub(crate) fn hang_up(&self, says: &str) {
        let count = || self.broker.said().matches(says).count();
        let before = count();
        self.broker.hang_up();
        wait_until(says, Duration::from_secs(30), || (count() > before).then_some(()));
    }
}
