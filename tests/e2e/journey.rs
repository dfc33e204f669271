//! The main job, from the first login to logging out.

use std::time::Duration;

use serde_json::Value;

use super::support::broker::{API, Broker, BrokerOptions};
use super::support::browser::Browser;
use super::support::home::{Home, tmpcred};
use super::support::oidc_provider::OidcProvider;
use super::support::run::Run;
use super::support::wait::wait_until;

/// A provider, a broker that trusts it, and a person with a configuration and a
/// browser.
pub(crate) struct Journey {
    pub(crate) provider: OidcProvider,
    pub(crate) broker: Broker,
    pub(crate) home: Home,
}

impl Journey {
    pub(crate) fn start() -> Self {
        Self::in_home(Home::stranger())
    }

    pub(crate) fn in_home(mut home: Home) -> Self {
        let provider = OidcProvider::start();
        let broker = Broker::start(&BrokerOptions::trusting(provider.issuer()));
        Browser::http().user("alice", "x").install(&mut home);
        Self::of(provider, broker, home)
    }

    /// With a provider, a broker and a browser that are there already.
    pub(crate) fn of(provider: OidcProvider, broker: Broker, mut home: Home) -> Self {
        home.config(&configuration(&provider, &broker));
        home.set("TMPCRED_NO_INPUT", "false");
        Self { provider, broker, home }
    }

    pub(crate) fn tmpcred(&self, args: &[&str]) -> Run {
        tmpcred(&self.home).args(args)
    }

    /// How many requests the provider has had, once the broker has its keys, for which it
    /// waits for nobody.
    #[track_caller]
    pub(crate) fn asked(&self) -> usize {
        wait_until("the broker to have keys", Duration::from_secs(60), || {
            (self.provider.count("GET", "/jwks") > 0).then_some(())
        });
        self.provider.requests().len()
    }
}

fn configuration(provider: &OidcProvider, broker: &Broker) -> String {
    format!(
        r#"default_profile = "deploy"

[identity.corp]
type = "oidc"
issuer = "{}"
client_id = "cli"

[broker.main]
url = "{}"

[profile.deploy]
role = "deploy"
audience = "{API}"
ttl = "30m"
env = {{ DEPLOY_TOKEN = "{{token}}" }}

[profile.reader]
role = "reader"
audience = "{API}"
"#,
        provider.issuer(),
        broker.url()
    )
}

#[test]
fn one_login_then_every_command_starts_at_once() {
    let journey = Journey::start();
    let show = "echo $TMPCRED_ACTIVE_PROFILE $TMPCRED_ROLE; test $TMPCRED_TOKEN = $DEPLOY_TOKEN";
    let exec = ["exec", "--", "sh", "-c", show];
    assert_eq!(journey.tmpcred(&exec).run().ok().stdout, "deploy deploy\n");
    let before = journey.provider.requests().len();
    let first = journey.tmpcred(&["token"]).run().ok().stdout;
    assert_eq!(journey.tmpcred(&["token"]).run().ok().stdout, first);
    assert_eq!(journey.provider.requests().len(), before, "a hit in the cache asks nobody");
    assert_eq!(journey.broker.issued(), 1);

    let status = journey.tmpcred(&["status", "--json"]).run().ok().json();
    assert_eq!(status["sessions"][0]["subject"], "alice");
    assert_eq!(status["credentials"][0]["profile"], "deploy");
    let left = status["credentials"][0]["remaining_seconds"].as_i64().unwrap();
    assert!((1700..=1800).contains(&left), "{left}");

    let verify = ["verify", "--audience", API, "--json"];
    let verified = journey.tmpcred(&verify).stdin(first.clone()).run().ok().json();
    assert_eq!(verified["claims"]["role"], "deploy");
    assert_eq!(verified["claims"]["aud"], API);
    let other = ["verify", "--audience", "https://other.example"];
    let refused = journey.tmpcred(&other).stdin(first).run().ended_with(9);
    assert!(refused.stderr.contains("it is for 'https://api.example.com'"), "{}", refused.stderr);

    let logout = journey.tmpcred(&["logout", "--json"]).run().ok().json();
    assert_eq!(logout[0]["session"], "revoked");
    let empty = journey.tmpcred(&["status", "--json"]).run().ok().json();
    assert_eq!(empty["sessions"], Value::Array(vec![]));
    assert_eq!(empty["credentials"], Value::Array(vec![]));
    let refused = journey.tmpcred(&["token", "--no-input"]).run().ended_with(4);
    assert!(
        refused.stderr.contains("login required: run `tmpcred login corp`"),
        "{}",
        refused.stderr
    );
}
