//! Resource owners of other ecosystems, who ask about each token: as clients that
//! authenticate, about tokens that say something and such as say nothing, bound to a key and
//! not; and who check proofs by the binding that they are told.

use serde_json::{Value, json};

use crate::support::aws::python_program;
use crate::support::broker::{API, Broker, BrokerOptions};
use crate::support::home::Home;
use crate::support::oidc_provider::OidcProvider;
use crate::support::peer::{node_script, program};

/// A provider, and a broker whose client `robot` may ask about tokens.
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
        let permits = ["bound", "opaque-bound", "opaque"].map(|role| {
            options.more += &format!(
                "\n[role.{role}]\naudiences = [\"{API}\"]\nscopes = [\"deploy:read\"]\nmax_ttl = \"1h\"\n\
                 {}{}",
                if role.contains("opaque") { "token_format = \"opaque\"\n" } else { "" },
                if role.contains("bound") { "dpop = \"required\"\n" } else { "" },
            );
            format!(
                "@id(\"{role}\") @ttl(\"1h\") @scope(\"deploy:read\")
                 permit (principal, action == Action::\"issue\", resource == Role::\"{role}\");\n"
            )
        });
        for client in ["robot", "stranger"] {
            let keys = home.path("jwks.json");
            options.more += &format!("\n[client.{client}]\njwks_file = {keys:?}\n");
        }
        options.policy += &permits.concat();
        options.policy += r#"
@id("the-robot-introspects")
permit (principal == User::"{self}#robot", action == Action::"introspect", resource)
when { context.audience == "https://api.example.com" };
"#;
        Self { provider, broker: Broker::start(&options), home }
    }

    /// The report of a resource owner.
    fn report(&self, script: &str) -> Value {
        let interpreter = match script.ends_with(".py") {
            true => python_program("python3"),
            false => program("node"),
        };
        let run = self.home.command(interpreter).args([node_script(script)]);
        let run = run.args([self.provider.issuer(), self.broker.url(), API]);
        run.args([self.home.path("private.json")]).run().ok().json()
    }
}

#[test]
fn openid_client_is_told_of_each_kind_of_token_what_it_takes_to_check_its_proofs() {
    let report = World::start().report("introspect.mjs");
    assert!(report["methods"].as_array().unwrap().contains(&json!("private_key_jwt")), "{report}");
    let seen = json!({
        "active": true, "token_type": "Bearer", "jkt": null, "client_id": "robot", "aud": API,
        "scope": "deploy:read", "to_strangers": { "active": false }, "revoked": { "active": false },
    });
    assert_eq!(report["opaque"], seen, "{report}");
    for (role, claims) in [("bound", json!(true)), ("opaque-bound", Value::Null)] {
        let mut seen = seen.clone();
        for (name, value) in [
            ("token_type", json!("DPoP")),
            ("jkt", json!(true)),
            ("scheme", json!("DPoP")),
            ("proof", json!("proved")),
            ("other_method", json!("another request")),
            ("other_key", json!("another key")),
            ("claims", claims),
        ] {
            if !value.is_null() {
                seen[name] = value;
            }
        }
        assert_eq!(report[role], seen, "{role}: {report}");
    }
}

#[test]
fn authlib_serves_whom_it_is_told_of_and_takes_no_token_without_its_key() {
    let report = World::start().report("introspect.py");
    let seen = json!({
        "active": true, "token_type": "Bearer", "jkt": null, "same": true,
        "served": "served", "scope": "insufficient_scope", "revoked": "invalid_token",
    });
    assert_eq!(report["opaque"], seen, "{report}");
    for role in ["bound", "opaque-bound"] {
        let mut seen = seen.clone();
        for (name, value) in [
            ("token_type", json!("DPoP")),
            ("jkt", json!(true)),
            ("stolen", json!("AssertionError")),
            ("other_method", json!("InvalidDPoPProof")),
            ("other_key", json!("AssertionError")),
        ] {
            seen[name] = value;
        }
        assert_eq!(report[role], seen, "{role}: {report}");
    }
}
