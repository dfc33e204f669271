//! An issuer that means harm: no real one behaves so. Each path below it is an issuer of
//! its own, and it counts who comes.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

/// The issuers below it, and what is wrong with each.
pub(super) const WAYS: [&str; 12] = [
    "redirects-elsewhere",
    "redirects-to-a-file",
    "is-another",
    "keys-are-a-file",
    "keys-redirect",
    "keys-are-huge",
    "keys-never-end",
    "keys-are-deep",
    "keys-are-many",
    "keys-are-compressed",
    "keys-are-private",
    "keys-are-html",
];

/// A server on loopback.
pub(super) struct Hostile {
    url: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Hostile {
    /// Starts it. `elsewhere` is where it redirects to; `jwk` is a good key.
    pub(super) fn start(elsewhere: String, jwk: serde_json::Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (own, paths) = (url.clone(), seen.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (own, paths) = (own.clone(), paths.clone());
                let (elsewhere, jwk) = (elsewhere.clone(), jwk.clone());
                std::thread::spawn(move || {
                    serve(stream, &own, &elsewhere, &jwk, &paths);
                });
            }
        });
        Self { url, seen }
    }

    /// Its address.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// What it was asked for.
    pub(super) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(
    mut stream: TcpStream,
    own: &str,
    elsewhere: &str,
    jwk: &serde_json::Value,
    paths: &Mutex<Vec<String>>,
) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.set_write_timeout(Some(Duration::from_secs(10))).ok()?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1)?.to_string();
    paths.lock().ok()?.push(path.clone());
    let way = path.split('/').nth(1)?;
    let issuer = format!("{own}/{way}");
    let answer = |stream: &mut TcpStream, more: &str, body: &[u8]| {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n{more}Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).ok()
    };
    let redirect = |stream: &mut TcpStream, to: &str| {
        let head = format!(
            "HTTP/1.1 302 Found\r\nLocation: {to}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).ok()
    };
    let keys = json!({"keys": [jwk]}).to_string();
    if path.contains("/.well-known/") {
        let mut document = json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")});
        match way {
            "redirects-elsewhere" => return redirect(&mut stream, elsewhere),
            "redirects-to-a-file" => return redirect(&mut stream, "file:///etc/passwd"),
            "is-another" => document["issuer"] = json!(own),
            "keys-are-a-file" => document["jwks_uri"] = json!("file:///etc/passwd"),
            _ => {}
        }
        return answer(&mut stream, "", document.to_string().as_bytes());
    }
    match way {
        "keys-redirect" => redirect(&mut stream, elsewhere),
        "keys-are-huge" => {
            let huge = format!("{{\"x\": \"{}\", {}", "x".repeat(30_000_000), &keys[1..]);
            answer(&mut stream, "", huge.as_bytes())
        }
        "keys-never-end" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"x\": \"").ok()?;
            while stream.write_all(&[b'x'; 65_536]).is_ok() {}
            Some(())
        }
        "keys-are-deep" => {
            let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
            let deep = format!("{{\"keys\": [{deep}, {jwk}]}}");
            answer(&mut stream, "", deep.as_bytes())
        }
        "keys-are-many" => {
            let many = json!({"keys": vec![jwk.clone(); 1_000]}).to_string();
            answer(&mut stream, "", many.as_bytes())
        }
        // Whoever decodes it is done in by the next one, which is a bomb.
        "keys-are-compressed" => answer(&mut stream, "Content-Encoding: gzip\r\n", &GZIP_BOMB),
        "keys-are-private" => {
            let oct =
                json!({"keys": [{"kty": "oct", "k": "c2VjcmV0", "alg": "HS256", "kid": "h"}]});
            answer(&mut stream, "", oct.to_string().as_bytes())
        }
        _ => answer(&mut stream, "", b"<!doctype html><title>Sign in</title>"),
    }
}

/// The beginning of a stream of gzip.
const GZIP_BOMB: [u8; 20] =
    [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xed, 0xc1, 1, 1, 0, 0, 0, 0x80, 0x90, 0xfe];
