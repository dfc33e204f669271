//! What tokens say besides: the claims of their role.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::authz::{authz, with_bearer};
use super::header_of;
use super::lineage::Site;
use crate::broker::audit::Decision;
use crate::broker::config::{MappedClaim, Proxy, TokenFormat};
use crate::broker::directory;
use crate::broker::testbed::{Bed, CORP, Options, Shifted, claims_of, json_of, now};
use crate::host::files;

/// Gives the role these claims.
fn says(options: &mut Options, claims: Value) {
    let deploy = options.config.role.get_mut("deploy").unwrap();
    deploy.claims = serde_json::from_value(claims).unwrap();
    deploy.claims.check().unwrap();
}

/// A broker whose role has these claims.
async fn bed(claims: Value) -> Bed {
    Bed::with(|options| says(options, claims)).await
}

fn groups() -> Value {
    json!({"groups": ["platform", "Domain Admins"], "team": "blue", "roles": ["a", "b"]})
}

#[tokio::test]
async fn a_token_says_what_its_role_wants_said_and_so_does_introspection() {
    let claims = json!({
        "groups": ["corp:{groups}", "everybody"], "team": "t-{claim:team}/{subject}",
        "of": "{issuer}", "all": ["{claims:roles}"], "none": ["{claims:absent}"],
        "https://hasura.io/jwt/claims": {"x-hasura-role": "{claim:team}", "of": ["{claims:roles}"]},
    });
    let expected = json!({
        "groups": ["corp:Domain Admins", "corp:platform", "everybody"], "team": "t-blue/alice",
        "of": CORP, "all": ["a", "b"], "none": [],
        "https://hasura.io/jwt/claims": {"x-hasura-role": "blue", "of": ["a", "b"]},
    });
    for format in [TokenFormat::Jwt, TokenFormat::Opaque] {
        let bed = Bed::with(|options| {
            says(options, claims.clone());
            options.config.role.get_mut("deploy").unwrap().token_format = format;
        })
        .await;
        let token = bed.issued(groups(), &[]).await;
        let mut tellings = vec![json_of(&bed.introspect(Some(&token), &token).await)];
        if format == TokenFormat::Jwt {
            tellings.push(claims_of(&token));
        }
        let (_, record) = bed.records(0, 9).await.pop().unwrap();
        let on_record: Value = serde_json::from_str(&record.claims.unwrap()).unwrap();
        assert_eq!(on_record, expected, "{format:?}");
        for told in tellings {
            for (name, value) in expected.as_object().unwrap() {
                assert_eq!(told[name], *value, "{format:?} {name}");
            }
            // Nothing of the broker's own is other than without them.
            assert_eq!(
                (&told["role"], &told["aud"]),
                (&json!("deploy"), &json!("https://api.example.com"))
            );
            assert_eq!(told["sub"], format!("{CORP}#alice"));
        }
    }
}

#[tokio::test]
async fn what_cannot_be_said_whole_is_not_said_and_that_is_on_record() {
    let bed = bed(json!({"team": "{claim:team}", "groups": ["{groups}"]})).await;
    let long: Vec<_> =
        (0..400).map(|n| format!("group-{n:04}")).chain(["platform".into()]).collect();
    for (claims, why) in [
        (json!({}), "needs the one value of the claim 'team'"),
        (json!({"team": ["a", "b"]}), "needs the one value of the claim 'team'"),
        (json!({"team": "blue", "groups": long}), "at most 4096 are possible"),
    ] {
        let refusal = bed.refused(&bed.key.token(claims), &[]).await;
        assert_eq!(refusal["error"], "access_denied", "{refusal}");
        let said = refusal["error_description"].as_str().unwrap();
        assert!(said.contains(why), "{said}");
        let (_, record) = bed.records(0, 99).await.pop().unwrap();
        assert_eq!(record.decision, Decision::Denied);
        assert!(
            record.reason.contains(why) && !record.reason.contains("alice"),
            "{}",
            record.reason
        );
    }
    bed.issued(json!({"team": "blue"}), &[]).await;
}

#[tokio::test]
async fn what_is_not_known_whole_is_not_told_as_if_it_was_nothing() {
    let roles = [
        ("groups", json!(["{groups}"])),
        ("each", json!(["{claims:reviewers}"])),
        ("deep", json!(["{claims:/a/b/c/d/e}"])),
        ("one", json!("{claim:reviewers}")),
        ("mapped", json!(["{claims:of-lists}"])),
    ];
    let bed = Bed::with(|options| {
        let corp = options.config.trusted_issuer.get_mut("corp").unwrap();
        let lists = MappedClaim { from: "/lists/reviewers".into(), matches: None };
        corp.claims.insert("of-lists".into(), lists);
        for (name, said) in &roles {
            let mut role = options.config.role["deploy"].clone();
            role.claims = serde_json::from_value(json!({ "x": said })).unwrap();
            options.config.role.insert(name.to_string(), role);
            options.policies += &format!(
                "\n@id(\"{name}\") @ttl(\"5m\")\npermit (principal, action == Action::\"issue\", \
                 resource == Role::\"{name}\") when {{ principal.issuer == \"{CORP}\" }};\n"
            );
        }
    })
    .await;
    let elsewhere = json!({"_claim_names": {"reviewers": "src1", "a": "src1"}});
    let odd = json!({"reviewers": ["a", {"b": "c"}], "a": {"b": {"c": {"d": {"e": {"f": "g"}}}}}});
    for (claims, role) in [
        (json!({"groups": null}), "groups"),
        (elsewhere.clone(), "each"),
        (elsewhere.clone(), "deep"),
        (elsewhere, "one"),
        (odd.clone(), "each"),
        (odd.clone(), "deep"),
        (odd, "one"),
        (json!({"reviewers": {"a": "b"}}), "each"),
        (json!({"lists": {"reviewers": ["a", {}]}}), "mapped"),
        (json!({"_claim_names": {"lists": "src1"}}), "mapped"),
        (json!({}), "one"),
    ] {
        let refusal = bed.refused(&bed.key.token(claims.clone()), &[("role", role)]).await;
        let said = refusal["error_description"].as_str().unwrap();
        assert!(said.contains("the claim 'x' needs the"), "{role} {claims}: {said}");
    }
    // What is called as the one that is made of another does not count.
    let lists = json!({"reviewers": ["b"]});
    let said =
        json!({"groups": [], "reviewers": "a", "a": 1, "lists": lists, "of-lists": [{"c": 1}]});
    for (role, expected) in [
        ("groups", json!([])),
        ("each", json!(["a"])),
        ("deep", json!([])),
        ("one", json!("a")),
        ("mapped", json!(["b"])),
    ] {
        let token = bed.issued(said.clone(), &[("role", role)]).await;
        assert_eq!(claims_of(&token)["x"], expected, "{role}");
    }
}

#[tokio::test]
async fn who_exchanges_a_token_passes_on_what_it_says() {
    let site = Site::new();
    let bed = site
        .start_with(|options| {
            says(options, json!({"groups": ["corp:{groups}"]}));
            let again = options.config.role.get_mut("again").unwrap();
            again.claims =
                serde_json::from_value(json!({"passed": ["{claims:groups}"], "own": ["{groups}"]}))
                    .unwrap();
        })
        .await;
    let own = bed.issuer.as_str();
    let first = bed.issued(json!({}), &[("audience", own)]).await;
    let response = bed.exchange(&first, &[("role", "again")]).await;
    let grant = json_of(&response);
    let second = claims_of(grant["access_token"].as_str().unwrap_or_else(|| panic!("{grant}")));
    assert_eq!(second["passed"], json!(["corp:platform"]));
    // What a token of the broker lists are groups of the broker's: nobody takes them for others.
    assert_eq!(second["own"], json!(["corp:platform"]));
    assert_eq!(second["groups"], Value::Null);
}

#[tokio::test]
async fn the_directory_says_who_somebody_is_as_long_as_it_is_fresh() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("people.toml");
    let as_of = now().replace_nanosecond(0).unwrap();
    let as_of = as_of.format(&time::format_description::well_known::Rfc3339).unwrap();
    let people = format!(
        "as_of = \"{as_of}\"\n[group.on-call]\n[group.staff]\n[person.a-smith]\n\
         ids = [{{ issuer = \"{CORP}\", subject = \"alice\" }}]\ngroups = [\"on-call\", \"staff\"]\n"
    );
    files::write_private(&file, people.as_bytes()).unwrap();
    let clock = Arc::new(Shifted::default());
    let bed = Bed::with(|options| {
        let max_age = Some(Duration::from_secs(3600));
        options.config.directory = Some(directory::Settings { file, max_age });
        says(options, json!({"groups": ["{directory_groups}"]}));
        let mut named = options.config.role["deploy"].clone();
        named.claims = serde_json::from_value(json!({"preferred_username": "{person}"})).unwrap();
        options.config.role.insert("named".into(), named);
        options.policies += &format!(
            "\n@id(\"named\") @ttl(\"5m\")\npermit (principal in Group::\"{CORP}#platform\", \
             action == Action::\"issue\", resource == Role::\"named\");\n"
        );
        options.clock = clock.clone();
    })
    .await;
    let said = claims_of(&bed.issued(json!({}), &[]).await);
    assert_eq!(said["groups"], json!(["on-call", "staff"]));
    let named = [("role", "named")];
    let said = claims_of(&bed.issued(json!({}), &named).await);
    assert_eq!(said["preferred_username"], "a-smith");
    // Whoever is not in it is in none of its groups, and has no name there.
    let stranger = json!({"sub": "bob"});
    assert_eq!(claims_of(&bed.issued(stranger.clone(), &[]).await)["groups"], json!([]));
    let refusal = bed.refused(&bed.key.token(stranger), &named).await;
    let said = refusal["error_description"].as_str().unwrap();
    assert!(said.contains("who is not in it"), "{said}");

    clock.0.store(3700, Ordering::Relaxed);
    let at = now().unix_timestamp() + 3700;
    let later = bed.key.token(json!({"iat": at, "exp": at + 300}));
    for role in ["deploy", "named"] {
        let refusal = bed.refused(&later, &[("role", role)]).await;
        let said = refusal["error_description"].as_str().unwrap();
        assert!(said.contains("directory of people, which is out of date"), "{said}");
    }
}

#[tokio::test]
async fn a_proxy_is_told_in_headers_what_the_token_says() {
    let bed = Bed::with(|options| {
        authz(Proxy::Nginx, options);
        says(
            options,
            json!({"groups": ["{groups}"], "mail": "{claim:team}", "x": {"y": ["{claims:roles}"]}}),
        );
        let route = options.config.authz.as_mut().unwrap().route.get_mut("api").unwrap();
        route.headers =
            [("Tmpcred-Groups", "groups"), ("Tmpcred-Mail", "mail"), ("Tmpcred-Y", "/x/y")]
                .map(|(header, claim)| (header.to_string(), claim.to_string()))
                .into();
        options.config.check().unwrap();
    })
    .await;
    let token = bed.issued(groups(), &[]).await;
    let told = with_bearer(&bed, &token).await;
    assert_eq!(told.status.as_u16(), 200);
    assert_eq!(header_of(&told, "tmpcred-groups"), "Domain Admins,platform");
    assert_eq!(header_of(&told, "tmpcred-mail"), "blue");
    assert_eq!(header_of(&told, "tmpcred-y"), "a,b");
    assert_eq!(header_of(&told, "tmpcred-role"), "deploy");
    // A list of none is empty, and there all the same: a caller might have sent one.
    let token = bed.issued(json!({"team": "blue"}), &[]).await;
    let told = with_bearer(&bed, &token).await;
    assert_eq!(told.headers.get("tmpcred-y").unwrap(), "");
    // What would be taken for something else is refused.
    for odd in [
        json!({"team": "bl\u{fc}"}),
        json!({"team": " x"}),
        json!({"team": ""}),
        json!({"team": "a\r\nTmpcred-Role: root"}),
        json!({"team": "x", "roles": ["a,b"]}),
        json!({"team": "x", "roles": [" a"]}),
        json!({"team": "x", "roles": [""]}),
        json!({"team": "x", "roles": ["a\u{1}"]}),
    ] {
        let token = bed.issued(odd.clone(), &[]).await;
        assert_eq!(with_bearer(&bed, &token).await.status.as_u16(), 403, "{odd}");
    }
}
