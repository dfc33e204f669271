//! Where somebody says that they are, through a proxy that is believed.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::json;

use super::wire::{ANYBODY, Exchange, post};
use super::world::World;
use super::{Attack, Lesson, Who, attack};

/// The lesson.
const LESSON: Lesson = Lesson { name: "places that callers make up", refused: "400 access_denied" };

/// The proxy, which has no port of its own: it is the address that a connection comes from.
pub(super) const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));

/// Whoever is inside may have a role, and so may who is where the proxy is.
pub(super) const POLICY: &str = r#"
@id("from-inside") @ttl("15m") @scope("deploy:read")
permit (
    principal == User::"https://issuer.example#alice",
    action == Action::"issue",
    resource == Role::"inside"
) when {
    context.source.isInRange(ip("10.0.0.0/8")) || context.source.isInRange(ip("127.0.0.9"))
};
"#;

/// That role.
pub(super) const ROLE: &str = r#"
[role.inside]
audiences = ["https://api.example.com"]
scopes = ["deploy:read"]
max_ttl = "1h"
"#;

/// Somebody who is outside.
const OUTSIDE: &str = "X-Forwarded-For: 203.0.113.7";

pub(super) fn attacks() -> Vec<Attack> {
    let forged: [(&str, &'static [&'static str]); 11] = [
        ("nothing", &[OUTSIDE]),
        ("a place inside", &["X-Forwarded-For: 10.1.1.1, 203.0.113.7"]),
        ("a place inside, on a line of its own", &["X-Forwarded-For: 10.1.1.1", OUTSIDE]),
        ("the standard header", &["Forwarded: for=10.1.1.1", OUTSIDE]),
        ("the standard header, with nothing in it", &["Forwarded:", OUTSIDE]),
        ("the standard header, as nothing that anybody can read", &["Forwarded: x", OUTSIDE]),
        ("other headers of proxies", &["X-Real-IP: 10.1.1.1", "True-Client-IP: 10.1.1.1", OUTSIDE]),
        ("the same with an underscore", &["X_Forwarded_For: 10.1.1.1", OUTSIDE]),
        ("what the proxy cannot tell", &["X-Forwarded-For: unknown"]),
        ("what the proxy cannot tell, after a place", &["X-Forwarded-For: 10.1.1.1, unknown"]),
        ("no place", &["X-Forwarded-For:"]),
    ];
    let asks = |from, lines: &'static [&'static str]| {
        move |w: &World| {
            let inside = w.fields(&w.assertion(json!({})), &[("role", "inside")]);
            // Whoever is there gets it.
            w.try_honest_from(PROXY, &["X-Forwarded-For: 10.1.1.1"], &inside).unwrap();
            vec![Exchange { to: w.address, from, bytes: post("/token", lines, inside) }]
        }
    };
    let proxied = forged.into_iter().map(|(name, lines)| (name, PROXY, lines));
    let direct: &[&str] = &["X-Forwarded-For: 10.1.1.1"];
    proxied
        .chain([("a place inside, by who is no proxy", ANYBODY, direct)])
        .map(|(name, from, lines)| {
            let forged = attack(LESSON, Who::Caller, name, asks(from, lines));
            match name {
                "what the proxy cannot tell"
                | "what the proxy cannot tell, after a place"
                | "no place" => forged.refused(&["400 invalid_request"]),
                _ => forged,
            }
        })
        .collect()
}
