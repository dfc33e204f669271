//! The OpenID providers, and the browsers that log in there.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use url::Url;

use crate::support::browser::Browser;
use crate::support::glewlwyd::{self, Glewlwyd, GlewlwydOptions};
use crate::support::home::Home;
use crate::support::http::{Http, Loopback};
use crate::support::oidc_provider::{
    CLIENT, CLIENT_WITHOUT_REFRESH, Fault, OidcOptions, OidcProvider, REDIRECT_PATH,
};
use crate::support::tls::Authority;
use crate::support::wait::wait_until;

const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
const VISIT: Duration = Duration::from_secs(60);

/// A login by code and PKCE, as a command line does it.
struct Login<'a> {
    issuer: &'a str,
    client: &'a str,
    /// The port to be sent back to; 0 for any.
    port: u16,
    /// More parameters, for the page and for the token request alike.
    more: &'a [(&'a str, &'a str)],
}

impl Login<'_> {
    /// Opens the browser of `home`, and returns the tokens and what came back
    /// with the code.
    fn with(&self, home: &Home, http: &mut Http) -> (Value, Url) {
        let metadata =
            http.get(&format!("{}/.well-known/openid-configuration", self.issuer)).unwrap().json();
        assert_eq!(metadata["issuer"], self.issuer);
        let verifier = "a-verifier-of-a-test-that-is-long-enough-for-PKCE";
        let challenge =
            URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()));
        let back = Loopback::listen(self.port);
        let redirect = back.url(REDIRECT_PATH);
        let mut page = Url::parse(metadata["authorization_endpoint"].as_str().unwrap()).unwrap();
        page.query_pairs_mut()
            .append_pair("client_id", self.client)
            .append_pair("response_type", "code")
            .append_pair("redirect_uri", redirect.as_str())
            .append_pair("state", "a-state")
            .append_pair("nonce", "a-nonce")
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256")
            .extend_pairs(self.more);
        if !self.more.iter().any(|(name, _)| *name == "scope") {
            page.query_pairs_mut().append_pair("scope", "openid");
        }
        let browser = home.command("sh").args(["-c", r#"exec "$BROWSER" "$1""#, "sh"]);
        let browser = browser.args([page.as_str()]).spawn();
        let visited = back.visit(VISIT);
        browser.wait().ok();
        let said = |name: &str| {
            let found = visited.query_pairs().find(|(n, _)| n == name);
            found.map(|(_, value)| value.into_owned()).unwrap_or_default()
        };
        assert_eq!(said("state"), "a-state", "{visited}");
        let code = said("code");
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("client_id", self.client),
            ("code", &code),
            ("redirect_uri", redirect.as_str()),
            ("code_verifier", verifier),
        ];
        form.extend(self.more.iter().filter(|(name, _)| *name == "resource"));
        let endpoint = metadata["token_endpoint"].as_str().unwrap();
        (http.form(endpoint, &form).unwrap().json(), visited)
    }
}

/// The claims of a JWT, without asking who signed it.
fn claims(token: &Value) -> Value {
    let payload = token.as_str().unwrap().split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

#[test]
fn a_browser_logs_in_and_refresh_tokens_rotate() {
    let mut home = Home::new();
    let provider = OidcProvider::start();
    let browser = Browser::http().user("bob", "any").install(&mut home);
    let mut http = Http::new();
    let audience = "https://broker.example.com";
    let login = Login {
        issuer: provider.issuer(),
        client: CLIENT,
        port: 0,
        more: &[("resource", audience)],
    };
    let (tokens, visited) = login.with(&home, &mut http);
    assert_eq!(claims(&tokens["access_token"])["aud"], audience);
    assert_eq!(claims(&tokens["access_token"])["groups"], json!(["dev"]));
    assert_eq!(claims(&tokens["id_token"])["sub"], "bob");
    assert_eq!(claims(&tokens["id_token"])["nonce"], "a-nonce");
    assert_eq!(browser.opened().len(), 1);
    let visit = browser.wait_for_visits(1);
    assert_eq!((&visit.url, visit.status), (&visited, 200));
    assert_eq!(visit.text, "You can close this page.");

    let refresh = |http: &mut Http, token: &Value| {
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", CLIENT),
            ("refresh_token", text(token)),
        ];
        http.form(&provider.url("/token"), &form).unwrap().json()
    };
    let second = refresh(&mut http, &tokens["refresh_token"]);
    assert_ne!(second["refresh_token"], tokens["refresh_token"]);
    assert_eq!(refresh(&mut http, &tokens["refresh_token"])["error"], "invalid_grant", "reused");
    assert_eq!(refresh(&mut http, &second["refresh_token"])["error"], "invalid_grant", "revoked");
    assert_eq!(provider.count_grants("authorization_code"), 1);
    assert_eq!(provider.count_grants("refresh_token"), 3);
    assert_eq!(provider.count("GET", "/auth"), 1);
    let last = provider.requests().pop().unwrap();
    assert_eq!(last.error.as_deref(), Some("invalid_grant"));
    assert_eq!((last.client_id.as_deref(), last.status), (Some(CLIENT), Some(400)));
    let log = format!("{:?}", provider.requests());
    assert!(!log.contains(text(&second["access_token"])), "no token in the log");
    assert!(provider.said().contains("grant.error"), "{}", provider.said());
}

#[test]
fn the_provider_can_do_less() {
    let mut home = Home::new();
    let options = OidcOptions {
        resource_tokens: false,
        ttl: [("AccessToken", 7)].into(),
        users: [("alice", json!({ "groups": ["ops"] }))].into(),
        ..OidcOptions::default()
    };
    let provider = OidcProvider::start_with(&options);
    let browser = Browser::http().delayed(Duration::from_millis(1)).install(&mut home);
    let login = Login {
        issuer: provider.issuer(),
        client: CLIENT_WITHOUT_REFRESH,
        port: 0,
        more: &[("resource", "https://broker.example.com")],
    };
    let (tokens, _) = login.with(&home, &mut Http::new());
    assert!(!text(&tokens["access_token"]).contains('.'), "opaque");
    assert_eq!(tokens["expires_in"], 7);
    assert!(tokens["refresh_token"].is_null());
    assert_eq!(claims(&tokens["id_token"])["aud"], CLIENT_WITHOUT_REFRESH);
    assert_eq!(browser.ended().len(), 1);

    let options = OidcOptions { offline_access: true, ..OidcOptions::default() };
    let provider = OidcProvider::start_with(&options);
    for (more, refreshable) in
        [(&[][..], false), (&[("scope", "openid offline_access"), ("prompt", "consent")][..], true)]
    {
        let login = Login { issuer: provider.issuer(), client: CLIENT, port: 0, more };
        let (tokens, _) = login.with(&home, &mut Http::new());
        assert_eq!(tokens["refresh_token"].is_string(), refreshable);
    }
}

/// Starts a device login; returns the answer.
fn device(http: &mut Http, issuer: &str) -> (Value, Value) {
    let metadata = http.get(&format!("{issuer}/.well-known/openid-configuration")).unwrap().json();
    let endpoint = text(&metadata["device_authorization_endpoint"]);
    let form = [("client_id", CLIENT), ("scope", "openid")];
    let prompt = http.form(endpoint, &form).unwrap().json();
    (metadata, prompt)
}

fn poll(http: &mut Http, metadata: &Value, prompt: &Value) -> Value {
    let form = [
        ("grant_type", DEVICE_GRANT),
        ("client_id", CLIENT),
        ("device_code", text(&prompt["device_code"])),
    ];
    http.form(text(&metadata["token_endpoint"]), &form).unwrap().json()
}

#[test]
fn a_device_is_approved_and_refused() {
    let home = Home::new();
    let provider = OidcProvider::start();
    let mut http = Http::new();
    let (metadata, prompt) = device(&mut http, provider.issuer());
    assert_eq!(prompt["interval"], 1);
    assert_eq!(poll(&mut http, &metadata, &prompt)["error"], "authorization_pending");
    let visit = Browser::http().visit(&home, text(&prompt["verification_uri_complete"]));
    assert!(visit.text.contains("Success"), "{visit:?}");
    assert_eq!(claims(&poll(&mut http, &metadata, &prompt)["id_token"])["sub"], "alice");

    let (metadata, prompt) = device(&mut http, provider.issuer());
    let code = text(&prompt["user_code"]);
    Browser::http().visit_with_code(&home, text(&prompt["verification_uri"]), Some(code));
    assert!(poll(&mut http, &metadata, &prompt)["access_token"].is_string());

    for browser in [Browser::http(), Browser::chromium()] {
        let (metadata, prompt) = device(&mut http, provider.issuer());
        browser.denies().visit(&home, text(&prompt["verification_uri_complete"]));
        assert_eq!(poll(&mut http, &metadata, &prompt)["error"], "access_denied");
    }

    let (metadata, prompt) = device(&mut http, provider.issuer());
    let visit = Browser::http().only_opens().visit(&home, text(&prompt["verification_uri"]));
    assert_eq!(visit.url.path(), "/device");
    assert_eq!(poll(&mut http, &metadata, &prompt)["error"], "authorization_pending");
}

#[test]
fn another_user_has_a_browser_too() {
    for mut home in [Home::nobody(), Home::stranger()] {
        let provider = OidcProvider::start();
        let browser = Browser::http().install(&mut home);
        let login = Login { issuer: provider.issuer(), client: CLIENT, port: 0, more: &[] };
        let (tokens, _) = login.with(&home, &mut Http::new());
        assert_eq!(claims(&tokens["id_token"])["sub"], "alice");
        assert_eq!(browser.ended().len(), 1);
    }
}

#[test]
fn consent_is_refused_in_a_browser() {
    let mut home = Home::new();
    let provider = OidcProvider::start();
    let browser = Browser::http().denies().install(&mut home);
    let login = Login { issuer: provider.issuer(), client: CLIENT, port: 0, more: &[] };
    let (answer, visited) = login.with(&home, &mut Http::new());
    assert!(visited.query().unwrap().contains("error=access_denied"), "{visited}");
    assert!(answer["error"].is_string());
    assert_eq!(browser.opened().len(), 1);
}

#[test]
fn chromium_logs_in_and_takes_a_picture() {
    let mut home = Home::new();
    let provider = OidcProvider::start();
    let picture = home.path("tmp/last-page.png");
    let browser = Browser::chromium().screenshot(&picture).install(&mut home);
    let login = Login { issuer: provider.issuer(), client: CLIENT, port: 0, more: &[] };
    let (tokens, _) = login.with(&home, &mut Http::new());
    assert_eq!(claims(&tokens["id_token"])["sub"], "alice");
    assert_eq!(browser.wait_for_visits(1).text, "You can close this page.");
    assert!(std::fs::read(picture).unwrap().starts_with(b"\x89PNG"));
}

#[test]
fn what_goes_wrong_on_demand() {
    let mut provider = OidcProvider::start();
    let mut http = Http::new();
    let url = provider.url("/jwks");
    let metadata = provider.url("/.well-known/openid-configuration");

    provider.fault(&Fault::answer(503, "text/html", "<html>busy").at("/jwks").times(1));
    let reply = http.get(&url).unwrap();
    assert_eq!((reply.status, reply.body.as_str()), (503, "<html>busy"));
    assert_eq!(http.get(&url).unwrap().status, 200, "only once");

    provider.fault(&Fault::redirect("http://127.0.0.1:1/").times(1));
    assert_eq!(http.get(&url).unwrap().location.as_deref(), Some("http://127.0.0.1:1/"));
    provider.fault(&Fault::huge(3_000_000).times(1));
    assert_eq!(http.get(&url).unwrap().body.len(), 3_000_000);
    provider.fault(&Fault::drops().times(1));
    assert!(http.get(&url).unwrap_err().is_request());
    provider.fault(&Fault::loses_answer().times(1));
    assert!(http.get(&url).is_err());
    provider.fault(&Fault::slow(Duration::from_millis(50)).times(1));
    assert_eq!(http.get(&url).unwrap().status, 200);

    provider.fault(&Fault::changes(json!({ "issuer": "https://evil.example", "jwks_uri": null })));
    let changed = http.get(&metadata).unwrap().json();
    assert_eq!(changed["issuer"], "https://evil.example");
    assert!(changed["jwks_uri"].is_null() && changed["token_endpoint"].is_string());
    provider.clear_faults();
    assert_eq!(http.get(&metadata).unwrap().json()["issuer"], provider.issuer());

    provider.fault(&Fault::clock_ahead(600).times(1));
    let date = http.get(&url).unwrap().date.unwrap();
    let rfc2822 = &time::format_description::well_known::Rfc2822;
    let date = time::OffsetDateTime::parse(&date, rfc2822).unwrap();
    let ahead = date - time::OffsetDateTime::from(SystemTime::now());
    assert!((550..=600).contains(&ahead.whole_seconds()), "{ahead}");

    let faults: Vec<_> = provider.requests().into_iter().filter_map(|r| r.fault).collect();
    assert_eq!(faults, ["answer", "answer", "answer", "drop", "lose", "slow", "patch", "date"]);
}

#[test]
fn a_provider_that_hangs_is_there_again_later() {
    let mut provider = OidcProvider::start();
    let url = provider.url("/jwks");
    provider.fault(&Fault::hangs().times(1));
    let hanging = {
        let url = url.clone();
        std::thread::spawn(move || Http::new().get(&url).map(|reply| reply.status))
    };
    wait_until("the request", VISIT, || (provider.count("GET", "/jwks") == 1).then_some(()));
    assert!(!hanging.is_finished());
    assert_eq!(Http::new().get(&url).unwrap().status, 200);

    provider.freeze();
    let frozen = std::thread::spawn(move || Http::new().get(&url).map(|reply| reply.status));
    // One that does not wait for long gets nothing.
    let mut impatient = TcpStream::connect(("127.0.0.1", provider.port())).unwrap();
    impatient.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    impatient.write_all(b"GET /jwks HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(impatient.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert!(!frozen.is_finished());
    provider.thaw();
    assert_eq!(frozen.join().unwrap().unwrap(), 200);
    let port = provider.port();
    drop(provider);
    assert!(hanging.join().unwrap().is_err());

    let options = OidcOptions { port, ..OidcOptions::default() };
    assert_eq!(OidcProvider::start_with(&options).port(), port);
}

#[test]
fn a_provider_speaks_tls() {
    let mut home = Home::new();
    let authority = Authority::new();
    let provider =
        |tls| OidcProvider::start_with(&OidcOptions { tls: Some(tls), ..OidcOptions::default() });
    let good = provider(authority.certify("127.0.0.1"));
    assert!(good.issuer().starts_with("https://"));
    let metadata = good.url("/.well-known/openid-configuration");
    let mut http = Http::trusting(&authority.pem());
    assert_eq!(http.get(&metadata).unwrap().json()["issuer"], good.issuer());
    assert!(Http::new().get(&metadata).is_err(), "not trusted by others");
    for browser in [Browser::http(), Browser::chromium()] {
        let browser = browser.trusting(&authority.pem()).install(&mut home);
        let login = Login { issuer: good.issuer(), client: CLIENT, port: 0, more: &[] };
        let (tokens, _) = login.with(&home, &mut http);
        assert!(tokens["id_token"].is_string());
        assert!(!browser.opened().is_empty());
    }

    for bad in [authority.certify_expired("127.0.0.1"), authority.certify("other.example")] {
        let bad = provider(bad);
        assert!(http.get(&bad.url("/jwks")).is_err());
    }
}

#[test]
fn glewlwyd_logs_in_by_both_flows() {
    let mut home = Home::new();
    let server = Glewlwyd::start();
    let issuer = server.issuer();
    let person = |browser: Browser| browser.user(glewlwyd::USER, glewlwyd::PASSWORD);
    let mut http = Http::new();
    for (port, browser) in
        server.redirect_ports().into_iter().zip([Browser::chromium(), Browser::http()])
    {
        person(browser).install(&mut home);
        let login = Login { issuer: &issuer, client: glewlwyd::CLIENT, port, more: &[] };
        let (tokens, _) = login.with(&home, &mut http);
        assert_eq!(claims(&tokens["id_token"])["iss"], issuer, "{}", server.said());
        assert_eq!(claims(&tokens["id_token"])["nonce"], "a-nonce");
        assert!(tokens["refresh_token"].is_string());
    }
    for browser in [Browser::http(), Browser::chromium()] {
        let (metadata, prompt) = device(&mut http, &issuer);
        person(browser.clone()).visit(&home, text(&prompt["verification_uri_complete"]));
        assert!(poll(&mut http, &metadata, &prompt)["id_token"].is_string());
        let (metadata, prompt) = device(&mut http, &issuer);
        let code = text(&prompt["user_code"]);
        let page = text(&prompt["verification_uri"]);
        person(browser).visit_with_code(&home, page, Some(code));
        assert!(poll(&mut http, &metadata, &prompt)["id_token"].is_string());
    }
}

#[test]
fn glewlwyd_slows_impatient_devices_down() {
    let options = GlewlwydOptions { device_interval: 5, ..GlewlwydOptions::default() };
    let server = Glewlwyd::start_with(&options);
    let mut http = Http::new();
    let (metadata, prompt) = device(&mut http, &server.issuer());
    assert_eq!(prompt["interval"], 5);
    assert_eq!(poll(&mut http, &metadata, &prompt)["error"], "authorization_pending");
    assert_eq!(poll(&mut http, &metadata, &prompt)["error"], "slow_down");
}
