//! Proofs, and the addresses that they are for.

use serde_json::{Value, json};

use super::{Expected, Shown, Target, ath, verify};
use crate::fuzz::{
    Fate::{Accepted, Refused},
    NOW, halves, hold, jwk, signed,
};

const ADDRESS: &str = "https://b.example/token";
const TOKEN: &str = "the token";

fn header() -> Vec<u8> {
    json!({"alg": "EdDSA", "typ": "dpop+jwt", "jwk": jwk()}).to_string().into_bytes()
}

fn claims() -> Vec<u8> {
    let claims = json!({
        "jti": "1", "htm": "POST", "htu": ADDRESS, "iat": NOW.unix_timestamp(),
        "ath": ath(TOKEN), "nonce": "n",
    });
    claims.to_string().into_bytes()
}

fn expecting<T>(then: impl FnOnce(&Expected<'_>) -> T) -> T {
    let targets = [Target::parse(ADDRESS).unwrap()];
    then(&Expected { method: "POST", targets: &targets, shown: Shown::With(TOKEN), now: NOW })
}

/// A key that a stranger brings along signs what it likes, but nobody has this one.
#[test]
fn proof() {
    let good = signed(&header(), &claims());
    let known = expecting(|expected| verify(&good, expected)).unwrap().thumbprint;
    let text = good.clone();
    hold("proof", [good.into_bytes()], move |input| {
        let Ok(proof) = std::str::from_utf8(input) else { return Refused };
        let Ok(verified) = expecting(|expected| verify(proof, expected)) else { return Refused };
        assert!(proof == text || verified.thumbprint != known, "what nobody signed is accepted");
        Accepted
    });
}

/// Whatever the holder of the key says: header, line end, claims.
#[test]
fn proof_claims() {
    let good = [&header(), &b"\n"[..], &claims()].concat();
    hold("proof_claims", [good], |input| {
        let (header, claims) = halves(input);
        let proof = signed(header, claims);
        let Ok(verified) = expecting(|expected| verify(&proof, expected)) else { return Refused };
        let header: Value = serde_json::from_slice(header).unwrap();
        let claims: Value = serde_json::from_slice(claims).unwrap();
        let typ = header["typ"].as_str().unwrap().to_ascii_lowercase();
        assert_eq!(typ.strip_prefix("application/").unwrap_or(&typ), "dpop+jwt");
        let cty = header["cty"].as_str().unwrap_or_default().to_ascii_lowercase();
        assert!(!matches!(&*cty, "jwt" | "application/jwt"));
        assert!(header["alg"] == "EdDSA" || header["alg"] == "Ed25519");
        assert!(header.get("crit").is_none());
        for private in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
            assert!(header["jwk"].get(private).is_none(), "{private}");
        }
        assert_eq!((&claims["htm"], &claims["ath"]), (&json!("POST"), &json!(ath(TOKEN))));
        assert_eq!(Target::parse(claims["htu"].as_str().unwrap()), Target::parse(ADDRESS));
        assert!((claims["iat"].as_f64().unwrap() - NOW.unix_timestamp() as f64).abs() < 61.0);
        for (name, sign) in [("exp", -1.0), ("nbf", 1.0)] {
            let Some(moment) = claims.get(name) else { continue };
            let ahead = moment.as_f64().unwrap() - NOW.unix_timestamp() as f64;
            assert!(ahead * sign < 61.0, "{name}");
        }
        assert!(!claims["jti"].as_str().unwrap().is_empty());
        assert_eq!(claims.get("nonce").and_then(Value::as_str), verified.nonce.as_deref());
        assert_eq!(verified.id.len(), 43);
        Accepted
    });
}

#[test]
fn target() {
    let seeds =
        [ADDRESS, "HTTP://A.example:80/%7e/%2f/../x?y#z", "https://[::1]/", "https://é.example"];
    hold("target", seeds.map(|seed| seed.into()), |input| {
        let Ok(text) = std::str::from_utf8(input) else { return Refused };
        let Some(target) = Target::parse(text) else { return Refused };
        // What is the same is so once and for all.
        assert_eq!(Target::parse(target.as_str()), Some(target.clone()));
        assert!(!target.as_str().contains(['?', '#', ' ']) && target.as_str().starts_with("http"));
        assert!(!text.contains(['\n', '\\', ' ', '\0']));
        // Nothing was repaired.
        let origin = |text: &str| {
            let (scheme, rest) = text.split_once("://").unwrap();
            let host = rest.split(['/', '?', '#']).next().unwrap();
            format!("{scheme}://{host}").to_ascii_lowercase()
        };
        assert!(origin(text).starts_with(&origin(target.as_str())));
        Accepted
    });
}
