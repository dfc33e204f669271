//! Libraries of other ecosystems, as they are: they exchange, ask about, revoke and verify
//! tokens, with DPoP, and follow the broker through a rotation of its keys; so does an STS.

mod introspection;

use serde_json::{Value, json};

use super::support::aws::{Weed, python_program, weed_role};
use super::support::broker::{API, Broker, KEK};
use super::support::home::{Home, tmpcred};
use super::support::nginx::{Nginx, broker_behind_nginx};
use super::support::oidc_provider::OidcProvider;
use super::support::peer::{node_script, program};
use super::support::run::Run;

/// A provider whose client gets what the broker takes, and an nginx that asks the broker.
struct World {
    provider: OidcProvider,
    broker: Broker,
    nginx: Nginx,
    home: Home,
}

impl World {
    fn start() -> Self {
        let provider = OidcProvider::start();
        let (keys, authz) = ("publish_before = \"15s\"", "nonces = \"required\"");
        let (broker, nginx) = broker_behind_nginx(provider.issuer(), keys, authz);
        Self { provider, broker, nginx, home: Home::new() }
    }

    /// A client of Python or Node that is to be told of provider and broker.
    fn client(&self, script: &str) -> Run {
        let interpreter = match script.ends_with(".py") {
            true => python_program("python3"),
            false => program("node"),
        };
        let run = self.home.command(interpreter).args([node_script(script)]);
        run.args([self.provider.issuer(), self.broker.url(), API])
    }
}

#[test]
fn python_exchanges_asks_verifies_revokes_and_proves_a_key() {
    let world = World::start();
    let resource = format!("{}/a?b=c", world.nginx.url());
    let report = world.client("interop.py").args([&resource]).run().ok().json();
    let granted = json!({
        "token_type": "Bearer", "scope": "deploy:read",
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
    });
    assert_eq!(report["granted"], granted, "{report}");
    for refused in ["elsewhere", "no_address"] {
        assert_eq!(report[refused], "invalid_target", "{refused}: {report}");
    }
    let pyjwt = json!({
        "typ": "at+jwt", "ours": "deploy", "theirs": "InvalidAudienceError",
        "tampered": "InvalidSignatureError",
    });
    assert_eq!(report["pyjwt"], pyjwt, "{report}");
    let authlib =
        json!({ "ours": "deploy", "scope": "insufficient_scope", "theirs": "invalid_token" });
    assert_eq!(report["authlib"], authlib, "{report}");
    let subject = format!("{}#service", world.provider.issuer());
    let before = &report["before"];
    assert_eq!((&before["active"], &before["sub"]), (&json!(true), &json!(subject)), "{report}");
    assert_eq!(report["after"], json!({ "active": false }), "{report}");
    assert_eq!((&report["shown"], &report["shown_after"]), (&json!(200), &json!(401)), "{report}");
    assert_eq!(report["by_authlib"], "deploy");
    let bound = json!({
        "token_type": "DPoP", "jkt": true, "unproved": "invalid_dpop_proof",
        "shown": 200, "again": 200, "stolen": 401,
    });
    assert_eq!(report["bound"], bound, "{report}");
}

#[test]
fn a_resource_owner_of_node_takes_access_tokens_as_the_standards_have_them() {
    let world = World::start();
    let report = world.client("resource-owner.mjs").run().ok().json();
    let outcome = |name: &str| report[name].as_str().unwrap_or_default().to_string();
    assert_eq!(outcome("issuer"), world.broker.url());
    assert_eq!((outcome("plain"), outcome("bound")), ("deploy".into(), "bound".into()), "{report}");
    assert_eq!(report["jkt"], json!(true), "{report}");
    for refused in ["for_another", "of_another", "unbound", "stolen", "other_method"] {
        assert!(outcome(refused).starts_with("OAUTH_"), "{refused}: {report}");
    }
}

#[test]
fn who_keeps_the_keys_follows_a_rotation_and_so_does_an_sts() {
    let world = World::start();
    let subject = format!("{}#service", world.provider.issuer());
    let keys = format!("{}/jwks.json", world.broker.url());
    let weed = Weed::start(world.broker.url(), API, &keys, &[("mine", &subject)]);
    let client = world.client("rotation.py").args([weed.url(), &weed_role("mine")]);
    let client = client.limit(std::time::Duration::from_secs(150)).spawn();
    client.line_on_stderr("ready");
    let home = &world.broker.home;
    let rotate = tmpcred(home).args(["broker", "keys", "rotate", "--config"]);
    rotate.args([home.path("broker.toml")]).env("TMPCRED_BROKER_KEK", KEK).run().ok();
    let report: Value = client.wait().ok().json();
    assert_eq!(report["rotated"], json!(true), "{report}");
    assert_eq!(report["verified"], json!(["deploy", "deploy", "deploy"]), "{report}");
    assert_eq!(report["sessions"], json!([true, true, true]), "{report}");
}
