//! What is asked in a proxy's name.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::wire::{STRANGER, request};
use super::world::World;
use super::{Attack, Exchange, Lesson, Named, Who, attack, sending, sending_to};

const HEADERS: Lesson = Lesson { name: "headers in a proxy's name", refused: "403 forbidden" };

/// Where no token is seen.
const NO_TOKEN: &str = "401 unauthorized";

/// What nginx says of a request for the API.
pub(super) const API_LINES: [&str; 3] =
    ["X-Original-Method: GET", "X-Original-Host: api.example.com", "X-Original-URI: /x"];

/// The hash of a token, as proofs have it.
pub(super) fn ath(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, token.as_bytes()))
}

/// A request that the proxy holds up.
pub(super) fn held(w: &World, more: &[&str], about: &[&str]) -> Vec<Exchange> {
    asked(w, "/v1/authz", more, about)
}

fn asked(w: &World, path: &str, more: &[&str], about: &[&str]) -> Vec<Exchange> {
    let lines = [&["Host: 127.0.0.1", "Connection: close"][..], about, more].concat();
    let bytes = request(&format!("GET {path} HTTP/1.1"), &lines, b"");
    sending_to(w.authz, super::ANYBODY, bytes)
}

pub(super) fn attacks() -> Vec<Attack> {
    let mut attacks = Vec::new();
    let about: [(&str, &'static [&'static str]); 24] = [
        ("nothing", &[]),
        ("no host", &["X-Original-Method: GET", "X-Original-URI: /x"]),
        ("no method", &["X-Original-Host: api.example.com", "X-Original-URI: /x"]),
        ("no path", &["X-Original-Host: api.example.com", "X-Original-Method: GET"]),
        ("two hosts", &[API_LINES[0], API_LINES[1], "X-Original-Host: evil.example", API_LINES[2]]),
        ("two paths", &[API_LINES[0], API_LINES[1], API_LINES[2], "X-Original-URI: /y"]),
        ("the same path twice", &[API_LINES[0], API_LINES[1], API_LINES[2], API_LINES[2]]),
        ("two methods", &[API_LINES[0], "X-Original-Method: POST", API_LINES[1], API_LINES[2]]),
        (
            "the headers of another proxy",
            &[
                "X-Forwarded-Method: GET",
                "X-Forwarded-Host: api.example.com",
                "X-Forwarded-Uri: /x",
            ],
        ),
        ("another host", &[API_LINES[0], "X-Original-Host: evil.example", API_LINES[2]]),
        (
            "a host with a port",
            &[API_LINES[0], "X-Original-Host: api.example.com:8443", API_LINES[2]],
        ),
        ("a host with a user", &[API_LINES[0], "X-Original-Host: u@api.example.com", API_LINES[2]]),
        ("a host with a path", &[API_LINES[0], "X-Original-Host: api.example.com/x", API_LINES[2]]),
        (
            "a host with a fragment",
            &[API_LINES[0], "X-Original-Host: api.example.com#.evil.example", API_LINES[2]],
        ),
        (
            "a host with a backslash",
            &[API_LINES[0], "X-Original-Host: api.example.com\\.evil.example", API_LINES[2]],
        ),
        // What a proxy takes for another host, or for none that it knows.
        (
            "a host with an encoded letter",
            &[API_LINES[0], "X-Original-Host: %61pi.example.com", API_LINES[2]],
        ),
        (
            "a host whose last letter is encoded",
            &[API_LINES[0], "X-Original-Host: api.example.co%6D", API_LINES[2]],
        ),
        ("a host with a tab", &[API_LINES[0], "X-Original-Host: api.exam\tple.com", API_LINES[2]]),
        (
            "a host with an empty port",
            &[API_LINES[0], "X-Original-Host: api.example.com:", API_LINES[2]],
        ),
        (
            "a host with a port of five digits",
            &[API_LINES[0], "X-Original-Host: api.example.com:00443", API_LINES[2]],
        ),
        (
            "two hosts in one line",
            &[API_LINES[0], "X-Original-Host: api.example.com, evil.example", API_LINES[2]],
        ),
        (
            "an absolute address",
            &[API_LINES[0], API_LINES[1], "X-Original-URI: http://evil.example/x"],
        ),
        ("a path with a space", &[API_LINES[0], API_LINES[1], "X-Original-URI: /x y"]),
        ("a path without a slash", &[API_LINES[0], API_LINES[1], "X-Original-URI: x"]),
    ];
    for (name, lines) in about {
        attacks.push(attack(HEADERS, Who::Stranger, format!("about {name}"), move |w| {
            let who = format!("Authorization: Bearer {}", w.token("deploy"));
            held(w, &[&who], lines)
        }));
    }
    attacks.push(attack(HEADERS, Who::Stranger, "by somebody who is no proxy", |w| {
        let who = format!("Authorization: Bearer {}", w.token("deploy"));
        let lines = [&["Host: 127.0.0.1", "Connection: close", &who][..], &API_LINES].concat();
        sending_to(w.authz, STRANGER, request("GET /v1/authz HTTP/1.1", &lines, b""))
    }));
    attacks.push(attack(
        HEADERS,
        Who::Stranger,
        "by somebody who says that they are the proxy",
        |w| {
            let who = format!("Authorization: Bearer {}", w.token("deploy"));
            let said =
                ["X-Forwarded-For: 127.0.0.1", "Forwarded: for=127.0.0.1", "X-Real-IP: 127.0.0.1"];
            let lines =
                [&["Host: 127.0.0.1", "Connection: close", &who][..], &API_LINES, &said].concat();
            sending_to(w.authz, STRANGER, request("GET /v1/authz HTTP/1.1", &lines, b""))
        },
    ));
    let elsewhere = attack(HEADERS, Who::Stranger, "at the listener for callers", |w| {
        let who = format!("Authorization: Bearer {}", w.token("deploy"));
        let lines = [&["Host: 127.0.0.1", "Connection: close", &who][..], &API_LINES].concat();
        sending(w, request("GET /v1/authz HTTP/1.1", &lines, b""))
    });
    attacks.push(elsewhere.refused(&["404 not_found"]));
    for (name, path) in [
        ("a route that there is not", "/v1/authz/other"),
        ("a route in capitals", "/v1/authz/API"),
        ("more behind the route", "/v1/authz/api/x"),
        ("dots behind the route", "/v1/authz/x/../api"),
        ("an encoded route", "/v1/authz/%61pi2"),
    ] {
        attacks.push(attack(HEADERS, Who::Stranger, name, move |w| {
            let who = format!("Authorization: Bearer {}", w.token("deploy"));
            asked(w, path, &[&who], &API_LINES)
        }));
    }
    let shown: [Named<Vec<String>>; 12] = [
        ("no token", |_| Vec::new()),
        ("an empty token", |_| vec!["Authorization: Bearer ".into()]),
        ("a token of an issuer", |w| {
            vec![format!("Authorization: Bearer {}", w.assertion(json!({})))]
        }),
        ("two tokens", |w| {
            let good = format!("Authorization: Bearer {}", w.token("deploy"));
            vec![good.clone(), good]
        }),
        ("two tokens in one line", |w| {
            let good = w.token("deploy");
            vec![format!("Authorization: Bearer {good}, Bearer {good}")]
        }),
        ("a token as Basic", |w| vec![format!("Authorization: Basic {}", w.token("deploy"))]),
        ("a token without a scheme", |w| vec![format!("Authorization: {}", w.token("deploy"))]),
        ("a token in another header", |w| {
            vec![format!("X-Authorization: Bearer {}", w.token("deploy"))]
        }),
        ("a token in a cookie", |w| vec![format!("Cookie: access_token={}", w.token("deploy"))]),
        ("a token of another role", |w| {
            vec![format!("Authorization: Bearer {}", w.token("reader"))]
        }),
        ("who they say they are", |_| {
            vec!["Tmpcred-Subject: root".into(), "Tmpcred-Role: deploy".into()]
        }),
        ("a token that is not bound, as one that is", |w| {
            vec![format!("Authorization: DPoP {}", w.token("deploy"))]
        }),
    ];
    for (name, lines) in shown {
        let showing = attack(HEADERS, Who::Stranger, format!("with {name}"), move |w| {
            let lines = lines(w);
            let lines: Vec<_> = lines.iter().map(String::as_str).collect();
            held(w, &lines, &API_LINES)
        });
        attacks.push(showing.refused(&[match name {
            "two tokens" => "401 invalid_request",
            "a token of another role" => "403 insufficient_scope",
            "a token of an issuer"
            | "two tokens in one line"
            | "a token that is not bound, as one that is" => "401 invalid_token",
            _ => NO_TOKEN,
        }]));
    }
    let in_the_path = attack(HEADERS, Who::Stranger, "with a token in the path", |w| {
        let path = format!("/v1/authz?access_token={}", w.token("deploy"));
        asked(w, &path, &[], &API_LINES)
    });
    attacks.push(in_the_path.refused(&[NO_TOKEN]));
    attacks
}
