//! What a login proves, traded for a credential at a real broker.

use std::time::Duration;

use tmpcred::credential::{Assertion, Credential, TokenType};
use tmpcred::error::{ErrorKind, Result};
use tmpcred::mint::broker::{Broker as Target, Server};
use tmpcred::mint::{Request, Target as _};
use tmpcred::oidc::Issuer;

use super::{OTHER, Plan, World, block_on, login_for};
use crate::support::broker::{API, Broker, BrokerOptions};
use crate::support::oidc_provider::{OidcOptions, OidcProvider};

fn target(broker: &Broker) -> Target {
    let url = Issuer::parse(broker.url()).unwrap();
    Target::new(Server::from(url))
}

fn deploy() -> Request {
    Request {
        role: "deploy".into(),
        scope: vec!["deploy:read".into()],
        audience: API.into(),
        ttl: Some(Duration::from_secs(600)),
        elevation: None,
    }
}

fn mint(
    world: &World,
    broker: &Broker,
    assertion: &Assertion,
    request: &Request,
) -> Result<Credential> {
    block_on(target(broker).mint(&world.host, assertion, request))
}

#[test]
fn an_access_token_for_the_broker_mints_what_was_asked_for() {
    let provider = OidcProvider::start();
    let broker = Broker::start(&BrokerOptions::trusting(provider.issuer()));
    for clock in [0, -600, 600] {
        let (world, _) = Plan { clock, ..Plan::new(provider.issuer()) }.build();
        let assertion = world.assertion(broker.url()).unwrap();
        assert_eq!(assertion.token_type, TokenType::AccessToken);
        let credential = mint(&world, &broker, &assertion, &deploy()).unwrap();
        assert_eq!((credential.role.as_str(), credential.scope.len()), ("deploy", 1));
        assert_eq!(credential.principal, assertion.principal);
        let left = credential.lifetime.remaining(world.host.clock.now());
        assert!(left > time::Duration::minutes(9), "{clock}: {left}");
    }
    assert_eq!(broker.issued(), 3);
}

#[test]
fn an_id_token_mints_where_the_provider_has_no_better() {
    let options = OidcOptions { resource_tokens: false, ..OidcOptions::default() };
    let provider = OidcProvider::start_with(&options);
    let broker = Broker::start(&BrokerOptions::trusting(provider.issuer()));
    let (world, _) = Plan::new(provider.issuer()).build();
    let assertion = world.assertion(broker.url()).unwrap();
    assert_eq!(assertion.token_type, TokenType::IdToken);
    mint(&world, &broker, &assertion, &deploy()).unwrap();
}

#[test]
fn what_the_broker_does_not_give_is_explained() {
    let provider = OidcProvider::start();
    let mut broker = Broker::start(&BrokerOptions::trusting(provider.issuer()));
    let (world, _) = Plan::new(provider.issuer()).build();
    world.login(&login_for(&[broker.url(), OTHER])).unwrap();
    let good = world.assertion(broker.url()).unwrap();
    let elsewhere = world.assertion(OTHER).unwrap();
    let role = Request { role: "admin".into(), ..deploy() };
    let scope = Request { scope: vec!["deploy:delete".into()], ..deploy() };
    let audience = Request { audience: OTHER.into(), ..deploy() };
    for (assertion, request, kind, says) in [
        (&good, role, ErrorKind::Denied, "'admin'"),
        (&good, scope, ErrorKind::Denied, "deploy:delete"),
        (&good, audience, ErrorKind::Denied, OTHER),
        (&elsewhere, deploy(), ErrorKind::Verification, OTHER),
    ] {
        let error = mint(&world, &broker, assertion, &request).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(says), "{says}: {error}");
        assert!(error.to_string().contains("the request is "), "{error}");
        assert!(!error.hints().is_empty());
    }
    assert_eq!(broker.issued(), 0);
    broker.stop();
    let error = mint(&world, &broker, &good, &deploy()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
}
