//! Vectors that others have published: `tests/vectors/README.md` says which.

use std::collections::BTreeSet;

use jsonwebtoken::jwk::{Jwk, ThumbprintHash};

use super::*;

const RFC: &str = include_str!("../../../../tests/vectors/rfc.json");
const SIGNATURES: &str =
    include_str!("../../../../tests/vectors/wycheproof_json_web_signature.json");
const KEYS: &str = include_str!("../../../../tests/vectors/wycheproof_json_web_key.json");

/// Whether a signature is accepted; what is signed need not be claims.
fn is_accepted(jws: &str, keys: &Value) -> bool {
    let keys = Keys::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap();
    let expected = Expectations {
        issuer: "",
        audiences: &[],
        algorithms: ALGORITHMS,
        nonce: None,
        now: NOW,
        leeway: LEEWAY,
    };
    let parts: Vec<&str> = jws.split('.').collect();
    let [header, payload, _] = parts[..] else { return false };
    let Ok(header) = URL_SAFE_NO_PAD.decode(header) else { return false };
    let Ok(header) = serde_json::from_slice::<Map<String, Value>>(&header) else { return false };
    let Ok(algorithm) = algorithm(&header, &expected) else { return false };
    URL_SAFE_NO_PAD.decode(payload).is_ok()
        && check_signature(jws, &header, algorithm, &keys).is_ok()
}

fn algorithm_of(jws: &str) -> String {
    decode_header(jws)["alg"].as_str().unwrap_or_default().to_string()
}

fn decode_header(jws: &str) -> Value {
    let header = jws.split('.').next().unwrap_or_default();
    let header = URL_SAFE_NO_PAD.decode(header).unwrap_or_default();
    serde_json::from_slice(&header).unwrap_or_default()
}

#[test]
fn those_of_the_rfcs() {
    let vectors: Value = serde_json::from_str(RFC).unwrap();
    let (mut accepted, mut unencoded) = (BTreeSet::new(), 0);
    for vector in vectors["vectors"].as_array().unwrap() {
        let (jws, source) = (vector["jws"].as_str().unwrap(), vector["source"].as_str().unwrap());
        if is_accepted(jws, &json!([vector["key"]])) {
            accepted.insert(source);
            // The same with another signature, and with none.
            let (message, signature) = jws.rsplit_once('.').unwrap();
            let other = if signature.starts_with('A') { "B" } else { "A" };
            let forged = format!("{message}.{other}{}", &signature[1..]);
            assert!(!is_accepted(&forged, &json!([vector["key"]])), "{source}");
            assert!(!is_accepted(&format!("{message}."), &json!([vector["key"]])), "{source}");
        }
    }
    // RFC 7797 section 6: whoever does not know what is critical refuses it.
    let detached = vectors["vectors"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|vector| decode_header(vector["jws"].as_str().unwrap())["b64"] == false);
    for vector in detached {
        let header = decode_header(vector["jws"].as_str().unwrap());
        let expected = Expectations {
            issuer: "",
            audiences: &[],
            algorithms: ALGORITHMS,
            nonce: None,
            now: NOW,
            leeway: LEEWAY,
        };
        let refused = algorithm(header.as_object().unwrap(), &expected).unwrap_err();
        assert!(refused.to_string().contains("critical"), "{refused}");
        unencoded += 1;
    }
    assert_eq!(unencoded, 1);
    // Not those with a shared secret, without a signature, or with P-521.
    let expected = [
        "RFC 7515 appendix A.2",
        "RFC 7515 appendix A.3",
        "RFC 7520 section 4.1",
        "RFC 7520 section 4.2",
        "RFC 8037 appendix A.4",
    ];
    assert_eq!(accepted, expected.into());
}

/// What is accepted of these groups but should not be, and the other way round, as
/// comments of group and test. Those with algorithms that are never accepted are left out.
fn differences(text: &str) -> (usize, BTreeSet<String>) {
    let vectors: Value = serde_json::from_str(text).unwrap();
    let (mut good, mut differ) = (0, BTreeSet::new());
    for group in vectors["groups"].as_array().unwrap() {
        for test in group["tests"].as_array().unwrap() {
            let jws = test["jws"].as_str().unwrap();
            let named = algorithm_of(jws);
            let valid = test["result"] == "valid"
                && ALGORITHMS.iter().any(|algorithm| format!("{algorithm:?}") == named);
            let accepted = is_accepted(jws, &group["keys"]);
            good += usize::from(accepted);
            if accepted != valid {
                let text = |value: &Value| value.as_str().unwrap().to_string();
                differ.insert(format!("{}: {}", text(&group["comment"]), text(&test["comment"])));
            }
        }
    }
    (good, differ)
}

#[test]
fn those_of_wycheproof_for_signatures() {
    let (good, differ) = differences(SIGNATURES);
    assert!(good >= 28, "{good}");
    // The key says that it is for PS256, the signature is PS384: RFC 7517 section 4.4.
    let expected = ["rfc7520: Figure20", "rfc7520WithKeyOps: Figure20"];
    assert_eq!(differ, expected.map(String::from).into());
}

#[test]
fn those_of_wycheproof_for_keys() {
    let (good, differ) = differences(KEYS);
    assert!(good >= 2, "{good}");
    // A key that its owner made with broken hardware: that is for the issuer to know.
    let expected = ["jws_rsa_roca_key: rejectsKeyWithRocaVulnerability"];
    assert_eq!(differ, expected.map(String::from).into());
}

/// RFC 7638 section 3.1, and RFC 8037 appendix A.3: by these names the broker's keys go.
#[test]
fn those_for_thumbprints() {
    let rsa = json!({
        "kty": "RSA",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        "e": "AQAB", "alg": "RS256", "kid": "2011-04-29",
    });
    let ed = json!({
        "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    });
    for (key, thumbprint) in [
        (rsa, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"),
        (ed, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"),
    ] {
        // Whatever else is said of it (section 3.2).
        let mut more = key.clone();
        more["use"] = json!("sig");
        more["x5t"] = json!("AAAA");
        for key in [key, more] {
            let key: Jwk = serde_json::from_value(key).unwrap();
            assert_eq!(key.thumbprint(ThumbprintHash::SHA256).unwrap(), thumbprint);
        }
    }
}
