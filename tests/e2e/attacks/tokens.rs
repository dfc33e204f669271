//! Tokens that were made up, changed, or say what they must not.

use serde_json::{Value, json};

use super::keys::{Key, hs256, message};
use super::world::{OTHER, World, now};
use super::{Attack, Lesson, Who, showing};

const SIGNATURES: Lesson =
    Lesson { name: "algorithms and keys of tokens", refused: "400 invalid_request" };
const AUDIENCES: Lesson = Lesson { name: "audiences of tokens", refused: "400 invalid_request" };
const TWICE: Lesson =
    Lesson { name: "JSON that is read in two ways", refused: "400 invalid_request" };
const TIMES: Lesson = Lesson { name: "times in tokens", refused: "400 invalid_request" };

pub(super) fn attacks() -> Vec<Attack> {
    [signatures(), audiences(), twice(), times()].into_iter().flatten().collect()
}

/// By the issuer's own key, with this header.
fn headed(lesson: Lesson, name: String, header: Value) -> Attack {
    showing(lesson, Who::Stranger, name, move |w| {
        w.secret(w.issuer.sign(&w.issuer.header(header.clone()), &w.claims(json!({}))))
    })
}

/// By the issuer's own key, with these claims.
pub(super) fn claiming(lesson: Lesson, who: Who, name: String, claims: Value) -> Attack {
    showing(lesson, who, name, move |w| w.assertion(claims.clone()))
}

/// How a public key may be written.
type Written = fn(&Key) -> Vec<u8>;

fn signatures() -> Vec<Attack> {
    let made_up =
        |name: &str, token: fn(&World) -> String| showing(SIGNATURES, Who::Stranger, name, token);
    let mut attacks = vec![
        made_up("an embedded jwk", |w| {
            let header = json!({"kid": null, "jwk": w.own.jwk()});
            w.own.sign(&w.own.header(header), &w.claims(json!({})))
        }),
        made_up("an embedded jwk under a known kid", |w| {
            w.own.sign(&w.own.header(json!({"jwk": w.own.jwk()})), &w.claims(json!({})))
        }),
        made_up("jku to a server of the attacker", |w| {
            let header = json!({"jku": format!("{}/jwks", w.trap.url())});
            w.own.sign(&w.own.header(header), &w.claims(json!({})))
        }),
        made_up("x5u to a server of the attacker", |w| {
            let header = json!({"x5u": format!("{}/x5u", w.trap.url())});
            w.own.sign(&w.own.header(header), &w.claims(json!({})))
        }),
        made_up("x5c of the attacker", |w| {
            use base64::Engine as _;
            let der = base64::engine::general_purpose::STANDARD.encode(&w.own.der);
            w.own.sign(&w.own.header(json!({"x5c": [der]})), &w.claims(json!({})))
        }),
        made_up("another key under a known kid", |w| {
            w.own.sign(&w.own.header(json!({})), &w.claims(json!({})))
        }),
        made_up("another key and no kid", |w| {
            w.own.sign(&w.own.header(json!({"kid": null})), &w.claims(json!({})))
        }),
        made_up("the key of another trusted issuer", |w| {
            w.other.sign(&w.other.header(json!({})), &w.claims(json!({})))
        }),
        made_up("the key of a client", |w| {
            w.robot.sign(&w.robot.header(json!({"kid": "one"})), &w.claims(json!({})))
        }),
        made_up("RS256 named where ES256 signed", |w| {
            w.issuer
                .sign(&w.issuer.header(json!({"alg": "RS256", "kid": "rsa"})), &w.claims(json!({})))
        }),
        made_up("ES256 named where RS256 signed", |w| {
            w.rsa.sign(&w.rsa.header(json!({"alg": "ES256", "kid": "one"})), &w.claims(json!({})))
        }),
        made_up("PS256 named where RS256 signed", |w| {
            w.rsa.sign(&w.rsa.header(json!({"alg": "PS256"})), &w.claims(json!({})))
        }),
        made_up("HS256 by the secret that is in the key set under the same kid", |w| {
            hs256(&w.issuer.header(json!({"alg": "HS256"})), &w.claims(json!({})), b"secret")
        }),
        made_up("the signature of another token", |w| {
            let good = w.assertion(json!({"sub": "bob"}));
            let (_, signature) = good.rsplit_once('.').unwrap();
            let own = message(&w.issuer.header(json!({})), &w.claims(json!({"sub": "carol"})));
            format!("{own}.{signature}")
        }),
        made_up("an empty signature", |w| {
            format!("{}.", message(&w.issuer.header(json!({})), &w.claims(json!({}))))
        }),
        made_up("a signature of zeros", |w| {
            let own = message(&w.issuer.header(json!({})), &w.claims(json!({})));
            format!("{own}.{}", "A".repeat(86))
        }),
        made_up("no third part", |w| message(&w.issuer.header(json!({})), &w.claims(json!({})))),
        made_up("b64 = false, unencoded and critical", |w| {
            let header = json!({"b64": false, "crit": ["b64"]});
            w.issuer.sign(&w.issuer.header(header), &w.claims(json!({})))
        }),
        made_up("an encrypted token, compressed", |_| {
            let header = r#"{"alg":"dir","enc":"A256GCM","zip":"DEF"}"#;
            format!("{}.e30.AAAAAAAAAAAAAAAA.e30.AAAA", message(header, "").trim_end_matches('.'))
        }),
    ];
    for alg in ["none", "None", "NONE", "nOnE", " none", "none ", "", "HS256", "es256", "ES256 "] {
        attacks.push(made_up_unsigned(format!("alg {alg:?} and no signature"), json!(alg)));
    }
    for alg in [json!(null), json!(7), json!(["ES256"]), json!({"ES256": true}), json!(true)] {
        attacks.push(made_up_unsigned(format!("alg {alg} and no signature"), alg));
    }
    let secrets: [(&str, Written); 5] = [
        ("PEM", |key| key.pem().into_bytes()),
        ("PEM without its last line end", |key| key.pem().trim_end().into()),
        ("DER", |key| key.der.clone()),
        ("JWK", |key| key.jwk().to_string().into_bytes()),
        ("kid", |key| key.kid.clone().into_bytes()),
    ];
    for (form, secret) in secrets {
        for (kind, key) in [("ES256", false), ("RS256", true)] {
            for alg in ["HS256", "HS384", "HS512"] {
                let name = format!("{alg} by the public key for {kind}, as {form}");
                attacks.push(showing(SIGNATURES, Who::Stranger, name, move |w| {
                    let key = if key { &w.rsa } else { &w.issuer };
                    let header = key.header(json!({ "alg": alg }));
                    hs256(&header, &w.claims(json!({})), &secret(key))
                }));
            }
        }
    }
    for kid in [
        json!("../../../../dev/null"),
        json!("/proc/self/environ"),
        json!("one' or '1'='1"),
        json!("one'; drop table signing_key; --"),
        json!("ONE"),
        json!("one\u{0}"),
        json!("one "),
        json!("http://127.0.0.1:9/one"),
        json!("$(touch owned)"),
        json!(""),
        json!(1),
        json!(null),
        json!(["one"]),
        json!({"one": true}),
        json!("k".repeat(30_000)),
    ] {
        let name = format!("the kid {}", kid.to_string().chars().take(40).collect::<String>());
        attacks.push(showing(SIGNATURES, Who::Stranger, name, move |w| {
            let header = format!(r#"{{"alg":"ES256","typ":"JWT","kid":{kid}}}"#);
            // `null` and others that are no text must not let every key try.
            w.secret(w.issuer.sign(&header, &w.claims(json!({}))))
        }));
    }
    for crit in [json!(["exp"]), json!([]), json!("exp"), json!(null), json!(["b64", "http://x"])] {
        let name = format!("the header crit = {crit}");
        attacks.push(showing(SIGNATURES, Who::Stranger, name, move |w| {
            let header = format!(r#"{{"alg":"ES256","kid":"one","crit":{crit},"exp":1}}"#);
            w.secret(w.issuer.sign(&header, &w.claims(json!({}))))
        }));
    }
    for typ in [
        json!("logout+jwt"),
        json!("dpop+jwt"),
        json!("secevent+jwt"),
        json!("application/logout+jwt"),
        json!("client-authentication+jwt"),
        json!("JWE"),
        json!(""),
        json!(7),
        json!(["JWT"]),
        json!({"JWT": 1}),
    ] {
        attacks.push(headed(SIGNATURES, format!("the type {typ}"), json!({ "typ": typ })));
    }
    for cty in ["JWT", "application/jwt"] {
        attacks.push(headed(SIGNATURES, format!("{cty} in it"), json!({ "cty": cty })));
    }
    attacks
}

fn made_up_unsigned(name: String, alg: Value) -> Attack {
    showing(SIGNATURES, Who::Stranger, name, move |w| {
        let header = format!(r#"{{"alg":{alg},"kid":"one","typ":"JWT"}}"#);
        format!("{}.", message(&header, &w.claims(json!({}))))
    })
}

fn audiences() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for aud in [
        json!(""),
        json!([]),
        json!([""]),
        json!([[]]),
        json!([["https://aud.example"]]),
        json!(["https://aud.example", 7]),
        json!(["https://aud.example", null]),
        json!({"https://aud.example": "https://aud.example"}),
        json!(7),
        json!(true),
        json!("*"),
        json!(["*"]),
        json!("https://aud.example/"),
        json!("https://aud.example "),
        json!("HTTPS://AUD.EXAMPLE"),
        json!("https://aud.example:443"),
        json!("https://aud.example.evil.example"),
        json!("https://aud.example\u{0}"),
        json!("https://aud.example,https://api.example.com"),
        json!("https://aud.exаmple"),
        json!("https://someone.else"),
        json!(["https://someone.else", "https://api.example.com"]),
    ] {
        attacks.push(claiming(
            AUDIENCES,
            Who::Stranger,
            format!("aud = {aud}"),
            json!({"aud": aud}),
        ));
    }
    attacks.push(claiming(AUDIENCES, Who::Stranger, "no aud".into(), json!({"aud": null})));
    attacks.push(showing(AUDIENCES, Who::Stranger, "aud = null", |w| {
        let claims = w.claims(json!({"aud": null})).replacen('{', r#"{"aud":null,"#, 1);
        w.secret(w.issuer.sign(&w.issuer.header(json!({})), &claims))
    }));
    for (name, claims) in [
        ("an ID token of another client", json!({"azp": "other"})),
        ("a client that differs in case", json!({"azp": "CLI"})),
        ("a list of clients", json!({"azp": ["cli"]})),
        ("a client_id beside a good azp", json!({"client_id": "other"})),
        ("no client", json!({"azp": null})),
        (
            "a logout token",
            json!({"events": {"http://schemas.openid.net/event/backchannel-logout": {}}}),
        ),
        ("the name of a client that has to authenticate", json!({"azp": "robot"})),
        ("bound to a key that is not proved", json!({"cnf": {"jkt": "A".repeat(43)}})),
        ("bound to a certificate", json!({"cnf": {"x5t#S256": "A".repeat(43)}})),
        ("another issuer than whose key it is", json!({"iss": OTHER})),
        ("an issuer with a slash more", json!({"iss": "https://issuer.example/"})),
        ("an issuer in capitals", json!({"iss": "https://ISSUER.example"})),
        ("an issuer in a list", json!({"iss": ["https://issuer.example"]})),
        ("no issuer", json!({"iss": null})),
    ] {
        let other = claiming(AUDIENCES, Who::Stranger, name.into(), claims);
        attacks.push(match name {
            "the name of a client that has to authenticate" => {
                other.refused(&["401 invalid_client"])
            }
            "bound to a key that is not proved" => other.refused(&["400 invalid_dpop_proof"]),
            _ => other,
        });
    }
    // Of that issuer tokens of all clients are taken, but for ID tokens.
    for (name, value) in
        [("nonce", "x"), ("at_hash", "x"), ("c_hash", "x"), ("s_hash", "x"), ("typ", "ID")]
    {
        let claims = json!({"azp": "other", name: value});
        let name = format!("an ID token of another client by its {name}, called a JWT");
        attacks.push(showing(AUDIENCES, Who::Stranger, name, move |w| w.job(claims.clone())));
    }
    attacks
}

fn twice() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for header in [
        r#"{"alg":"ES256","kid":"one","kid":"one"}"#,
        r#"{"alg":"none","kid":"one","alg":"ES256"}"#,
        r#"{"alg":"ES256","kid":"one","alg":"none"}"#,
        r#"{"alg":"ES256","kid":"one","\u0061lg":"ES256"}"#,
        r#"{"alg":"ES256","kid":"one","x":{"y":1,"y":2}}"#,
        r#"{"alg":"ES256","kid":"one",}"#,
        r#"{"alg":"ES256","kid":"one"} {}"#,
        r#"{"alg":"ES256",'kid':'one'}"#,
        r#"{"alg":"ES256","kid":"one"/*,"x":1*/}"#,
        "\u{feff}{\"alg\":\"ES256\",\"kid\":\"one\"}",
    ] {
        attacks.push(showing(TWICE, Who::Stranger, format!("the header {header}"), move |w| {
            w.secret(w.issuer.sign(header, &w.claims(json!({}))))
        }));
    }
    for more in [
        r#""sub":"alice","#,
        r#""sub":"bob","#,
        r#""s\u0075b":"bob","#,
        r#""aud":"https://evil.example","#,
        r#""exp":1,"#,
        r#""groups":[],"#,
        r#""iss":"https://other.example","#,
        r#""x":{"a":1,"a":2},"#,
        r#""x":[{"a":1,"a":1}],"#,
        r#""x":NaN,"#,
        r#""x":1e400,"#,
        r#""x":"\ud800","#,
        r#""x":"\udc00\ud800","#,
        "\"x\":\"\u{1}\",",
        r#""x":01,"#,
        r#""x":Infinity,"#,
    ] {
        attacks.push(showing(
            TWICE,
            Who::Stranger,
            format!("{more} before the claims"),
            move |w| {
                let claims = w.claims(json!({})).replacen('{', &format!("{{{more}"), 1);
                w.secret(w.issuer.sign(&w.issuer.header(json!({})), &claims))
            },
        ));
    }
    attacks
}

fn times() -> Vec<Attack> {
    let mut attacks = Vec::new();
    // What stands for the time is filled in when it is tried.
    for (name, claims) in [
        ("exp long ago", r#""exp":1"#),
        ("exp a leeway and more ago", r#""exp":{-120}"#),
        ("exp negative", r#""exp":-1"#),
        ("exp below what there is", r#""exp":-9223372036854775808"#),
        ("exp beyond all years", r#""exp":253402300800"#),
        ("exp beyond all numbers", r#""exp":18446744073709551615"#),
        ("exp as a float beyond all years", r#""exp":1e18"#),
        ("exp as a float beyond all numbers", r#""exp":1e300"#),
        ("exp as no float", r#""exp":1e400"#),
        ("exp as NaN", r#""exp":NaN"#),
        ("exp as text", r#""exp":"{+300}""#),
        ("exp as a list", r#""exp":[{+300}]"#),
        ("exp as an object", r#""exp":{}"#),
        ("exp as true", r#""exp":true"#),
        ("exp as null", r#""exp":null"#),
        ("exp in milliseconds", r#""exp":{+300}000"#),
        ("nbf in the future", r#""exp":{+900},"nbf":{+120}"#),
        ("nbf as text", r#""exp":{+300},"nbf":"{-1}""#),
        ("nbf as null", r#""exp":{+300},"nbf":null"#),
        ("nbf beyond all years", r#""exp":{+300},"nbf":1e300"#),
        ("iat in the future", r#""exp":{+900},"iat":{+120}"#),
        ("iat as text", r#""exp":{+300},"iat":"{-1}""#),
        ("iat beyond all years", r#""exp":{+300},"iat":1e300"#),
        ("no exp", r#""x":1"#),
    ] {
        attacks.push(showing(TIMES, Who::Stranger, name, move |w| {
            let now = now();
            let mut said = claims.to_string();
            for offset in [-120, -1, 120, 300, 900] {
                said = said.replace(&format!("{{{offset:+}}}"), &(now + offset).to_string());
            }
            let rest = w.claims(json!({"exp": null, "iat": null}));
            let claims = rest.replacen('{', &format!("{{{said},"), 1);
            w.secret(w.issuer.sign(&w.issuer.header(json!({})), &claims))
        }));
    }
    attacks
}
