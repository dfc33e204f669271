//! The browser flow, with a provider that does not play by the rules.

use serde_json::{Value, json};

use super::{BROKER, Scene, World, back, parameter, visit};
use crate::credential::TokenType;
use crate::error::{Error, ErrorKind, Result};
use crate::host::test_server::{Reply, run};
use crate::identity::oidc::code::log_in;
use crate::identity::oidc::session::Session;

fn login(world: &World, audiences: &[&str]) -> Result<Session> {
    let audiences: Vec<String> = audiences.iter().map(|a| a.to_string()).collect();
    run(async { log_in(&world.provider().await, &audiences).await })
}

/// A world whose token endpoint answers like this, after a login that comes back
/// with a code.
fn world(answer: impl Fn(&Scene<'_>) -> Reply + Send + Sync + 'static) -> World {
    let world = World::new(json!({}), answer);
    world.person.comes_back_with(&[("code", "the-code")]);
    world
}

fn refused(world: &World) -> Error {
    let error = login(world, &[BROKER]).map(|_| ()).unwrap_err();
    assert_eq!(error.message(), "the login did not succeed");
    error
}

#[test]
fn a_login_asks_for_what_it_needs_and_once() {
    let world =
        world(|scene| scene.tokens(json!({"access_token": scene.access_token(BROKER, json!({}))})));
    let session = login(&world, &[BROKER, "https://other.example"]).unwrap();
    let assertion = session.assertion(BROKER, false, world.host.clock.now()).unwrap();
    assert_eq!(assertion.token_type, TokenType::AccessToken);
    assert_eq!(assertion.principal.subject, "alice");
    assert_eq!(session.granted, [BROKER, "https://other.example"]);

    let page = &world.person.pages.lock().unwrap()[0];
    let asked = |name: &str| parameter(page, name).unwrap_or_default();
    assert_eq!(asked("response_type"), "code");
    assert_eq!(asked("code_challenge_method"), "S256");
    assert_eq!(asked("scope"), "openid offline_access");
    assert!(asked("state").len() >= 43 && asked("nonce").len() >= 43);
    let resources: Vec<_> =
        page.query_pairs().filter(|(n, _)| n == "resource").map(|(_, v)| v.into_owned()).collect();
    assert_eq!(resources, [BROKER, "https://other.example"]);
    assert_eq!(*world.person.shown.lock().unwrap(), [(page.clone(), true)]);

    let requests = world.server.at("/token");
    assert_eq!(requests.len(), 1);
    let form = &requests[0].form;
    assert_eq!((form["code"].as_str(), form["client_id"].as_str()), ("the-code", "cli"));
    assert_eq!(form["resource"], BROKER);
    assert_eq!(form["redirect_uri"], asked("redirect_uri"));
    assert!(form["code_verifier"].len() >= 43);
    // Discovery, token, keys.
    assert_eq!(world.server.arrived().len(), 3);
}

#[test]
fn the_page_is_shown_where_no_browser_starts() {
    let world = World::new(json!({}), |scene| scene.tokens(json!({"id_token": ""})));
    let person = world.person.clone();
    let typing = std::thread::spawn(move || {
        let page = loop {
            if let Some((page, opened)) = person.shown.lock().unwrap().first().cloned() {
                assert!(!opened);
                break page;
            }
            std::thread::yield_now();
        };
        visit(&back(&page, &[("code", "c")])).status
    });
    let error = refused_quietly(&world);
    assert!(error.to_string().contains("no ID token"), "{error}");
    assert_eq!(typing.join().unwrap(), 200);
    assert!(world.person.told()[0].contains("the browser does not start"));
}

fn refused_quietly(world: &World) -> Error {
    login(world, &[]).map(|_| ()).unwrap_err()
}

#[test]
fn answers_of_another_provider_are_refused() {
    let announced = json!({"authorization_response_iss_parameter_supported": true});
    let nothing = json!({});
    type Brought = &'static [(&'static str, &'static str)];
    let cases: [(&Value, Brought, &str); 3] = [
        (
            &nothing,
            &[("code", "c"), ("iss", "https://evil.example")],
            "that of 'https://evil.example'",
        ),
        (&announced, &[("code", "c")], "does not say who sent it"),
        (
            &announced,
            &[("error", "invalid_target"), ("iss", "https://evil.example")],
            "'https://evil.example'",
        ),
    ];
    for (discovery, parameters, says) in cases {
        let world = World::new(discovery.clone(), |scene| scene.tokens(json!({})));
        world.person.comes_back_with(parameters);
        let error = refused(&world);
        assert_eq!(error.kind(), ErrorKind::Verification);
        assert!(error.to_string().contains(says), "{error}");
        assert!(world.server.at("/token").is_empty(), "the code went nowhere");
    }
}

#[test]
fn the_providers_own_words_end_the_login() {
    let world = World::new(json!({}), |scene| scene.tokens(json!({})));
    world.person.comes_back_with(&[
        ("error", "access_denied"),
        ("error_description", "not on\u{1b}[31m Sundays"),
    ]);
    let error = refused(&world);
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert_eq!(error.causes(), ["it says: not on\u{fffd}[31m Sundays (access_denied)"]);
    world.person.comes_back_with(&[]);
    assert!(refused(&world).to_string().contains("neither a code nor an error"));
}

#[test]
fn tokens_that_are_not_what_they_must_be_are_refused() {
    let unsigned = |scene: &Scene<'_>| {
        use base64::Engine as _;
        let part =
            |v: Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(v.to_string());
        let good = scene.id_token(json!({}));
        let claims = good.split('.').nth(1).unwrap();
        format!("{}.{claims}.", part(json!({"alg": "none", "kid": "k"})))
    };
    type Twist = Box<dyn Fn(&Scene<'_>) -> Value + Send + Sync>;
    let id = |claims: Value| -> Twist {
        Box::new(move |scene| json!({"id_token": scene.id_token(claims.clone())}))
    };
    let cases: [(Twist, &str); 12] = [
        (id(json!({"nonce": "of another login"})), "its nonce"),
        (id(json!({"nonce": null})), "its nonce"),
        (id(json!({"iss": "https://evil.example"})), "issued by 'https://evil.example'"),
        (id(json!({"aud": "another"})), "it is for 'another', not for 'cli'"),
        (id(json!({"aud": ["cli", "another"]})), "several audiences"),
        (id(json!({"azp": "another"})), "it was issued to"),
        (id(json!({"exp": 1_000_000_000})), "it expired"),
        (id(json!({"at_hash": "wrong"})), "at_hash"),
        (Box::new(move |scene| json!({"id_token": unsigned(scene)})), "its algorithm is 'none'"),
        (
            Box::new(|scene| {
                let good = scene.id_token(json!({}));
                let (rest, signature) = good.rsplit_once('.').unwrap();
                let swapped: String = signature.chars().rev().collect();
                json!({"id_token": format!("{rest}.{swapped}")})
            }),
            "its signature does not match",
        ),
        (Box::new(|_| json!({"id_token": "garbage"})), "not a signed JWT"),
        (Box::new(|_| json!({"id_token": null})), "no ID token"),
    ];
    for (twist, says) in cases {
        let world = world(move |scene| scene.tokens(twist(scene)));
        let error = refused(&world);
        assert_eq!(error.kind(), ErrorKind::Verification, "{error}");
        assert!(error.to_string().contains(says), "{says}: {error}");
    }
}

#[test]
fn a_token_by_an_unknown_key_fetches_the_keys_once_only() {
    let world = world(|scene| {
        let mut header = jsonwebtoken::Header::new(crate::oidc::jwt::Algorithm::ES256);
        header.kid = Some("unknown".into());
        let (key, _) = crate::oidc::keys::tests::es256("unknown");
        let token = jsonwebtoken::encode(&header, &json!({"iss": scene.issuer}), &key).unwrap();
        scene.tokens(json!({"id_token": token}))
    });
    assert!(refused(&world).to_string().contains("has no key 'unknown'"));
    assert_eq!(world.server.at("/keys").len(), 1);
}

#[test]
fn odd_answers_are_understood_and_senseless_ones_explained() {
    let odd = world(|scene| {
        scene.tokens(json!({"expires_in": "3600", "token_type": null, "scope": ["openid"]}))
    });
    let session = login(&odd, &[BROKER]).unwrap();
    // The access token is opaque.
    let assertion = session.assertion(BROKER, false, odd.host.clock.now()).unwrap();
    assert_eq!(assertion.token_type, TokenType::IdToken);
    let cases: [(Reply, ErrorKind, &str); 8] = [
        (Reply::text(200, "<html>canary"), ErrorKind::Verification, "looks like a web page"),
        (Reply::text(404, "<html>canary"), ErrorKind::Verification, "the status is 404"),
        (Reply::text(200, ""), ErrorKind::Verification, "it is not JSON"),
        (Reply::text(200, "[\"canary\"]"), ErrorKind::Verification, "cannot be understood"),
        (Reply::text(200, &"x".repeat(50_000_000)), ErrorKind::Verification, "too large"),
        (
            Reply::text(307, "").header("location", "/canary".into()),
            ErrorKind::Verification,
            "redirect",
        ),
        (Reply::text(503, "canary"), ErrorKind::Unreachable, "it answered 503"),
        (Reply::gone(), ErrorKind::Unreachable, "did not answer"),
    ];
    for (reply, kind, says) in cases {
        let world = world(move |_| reply.clone());
        let error = refused(&world);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(says), "{says}: {error}");
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    }
    let refuses = world(|scene| scene.refuse("invalid_client"));
    let error = refused(&refuses);
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("the provider's words (invalid_client)"), "{error}");
    assert!(error.hints()[0].contains("client_id"));
}

#[test]
fn a_provider_that_knows_no_such_audience_is_asked_without_it_in_the_same_tab() {
    // At the login page.
    let at_page = World::new(json!({}), |scene| scene.tokens(json!({})));
    let person = at_page.person.clone();
    at_page.person.browses(move |page| {
        assert_eq!(parameter(&page, "resource").as_deref(), Some(BROKER));
        let sent_on = visit(&back(&page, &[("error", "invalid_target")]));
        let page = sent_on.location.unwrap();
        assert_eq!((sent_on.status, parameter(&page, "resource")), (303, None));
        person.pages.lock().unwrap().push(page.clone());
        assert_eq!(visit(&back(&page, &[("code", "c")])).status, 200);
    });
    // At the token endpoint.
    let at_endpoint = world(|scene| match scene.asked("resource") {
        "" => scene.tokens(json!({})),
        _ => scene.refuse("invalid_target"),
    });
    for world in [at_page, at_endpoint] {
        let session = login(&world, &[BROKER]).unwrap();
        let assertion = session.assertion(BROKER, false, world.host.clock.now()).unwrap();
        assert_eq!(assertion.token_type, TokenType::IdToken);
        assert!(session.granted.is_empty() && session.is_refused(BROKER));
        assert_eq!(world.person.shown.lock().unwrap().len(), 1, "one tab");
        let states: Vec<_> =
            world.person.pages.lock().unwrap().iter().map(|p| parameter(p, "state")).collect();
        assert_eq!(states.len(), 2);
        assert_ne!(states[0], states[1]);
    }
}

#[test]
fn an_access_token_that_proves_nothing_is_not_shown() {
    type Twist = Box<dyn Fn(&Scene<'_>) -> String + Send + Sync>;
    let cases: [Twist; 5] = [
        Box::new(|scene| scene.access_token("https://broker.example/", json!({}))),
        Box::new(|scene| scene.access_token(BROKER, json!({"iss": "https://evil.example"}))),
        Box::new(|scene| scene.access_token(BROKER, json!({"sub": "somebody else"}))),
        Box::new(|scene| scene.access_token(BROKER, json!({"exp": 1_000_000_000}))),
        Box::new(|scene| format!("{}x", scene.access_token(BROKER, json!({})))),
    ];
    for (number, twist) in cases.into_iter().enumerate() {
        let world = world(move |scene| scene.tokens(json!({"access_token": twist(scene)})));
        let session = login(&world, &[BROKER]).unwrap();
        let assertion = session.assertion(BROKER, false, world.host.clock.now()).unwrap();
        assert_eq!(assertion.token_type, TokenType::IdToken, "{number}");
    }
}

#[test]
fn a_provider_without_s256_is_refused() {
    let plain = json!({"code_challenge_methods_supported": ["plain"]});
    let world = World::new(plain, |scene| scene.tokens(json!({})));
    assert!(refused(&world).to_string().contains("PKCE with S256"));
    assert!(world.person.shown.lock().unwrap().is_empty());
}

#[test]
fn a_clock_that_nobody_believes_is_told_and_changes_nothing() {
    let last = "Fri, 31 Dec 9999 23:59:59 GMT";
    let world = world(move |scene| scene.tokens(json!({})).header("date", last.into()));
    login(&world, &[BROKER]).unwrap();
    let off = world.host.corrected_now() - world.host.clock.now();
    assert!(off.abs() < time::Duration::minutes(1), "{off}");
    world.host.tell_skew();
    world.host.tell_skew();
    let told = world.person.told();
    assert!(told.len() == 1 && told[0].contains("not believed"), "{told:?}");
}

#[test]
fn a_clock_ten_minutes_off_is_corrected_and_told() {
    for (ahead, says) in [(600, "ahead of"), (-600, "behind")] {
        let mut world = world(|scene| scene.tokens(json!({})));
        let clock = crate::host::clock::SystemClock;
        use crate::host::clock::Clock as _;
        world.host.clock = std::sync::Arc::new(crate::host::clock::FixedClock(
            clock.now() + time::Duration::seconds(ahead),
        ));
        let session = login(&world, &[BROKER]).unwrap();
        let assertion = session.assertion(BROKER, false, world.host.clock.now()).unwrap();
        let left = assertion.expires_at - clock.now();
        assert!(
            left > time::Duration::minutes(59) && left <= time::Duration::minutes(60),
            "{left}"
        );
        world.host.tell_skew();
        world.host.tell_skew();
        let told = world.person.told();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains(says), "{told:?}");
    }
}
