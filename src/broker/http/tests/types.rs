//! Of which type a token of the broker's own has to be (RFC 9068 section 4).

use axum::http::StatusCode;
use serde_json::json;

use super::authz::{authz, challenge, with_bearer};
use super::lineage::{Site, first};
use crate::broker::config::Proxy;
use crate::broker::testbed::{API, Bed, CORP, claims_of, json_of};
use crate::oidc::jwt::decode_unverified;

/// The same token under another type, by the same key.
async fn retyped(bed: &Bed, token: &str, typ: Option<&str>) -> String {
    let mut header = decode_unverified(token).unwrap().header;
    header.remove("typ");
    header.extend(typ.map(|typ| ("typ".to_string(), json!(typ))));
    let keys = bed.broker.keys.current().await.unwrap();
    assert_eq!(header["kid"], keys.active().kid());
    keys.active().sign_under(&header, &claims_of(token)).unwrap().expose().clone()
}

/// The broker may sign other things by the same keys.
#[tokio::test]
async fn what_the_brokers_own_keys_signed_is_an_access_token_by_its_type_alone() {
    let site = Site::new();
    let bed = site
        .start_with(|options| {
            authz(Proxy::Nginx, options);
            options.policies += &format!(
                r#"
@id("api-asks")
permit (principal == User::"{CORP}#api", action == Action::"introspect", resource == Role::"deploy");
"#
            );
        })
        .await;
    let api = bed.key.token(json!({"sub": "api"}));
    let (shown, exchanged) = (bed.issued(json!({}), &[]).await, first(&bed).await);
    for (typ, is_good) in [
        (Some("at+jwt"), true),
        (Some("JWT"), false),
        (Some("dpop+jwt"), false),
        (Some(""), false),
        (None, false),
    ] {
        let token = retyped(&bed, &shown, typ).await;
        let told = bed.introspect(Some(&api), &token).await;
        assert_eq!((told.status, &json_of(&told)["active"]), (StatusCode::OK, &json!(is_good)));
        let passes = with_bearer(&bed, &token).await;
        assert_eq!(passes.status == StatusCode::OK, is_good, "{typ:?}");
        if !is_good {
            assert!(challenge(&passes).contains("invalid_token"), "{typ:?}");
        }

        let subject = retyped(&bed, &exchanged, typ).await;
        let asks = [("role", "again"), ("audience", API)];
        let answer = bed.exchange(&subject, &asks).await;
        let said = json_of(&answer);
        assert_eq!(answer.status == StatusCode::OK, is_good, "{typ:?}: {said}");
        if !is_good {
            assert_eq!(said["error"], "invalid_request", "{typ:?}: {said}");
            let why = said["error_description"].as_str().unwrap();
            assert!(why.contains("an access token"), "{typ:?}: {why}");
        }
    }
}
