//! Logins that have to be fresh, or of a certain kind, at the certified provider.

use std::time::Duration;

use serde_json::json;
use time::OffsetDateTime;
use tmpcred::credential::{Assertion, TokenType};
use tmpcred::error::{ErrorKind, Result};
use tmpcred::identity::{IdentitySource, Strength};

use super::{BROKER, Plan, World, block_on, claims};
use crate::support::oidc_provider::{OidcOptions, OidcProvider};

impl World {
    fn stronger(&self, strength: &Strength) -> Result<Assertion> {
        block_on(self.source.session().unwrap().stronger(self.cx(), BROKER, strength))
    }
}

fn within(seconds: u64) -> Strength {
    Strength { max_age: Some(Duration::from_secs(seconds)), ..Strength::default() }
}

/// How long ago the login was, as the assertion says.
#[track_caller]
fn age(assertion: &Assertion) -> i64 {
    let at = claims(assertion)["auth_time"].as_i64().unwrap();
    OffsetDateTime::now_utc().unix_timestamp() - at
}

#[test]
fn a_fresh_login_is_asked_for_once_and_proved_by_the_id_token_where_no_other_says_when_it_was() {
    let provider = OidcProvider::start();
    let (world, browser) = Plan::new(provider.issuer()).build();
    assert_eq!(world.assertion(BROKER).unwrap().token_type, TokenType::AccessToken);
    let fresh = world.stronger(&within(3600)).unwrap();
    assert_eq!(fresh.token_type, TokenType::IdToken);
    assert!(age(&fresh) < 60);
    assert_eq!(browser.opened().len(), 2);
    let pages = || -> Vec<_> {
        let requests = provider.requests().into_iter();
        requests.filter(|request| request.path == "/auth").map(|request| request.max_age).collect()
    };
    assert_eq!(pages(), [None, Some("3600".into())]);

    // The same will do, as long as it is fresh.
    let again = world.stronger(&within(3600)).unwrap();
    assert_eq!(again.token.expose(), fresh.token.expose());
    assert_eq!(browser.opened().len(), 2);
    // (This provider takes 0 for `prompt=login`.)
    let anew = world.stronger(&within(0)).unwrap();
    assert_ne!(anew.token.expose(), fresh.token.expose());
    assert_eq!((pages().len(), browser.opened().len()), (3, 3));
    assert!(age(&anew) < 60);

    // Whoever may not be asked loses nothing by that.
    world.nobody_there();
    let error = world.stronger(&within(0)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LoginRequired);
    assert!(error.to_string().contains("fresh, or stronger"), "{error}");
    assert_eq!(world.assertion(BROKER).unwrap().token_type, TokenType::AccessToken);
    world.stronger(&within(3600)).unwrap();
}

#[test]
fn an_access_token_that_says_when_the_login_was_is_shown_also_after_a_login_by_a_code() {
    let options = OidcOptions { token_auth_time: true, ..OidcOptions::default() };
    let provider = OidcProvider::start_with(&options);
    for flow in ["browser", "device"] {
        let (world, _) = Plan::new(provider.issuer()).set("flow", json!(flow)).build();
        let fresh = world.stronger(&within(300)).unwrap();
        assert_eq!(fresh.token_type, TokenType::AccessToken, "{flow}");
        assert_eq!(claims(&fresh)["aud"], BROKER);
        assert!(age(&fresh) < 60, "{flow}");
        world.nobody_there();
        let again = world.stronger(&within(300)).unwrap();
        assert_eq!(again.token.expose(), fresh.token.expose(), "{flow}");
    }
    let asked: Vec<_> = provider.requests().into_iter().filter_map(|one| one.max_age).collect();
    assert!(asked.len() >= 2 && asked.iter().all(|age| age == "300"), "{asked:?}");
}

#[test]
fn the_kinds_of_login_that_are_wanted_go_before_what_the_configuration_says_of_all() {
    let provider = OidcProvider::start();
    let configured = json!({ "acr_values": "pwd", "ui_locales": "de" });
    let (world, browser) = Plan::new(provider.issuer()).set("login_parameters", configured).build();
    let acr_values = vec!["phr".to_string(), "mfa".to_string()];
    // Whether that is what came of it is for whoever is shown it to say.
    world.stronger(&Strength { acr_values, ..Strength::default() }).unwrap();
    let asked = |request: &crate::support::oidc_provider::Request| request.acr_values.clone();
    let pages: Vec<_> =
        provider.requests().iter().filter(|r| r.path == "/auth").map(asked).collect();
    assert_eq!(pages, [Some("phr mfa".into())]);
    assert_eq!(browser.opened().len(), 1);
}
