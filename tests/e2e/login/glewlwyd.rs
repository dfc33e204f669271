//! At a provider with other habits.

use serde_json::json;
use tmpcred::credential::TokenType;
use tmpcred::error::ErrorKind;
use tmpcred::identity::Logout;

use super::{BROKER, LONG, OTHER, Plan, claims};
use crate::support::browser::Browser;
use crate::support::glewlwyd::{CLIENT, Glewlwyd, GlewlwydOptions, PASSWORD, USER};
use crate::support::wait::wait_until;

/// Settings for a Glewlwyd, and the browser of its one person.
fn at_glewlwyd(server: &Glewlwyd) -> Plan {
    let browser = Browser::http().user(USER, PASSWORD);
    Plan::new(&server.issuer())
        .set("client_id", json!(CLIENT))
        .set("scopes", json!(["openid"]))
        .set("redirect_ports", json!(server.redirect_ports()))
        .browser(browser)
}

#[test]
fn it_logs_in_by_browser_and_rotates() {
    let options =
        GlewlwydOptions { access_token: 4, resources: vec![BROKER], ..GlewlwydOptions::default() };
    let server = Glewlwyd::start_with(&options);
    let (world, browser) = at_glewlwyd(&server).build();
    let first = world.assertion(BROKER).unwrap();
    assert_eq!(first.token_type, TokenType::AccessToken);
    assert_eq!(claims(&first)["aud"], BROKER);
    assert!(browser.wait_for_visits(1).text.contains("You are logged in"));
    world.nobody_there();
    let mut seen = vec![world.refresh_token()];
    wait_until("two renewals", LONG, || {
        let assertion = world.assertion(BROKER).unwrap();
        assert_eq!(assertion.token_type, TokenType::AccessToken);
        assert_eq!(assertion.principal, first.principal);
        let token = world.refresh_token();
        if !seen.contains(&token) {
            seen.push(token);
        }
        (seen.len() > 2).then_some(())
    });
    assert_eq!(browser.opened().len(), 1);
}

#[test]
fn it_refuses_an_audience_and_renews_no_id_token() {
    let options =
        GlewlwydOptions { access_token: 4, resources: vec![OTHER], ..GlewlwydOptions::default() };
    let server = Glewlwyd::start_with(&options);
    let (world, browser) = at_glewlwyd(&server).build();
    let first = world.assertion(BROKER).unwrap();
    assert_eq!(first.token_type, TokenType::IdToken);
    assert_eq!(claims(&first)["aud"], CLIENT);
    assert_eq!(browser.opened().len(), 1, "asked twice, in one tab");
    world.nobody_there();
    let error = wait_until("the ID token to end", LONG, || world.assertion(BROKER).err());
    assert_eq!(error.kind(), ErrorKind::LoginRequired);
    assert_eq!(error.causes(), ["the identity provider renews no ID token"]);
}

#[test]
fn it_logs_in_by_device_and_revokes_nothing_for_a_public_client() {
    let options = GlewlwydOptions { resources: vec![BROKER], ..GlewlwydOptions::default() };
    let server = Glewlwyd::start_with(&options);
    let (world, _) = at_glewlwyd(&server).set("flow", json!("device")).build();
    let assertion = world.assertion(BROKER).unwrap();
    assert_eq!(assertion.principal.issuer, server.issuer());
    let logout = world.logout();
    assert!(matches!(&logout, Logout::ForgottenOnly(_, why) if why.contains("401")), "{logout:?}");
    world.nobody_there();
    let error = world.assertion(BROKER).unwrap_err();
    assert_eq!(error.to_string(), "login required: run `tmpcred login corp`");
}
