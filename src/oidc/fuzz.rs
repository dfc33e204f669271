//! Tokens, key sets and documents of issuers.

use reqwest::StatusCode;
use reqwest::header::{AGE, CACHE_CONTROL, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};
use time::Duration;

use super::discovery::Discovery;
use super::documents::{Freshness, MAX_AGE, MIN_AGE};
use super::jwt::{self, ALGORITHMS, Algorithm, Expectations, LEEWAY};
use super::{Issuer, Keys};
use crate::error::{Error, ErrorKind};
use crate::fuzz::{
    Fate::{self, Accepted, Refused},
    NOW, halves, headers, hold, jwk, signed,
};
use crate::host::http::Response;
use crate::secret::Secret;

const ISSUER: &str = "https://i.example";
const HEADER: &[u8] = br#"{"alg":"EdDSA","kid":"k"}"#;

fn keys() -> Keys {
    let mut key = jwk();
    key["kid"] = json!("k");
    Keys::parse(json!({"keys": [key]}).to_string().as_bytes()).unwrap()
}

fn expecting<T>(then: impl FnOnce(&Expectations<'_>) -> T) -> T {
    then(&Expectations {
        issuer: ISSUER,
        audiences: &["me".to_string()],
        algorithms: ALGORITHMS,
        nonce: None,
        now: NOW,
        leeway: LEEWAY,
    })
}

fn good_claims() -> Vec<u8> {
    let now = NOW.unix_timestamp();
    let claims =
        json!({"iss": ISSUER, "sub": "s", "aud": ["me", "you"], "exp": now + 9, "nbf": now});
    claims.to_string().into_bytes()
}

/// Nobody has the key but who made these.
#[test]
fn jwt() {
    let good = signed(HEADER, &good_claims());
    let (keys, known) = (keys(), good.clone());
    hold("jwt", [good.into_bytes()], move |input| {
        let Ok(token) = std::str::from_utf8(input) else { return Refused };
        let verified = expecting(|expected| jwt::verify(token, &keys, expected));
        let fate = Fate::accepted_if(verified.is_ok());
        match verified {
            Ok(_) => assert_eq!(token, known, "what nobody signed is accepted"),
            Err(refusal) => assert_eq!(Error::from(refusal).kind(), ErrorKind::Verification),
        }
        // What is read is what is written.
        if let Ok(read) = jwt::decode_unverified(token) {
            let text = |map: &Map<String, Value>| serde_json::to_vec(map).unwrap();
            let (header, claims) = (text(&read.header), text(&read.claims));
            let signed = signed(&header, &claims);
            let again = jwt::decode_unverified(&signed).unwrap();
            // Fractions may differ in their last digit.
            let (read, again) = ([read.header, read.claims], [again.header, again.claims]);
            let whole = !read.iter().flat_map(Map::values).any(has_fraction);
            assert!(!whole || read == again);
        }
        fate
    });
}

fn has_fraction(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(values) => values.iter().any(has_fraction),
        Value::Object(members) => members.values().any(has_fraction),
        _ => false,
    }
}

/// Whatever the holder of the key says: header, line end, claims.
#[test]
fn claims() {
    let good = [HEADER, b"\n", &good_claims()].concat();
    let keys = keys();
    hold("claims", [good], move |input| {
        let (header, claims) = halves(input);
        let token = signed(header, claims);
        let verified = expecting(|expected| jwt::verify(&token, &keys, expected));
        let Ok(verified) = verified else { return Refused };
        let header: Value = serde_json::from_slice(header).unwrap();
        let claims: Value = serde_json::from_slice(claims).unwrap();
        assert_eq!(header["alg"], "EdDSA");
        assert!(header.get("crit").is_none() && header.get("kid").is_none_or(|kid| kid == "k"));
        let cty = header["cty"].as_str().unwrap_or_default().to_ascii_lowercase();
        assert!(!matches!(&*cty, "jwt" | "application/jwt"));
        assert_eq!(claims["iss"], ISSUER);
        assert_eq!(claims["sub"], verified.principal.subject);
        assert!(!verified.principal.subject.is_empty());
        let is_me = |one: &Value| one == "me";
        assert!(is_me(&claims["aud"]) || claims["aud"].as_array().unwrap().iter().any(is_me));
        let seconds = |time: &Value| time.as_f64().unwrap();
        let (now, leeway) = (NOW.unix_timestamp() as f64, LEEWAY.whole_seconds() as f64);
        assert!(seconds(&claims["exp"]) > now - leeway);
        assert!(verified.expires_at > NOW - LEEWAY - Duration::SECOND);
        for name in ["iat", "nbf"] {
            // Fractions of a second are left out.
            assert!(claims.get(name).is_none_or(|time| seconds(time) < now + leeway + 1.0));
        }
        assert_eq!(Value::Object(verified.all), claims);
        Accepted
    });
}

#[test]
fn jwks() {
    let token = signed(HEADER, &good_claims());
    hold("jwks", [], move |input| {
        let Ok(keys) = Keys::parse(input) else { return Refused };
        let mut count = 0;
        for algorithm in ALGORITHMS {
            count = count.max(keys.candidates(None, *algorithm).count());
        }
        assert!(count <= 200);
        for secret in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            assert_eq!(keys.candidates(None, secret).count(), 0, "a shared secret is a key");
        }
        // Only a set that has the key accepts what it signed.
        let verified = expecting(|expected| jwt::verify(&token, &keys, expected));
        let text = String::from_utf8_lossy(input);
        assert!(verified.is_err() || text.contains("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"));
        Fate::accepted_if(verified.is_ok())
    });
}

#[test]
fn discovery() {
    let issuer = Issuer::parse(ISSUER).unwrap();
    hold("discovery", [], move |input| {
        let read = |text: &[u8]| {
            let document: Discovery = serde_json::from_slice(text).ok()?;
            document.check(&issuer).is_ok().then_some(document)
        };
        let Some(found) = read(input) else { return Refused };
        let text = serde_json::to_vec(&found).unwrap();
        let again = read(&text).expect("what was accepted is so again");
        assert_eq!(serde_json::to_vec(&again).unwrap(), text);
        assert_eq!(found.jwks_uri.scheme(), "https");
        assert!(found.jwks_uri.username().is_empty() && found.jwks_uri.password().is_none());
        // What nobody reads need not be text.
        let Ok::<Value, _>(document) = serde_json::from_slice(input) else { return Accepted };
        // A list may stand for an object.
        assert!(!document.is_object() || document["issuer"] == ISSUER);
        Accepted
    });
}

#[test]
fn issuer() {
    let seeds =
        ["https://a.example/t", "http://[::1]:1/", "http://localhost", "https://u@a.example"];
    hold("issuer", seeds.map(|seed| seed.into()), |input| {
        let Ok(text) = std::str::from_utf8(input) else { return Refused };
        let Ok(issuer) = Issuer::parse(text) else { return Refused };
        assert_eq!(issuer.as_str(), text);
        let url = issuer.url();
        assert!(url.query().is_none() && url.fragment().is_none() && url.username().is_empty());
        assert!(url.scheme() == "https" || crate::host::http::is_loopback(url));
        assert_eq!(issuer.join("token").host(), url.host());
        Accepted
    });
}

/// How long an issuer's answer may be kept, as it says.
#[test]
fn freshness() {
    let seeds = [
        "Cache-Control: public, Max-Age=\"600\"\nAge: 500",
        "Cache-Control: no-cache\nCache-Control: max-age=99999999999999999999",
        "Cache-Control: No-Store , max-age=600\nAge: 99999999999999999999",
        "Cache-Control: max-age=soon, private=\"a, max-age=5\"",
    ];
    hold("freshness", seeds.map(|seed| seed.into()), |input| {
        let headers = headers(input);
        let with = |more: Option<(HeaderName, &'static str)>| {
            let mut headers = headers.clone();
            if let Some((name, value)) = more {
                headers.append(name, HeaderValue::from_static(value));
            }
            let body = Secret::new(Vec::new());
            Freshness::of(&Response { status: StatusCode::OK, headers, body })
        };
        let said = with(None);
        assert!((MIN_AGE..=MAX_AGE).contains(&said.age));
        // Whatever is said besides, the strictest word counts.
        assert_eq!(
            with(Some((CACHE_CONTROL, "no-store"))),
            Freshness { age: MIN_AGE, keep: false }
        );
        assert_eq!(with(Some((CACHE_CONTROL, "no-cache"))), Freshness { age: MIN_AGE, ..said });
        let most = with(Some((CACHE_CONTROL, "max-age=61")));
        assert!(most.age <= said.age.min(Duration::seconds(61)) && most.keep == said.keep);
        assert_eq!(with(Some((CACHE_CONTROL, "max-age"))), Freshness { age: MIN_AGE, ..said });
        let aged = with(headers.get(AGE).is_none().then_some((AGE, "9999999999")));
        assert!(aged.age <= said.age && aged.keep == said.keep);
        Fate::accepted_if(said.keep && said.age > MIN_AGE)
    });
}
