//! Proxies that ask the broker about requests, each with the configuration that
//! `docs/forward-auth.md` prints, and a caller that is a library of somebody else's.

use serde_json::{Value, json};

use super::support::aws::python_program;
use super::support::broker::{API, Broker, BrokerOptions};
use super::support::home::Home;
use super::support::http::Http;
use super::support::oidc_provider::OidcProvider;
use super::support::peer::{node_script, program};
use super::support::proxy::{Kind, Proxy};
use super::support::wait::free_port;

/// A caller comes to a service through a proxy of this kind, in each way in which it should,
/// and should not; then the broker goes away, and the proxy answers with this status.
#[track_caller]
fn lets_through_what_the_broker_does_and_nothing_without_it(kind: Kind, gone: u16) {
    let provider = OidcProvider::start();
    let (front, authz, admin) = (free_port(), free_port(), free_port());
    let mut options = BrokerOptions::trusting(provider.issuer());
    options.policy += "@id(\"bound\") @ttl(\"1h\") @scope(\"deploy:read\")
        permit (principal, action == Action::\"issue\", resource == Role::\"bound\");";
    options.more = format!(
        r#"
[role.bound]
audiences = ["{API}"]
scopes = ["deploy:read"]
max_ttl = "1h"
dpop = "required"

[role.deploy.claims]
groups = ["{{subject}}s", "staff"]

[admin]
listen = "127.0.0.1:{admin}"

[authz]
proxy = "{}"
listen = "127.0.0.1:{authz}"
proxies = ["127.0.0.1"]
nonces = "required"

[authz.route.api]
origins = ["http://127.0.0.1:{front}"]
audience = "{API}"
scopes = ["deploy:read"]
headers = {{ Tmpcred-Groups = "groups" }}
"#,
        kind.told()
    );
    let mut broker = Broker::start(&options);
    let proxy = Proxy::start(kind, front, authz);
    let home = Home::new();
    let caller = home.command(python_program("python")).args([node_script("proxied.py")]);
    let caller = caller.args([provider.issuer(), broker.url(), API, proxy.url()]);
    let report = caller.run().ok().json();

    let through = |role: &str, method: &str, body: &str| {
        // One of the two roles has no such claim.
        let groups = (role == "deploy").then_some("services,staff");
        json!({
            "status": 200, "method": method, "path": "/a%20b/c?d=e%26f", "body": body,
            "subject": format!("{}#service", provider.issuer()), "role": role, "groups": groups,
            "more": ["tmpcred-issuer", "tmpcred-jti", "tmpcred-scope"],
            "forged": false, "underscores": [], "left": [],
        })
    };
    for (name, seen) in [
        ("plain", through("deploy", "GET", "")),
        ("posted", through("deploy", "POST", "hello")),
        ("bound", through("bound", "GET", "")),
        ("bound_again", through("bound", "POST", "hello")),
        ("once", through("bound", "GET", "")),
    ] {
        assert_eq!(report[name], seen, "{kind:?}: {name}: {report}");
    }
    for (name, challenge) in [
        ("nobody", "Bearer"),
        ("revoked", "Bearer"),
        ("stolen", "Bearer"),
        ("twice", "DPoP"),
        ("other_method", "DPoP"),
        ("other_path", "DPoP"),
        ("other_key", "DPoP"),
        ("bound_revoked", "DPoP"),
    ] {
        let seen = json!({ "status": 401, "challenge": challenge });
        assert_eq!(report[name], seen, "{kind:?}: {name}: {report}");
    }
    assert_eq!(report["lacking"]["status"], 403, "{kind:?}: {report}");

    let mut http = Http::new();
    let shown = format!("Bearer {}", report["token"].as_str().unwrap());
    let mut ask = || http.get_with(proxy.url(), ("Authorization", &shown)).unwrap();
    assert!(ask().json()["behind"].is_object(), "{kind:?}");
    // Who comes from another network is let through, and told of.
    let elsewhere = || {
        let metrics = Http::new().get(&format!("http://127.0.0.1:{admin}/metrics")).unwrap().body;
        let name = "tmpcred_tokens_used_elsewhere_total{place=\"authz\"} ";
        metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_string()
    };
    assert_eq!(elsewhere(), "0", "{kind:?}");
    for _ in 0..2 {
        let curl = home.command(program("curl")).args(["-sS", "--interface", "127.0.1.1"]);
        let forged = ["-H", "X-Forwarded-For: 127.0.0.9", "-H", "X-Original-Source: 127.0.0.9"];
        let curl = curl.args(forged).args(["-H", "@-", proxy.url()]);
        let reached = curl.stdin(format!("Authorization: {shown}\n")).run().ok().json();
        assert!(reached["behind"].is_object(), "{kind:?}: {reached}");
    }
    assert_eq!(elsewhere(), "1", "{kind:?}: {}", broker.said());
    // Of a request for another host, whoever names that where, and of one that would have to be
    // decoded first, the token says nothing.
    let host = format!("Host: %31%32%37.0.0.1:{front}");
    for more in [["--request-target", "http://other.example.com/a"], ["-H", &host]] {
        let curl = home.command(program("curl")).args(["-sS", "-H", "@-", "-w", "\n%{http_code}"]);
        let curl = curl.args(more).args([proxy.url()]).stdin(format!("Authorization: {shown}\n"));
        let said = curl.run().ok().stdout;
        let (body, status) = said.trim_end().rsplit_once('\n').unwrap();
        // (Caddy answers with nothing at all for a host that it does not serve.)
        let refused = ["400", "403", "404", "421"].contains(&status) || body.is_empty();
        assert!(refused && !body.contains("\"behind\""), "{kind:?} {more:?}: {said}");
    }
    let said = broker.said();
    let line = said.lines().find(|line| line.contains("from another network")).unwrap();
    assert!(line.contains("issued_to=127.0.0.1") && line.contains("used_from=127.0.1.1"), "{line}");
    broker.stop();
    let reply = ask();
    assert_eq!(reply.status, gone, "{kind:?}: {}", reply.body);
    let reached: Option<Value> = serde_json::from_str(&reply.body).ok();
    assert!(reached.is_none_or(|body| body["behind"].is_null()), "{kind:?}: {}", reply.body);
}

#[test]
fn nginx_lets_through_what_the_broker_does_and_nothing_without_it() {
    lets_through_what_the_broker_does_and_nothing_without_it(Kind::Nginx, 500);
}

#[test]
fn traefik_lets_through_what_the_broker_does_and_nothing_without_it() {
    lets_through_what_the_broker_does_and_nothing_without_it(Kind::Traefik, 500);
}

#[test]
fn envoy_lets_through_what_the_broker_does_and_nothing_without_it() {
    lets_through_what_the_broker_does_and_nothing_without_it(Kind::Envoy, 503);
}

#[test]
fn caddy_lets_through_what_the_broker_does_and_nothing_without_it() {
    lets_through_what_the_broker_does_and_nothing_without_it(Kind::Caddy, 502);
}
