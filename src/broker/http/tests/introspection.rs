//! Introspection (RFC 7662): who is told what.

mod proved;

use std::sync::Arc;

use axum::http::StatusCode;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use super::header_of;
use crate::broker::store::{Consumed, Effect, Once, Unit};
use crate::broker::testbed::{API, Bed, CORP, Standing, claims_of, json_of};
use crate::host::clock::{Clock, SystemClock};

const OTHER: &str = "https://other.example.com";

/// A broker with two audiences, each of which has a resource owner who may ask.
async fn bed() -> Bed {
    Bed::with(|options| {
        let role = options.config.role.get_mut("deploy").unwrap();
        role.audiences.insert(OTHER.into());
        for (name, audience) in [("api", API), ("other", OTHER)] {
            options.policies += &format!(
                r#"
@id("introspect-{name}")
permit (
    principal == User::"{CORP}#{name}",
    action == Action::"introspect",
    resource == Role::"deploy"
) when {{ context.audience == "{audience}" }};
"#
            );
        }
    })
    .await
}

async fn told(bed: &Bed, bearer: &str, token: &str) -> Value {
    let response = bed.introspect(Some(bearer), token).await;
    assert_eq!(response.status, StatusCode::OK, "{}", json_of(&response));
    assert_eq!(header_of(&response, "cache-control"), "no-store");
    json_of(&response)
}

#[tokio::test]
async fn resource_owners_are_told_about_tokens_for_their_own_audience() {
    let bed = bed().await;
    let token = bed.issued(json!({}), &[("scope", "deploy:read")]).await;
    let api = bed.key.token(json!({"sub": "api"}));
    let claims = claims_of(&token);
    let expected = json!({
        "active": true, "iss": bed.issuer.as_str(), "sub": format!("{CORP}#alice"), "aud": API,
        "client_id": "cli", "role": "deploy", "scope": "deploy:read", "exp": claims["exp"],
        "iat": claims["iat"], "jti": claims["jti"], "token_type": "Bearer",
        "log_sequence": claims["log_sequence"], "revocation_reach": "introspection",
    });
    assert_eq!(told(&bed, &api, &token).await, expected);
    assert_eq!(told(&bed, &token, &token).await, expected, "about itself");
    let inactive = json!({"active": false});
    let theirs = bed.issued(json!({}), &[("audience", OTHER)]).await;
    assert_eq!(told(&bed, &api, &theirs).await, inactive);
    let other = bed.key.token(json!({"sub": "other"}));
    assert_eq!(told(&bed, &other, &token).await, inactive);
    assert_eq!(told(&bed, &other, &theirs).await["active"], true);
    // Alice herself has no permission to ask about what others hold.
    let alice = bed.key.token(json!({}));
    assert_eq!(told(&bed, &alice, &token).await, inactive);

    bed.revoke(&token).await;
    for bearer in [&api, &token, &other] {
        assert_eq!(told(&bed, bearer, &token).await, inactive);
    }
}

#[tokio::test]
async fn whatever_is_not_good_looks_the_same() {
    let (bed, stranger) = (bed().await, Bed::new().await);
    let api = bed.key.token(json!({"sub": "api"}));
    let own = bed.issued(json!({}), &[]).await;
    let revoked = bed.issued(json!({}), &[]).await;
    bed.revoke(&revoked).await;
    let foreign = stranger.issued(json!({}), &[]).await;
    let mut answers = Vec::new();
    for token in [
        "x",
        "a.b.c",
        &own[..own.len() - 4],
        &revoked,
        &foreign,
        &bed.key.token(json!({"iss": bed.issuer.as_str(), "aud": API})),
        &api,
    ] {
        let response = bed.introspect(Some(&api), token).await;
        answers.push((response.status.as_u16(), response.body.expose().clone()));
        let itself = bed.introspect(Some(token), token).await;
        answers.push((itself.status.as_u16(), itself.body.expose().clone()));
    }
    let inactive = (200, br#"{"active":false}"#.to_vec());
    assert!(answers.iter().all(|answer| *answer == inactive), "{answers:?}");
}

#[tokio::test]
async fn who_does_not_prove_who_they_are_is_told_nothing() {
    let bed = bed().await;
    let token = bed.issued(json!({}), &[]).await;
    let second = bed.issued(json!({"sub": "api"}), &[]).await;
    let nobody = bed.introspect(None, &token).await;
    assert_eq!(nobody.status, StatusCode::UNAUTHORIZED);
    let challenge = header_of(&nobody, "www-authenticate");
    assert!(challenge.starts_with("Bearer realm=\"tmpcred\", DPoP algs="), "{challenge}");
    let now = SystemClock.now().unix_timestamp();
    for bearer in [
        "x".to_string(),
        bed.key.token(json!({"sub": "api", "aud": "https://elsewhere.example"})),
        bed.key.token(json!({"sub": "api", "exp": now - 100})),
        bed.key.token(json!({"sub": "api", "iss": "https://evil.example"})),
        crate::broker::testbed::IssuerKey::new().token(json!({"sub": "api"})),
        // What resource owners are shown is no proof of being the one who shows it.
        second,
    ] {
        let refused = bed.introspect(Some(&bearer), &token).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{bearer}");
        let challenge = header_of(&refused, "www-authenticate");
        let said = "Bearer realm=\"tmpcred\", error=\"invalid_token\", DPoP algs=";
        assert!(challenge.starts_with(said), "{challenge}");
        let refusal = json_of(&refused);
        assert_eq!(refusal["error"], "invalid_token");
        assert!(refusal.get("active").is_none() && !refusal.to_string().contains("alice"));
    }
    let api = bed.key.token(json!({"sub": "api"}));
    assert_eq!(bed.introspect(Some(&api), "").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn an_expired_token_is_not_active_from_its_last_second_on() {
    let clock = Arc::new(Standing::default());
    let begin = clock.seconds();
    let bed = Bed::with(|options| options.clock = clock.clone()).await;
    let token = bed.issued(json!({}), &[("requested_ttl", "600")]).await;
    for (shift, active) in [(0, true), (599, true), (600, false), (630, false), (700, false)] {
        clock.set(begin + shift);
        assert_eq!(told(&bed, &token, &token).await["active"], active, "{shift}");
    }
    // Some still accept it for a minute; after that there is nothing to revoke.
    for (shift, records) in [(700, 1), (630, 2)] {
        clock.set(begin + shift);
        assert_eq!(bed.revoke(&token).await, 200);
        assert_eq!(bed.records(0, 9).await.len(), records, "{shift}");
    }
    let jti = [claims_of(&token)["jti"].as_str().unwrap().to_string()];
    let is_kept = async || bed.store.any_consumed(Once::RevokedToken, &jti).await.unwrap();
    assert!(is_kept().await);
    // Revocations sweep away what nobody needs, now and then, but not before a clock
    // that is ahead would have been noticed.
    for (shift, kept) in [(1300, true), (80_000, true), (90_000, false)] {
        clock.set(begin + shift);
        // Removed after that, where it is; and not by a sweep before this one.
        let sign = [format!("a proof of {shift}")];
        use_up(&bed, Once::DpopProof, &sign[0], clock.now() - Duration::minutes(61)).await;
        let fresh = bed.key.token(json!({"iat": clock.seconds(), "exp": clock.seconds() + 300}));
        let response = bed.exchange(&fresh, &[]).await;
        let next = json_of(&response)["access_token"].as_str().unwrap().to_string();
        assert_eq!(bed.revoke(&next).await, 200);
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
        while bed.store.any_consumed(Once::DpopProof, &sign).await.unwrap() {
            assert!(tokio::time::Instant::now() < deadline, "nothing is swept away");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert_eq!(is_kept().await, kept, "{shift}");
    }
}

/// Uses something up that has to be kept until then.
async fn use_up(bed: &Bed, kind: Once, id: &str, keep_until: OffsetDateTime) {
    let consumed = Consumed { kind, id: id.into(), at: keep_until, keep_until };
    let unit = Unit { records: Vec::new(), effects: vec![Effect::Consume(consumed)] };
    bed.store.commit(&[unit]).await.unwrap();
}

#[tokio::test]
async fn both_documents_name_the_endpoints() {
    let bed = Bed::new().await;
    for path in ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"] {
        let document = json_of(&bed.get(path).await);
        assert_eq!(document["revocation_endpoint"], "https://broker.example.com/revoke");
        assert_eq!(document["revocation_endpoint_auth_methods_supported"], json!(["none"]));
        assert_eq!(document["introspection_endpoint"], "https://broker.example.com/introspect");
        assert_eq!(
            document["introspection_endpoint_auth_methods_supported"],
            json!(["Bearer", "DPoP"])
        );
    }
}
