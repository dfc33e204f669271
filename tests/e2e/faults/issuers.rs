//! Issuers that are down, slow, or not what they say.

use std::time::Duration;

use serde_json::json;

use super::{Standing, at_clock, refused};
use crate::journey::Journey;
use crate::support::broker::{API, Broker, BrokerOptions};
use crate::support::browser::Browser;
use crate::support::home::{Home, tmpcred};
use crate::support::oidc_provider::{Fault, OidcOptions, OidcProvider};
use crate::support::tls::{Authority, ServerCertificate};
use crate::support::wait::{free_port, wait_until};
use crate::support::walk::files;

/// Forgets what was kept of the issuer's public documents, so that they are
/// fetched again.
fn forget_documents(journey: &Journey) {
    let kept = journey.home.path(".local/state/tmpcred/documents");
    std::fs::remove_dir_all(&kept).unwrap_or_else(|cause| panic!("{kept:?}: {cause}"));
}

#[test]
fn a_bad_issuer_is_named_and_ends_no_session() {
    let mut journey = Journey::start();
    let standing = Standing::of(&journey);
    let html = "<!doctype html><title>Captive portal</title>";
    for (fault, code, says) in [
        (Fault::drops(), 7, "did not answer"),
        (Fault::answer(503, "text/html", html), 7, "it answered 503"),
        (Fault::answer(404, "text/html", html), 7, "answered 404"),
        (Fault::redirect("https://elsewhere.example/"), 9, "answered with a redirect (302)"),
        (Fault::huge(50_000_000), 9, "is too large"),
        (Fault::answer(200, "text/html", html), 9, "it looks like a web page"),
        (Fault::answer(200, "application/json", "{"), 9, "it is not JSON, from line 1"),
        (Fault::changes(json!({"issuer": "https://evil.example"})), 9, "'https://evil.example'"),
    ] {
        journey.provider.fault(&fault);
        forget_documents(&journey);
        let login = journey.tmpcred(&["login", "--force"]);
        let cannot = format!("the issuer {} cannot be used", journey.provider.issuer());
        refused(login, code, &[&cannot, says]);
        standing.is_kept(&journey);
        journey.provider.clear_faults();
        journey.tmpcred(&["login", "--force"]).run().ok();
    }
}

#[test]
fn a_login_that_fails_at_the_last_step_ends_no_session() {
    let mut journey = Journey::start();
    let standing = Standing::of(&journey);
    for (fault, code, says) in [
        (Fault::answer(500, "text/html", "<html>"), 7, "it answered 500"),
        (Fault::answer(200, "text/html", "<html>"), 9, "it looks like a web page"),
        (Fault::redirect("https://elsewhere.example/"), 9, "redirect"),
        (Fault::huge(50_000_000), 9, "is too large"),
        (Fault::changes(json!({"id_token": null})), 9, "did not say who logged in"),
        (Fault::changes(json!({"id_token": "a.b.c"})), 9, "not a signed JWT"),
    ] {
        journey.provider.fault(&fault.at("/token"));
        refused(journey.tmpcred(&["login", "--force"]), code, &[says]);
        standing.is_kept(&journey);
        journey.provider.clear_faults();
    }
    journey.tmpcred(&["login", "--force"]).run().ok();
}

#[test]
fn an_address_that_an_issuer_chooses_is_no_command() {
    let mut journey = Journey::start();
    let hostile = journey.provider.url("/auth?x=;$(touch${IFS}owned)`touch${IFS}owned`&y=|touch");
    let changed = Fault::changes(json!({ "authorization_endpoint": hostile }));
    journey.provider.fault(&changed.at("/.well-known/openid-configuration"));
    let (arguments, browser) = (journey.home.path("arguments"), journey.home.path("bin/browser"));
    let script = format!(
        "#!/bin/sh\nprintf '%s\\n' \"$#\" \"$@\" >{}\nexec {} \"$1\"\n",
        arguments.display(),
        browser.display()
    );
    let recording = journey.home.write_program("recording", &script);
    journey.home.set("BROWSER", recording);
    let login = journey.tmpcred(&["login"]).run().ok();
    let arguments = std::fs::read_to_string(arguments).unwrap();
    let lines: Vec<_> = arguments.lines().collect();
    assert!(matches!(lines[..], ["1", page] if page.starts_with("http://127.0.0.1:")), "{lines:?}");
    // It came as far as the browser.
    assert!(login.stderr.contains("$(touch${IFS}owned)"), "{}", login.stderr);
    let made = files(&journey.home.path("")).into_iter().map(|file| file.path);
    let made: Vec<_> = made.filter(|path| path.ends_with("owned")).collect();
    assert!(made.is_empty(), "{made:?}");
}

#[test]
fn a_refresh_token_goes_to_nobody_but_the_issuer_that_gave_it() {
    let journey = Journey::start();
    let standing = Standing::of(&journey);
    let config = journey.home.path(".config/tmpcred/config.toml");
    let before = std::fs::read_to_string(&config).unwrap();
    let other = OidcProvider::start();
    let edited = before.replace(journey.provider.issuer(), other.issuer());
    assert_ne!(edited, before);
    std::fs::write(&config, edited).unwrap();
    for args in [&["token", "--no-input"][..], &["token", "--no-input", "--refresh"]] {
        let says = ["login required: run `tmpcred login corp`"];
        refused(journey.tmpcred(args), 4, &says);
    }
    assert_eq!(other.count("POST", "/token"), 0);
    assert_eq!(journey.provider.count_grants("refresh_token"), 0);
    // Nothing is lost where it was a slip.
    std::fs::write(&config, before).unwrap();
    standing.is_kept(&journey);
}

#[test]
fn an_issuer_that_is_frozen_is_waited_for_with_an_end() {
    let journey = Journey::start();
    let standing = Standing::of(&journey);
    forget_documents(&journey);
    journey.provider.freeze();
    let login = journey.tmpcred(&["login", "--force"]);
    refused(login, 7, &["did not answer", "the limit is 15 seconds"]);
    standing.is_kept(&journey);
    journey.provider.thaw();
    journey.tmpcred(&["login", "--force"]).run().ok();
}

/// A journey whose sessions have to be renewed before its credentials end.
fn with_short_sessions() -> Journey {
    let provider = OidcProvider::start_with(&OidcOptions {
        ttl: [("AccessToken", 600)].into(),
        ..OidcOptions::default()
    });
    let broker = Broker::start(&BrokerOptions::trusting(provider.issuer()));
    let mut home = Home::stranger();
    Browser::http().user("alice", "x").install(&mut home);
    Journey::of(provider, broker, home)
}

#[test]
fn nobody_waits_long_for_an_issuer_while_the_cached_credential_serves() {
    let journey = with_short_sessions();
    let standing = Standing::of(&journey);
    journey.provider.freeze();
    let late = || at_clock(&journey.home, "+27m").args(["token", "--no-input"]);
    let stale = || {
        let run = late().run().ok();
        assert_eq!(run.stdout, standing.token);
        assert!(run.stderr.contains("the cached one is used while it lasts"), "{}", run.stderr);
        run.stderr
    };
    let said = stale();
    assert!(said.contains("waiting for the identity provider, for 8 seconds at most"), "{said}");
    assert!(said.contains("the limit is 8 seconds"), "{said}");
    // Another process does not wait again.
    let said = stale();
    assert!(said.contains("it was waited for in vain just now"), "{said}");
    assert!(!said.contains("waiting for"), "{said}");
    // Who insists asks all the same.
    refused(late().args(["--refresh"]), 7, &["the limit is 15 seconds"]);
    journey.provider.thaw();
    standing.is_kept(&journey);
    // No session was lost: the next ones have themselves served.
    late().args(["--refresh"]).run().ok();
    assert_ne!(late().run().ok().stdout, standing.token);
    assert_eq!(journey.provider.count_grants("refresh_token"), 1);
}

#[test]
fn an_attempt_that_nobody_needs_fails_nobody_who_does() {
    let mut journey = with_short_sessions();
    let standing = Standing::of(&journey);
    journey.provider.fault(&Fault::slow(Duration::from_secs(5)));
    let asked = journey.provider.requests().len();
    let late =
        |args: &[&str]| at_clock(&journey.home, "+27m").args(["token", "--no-input"]).args(args);
    let spare = late(&[]).spawn();
    wait_until("the attempt that nobody needs", Duration::from_secs(60), || {
        (journey.provider.requests().len() > asked).then_some(())
    });
    let needed = late(&["reader"]).spawn();
    let stale = spare.wait().ok();
    assert_eq!(stale.stdout, standing.token);
    assert!(stale.stderr.contains("the identity provider is slow"), "{}", stale.stderr);
    needed.wait().ok();
    assert_eq!(journey.provider.count_grants("refresh_token"), 1);
    // What was sent is not cut off although nobody needs it: the session goes on.
    journey.provider.clear_faults();
    journey.provider.fault(&Fault::slow(Duration::from_secs(9)).at("/token"));
    let renewed = at_clock(&journey.home, "+13m").args(["token", "reader", "--no-input"]);
    let said = renewed.run().ok().stderr;
    assert!(!said.contains("the cached one is used"), "{said}");
    assert!(said.contains("for 15 seconds at most"), "{said}");
    assert_eq!(journey.provider.count_grants("refresh_token"), 2);
}

#[test]
fn an_issuer_that_is_down_is_said_to_be() {
    let home = Home::stranger();
    let issuer = format!("http://127.0.0.1:{}", free_port());
    home.config(&configuration(&issuer, "http://127.0.0.1:9", ""));
    let says = ["cannot be used", "did not answer", "hint: check the network and the address"];
    refused(tmpcred(&home).args(["login", "--no-input=false"]), 7, &says);
    let exec = ["exec", "--no-input=false", "--", "true"];
    refused(tmpcred(&home).args(exec), 125, &says);
}

/// One identity, one broker, one profile, both servers with the same line more.
fn configuration(issuer: &str, broker: &str, more: &str) -> String {
    format!(
        r#"default_profile = "deploy"

[identity.corp]
type = "oidc"
issuer = "{issuer}"
client_id = "cli"
{more}

[broker.main]
url = "{broker}"
{more}

[profile.deploy]
role = "deploy"
audience = "{API}"
"#
    )
}

fn provider_with(certificate: ServerCertificate) -> OidcProvider {
    OidcProvider::start_with(&OidcOptions { tls: Some(certificate), ..OidcOptions::default() })
}

#[test]
fn certificates_of_an_own_authority_are_trusted_where_it_is_named() {
    let authority = Authority::new();
    let provider = provider_with(authority.certify("127.0.0.1"));
    let broker = Broker::start(&BrokerOptions {
        tls: Some(authority.certify("127.0.0.1")),
        issuer_ca: Some(authority.pem()),
        ..BrokerOptions::trusting(provider.issuer())
    });
    let mut home = Home::stranger();
    let pem = home.write("authority.pem", std::fs::read(authority.pem()).unwrap());
    Browser::http().trusting(&pem).install(&mut home);
    home.set("TMPCRED_NO_INPUT", "false");

    home.config(&configuration(provider.issuer(), broker.url(), ""));
    let unknown = ["is not accepted", "no authority that is trusted here", "`ca_file`"];
    refused(tmpcred(&home).args(["login"]), 9, &unknown);

    // A path is relative to the file that it stands in.
    let trusting = r#"ca_file = "../../authority.pem""#;
    home.config(&configuration(provider.issuer(), broker.url(), trusting));
    let token = tmpcred(&home).args(["token"]).run().ok().stdout;
    let verify = ["verify", "--audience", API];
    tmpcred(&home).args(verify).stdin(token.clone()).run().ok();

    home.config(&configuration(provider.issuer(), broker.url(), ""));
    refused(tmpcred(&home).args(verify).stdin(token), 9, &unknown);

    home.config(&configuration(provider.issuer(), broker.url(), r#"ca_file = "absent.pem""#));
    let absent = ["the file with certificate authorities is missing", "correct `ca_file`"];
    refused(tmpcred(&home).args(["login", "--force"]), 3, &absent);
}

#[test]
fn certificates_that_have_expired_or_are_for_another_name_are_refused() {
    let authority = Authority::new();
    let mut home = Home::stranger();
    home.write("authority.pem", std::fs::read(authority.pem()).unwrap());
    home.set("TMPCRED_NO_INPUT", "false");
    for (certificate, says) in [
        (
            authority.certify_expired("127.0.0.1"),
            ["it has expired", "its operator has to renew it"],
        ),
        (authority.certify("elsewhere.example"), ["it is for another name", "check the address"]),
    ] {
        let provider = provider_with(certificate);
        let trusting = r#"ca_file = "../../authority.pem""#;
        home.config(&configuration(provider.issuer(), "http://127.0.0.1:9", trusting));
        refused(tmpcred(&home).args(["login"]), 9, &says);
    }
}
