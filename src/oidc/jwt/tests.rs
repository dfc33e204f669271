//! What is accepted and what is not.

mod algorithms;
mod vectors;

use super::*;
use jsonwebtoken::{EncodingKey, Header, crypto};
use serde_json::json;
use time::macros::datetime;

const NOW: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);

/// A fresh ES256 key: the private half, and the JWKS with the public one.
fn key(kid: &str) -> (EncodingKey, Keys) {
    let (private, jwk) = crate::oidc::keys::tests::es256(kid);
    let keys = Keys::parse(&serde_json::to_vec(&json!({ "keys": [jwk] })).unwrap()).unwrap();
    (private, keys)
}

fn claims() -> Value {
    json!({
        "iss": "https://i.example", "sub": "alice", "aud": "me", "nonce": "n",
        "iat": NOW.unix_timestamp(), "exp": NOW.unix_timestamp() + 300,
    })
}

/// What was verified before is verified by what was signed, and by nothing else.
#[test]
fn a_signature_that_was_seen_is_good_for_its_token_and_its_key_alone() {
    use std::sync::Arc;

    use crate::oidc::Seen;
    use crate::oidc::keys::tests::es256;

    let (seen, (private, jwk), (_, other)) = (Arc::<Seen>::default(), es256("k"), es256("k"));
    let set = |jwk: &Value| Keys::parse(json!({ "keys": [jwk] }).to_string().as_bytes()).unwrap();
    let keys = set(&jwk).remembering(Some(seen.clone()));
    let header = Header { kid: Some("k".into()), ..Header::new(Algorithm::ES256) };
    let token = sign(header, &claims(), &private);
    let me = ["me".to_string()];
    let expected = Expectations {
        issuer: "https://i.example",
        audiences: &me,
        algorithms: ALGORITHMS,
        nonce: None,
        now: NOW,
        leeway: LEEWAY,
    };
    let kept = || format!("{seen:?}");
    // One that is not good leaves nothing.
    let (message, signature) = token.rsplit_once('.').unwrap();
    let (head, payload) = message.split_once('.').unwrap();
    let other_payload = URL_SAFE_NO_PAD.encode(json!({"sub": "mallory"}).to_string());
    let forged = [
        format!("{head}.{other_payload}.{signature}"),
        format!("{message}."),
        format!("{message}.{}", signature.to_ascii_lowercase()),
        format!("{head}.{payload}.{}A", &signature[..signature.len() - 1]),
    ];
    let refused = |keys: &Keys| {
        for forged in forged.iter().filter(|forged| **forged != token) {
            assert!(verify(forged, keys, &expected).is_err(), "{forged}");
        }
    };
    refused(&keys);
    assert_eq!(kept(), "Seen(0)");
    for _ in 0..2 {
        assert_eq!(verify(&token, &keys, &expected).unwrap().principal.subject, "alice");
        assert_eq!(kept(), "Seen(1)");
    }
    // Nor is one good that is like it, or by another key of that id, or where there is none.
    refused(&keys);
    for others in [set(&other), Keys::parse(br#"{"keys": []}"#).unwrap()] {
        assert!(verify(&token, &others.remembering(Some(seen.clone())), &expected).is_err());
    }
    // All else is looked at each time.
    let late = Expectations { now: NOW + Duration::hours(1), ..expected.clone() };
    assert!(matches!(verify(&token, &keys, &late), Err(Refusal::Expired(_))));
    let elsewhere = Expectations { audiences: &["another".to_string()], ..expected.clone() };
    assert!(verify(&token, &keys, &elsewhere).is_err());
    let by_others = Expectations { algorithms: &[Algorithm::EdDSA], ..expected };
    assert!(verify(&token, &keys, &by_others).is_err());
    assert_eq!(kept(), "Seen(1)");
}

fn sign(header: Header, claims: &Value, key: &EncodingKey) -> String {
    jsonwebtoken::encode(&header, claims, key).unwrap()
}

fn header(kid: Option<&str>) -> Header {
    let mut header = Header::new(Algorithm::ES256);
    header.kid = kid.map(String::from);
    header
}

fn try_verify(token: &str, keys: &Keys) -> std::result::Result<Claims, Refusal> {
    verify(
        token,
        keys,
        &Expectations {
            issuer: "https://i.example",
            audiences: &["me".to_string()],
            algorithms: ALGORITHMS,
            nonce: Some("n"),
            now: NOW,
            leeway: LEEWAY,
        },
    )
}

fn refused(token: &str, keys: &Keys) -> String {
    Error::from(try_verify(token, keys).unwrap_err()).to_string()
}

#[test]
fn a_good_token_is_accepted_with_and_without_key_id() {
    let (private, keys) = key("k");
    for kid in [Some("k"), None] {
        let got = try_verify(&sign(header(kid), &claims(), &private), &keys).unwrap();
        assert_eq!(got.principal.subject, "alice");
        assert_eq!(got.audience, ["me"]);
    }
}

#[test]
fn each_wrong_claim_is_refused_by_name() {
    let (private, keys) = key("k");
    let now = NOW.unix_timestamp();
    for (name, value, says) in [
        ("iss", json!("https://evil.example"), "issued by 'https://evil.example'"),
        ("iss", json!(null), "issued by ''"),
        ("aud", json!("you"), "it is for 'you', not for 'me'"),
        ("aud", json!(["you", "them"]), "it is for 'you', 'them'"),
        ("aud", json!([]), "it is for nobody"),
        ("aud", json!(""), "it is for nobody"),
        ("aud", json!(null), "it is for nobody"),
        ("aud", json!({"me": "me"}), "it is for nobody"),
        ("aud", json!(["me", 7]), "it is for nobody"),
        ("aud", json!(["me", ""]), "it is for nobody"),
        ("aud", json!([["me"]]), "it is for nobody"),
        ("sub", json!(""), "no subject"),
        ("sub", json!(null), "no subject"),
        ("nonce", json!("m"), "nonce"),
        ("nonce", json!(null), "nonce"),
        ("exp", json!(null), "'exp' is not a time"),
        ("exp", json!("tomorrow"), "'exp' is not a time"),
        ("exp", json!(1e300), "'exp' is not a time"),
        ("exp", json!(now - 61), "it expired 1m 1s ago"),
        ("nbf", json!(null), "'nbf' is not a time"),
        ("nbf", json!("yesterday"), "'nbf' is not a time"),
        ("nbf", json!(-1e300), "'nbf' is not a time"),
        ("nbf", json!(now + 61), "valid only from 1m 1s in the future"),
        ("iat", json!(null), "'iat' is not a time"),
        ("iat", json!({"now": true}), "'iat' is not a time"),
        ("iat", json!(1e300), "'iat' is not a time"),
        ("iat", json!(now + 600), "issued only from 10m in the future"),
    ] {
        let mut changed = claims();
        changed[name] = value.clone();
        let error = refused(&sign(header(Some("k")), &changed, &private), &keys);
        assert!(error.contains(says), "{name}={value}: {error}");
    }
    let mut gone = claims();
    gone.as_object_mut().unwrap().remove("exp");
    assert!(refused(&sign(header(None), &gone, &private), &keys).contains("no expiry"));
}

#[test]
fn one_of_several_audiences_suffices_and_leeway_is_forgiven() {
    let (private, keys) = key("k");
    let mut c = claims();
    c["aud"] = json!(["you", "me"]);
    c["exp"] = json!(NOW.unix_timestamp() - 59);
    assert!(try_verify(&sign(header(None), &c, &private), &keys).is_ok());
}

/// RFC 7519 sections 4.1.4 and 4.1.5: other clocks may differ from this one, by so much.
#[test]
fn the_leeway_is_forgiven_and_not_a_second_more() {
    let (private, keys) = key("k");
    let (now, leeway) = (NOW.unix_timestamp(), LEEWAY.whole_seconds());
    // At `exp` itself a token is no good any more; at `nbf` it is.
    for (name, good, bad, says) in [
        ("exp", now - leeway + 1, now - leeway, "it expired 1m ago"),
        ("nbf", now + leeway, now + leeway + 1, "valid only from 1m 1s in the future"),
        ("iat", now + leeway, now + leeway + 1, "issued only from 1m 1s in the future"),
    ] {
        let at = |time: i64| {
            let mut claims = claims();
            claims[name] = json!(time);
            sign(header(Some("k")), &claims, &private)
        };
        assert!(try_verify(&at(good), &keys).is_ok(), "{name}");
        let error = refused(&at(bad), &keys);
        assert!(error.contains(says), "{name}: {error}");
    }
}

/// RFC 7519 section 4.
#[test]
fn what_is_not_understood_is_ignored() {
    let (private, keys) = key("k");
    let mut with = claims();
    let unknown = json!({"https://else.example/x": [1, {"y": null}]});
    with["more"] = unknown.clone();
    with["https://else.example/x"] = json!(true);
    let mut header = header(Some("k"));
    header.extras.insert("more", unknown.clone());
    let got = try_verify(&sign(header, &with, &private), &keys).unwrap();
    assert_eq!(got.principal.subject, "alice");
    assert_eq!(got.all["more"], unknown);
}

#[test]
fn other_algorithms_are_refused() {
    let (_, keys) = key("k");
    let b64 = |v: Value| URL_SAFE_NO_PAD.encode(v.to_string());
    for alg in ["none", "None", "HS256", "ES256K", ""] {
        let token = format!("{}.{}.", b64(json!({"alg": alg, "kid": "k"})), b64(claims()));
        assert!(refused(&token, &keys).contains("its algorithm is"), "{alg}");
    }
    // The public key as a shared secret.
    let secret = EncodingKey::from_secret(b"public");
    let token = sign(Header::new(Algorithm::HS256), &claims(), &secret);
    assert!(refused(&token, &keys).contains("its algorithm is 'HS256'"));
}

#[test]
fn keys_are_taken_from_the_issuer_only() {
    let (private, keys) = key("k");
    let (other, other_keys) = key("k");
    assert!(refused(&sign(header(Some("k")), &claims(), &other), &keys).contains("signature"));
    // A token that brings or points to its own key.
    let (_, jwk) = crate::oidc::keys::tests::es256("k");
    let mut own = header(Some("k"));
    own.jwk = Some(serde_json::from_value(jwk).unwrap());
    own.jku = Some("https://evil.example/jwks".into());
    own.x5u = Some("https://evil.example/x5u".into());
    assert!(refused(&sign(own, &claims(), &other), &keys).contains("signature"));
    for kid in ["../../etc/passwd", "' or 1=1 --", "K", "k\0"] {
        let token = sign(header(Some(kid)), &claims(), &private);
        assert!(matches!(try_verify(&token, &keys), Err(Refusal::UnknownKey(_))), "{kid}");
    }
    assert!(try_verify(&sign(header(None), &claims(), &other), &other_keys).is_ok());
}

#[test]
fn what_says_something_twice_or_names_its_key_by_no_text_is_refused() {
    let (private, keys) = key("k");
    let signed = |header: &str, claims: &str| {
        let message = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
        let signature = crypto::sign(message.as_bytes(), &private, Algorithm::ES256).unwrap();
        format!("{message}.{signature}")
    };
    let good = claims().to_string();
    assert!(try_verify(&signed(r#"{"alg":"ES256","kid":"k"}"#, &good), &keys).is_ok());
    for header in [
        r#"{"alg":"ES256","kid":"k","kid":"k"}"#,
        r#"{"alg":"none","kid":"k","alg":"ES256"}"#,
        r#"{"alg":"ES256","jwk":{"kty":"EC","kty":"oct"}}"#,
    ] {
        assert!(refused(&signed(header, &good), &keys).contains("twice"), "{header}");
    }
    let twice = good.replacen('{', r#"{"sub":"root","#, 1);
    assert!(refused(&signed(r#"{"alg":"ES256"}"#, &twice), &keys).contains("twice"));
    for kid in ["7", "null", "[\"k\"]", "true", "{}"] {
        let header = format!(r#"{{"alg":"ES256","kid":{kid}}}"#);
        assert!(refused(&signed(&header, &good), &keys).contains("no text"), "{kid}");
    }
}

#[test]
fn critical_extensions_are_refused() {
    let (private, keys) = key("k");
    let mut h = header(Some("k"));
    h.extras.insert("crit", json!(["b64"]));
    h.extras.insert("b64", json!(false));
    assert!(refused(&sign(h, &claims(), &private), &keys).contains("critical"));
}

/// RFC 7519 sections 5.2 and 7.2, step 8: what looks like claims is none there.
#[test]
fn a_token_that_says_that_there_is_another_one_in_it_is_refused() {
    let (private, keys) = key("k");
    let with = |cty: &str| {
        let header = Header { cty: Some(cty.into()), ..header(Some("k")) };
        sign(header, &claims(), &private)
    };
    for cty in ["JWT", "jwt", "application/jwt", "Application/JWT"] {
        let token = with(cty);
        assert!(refused(&token, &keys).contains("another token in it"), "{cty}");
        let unverified = decode_unverified(&token).unwrap();
        let expected = Expectations {
            issuer: "https://i.example",
            audiences: &["me".to_string()],
            algorithms: ALGORITHMS,
            nonce: None,
            now: NOW,
            leeway: LEEWAY,
        };
        assert!(look(unverified, &expected).is_err(), "{cty}");
        assert!(check_unverified(&token, "me", NOW).is_err(), "{cty}");
    }
    for cty in ["", "json", "text/jwt", "application/application/jwt"] {
        assert!(try_verify(&with(cty), &keys).is_ok(), "{cty}");
        assert!(check_unverified(&with(cty), "me", NOW).is_ok(), "{cty}");
    }
}

#[test]
fn what_is_no_jwt_is_refused_without_panic() {
    let (private, keys) = key("k");
    let good = sign(header(Some("k")), &claims(), &private);
    for cut in 0..good.len() {
        assert!(try_verify(&good[..cut], &keys).is_err(), "{cut}");
    }
    for bad in ["", "...", "a.b", "a.b.c.d", "é.é.é", &"a".repeat(MAX_TOKEN + 1)] {
        assert!(refused(bad, &keys).contains("not a signed JWT"));
    }
    let deep = URL_SAFE_NO_PAD.encode("[".repeat(10_000));
    assert!(refused(&format!("{deep}.{deep}.x"), &keys).contains("not a signed JWT"));
}

/// RFC 7519 section 7.2: what would be forgiven in other base64 or other JSON is not.
#[test]
fn what_is_not_written_as_a_jwt_has_to_be_is_refused() {
    let (private, keys) = key("k");
    let good = sign(header(Some("k")), &claims(), &private);
    let parts: Vec<&str> = good.split('.').collect();
    let with = |at: usize, part: String| {
        let mut changed: Vec<String> = parts.iter().map(|part| part.to_string()).collect();
        changed[at] = part;
        changed.join(".")
    };
    for (at, part) in parts.iter().enumerate() {
        for bad in [
            format!("{part}="),
            format!("{part}\n"),
            format!(" {part}"),
            format!("{part}+/"),
            String::new(),
        ] {
            assert!(try_verify(&with(at, bad.clone()), &keys).is_err(), "{at}: {bad}");
        }
    }
    for (header, claims) in [
        (&b"[]"[..], &b"{}"[..]),
        (b"\"x\"", b"{}"),
        (br#"{"alg":"ES256"}"#, b"7"),
        (br#"{"alg":"ES256"}"#, b"{\"sub\":\"\xff\"}"),
        (b"\xef\xbb\xbf{\"alg\":\"ES256\"}", b"{}"),
        // A JWT within one (section 5.2), and one that is encrypted (RFC 7516).
        (br#"{"alg":"ES256","kid":"k","cty":"JWT"}"#, good.as_bytes()),
        (br#"{"alg":"RSA-OAEP","enc":"A256GCM"}"#, b"{}"),
    ] {
        let message = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
        let signature = crypto::sign(message.as_bytes(), &private, Algorithm::ES256).unwrap();
        assert!(try_verify(&format!("{message}.{signature}"), &keys).is_err(), "{message}");
    }
    assert!(try_verify(&format!("{good}.x.y"), &keys).is_err(), "five parts are a JWE");
}
