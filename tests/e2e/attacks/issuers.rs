//! Where the broker is led to fetch something, and what it is given there.

use serde_json::json;

use super::hostile::WAYS;
use super::keys::hs256;
use super::world::World;
use super::{Attack, Lesson, Named, Who, showing};

const LESSON: Lesson =
    Lesson { name: "keys that are fetched", refused: "503 temporarily_unavailable" };
const LED: Lesson = Lesson { name: "issuers that nobody trusts", refused: "400 invalid_request" };

/// Of a token that nothing verifies.
const NO_KEY: &[&str] = &["400 invalid_request"];

/// A token of this issuer, good but for where its key is.
fn of(w: &World, issuer: &str) -> String {
    w.secret(w.issuer.sign(&w.issuer.header(json!({})), &w.claims(json!({"iss": issuer}))))
}

pub(super) fn attacks() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for way in WAYS {
        let fetched = showing(LESSON, Who::Stranger, way, move |w| {
            of(w, &format!("{}/{way}", w.hostile.url()))
        });
        attacks.push(match way {
            // There is a key set, and in it no key.
            "keys-are-private" => fetched.refused(NO_KEY),
            _ => fetched,
        });
    }
    let secret = showing(LESSON, Who::Stranger, "a shared secret in place of a key", |w| {
        let issuer = format!("{}/keys-are-private", w.hostile.url());
        let header = json!({"alg": "HS256", "kid": "h"}).to_string();
        hs256(&header, &w.claims(json!({"iss": issuer})), b"secret")
    });
    attacks.push(secret.refused(NO_KEY));
    // The trap counts who comes, and nobody shall.
    let led: [Named<String>; 12] = [
        ("a server of the attacker", |w| w.trap.url().into()),
        ("a path below one that is trusted", |w| format!("{}/trap", w.hostile.url())),
        ("one that is trusted, with a slash", |w| format!("{}/keys-redirect/", w.hostile.url())),
        ("one that is trusted, with dots", |w| format!("{}/x/../keys-redirect", w.hostile.url())),
        ("one that is trusted, with a query", |w| format!("{}/keys-redirect?x", w.hostile.url())),
        ("one that is trusted, by another name", |w| {
            w.hostile.url().replace("127.0.0.1", "localhost")
        }),
        ("the services of a cloud", |_| "http://169.254.169.254/latest/meta-data".into()),
        ("a file", |_| "file:///etc/passwd".into()),
        ("a socket", |_| "unix:///run/docker.sock".into()),
        ("nothing", |_| String::new()),
        ("the broker's name in capitals", |w| w.url().to_ascii_uppercase()),
        ("a name of 30,000 bytes", |w| format!("{}/{}", w.trap.url(), "x".repeat(30_000))),
    ];
    for (name, issuer) in led {
        attacks.push(showing(LED, Who::Stranger, name, move |w| of(w, &issuer(w))));
    }
    attacks
}
