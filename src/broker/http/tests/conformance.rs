//! What the standards demand and no test about something of ours shows besides:
//! `docs/conformance` has all of it.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::header_of;
use crate::broker::testbed::{API, Bed, CORP, claims_of, json_of};

const FORM: &str = "application/x-www-form-urlencoded";

/// What is answered when these parameters are posted there, with a token as who asks.
async fn told(bed: &Bed, path: &str, form: &[(&str, &str)], bearer: &str) -> (u16, Value) {
    use crate::host::http::Request;
    use crate::secret::Secret;
    use axum::http::{HeaderMap, Method};
    let mut headers = HeaderMap::new();
    headers.insert("content-type", FORM.parse().unwrap());
    headers.insert("authorization", format!("Bearer {bearer}").parse().unwrap());
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let body = Secret::new(body.into_bytes());
    let request = Request { method: Method::POST, url: bed.url(path), headers, body };
    let response = bed.client.send(request).await.unwrap();
    (response.status.as_u16(), serde_json::from_slice(response.body.expose()).unwrap_or_default())
}

/// RFC 7009 sections 2.1 and 2.2, RFC 7662 section 2.1.
#[tokio::test]
async fn whatever_a_hint_says_of_the_type_of_a_token_it_is_found() {
    let bed = Bed::new().await;
    for hint in ["access_token", "refresh_token", "unheard-of", "", "x y"] {
        let token = bed.issued(json!({}), &[]).await;
        let form = [("token", token.as_str()), ("token_type_hint", hint)];
        let before = told(&bed, "/introspect", &form, &token).await;
        assert_eq!((before.0, &before.1["active"]), (200, &json!(true)), "{hint}");
        assert_eq!(told(&bed, "/revoke", &form, &token).await.0, 200, "{hint}");
        let after = told(&bed, "/introspect", &form, &token).await;
        assert_eq!(after, (200, json!({ "active": false })), "{hint}");
    }
}

/// RFC 7662 sections 2.1 and 4, RFC 7009 section 2.1: what is in an address is in logs.
#[tokio::test]
async fn tokens_are_taken_from_bodies_of_post_requests_alone() {
    let bed = Bed::new().await;
    let token = bed.issued(json!({}), &[]).await;
    for path in ["/introspect", "/revoke", "/token"] {
        assert_eq!(bed.get(path).await.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        let query = format!("{path}?token={token}");
        let by_get = bed.get(&query).await;
        assert_eq!(by_get.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        let (status, refusal) = told(&bed, &query, &[], &token).await;
        assert_eq!((status, &refusal["error"]), (400, &json!("invalid_request")), "{path}");
        let json = bed.post_raw(path, "application/json", b"{}").await;
        assert!(json.status.is_client_error(), "{path}");
    }
    let active = told(&bed, "/introspect", &[("token", &token)], &token).await.1;
    assert_eq!(active["active"], true, "nothing was revoked");
}

/// RFC 8414 sections 2, 3.2 and 3.3.
#[tokio::test]
async fn metadata_is_json_without_empty_members_and_publishes_nothing_in_the_clear() {
    let bed = Bed::new().await;
    for path in ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"] {
        let response = bed.get(path).await;
        assert_eq!(response.status, StatusCode::OK);
        assert_eq!(header_of(&response, "content-type"), "application/json");
        let metadata = json_of(&response);
        let members = metadata.as_object().unwrap();
        for (name, value) in members {
            let is_empty = value.as_array().is_some_and(Vec::is_empty);
            assert!(!is_empty && !value.is_null(), "{name}");
            let is_address = name.ends_with("_endpoint") || name.ends_with("_uri");
            if is_address || name == "issuer" {
                assert!(value.as_str().unwrap().starts_with("https://"), "{name}");
            }
            if name.ends_with("_alg_values_supported") {
                assert!(!value.as_array().unwrap().contains(&json!("none")), "{name}");
            }
        }
        assert_eq!(metadata["issuer"], bed.issuer.as_str());
        assert!(members.contains_key("response_types_supported"));
        let (issuer, required) = (bed.issuer.as_str(), ["token_endpoint", "jwks_uri"]);
        assert!(
            required
                .iter()
                .all(|name| { metadata[name].as_str().is_some_and(|url| url.starts_with(issuer)) })
        );
    }
}

/// RFC 8707 section 2, RFC 8693 sections 2.1 and 2.2.2, RFC 9068 section 3.
#[tokio::test]
async fn a_resource_is_an_absolute_uri_and_becomes_the_only_audience() {
    let bed = Bed::with(|options| {
        let role = options.config.role.get_mut("deploy").unwrap();
        role.audiences.extend(["urn:example:api".into(), "api".into()]);
    })
    .await;
    for resource in [API, "urn:example:api"] {
        let changes = [("audience", ""), ("resource", resource)];
        let token = bed.issued(json!({}), &changes).await;
        assert_eq!(claims_of(&token)["aud"], resource);
    }
    let same = bed.issued(json!({}), &[("resource", API)]).await;
    assert_eq!(claims_of(&same)["aud"], API);
    let assertion = bed.key.token(json!({}));
    let fragment = format!("{API}#x");
    for bad in ["api", "/api", "//api.example.com", "https://a b", ":x", "1:x", &fragment, "é:x"] {
        let changes = [("audience", ""), ("resource", bad)];
        let refusal = bed.refused(&assertion, &changes).await;
        assert_eq!(refusal["error"], "invalid_target", "{bad}: {refusal}");
        let with_audience = bed.refused(&assertion, &[("resource", bad)]).await;
        assert_eq!(with_audience["error"], "invalid_target", "{bad}");
    }
    // An audience is a name, and need be no address.
    assert_eq!(claims_of(&bed.issued(json!({}), &[("audience", "api")]).await)["aud"], "api");
    for name in ["audience", "resource"] {
        let mut form = bed.form(&assertion, &[]);
        form.extend([(name.to_string(), API.into()), (name.to_string(), API.into())]);
        let refusal = json_of(&bed.post("/token", &form).await);
        assert_eq!(refusal["error"], "invalid_target", "{name}: {refusal}");
    }
}

/// RFC 8693 section 2.1: an exchange takes nothing from what was shown for it.
#[tokio::test]
async fn a_token_is_as_good_after_its_exchange_as_before() {
    let bed = Bed::new().await;
    let assertion = bed.key.token(json!({}));
    let first = json_of(&bed.exchange(&assertion, &[]).await);
    let second = json_of(&bed.exchange(&assertion, &[]).await);
    let token = |grant: &Value| grant["access_token"].as_str().unwrap().to_string();
    let (first, second) = (token(&first), token(&second));
    for token in [&first, &second] {
        assert_eq!(json_of(&bed.introspect(Some(token), token).await)["active"], true);
    }
    // RFC 7519 section 4.1.7: two that are random, or of a hash, differ.
    let ids = [&first, &second]
        .map(|token| claims_of(token)["jti"].as_str().unwrap().parse::<uuid::Uuid>().unwrap());
    assert!(ids[0] != ids[1] && ids.iter().all(|id| matches!(id.get_version_num(), 7 | 8)));
}

/// RFC 9068 section 2.2, and RFC 8693 section 2.2.1: what has to be there is always there.
#[tokio::test]
async fn tokens_have_all_claims_that_access_tokens_need_whatever_the_assertion_lacks() {
    let bed = Bed::new().await;
    for changes in [json!({}), json!({ "client_id": null, "azp": null, "iat": null, "jti": null })]
    {
        let claims = bed.key.claims(json!({}));
        let mut claims = claims;
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let assertion = bed.key.0.sign("jwt", &claims).unwrap().expose().clone();
        let response = bed.exchange(&assertion, &[]).await;
        let grant = json_of(&response);
        assert_eq!(response.status, StatusCode::OK, "{grant}");
        assert_eq!(header_of(&response, "content-type"), "application/json");
        for member in ["access_token", "issued_token_type", "token_type", "expires_in", "scope"] {
            assert!(grant.get(member).is_some(), "{member}");
        }
        assert!(grant.get("refresh_token").is_none());
        let claims = claims_of(grant["access_token"].as_str().unwrap());
        for name in ["iss", "sub", "aud", "client_id", "jti"] {
            assert!(claims[name].as_str().is_some_and(|text| !text.is_empty()), "{name}: {claims}");
        }
        for name in ["iat", "exp"] {
            assert!(claims[name].is_i64(), "{name}: {claims}");
        }
        assert_eq!(claims["sub"], format!("{CORP}#alice"));
        // Where nobody says which client it is, the issuer's table has a name.
        let client = if changes.get("azp").is_some() { "corp" } else { "cli" };
        assert_eq!(claims["client_id"], client);
    }
}
