//! What a client says of itself, in an assertion that it has signed.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use serde_json::json;

use super::*;
use crate::fuzz::{
    Fate::{Accepted, Refused},
    NOW, halves, hold, jwk, signed,
};
use crate::host::clock::FixedClock;

const OWN: &str = "https://broker.example";
const HEADER: &[u8] = br#"{"alg":"EdDSA","kid":"k","typ":"client-authentication+jwt"}"#;

fn known() -> Arc<Known> {
    let mut key = jwk();
    key["kid"] = json!("k");
    let keys = Keys::parse(json!({"keys": [key]}).to_string().as_bytes()).unwrap();
    let (keys, algorithms) = (KeySource::File(keys), ALGORITHMS.to_vec());
    let made_of = (serde_json::from_value(json!({"jwks_file": "keys.json"})).unwrap(), None);
    let waiting = Waiting::among(&Everybody::default());
    Arc::new(Known { made_of, keys, algorithms, waiting })
}

#[test]
fn client_assertion() {
    let known = ["robot", "drone"].map(|name| (name.to_string(), known())).into();
    let (audience, clock) = ([OWN.to_string()], Arc::new(FixedClock(NOW)));
    let clients = AssertUnwindSafe(Clients { known, audience, clock });
    let now = NOW.unix_timestamp();
    let seeds = ["robot", "drone", "stranger"].map(|client| {
        let claims = json!({
            "iss": client, "sub": client, "aud": OWN, "iat": now, "nbf": now, "exp": now + 60,
            "jti": "one",
        });
        [HEADER, b"\n", claims.to_string().as_bytes()].concat()
    });
    hold("client_assertion", seeds, move |input| {
        let (header, claims) = halves(input);
        let assertion = Secret::new(signed(header, claims));
        let outcome = clients.verify(&assertion).now_or_never();
        match outcome.expect("its keys are at hand") {
            Ok(proved) => {
                let read = jwt::decode_unverified(assertion.expose()).unwrap();
                let said = |name: &str| read.claims.get(name).and_then(Value::as_str);
                let client = Some(proved.client.as_str());
                assert!(matches!(client, Some("robot" | "drone")));
                assert_eq!([said("iss"), said("sub"), said("aud")], [client, client, Some(OWN)]);
                // It is good for one request, and for minutes.
                assert!(said("jti").is_some_and(|jti| (1..=MAX_JTI).contains(&jti.len())));
                assert!(proved.until > NOW && proved.until <= NOW + MAX_LIFETIME + LEEWAY * 2);
                // Another client that says the same has said something else.
                let others = ["robot", "drone"].into_iter().find(|name| client != Some(name));
                assert_ne!(id(others.unwrap(), &read.claims).unwrap(), proved.id);
                let types = read.header.get("typ").map(|typ| typ.as_str().unwrap());
                assert!(types.is_none_or(|typ| typ.to_ascii_lowercase().ends_with("jwt")));
                Accepted
            }
            Err(Unproved::Invalid(error) | Unproved::Unknown(error)) => {
                assert_eq!(error.kind(), ErrorKind::Verification);
                assert!(!error.to_string().chars().any(char::is_control), "{error}");
                Refused
            }
            Err(Unproved::Unavailable(error)) => panic!("nobody is asked for keys: {error}"),
        }
    });
}
