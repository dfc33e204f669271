//! Tests of what all ways out share.

use time::macros::datetime;

use super::*;
use crate::credential::{Lifetime, Principal};

/// A bearer credential with this token.
pub(super) fn bearer(token: &str) -> Credential {
    let issued_at = datetime!(2026-01-01 12:00 UTC);
    Credential {
        material: Material::Bearer { token: Secret::new(token.into()) },
        role: "deploy".into(),
        scope: vec![],
        principal: Principal { issuer: "https://issuer.example".into(), subject: "alice".into() },
        lifetime: Lifetime::new(
            issued_at,
            issued_at + time::Duration::minutes(15),
            None,
            issued_at,
        ),
    }
}

/// A credential for AWS whose parts are canaries.
pub(super) fn aws(region: Option<&str>) -> Credential {
    Credential {
        material: Material::Aws {
            access_key_id: Secret::new("canary-id".into()),
            secret_access_key: Secret::new("canary-key".into()),
            session_token: Secret::new("canary-token".into()),
            region: region.map(String::from),
        },
        ..bearer("")
    }
}

fn handout<'a>(
    credential: &'a Credential,
    env: &'a BTreeMap<String, String>,
    environment: &'a Env,
) -> Handout<'a> {
    Handout { credential, profile: "prod", env, environment, outlet: None }
}

fn shown(variables: &[Variable]) -> Vec<(&str, &str)> {
    variables.iter().map(|v| (v.name.as_str(), v.value.expose().as_str())).collect()
}

fn mapping(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, template)| (name.to_string(), template.to_string())).collect()
}

#[test]
fn labels_come_first_then_secrets_then_the_profiles_own() {
    let (credential, environment) = (bearer("t0ken"), Env::default());
    let env = mapping(&[("B", "Bearer {token}"), ("A", "{profile}/{role} until {expires_at}")]);
    let variables = handout(&credential, &env, &environment).variables().unwrap();
    assert_eq!(
        shown(&variables),
        [
            ("TMPCRED_ACTIVE_PROFILE", "prod"),
            ("TMPCRED_ROLE", "deploy"),
            ("TMPCRED_EXPIRES_AT", "2026-01-01T12:15:00Z"),
            ("TMPCRED_TOKEN", "t0ken"),
            ("A", "prod/deploy until 2026-01-01T12:15:00Z"),
            ("B", "Bearer t0ken"),
            ("TMPCRED_MAPPED", "A B"),
        ]
    );
    assert!(!format!("{variables:?}").contains("t0ken"));
}

#[test]
fn the_expiry_is_told_by_this_machines_clock_in_whole_seconds_of_utc() {
    let (mut credential, env, environment) = (bearer("t"), BTreeMap::new(), Env::default());
    credential.lifetime.expires_at = datetime!(2026-07-01 12:00:00.987 +2);
    credential.lifetime.skew_seconds = 600;
    let variables = handout(&credential, &env, &environment).variables().unwrap();
    assert_eq!(shown(&variables)[2], (EXPIRES_AT, "2026-07-01T09:50:00Z"));
}

#[test]
fn the_profile_has_the_last_word_and_nothing_is_there_twice() {
    let (credential, environment) = (bearer("t"), Env::default());
    let env = mapping(&[("TMPCRED_ROLE", "other"), ("TMPCRED_TOKEN", "token={token}")]);
    let variables = handout(&credential, &env, &environment).variables().unwrap();
    let variables = shown(&variables);
    assert_eq!(variables.len(), 5);
    assert_eq!(variables[1], (ROLE, "other"));
    assert_eq!(variables[3], (TOKEN, "token=t"));
}

#[test]
fn names_and_values_that_no_environment_holds_are_refused() {
    let environment = Env::default();
    for (name, token) in [("", "t"), ("A=B", "t"), ("A\0", "t"), ("A", "canary\0")] {
        let (credential, env) = (bearer(token), mapping(&[(name, "{token}")]));
        let error = handout(&credential, &env, &environment).variables().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!format!("{error:?}").contains("canary"));
    }
}

#[test]
fn nothing_is_both_set_and_removed() {
    let (credential, environment) = (bearer("t"), Env::default());
    for env in [mapping(&[]), mapping(&[("TMPCRED_TOKEN", "x"), ("MINE", "y")])] {
        let handout = handout(&credential, &env, &environment);
        let variables = handout.variables().unwrap();
        for name in &handout.stale().unwrap() {
            assert!(variables.iter().all(|variable| variable.name != *name), "{name}");
        }
        // Whatever another run may have left is either set anew or removed.
        for name in [ACTIVE_PROFILE, ROLE, EXPIRES_AT, TOKEN] {
            let set = variables.iter().any(|variable| variable.name == name);
            assert!(set || handout.stale().unwrap().contains(&name.to_string()), "{name}");
        }
    }
}

#[test]
fn aws_gets_its_own_variables_and_what_would_contradict_them_goes() {
    let env = BTreeMap::new();
    let environment = Env::from_pairs([("AWS_PROFILE", "x"), ("AWS_REGION", "mine")]);
    let credential = aws(None);
    let variables = handout(&credential, &env, &environment).variables().unwrap();
    let names: Vec<_> = shown(&variables).into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names[3..],
        [
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AWS_CREDENTIAL_EXPIRATION",
            MAPPED
        ]
    );
    assert_eq!(shown(&variables)[6], ("AWS_CREDENTIAL_EXPIRATION", "2026-01-01T12:15:00Z"));
    let stale = handout(&credential, &env, &environment).stale().unwrap();
    for name in
        ["AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SECURITY_TOKEN", "AWS_CREDENTIAL_FILE", TOKEN]
    {
        assert!(stale.contains(&name.to_string()), "{name}");
    }
    // A region of the person's own stays where the target has none.
    for name in ["AWS_REGION", "AWS_SESSION_TOKEN", MAPPED] {
        assert!(!stale.contains(&name.to_string()), "{name}");
    }
    let credential = aws(Some("eu-central-1"));
    let variables = handout(&credential, &env, &environment).variables().unwrap();
    assert_eq!(
        shown(&variables)[7..9].to_vec(),
        [("AWS_REGION", "eu-central-1"), ("AWS_DEFAULT_REGION", "eu-central-1"),]
    );
}

#[test]
fn a_run_within_a_run_for_aws_hands_out_nothing_of_the_outer_one() {
    let env = BTreeMap::new();
    let outer = aws(Some("eu-central-1"));
    let nothing = Env::default();
    let outer = handout(&outer, &env, &nothing).variables().unwrap();
    let environment = Env::from_pairs(shown(&outer));
    let (token, keys) = (bearer("t"), aws(None));
    let stale = handout(&token, &env, &environment).stale().unwrap();
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION"] {
        assert!(stale.contains(&name.to_string()), "{name}");
    }
    let stale = handout(&keys, &env, &environment).stale().unwrap();
    assert!(stale.contains(&"AWS_DEFAULT_REGION".to_string()));
    assert!(!stale.contains(&"AWS_SESSION_TOKEN".to_string()));
}

#[test]
fn what_an_outer_profile_mapped_is_removed() {
    let (credential, env) = (bearer("t"), mapping(&[("MINE", "y")]));
    let environment = Env::from_pairs([(MAPPED, "THEIRS MINE a=b 1x $(x)"), ("THEIRS", "secret")]);
    let handout = handout(&credential, &env, &environment);
    let stale = handout.stale().unwrap();
    assert!(stale.contains(&"THEIRS".to_string()));
    assert!(
        stale.iter().all(|name| !["MINE", "a=b", "1x", "$(x)", MAPPED].contains(&name.as_str()))
    );
    let variables = handout.variables().unwrap();
    let mapped = variables.iter().find(|variable| variable.name == MAPPED).unwrap();
    assert_eq!(mapped.value.expose(), "MINE");
}

#[test]
fn an_outcome_has_the_exit_code_that_shells_give_it() {
    assert_eq!(Outcome::Exited(7).exit_code(), 7);
    assert_eq!(Outcome::Signalled(15).exit_code(), 143);
    assert_eq!(Outcome::Signalled(64).exit_code(), 192);
    assert_eq!(Outcome::Signalled(200).exit_code(), 255);
}

#[test]
fn what_is_renewed_is_behind_an_endpoint_and_nothing_else_tells_of_it() {
    let (credential, env) = (aws(Some("eu-central-1")), mapping(&[]));
    let environment = Env::from_pairs([("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "outer")]);
    let outlet = Outlet::Endpoint {
        url: "http://127.0.0.1:1/credentials".into(),
        token: Secret::new("canary-of-the-endpoint".into()),
        files: vec![(CONFIG, "/run/config".into()), (BOTO, "/run/boto".into())],
    };
    let handout = Handout { outlet: Some(&outlet), ..handout(&credential, &env, &environment) };
    let variables = handout.variables().unwrap();
    assert_eq!(
        shown(&variables),
        [
            ("TMPCRED_ACTIVE_PROFILE", "prod"),
            ("TMPCRED_ROLE", "deploy"),
            ("AWS_REGION", "eu-central-1"),
            ("AWS_DEFAULT_REGION", "eu-central-1"),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/credentials"),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "canary-of-the-endpoint"),
            ("AWS_CONFIG_FILE", "/run/config"),
            ("BOTO_CONFIG", "/run/boto"),
            (
                "TMPCRED_MAPPED",
                "AWS_CONTAINER_AUTHORIZATION_TOKEN AWS_CONTAINER_CREDENTIALS_FULL_URI \
                 AWS_DEFAULT_REGION AWS_REGION"
            ),
        ]
    );
    let stale = handout.stale().unwrap();
    for name in ["AWS_ACCESS_KEY_ID", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", EXPIRES_AT] {
        assert!(stale.contains(&name.to_string()), "{name}");
    }
    let secrets = handout.secrets().unwrap();
    assert!(secrets.iter().any(|secret| secret.expose() == "canary-of-the-endpoint"));
    assert!(!format!("{handout:?}").contains("canary"));
}

#[test]
fn a_token_that_is_renewed_is_in_a_file_that_a_profile_can_map() {
    let (credential, environment) = (bearer("t0ken"), Env::default());
    let env = mapping(&[("AWS_WEB_IDENTITY_TOKEN_FILE", "{token_file}"), ("AWS_ROLE_ARN", "r")]);
    let outlet = Outlet::File("/run/token".into());
    let plain = handout(&credential, &env, &environment);
    let error = plain.variables().unwrap_err();
    assert!(error.causes()[0].contains("only `tmpcred exec`"), "{error}");
    let handout = Handout { outlet: Some(&outlet), ..plain };
    let variables = handout.variables().unwrap();
    for expected in [
        (TOKEN, "t0ken"),
        (TOKEN_FILE, "/run/token"),
        (EXPIRES_AT, "2026-01-01T12:15:00Z"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/run/token"),
        ("AWS_ROLE_ARN", "r"),
    ] {
        assert!(shown(&variables).contains(&expected), "{expected:?}");
    }
    // SDKs would find other credentials of AWS first.
    let stale = handout.stale().unwrap();
    assert!(stale.contains(&"AWS_ACCESS_KEY_ID".into()));
    assert!(!stale.contains(&"AWS_ROLE_ARN".into()) && !stale.contains(&TOKEN_FILE.into()));
}
