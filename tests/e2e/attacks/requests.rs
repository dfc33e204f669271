//! Requests that say one thing to the broker, and another to whoever is on the way.

use serde_json::json;

use super::wire::{FORM, post, request};
use super::world::{ACCESS_TOKEN, ASSERTION, ID_TOKEN, World};
use super::{Attack, Lesson, Who, asking, attack, sending};
use crate::support::broker::API;

const FORMS: Lesson = Lesson { name: "parameters of requests", refused: "400 invalid_request" };
const TARGETS: Lesson = Lesson { name: "resources and audiences", refused: "400 invalid_target" };
const ROLES: Lesson = Lesson { name: "roles and lifetimes", refused: "400 invalid_request" };

pub(super) fn attacks() -> Vec<Attack> {
    [forms(), targets(), roles()].into_iter().flatten().collect()
}

/// Of a body that is to be decoded.
const ENCODED: &[&str] = &["415 invalid_request"];

/// A good request, and what of it is changed.
fn changed(name: &str, body: impl Fn(&World, String) -> Vec<u8> + 'static) -> Attack {
    attack(FORMS, Who::Stranger, name, move |w| {
        let good = w.fields(&w.assertion(json!({})), &[]);
        sending(w, post("/token", &[], body(w, good)))
    })
}

fn forms() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for more in [
        "role=deploy",
        "role=reader",
        "role=&role=reader",
        "r%6fle=reader",
        "audience=https%3A%2F%2Fapi.example.com",
        "audience=https%3A%2F%2Fevil.example",
        "resource=https%3A%2F%2Fevil.example&resource=https%3A%2F%2Fapi.example.com",
        "subject_token=x",
        "subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt",
        "grant_type=client_credentials",
        "scope=deploy%3Aread&scope=deploy%3Awrite",
        "requested_ttl=60&requested_ttl=3600",
        "requested_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aid_token",
        "actor_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt",
        "client_id=robot",
        "client_id=cli&client_id=robot",
        "client_assertion=x&client_assertion=y",
        "client_assertion_type=x",
        "x=%ff",
        "%ff=x",
        "x=%c0%af",
        "x=%ed%a0%80",
    ] {
        let besides = changed(&format!("{more} besides"), move |_, good| {
            format!("{good}&{more}").into_bytes()
        });
        attacks.push(match more.split('=').next() {
            Some("audience" | "resource") => besides.refused(&["400 invalid_target"]),
            Some("client_id") if more == "client_id=robot" => {
                besides.refused(&["401 invalid_client"])
            }
            _ => besides,
        });
    }
    attacks.push(changed("bytes that are no UTF-8", |_, good| {
        [good.as_bytes(), b"&x=\xff\xfe"].concat()
    }));
    attacks.push(changed("a hundred parameters", |_, good| {
        (0..100).fold(good, |all, n| format!("{all}&p{n}=1")).into_bytes()
    }));
    let large = changed("a body of 100,000 bytes", |_, good| {
        format!("{good}&x={}", "x".repeat(100_000)).into_bytes()
    });
    attacks.push(large.refused(&["413 invalid_request"]));
    attacks
        .push(changed("semicolons for ampersands", |_, good| good.replace('&', ";").into_bytes()));
    attacks.push(changed("JSON", |w, _| {
        json!({"subject_token": w.assertion(json!({})), "role": "deploy"}).to_string().into_bytes()
    }));
    let twice = changed("encoded twice", |_, good| good.replace('%', "%25").into_bytes());
    attacks.push(twice.refused(&["400 unsupported_grant_type"]));
    attacks.push(changed("in UTF-16", |_, good| {
        good.encode_utf16().flat_map(u16::to_be_bytes).collect()
    }));
    for (name, first) in [
        ("parameters in the query", "POST /token?{form} HTTP/1.1"),
        ("an empty query", "POST /token? HTTP/1.1"),
        ("a query besides", "POST /token?role=reader HTTP/1.1"),
        ("GET", "GET /token?{form} HTTP/1.1"),
        ("PUT", "PUT /token HTTP/1.1"),
        ("HEAD", "HEAD /token HTTP/1.1"),
        ("TRACE", "TRACE /token HTTP/1.1"),
        ("a method in small letters", "post /token HTTP/1.1"),
        ("a slash more", "POST /token/ HTTP/1.1"),
        ("two slashes", "POST //token HTTP/1.1"),
        ("dots in the path", "POST /x/../token HTTP/1.1"),
        ("an encoded letter in the path", "POST /tok%65n HTTP/1.1"),
        ("an encoded NUL in the path", "POST /token%00 HTTP/1.1"),
        ("a path in capitals", "POST /TOKEN HTTP/1.1"),
        ("a path parameter", "POST /token;x=y HTTP/1.1"),
    ] {
        let refused = match name {
            "parameters in the query" | "an empty query" | "a query besides" => FORMS.refused,
            "GET" | "PUT" | "TRACE" | "a method in small letters" => "405 method_not_allowed",
            // Its answer has no body.
            "HEAD" => "405",
            _ => "404 not_found",
        };
        let otherwise = attack(FORMS, Who::Stranger, name, move |w| {
            let form = w.fields(&w.assertion(json!({})), &[]);
            sending(w, request(&first.replace("{form}", &form), &FORM, form.as_bytes()))
        });
        attacks.push(otherwise.refused(&[refused]));
    }
    let typed = |name: &str, lines: &'static [&'static str]| {
        attack(FORMS, Who::Stranger, name, move |w| {
            let form = w.fields(&w.assertion(json!({})), &[]);
            let lines = [&FORM[..2], lines].concat();
            sending(w, request("POST /token HTTP/1.1", &lines, form.as_bytes()))
        })
    };
    attacks.extend([
        typed("no type", &[]),
        typed("a type of plain text", &["Content-Type: text/plain"]),
        typed("a type of a form in parts", &["Content-Type: multipart/form-data; boundary=x"]),
        typed("two types", &["Content-Type: text/plain", FORM[2]]),
        typed("two types, the good one first", &[FORM[2], "Content-Type: text/plain"]),
        typed(
            "two types in one line",
            &["Content-Type: application/x-www-form-urlencoded, text/plain"],
        ),
        typed("a body that claims to be gzip", &[FORM[2], "Content-Encoding: gzip"])
            .refused(ENCODED),
        typed("a body that claims to be br, deflate", &[FORM[2], "Content-Encoding: br, deflate"])
            .refused(ENCODED),
        typed("another version of the protocol", &[FORM[2], "Tmpcred-Protocol: 99"]),
    ]);
    let bomb = attack(FORMS, Who::Stranger, "a compression bomb", |w| {
        let bomb = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &[0; 60_000]].concat();
        sending(w, post("/token", &["Content-Encoding: gzip"], bomb))
    });
    attacks.push(bomb.refused(ENCODED));
    for (name, lines) in [
        ("Basic and an assertion at once", &["Authorization: Basic cm9ib3Q6eA=="][..]),
        ("Bearer and an assertion at once", &["Authorization: Bearer x"]),
    ] {
        attacks.push(attack(FORMS, Who::Stranger, name, move |w| {
            let assertion = w.client_assertion(&w.robot, "robot", json!({}));
            let by = [("client_assertion_type", ASSERTION), ("client_assertion", &*assertion)];
            let body = w.fields(&w.assertion(json!({})), &by);
            sending(w, post("/token", lines, body))
        }));
    }
    attacks.push(attack(FORMS, Who::Stranger, "a secret and an assertion at once", |w| {
        let assertion = w.client_assertion(&w.robot, "robot", json!({}));
        let by = [
            ("client_assertion_type", ASSERTION),
            ("client_assertion", &*assertion),
            ("client_id", "robot"),
            ("client_secret", "x"),
        ];
        asking(w, &w.assertion(json!({})), &by)
    }));
    attacks
}

/// By a token that is good, so that only the target is to blame.
fn targets() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for target in [
        "https://api.example.com/",
        "https://API.example.com",
        "HTTPS://api.example.com",
        "http://api.example.com",
        "https://api.example.com:443",
        "https://api.example.com:8443",
        "https://api.example.com#x",
        "https://api.example.com#",
        "https://api.example.com?",
        "https://api.example.com?x=1",
        "https://api.example.com/.",
        "https://api.example.com/..",
        "https://api.example.com/x",
        "https://user@api.example.com",
        "https://api.example.com@evil.example",
        "https://api.example.com.evil.example",
        "https://api.example.com.",
        "https://%61pi.example.com",
        "https://api.example.com%2F",
        "https://api.example.com%00",
        "https://api.example.com\u{0}",
        "https://api.example.com\n",
        "https://api.example.com ",
        " https://api.example.com",
        "https://api.exаmple.com",
        "https://ａpi.example.com",
        "https://api.example.com,https://evil.example",
        "https://api.example.com https://evil.example",
        "https://api.example.com\\@evil.example",
        "api.example.com",
        "//api.example.com",
        "*",
        "https://*.example.com",
        "https://elsewhere.example",
        "urn:x",
    ] {
        for parameter in ["audience", "resource"] {
            let who = if target.contains(['\u{0}', '\n']) { Who::Stranger } else { Who::Caller };
            let name = format!("{parameter} = {target:?}");
            attacks.push(attack(TARGETS, who, name, move |w| {
                let other = if parameter == "audience" { "resource" } else { "audience" };
                asking(w, &w.somebody(), &[(parameter, target), (other, "")])
            }));
        }
        attacks.push(attack(
            TARGETS,
            Who::Stranger,
            format!("beside a good one {target:?}"),
            move |w| asking(w, &w.somebody(), &[("audience", API), ("resource", target)]),
        ));
    }
    let none = attack(TARGETS, Who::Stranger, "none", |w| {
        asking(w, &w.assertion(json!({})), &[("audience", "")])
    });
    attacks.push(none.refused(&["400 invalid_request"]));
    attacks.push(attack(TARGETS, Who::Stranger, "one of 10,000 bytes", |w| {
        let long = format!("https://api.example.com/{}", "x".repeat(10_000));
        asking(w, &w.assertion(json!({})), &[("audience", &long)])
    }));
    attacks
}

fn roles() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for role in ["Deploy", "DEPLOY", "deploy2", "admin", "ro-t"] {
        let unknown = attack(ROLES, Who::Caller, format!("the role {role:?}"), move |w| {
            asking(w, &w.somebody(), &[("role", role)])
        });
        attacks.push(unknown.refused(&["400 access_denied"]));
    }
    for role in [
        "deploy ",
        " deploy",
        "deploy\u{0}",
        "deploy\n",
        "*",
        "deploy,reader",
        "deploy reader",
        "../deploy",
        "deploy/",
        "dеploy",
        "",
        "Role::\"deploy\"",
        "' or 1=1 --",
    ] {
        attacks.push(attack(ROLES, Who::Stranger, format!("the role {role:?}"), move |w| {
            asking(w, &w.assertion(json!({})), &[("role", role)])
        }));
    }
    for ttl in
        ["0", "-1", "+60", "1e9", "60.5", "0x3c", "60s", " 60", "٦٠", "18446744073709551616", "NaN"]
    {
        attacks.push(attack(ROLES, Who::Stranger, format!("a lifetime of {ttl:?}"), move |w| {
            asking(w, &w.assertion(json!({})), &[("requested_ttl", ttl)])
        }));
    }
    for (name, changes) in [
        ("another grant type", ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")),
        (
            "a grant type in capitals",
            ("grant_type", "URN:IETF:PARAMS:OAUTH:GRANT-TYPE:TOKEN-EXCHANGE"),
        ),
        ("a type of token that is none", ("subject_token_type", "urn:x")),
        ("SAML", ("subject_token_type", "urn:ietf:params:oauth:token-type:saml2")),
        (
            "a refresh token wanted",
            ("requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token"),
        ),
        ("an ID token wanted", ("requested_token_type", ID_TOKEN)),
    ] {
        let other = attack(ROLES, Who::Stranger, name, move |w| {
            asking(w, &w.assertion(json!({})), &[changes])
        });
        attacks.push(match changes.0 {
            "grant_type" => other.refused(&["400 unsupported_grant_type"]),
            _ => other,
        });
    }
    attacks.push(attack(ROLES, Who::Stranger, "an access token shown as an ID token", |w| {
        let header = w.issuer.header(json!({"typ": "at+jwt"}));
        let token = w.secret(w.issuer.sign(&header, &w.claims(json!({}))));
        asking(w, &token, &[("subject_token_type", ID_TOKEN)])
    }));
    let formless = attack(ROLES, Who::Caller, "a JWT wanted of a role that has none", |w| {
        let jwt = super::world::JWT;
        asking(w, &w.assertion(json!({})), &[("role", "opaque"), ("requested_token_type", jwt)])
    });
    attacks.push(formless.refused(&["400 access_denied"]));
    let keyless = attack(ROLES, Who::Caller, "a role whose tokens are bound, without a key", |w| {
        asking(w, &w.somebody(), &[("role", "bound"), ("subject_token_type", ACCESS_TOKEN)])
    });
    attacks.push(keyless.refused(&["400 invalid_dpop_proof"]));
    for path in ["/revoke", "/introspect"] {
        let name = format!("a form for another endpoint, sent to {path}");
        attacks.push(attack(ROLES, Who::Stranger, name, move |w| {
            let token = w.token("deploy");
            let who = format!("Authorization: Bearer {token}");
            sending(w, post(path, &[&who], w.fields(&token, &[])))
        }));
    }
    attacks
}
