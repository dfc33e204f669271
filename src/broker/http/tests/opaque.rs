//! Tokens that say nothing, wherever a token of the broker is looked at.

use axum::http::StatusCode;
use serde_json::json;
use time::Duration;

use super::authz::{authz, challenge, proof_of, proved, with_bearer};
use super::cutoff::{Place, active};
use super::dpop::{Device, bound};
use super::header_of;
use super::lineage::{Site, first};
use crate::broker::config::{Proxy, TokenFormat};
use crate::broker::store::Whose;
use crate::broker::store::sqlite::tests::tamper;
use crate::broker::testbed::{API, Bed, CORP, Options, claims_of, json_of, now};
use crate::host::files;
use crate::secret::Secret;

fn opaque(options: &mut Options) {
    let deploy = options.config.role.get_mut("deploy").unwrap();
    deploy.token_format = TokenFormat::Opaque;
}

#[tokio::test]
async fn an_opaque_token_says_nothing_is_introspected_and_rests_as_a_hash() {
    let place = Place::new(opaque).await;
    let bed = &place.bed;
    let response = bed.exchange(&bed.key.token(json!({})), &[("requested_ttl", "600")]).await;
    let grant = json_of(&response);
    let token = grant["access_token"].as_str().unwrap().to_string();
    assert_eq!(grant["revocation_reach"], "everywhere");
    assert!((590..=600).contains(&grant["expires_in"].as_u64().unwrap()), "{grant}");
    assert!(token.starts_with("tmpcred_o_") && token.len() > 50, "{}", token.len());
    let told = json_of(&bed.introspect(Some(&token), &token).await);
    assert_eq!((&told["active"], &told["role"]), (&json!(true), &json!("deploy")));
    assert_eq!(told["revocation_reach"], "everywhere");
    assert_eq!((&told["sub"], &told["aud"]), (&json!(format!("{CORP}#alice")), &json!(API)));
    let guessed = format!("{token}x");
    assert!(!active(bed, &guessed).await);
    for file in files::list(place.path.parent().unwrap()).unwrap() {
        let bytes = files::read(&file, 1 << 30).unwrap().unwrap();
        let found = bytes.windows(token.len()).any(|part| part == token.as_bytes());
        assert!(!found, "it is in the database");
    }
    let operator = place.operator().await;
    let jti = operator.id_of(&Secret::new(token.clone())).await.unwrap();
    assert_eq!(told["jti"], jti.to_string());
    // Which record it has is told by those who gave it, and by those who know it.
    let (sequence, record) = bed.records(0, 9).await.pop().unwrap();
    assert_eq!(record.jti, Some(jti));
    assert_eq!(
        (&grant["log_sequence"], &told["log_sequence"]),
        (&json!(sequence), &json!(sequence))
    );
    assert_eq!(bed.revoke(&token).await, 200);
    assert!(!active(bed, &token).await);
    // Nobody is asked for a JWT in vain; nor does it prove who somebody is.
    let jwt = crate::credential::TokenType::Jwt.urn();
    let refusal = bed.refused(&bed.key.token(json!({})), &[("requested_token_type", jwt)]).await;
    assert_eq!(refusal["error"], "access_denied");
    assert_eq!(refusal["error_description"], "tokens of the role 'deploy' are no JWTs");
    let (_, record) = bed.records(0, 9).await.pop().unwrap();
    assert_eq!(record.reason, "tokens of the role 'deploy' are no JWTs");
    bed.refused(&token, &[]).await;
}

#[tokio::test]
async fn who_may_not_have_a_role_is_not_told_whether_its_tokens_are_opaque() {
    let bed = Bed::with(|options| {
        let roles = &mut options.config.role;
        roles.insert("plain".into(), roles["deploy"].clone());
        roles.insert("kept".into(), roles["deploy"].clone());
        roles.get_mut("kept").unwrap().token_format = TokenFormat::Opaque;
        options.policies += &format!(
            r#"@id("carol") @ttl("15m") @scope("deploy:read") permit (principal == User::"{CORP}#carol", action == Action::"issue", resource);"#
        );
    })
    .await;
    let jwt = crate::credential::TokenType::Jwt.urn();
    let by = |subject: &str| bed.key.token(json!({"sub": subject}));
    let (own, carol, actor) = (by("alice"), by("carol"), by("bot"));
    // Nobody may act for who may have it.
    for (token, actor) in [("garbage", None), (&*own, None), (&*carol, Some(&*actor))] {
        let told = async |role: &str| {
            let mut asks = vec![("role", role), ("requested_token_type", jwt)];
            if let Some(actor) = actor {
                asks.extend([("actor_token", actor), ("actor_token_type", jwt)]);
            }
            let refusal = bed.refused(token, &asks).await;
            let said = refusal["error_description"].as_str().unwrap().replace(role, "ROLE");
            (refusal["error"].clone(), said)
        };
        assert_eq!(told("kept").await, told("plain").await, "{token}");
    }
    let asks = [("role", "kept"), ("requested_token_type", jwt)];
    let said = bed.refused(&carol, &asks).await["error_description"].to_string();
    assert!(said.contains("are no JWTs"), "{said}");
}

/// A permit of its own for this scope.
fn permit_for(scope: &str, obligations: &str) -> String {
    format!(
        r#"@id("{scope}") @ttl("1h") @scope("deploy:{scope}") @obligations("{obligations}")
        permit (principal, action == Action::"issue", resource == Role::"deploy")
        when {{ context.scope == ["deploy:{scope}"] }};"#
    )
}

#[tokio::test]
async fn a_permit_may_want_that_a_token_is_opaque_or_ends_with_the_one_that_was_shown() {
    let bed = Bed::with(|options| {
        options.config.role.get_mut("deploy").unwrap().scopes =
            ["opaque", "brief", "bound", "read"].map(|name| format!("deploy:{name}")).into();
        options.policies = permit_for("opaque", "opaque")
            + &permit_for("brief", "ends_with_token")
            + &permit_for("bound", "key_bound")
            + &permit_for("read", "opaque")
            // What cannot be as that one wants it counts as if it was not there.
            + &permit_for("read", "").replace("id(\"read", "id(\"plain").replace("1h", "9m");
    })
    .await;
    let soon = (now() + Duration::minutes(7)).unix_timestamp();
    let shown = bed.key.token(json!({"exp": soon}));
    let granted = async |scope: &str| {
        let response = bed.exchange(&shown, &[("scope", scope)]).await;
        assert_eq!(response.status, StatusCode::OK, "{}", json_of(&response));
        json_of(&response)
    };
    let opaque = granted("deploy:opaque").await;
    assert!(opaque["access_token"].as_str().unwrap().starts_with("tmpcred_o_"), "{opaque}");
    assert_eq!(opaque["revocation_reach"], "everywhere");
    assert!(opaque["expires_in"].as_u64().unwrap() > 3590, "{opaque}");
    let brief = granted("deploy:brief").await;
    assert_eq!(claims_of(brief["access_token"].as_str().unwrap())["exp"], soon);

    let jwt = crate::credential::TokenType::Jwt.urn();
    let asks = [("scope", "deploy:opaque"), ("requested_token_type", jwt)];
    let refusal = bed.refused(&shown, &asks).await;
    assert!(refusal["error_description"].as_str().unwrap().contains("no policy permits a JWT"));
    let asks = [("scope", "deploy:read"), ("requested_token_type", jwt)];
    let plain = json_of(&bed.exchange(&shown, &asks).await);
    assert_eq!(plain["expires_in"].as_u64().unwrap().div_ceil(60), 9, "{plain}");
    let claims = claims_of(plain["access_token"].as_str().unwrap());
    assert_eq!(claims["scope"], "deploy:read");
    assert!(
        granted("deploy:read").await["access_token"].as_str().unwrap().starts_with("tmpcred_o_")
    );
    let refusal = bed.refused(&shown, &[("scope", "deploy:bound")]).await;
    assert_eq!(refusal["error"], "invalid_dpop_proof", "{refusal}");
    let (_, record) = bed.records(0, 9).await.pop().unwrap();
    assert!(record.reason.contains("only to whoever proves a key"), "{}", record.reason);
}

#[tokio::test]
async fn a_proxy_lets_an_opaque_token_pass_until_it_is_revoked() {
    let place = Place::new(|options| {
        opaque(options);
        authz(Proxy::Nginx, options);
    })
    .await;
    let bed = &place.bed;
    let (one, other) = (bed.issued(json!({}), &[]).await, bed.issued(json!({}), &[]).await);
    let told = json_of(&bed.introspect(Some(&one), &one).await);
    let passed = with_bearer(bed, &one).await;
    assert_eq!(passed.status, StatusCode::OK);
    assert_eq!(header_of(&passed, "tmpcred-subject"), format!("{CORP}#alice"));
    assert_eq!(header_of(&passed, "tmpcred-jti"), told["jti"].as_str().unwrap());
    assert_eq!(bed.revoke(&one).await, 200);
    let said = challenge(&with_bearer(bed, &one).await);
    assert!(said.contains("it was revoked"), "{said}");
    assert_eq!(with_bearer(bed, &other).await.status, StatusCode::OK);
    let guessed = format!("{other}x");
    assert!(challenge(&with_bearer(bed, &guessed).await).contains("invalid_token"));
}

#[tokio::test]
async fn a_proxy_knows_what_was_revoked_together_at_once() {
    let place = Place::new(|options| authz(Proxy::Nginx, options)).await;
    let bed = &place.bed;
    let token = bed.issued(json!({}), &[]).await;
    assert_eq!(with_bearer(bed, &token).await.status, StatusCode::OK);
    place.revoke(Whose::Role("deploy".into())).await;
    let said = challenge(&with_bearer(bed, &token).await);
    assert!(said.contains("it was revoked"), "{said}");
}

#[tokio::test]
async fn an_opaque_token_may_be_bound_to_a_key() {
    let place = Place::new(|options| {
        opaque(options);
        authz(Proxy::Nginx, options);
    })
    .await;
    let (bed, device) = (&place.bed, Device::new());
    let token = bound(bed, &device, &[]).await;
    assert!(token.starts_with("tmpcred_o_"), "{}", token.len());
    let told = json_of(&bed.introspect(Some(&token), &token).await);
    assert_eq!((&told["active"], &told["token_type"]), (&json!(true), &json!("DPoP")));
    assert_eq!(told["cnf"]["jkt"], device.0.thumbprint());
    let proof = proof_of(&device, &token);
    assert_eq!(proved(bed, &token, &[&proof]).await.status, StatusCode::OK);
    for (what, response) in [
        ("the same proof again", proved(bed, &token, &[&proof]).await),
        ("by another key", proved(bed, &token, &[&proof_of(&Device::new(), &token)]).await),
        ("for another token", proved(bed, &token, &[&proof_of(&device, "other")]).await),
        ("without a proof", proved(bed, &token, &[]).await),
        ("as if it were not bound", with_bearer(bed, &token).await),
    ] {
        assert_eq!(response.status, StatusCode::UNAUTHORIZED, "{what}");
    }
    place.revoke(Whose::Everybodys).await;
    let said = challenge(&proved(bed, &token, &[&proof_of(&device, &token)]).await);
    assert!(said.contains("it was revoked"), "{said}");
}

#[tokio::test]
async fn what_a_database_says_of_an_opaque_token_counts_only_as_the_broker_wrote_it() {
    let place = Place::new(opaque).await;
    let bed = &place.bed;
    let (one, other) = (bed.issued(json!({}), &[]).await, bed.issued(json!({}), &[]).await);
    assert!(active(bed, &one).await && active(bed, &other).await);
    tamper(&place.path, "update opaque_token set claims = replace(claims, 'alice', 'admin')").await;
    assert!(!active(bed, &one).await && !active(bed, &other).await);
}

/// Where one of those that it came of ends, so does it.
#[tokio::test]
async fn an_opaque_token_ends_with_what_it_came_of_and_nothing_comes_of_it() {
    let site = Site::new();
    let bed = site
        .start_with(|options| {
            let again = options.config.role.get_mut("again").unwrap();
            again.token_format = TokenFormat::Opaque;
        })
        .await;
    let parent = first(&bed).await;
    let ask = [("role", "again"), ("audience", API)];
    let grant = json_of(&bed.exchange(&parent, &ask).await);
    let child = grant["access_token"].as_str().unwrap().to_string();
    assert!(active(&bed, &child).await);
    let refused = bed.refused(&child, &ask).await;
    assert_eq!(refused["error"], "invalid_request");
    let why = refused["error_description"].as_str().unwrap();
    assert!(why.contains("it is an opaque token"), "{why}");
    assert_eq!(bed.revoke(&parent).await, 200);
    assert!(!active(&bed, &child).await);
}
