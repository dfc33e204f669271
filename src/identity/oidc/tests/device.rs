//! The device flow, with a provider that does not play by the rules.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::{BROKER, Scene, World, merge};
use crate::credential::TokenType;
use crate::error::{Error, ErrorKind, Result};
use crate::host::test_server::{Reply, run};
use crate::identity::oidc::device::log_in;
use crate::identity::oidc::session::Session;

/// How one poll is answered.
type Poll = Box<dyn Fn(&Scene<'_>) -> Reply + Send + Sync>;

/// Logs in; returns how long it would have slept between requests.
fn login(world: &World, audiences: &[&str]) -> (Result<Session>, Vec<u64>) {
    let audiences: Vec<String> = audiences.iter().map(|a| a.to_string()).collect();
    let naps = Mutex::new(Vec::new());
    let session = run(async {
        let provider = world.provider().await;
        log_in(&provider, &audiences, |nap: Duration| {
            naps.lock().unwrap().push(nap.as_secs());
            tokio::task::yield_now()
        })
        .await
    });
    (session, naps.into_inner().unwrap())
}

fn refused(world: &World) -> Error {
    login(world, &[]).0.map(|_| ()).unwrap_err()
}

fn codes(twist: Value) -> Reply {
    let mut answer = json!({
        "device_code": "the-device-code", "user_code": "ABCD-EFGH", "expires_in": 300,
        "verification_uri": "https://i.example/device", "interval": 7,
    });
    merge(&mut answer, twist);
    Reply::json(200, &answer)
}

/// A world that gives out codes, and then answers the polls in this order; the
/// last answer again and again.
fn world(twist: Value, polls: Vec<Poll>) -> World {
    let asked = AtomicUsize::new(0);
    World::new(json!({}), move |scene| match scene.request.path.as_str() {
        "/device" => codes(twist.clone()),
        "/token" => {
            assert_eq!(scene.asked("device_code"), "the-device-code");
            let number = asked.fetch_add(1, Ordering::Relaxed).min(polls.len() - 1);
            polls[number](scene)
        }
        other => panic!("nobody asks for {other}"),
    })
}

fn granted() -> Poll {
    Box::new(|scene| scene.tokens(json!({"access_token": scene.access_token(BROKER, json!({}))})))
}

fn refuses(code: &'static str) -> Poll {
    Box::new(move |scene| scene.refuse(code))
}

fn replies(reply: Reply) -> Poll {
    Box::new(move |_| reply.clone())
}

#[test]
fn the_pace_is_the_providers() {
    let world = world(
        json!({"verification_uri_complete": "https://i.example/device?c=ABCD-EFGH"}),
        vec![
            refuses("authorization_pending"),
            refuses("slow_down"),
            refuses("authorization_pending"),
            granted(),
        ],
    );
    let (session, naps) = login(&world, &[BROKER]);
    let session = session.unwrap();
    assert_eq!(naps, [7, 7, 12, 12]);
    let assertion = session.assertion(BROKER, false, world.host.clock.now()).unwrap();
    assert_eq!(assertion.token_type, TokenType::AccessToken);
    let prompt = world.person.prompts.lock().unwrap()[0].clone();
    assert_eq!(prompt.user_code, "ABCD-EFGH");
    assert_eq!(prompt.verification_uri.as_str(), "https://i.example/device");
    assert!(prompt.verification_uri_complete.unwrap().query().is_some());
    assert_eq!(prompt.good_for, time::Duration::seconds(300));
    let request = &world.server.at("/device")[0].form;
    assert_eq!(request["scope"], "openid offline_access");
    assert_eq!(request["resource"], BROKER);
    assert_eq!(world.server.at("/token")[0].form["resource"], BROKER);
}

#[test]
fn a_provider_that_stumbles_is_waited_for() {
    let world = world(
        json!({}),
        vec![
            replies(Reply::gone()),
            replies(Reply::text(503, "<html>")),
            replies(Reply::text(429, "")),
            refuses("authorization_pending"),
            granted(),
        ],
    );
    let (session, naps) = login(&world, &[]);
    session.unwrap();
    assert_eq!(naps, [7, 14, 28, 56, 56]);
}

#[test]
fn what_cannot_get_better_is_not_waited_for() {
    for (reply, says) in [
        (Reply::text(200, "<html>canary"), "looks like a web page"),
        (Reply::text(200, &"x".repeat(2_000_000)), "too large"),
        (Reply::text(302, "").header("location", "/".into()), "redirect"),
        (Reply::text(400, ""), "it gives no reason"),
    ] {
        let world = world(json!({}), vec![replies(reply), granted()]);
        let error = refused(&world);
        assert!(error.to_string().contains(says), "{says}: {error}");
        assert!(!format!("{error:?}").contains("canary"));
        assert_eq!(world.server.at("/token").len(), 1);
    }
}

#[test]
fn the_person_or_the_time_may_say_no() {
    let error = refused(&world(json!({}), vec![refuses("access_denied")]));
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("the provider's words"), "{error}");
    let error = refused(&world(json!({}), vec![refuses("expired_token")]));
    assert_eq!(error.message(), "the login was not finished in time");
    let error = refused(&world(json!({"expires_in": 0}), vec![refuses("authorization_pending")]));
    assert_eq!(error.message(), "the login was not finished in time");
    // A code that the provider has forgotten with its time, and one that it forgets before.
    let error = refused(&world(json!({"expires_in": 0}), vec![refuses("invalid_grant")]));
    assert_eq!(error.message(), "the login was not finished in time");
    let error = refused(&world(json!({}), vec![refuses("invalid_grant")]));
    assert!(error.to_string().contains("invalid_grant"), "{error}");
}

#[test]
fn odd_codes_are_understood() {
    for (twist, nap) in [
        (json!({"verification_url": "https://old.example/"}), 7),
        (json!({"expires_in": "300", "interval": "9"}), 9),
        (json!({"interval": null}), 5),
        (json!({"interval": "soon"}), 5),
        (json!({"interval": 0}), 1),
        (json!({"interval": 100_000}), 60),
        (json!({"verification_uri_complete": ""}), 7),
        (json!({"verification_uri_complete": "javascript:alert(1)"}), 7),
    ] {
        let world = world(twist.clone(), vec![granted()]);
        let (session, naps) = login(&world, &[]);
        session.unwrap();
        assert_eq!(naps, [nap], "{twist}");
        let prompt = world.person.prompts.lock().unwrap()[0].clone();
        assert_eq!(prompt.verification_uri.as_str(), "https://i.example/device");
        assert_eq!(prompt.verification_uri_complete, None);
    }
}

#[test]
fn what_nobody_should_see_is_not_shown() {
    for (twist, says) in [
        (json!({"user_code": "\u{1b}]0;x\u{7}"}), "cannot be typed"),
        (json!({"user_code": "a\nb"}), "cannot be typed"),
        (json!({"user_code": ""}), "cannot be typed"),
        (json!({"user_code": "x".repeat(65)}), "cannot be typed"),
        (json!({"verification_uri": "file:///etc/passwd"}), "only http and https"),
        (json!({"verification_uri": "no address"}), "something is missing or wrong"),
        (json!({"expires_in": null}), "something is missing or wrong"),
        (json!({"device_code": null}), "something is missing or wrong"),
    ] {
        let world = world(twist, vec![granted()]);
        let error = refused(&world);
        assert_eq!(error.kind(), ErrorKind::Verification, "{error}");
        assert!(error.to_string().contains(says), "{says}: {error}");
        assert!(world.person.prompts.lock().unwrap().is_empty());
        assert!(world.server.at("/token").is_empty());
    }
}

#[test]
fn a_provider_that_knows_no_such_audience_is_asked_without_it() {
    let at_codes = World::new(json!({}), |scene| match scene.request.path.as_str() {
        "/device" if scene.asked("resource").is_empty() => codes(json!({})),
        "/device" => scene.refuse("invalid_target"),
        _ => scene.tokens(json!({})),
    });
    let at_tokens = World::new(json!({}), |scene| match scene.request.path.as_str() {
        "/device" => codes(json!({})),
        _ if scene.asked("resource").is_empty() => scene.tokens(json!({})),
        _ => scene.refuse("invalid_target"),
    });
    for (world, prompts) in [(at_codes, 1), (at_tokens, 2)] {
        let session = login(&world, &[BROKER]).0.unwrap();
        let assertion = session.assertion(BROKER, false, world.host.clock.now()).unwrap();
        assert_eq!(assertion.token_type, TokenType::IdToken);
        assert_eq!(world.person.prompts.lock().unwrap().len(), prompts);
        assert!(world.person.told()[0].contains("does not know the audience"));
    }
}

#[test]
fn a_provider_without_the_flow_says_so() {
    let world = World::new(json!({"device_authorization_endpoint": null}), |_| Reply::gone());
    let error = refused(&world);
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("has no device flow"), "{error}");
}
