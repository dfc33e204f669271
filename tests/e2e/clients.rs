//! Clients that authenticate at the broker by what they sign, end to end: with two that
//! know nothing of us.

use serde_json::{Value, json};

use super::support::aws::python_program;
use super::support::broker::{API, Broker, BrokerOptions, OPEN_POLICY};
use super::support::home::Home;
use super::support::oidc_provider::OidcProvider;
use super::support::peer::{node_script, program};

/// A provider, and a broker of which the client `robot` alone gets anything.
struct World {
    provider: OidcProvider,
    broker: Broker,
    home: Home,
}

impl World {
    fn start() -> Self {
        let (provider, home) = (OidcProvider::start(), Home::new());
        let generate = home.command(program("node")).args([node_script("client-auth.mjs")]);
        generate.args(["generate", home.path("").to_str().unwrap()]).run().ok();
        let mut options = BrokerOptions::trusting(provider.issuer());
        options.more = format!("\n[client.robot]\njwks_file = {:?}\n", home.path("jwks.json"));
        options.policy = format!(
            r#"{OPEN_POLICY}
@id("robots-only")
forbid (principal, action == Action::"issue", resource)
unless {{ context has client && context.client == "robot" }};

@id("the-robot-introspects")
permit (principal == User::"{{self}}#robot", action == Action::"introspect", resource);
"#
        );
        let broker = Broker::start(&options);
        Self { provider, broker, home }
    }

    /// The report of a client that is run with these arguments first.
    fn report(&self, run: super::support::run::Run) -> Value {
        let key = self.home.path("private.json");
        let args = [self.provider.issuer(), self.broker.url(), API, "deploy"];
        run.args(args).args([key]).run().ok().json()
    }
}

#[test]
fn openid_client_authenticates_by_what_it_signs_and_each_assertion_is_good_once() {
    let world = World::start();
    let node = world.home.command(program("node")).args([node_script("client-auth.mjs")]);
    let report = world.report(node);
    assert_eq!(report["methods"], json!(["none", "private_key_jwt"]), "{report}");
    assert!(report["algorithms"].as_array().unwrap().contains(&json!("ES256")), "{report}");
    assert_eq!(report["client_id"], "robot");
    assert_eq!((&report["before"], &report["after"]), (&json!(true), &json!(false)));
    assert_eq!(report["once"], "granted");
    for refused in ["unproved", "for_several", "twice"] {
        assert_eq!(report[refused], "401 invalid_client", "{refused}: {report}");
    }
    assert_eq!(world.broker.issued(), 2);
}

#[test]
fn authlib_authenticates_where_what_it_signs_is_for_the_broker_and_short() {
    let world = World::start();
    let python = world.home.command(python_program("python3"));
    let report = world.report(python.args([node_script("client-auth.py")]));
    assert_eq!(report["granted"], "granted deploy", "{report}");
    for (name, says) in [("as_it_comes", "alone, as a text"), ("for_an_hour", "5 minutes")] {
        let said = report[name].as_str().unwrap();
        assert!(said.starts_with("invalid_client: ") && said.contains(says), "{report}");
    }
}
