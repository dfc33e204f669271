//! What proves who is calling, and what does not.

use crate::broker::config::RequiredClaim;
use crate::broker::testbed::{Bed, CORP, header, json_of, now, set};
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
#[tokio::test]
async fn tokens_that_prove_nothing_are_refused_and_leave_no_record() {
    let bed = Bed::new().await;
    let past = now().unix_timestamp() - 3600;
    let mut cases: Vec<(String, &str)> = [
        (json!({"aud": "https://other.example"}), "it is for 'https://other.example'"),
        (json!({"aud": ["https://other.example", "x"]}), "not for 'https://broker.example.com'"),
        (json!({"aud": []}), "for nobody"),
        (json!({"aud": ""}), "for nobody"),
        (json!({"aud": null}), "for nobody"),
        (json!({"aud": {"a": "https://broker.example.com"}}), "for nobody"),
        (
            json!({"iss": "https://evil.example"}),
            "the issuer 'https://evil.example' is not accepted",
        ),
        (json!({"iss": "https://login.example.com/"}), "is not accepted"),
        (json!({"iss": "https://LOGIN.example.com"}), "is not accepted"),
        (json!({"iss": null}), "the issuer '' is not accepted"),
        (json!({"iss": ["https://login.example.com"]}), "is not accepted"),
        (json!({"exp": past}), "expired"),
        (json!({"exp": null}), "no expiry"),
        (json!({"nbf": past + 7200}), "in the future"),
        (json!({"sub": null}), "no subject"),
        (json!({"cnf": {"jkt": "x"}}), "bound to something"),
        (json!({"act": {"email": "eve@example.com"}}), "does not say who"),
        (
            json!({"events": {"http://schemas.openid.net/event/backchannel-logout": {}}}),
            "tells of an event",
        ),
        (json!({"groups": {"admin": true}}), "not a list of groups"),
    ]
    .into_iter()
    .map(|(claims, says)| (bed.key.token(claims), says))
    .collect();

    let b64 = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = b64(&bed.key.claims(json!({})));
    for alg in ["none", "NONE", "HS256", "ES384"] {
        let head = b64(&json!({"alg": alg, "kid": bed.key.0.kid()}));
        cases.push((format!("{head}.{claims}.AAAA"), "is not acceptable"));
    }
    // The public key, as everybody can have it, as a shared secret.
    let jwks = bed.key.jwks().to_string();
    let secret = jsonwebtoken::EncodingKey::from_secret(jwks.as_bytes());
    let hs256 = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    let forged = jsonwebtoken::encode(&hs256, &bed.key.claims(json!({})), &secret).unwrap();
    cases.push((forged, "its algorithm is 'HS256'"));
    // Keys that the token brings or points to, and key ids that mean something else.
    let mut own = header();
    own.jku = Some("https://evil.example/jwks".into());
    own.x5u = Some("https://evil.example/x5u".into());
    own.jwk = Some(bed.key.0.public().clone());
    cases.push((bed.key.token_with_header(&own, json!({})), "signature"));
    for kid in [None, Some(bed.key.0.kid().to_string())] {
        cases.push((bed.key.token_with_own_key(kid, json!({})), "signature"));
    }
    for kid in ["../../etc/passwd", "' or 1=1 --", "\u{0}", &"k".repeat(5000)] {
        let mut other = header();
        other.kid = Some(kid.into());
        cases.push((bed.key.token_with_header(&other, json!({})), "has no key"));
    }
    let mut critical = header();
    critical.extras.insert("crit", json!(["exp"]));
    cases.push((bed.key.token_with_header(&critical, json!({})), "critical"));
    let mut logout = header();
    logout.typ = Some("logout+jwt".into());
    cases.push((bed.key.token_with_header(&logout, json!({})), "another type"));
    // A good token whose signature is somebody else's, cut off, or gone.
    let good = bed.key.token(json!({}));
    let unsigned = good.rsplit_once('.').unwrap().0;
    let foreign = bed.key.token(json!({"sub": "bob"}));
    cases.push((format!("{unsigned}."), "is not acceptable"));
    cases.push((good[..good.len() - 2].to_string(), "is not acceptable"));
    cases.push((format!("{unsigned}.{}", foreign.rsplit_once('.').unwrap().1), "signature"));
    for garbage in ["x", "a.b.c", "a.b.c.d.e", &"a.".repeat(5000)] {
        cases.push((garbage.to_string(), "not a signed JWT"));
    }
    let deep = URL_SAFE_NO_PAD.encode(format!("{{\"iss\":{}", "[".repeat(20_000)));
    cases.push((format!("{deep}.{deep}.x"), "not a signed JWT"));

    for (token, says) in &cases {
        let refusal = bed.refused(token, &[]).await;
        assert_eq!(refusal["error"], "invalid_request", "{refusal}");
        let description = refusal["error_description"].as_str().unwrap();
        assert!(description.contains(says), "{says}: {description}");
        assert!(token.len() < 20 || !description.contains(&token[..20]), "{description}");
    }
    assert_eq!(bed.records(0, 9).await, [], "strangers leave no rows");
    assert_eq!(bed.exchange(&good, &[]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_kind_of_token_must_be_what_is_said() {
    let bed = Bed::new().await;
    let urn = |kind: &str| format!("urn:ietf:params:oauth:token-type:{kind}");
    let access = bed.key.0.sign("at+jwt", &bed.key.claims(json!({}))).unwrap().expose().clone();
    let ask = async |token: &str, kind: &str| {
        bed.exchange(token, &[("subject_token_type", &urn(kind))]).await.status.as_u16()
    };
    assert_eq!(ask(&access, "access_token").await, 200);
    assert_eq!(ask(&access, "jwt").await, 200);
    assert_eq!(ask(&access, "id_token").await, 400);
    assert_eq!(ask(&bed.key.token(json!({"azp": null})), "id_token").await, 200);
    for unknown in ["saml2", "refresh_token", "saml1"] {
        assert_eq!(ask(&access, unknown).await, 400);
    }
}

#[tokio::test]
async fn an_id_token_is_shown_by_whom_it_was_issued_to() {
    let id_token = "urn:ietf:params:oauth:token-type:id_token";
    let bed = Bed::new().await;
    let of_two = |azp: Value| json!({"aud": ["https://broker.example.com", "https://other.example"], "azp": azp});
    let ask = async |claims: Value, kind: &str| {
        let token = bed.key.token(claims);
        bed.exchange(&token, &[("subject_token_type", kind)]).await.status.as_u16()
    };
    assert_eq!(ask(of_two(json!("https://broker.example.com")), id_token).await, 200);
    for foreign in [json!("https://other.example"), json!("cli"), json!(""), json!(["cli"])] {
        assert_eq!(ask(of_two(foreign.clone()), id_token).await, 400, "{foreign}");
        // It is no other token for being called one.
        for (name, value) in
            [("at_hash", "x"), ("c_hash", "x"), ("s_hash", "x"), ("nonce", "x"), ("typ", "ID")]
        {
            let mut called_jwt = of_two(foreign.clone());
            called_jwt[name] = json!(value);
            let jwt = "urn:ietf:params:oauth:token-type:jwt";
            assert_eq!(ask(called_jwt, jwt).await, 400, "{name}");
        }
    }
    // Nor is an access token one that says so, whatever it has besides.
    let mut bearer = of_two(json!("cli"));
    (bearer["typ"], bearer["nonce"]) = (json!("Bearer"), json!("x"));
    assert_eq!(ask(bearer, "urn:ietf:params:oauth:token-type:access_token").await, 200);
    // The client of an access token is no audience.
    assert_eq!(ask(of_two(json!("cli")), "urn:ietf:params:oauth:token-type:jwt").await, 200);

    // A list of clients says it better.
    let bed = Bed::with(|options| {
        let corp = options.config.trusted_issuer.get_mut("corp").unwrap();
        corp.clients = Some(set("cli"));
    })
    .await;
    let token = bed.key.token(of_two(json!("cli")));
    let response = bed.exchange(&token, &[("subject_token_type", id_token)]).await;
    assert_eq!(response.status, StatusCode::OK);
}

#[tokio::test]
async fn required_claims_and_clients_are_checked() {
    let bed = Bed::with(|options| {
        let corp = options.config.trusted_issuer.get_mut("corp").unwrap();
        corp.clients = Some(set("cli"));
        corp.required_claims = [
            ("hd".to_string(), RequiredClaim::Text("example.com".into())),
            ("amr".to_string(), RequiredClaim::AnyOf(set("mfa hwk"))),
            ("email_verified".to_string(), RequiredClaim::Flag(true)),
            ("ref".to_string(), toml::from_str("matches = 'refs/heads/(main|v[0-9]+)'").unwrap()),
        ]
        .into();
    })
    .await;
    let good = json!({
        "hd": "example.com", "amr": ["pwd", "mfa"], "email_verified": true, "ref": "refs/heads/v12",
    });
    assert_eq!(bed.exchange(&bed.key.token(good.clone()), &[]).await.status, StatusCode::OK);
    for (name, value) in [
        ("hd", json!("example.com.evil")),
        ("hd", json!("xexample.com")),
        ("hd", json!("Example.com")),
        ("hd", json!(null)),
        ("amr", json!(["pwd"])),
        ("amr", json!("mfax")),
        ("email_verified", json!("true")),
        ("email_verified", json!(false)),
        ("ref", json!("refs/heads/v12-of-a-stranger")),
        ("ref", json!("xrefs/heads/main")),
        ("ref", json!("refs/heads/main\n")),
        ("ref", json!({"refs/heads/main": true})),
        ("ref", json!(null)),
        ("azp", json!("other")),
        ("azp", json!(null)),
    ] {
        let mut bad = good.clone();
        bad[name] = value.clone();
        let refusal = bed.refused(&bed.key.token(bad), &[]).await;
        assert_eq!(refusal["error"], "invalid_request", "{name}={value}: {refusal}");
    }
}

#[tokio::test]
async fn policies_decide_by_claims_as_they_are_mapped() {
    let bed = Bed::with(|options| {
        let corp = options.config.trusted_issuer.get_mut("corp").unwrap();
        let release = "from = 'ref'\nmatches = 'refs/heads/release/([0-9]+)'";
        corp.claims = [("release".to_string(), toml::from_str(release).unwrap())].into();
        options.policies = format!(
            "@id(\"r\") @ttl(\"5m\") permit (principal, action == Action::\"issue\", resource) when {{
                 principal.issuer == \"{CORP}\" && principal.hasTag(\"release\") &&
                 principal.getTag(\"release\").contains(\"7\")
             }};"
        );
    })
    .await;
    let status = async |claims: Value| bed.exchange(&bed.key.token(claims), &[]).await.status;
    assert_eq!(status(json!({"ref": "refs/heads/release/7"})).await, StatusCode::OK);
    for other in [
        json!({"ref": "refs/heads/release/8"}),
        json!({"ref": "refs/heads/release/7/x"}),
        json!({"ref": "refs/heads/x", "release": "7"}),
        json!({"release": ["7"]}),
    ] {
        assert_ne!(status(other.clone()).await, StatusCode::OK, "{other}");
    }
}

#[tokio::test]
async fn what_is_forbidden_to_a_group_is_not_escaped_by_a_token_without_groups() {
    let open = |options: &mut crate::broker::testbed::Options| {
        options.policies = format!(
            "@id(\"all\") @ttl(\"5m\") permit (principal, action == Action::\"issue\", resource) \
             when {{ principal.issuer == \"{CORP}\" }};"
        );
    };
    let bed = Bed::with(|options| {
        open(options);
        options.policies += &format!(
            "@id(\"f\") forbid (principal in Group::\"{CORP}#leavers\", action, resource);"
        );
    })
    .await;
    let ask = async |bed: &Bed, claims: Value| {
        let response = bed.exchange(&bed.key.token(claims), &[]).await;
        json_of(&response)["error_description"].as_str().unwrap_or_default().to_string()
    };
    assert!(ask(&bed, json!({"groups": ["leavers"]})).await.contains("a policy forbids"));
    assert!(ask(&bed, json!({"groups": null})).await.contains("no claim 'groups'"));
    assert!(
        ask(&bed, json!({"hasgroups": true, "groups": null})).await.contains("not in the token")
    );
    assert_eq!(ask(&bed, json!({"groups": []})).await, "");

    let bed = Bed::with(open).await;
    assert_eq!(ask(&bed, json!({"groups": null})).await, "", "nothing is forbidden to a group");
    let required = |options: &mut crate::broker::testbed::Options| {
        open(options);
        options.config.trusted_issuer.get_mut("corp").unwrap().groups_required = true;
    };
    let bed = Bed::with(required).await;
    assert!(ask(&bed, json!({"groups": null})).await.contains("no claim 'groups'"));
}

#[tokio::test]
async fn what_is_forbidden_by_a_claim_is_not_escaped_by_one_that_policy_cannot_see() {
    let bed = Bed::with(|options| {
        options.policies += "@id(\"f\") forbid (principal, action, resource) when { \
             principal.hasTag(\"/a/b/c/d/e\") || \
             principal.hasTag(\"flags\") && principal.getTag(\"flags\").contains(\"left\") };";
    })
    .await;
    for (claims, says) in [
        (json!({"flags": ["left"]}), "a policy forbids"),
        (json!({"flags": [["left"]]}), "cannot see all of its claim 'flags'"),
        (json!({"flags": [{"left": true}]}), "cannot see all of its claim 'flags'"),
        (
            json!({"a": {"b": {"c": {"d": {"e": {"f": 1}}}}}}),
            "cannot see all of its claim '/a/b/c/d",
        ),
        (json!({"/a/b/c/d/e": "x"}), "cannot see all of its claim '/a/b/c/d/e'"),
    ] {
        let refused = bed.refused(&bed.key.token(claims.clone()), &[]).await;
        let description = refused["error_description"].as_str().unwrap();
        assert!(description.contains(says), "{claims}: {description}");
    }
    let fine = bed.key.token(json!({"flags": ["right"]}));
    assert_eq!(bed.exchange(&fine, &[]).await.status, StatusCode::OK);
}
