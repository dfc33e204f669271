//! Under which grant something is issued, and how far its end reaches.

use super::*;
use crate::broker::config::TokenFormat;
use crate::broker::told::aws;

/// Alice has a grant with these changes; the newest.
async fn had(place: &Place, changes: &[(&str, &str)]) -> Value {
    let asked = place.requested("alice", changes).await;
    place.done("bob", "approve", &asked, &[]).await;
    place.done("carol", "approve", &asked, &[]).await;
    place.done("alice", "activate", &asked, &[]).await
}

/// The grant that a token is under.
fn under(response: &Response) -> Value {
    let answer = json_of(response);
    let token = answer["access_token"].as_str().unwrap_or_else(|| panic!("{answer}"));
    claims_of(token)["elevation"]["id"].clone()
}

#[tokio::test]
async fn of_several_grants_the_one_counts_that_serves_or_is_named() {
    let place = Place::with(|role| {
        role.elevation.as_mut().unwrap().renewable = true;
    })
    .await;
    let jkt = "0".repeat(43);
    let bound = had(&place, &[("ttl", "3600"), ("dpop_jkt", &jkt)]).await;
    let narrow = had(&place, &[("ttl", "2400"), ("scope", "deploy:read")]).await;
    let wide = had(&place, &[("ttl", "1200")]).await;
    // The one that lasts longest is for a key that was not proved; the next one for less.
    assert_eq!(under(&place.issued("alice", &[]).await), narrow["id"]);
    let write = [("scope", "deploy:write")];
    assert_eq!(under(&place.issued("alice", &write).await), wide["id"]);
    // Who names one has that one, or is told why not.
    let id = |grant: &Value| grant["id"].as_str().unwrap().to_string();
    let named = id(&wide);
    let response = place.issued("alice", &[("elevation", &named)]).await;
    assert_eq!(under(&response), wide["id"]);
    // How much is left of it is told, for what outlasts the token.
    let left = json_of(&response)["elevation_expires_in"].as_u64().unwrap();
    assert!((1190..=1200).contains(&left), "{left}");
    for (grant, more, says) in [
        (&narrow, &write[..], "does not cover the scope 'deploy:write'"),
        (&bound, &[], "bound to another key"),
    ] {
        let named = id(grant);
        let changes = [&[("elevation", named.as_str())], more].concat();
        let (status, said) = told(&place.issued("alice", &changes).await);
        assert!(status == 400 && said.contains(says), "{says}: {said}");
    }
    // Where none serves, it is said of the one that lasts longest.
    place.done("alice", "relinquish", &narrow, &[]).await;
    place.done("alice", "relinquish", &wide, &[]).await;
    let (status, said) = told(&place.issued("alice", &[]).await);
    assert!(status == 400 && said.contains("bound to another key"), "{said}");
    // Without a grant nothing is told of one.
    let deploy = [("role", "deploy"), ("audience", API)];
    let plain = json_of(&place.bed.exchange(&place.token("alice"), &deploy).await);
    assert_eq!(plain.get("elevation_expires_in"), None, "{plain}");
}

#[tokio::test]
async fn the_end_of_a_grant_says_that_sessions_of_aws_last_and_how_they_are_denied() {
    let place = Place::with(|role| role.aws = Some(aws::Settings::default())).await;
    let active = place.active().await;
    assert_eq!((active.get("revocation_reach"), active.get("aws_sessions")), (None, None));
    let token = json_of(&place.issued("alice", &[]).await)["access_token"].clone();
    let claims = claims_of(token.as_str().unwrap());
    assert_eq!(claims["https://aws.amazon.com/source_identity"], active["id"]);
    let ended = place.done("erin", "revoke", &active, &[("reason", "enough")]).await;
    assert_eq!(ended["revocation_reach"], "introspection");
    let sessions = &ended["aws_sessions"];
    let until =
        |text: &Value| time::OffsetDateTime::parse(text.as_str().unwrap(), &Rfc3339).unwrap();
    // AWS takes the token until it ends, which is no later than the grant would have.
    assert!(until(&sessions["begun_before"]) > until(&active["grant"]["until"]), "{ended}");
    assert_eq!(
        sessions["deny"]["Statement"],
        json!([{
            "Effect": "Deny", "Action": "*", "Resource": "*",
            "Condition": { "DateLessThan": { "aws:TokenIssueTime": sessions["begun_before"] } },
        }])
    );
}

#[tokio::test]
async fn opaque_tokens_are_refused_everywhere_and_of_a_drill_there_are_none() {
    let place = Place::with(|role| role.token_format = TokenFormat::Opaque).await;
    let active = place.active().await;
    let ended = place.done("erin", "revoke", &active, &[("reason", "enough")]).await;
    assert_eq!(ended["revocation_reach"], "everywhere");
    let asked = place.requested("dave", &[("drill", "true")]).await;
    place.done("bob", "approve", &asked, &[]).await;
    place.done("carol", "approve", &asked, &[]).await;
    place.done("dave", "activate", &asked, &[]).await;
    let ended = place.done("dave", "relinquish", &asked, &[]).await;
    assert_eq!((&ended["access"], ended.get("revocation_reach")), (&json!("relinquished"), None));
}
