//! A session that the provider has ended costs nobody what is cached: it is good
//! until it expires.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::process::{Signal, kill_process_group};
use serde_json::Value;

use super::faults::at_clock;
use super::journey::Journey;
use super::stores::{claims, items, with_keys};
use super::support::broker::{Broker, BrokerOptions};
use super::support::browser::Browser;
use super::support::home::Home;
use super::support::http::Http;
use super::support::oidc_provider::{CLIENT, Fault, OidcOptions, OidcProvider};
use super::support::run::Run;
use super::support::wait::wait_until;

/// When the access tokens of these tests have expired by this machine's clock, and no
/// credential has.
const LATER: &str = "+6m";

/// Somebody with credentials for both profiles, whose access token lasts five minutes.
fn with_credentials() -> (Journey, [String; 2]) {
    let ttl = BTreeMap::from([("AccessToken", 300)]);
    let provider = OidcProvider::start_with(&OidcOptions { ttl, ..OidcOptions::default() });
    let broker = Broker::start(&BrokerOptions::trusting(provider.issuer()));
    let mut home = Home::stranger();
    Browser::http().user("alice", "x").install(&mut home);
    let journey = Journey::of(provider, broker, home);
    let tokens =
        ["deploy", "reader"].map(|profile| journey.tmpcred(&["token", profile]).run().ok().stdout);
    (journey, tokens)
}

fn session(journey: &Journey) -> Value {
    let key = items(&journey.home, "session").remove(0);
    with_keys(&journey.home, &format!("keyctl pipe {}", key.serial)).run().ok().json()
}

/// Has the provider end the session, and the program find out.
fn end(journey: &Journey) {
    let token = session(journey)["refresh_token"].as_str().unwrap().to_string();
    let form = [("client_id", CLIENT), ("token", token.as_str())];
    let revocation = journey.provider.url("/token/revocation");
    assert_eq!(Http::new().form(&revocation, &form).unwrap().status, 200);
    let refused = later(journey, &["token", "--ttl", "20m", "--no-input"]).run().ended_with(4);
    assert!(refused.stderr.contains("the session has ended"), "{}", refused.stderr);
}

fn later(journey: &Journey, args: &[&str]) -> Run {
    at_clock(&journey.home, LATER).args(args)
}

#[test]
fn what_is_cached_serves_after_the_session_has_ended() {
    let (journey, tokens) = with_credentials();
    end(&journey);
    let before = journey.provider.requests().len();
    for (profile, token) in ["deploy", "reader"].into_iter().zip(&tokens) {
        let again = later(&journey, &["token", profile, "--no-input"]).run().ok();
        assert_eq!((&again.stdout, again.stderr.as_str()), (token, ""), "{profile}");
    }
    // One that is due for renewal serves while it lasts, with a word about it.
    let due = at_clock(&journey.home, "+13m").args(["token", "reader", "--no-input"]).run().ok();
    assert_eq!(due.stdout, tokens[1]);
    assert!(due.stderr.contains("login required"), "{}", due.stderr);
    // Nothing new is to be had, and nobody is asked for it.
    let refused = later(&journey, &["token", "--ttl", "10m", "--no-input"]).run().ended_with(4);
    assert!(refused.stderr.contains("the session has ended"), "{}", refused.stderr);
    assert_eq!(journey.provider.requests().len(), before);
    let left = session(&journey);
    assert_eq!((&left["refresh_token"], &left["id_token"]), (&Value::Null, &Value::Null));
    assert_eq!(left["access_tokens"], serde_json::json!([]));
}

#[test]
fn a_session_that_no_identity_leads_to_is_shown_and_ended() {
    let (journey, _) = with_credentials();
    let status = || journey.tmpcred(&["status", "--json"]).run().ok().json();
    assert_eq!(status()["sessions"][0]["configured"], true);
    let refresh_token = session(&journey)["refresh_token"].as_str().unwrap().to_string();
    let file = journey.home.path(".config/tmpcred/config.toml");
    let before = std::fs::read_to_string(file).unwrap();
    let identity = "[identity.corp]\n";
    let other = "[identity.corp]\nscopes = [\"openid\", \"offline_access\", \"email\"]\n";
    assert!(before.contains(identity));
    journey.home.config(&before.replace(identity, other));
    assert_eq!(status()["sessions"][0]["configured"], false);
    let shown = journey.tmpcred(&["status"]).run().ok().stdout;
    assert!(shown.contains("no identity of this configuration leads to it"), "{shown}");

    let out = journey.tmpcred(&["logout", "--all", "--json"]).run().ok().json();
    let ended: Vec<_> = out.as_array().unwrap().iter().map(|one| &one["session"]).collect();
    assert_eq!(ended, ["none", "revoked"]);
    assert_eq!((&out[1]["configured"], &out[1]["subject"]), (&false.into(), &"alice".into()));
    assert_eq!(status()["sessions"], serde_json::json!([]));
    assert_eq!(status()["credentials"], serde_json::json!([]));
    assert!(items(&journey.home, "session").is_empty());
    let form = [
        ("client_id", CLIENT),
        ("grant_type", "refresh_token"),
        ("refresh_token", refresh_token.as_str()),
    ];
    let refused = Http::new().form(&journey.provider.url("/token"), &form).unwrap();
    assert_eq!(refused.status, 400, "the provider knows");
    journey.tmpcred(&["token", "--no-input"]).run().ended_with(4);
}

#[test]
fn status_and_logout_know_that_a_session_has_ended() {
    let (journey, _) = with_credentials();
    let status = || journey.tmpcred(&["status", "--json"]).run().ok().json();
    assert_eq!(status()["sessions"][0]["login_required"], false);
    end(&journey);
    assert_eq!(status()["sessions"][0]["subject"], "alice");
    assert_eq!(status()["sessions"][0]["login_required"], true);
    let shown = journey.tmpcred(&["status"]).run().ok().stdout;
    assert!(shown.contains("ended: login required"), "{shown}");

    let before = journey.provider.requests().len();
    let out = journey.tmpcred(&["logout", "--json"]).run().ok().json();
    assert_eq!((&out[0]["session"], &out[0]["subject"]), (&"ended".into(), &"alice".into()));
    assert_eq!(journey.provider.requests().len(), before, "there is nothing to revoke");
    let refused = journey.tmpcred(&["token", "--no-input"]).run().ended_with(4);
    assert!(refused.stderr.contains("login required"), "{}", refused.stderr);
    assert_eq!(status()["sessions"], serde_json::json!([]));
    assert_eq!(status()["credentials"], serde_json::json!([]));
    assert!(items(&journey.home, "credential").is_empty());
    assert!(items(&journey.home, "session").is_empty());
}

#[test]
fn a_login_takes_the_place_of_a_session_that_has_ended() {
    let (mut journey, tokens) = with_credentials();
    end(&journey);
    // The same person finds the credentials again, another one does not.
    journey.tmpcred(&["login"]).run().ok();
    assert_eq!(journey.tmpcred(&["token", "--no-input"]).run().ok().stdout, tokens[0]);
    end(&journey);
    Browser::http().user("bob", "x").install(&mut journey.home);
    journey.tmpcred(&["login"]).run().ok();
    let status = journey.tmpcred(&["status", "--json"]).run().ok().json();
    assert_eq!(status["sessions"].as_array().unwrap().len(), 1);
    assert_eq!(status["sessions"][0]["subject"], "bob");
    assert_eq!(status["sessions"][0]["login_required"], false);
    let token = journey.tmpcred(&["token", "--no-input"]).run().ok().stdout;
    assert_ne!(token, tokens[0]);
}

#[test]
fn somebody_elses_login_holds_up_nobody_whose_credential_serves() {
    let (mut journey, tokens) = with_credentials();
    end(&journey);
    // Nobody comes to an end with the login.
    Browser::http().only_opens().install(&mut journey.home);
    let due = |args: &[&str]| at_clock(&journey.home, "+13m").args(args);
    // It has the session's lock alone, and that of the same credential too.
    for login in [&["login"][..], &["token", "reader"]] {
        let login = due(login).spawn();
        login.line_on_stderr("Your browser has been opened");
        let rides = due(&["token", "reader", "--no-input"]).limit(Duration::from_secs(60)).run();
        let rides = rides.ok();
        assert_eq!(rides.stdout, tokens[1]);
        for says in ["cached one is used while it lasts", "waiting for somebody to log in"] {
            assert!(rides.stderr.contains(says), "{says}: {}", rides.stderr);
        }
    }
}

#[test]
fn ctrl_c_while_the_session_is_renewed_does_not_lose_it() {
    let (mut journey, _) = with_credentials();
    let refresh = ["token", "--ttl", "20m", "--no-input"];
    let before = journey.provider.count_grants("refresh_token");
    // The refresh token has been used then, and the next one is not here yet.
    journey.provider.fault(&Fault::late(Duration::from_secs(3)).at("/token"));
    let renewal = later(&journey, &refresh).spawn();
    wait_until("the refresh", Duration::from_secs(60), || {
        (journey.provider.count_grants("refresh_token") > before).then_some(())
    });
    // As a terminal does: to all that it runs.
    kill_process_group(renewal.pid(), Signal::INT).unwrap();
    assert_eq!(renewal.wait().signal, Some(Signal::INT.as_raw()));
    journey.provider.clear_faults();
    later(&journey, &refresh).run().ok();
}

#[test]
fn a_lost_index_hides_no_credential_although_the_session_has_ended() {
    let (journey, tokens) = with_credentials();
    end(&journey);
    let index = journey.home.path(".local/state/tmpcred/index.json");
    std::fs::rename(&index, index.with_extension("lost")).unwrap();
    let again = later(&journey, &["token", "--no-input"]).run().ok().stdout;
    assert_eq!(again, tokens[0]);
}

#[test]
fn what_a_login_of_somebody_else_yields_is_not_lost_to_another_process() {
    let (mut journey, _) = with_credentials();
    // The name of what bob's credential is cached under.
    Browser::http().user("bob", "x").install(&mut journey.home);
    journey.tmpcred(&["logout"]).run().ok();
    journey.tmpcred(&["token"]).run().ok();
    let index = journey.home.path(".local/state/tmpcred/index.json");
    let index: Value = serde_json::from_slice(&std::fs::read(index).unwrap()).unwrap();
    let name = index["credentials"][0]["key"].as_str().unwrap().to_string();
    journey.tmpcred(&["logout"]).run().ok();
    Browser::http().user("alice", "x").install(&mut journey.home);
    journey.tmpcred(&["token"]).run().ok();
    end(&journey);
    Browser::http().user("bob", "x").install(&mut journey.home);
    // Another process is at it, and stays there.
    let lock = journey.home.path("run/tmpcred/locks").join(format!("{name}.lock"));
    let holder = journey.home.command("flock").args([lock]);
    let holder = holder.args(["sh", "-c", "echo held; exec sleep 300"]).spawn();
    holder.line_on_stdout("held");
    let run = later(&journey, &["token", "--refresh"]).limit(Duration::from_secs(100)).run().ok();
    assert_eq!(claims(run.stdout.trim())["sub"], format!("{}#bob", journey.provider.issuer()));
}
