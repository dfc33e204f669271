//! Proofs that are good, and all the others.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use super::*;
use crate::secret::Secret;

const NOW: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);
const URL: &str = "https://broker.example.com/token";
const VECTORS: &str = include_str!("../../tests/vectors/rfc9449.json");

fn key() -> DeviceKey {
    DeviceKey::from_pkcs8(&DeviceKey::generate().unwrap()).unwrap()
}

fn target(url: &str) -> Target {
    Target::parse(url).unwrap()
}

fn check(proof: &str, shown: Shown<'_>) -> Result<Proof, Refusal> {
    let targets = [target("https://other.example.com/"), target(URL)];
    verify(proof, &Expected { method: "POST", targets: &targets, shown, now: NOW })
}

fn within(proof: &str) -> Result<Proof, Refusal> {
    check(proof, Shown::Within("token"))
}

/// A proof with changes to its claims and its header; `null` takes something away.
struct Forge {
    private: EncodingKey,
    header: Value,
    claims: Value,
}

impl Forge {
    fn new() -> Self {
        let private = EncodingKey::from_ec_der(DeviceKey::generate().unwrap().expose());
        let jwk = Jwk::from_encoding_key(&private, Algorithm::ES256).unwrap();
        Self {
            private,
            header: json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": jwk }),
            claims: json!({
                "jti": "1", "htm": "POST", "htu": URL, "iat": NOW.unix_timestamp(),
            }),
        }
    }

    fn claim(mut self, name: &str, value: Value) -> Self {
        change(&mut self.claims, name, value);
        self
    }

    fn header(mut self, name: &str, value: Value) -> Self {
        change(&mut self.header, name, value);
        self
    }

    fn jwk(mut self, name: &str, value: Value) -> Self {
        change(&mut self.header["jwk"], name, value);
        self
    }

    fn sign(&self) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(&self.header), encode(&self.claims));
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &self.private, Algorithm::ES256);
        format!("{message}.{}", signature.unwrap())
    }
}

fn change(of: &mut Value, name: &str, value: Value) {
    let of = of.as_object_mut().unwrap();
    match value {
        Value::Null => of.remove(name),
        value => of.insert(name.into(), value),
    };
}

#[test]
fn those_of_the_rfc() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let token = vectors["token"].as_str().unwrap();
    assert_eq!(ath(token), vectors["ath"].as_str().unwrap());
    for vector in vectors["proofs"].as_array().unwrap() {
        let text = |name: &str| vector[name].as_str().unwrap();
        let shown = if vector["token"] == true { Shown::With(token) } else { Shown::Within(token) };
        let now = OffsetDateTime::from_unix_timestamp(vector["iat"].as_i64().unwrap()).unwrap();
        let targets = [target(text("url"))];
        let expected = Expected { method: text("method"), targets: &targets, shown, now };
        let proof = verify(text("proof"), &expected).unwrap();
        assert_eq!(proof.thumbprint, vectors["thumbprint"].as_str().unwrap());
        assert_eq!((proof.nonce, proof.until), (None, now + WINDOW));
        let other = Expected { shown: Shown::With("another"), ..expected };
        assert_eq!(verify(text("proof"), &other).unwrap_err().fault, Fault::Token);
        let later = Expected { now: now + Duration::seconds(61), ..expected };
        assert_eq!(verify(text("proof"), &later).unwrap_err().fault, Fault::Time);
    }
}

#[test]
fn what_a_device_signs_is_good_for_that_request() {
    let key = key();
    let target = target(&format!("{URL}?a=b#c"));
    let token = Secret::new("token".to_string());
    let signing =
        Signing { method: "POST", target: &target, token: Some(&token), nonce: Some("n") };
    let proofs = [(); 2].map(|()| key.sign(signing, NOW).unwrap());
    let checked =
        proofs.each_ref().map(|proof| check(proof.expose(), Shown::With("token")).unwrap());
    assert!(checked.iter().all(|proof| proof.thumbprint == key.thumbprint()));
    assert!(is_thumbprint(key.thumbprint()));
    assert_eq!(checked[0].nonce.as_deref(), Some("n"));
    assert_ne!(checked[0].id, checked[1].id, "each is another one");
    for proof in &proofs {
        let claims = proof.expose().split('.').nth(1).unwrap();
        let claims: Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
        assert_eq!(claims["htu"], URL, "without query and fragment");
        // All of it is chance but what says that it is.
        let jti: uuid::Uuid = claims["jti"].as_str().unwrap().parse().unwrap();
        assert_eq!(jti.get_version(), Some(uuid::Version::Random));
    }
    assert!(!format!("{key:?}").contains("private"), "{key:?}");
    let bare = key.sign(Signing { token: None, ..signing }, NOW).unwrap();
    assert_eq!(check(bare.expose(), Shown::With("token")).unwrap_err().fault, Fault::Token);
    assert!(within(bare.expose()).is_ok());
}

#[test]
fn a_key_that_was_kept_is_the_same_and_what_is_none_is_none() {
    let kept = DeviceKey::generate().unwrap();
    let thumbprint = |kept: &Secret<Vec<u8>>| {
        DeviceKey::from_pkcs8(kept).map(|key| key.thumbprint().to_string())
    };
    assert_eq!(thumbprint(&kept), thumbprint(&kept));
    assert_ne!(thumbprint(&kept), thumbprint(&DeviceKey::generate().unwrap()));
    for cut in [0, 1, kept.expose().len() - 1] {
        assert_eq!(thumbprint(&Secret::new(kept.expose()[..cut].to_vec())), None, "{cut}");
    }
}

#[test]
fn the_ids_of_one_key_say_nothing_about_those_of_another() {
    let forges = [Forge::new(), Forge::new()];
    let ids = forges.each_ref().map(|forge| within(&forge.sign()).unwrap().id);
    assert_ne!(ids[0], ids[1]);
    assert_eq!(ids[0], within(&forges[0].sign()).unwrap().id, "whatever else it says");
}

type Change = fn(Forge) -> Forge;

#[test]
fn everything_else_is_refused_and_counted_as_what_it_is() {
    use Fault::{Malformed, Request, Signature, Time, Token};
    assert!(within(&Forge::new().sign()).is_ok());
    let changes: &[(&str, Change, Fault)] = &[
        ("another type", |f| f.header("typ", json!("JWT")), Malformed),
        ("no type", |f| f.header("typ", Value::Null), Malformed),
        ("no algorithm", |f| f.header("alg", json!("none")), Malformed),
        ("a shared secret", |f| f.header("alg", json!("HS256")), Malformed),
        ("an algorithm of another key", |f| f.header("alg", json!("RS256")), Malformed),
        ("one that is not on the list", |f| f.header("alg", json!("ES384")), Malformed),
        ("a type of another tree", |f| f.header("typ", json!("text/dpop+jwt")), Malformed),
        ("a type twice", |f| f.header("typ", json!("application/application/dpop+jwt")), Malformed),
        ("another token in it", |f| f.header("cty", json!("JWT")), Malformed),
        ("one in small letters", |f| f.header("cty", json!("Application/jwt")), Malformed),
        ("a critical extension", |f| f.header("crit", json!(["b64"])), Malformed),
        ("no key", |f| f.header("jwk", Value::Null), Malformed),
        ("a key that is none", |f| f.header("jwk", json!("key")), Malformed),
        ("a private key", |f| f.jwk("d", json!("AAAA")), Malformed),
        ("a private key of nothing", |f| f.jwk("d", json!("")), Malformed),
        (
            "a symmetric key",
            |f| f.header("jwk", json!({ "kty": "oct", "k": "c2VjcmV0" })),
            Malformed,
        ),
        ("a symmetric part", |f| f.jwk("k", json!("c2VjcmV0")), Malformed),
        ("a key for encryption", |f| f.jwk("use", json!("enc")), Malformed),
        ("a key on another curve", |f| f.jwk("crv", json!("P-384")), Malformed),
        ("no id", |f| f.claim("jti", Value::Null), Malformed),
        ("an empty id", |f| f.claim("jti", json!("")), Malformed),
        ("an id that is no text", |f| f.claim("jti", json!(1)), Malformed),
        ("a huge id", |f| f.claim("jti", json!("x".repeat(513))), Malformed),
        ("no time", |f| f.claim("iat", Value::Null), Malformed),
        ("a time that is none", |f| f.claim("iat", json!("now")), Malformed),
        ("an end that is no time", |f| f.claim("exp", json!("soon")), Malformed),
        ("an end in a list", |f| f.claim("exp", json!([NOW.unix_timestamp() + 9])), Malformed),
        ("a beginning that is no time", |f| f.claim("nbf", json!({})), Malformed),
        ("a nonce that is no text", |f| f.claim("nonce", json!(7)), Malformed),
        ("another method", |f| f.claim("htm", json!("GET")), Request),
        ("the method in small letters", |f| f.claim("htm", json!("post")), Request),
        ("no method", |f| f.claim("htm", Value::Null), Request),
        ("another address", |f| f.claim("htu", json!("https://evil.example/token")), Request),
        ("another path", |f| f.claim("htu", json!("https://broker.example.com/")), Request),
        ("without slashes", |f| f.claim("htu", json!("https:broker.example.com/token")), Request),
        ("one slash more", |f| f.claim("htu", json!("https:///broker.example.com/token")), Request),
        ("in the clear", |f| f.claim("htu", json!("http://broker.example.com/token")), Request),
        ("no address", |f| f.claim("htu", Value::Null), Request),
        ("another token", |f| f.claim("ath", json!(ath("another"))), Token),
        ("a token that is none", |f| f.claim("ath", json!(7)), Token),
        ("too old", |f| f.claim("iat", json!(NOW.unix_timestamp() - 61)), Time),
        ("of the future", |f| f.claim("iat", json!(NOW.unix_timestamp() + 61)), Time),
        ("ended", |f| f.claim("exp", json!(NOW.unix_timestamp() - 60)), Time),
        ("not begun", |f| f.claim("nbf", json!(NOW.unix_timestamp() + 61)), Time),
        ("of never", |f| f.claim("iat", json!(0)), Time),
        ("another key", |f| f.header("jwk", Forge::new().header["jwk"].clone()), Signature),
    ];
    for (what, change, fault) in changes {
        let refusal = within(&change(Forge::new()).sign()).unwrap_err();
        assert_eq!(refusal.fault, *fault, "{what}: {}", refusal.error);
        let said = refusal.error.to_string();
        assert!(said.starts_with("the DPoP proof is not acceptable"), "{said}");
    }
    for good in [
        Forge::new().claim("htu", json!(format!("{URL}?a=b#c"))),
        Forge::new().claim("iat", json!(NOW.unix_timestamp() - 60)),
        Forge::new().claim("iat", json!(NOW.unix_timestamp() + 60)),
        Forge::new().claim("ath", json!(ath("token"))),
        Forge::new().claim("exp", json!(NOW.unix_timestamp() - 59)),
        Forge::new().claim("nbf", json!(NOW.unix_timestamp() + 60)),
        Forge::new().claim("exp", json!(NOW.unix_timestamp() + 3600)).claim("nbf", json!(0.5)),
        // RFC 7515 section 4.1.9.
        Forge::new().header("typ", json!("DPoP+JWT")),
        Forge::new().header("typ", json!("application/dpop+jwt")),
        Forge::new().header("cty", json!("json")),
        Forge::new().header("kid", json!("k")).claim("more", json!({})),
    ] {
        within(&good.sign()).unwrap();
    }
}

#[test]
fn what_is_no_proof_at_all_is_refused() {
    let good = Forge::new().sign();
    let (message, _) = good.rsplit_once('.').unwrap();
    for (bad, fault) in [
        (String::new(), Fault::Malformed),
        ("x".into(), Fault::Malformed),
        (format!("{good}.x"), Fault::Malformed),
        (format!("{message}."), Fault::Signature),
        (format!("{message}.{}", "A".repeat(86)), Fault::Signature),
        (format!("{good}{}", "A".repeat(MAX_PROOF)), Fault::Malformed),
    ] {
        assert_eq!(within(&bad).unwrap_err().fault, fault, "{bad}");
    }
    let unsigned = Header::new(Algorithm::HS256);
    let shared = EncodingKey::from_secret(b"x");
    let hmac = jsonwebtoken::encode(&unsigned, &json!({}), &shared).unwrap();
    assert_eq!(within(&hmac).unwrap_err().fault, Fault::Malformed);
}

#[test]
fn keys_of_the_other_kinds_sign_too() {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
    let mut forge = Forge::new();
    for name in ["EdDSA", "Ed25519"] {
        forge.header = json!({
            "typ": "dpop+jwt", "alg": name,
            "jwk": { "kty": "OKP", "crv": "Ed25519", "x": x, "alg": name },
        });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(&forge.header), encode(&forge.claims));
        let signature = URL_SAFE_NO_PAD.encode(pair.sign(message.as_bytes()));
        assert!(is_thumbprint(&within(&format!("{message}.{signature}")).unwrap().thumbprint));
    }
}

#[test]
fn a_token_says_what_it_is_bound_to() {
    let of = |claims: Value| Bound::of(claims.as_object().unwrap());
    let thumbprint = key().thumbprint().to_string();
    assert_eq!(of(json!({})), Bound::No);
    assert_eq!(of(json!({ "cnf": { "jkt": thumbprint } })), Bound::To(thumbprint.clone()));
    for other in [
        json!({}),
        json!({ "jkt": "x" }),
        json!({ "x5t#S256": thumbprint }),
        json!("x"),
        json!(null),
    ] {
        assert_eq!(of(json!({ "cnf": other })), Bound::Otherwise, "{other}");
    }
}
