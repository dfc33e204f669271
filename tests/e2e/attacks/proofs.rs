//! Proofs of keys (DPoP).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::keys::{hs256, merged, message};
use super::wire::{ANYBODY, INACTIVE, form, post};
use super::world::{World, now};
use super::{Attack, Lesson, Named, Who, attack, sending, sending_to};

const PROOFS: Lesson = Lesson { name: "proofs of keys", refused: "400 invalid_dpop_proof" };
const DOWNGRADES: Lesson =
    Lesson { name: "bound tokens, shown as others", refused: "401 invalid_dpop_proof" };

/// Asks for a bound token with these header lines.
fn with_lines(w: &World, lines: &[String]) -> Vec<super::Exchange> {
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    let body = w.fields(&w.assertion(json!({})), &[("role", "bound")]);
    sending(w, post("/token", &lines, body))
}

fn with_proof(w: &World, proof: &str) -> Vec<super::Exchange> {
    with_lines(w, &[format!("DPoP: {proof}")])
}

/// A proof that has a nonce, with changes.
fn proof(w: &World, header: Value, claims: Value) -> String {
    let mut all = claims.as_object().unwrap().clone();
    all.entry("nonce").or_insert_with(|| w.nonce().into());
    w.proof(&w.device, header, all.into())
}

/// Header and claims of a proof that is good but for its algorithm.
fn unsigned(w: &World, alg: &str) -> (String, String) {
    let good = proof(w, json!({}), json!({}));
    let mut parts = good.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap());
    let header = serde_json::from_slice(&parts.next().unwrap()).unwrap();
    let claims = String::from_utf8(parts.next().unwrap()).unwrap();
    (merged(header, json!({ "alg": alg })).to_string(), claims)
}

pub(super) fn attacks() -> Vec<Attack> {
    let mut attacks = Vec::new();
    let claims: [Named<Value>; 38] = [
        ("for GET", |_| json!({"htm": "GET"})),
        ("for post", |_| json!({"htm": "post"})),
        ("for no method", |_| json!({"htm": null})),
        ("for a list of methods", |_| json!({"htm": ["POST"]})),
        ("for another host", |_| json!({"htu": "https://evil.example/token"})),
        ("for another path", |w| json!({"htu": format!("{}/revoke", w.url())})),
        ("for another port", |_| json!({"htu": "http://127.0.0.1:9/token"})),
        ("for https", |w| json!({"htu": format!("{}/token", w.url().replace("http:", "https:"))})),
        ("for a path in capitals", |w| json!({"htu": format!("{}/TOKEN", w.url())})),
        ("for a path with a slash more", |w| json!({"htu": format!("{}/token/", w.url())})),
        (
            "for an address with a user",
            |w| json!({"htu": format!("{}/token", w.url().replace("//", "//u@"))}),
        ),
        ("for an address with a space", |w| json!({"htu": format!("{}/token ", w.url())})),
        (
            "for an address without slashes",
            |w| json!({"htu": format!("{}/token", w.url().replace("://", ":"))}),
        ),
        (
            "for an address with one slash",
            |w| json!({"htu": format!("{}/token", w.url().replace("://", ":/"))}),
        ),
        (
            "for an address with three slashes",
            |w| json!({"htu": format!("{}/token", w.url().replace("://", ":///"))}),
        ),
        (
            "for a short address of the machine",
            |w| json!({"htu": format!("{}/token", w.url().replace("127.0.0.1", "127.1"))}),
        ),
        (
            "for the machine by a number",
            |w| json!({"htu": format!("{}/token", w.url().replace("127.0.0.1", "2130706433"))}),
        ),
        (
            "for the machine in hexadecimal",
            |w| json!({"htu": format!("{}/token", w.url().replace("127.0.0.1", "0x7f000001"))}),
        ),
        ("for no address", |_| json!({"htu": null})),
        ("for a list of addresses", |w| json!({"htu": [format!("{}/token", w.url())]})),
        ("of two minutes ago", |_| json!({"iat": now() - 120})),
        ("of two minutes ahead", |_| json!({"iat": now() + 120})),
        ("of no time", |_| json!({"iat": null})),
        ("of a time as text", |_| json!({"iat": now().to_string()})),
        ("that has ended", |_| json!({"exp": now() - 120})),
        ("that is not good yet", |_| json!({"nbf": now() + 120})),
        ("that ends as text", |_| json!({"exp": (now() + 120).to_string()})),
        ("of a time beyond all years", |_| json!({"iat": 1e300})),
        ("without an id", |_| json!({"jti": null})),
        ("with an empty id", |_| json!({"jti": ""})),
        ("with a number for an id", |_| json!({"jti": 7})),
        ("with an id of 1,000 bytes", |_| json!({"jti": "x".repeat(1_000)})),
        ("for another token", |_| json!({"ath": "A".repeat(43)})),
        ("for a token that is a number", |_| json!({"ath": 7})),
        ("without a nonce", |_| json!({"nonce": null})),
        ("with a nonce that was made up", |_| json!({"nonce": "A".repeat(32)})),
        ("with a nonce that is a number", |_| json!({"nonce": 7})),
        ("with a nonce that was changed", |w| {
            let nonce = w.nonce();
            json!({"nonce": format!("{}{}", &nonce[..nonce.len() - 2], "AA")})
        }),
    ];
    for (name, changes) in claims {
        let changed = attack(PROOFS, Who::Stranger, name, move |w| {
            with_proof(w, &proof(w, json!({}), changes(w)))
        });
        attacks.push(match name {
            "without a nonce"
            | "with a nonce that was made up"
            | "with a nonce that was changed" => changed.refused(&["400 use_dpop_nonce"]),
            _ => changed,
        });
    }
    let headers: [Named<Value>; 17] = [
        ("of another type", |_| json!({"typ": "JWT"})),
        ("of a type of another tree", |_| json!({"typ": "text/dpop+jwt"})),
        ("with another token in it", |_| json!({"cty": "JWT"})),
        ("of no type", |_| json!({"typ": null})),
        ("with a critical extension", |_| json!({"crit": ["x"], "x": 1})),
        ("without a key", |_| json!({"jwk": null})),
        ("with a key that is text", |_| json!({"jwk": "x"})),
        ("with another key than signed", |w| json!({"jwk": w.own.jwk()})),
        ("with a private key", |w| json!({"jwk": merged(w.device.jwk(), json!({"d": "AAAA"}))})),
        ("with a shared secret", |w| json!({"jwk": merged(w.device.jwk(), json!({"k": "AAAA"}))})),
        (
            "with a key for encryption",
            |w| json!({"jwk": merged(w.device.jwk(), json!({"use": "enc"}))}),
        ),
        ("with a symmetric key", |_| json!({"jwk": {"kty": "oct", "k": "AAAA"}})),
        (
            "with a key of another curve",
            |w| json!({"jwk": merged(w.device.jwk(), json!({"crv": "secp256k1"}))}),
        ),
        (
            "with a point that is none",
            |w| json!({"jwk": merged(w.device.jwk(), json!({"x": "AAAA"}))}),
        ),
        ("by none", |_| json!({"alg": "none"})),
        ("by RS256, it says", |_| json!({"alg": "RS256"})),
        ("by HS256, it says", |_| json!({"alg": "HS256"})),
    ];
    for (name, changes) in headers {
        attacks.push(attack(PROOFS, Who::Stranger, name, move |w| {
            with_proof(w, &proof(w, changes(w), json!({})))
        }));
    }
    let made: [Named<String>; 6] = [
        ("without a signature", |w| {
            let proof = proof(w, json!({}), json!({}));
            format!("{}.", proof.rsplit_once('.').unwrap().0)
        }),
        ("by alg none, without a signature", |w| {
            let (header, claims) = unsigned(w, "none");
            format!("{}.", message(&header, &claims))
        }),
        ("by HS256 over its own public key", |w| {
            let (header, claims) = unsigned(w, "HS256");
            hs256(&header, &claims, w.device.jwk().to_string().as_bytes())
        }),
        ("that says something twice", |w| {
            let header =
                json!({"alg": "ES256", "typ": "dpop+jwt", "jwk": w.device.jwk()}).to_string();
            let claims = format!(
                r#"{{"jti":"x","htm":"GET","htm":"POST","htu":"{}/token","iat":{},"nonce":"{}"}}"#,
                w.url(),
                now(),
                w.nonce()
            );
            w.device.sign(&header, &claims)
        }),
        ("of 10,000 bytes", |w| proof(w, json!({}), json!({"x": "x".repeat(10_000)}))),
        ("that is none", |_| "x".into()),
    ];
    for (name, proof) in made {
        attacks.push(attack(PROOFS, Who::Stranger, name, move |w| with_proof(w, &proof(w))));
    }
    attacks.push(attack(PROOFS, Who::Stranger, "two of them", |w| {
        let line = || format!("DPoP: {}", proof(w, json!({}), json!({})));
        with_lines(w, &[line(), line()])
    }));
    attacks.push(attack(PROOFS, Who::Stranger, "two in one line", |w| {
        with_proof(w, &[proof(w, json!({}), json!({})), proof(w, json!({}), json!({}))].join(", "))
    }));
    attacks.push(attack(PROOFS, Who::Caller, "a second time", |w| {
        let used = proof(w, json!({}), json!({}));
        let fields = w.fields(&w.assertion(json!({})), &[("role", "bound")]);
        w.try_honest(&[&format!("DPoP: {used}")], &fields).unwrap();
        with_proof(w, &used)
    }));
    attacks.push(attack(PROOFS, Who::Caller, "a second time, at another process", |w| {
        let used = proof(w, json!({}), json!({}));
        let line = format!("DPoP: {used}");
        let fields = w.fields(&w.assertion(json!({})), &[("role", "bound")]);
        w.try_honest(&[&line], &fields).unwrap();
        sending_to(w.twin(), ANYBODY, post("/token", &[&line], fields))
    }));
    attacks.push(attack(PROOFS, Who::Caller, "the same id, signed anew", |w| {
        let (id, nonce) = (uuid::Uuid::new_v4(), w.nonce());
        let line = || {
            let claims = json!({"jti": id, "nonce": nonce});
            format!("DPoP: {}", w.proof(&w.device, json!({}), claims))
        };
        let fields = w.fields(&w.assertion(json!({})), &[("role", "bound")]);
        w.try_honest(&[&line()], &fields).unwrap();
        with_lines(w, &[line()])
    }));
    attacks.push(attack(
        PROOFS,
        Who::Caller,
        "used for something that was denied, and again",
        |w| {
            let used = proof(w, json!({}), json!({}));
            let line = format!("DPoP: {used}");
            // Refused before it is worth anything: what was used up is used up.
            let denied = w.fields(&w.assertion(json!({"sub": "nobody"})), &[("role", "bound")]);
            assert!(w.try_honest(&[&line], &denied).is_err());
            with_proof(w, &used)
        },
    ));
    // Whoever has a key can make as many as they like: none of them may leave a row.
    let by_another = "401 invalid_dpop_proof";
    let about: [(Named<String>, &str); 3] = [
        (("what is no token", |_| "g".into()), INACTIVE),
        (("a token that is not bound", |w| w.token("deploy")), by_another),
        (("a token that is bound to another key", |w| w.bound_token(&w.device)), by_another),
    ];
    for ((name, token), refused) in about {
        let asked = attack(PROOFS, Who::Stranger, format!("to ask about {name}"), move |w| {
            let token = token(w);
            let claims = json!({
                "htu": format!("{}/introspect", w.url()), "ath": super::proxy::ath(&token),
                "nonce": w.nonce(),
            });
            let proof = w.proof(&w.own, json!({}), claims);
            let lines = [format!("Authorization: DPoP {token}"), format!("DPoP: {proof}")];
            let lines: Vec<_> = lines.iter().map(String::as_str).collect();
            sending(w, post("/introspect", &lines, form(&[("token", &token)])))
        });
        attacks.push(asked.refused(&[refused]));
    }
    attacks.extend(downgrades());
    attacks
}

/// Of a token that is bound, and shown as if it were not.
const UNBOUND: &[&str] = &["401 invalid_token"];

fn downgrades() -> Vec<Attack> {
    let shown = |name: &str, lines: fn(&World, &str) -> Vec<String>| {
        attack(DOWNGRADES, Who::Stranger, name, move |w| {
            let token = w.bound_token(&w.device);
            let lines = lines(w, &token);
            let lines: Vec<_> = lines.iter().map(String::as_str).collect();
            super::proxy::held(w, &lines, &super::proxy::API_LINES)
        })
    };
    fn for_api(w: &World, token: &str, changes: Value) -> String {
        let claims = json!({
            "htm": "GET", "htu": "https://api.example.com/x", "ath": super::proxy::ath(token),
        });
        w.proof(&w.device, json!({}), merged(claims, changes))
    }
    fn dpop(token: &str, proof: &str) -> Vec<String> {
        vec![format!("Authorization: DPoP {token}"), format!("DPoP: {proof}")]
    }
    vec![
        shown("as Bearer", |_, token| vec![format!("Authorization: Bearer {token}")])
            .refused(UNBOUND),
        shown("as Bearer, with a good proof", |w, token| {
            let proof = for_api(w, token, json!({}));
            vec![format!("Authorization: Bearer {token}"), format!("DPoP: {proof}")]
        })
        .refused(UNBOUND),
        shown("as bearer, in small letters", |_, token| {
            vec![format!("authorization: bearer {token}")]
        })
        .refused(UNBOUND),
        shown("without a proof", |_, token| vec![format!("Authorization: DPoP {token}")]),
        shown("with a proof that speaks of no token", |w, token| {
            dpop(token, &for_api(w, token, json!({"ath": null})))
        }),
        shown("with a proof for another token", |w, token| {
            dpop(token, &for_api(w, token, json!({"ath": "A".repeat(43)})))
        }),
        shown("with a proof for another method", |w, token| {
            dpop(token, &for_api(w, token, json!({"htm": "POST"})))
        }),
        shown("with a proof for another path", |w, token| {
            dpop(token, &for_api(w, token, json!({"htu": "https://api.example.com/y"})))
        }),
        shown("with a proof for the token endpoint", |w, token| {
            dpop(
                token,
                &for_api(w, token, json!({"htm": "POST", "htu": format!("{}/token", w.url())})),
            )
        }),
        shown("with a nonce of the token endpoint", |w, token| {
            dpop(token, &for_api(w, token, json!({"nonce": w.nonce()})))
        })
        .refused(&["401 use_dpop_nonce"]),
        shown("with a proof by another key", |w, token| {
            let claims = json!({
                "htm": "GET", "htu": "https://api.example.com/x", "ath": super::proxy::ath(token),
            });
            dpop(token, &w.proof(&w.own, json!({}), claims))
        }),
        attack(DOWNGRADES, Who::Caller, "with a proof, a second time", |w| {
            let token = w.bound_token(&w.device);
            let lines = dpop(&token, &for_api(w, &token, json!({})));
            let lines: Vec<_> = lines.iter().map(String::as_str).collect();
            let first = &super::proxy::held(w, &lines, &super::proxy::API_LINES)[0];
            assert!(first.run().unwrap().is_granted(), "a good proof is refused");
            super::proxy::held(w, &lines, &super::proxy::API_LINES)
        }),
        shown("two ways at once", |w, token| {
            let proof = for_api(w, token, json!({}));
            [dpop(token, &proof), vec![format!("Authorization: Bearer {token}")]].concat()
        })
        .refused(&["401 invalid_request"]),
    ]
}
