//! Renewing a session, with a provider that does not play by the rules.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::{BROKER, Scene, World};
use crate::credential::{Principal, TokenType};
use crate::error::{ErrorKind, Result};
use crate::host::test_server::{Reply, run};
use crate::identity::oidc::refresh::{Renewed, renew};
use crate::identity::oidc::session::Session;
use crate::secret::Secret;

fn session(world: &World) -> Session {
    let issuer = world.settings.issuer.as_str().to_string();
    let principal = Principal { issuer, subject: "alice".into() };
    let mut session = Session::new(principal, "cli", world.host.clock.now());
    session.refresh_token = Some(Secret::new("refresh-0".into()));
    session
}

/// Renews a session; returns how it went, and which refresh tokens were kept.
fn try_renew(
    world: &World,
    session: Session,
    audience: Option<&str>,
) -> (Result<Renewed>, Vec<String>) {
    try_renew_beside(world, session, audience, None)
}

/// The same, where another process has kept a session meanwhile.
fn try_renew_beside(
    world: &World,
    session: Session,
    audience: Option<&str>,
    other: Option<&Session>,
) -> (Result<Renewed>, Vec<String>) {
    let kept = RefCell::new(Vec::new());
    let stored = || {
        let issuer = world.settings.issuer.as_str();
        Ok(other.and_then(|other| Session::decode(&other.encode(), issuer, "cli", |it| it)))
    };
    let renewed = run(async {
        let provider = world.provider().await;
        renew(&provider, session, audience, |session| {
            let token = session.refresh_token.as_ref().unwrap().expose().clone();
            kept.borrow_mut().push(token);
        }, stored)
        .await
    });
    (renewed, kept.into_inner())
}

fn alive(world: &World, session: Session, audience: Option<&str>) -> Session {
    match try_renew(world, session, audience).0.unwrap() {
        Renewed::Alive(session) => session,
        Renewed::Ended(_, refusal) => panic!("{refusal:?}"),
    }
}

fn world(answer: impl Fn(&Scene<'_>) -> Reply + Send + Sync + 'static) -> World {
    World::new(json!({}), answer)
}

#[test]
fn a_rotated_refresh_token_is_kept_before_anything_can_fail() {
    let twists: [fn(&Scene<'_>) -> Value; 5] = [
        |_| json!({"id_token": "malformed"}),
        |scene| json!({"id_token": scene.id_token(json!({"aud": "another"}))}),
        |scene| json!({"id_token": scene.id_token(json!({"sub": "mallory"}))}),
        |scene| json!({"id_token": scene.id_token(json!({"exp": 1}))}),
        |scene| json!({"id_token": scene.id_token(json!({"iss": "https://evil.example"}))}),
    ];
    for twist in twists {
        let world = world(move |scene| scene.tokens(twist(scene)));
        let (renewed, kept) = try_renew(&world, session(&world), Some(BROKER));
        let error = renewed.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Verification);
        assert_eq!(error.message(), "the session could not be renewed");
        assert_eq!(kept, ["refresh-1"], "{error}");
    }
}

#[test]
fn odd_answers_renew_the_session_all_the_same() {
    let twists: [(Value, &str, TokenType); 4] = [
        (json!({"id_token": ""}), "refresh-1", TokenType::AccessToken),
        (json!({"id_token": null, "expires_in": "60"}), "refresh-1", TokenType::AccessToken),
        (json!({"refresh_token": null}), "refresh-0", TokenType::AccessToken),
        (json!({"access_token": "opaque", "token_type": 7}), "refresh-1", TokenType::IdToken),
    ];
    for (twist, refresh_token, shown) in twists {
        let answer = twist.clone();
        let world = world(move |scene| {
            let mut good = json!({"access_token": scene.access_token(BROKER, json!({}))});
            super::merge(&mut good, answer.clone());
            scene.tokens(good)
        });
        let session = alive(&world, session(&world), Some(BROKER));
        assert_eq!(session.refresh_token.as_ref().unwrap().expose(), refresh_token, "{twist}");
        let assertion = session.assertion(BROKER, false, world.host.clock.now()).unwrap();
        assert_eq!(assertion.token_type, shown, "{twist}");
        let form = &world.server.at("/token")[0].form;
        assert_eq!(form["grant_type"], "refresh_token");
        assert_eq!(
            (form["refresh_token"].as_str(), form["resource"].as_str()),
            ("refresh-0", BROKER)
        );
    }
}

#[test]
fn only_a_clear_no_ends_the_session() {
    let mute = |status| Reply::text(status, "");
    let clear = Reply::json(400, &json!({"error": "invalid_grant"}));
    for (reply, asked) in [(mute(400), 2), (mute(401), 2), (clear, 1)] {
        let world = world(move |_| reply.clone());
        let (renewed, kept) = try_renew(&world, session(&world), None);
        assert!(
            matches!(renewed.unwrap(), Renewed::Ended(_, refusal) if refusal.code == "invalid_grant")
        );
        assert!(kept.is_empty());
        assert_eq!(world.server.at("/token").len(), asked);
    }
    for (reply, kind) in [
        (Reply::text(503, "").header("retry-after", "9".into()), ErrorKind::Unreachable),
        (Reply::text(429, ""), ErrorKind::Unreachable),
        (Reply::gone(), ErrorKind::Unreachable),
        (Reply::text(404, "<html>"), ErrorKind::Verification),
        (Reply::text(302, "").header("location", "/x".into()), ErrorKind::Verification),
        (Reply::json(400, &json!({"error": "invalid_client"})), ErrorKind::Config),
        (Reply::json(403, &json!({"error": "access_denied"})), ErrorKind::Denied),
    ] {
        let world = world(move |_| reply.clone());
        let (renewed, kept) = try_renew(&world, session(&world), None);
        assert_eq!(renewed.map(|_| ()).unwrap_err().kind(), kind);
        assert!(kept.is_empty());
        assert_eq!(world.server.at("/token").len(), 1);
    }
}

#[test]
fn a_refusal_without_a_word_that_does_not_come_again_ends_nothing() {
    for (status, second) in [(400, 200), (401, 200), (400, 503)] {
        let number = AtomicUsize::new(0);
        let world = world(move |scene| match (number.fetch_add(1, Ordering::SeqCst), second) {
            (0, _) => Reply::text(status, ""),
            (_, 200) => scene.tokens(json!({})),
            _ => Reply::text(second, ""),
        });
        let (renewed, kept) = try_renew(&world, session(&world), None);
        match second {
            200 => assert!(matches!(renewed.unwrap(), Renewed::Alive(_)), "{status}"),
            _ => assert_eq!(renewed.map(|_| ()).unwrap_err().kind(), ErrorKind::Unreachable),
        }
        assert_eq!(kept.first().map(String::as_str), (second == 200).then_some("refresh-1"));
    }
}

#[test]
fn what_another_process_has_kept_meanwhile_is_gone_on_with() {
    let world = world(|scene| match scene.asked("refresh_token") {
        "refresh-9" => scene.tokens(json!({})),
        _ => scene.refuse("invalid_grant"),
    });
    let with = |refresh_token: &str| {
        let mut other = session(&world);
        other.refresh_token = Some(Secret::new(refresh_token.into()));
        other
    };
    let ended = |renewed: Result<Renewed>| matches!(renewed.unwrap(), Renewed::Ended(..));
    let (renewed, kept) = try_renew_beside(&world, session(&world), None, Some(&with("refresh-9")));
    assert!(!ended(renewed));
    assert_eq!(kept.first().map(String::as_str), Some("refresh-1"));
    // The same one again, none at all, or one that is refused too.
    let before = world.server.at("/token").len();
    for (other, asked) in [(Some("refresh-0"), 1), (None, 1), (Some("refresh-8"), 2)] {
        let start = world.server.at("/token").len();
        let other = other.map(with);
        let (renewed, kept) = try_renew_beside(&world, session(&world), None, other.as_ref());
        assert!(ended(renewed) && kept.is_empty());
        assert_eq!(world.server.at("/token").len() - start, asked);
    }
    assert_eq!(world.server.at("/token").len() - before, 4);
}

#[test]
fn an_audience_that_is_refused_is_not_asked_for_again() {
    let world = world(|scene| match scene.asked("resource") {
        "" => scene.tokens(json!({})),
        _ => scene.refuse("invalid_target"),
    });
    let renewed = alive(&world, session(&world), Some(BROKER));
    let shown = |session: &Session| {
        session.assertion(BROKER, false, world.host.clock.now()).unwrap().token_type
    };
    assert_eq!(shown(&renewed), TokenType::IdToken);
    assert_eq!(world.server.at("/token").len(), 2);
    let renewed = alive(&world, renewed, Some(BROKER));
    assert_eq!(shown(&renewed), TokenType::IdToken);
    assert_eq!(world.server.at("/token").len(), 3);
    // With an ID token at hand, the refresh token is not used a second time: the
    // refusal may have used it up.
    let (refused, kept) = try_renew(&world, renewed, Some("https://other.example"));
    assert!(matches!(refused.unwrap(), Renewed::Alive(_)));
    assert_eq!(world.server.at("/token").len(), 4);
    assert_eq!(kept, ["refresh-1"]);
}

#[test]
fn a_name_that_is_no_address_is_not_sent_as_a_resource() {
    let mut world = world(|scene| scene.tokens(json!({})));
    alive(&world, session(&world), Some("broker"));
    assert!(!world.server.at("/token")[0].form.contains_key("resource"));
    world.settings.audience_parameter = crate::identity::oidc::AudienceParameter::Audience;
    alive(&world, session(&world), Some("broker"));
    assert_eq!(world.server.at("/token")[1].form["audience"], "broker");
    world.settings.audience_parameter = crate::identity::oidc::AudienceParameter::None;
    alive(&world, session(&world), Some(BROKER));
    let form = &world.server.at("/token")[2].form;
    assert!(!form.contains_key("audience") && !form.contains_key("resource"));
}
