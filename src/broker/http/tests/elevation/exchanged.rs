//! What somebody gets for a token that was issued under a grant comes of the grant, too.

use super::super::lineage::{OWN, Site};
use super::*;
use crate::broker::config::TokenFormat;
use crate::broker::told::aws;

#[tokio::test]
async fn a_token_that_is_got_for_one_under_a_grant_leads_back_to_it_and_ends_with_it() {
    let site = Site::new();
    let trusts_itself = site.trusts_itself().await;
    let place = Place::built(
        None,
        |_| {},
        |options| {
            trusts_itself(options);
            options.config.role.get_mut("admin").unwrap().audiences.insert(OWN.into());
            options.config.role.get_mut("again").unwrap().aws = Some(aws::Settings::default());
        },
    )
    .await;
    let asked = place.requested("alice", &[("audience", OWN)]).await;
    place.done("bob", "approve", &asked, &[]).await;
    place.done("carol", "approve", &asked, &[]).await;
    place.done("alice", "activate", &asked, &[]).await;
    let response = place.issued("alice", &[("audience", OWN)]).await;
    let token = json_of(&response)["access_token"].as_str().unwrap().to_string();
    let response = place.bed.exchange(&token, &[("role", "again"), ("audience", API)]).await;
    let answer = json_of(&response);
    assert_eq!(response.status, StatusCode::OK, "{answer}");
    let token = answer["access_token"].as_str().unwrap();
    let claims = claims_of(token);
    assert_eq!(claims["role"], "again");
    assert_eq!(claims["elevation"]["id"], asked["id"]);
    assert_eq!(claims["elevation"]["path"], "ordinary");
    // AWS has it in its log as well.
    assert_eq!(claims["https://aws.amazon.com/source_identity"], asked["id"]);
    let seen = json_of(&place.bed.introspect(Some(token), token).await);
    assert_eq!((&seen["active"], &seen["elevation"]), (&json!(true), &claims["elevation"]));
    let issued = place.records_of(&asked).await;
    let roles: Vec<_> =
        issued.iter().filter(|one| one.action == "issue").map(|one| one.role.as_str()).collect();
    assert_eq!(roles, ["admin", "again"]);
    // It ends with the grant; and it is told that AWS has sessions by it, whose own role it is not.
    let ended = place.done("erin", "revoke", &asked, &[("reason", "enough")]).await;
    assert_eq!(ended["revocation_reach"], "introspection");
    assert!(ended["aws_sessions"]["begun_before"].is_string(), "{ended}");
    let seen = json_of(&place.bed.introspect(Some(token), token).await);
    assert_eq!(seen, json!({"active": false}));
}

#[tokio::test]
async fn where_nothing_else_is_got_for_it_the_end_of_a_grant_reaches_everybody() {
    let place = Place::with(|role| role.token_format = TokenFormat::Opaque).await;
    let active = place.active().await;
    assert_eq!(place.issued("alice", &[]).await.status, StatusCode::OK);
    let ended = place.done("erin", "revoke", &active, &[("reason", "enough")]).await;
    assert_eq!(ended["revocation_reach"], "everywhere");
    assert_eq!(ended.get("aws_sessions"), None);
}
