//! What a route wants of the tokens that pass, and until when one does.

use super::*;
use crate::broker::config::TokenFormat;
use crate::broker::testbed::Standing;

/// Asks about what this route is for, with this token.
async fn at(bed: &Bed, route: &str, token: &str) -> Response {
    let authorization = format!("Bearer {token}");
    let lines = of_nginx(&[("authorization", &authorization)]);
    ask(bed, Method::GET, &format!("/v1/authz/{route}"), &lines).await
}

#[tokio::test]
async fn all_scopes_of_a_route_are_wanted() {
    let bed = Bed::with(|options| {
        authz(Proxy::Nginx, options);
        let both = Route { scopes: set("deploy:write deploy:read"), ..route(ORIGIN) };
        options.config.authz.as_mut().unwrap().route.insert("both".into(), both);
    })
    .await;
    for scope in ["deploy:read", "deploy:write"] {
        let token = bed.issued(json!({}), &[("scope", scope)]).await;
        let refused = at(&bed, "both", &token).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{scope}");
        assert_eq!(
            header_of(&refused, "www-authenticate"),
            "Bearer error=\"insufficient_scope\", scope=\"deploy:read deploy:write\""
        );
    }
    let token = bed.issued(json!({}), &[]).await;
    assert_eq!(at(&bed, "both", &token).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_route_that_names_no_roles_is_for_all_of_them_and_one_that_does_for_those() {
    let bed = Bed::with(|options| {
        authz(Proxy::Nginx, options);
        options.config.role.insert("other".into(), options.config.role["deploy"].clone());
        options.policies += r#"
@id("others") @ttl("15m") @scope("deploy:read")
permit (principal, action == Action::"issue", resource == Role::"other");
"#;
        let anyone = Route { roles: set(""), ..route(ORIGIN) };
        let two = Route { roles: set("deploy other"), ..route(ORIGIN) };
        let routes = &mut options.config.authz.as_mut().unwrap().route;
        routes.extend([("anyone".into(), anyone), ("two".into(), two)]);
    })
    .await;
    let deploy = bed.issued(json!({}), &[]).await;
    let other = bed.issued(json!({}), &[("role", "other")]).await;
    for route in ["anyone", "two"] {
        for token in [&deploy, &other] {
            assert_eq!(at(&bed, route, token).await.status, StatusCode::OK, "{route}");
        }
    }
    assert_eq!(at(&bed, "api", &deploy).await.status, StatusCode::OK);
    assert_eq!(at(&bed, "api", &other).await.status, StatusCode::FORBIDDEN);
}

/// To a minute after that others may take it still; who passes here passes now.
#[tokio::test]
async fn a_token_lets_pass_until_it_expires_and_not_a_second_longer() {
    for format in [TokenFormat::Jwt, TokenFormat::Opaque] {
        let clock = Arc::new(Standing::default());
        let begin = clock.seconds();
        let bed = Bed::with(|options| {
            authz(Proxy::Nginx, options);
            options.config.role.get_mut("deploy").unwrap().token_format = format;
            options.clock = clock.clone();
        })
        .await;
        let token = bed.issued(json!({}), &[("requested_ttl", "600")]).await;
        for (after, passes) in
            [(0, true), (590, true), (599, true), (600, false), (630, false), (700, false)]
        {
            clock.set(begin + after);
            let response = with_bearer(&bed, &token).await;
            if passes {
                assert_eq!(response.status, StatusCode::OK, "{format:?} {after}");
                continue;
            }
            let said = challenge(&response);
            assert!(said.contains("invalid_token"), "{format:?} {after}: {said}");
        }
    }
}
