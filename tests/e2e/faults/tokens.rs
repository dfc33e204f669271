//! Tokens that are not to be accepted.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::refused;
use crate::journey::Journey;
use crate::support::broker::API;
use crate::support::home::{Home, tmpcred};
use crate::support::run::Run;

fn base64(text: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// The parts of a token, changed and put together again.
fn forged(token: &str, header: impl Fn(&mut Value), claims: impl Fn(&mut Value)) -> String {
    let parts: Vec<&str> = token.trim().split('.').collect();
    let part = |text: &str, change: &dyn Fn(&mut Value)| {
        let mut value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap();
        change(&mut value);
        base64(value.to_string().as_bytes())
    };
    format!("{}.{}.{}", part(parts[0], &header), part(parts[1], &claims), parts[2])
}

#[test]
fn a_token_that_was_meddled_with_is_refused_with_the_reason() {
    let journey = Journey::start();
    let good = journey.tmpcred(&["token"]).run().ok().stdout;
    let same = |_: &mut Value| {};
    let verify = |token: &str| journey.tmpcred(&["verify", "--audience", API]).stdin(token);
    verify(&good).run().ok();
    let none = forged(&good, |header| header["alg"] = json!("none"), same);
    let unsigned = format!("{}.", none.rsplit_once('.').unwrap().0);
    let (start, signature) = good.trim().rsplit_once('.').unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    bytes[10] ^= 1;
    for (token, says) in [
        (none, "its algorithm is 'none'; accepted are ES256"),
        (unsigned, "its algorithm is 'none'"),
        (forged(&good, |header| header["alg"] = json!("HS256"), same), "its algorithm is 'HS256'"),
        (forged(&good, |header| header["alg"] = json!("RS256"), same), "its issuer has no key"),
        (
            forged(&good, |header| header["kid"] = json!("mine"), same),
            "has no key 'mine' for ES256",
        ),
        (forged(&good, |header| header["crit"] = json!(["x"]), same), "critical extension"),
        (forged(&good, same, |claims| claims["role"] = json!("root")), "signature does not match"),
        (forged(&good, same, |claims| claims["exp"] = json!(9_999_999_999_u64)), "does not match"),
        (format!("{start}.{}", base64(&bytes)), "its signature does not match"),
        (format!("{start}."), "its signature does not match"),
    ] {
        refused(verify(&token), 9, &["the token is not acceptable", says]);
        // Looking into it is no verdict.
        let inspected = journey.tmpcred(&["inspect", "--json"]).stdin(token).run().ok().json();
        assert_eq!(inspected["verified"], false);
        assert_eq!(inspected["claims"]["aud"], API);
    }
    // As an argument it is no name of a file, and is not repeated.
    for command in [&["inspect"][..], &["verify", "--audience", API]] {
        let given = journey.tmpcred(&[command, &[good.as_str()]].concat()).run().ended_with(2);
        assert!(given.stderr.contains("this is a token"), "{}", given.stderr);
        assert!(!given.stderr.contains(&good[..20]), "{}", given.stderr);
    }
    // What a token says of its issuer is no reason to trust that one.
    let elsewhere = forged(&good, same, |claims| claims["iss"] = json!("https://evil.example"));
    let says = ["not that of a configured broker", "'https://evil.example'", "--issuer"];
    refused(verify(&elsewhere), 9, &says);
    let other = ["verify", "--audience", "https://other.example"];
    let says = "it is for 'https://api.example.com', not for 'https://other.example'";
    refused(journey.tmpcred(&other).stdin(good.clone()), 9, &[says]);
    let both = ["verify", "--audience", "https://other.example", "--audience", API];
    journey.tmpcred(&both).stdin(good).run().ok();
}

#[test]
fn what_is_no_token_is_refused_by_verify_and_inspect_alike() {
    let home = Home::stranger();
    let verify = ["verify", "--issuer", "https://i.example", "--audience", API];
    home.write("work/keys", r#"{"keys":[]}"#);
    let huge = vec![b'a'; 3_000_000];
    for (bytes, says) in [
        (&b""[..], "it does not have three parts"),
        (b"\n \n", "it does not have three parts"),
        (b"opaque", "it does not have three parts"),
        (b"a.b.c.d", "it does not have three parts"),
        (b"!.!.!", "its header is not base64url"),
        (b"e30.e.x", "its payload is not base64url"),
        (b"W10.e30.x", "its header is not a JSON object"),
        (b"e30.MQ.x", "its payload is not a JSON object"),
        (&[0xff, 0xfe, 0, 1, 2][..], "it is not text"),
        (&huge[..], "it is too long"),
    ] {
        let verify = tmpcred(&home).args(verify).args(["--jwks", "keys"]);
        refused(verify.stdin(bytes), 9, &[says]);
        refused(tmpcred(&home).args(["inspect"]).stdin(bytes), 9, &[says]);
    }
    home.write("work/token", [0xff; 100]);
    refused(tmpcred(&home).args(["inspect", "token"]), 9, &["it is not text"]);
    home.write("work/token", &huge);
    refused(tmpcred(&home).args(["inspect", "token"]), 9, &["it is too long"]);
    refused(tmpcred(&home).args(["inspect", "absent"]), 2, &["there is no file absent"]);
    refused(tmpcred(&home).args(["inspect", "."]), 2, &[". is a directory"]);
}

/// A key of our own, and what it signs.
struct Signer {
    key: EncodingKey,
    jwks: Value,
}

const ISSUER: &str = "https://issuer.example";

impl Signer {
    fn new() -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let point = pair.der_bytes();
        let (x, y) = (base64(&point[1..33]), base64(&point[33..65]));
        let jwk = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "k", "use": "sig"});
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        Self { key, jwks: json!({ "keys": [jwk] }) }
    }

    /// A token like a good one but for these claims, with times from now on.
    fn token(&self, claims: &Value) -> String {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let mut all = json!({"iss": ISSUER, "sub": "alice", "aud": API, "iat": now, "exp": 600});
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        for name in ["exp", "nbf"] {
            if let Some(from_now) = all[name].as_i64() {
                all[name] = json!(now + from_now);
            }
        }
        all.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        self.sign(Some("at+jwt"), &all)
    }

    fn sign(&self, typ: Option<&str>, claims: &Value) -> String {
        let (kid, typ) = (Some("k".into()), typ.map(String::from));
        let header = Header { kid, typ, ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }
}

#[test]
fn a_token_that_is_signed_well_and_says_the_wrong_things_is_refused() {
    let home = Home::stranger();
    let signer = Signer::new();
    home.write("work/keys", signer.jwks.to_string());
    let verify = |token: String| -> Run {
        let verify = ["verify", "--issuer", ISSUER, "--audience", API, "--jwks", "keys"];
        tmpcred(&home).args(verify).stdin(token)
    };
    verify(signer.token(&json!({}))).run().ok();
    // Within what is forgiven.
    verify(signer.token(&json!({"exp": -30}))).run().ok();
    for (claims, says) in [
        (json!({"exp": -7200}), "it expired 2h"),
        (json!({"exp": "soon"}), "its 'exp' is not a time"),
        (json!({"exp": null}), "it has no expiry"),
        (json!({"nbf": 7200}), "it is valid only from"),
        (json!({"iss": "https://evil.example"}), "it was issued by 'https://evil.example', not by"),
        (json!({"iss": "https://issuer.example/"}), "it was issued by 'https://issuer.example/'"),
        (json!({"aud": []}), "it is for nobody"),
        (json!({"aud": null}), "it is for nobody"),
        (json!({"aud": "https://api.example.com/"}), "it is for 'https://api.example.com/'"),
        (json!({"sub": null}), "it names no subject"),
        (json!({"iss": "x\u{1b}[31m\u{7}"}), "it was issued by 'x"),
    ] {
        let output = refused(verify(signer.token(&claims)), 9, &[says]);
        assert!(!output.stderr.contains(['\u{1b}', '\u{7}']), "{:?}", output.stderr);
    }
    let stranger = Signer::new();
    refused(verify(stranger.token(&json!({}))), 9, &["its signature does not match"]);
    // A key with which the token's own sender signs is no key of the issuer's.
    let inspect = tmpcred(&home).args(["inspect"]);
    let evil = signer.token(&json!({"sub": "x\u{1b}[2J", "exp": -7200}));
    let shown = inspect.stdin(evil).run().ok();
    assert!(!shown.stdout.contains('\u{1b}'), "{:?}", shown.stdout);
    assert!(shown.stdout.contains("ago"), "{}", shown.stdout);
    assert!(shown.stderr.contains("Nothing has been checked"), "{}", shown.stderr);
}

/// RFC 9068 section 4.
#[test]
fn a_token_that_says_that_it_is_something_else_is_no_access_token() {
    let home = Home::stranger();
    let signer = Signer::new();
    home.write("work/keys", signer.jwks.to_string());
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let claims = json!({"iss": ISSUER, "sub": "alice", "aud": API, "exp": now + 600});
    let verify = |typ: Option<&str>, more: &[&str]| -> Run {
        let verify = ["verify", "--issuer", ISSUER, "--audience", API, "--jwks", "keys"];
        tmpcred(&home).args(verify).args(more).stdin(signer.sign(typ, &claims))
    };
    for typ in ["at+jwt", "application/at+jwt", "AT+JWT"] {
        verify(Some(typ), &[]).run().ok();
    }
    for typ in [None, Some("JWT"), Some("logout+jwt"), Some("at+jwt x"), Some("")] {
        let says = ["not at+jwt", "--any-type takes tokens of other types too"];
        refused(verify(typ, &[]), 9, &says);
        verify(typ, &["--any-type"]).run().ok();
    }
}

#[test]
fn keys_that_are_none_are_refused() {
    let home = Home::stranger();
    let token = Signer::new().token(&json!({}));
    let verify = |file: &str| {
        let verify = ["verify", "--issuer", ISSUER, "--audience", API, "--jwks", file];
        tmpcred(&home).args(verify).stdin(token.clone())
    };
    for (text, says) in [
        (r#"{"keys":[]}"#, "its issuer has no key 'k' for ES256"),
        (r#"{"keys":[{"kty":"oct","k":"c2VjcmV0","kid":"k","alg":"HS256"}]}"#, "has no key 'k'"),
    ] {
        home.write("work/keys", text);
        refused(verify("keys"), 9, &[says]);
    }
    for (text, says) in [
        ("", "the key set of the issuer cannot be understood"),
        ("<html>", "the key set of the issuer cannot be understood"),
        ("-----BEGIN PUBLIC KEY-----\n", "it is PEM, and no key set"),
    ] {
        home.write("work/keys", text);
        refused(verify("keys"), 2, &["keys cannot be used as a JWKS", says]);
    }
    refused(verify("absent"), 2, &["there is no file absent"]);
    let plain = ["verify", "--issuer", "http://issuer.example", "--audience", API];
    let says = ["--issuer is not acceptable", "plain http is allowed to loopback only"];
    refused(tmpcred(&home).args(plain).stdin(token), 2, &says);
}
