//! What is asked for, and approved, is decided as at the desk of a broker.

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::datetime;

use super::super::tests::config;
use super::super::{Asking, Outcome, Source, Trial};
use crate::broker::config::Config;
use crate::broker::decide::Why;
use crate::broker::directory::tests::directory_of;
use crate::broker::policy::tests::{ISSUER, trusted};

const NOW: OffsetDateTime = datetime!(2026-01-02 12:00 UTC);

/// An issuer of machines: the directory has nobody of it.
const JOBS: &str = "https://jobs.example.com";

const PEOPLE: &str = r#"
as_of = "2026-01-02T11:00:00Z"
[group.staff]
[group.leads]
[person.alice]
ids = [{ issuer = "https://login.example.com", subject = "alice" }]
groups = ["staff"]
[person.bob]
ids = [{ issuer = "https://login.example.com", subject = "bob" }]
groups = ["leads"]
[person.dave]
ids = [{ issuer = "https://login.example.com", subject = "dave" }]
groups = ["staff"]
"#;

const POLICIES: &str = r#"
@id("nobody-yet") @ttl("15m") @scope("read")
permit (principal == User::"https://login.example.com#root", action == Action::"issue", resource);

@id("for-long") @any_issuer
permit (principal, action == Action::"elevate", resource == Role::"deploy")
when { context.ttl > 60 };

@id("any-reader") @any_issuer
permit (principal, action == Action::"elevate", resource == Role::"reader");

@id("by-token")
permit (principal in Group::"https://login.example.com#platform", action == Action::"elevate", resource == Role::"signed");

@id("by-claim") @any_issuer
permit (principal, action == Action::"elevate", resource == Role::"signed")
when { principal.hasTag("amr") };

@id("by-directory")
permit (principal in DirectoryGroup::"leads", action == Action::"elevate", resource == Role::"signed");

@id("all-approve") @any_issuer
permit (principal, action == Action::"approve", resource)
when { context.ttl > 60 };
"#;

fn elevated() -> Config {
    config(|config| {
        config.trusted_issuer = trusted(&[ISSUER, JOBS]);
        let signed = config.role["deploy"].clone();
        config.role.insert("signed".into(), signed);
        let approvals = "approvals = [{ count = 1, groups = [\"leads\"] }]";
        for (name, more) in [
            (
                "deploy",
                "review_within = \"1d\"\nemergency = { longest = \"30m\", cool_down = \"1h\" }",
            ),
            ("reader", ""),
            ("signed", "provider_down = {}"),
        ] {
            let rules = toml::from_str(&format!("longest = \"2h\"\n{approvals}\n{more}")).unwrap();
            config.role.get_mut(name).unwrap().elevation = Some(rules);
        }
    })
}

fn decided(asking: Value) -> Outcome {
    let config = elevated();
    let source = Source { path: "policy.cedar".into(), text: POLICIES.into() };
    let directory = Some(directory_of(PEOPLE).into());
    let trial = Trial::of(&config, vec![source], directory).unwrap();
    let asking: Asking = serde_json::from_value(asking).unwrap();
    trial.decide(&asking, NOW).unwrap()
}

/// What becomes of a request for this role by somebody of this issuer, with this more.
fn asked(role: &str, issuer: &str, subject: &str, more: Value) -> Outcome {
    let caller = json!({
        "issuer": issuer, "subject": subject, "groups": ["platform"], "claims": {"amr": ["mfa"]},
    });
    let mut asking = json!({ "action": "elevate", "role": role, "caller": caller });
    asking.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    decided(asking)
}

/// What becomes of what somebody approves for alice.
fn approved(role: &str, issuer: &str, subject: &str) -> Outcome {
    decided(json!({
        "action": "approve", "role": role, "caller": { "issuer": issuer, "subject": subject },
        "of_issuer": ISSUER, "of_subject": "alice",
    }))
}

#[track_caller]
fn is_denied(outcome: Outcome, why: Why, says: &str) {
    match outcome {
        Outcome::Deny { reason, said, .. } => {
            assert!(reason == why && said.contains(says), "{reason:?}: {said}");
        }
        other => panic!("{other:?}"),
    }
}

fn permits(policy: &str) -> Outcome {
    Outcome::permit(policy.into())
}

#[test]
fn a_time_that_nobody_says_is_the_longest_that_can_be_had() {
    assert_eq!(asked("deploy", ISSUER, "alice", json!({})), permits("for-long"));
    assert_eq!(asked("deploy", ISSUER, "alice", json!({"path": "emergency"})), permits("for-long"));
    is_denied(asked("deploy", ISSUER, "alice", json!({"ttl": "1m"})), Why::NoPermit, "no policy");
    let long = json!({"path": "emergency", "ttl": "31m"});
    is_denied(asked("deploy", ISSUER, "alice", long), Why::Elevation, "for 30m at most");
    assert_eq!(approved("reader", ISSUER, "bob"), permits("the approvals of the role 'reader'"));
    let scope = json!({"scope": "write"});
    is_denied(asked("reader", ISSUER, "alice", scope), Why::Scope, "no scope 'write'");
    let elsewhere = json!({"audience": "https://other.example.com"});
    is_denied(asked("reader", ISSUER, "alice", elsewhere), Why::Audience, "audience");
}

#[test]
fn whom_policy_lets_and_no_threshold_takes_approves_nothing() {
    is_denied(approved("reader", ISSUER, "dave"), Why::NoPermit, "no threshold of the role");
}

#[test]
fn whoever_ought_to_be_in_the_directory_and_is_not_has_nothing() {
    is_denied(asked("reader", ISSUER, "eve", json!({})), Why::Directory, "not in the directory");
    is_denied(approved("reader", ISSUER, "eve"), Why::Directory, "not in the directory");
    // Of issuers without people all are machines, who may ask.
    assert_eq!(asked("reader", JOBS, "job", json!({})), permits("any-reader"));
    is_denied(approved("reader", JOBS, "job"), Why::Forbidden, "only people approve");
}

#[test]
fn a_path_that_a_role_does_not_have_is_none() {
    let on = |path: &str| asked("reader", ISSUER, "alice", json!({ "path": path }));
    is_denied(on("emergency"), Why::Elevation, "knows no emergencies");
    is_denied(on("provider-down"), Why::Elevation, "not had by signatures");
}

#[test]
fn of_who_signs_nothing_is_known_that_a_token_would_say() {
    let down = json!({"path": "provider-down"});
    let by_token = asked("signed", ISSUER, "alice", json!({}));
    assert!(matches!(by_token, Outcome::Permit { .. }), "{by_token:?}");
    is_denied(asked("signed", ISSUER, "alice", down.clone()), Why::NoPermit, "no policy");
    // The directory says of them what it says of anybody.
    assert_eq!(asked("signed", ISSUER, "bob", down.clone()), permits("by-directory"));
    is_denied(asked("signed", JOBS, "job", down), Why::Directory, "only keys of people");
}
