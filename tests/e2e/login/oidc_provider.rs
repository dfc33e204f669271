//! At the certified provider.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use serde_json::json;
use tmpcred::credential::TokenType;
use tmpcred::error::{ErrorKind, Result};
use tmpcred::host::browser::Browser as Opener;
use tmpcred::identity::oidc::Flow;
use tmpcred::identity::{IdentitySource, LoginOptions, Logout};
use url::Url;

use super::{BROKER, LONG, OTHER, Person, Plan, claims, login_for, start_browser};
use crate::support::browser::Browser;
use crate::support::http::Http;
use crate::support::oidc_provider::{
    CLIENT, CLIENT_WITHOUT_REFRESH, Fault, OidcOptions, OidcProvider, Request,
};
use crate::support::tls::Authority;
use crate::support::wait::wait_until;

#[test]
fn a_browser_login_yields_an_access_token_for_the_broker_with_no_request_too_many() {
    let provider = OidcProvider::start();
    let (world, browser) = Plan::new(provider.issuer()).build();
    let assertion = world.assertion(BROKER).unwrap();
    assert_eq!(assertion.token_type, TokenType::AccessToken);
    assert_eq!(claims(&assertion)["aud"], BROKER);
    assert_eq!(assertion.principal.subject, "alice");
    let visit = browser.wait_for_visits(1);
    assert_eq!(visit.status, 200);
    assert!(visit.text.contains("You are logged in"), "{}", visit.text);
    let count = || {
        [("GET", "/.well-known/openid-configuration"), ("POST", "/token"), ("GET", "/jwks")]
            .map(|(method, path)| provider.count(method, path))
    };
    assert_eq!(count(), [1, 1, 1]);
    assert_eq!(world.assertion(BROKER).unwrap().token.expose(), assertion.token.expose());
    assert_eq!(world.login(&LoginOptions::default()).unwrap(), assertion.principal);
    assert_eq!(count(), [1, 1, 1]);
    assert_eq!(browser.opened().len(), 1);
}

#[test]
fn a_page_that_is_printed_only_leads_to_a_login_too() {
    let provider = OidcProvider::start();
    let plan = Plan { prints_only: true, ..Plan::new(provider.issuer()) };
    let (world, browser) = plan.build();
    let (home, person) = (world.home.clone(), world.person.clone());
    let reading = std::thread::spawn(move || {
        let page = wait_until("the page to be printed", LONG, || {
            person.pages.lock().unwrap().first().cloned()
        });
        assert!(!page.1);
        start_browser(&home, &page.0).wait().ok();
    });
    assert_eq!(world.assertion(BROKER).unwrap().token_type, TokenType::AccessToken);
    reading.join().unwrap();
    assert_eq!(browser.opened().len(), 1);
}

#[test]
fn refresh_tokens_rotate_and_keep_the_session_alive() {
    let options = OidcOptions { ttl: [("AccessToken", 2)].into(), ..OidcOptions::default() };
    let provider = OidcProvider::start_with(&options);
    let (world, browser) = Plan::new(provider.issuer()).build();
    let first = world.login(&login_for(&[BROKER, OTHER])).unwrap();
    world.nobody_there();
    let token = world.refresh_token();
    let mut seen = vec![token];
    // Reuse of a refresh token would end the session at this provider.
    wait_until("three renewals", LONG, || {
        for audience in [BROKER, OTHER] {
            let assertion = world.assertion(audience).unwrap();
            assert_eq!(claims(&assertion)["aud"], audience);
            assert_eq!(assertion.principal, first);
        }
        let token = world.refresh_token();
        if !seen.contains(&token) {
            seen.push(token);
        }
        (seen.len() > 3).then_some(())
    });
    assert!(provider.requests().iter().all(|request| request.error.is_none()));
    assert_eq!(provider.count_grants("authorization_code"), 1);
    assert_eq!(provider.count("GET", "/jwks"), 1);
    assert_eq!(browser.opened().len(), 1);
}

#[test]
fn a_device_login_yields_an_access_token_for_the_broker() {
    let provider = OidcProvider::start();
    let (world, _) = Plan::new(provider.issuer()).set("flow", json!("device")).build();
    let assertion = world.assertion(BROKER).unwrap();
    assert_eq!(assertion.token_type, TokenType::AccessToken);
    assert_eq!(claims(&assertion)["aud"], BROKER);
    let prompt = world.person.prompts.lock().unwrap()[0].clone();
    assert_eq!(prompt.verification_uri.as_str(), provider.url("/device"));
    assert!(prompt.verification_uri_complete.unwrap().query().unwrap().contains(&prompt.user_code));
    assert!(world.person.pages.lock().unwrap().is_empty());
    // A refresh token of a device login is as good as another.
    assert_eq!(world.assertion(BROKER).unwrap().token.expose(), assertion.token.expose());
    assert!(!world.refresh_token().is_empty());
}

#[test]
fn a_person_who_says_no_ends_the_login_with_the_providers_words() {
    let provider = OidcProvider::start();
    for flow in [Flow::Browser, Flow::Device] {
        let (world, _) = Plan::new(provider.issuer()).browser(Browser::http().denies()).build();
        let options = LoginOptions { flow: Some(flow), ..login_for(&[BROKER]) };
        let error = world.login(&options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{flow:?}: {error}");
        assert!(error.to_string().contains("access_denied"), "{flow:?}: {error}");
    }
}

#[test]
fn a_provider_without_resources_gives_an_id_token() {
    let options = OidcOptions { resource_tokens: false, ..OidcOptions::default() };
    let provider = OidcProvider::start_with(&options);
    for flow in ["browser", "device"] {
        let (world, _) = Plan::new(provider.issuer()).set("flow", json!(flow)).build();
        let assertion = world.assertion(BROKER).unwrap();
        assert_eq!(assertion.token_type, TokenType::IdToken);
        assert_eq!(claims(&assertion)["aud"], CLIENT);
        assert_eq!(world.assertion(BROKER).unwrap().token.expose(), assertion.token.expose());
    }
    assert_eq!(provider.count("POST", "/token") - provider.count_grants(DEVICE_GRANT), 1);
}

const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

#[test]
fn a_provider_that_knows_audiences_and_no_resources_binds_tokens_and_renews_them() {
    let options = OidcOptions {
        audience_parameter: true,
        ttl: [("AccessToken", 2)].into(),
        ..OidcOptions::default()
    };
    let provider = OidcProvider::start_with(&options);
    for flow in ["browser", "device"] {
        let plan = Plan::new(provider.issuer()).set("audience_parameter", json!("audience"));
        let (world, _) = plan.set("flow", json!(flow)).build();
        let first = world.assertion(BROKER).unwrap();
        assert_eq!(first.token_type, TokenType::AccessToken, "{flow}");
        assert_eq!(claims(&first)["aud"], BROKER);
        world.nobody_there();
        let before = provider.count_grants("refresh_token");
        let renewed = wait_until("a renewal", LONG, || {
            let assertion = world.assertion(BROKER).unwrap();
            (assertion.token.expose() != first.token.expose()).then_some(assertion)
        });
        assert_eq!(renewed.token_type, TokenType::AccessToken, "{flow}");
        assert_eq!(claims(&renewed)["aud"], BROKER);
        assert!(provider.count_grants("refresh_token") > before);
    }
    let requests = provider.requests();
    assert!(requests.iter().all(|request| request.resource.is_none()), "{requests:?}");
    let asked = |of: &dyn Fn(&Request) -> bool| {
        let mut those = requests.iter().filter(|request| of(request)).peekable();
        assert!(those.peek().is_some());
        assert!(those.all(|request| request.audience.as_deref() == Some(BROKER)), "{requests:?}");
    };
    asked(&|request| request.path == "/auth");
    asked(&|request| request.path == "/device/auth");
    for grant in ["authorization_code", DEVICE_GRANT, "refresh_token"] {
        asked(&|request| request.grant_type.as_deref() == Some(grant));
    }
}

#[test]
fn a_code_that_nobody_types_in_time_ends_the_login() {
    let options = OidcOptions { ttl: [("DeviceCode", 2)].into(), ..OidcOptions::default() };
    let provider = OidcProvider::start_with(&options);
    let (world, _) =
        Plan::new(provider.issuer()).set("flow", json!("device")).types_when(|| false).build();
    let error = world.assertion(BROKER).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LoginRequired);
    assert_eq!(error.message(), "the login was not finished in time");
    assert!(!error.hints().is_empty());
    assert_eq!(world.person.prompts.lock().unwrap().len(), 1);
    // It did ask, and the provider had not said no: its clock began with the code, ours with the
    // answer, and either may be the first to end it.
    let polls: Vec<_> = provider.requests().into_iter().filter(|r| r.path == "/token").collect();
    let (last, before) = polls.split_last().expect("it asked");
    let said = |poll: &Request| poll.error.clone().unwrap_or_default();
    assert!(before.iter().all(|poll| said(poll) == "authorization_pending"), "{polls:?}");
    // Soon after its time it does not know a code any more.
    let ends = ["authorization_pending", "expired_token", "invalid_grant"];
    assert!(ends.contains(&said(last).as_str()), "{last:?}");
}

#[test]
fn an_audience_that_was_not_asked_for_at_the_login_gets_the_id_token() {
    let provider = OidcProvider::start();
    let (world, browser) = Plan::new(provider.issuer()).build();
    assert_eq!(world.assertion(BROKER).unwrap().token_type, TokenType::AccessToken);
    world.nobody_there();
    let assertion = world.assertion(OTHER).unwrap();
    assert_eq!(
        (assertion.token_type, &claims(&assertion)["aud"]),
        (TokenType::IdToken, &json!(CLIENT))
    );
    let refused =
        provider.requests().iter().filter(|r| r.error.as_deref() == Some("invalid_target")).count();
    assert_eq!(refused, 1);
    // Neither is asked for again.
    let before = provider.requests().len();
    world.assertion(OTHER).unwrap();
    assert_eq!(world.assertion(BROKER).unwrap().token_type, TokenType::AccessToken);
    assert_eq!(provider.requests().len(), before);
    assert_eq!(browser.opened().len(), 1);
}

#[test]
fn a_client_without_refresh_tokens_logs_in_again() {
    let options = OidcOptions { ttl: [("AccessToken", 2)].into(), ..OidcOptions::default() };
    let provider = OidcProvider::start_with(&options);
    let (world, browser) =
        Plan::new(provider.issuer()).set("client_id", json!(CLIENT_WITHOUT_REFRESH)).build();
    let first = world.assertion(BROKER).unwrap();
    wait_until("the token to expire", LONG, || {
        (world.assertion(BROKER).unwrap().token.expose() != first.token.expose()).then_some(())
    });
    assert_eq!(browser.opened().len(), 2);
    assert_eq!(provider.count_grants("refresh_token"), 0);
}

#[test]
fn logging_out_revokes_the_refresh_token() {
    let provider = OidcProvider::start();
    let (world, _) = Plan::new(provider.issuer()).build();
    world.assertion(BROKER).unwrap();
    let token = world.refresh_token();
    assert!(matches!(world.logout(), Logout::Revoked(principal) if principal.subject == "alice"));
    let form =
        [("grant_type", "refresh_token"), ("client_id", CLIENT), ("refresh_token", token.as_str())];
    let answer = Http::new().form(&provider.url("/token"), &form).unwrap().json();
    assert_eq!(answer["error"], "invalid_grant");
    assert_eq!(world.source.caller(world.cx()).unwrap(), None);
    world.nobody_there();
    let error = world.assertion(BROKER).unwrap_err();
    assert_eq!(error.to_string(), "login required: run `tmpcred login corp`");
    assert_eq!(world.logout(), Logout::NoSession);
}

#[test]
fn a_session_that_was_ended_elsewhere_is_forgotten() {
    let provider = OidcProvider::start();
    let (world, browser) = Plan::new(provider.issuer()).build();
    world.login(&login_for(&[BROKER, OTHER])).unwrap();
    let token = world.refresh_token();
    let form = [("client_id", CLIENT), ("token", token.as_str())];
    assert_eq!(Http::new().form(&provider.url("/token/revocation"), &form).unwrap().status, 200);
    world.nobody_there();
    let error = world.assertion(OTHER).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LoginRequired);
    assert!(error.causes()[0].starts_with("the session has ended"), "{error}");
    world.person.absent.store(false, Ordering::Relaxed);
    assert_eq!(world.assertion(OTHER).unwrap().token_type, TokenType::AccessToken);
    assert_eq!(browser.opened().len(), 2);
}

#[test]
fn an_outage_ends_no_session_and_an_unlucky_answer_neither() {
    let mut provider = OidcProvider::start();
    let (world, _) = Plan::new(provider.issuer()).build();
    world.login(&login_for(&[BROKER, OTHER])).unwrap();
    world.nobody_there();
    for fault in [
        Fault::answer(503, "text/html", "<html>"),
        Fault::answer(200, "text/html", "<html>"),
        Fault::redirect("https://elsewhere.example.com/"),
        Fault::huge(2_000_000),
        Fault::drops(),
    ] {
        provider.fault(&fault.at("/token"));
        let error = world.assertion(OTHER).unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::Verification),
            "{error}"
        );
        provider.clear_faults();
    }
    // The rotated refresh token is kept although the ID token beside it is broken.
    provider.fault(&Fault::changes(json!({"id_token": "broken"})).at("/token").times(1));
    assert_eq!(world.assertion(OTHER).unwrap_err().kind(), ErrorKind::Verification);
    assert_eq!(world.assertion(OTHER).unwrap().token_type, TokenType::AccessToken);
    assert!(provider.requests().iter().all(|request| request.error.is_none()));
}

#[test]
fn odd_answers_of_a_real_provider_are_understood() {
    let mut provider = OidcProvider::start();
    provider.fault(
        &Fault::changes(json!({"expires_in": "3600", "token_type": null, "scope": ["openid"]}))
            .at("/token"),
    );
    provider.fault(
        &Fault::changes(json!({"verification_url": "https://old.example.com/", "interval": "1"}))
            .at("/device/auth"),
    );
    for flow in ["browser", "device"] {
        let (world, _) = Plan::new(provider.issuer()).set("flow", json!(flow)).build();
        assert_eq!(world.assertion(BROKER).unwrap().token_type, TokenType::AccessToken);
    }
}

#[test]
fn hostile_hits_do_not_disturb_a_login() {
    let provider = OidcProvider::start();
    let (mut world, browser) = Plan::new(provider.issuer()).build();
    let home = world.home.clone();
    let person = Arc::new(Person::who_reads(move |page| {
        // The page that it starts with is on the same server.
        let redirect = page.join("/callback").unwrap();
        let hits = ["?code=x&state=wrong", "?error=access_denied&state=wrong", "?state=", ""];
        let mut statuses: Vec<u16> = hits
            .iter()
            .map(|hit| Http::new().get(&format!("{redirect}{hit}")).unwrap().status)
            .collect();
        let favicon = redirect.join("/favicon.ico").unwrap();
        statuses.push(Http::new().get(favicon.as_str()).unwrap().status);
        assert_eq!(statuses, [400; 5]);
        start_browser(&home, page)
    }));
    // The hits come while the login waits.
    struct Later(Arc<Person>, Mutex<Vec<std::thread::JoinHandle<()>>>);
    impl Opener for Later {
        fn open(&self, url: &Url) -> Result<()> {
            let (person, url) = (self.0.clone(), url.clone());
            let visit = move || {
                let running = (person.reads)(&url);
                running.wait().ok();
            };
            self.1.lock().unwrap().push(std::thread::spawn(visit));
            Ok(())
        }
    }
    let later = Arc::new(Later(person, Mutex::default()));
    world.host.browser = later.clone();
    assert_eq!(world.assertion(BROKER).unwrap().token_type, TokenType::AccessToken);
    for visit in later.1.lock().unwrap().drain(..) {
        visit.join().unwrap();
    }
    assert!(browser.wait_for_visits(1).text.contains("You are logged in"));
}

#[test]
fn a_clock_ten_minutes_off_is_no_obstacle() {
    let provider = OidcProvider::start();
    for off in [-600, 600] {
        let (world, _) = Plan { clock: off, ..Plan::new(provider.issuer()) }.build();
        let assertion = world.assertion(BROKER).unwrap();
        assert_eq!(world.assertion(BROKER).unwrap().token.expose(), assertion.token.expose());
        let told = world.told();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("this machine's clock is"), "{told:?}");
    }
}

#[test]
fn a_provider_with_a_certificate_of_its_own_needs_its_authority() {
    let authority = Authority::new();
    let start = |certificate| {
        OidcProvider::start_with(&OidcOptions { tls: Some(certificate), ..OidcOptions::default() })
    };
    let provider = start(authority.certify("127.0.0.1"));
    let trusting = || Browser::http().trusting(&authority.pem());
    let plan = Plan::new(provider.issuer()).browser(trusting());
    let (world, _) = plan.set("ca_file", json!(authority.pem())).build();
    assert_eq!(world.assertion(BROKER).unwrap().token_type, TokenType::AccessToken);

    let (world, browser) = Plan::new(provider.issuer()).browser(trusting()).build();
    let error = world.assertion(BROKER).unwrap_err();
    assert!(error.hints()[0].contains("`ca_file`"), "{error}");
    let expired = start(authority.certify_expired("127.0.0.1"));
    let (world, _) = Plan::new(expired.issuer()).set("ca_file", json!(authority.pem())).build();
    let error = world.assertion(BROKER).unwrap_err();
    assert!(error.to_string().contains("it has expired"), "{error}");
    assert!(browser.opened().is_empty());
}

#[test]
fn a_real_browser_shows_the_last_page() {
    let provider = OidcProvider::start();
    let (world, browser) = Plan::new(provider.issuer()).browser(Browser::chromium()).build();
    assert_eq!(world.assertion(BROKER).unwrap().token_type, TokenType::AccessToken);
    assert!(browser.wait_for_visits(1).text.contains("You are logged in"));
}
