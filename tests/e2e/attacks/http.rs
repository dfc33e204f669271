//! HTTP that two readers take for two things, and connections that only hold on.

use std::time::Duration;

use serde_json::json;

use super::wire::{self, ANYBODY, Exchange, STRANGER, post, request};
use super::world::World;
use super::{Attack, Lesson, Who, attack, sending};

const SMUGGLING: Lesson = Lesson { name: "requests within requests", refused: "400" };
/// Whose body cannot be read, or is nothing.
const CHUNKS: Lesson = Lesson { refused: "400 invalid_request", ..SMUGGLING };

/// Whose head is too large.
const HEADS: Lesson = Lesson { refused: "431", ..SMUGGLING };

const HOSTS: Lesson = Lesson { name: "hosts of others", refused: "421 misdirected_request" };
const FLOODS: Lesson = Lesson { name: "connections that hold on", refused: "400 invalid_request" };

/// What is held is not asked, and not answered.
const NOTHING: &[&str] = &[];

/// Hosts that are none, or several.
const MALFORMED: &[&str] = &["400 invalid_request"];

/// A good request, whose head is made of its body.
fn raw(lesson: Lesson, name: &str, make: fn(&World, &str) -> Vec<u8>) -> Attack {
    attack(lesson, Who::Stranger, name, move |w| {
        let body = w.fields(&w.assertion(json!({})), &[]);
        sending(w, make(w, &body))
    })
}

const HEAD: &str = "POST /token HTTP/1.1\r\nHost: 127.0.0.1\r\n\
    Content-Type: application/x-www-form-urlencoded\r\n";

/// What an attacker hides: a good request of its own.
fn hidden(body: &str) -> String {
    format!("{HEAD}Connection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

pub(super) fn attacks() -> Vec<Attack> {
    let mut attacks = vec![
        raw(CHUNKS, "a length and chunks", |_, body| {
            let hidden = hidden(body);
            format!(
                "{HEAD}Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}",
                hidden.len() + 5
            )
            .into()
        }),
        raw(CHUNKS, "chunks and a length", |_, body| {
            let hidden = hidden(body);
            format!(
                "{HEAD}Transfer-Encoding: chunked\r\nContent-Length: {}\r\n\r\n0\r\n\r\n{hidden}",
                hidden.len() + 5
            )
            .into()
        }),
        raw(CHUNKS, "chunks for nobody who knows them", |_, body| {
            format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{}", hidden(body)).into()
        }),
        raw(SMUGGLING, "two lengths", |_, body| {
            format!("{HEAD}Content-Length: 0\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                .into()
        }),
        raw(SMUGGLING, "two lengths in one line", |_, body| {
            format!("{HEAD}Content-Length: {0}, {0}x\r\n\r\n{body}", body.len()).into()
        }),
        raw(SMUGGLING, "a length with a sign", |_, body| {
            format!("{HEAD}Content-Length: +{}\r\n\r\n{body}", body.len()).into()
        }),
        raw(SMUGGLING, "a length below zero", |_, body| {
            format!("{HEAD}Content-Length: -1\r\n\r\n{body}").into()
        }),
        raw(SMUGGLING, "a length beyond all numbers", |_, body| {
            format!("{HEAD}Content-Length: 99999999999999999999999\r\n\r\n{body}").into()
        }),
        raw(SMUGGLING, "a length in hexadecimal digits", |_, body| {
            format!("{HEAD}Content-Length: 0x{:x}\r\n\r\n{body}", body.len()).into()
        }),
        raw(SMUGGLING, "an encoding that is not chunked", |_, body| {
            format!(
                "{HEAD}Transfer-Encoding: xchunked\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .into()
        }),
        raw(SMUGGLING, "chunked, and something else last", |_, body| {
            format!(
                "{HEAD}Transfer-Encoding: chunked, identity\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                body.len()
            )
            .into()
        }),
        raw(SMUGGLING, "chunks in HTTP/1.0", |_, body| {
            let head = HEAD.replace("HTTP/1.1", "HTTP/1.0");
            format!(
                "{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                body.len()
            )
            .into()
        }),
        raw(SMUGGLING, "a space before the colon", |_, body| {
            format!("{HEAD}Content-Length : {}\r\n\r\n{body}", body.len()).into()
        }),
        raw(SMUGGLING, "a line that goes on in the next one", |_, body| {
            format!(
                "{HEAD}X: y\r\n Content-Length: 0\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .into()
        }),
        raw(SMUGGLING, "a line that ends with CR alone", |_, body| {
            format!("{HEAD}X: y\rContent-Length: 0\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                .into()
        }),
        raw(SMUGGLING, "NUL in a header", |_, body| {
            format!("{HEAD}X: y\0z\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into()
        }),
        raw(SMUGGLING, "no name of a header", |_, body| {
            format!("{HEAD}: y\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into()
        }),
        raw(CHUNKS, "a chunk longer than all numbers", |_, body| {
            format!(
                "{HEAD}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{body}\r\n0\r\n\r\n"
            )
            .into()
        }),
        raw(CHUNKS, "a chunk with a sign", |_, body| {
            format!(
                "{HEAD}Transfer-Encoding: chunked\r\n\r\n+{:x}\r\n{body}\r\n0\r\n\r\n",
                body.len()
            )
            .into()
        }),
        raw(CHUNKS, "a line end within what a chunk says besides", |_, body| {
            format!(
                "{HEAD}Transfer-Encoding: chunked\r\n\r\n{:x};x\n=y\r\n{body}\r\n0\r\n\r\n",
                body.len()
            )
            .into()
        }),
        raw(CHUNKS, "chunks that say 100,000 bytes besides", |_, body| {
            let more = "x".repeat(100_000);
            format!(
                "{HEAD}Transfer-Encoding: chunked\r\n\r\n{:x};{more}\r\n{body}\r\n0\r\n\r\n",
                body.len()
            )
            .into()
        }),
        raw(CHUNKS, "a chunk that is longer than it says", |_, body| {
            format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n5\r\n{body}\r\n0\r\n\r\n").into()
        }),
        raw(SMUGGLING, "another protocol", |_, body| {
            format!("{}\r\n{body}", HEAD.replace("HTTP/1.1", "HTTP/9.9")).into()
        }),
        raw(SMUGGLING, "no protocol", |_, body| format!("POST /token\r\n\r\n{body}").into()),
        raw(SMUGGLING, "an upgrade to HTTP/2", |_, body| {
            let lines = [
                "Host: 127.0.0.1",
                "Connection: Upgrade, HTTP2-Settings",
                "Upgrade: h2c",
                "HTTP2-Settings: AAMAAABk",
            ];
            let mut bytes = request("GET /token HTTP/1.1", &lines, body.as_bytes());
            bytes.extend(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
            bytes
        })
        .refused(&["405 method_not_allowed", "404 not_found"]),
        raw(HEADS, "a header of 100,000 bytes", |_, body| {
            post("/token", &[&format!("X: {}", "x".repeat(100_000))], body)
        }),
        raw(HEADS, "1,000 headers", |_, body| {
            let lines: Vec<_> = (0..1_000).map(|n| format!("X-{n}: y")).collect();
            let lines: Vec<_> = lines.iter().map(String::as_str).collect();
            post("/token", &lines, body)
        }),
        raw(HEADS, "a target of 100,000 bytes", |_, body| {
            post(&format!("/token{}", "x".repeat(100_000)), &[], body)
        }),
        raw(SMUGGLING, "TLS", |_, _| b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(20)),
        raw(SMUGGLING, "zeros", |_, _| vec![0; 10_000]),
    ];
    for host in [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "10.0.0.1",
        "0.0.0.0",
        "[::]",
        "169.254.169.254",
        "u@127.0.0.1",
        "127.0.0.1, evil.example",
        "127.0.0.1 evil.example",
        "localhost.",
        "127.1",
        "2130706433",
        "",
    ] {
        let is_one = !host.contains(['@', ',', ' ']);
        let other = attack(HOSTS, Who::Stranger, format!("Host: {host}"), move |w| {
            let body = w.fields(&w.assertion(json!({})), &[]);
            let host = format!("Host: {host}");
            let lines = [&[&*host][..], &wire::FORM[1..]].concat();
            sending(w, request("POST /token HTTP/1.1", &lines, body.as_bytes()))
        });
        attacks.push(if is_one { other } else { other.refused(MALFORMED) });
    }
    for (name, first, hosts) in [
        ("no host", "POST /token HTTP/1.1", &[][..]),
        ("no host in HTTP/1.0", "POST /token HTTP/1.0", &[]),
        ("two hosts", "POST /token HTTP/1.1", &["Host: 127.0.0.1", "Host: evil.example"]),
        ("the same host twice", "POST /token HTTP/1.1", &["Host: 127.0.0.1", "Host: 127.0.0.1"]),
        (
            "another host in the target",
            "POST http://evil.example/token HTTP/1.1",
            &["Host: 127.0.0.1"],
        ),
        (
            "another host than in the target",
            "POST http://127.0.0.1/token HTTP/1.1",
            &["Host: evil.example"],
        ),
        ("no host but in the target", "POST http://evil.example/token HTTP/1.1", &[]),
        ("a user in the target", "POST http://u@127.0.0.1/token HTTP/1.1", &["Host: 127.0.0.1"]),
        ("CONNECT", "CONNECT 127.0.0.1:443 HTTP/1.1", &["Host: 127.0.0.1"]),
        ("OPTIONS *", "OPTIONS * HTTP/1.1", &["Host: 127.0.0.1"]),
        (
            "X-Forwarded-Host",
            "POST /token HTTP/1.1",
            &["Host: evil.example", "X-Forwarded-Host: 127.0.0.1"],
        ),
    ] {
        let other = attack(HOSTS, Who::Stranger, name, move |w| {
            let body = w.fields(&w.assertion(json!({})), &[]);
            let lines = [hosts, &wire::FORM[1..]].concat();
            sending(w, request(first, &lines, body.as_bytes()))
        });
        attacks.push(match name {
            "no host" | "two hosts" | "the same host twice" | "no host but in the target" => {
                other.refused(MALFORMED)
            }
            // Of a target that is no path nothing is served.
            "CONNECT" | "OPTIONS *" => other.refused(&["404 not_found"]),
            _ => other,
        });
    }
    for host in ["evil.example", "127.0.0.1.evil.example", "u@127.0.0.1", "127.1", "localhost.", ""]
    {
        let name = format!("Host: {host}, where the metrics are");
        let is_one = !host.contains('@');
        let other = attack(HOSTS, Who::Stranger, name, move |w| {
            let get = |host: &str| {
                let lines = [format!("Host: {host}"), "Connection: close".into()];
                let lines: Vec<_> = lines.iter().map(String::as_str).collect();
                let bytes = request("GET /metrics HTTP/1.1", &lines, b"");
                Exchange { to: w.admin, from: ANYBODY, bytes }
            };
            let seen = get(&w.admin.to_string()).run().unwrap();
            assert_eq!(seen.statuses(), [200], "{seen:?}");
            vec![get(host)]
        });
        attacks.push(if is_one { other } else { other.refused(MALFORMED) });
    }
    for (name, begun) in [
        ("without a byte", &b""[..]),
        ("in the middle of a head", b"POST /token HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "),
        ("in the middle of a body", b"POST /token HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 60000\r\n\r\ngrant"),
    ] {
        let held = attack(FLOODS, Who::Stranger, format!("400 of them, {name}"), move |w| {
            nobody_waits(|| wire::while_held(400, STRANGER, w.address, begun, || honest_takes(w)));
            Vec::<Exchange>::new()
        });
        attacks.push(held.refused(NOTHING));
    }
    let everywhere = "as many as there may be, from four addresses, each in the middle of a body";
    let everywhere = attack(FLOODS, Who::Stranger, everywhere, |w| {
        let begun = b"POST /token HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 4000\r\n\r\ng";
        nobody_waits(|| {
            let from = [11, 12, 13, 14];
            wire::while_all_are_held(256, from, w.address, begun, || honest_takes(w))
        });
        Vec::<Exchange>::new()
    });
    attacks.push(everywhere.refused(NOTHING));
    attacks.push(attack(FLOODS, Who::Stranger, "2,000 requests that are nothing", |w| {
        let one = b"POST /token HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 1\r\n\r\nx";
        let mut bytes = one.repeat(2_000);
        bytes.extend(post("/token", &[], "x"));
        sending(w, bytes)
    }));
    attacks
}

/// How long it takes to serve somebody honest.
fn honest_takes(w: &World) -> Duration {
    let good = w.fields(&w.assertion(json!({})), &[]);
    let (served, took) = wire::timed(|| w.try_honest(&[], &good));
    served.unwrap();
    took
}

/// Nobody waits until those connections are given up that somebody holds. Whoever had to would wait
/// each time; a machine that has much to do is as slow by itself, but not three times in a row.
fn nobody_waits(mut while_held: impl FnMut() -> Duration) {
    let slow = |took: &Duration| *took >= Duration::from_secs(8);
    let slow: Vec<_> = (0..3).map(|_| while_held()).take_while(slow).collect();
    assert!(slow.len() < 3, "{slow:?}");
}
