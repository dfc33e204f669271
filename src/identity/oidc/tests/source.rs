//! The source as a whole, over a cache in memory.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::{BROKER, Scene, World};
use crate::cache::{Cache, StoreChoice};
use crate::credential::TokenType;
use crate::error::ErrorKind;
use crate::host::test_server::{Reply, run};
use crate::identity::oidc::Oidc;
use crate::identity::{Context, IdentitySource, LoginOptions, Logout, Readiness};
use crate::reach::{Effort, Wish};

struct Setup {
    world: World,
    cache: Cache,
    source: Oidc,
}

impl Setup {
    fn new(answer: impl Fn(&Scene<'_>) -> Reply + Send + Sync + 'static) -> Self {
        Self::with_discovery(|| None, answer)
    }

    /// The same, where the discovery document may be something else.
    fn with_discovery(
        instead: impl Fn() -> Option<Reply> + Send + Sync + 'static,
        answer: impl Fn(&Scene<'_>) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let world = World::discovered(json!({}), instead, answer);
        world.person.comes_back_with(&[("code", "c")]);
        let cache = Cache::new(world.host.clone(), StoreChoice::Memory);
        let source = Oidc::new("corp", world.settings.clone());
        Self { world, cache, source }
    }

    fn cx(&self) -> Context<'_> {
        Context::new(&self.world.host, &self.cache)
    }

    fn assertion(&self, audience: &str) -> crate::error::Result<crate::credential::Assertion> {
        run(self.source.assertion(self.cx(), audience))
    }

    fn login(&self, options: &LoginOptions) -> crate::error::Result<crate::credential::Principal> {
        run(self.source.session().unwrap().login(self.cx(), options))
    }

    fn logout(&self) -> Logout {
        run(self.source.session().unwrap().logout(self.cx())).unwrap()
    }

    fn asked(&self, path: &str) -> usize {
        self.world.server.at(path).len()
    }

    fn nobody_there(&self) {
        self.world.person.absent.store(true, Ordering::Relaxed);
    }
}

/// Tokens for whatever is asked.
fn obliging(scene: &Scene<'_>) -> Reply {
    match scene.asked("resource") {
        "" => scene.tokens(json!({})),
        audience => scene.tokens(json!({"access_token": scene.access_token(audience, json!({}))})),
    }
}

#[test]
fn one_login_serves_every_run_after_it() {
    let setup = Setup::new(obliging);
    assert_eq!(setup.source.caller(setup.cx()).unwrap(), None);
    let first = setup.assertion(BROKER).unwrap();
    assert_eq!(first.token_type, TokenType::AccessToken);
    // Discovery, keys and one token request; then nothing.
    assert_eq!(setup.world.server.arrived().len(), 3);
    let second = setup.assertion(BROKER).unwrap();
    assert_eq!(second.token.expose(), first.token.expose());
    let principal = setup.login(&LoginOptions::default()).unwrap();
    assert_eq!(principal, first.principal);
    assert_eq!(setup.source.caller(setup.cx()).unwrap(), Some(principal.into()));
    assert_eq!(setup.world.server.arrived().len(), 3);
    // Another audience costs a refresh, and neither discovery nor keys.
    let other = setup.assertion("https://other.example").unwrap();
    assert_eq!(other.token_type, TokenType::AccessToken);
    assert_eq!(setup.world.server.arrived().len(), 4);
    assert_eq!(setup.world.server.arrived()[3].form["grant_type"], "refresh_token");
    assert_eq!(setup.assertion(BROKER).unwrap().token.expose(), first.token.expose());
    assert_eq!(setup.world.person.shown.lock().unwrap().len(), 1);
}

#[test]
fn an_access_token_that_proves_nothing_says_nothing_of_the_next_one() {
    let setup = Setup::new(|scene| {
        let token = scene.access_token(scene.asked("resource"), json!({}));
        match scene.asked("grant_type") {
            "refresh_token" => scene.tokens(json!({"access_token": token})),
            _ => scene.tokens(json!({"access_token": format!("{token}x")})),
        }
    });
    assert_eq!(setup.assertion(BROKER).unwrap().token_type, TokenType::IdToken);
    // The next run asks for another one.
    assert_eq!(setup.assertion(BROKER).unwrap().token_type, TokenType::AccessToken);
    assert_eq!(setup.world.person.shown.lock().unwrap().len(), 1);
}

#[test]
fn where_nobody_can_be_asked_the_error_says_what_to_type() {
    let setup = Setup::new(obliging);
    setup.nobody_there();
    let error = setup.assertion(BROKER).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LoginRequired);
    assert_eq!(error.to_string(), "login required: run `tmpcred login corp`");
    assert!(setup.world.server.arrived().is_empty());
}

#[test]
fn of_a_session_that_the_provider_ended_there_is_left_whose_it_was() {
    let setup = Setup::new(|scene| match scene.asked("grant_type") {
        "refresh_token" => scene.refuse("invalid_grant"),
        _ => scene.tokens(
            json!({"access_token": scene.access_token(scene.asked("resource"), json!({}))}),
        ),
    });
    setup.assertion(BROKER).unwrap();
    setup.nobody_there();
    let error = setup.assertion("https://other.example").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LoginRequired);
    assert_eq!(error.message(), "login required: run `tmpcred login corp`");
    assert_eq!(error.causes(), ["the session has ended: the provider's words"]);
    let caller = setup.source.caller(setup.cx()).unwrap().unwrap();
    assert_eq!(caller.principal().unwrap().subject, "alice");
    assert!(setup.cache.contents().unwrap().sessions[0].ended);
    assert_eq!(setup.asked("/token"), 2);
    // The dead refresh token is not tried again.
    let error = setup.assertion(BROKER).unwrap_err();
    assert_eq!(error.to_string(), "login required: run `tmpcred login corp`: the session has ended");
    assert_eq!(setup.asked("/token"), 2);
    // Nor is there anything to revoke.
    assert!(matches!(setup.logout(), Logout::Ended(principal) if principal.subject == "alice"));
    assert_eq!(setup.source.caller(setup.cx()).unwrap(), None);
    assert_eq!(setup.logout(), Logout::NoSession);
}

#[test]
fn a_new_login_asks_for_what_the_old_one_had() {
    let setup = Setup::new(|scene| match scene.asked("grant_type") {
        "refresh_token" => scene.refuse("invalid_grant"),
        _ => obliging(scene),
    });
    setup.assertion(BROKER).unwrap();
    setup.assertion("https://other.example").unwrap();
    let pages = setup.world.person.pages.lock().unwrap().clone();
    let resources: Vec<_> = pages[1]
        .query_pairs()
        .filter(|(name, _)| name == "resource")
        .map(|(_, value)| value.into_owned())
        .collect();
    assert_eq!(resources, ["https://other.example", BROKER]);
}

#[test]
fn an_outage_ends_no_session() {
    let down = std::sync::Arc::new(AtomicUsize::new(0));
    let switch = down.clone();
    let setup = Setup::new(move |scene| match switch.load(Ordering::Relaxed) {
        0 => obliging(scene),
        _ => Reply::text(503, ""),
    });
    setup.assertion(BROKER).unwrap();
    down.store(1, Ordering::Relaxed);
    let error = setup.assertion("https://other.example").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert_eq!(setup.assertion(BROKER).unwrap().token_type, TokenType::AccessToken);
    down.store(0, Ordering::Relaxed);
    setup.nobody_there();
    setup.assertion("https://other.example").unwrap();
}

#[test]
fn no_refresh_token_is_sent_to_a_provider_that_may_not_answer() {
    let down = std::sync::Arc::new(AtomicUsize::new(0));
    let switch = down.clone();
    let setup = Setup::with_discovery(
        move || (switch.load(Ordering::Relaxed) > 0).then(|| Reply::text(503, "")),
        obliging,
    );
    setup.assertion(BROKER).unwrap();
    setup.nobody_there();
    let with = |effort: Effort| {
        run(setup.source.assertion(setup.cx().with_effort(effort), "https://other.example"))
    };
    down.store(1, Ordering::Relaxed);
    // A cached credential serves: nobody needs this one now.
    let error = with(Effort::RENEW).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    // Whoever does is careful as well, once it has failed.
    with(Effort::MINT).unwrap_err();
    with(Effort::MINT).unwrap_err();
    assert_eq!(setup.asked("/token"), 1, "the login");
    let asked = setup.world.server.arrived().len();
    let error = with(Effort::MINT).unwrap_err();
    assert!(error.to_string().contains("failed 3 times in a row"), "{error}");
    assert_eq!(setup.world.server.arrived().len(), asked, "it is left alone");
    down.store(0, Ordering::Relaxed);
    crate::reach::insist(&setup.world.host, setup.world.settings.issuer.as_str(), Wish::Overridden);
    with(Effort::MINT).unwrap();
    assert_eq!(setup.asked("/token"), 2);
}

#[test]
fn no_renewal_that_nobody_needs_is_begun_at_a_provider_that_is_slow() {
    let slow = std::sync::Arc::new(AtomicUsize::new(0));
    let switch = slow.clone();
    let setup = Setup::with_discovery(
        move || {
            let millis = switch.load(Ordering::Relaxed) as u64;
            std::thread::sleep(std::time::Duration::from_millis(millis));
            None
        },
        obliging,
    );
    setup.assertion(BROKER).unwrap();
    setup.nobody_there();
    let with = |effort: Effort| {
        run(setup.source.assertion(setup.cx().with_effort(effort), "https://other.example"))
    };
    slow.store(4100, Ordering::Relaxed);
    let error = with(Effort::RENEW).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.to_string().contains("slow"), "{error}");
    assert_eq!(setup.asked("/token"), 1, "the login");
    // In the background there is time enough, and whoever needs it takes the time.
    crate::reach::insist(&setup.world.host, setup.world.settings.issuer.as_str(), Wish::Overridden);
    with(Effort::AHEAD).unwrap();
    assert_eq!(setup.asked("/token"), 2);
}

#[test]
fn somebody_elses_login_is_not_waited_for_to_its_end_where_nobody_needs_it_now() {
    let setup = Setup::new(obliging);
    let key = setup.source.session().unwrap().session_key();
    let _login = setup.cache.take_session(&key, None).unwrap();
    // All that is left of the time there was.
    let effort = Effort::RENEW.after(std::time::Duration::from_secs(7));
    let error = run(setup.source.assertion(setup.cx().with_effort(effort), BROKER)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.to_string().contains("waiting for somebody to log in"), "{error}");
    assert!(setup.world.server.arrived().is_empty());
}

#[test]
fn a_refresh_token_is_sent_once_and_the_wish_of_the_provider_heeded() {
    let setup = Setup::new(|scene| match scene.asked("grant_type") {
        "refresh_token" => Reply::text(503, "").header("retry-after", "100".into()),
        _ => obliging(scene),
    });
    setup.assertion(BROKER).unwrap();
    let with = |effort: Effort| {
        run(setup.source.assertion(setup.cx().with_effort(effort), "https://other.example"))
    };
    with(Effort::MINT).unwrap_err();
    assert_eq!(setup.asked("/token"), 2, "the login, and one refresh");
    let error = with(Effort::MINT).unwrap_err();
    assert!(error.to_string().contains("it asked for that"), "{error}");
    assert_eq!(setup.asked("/token"), 2);
    // A command that logs in asks all the same.
    with(Effort::LOOK).unwrap_err();
    assert_eq!(setup.asked("/token"), 3);
}

#[test]
fn a_session_without_refresh_token_lasts_as_long_as_its_tokens() {
    let setup = Setup::new(|scene| {
        let access = scene.access_token(scene.asked("resource"), json!({}));
        scene.tokens(json!({"access_token": access, "refresh_token": null}))
    });
    setup.assertion(BROKER).unwrap();
    setup.nobody_there();
    setup.assertion(BROKER).unwrap();
    assert_eq!(
        setup.assertion("https://other.example").unwrap_err().kind(),
        ErrorKind::LoginRequired
    );
    assert_eq!(setup.asked("/token"), 1);
    assert_eq!(setup.source.caller(setup.cx()).unwrap().unwrap().principal().unwrap().subject, "alice");
    assert!(
        matches!(setup.logout(), Logout::ForgottenOnly(_, why) if why.contains("no refresh token"))
    );
}

#[test]
fn logging_out_revokes_and_forgets() {
    let setup = Setup::new(|scene| match scene.request.path.as_str() {
        "/revoke" => Reply::text(200, ""),
        _ => obliging(scene),
    });
    assert_eq!(setup.logout(), Logout::NoSession);
    setup.assertion(BROKER).unwrap();
    assert!(matches!(setup.logout(), Logout::Revoked(principal) if principal.subject == "alice"));
    let form = &setup.world.server.at("/revoke")[0].form;
    assert_eq!(
        (form["token"].as_str(), form["token_type_hint"].as_str()),
        ("refresh-1", "refresh_token")
    );
    assert_eq!(form["client_id"], "cli");
    assert_eq!(setup.source.caller(setup.cx()).unwrap(), None);
    assert_eq!(setup.logout(), Logout::NoSession);
}

#[test]
fn a_session_is_forgotten_although_the_provider_cannot_be_told() {
    let setup = Setup::new(|scene| match scene.request.path.as_str() {
        "/revoke" => Reply::text(503, ""),
        _ => obliging(scene),
    });
    setup.assertion(BROKER).unwrap();
    assert!(matches!(setup.logout(), Logout::ForgottenOnly(_, why) if why.contains("503")));
    assert_eq!(setup.source.caller(setup.cx()).unwrap(), None);
}

#[test]
fn a_forced_login_replaces_the_session() {
    let setup = Setup::new(obliging);
    let options = LoginOptions { force: true, ..LoginOptions::default() };
    setup.login(&options).unwrap();
    setup.login(&options).unwrap();
    assert_eq!(setup.world.person.shown.lock().unwrap().len(), 2);
    assert_eq!(setup.cache.contents().unwrap().sessions.len(), 1);
}

#[test]
fn a_missing_file_of_authorities_is_said_before_anything_is_tried() {
    let mut settings = super::settings("https://i.example");
    let host = Setup::new(obliging).world.host.clone();
    assert!(matches!(
        Oidc::new("corp", settings.clone()).readiness(&host),
        Readiness::Ready(why) if why.contains("https://i.example")
    ));
    settings.ca_file = Some("/does/not/exist.pem".into());
    assert!(matches!(
        Oidc::new("corp", settings).readiness(&host),
        Readiness::Misconfigured { why, .. } if why.contains("/does/not/exist.pem")
    ));
}
