use std::path::Path;

use serde_json::{Map, json};
use time::macros::datetime;

use super::*;
use crate::broker::policy::tests::{ISSUER, permit, role, trusted};
use crate::oidc::Issuer;

const NOW: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);

pub(super) fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config {
        path: None,
        log: config::Log::default(),
        issuer: Issuer::parse("https://broker.example.com").unwrap(),
        listen: ([127, 0, 0, 1], 0).into(),
        expose: false,
        trusted_proxies: Vec::new(),
        forwarded_header: Default::default(),
        watch_every: None,
        tls: None,
        admin: None,
        store: config::Store::at("broker.db"),
        keys: config::Keys::default(),
        dpop: config::Dpop::default(),
        limits: Default::default(),
        authz: None,
        audit: config::Audit::default(),
        origins: config::Origins::default(),
        notify: Default::default(),
        telemetry: config::Telemetry::default(),
        directory: None,
        enrollment: Default::default(),
        web: None,
        trusted_issuer: trusted(&[ISSUER]),
        client: Default::default(),
        policy: config::Policy { files: vec!["policy.cedar".into()] },
        role: [
            ("deploy".to_string(), role("read write", 3600)),
            ("reader".into(), role("read", 60)),
        ]
        .into(),
    };
    change(&mut config);
    config
}

fn trial<'a>(config: &'a Config, text: &str) -> Trial<'a> {
    let source = Source { path: "policy.cedar".into(), text: text.into() };
    Trial::of(config, vec![source], None).unwrap()
}

/// What Alice asks, with these changes.
fn asking(changes: Value) -> Asking {
    let mut asking = json!({
        "caller": {"issuer": ISSUER, "subject": "alice", "groups": ["platform"], "claims": {"amr": ["mfa"]}},
        "role": "deploy",
    });
    for (pointer, value) in changes.as_object().unwrap() {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        asking.pointer_mut(parent).unwrap()[name] = value.clone();
    }
    serde_json::from_value(asking).unwrap()
}

fn policies() -> String {
    let mfa = "principal.hasTag(\"amr\") && principal.getTag(\"amr\").contains(\"mfa\")";
    let asks = permit("asks", "", "principal.subject == \"api\"");
    permit("deploys", "@ttl(\"15m\") @scope(\"read\")", mfa)
        + &asks.replace("\"issue\"", "\"introspect\"")
        + &format!(
            "@id(\"no-mallory\") forbid (principal == User::\"{ISSUER}#mallory\", action, resource);"
        )
}

fn reason(outcome: &Outcome) -> Why {
    match outcome {
        Outcome::Deny { reason, .. } => *reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn decisions_are_those_of_a_broker() {
    let config = config(|_| {});
    let trial = trial(&config, &policies());
    let decide = |changes| trial.decide(&asking(changes), NOW).unwrap();
    let granted = |ttl, scope: &[&str]| Outcome::Permit {
        policy: "deploys".into(),
        ttl: Some(ttl),
        scope: Some(scope.iter().map(ToString::to_string).collect()),
        claims: Map::new(),
    };
    assert_eq!(decide(json!({})), granted(900, &["read"]));
    assert_eq!(decide(json!({"/ttl": "1m", "/scope": "read"})), granted(60, &["read"]));
    for (changes, why) in [
        (json!({"/caller/claims": {}}), Why::NoPermit),
        (json!({"/role": "reader"}), Why::NoPermit),
        (json!({"/role": "nobody"}), Why::Role),
        (json!({"/audience": "https://other"}), Why::Audience),
        (json!({"/scope": "write"}), Why::Scope),
        (json!({"/scope": "other"}), Why::Scope),
        (json!({"/caller/subject": "mallory"}), Why::Forbidden),
        (json!({"/action": "introspect"}), Why::NoPermit),
        (json!({"/action": "introspect", "/caller/subject": "mallory"}), Why::Forbidden),
        (json!({"/caller/claims": {"act": {}}}), Why::Token),
        (json!({"/caller/claims": {"amr": "mfa", "act": {"sub": "x"}}}), Why::Actor),
        (json!({"/actor": {"issuer": ISSUER, "subject": "bot"}}), Why::Actor),
    ] {
        assert_eq!(reason(&decide(changes.clone())), why, "{changes}");
    }
    let api = decide(json!({"/action": "introspect", "/caller/subject": "api"}));
    assert_eq!(api, Outcome::permit("asks".into()));
}

#[test]
fn what_is_required_of_tokens_is_required_here_too() {
    let group =
        format!("@id(\"f\") forbid (principal in Group::\"{ISSUER}#x\", action, resource);");
    let config = config(|config| {
        for issuer in config.trusted_issuer.values_mut() {
            issuer.clients = Some(["cli".to_string()].into());
            issuer.ends_with_token = true;
        }
    });
    let trial = trial(&config, &(policies() + &group));
    let decide = |changes| trial.decide(&asking(changes), NOW).unwrap();
    assert!(matches!(decide(json!({})), Outcome::Permit { .. }));
    assert_eq!(reason(&decide(json!({"/caller/groups": null}))), Why::Token);
    assert_eq!(reason(&decide(json!({"/caller/client": "other"}))), Why::Token);
    let ends = |at: &str| decide(json!({"/caller/expires": at, "/time": "2026-01-01T10:00:00Z"}));
    assert!(matches!(ends("2026-01-01T10:01:00Z"), Outcome::Permit { ttl: Some(60), .. }));
    assert_eq!(reason(&ends("2026-01-01T10:00:00Z")), Why::Ended);
}

#[test]
fn a_question_that_cannot_be_asked_is_an_error() {
    let config = config(|config| {
        let more = "https://other.example.com".to_string();
        config.role.get_mut("deploy").unwrap().audiences.insert(more);
    });
    let trial = trial(&config, &policies());
    let error = |changes| trial.decide(&asking(changes), NOW).unwrap_err().to_string();
    assert!(
        error(json!({"/role": "reader", "/caller/issuer": "nobody"}))
            .contains("no trusted issuer 'nobody'")
    );
    assert!(error(json!({})).contains("has several audiences"));
}

#[test]
fn an_explanation_names_what_fails_and_what_the_value_is() {
    let config = config(|_| {});
    let trial = trial(&config, &policies());
    let explain = |changes| trial.explain(&asking(changes), NOW).unwrap();
    let part = |explanation: &Explanation, policy: &str| -> Vec<(String, Holds)> {
        let one = explanation.considered.iter().find(|one| one.policy == policy).unwrap();
        one.parts.iter().map(|part| (part.text.clone(), part.holds)).collect()
    };
    let granted = explain(json!({}));
    assert!(granted.changes.is_empty());
    let decides: Vec<_> = granted.considered.iter().filter(|one| one.decides).collect();
    assert!(decides.len() == 1 && decides[0].policy == "deploys" && decides[0].applies);

    let other = explain(json!({"/caller/claims": {"amr": ["pwd"]}}));
    let parts = part(&other, "deploys");
    assert_eq!(parts.iter().filter(|(_, holds)| *holds == Holds::No).count(), 1, "{parts:?}");
    assert_eq!(parts[3].1, Holds::No);
    assert!(parts[3].0.contains("contains(\"mfa\")"), "{parts:?}");
    let [change, ..] = &other.changes[..] else { panic!("{other:?}") };
    assert!(
        change.contains("'deploys' would permit it, if") && change.contains("[\"pwd\"]"),
        "{change}"
    );
    assert_eq!(other.changes.len(), 1, "a permit to introspect is no way to be issued a token");

    // What is not there is named by what asks for it, not by what would fail behind it.
    let none = explain(json!({"/caller/claims": {}}));
    let parts = part(&none, "deploys");
    assert_eq!((parts[2].1, parts[3].1), (Holds::No, Holds::NotReached), "{parts:?}");
    assert!(none.changes[0].contains("not in the token"), "{:?}", none.changes);
}

#[test]
fn an_explanation_says_what_to_ask_for_instead() {
    let config = config(|_| {});
    let trial = trial(&config, &policies());
    let changes = |changes| trial.explain(&asking(changes), NOW).unwrap().changes.join("\n");
    assert!(
        changes(json!({"/role": "x"}))
            .contains("another role would have to be asked for: deploy, reader")
    );
    assert!(changes(json!({"/audience": "x"})).contains("https://api.example.com"));
    assert!(changes(json!({"/scope": "write"})).contains("than 'deploys' has: read"));
    assert!(changes(json!({"/scope": "x"})).contains("than the role 'deploy' has: read write"));
    assert!(
        changes(json!({"/caller/subject": "mallory"}))
            .contains("'no-mallory' would have to forbid it no longer")
    );
    assert!(
        changes(json!({"/role": "reader"}))
            .contains("resource == Role::\"deploy\" (resource is Role::\"reader\")")
    );
    assert!(changes(json!({"/caller/claims": {"act": {}}})).contains("does not say who"));
}

fn cases(text: &str) -> Result<Cases> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cases.toml");
    crate::host::files::write_private(&path, text.as_bytes()).unwrap();
    Cases::read(Path::new(&path))
}

#[test]
fn cases_pass_and_fail_by_what_is_expected() {
    let config = config(|_| {});
    let trial = trial(&config, &policies());
    let differs = |expect: &str, role: &str| -> Vec<(&'static str, String, String)> {
        let text = format!(
            "[[case]]\nname = \"x\"\nask.role = \"{role}\"\nask.caller = {{ issuer = \"{ISSUER}\", subject = \"a\", claims = {{ amr = [\"mfa\"], level = 3 }} }}\nexpect = {{ {expect} }}\n"
        );
        let result = trial.run(&cases(&text).unwrap().case[0], NOW).unwrap();
        assert_eq!(result.passed, result.differences.is_empty());
        result.differences.into_iter().map(|d| (d.what, d.expected, d.got)).collect()
    };
    assert_eq!(differs("permit = \"deploys\", ttl = \"15m\", scope = \"read\"", "deploy"), []);
    assert_eq!(differs("permit = \"deploys\"", "deploy"), []);
    assert_eq!(differs("deny = \"no-permit\"", "reader"), []);
    let of = |what, expected: &str, got: &str| (what, expected.to_string(), got.to_string());
    assert_eq!(
        differs("permit = \"deploys\", ttl = \"1h\", scope = \"read write\"", "deploy"),
        [of("ttl", "1h", "15m"), of("scope", "read write", "read")]
    );
    assert_eq!(
        differs("permit = \"other\"", "deploy"),
        [of("decision", "permit: other", "permit: deploys")]
    );
    assert_eq!(
        differs("deny = \"role\"", "reader"),
        [of("decision", "deny: role", "deny: no-permit")]
    );
    assert_eq!(
        differs("deny = \"role\"", "deploy"),
        [of("decision", "deny: role", "permit: deploys")]
    );
    let forbidden = differs("deny = \"no-permit\", by = \"f\"", "reader");
    assert_eq!(forbidden, [of("by", "f", "")]);
}

#[test]
fn files_of_cases_that_could_not_fail_are_refused() {
    let case = |expect: &str| {
        format!(
            "[[case]]\nname = \"x\"\nask = {{ role = \"deploy\", caller = {{ issuer = \"i\", subject = \"s\" }} }}\nexpect = {{ {expect} }}\n"
        )
    };
    assert!(cases(&case("deny = \"role\"")).is_ok());
    for (text, says) in [
        ("case = []".to_string(), "there is no [[case]]"),
        (case(""), "either `permit` or `deny`"),
        (case("permit = \"p\", deny = \"role\""), "either `permit` or `deny`"),
        (case("permit = \"p\", by = \"f\""), "no `by`"),
        (case("deny = \"role\", ttl = \"5m\""), "neither `ttl` nor `scope`"),
        (case("deny = \"rule\""), "rule"),
        (case("allow = true"), "allow"),
        (case("deny = \"role\"").repeat(2), "two cases 'x'"),
    ] {
        let error = cases(&text).unwrap_err().to_string();
        assert!(error.contains(says), "{text}\n{error}");
    }
}

#[test]
fn claims_are_json_or_texts() {
    let pairs = ["hd=example.com", "amr=[\"mfa\"]", "level=3", "x="].map(String::from);
    let expected = json!({"hd": "example.com", "amr": ["mfa"], "level": 3, "x": ""});
    assert_eq!(Value::Object(claims(&pairs).unwrap()), expected);
    assert!(claims(&["x".to_string()]).is_err());
}

#[test]
fn a_role_that_wants_a_key_is_tried_with_and_without_one() {
    let config = config(|config| {
        config.role.get_mut("deploy").unwrap().dpop = config::Binding::Required;
    });
    let text = permit("any", "@ttl(\"1h\")", "context.key_bound")
        .replace("resource == Role::\"deploy\"", "resource");
    let trial = trial(&config, &text);
    let outcome = |changes| trial.decide(&asking(changes), NOW).unwrap();
    assert!(matches!(outcome(json!({})), Outcome::Deny { reason: Why::Unbound, .. }));
    assert!(matches!(outcome(json!({ "/key_bound": true })), Outcome::Permit { .. }));
    // Where the role leaves it open, the policy does not.
    let reader = trial.explain(&asking(json!({ "/role": "reader" })), NOW).unwrap();
    assert!(matches!(reader.outcome, Outcome::Deny { reason: Why::NoPermit, .. }));
    assert!(reader.changes[0].contains("context.key_bound is false"), "{:?}", reader.changes);
    let explained = trial.explain(&asking(json!({})), NOW).unwrap();
    assert!(explained.changes[0].contains("DPoP"), "{:?}", explained.changes);
}

#[test]
fn a_client_that_authenticates_is_tried_with_and_without_that() {
    let config = config(|config| {
        config.client = [("deployer".to_string(), Client::default())].into();
    });
    let text = permit(
        "any",
        "@ttl(\"1h\")",
        "context has client && context.client == \"deployer\"",
    ) + &permit("acts", "", "context has client && context.client == \"deployer\"")
        .replace("\"issue\"", "\"act\"")
        + "@id(\"asks\") permit (principal == User::\"https://broker.example.com#deployer\", action == Action::\"introspect\", resource);";
    let trial = trial(&config, &text);
    let outcome = |changes| trial.decide(&asking(changes), NOW).unwrap();
    let without = trial.explain(&asking(json!({})), NOW).unwrap();
    assert!(matches!(without.outcome, Outcome::Deny { reason: Why::NoPermit, .. }));
    assert!(matches!(outcome(json!({ "/client": "deployer" })), Outcome::Permit { .. }));
    // As the broker has it, nobody comes under its name otherwise.
    let named = outcome(json!({ "/caller/client": "deployer" }));
    assert!(matches!(named, Outcome::Deny { reason: Why::Token, .. }), "{named:?}");
    let unknown = trial.decide(&asking(json!({ "/client": "x" })), NOW).unwrap_err();
    assert!(unknown.to_string().contains("no client 'x' that authenticates"), "{unknown}");
    // Nor as who acts.
    let acts = |client: &str| json!({"issuer": ISSUER, "subject": "bot", "client": client});
    let named = outcome(json!({ "/actor": acts("deployer") }));
    assert!(matches!(named, Outcome::Deny { reason: Why::Token, .. }), "{named:?}");
    for client in ["x", "deployer"] {
        let through = outcome(json!({ "/client": "deployer", "/actor": acts(client) }));
        assert!(matches!(through, Outcome::Permit { .. }), "{through:?}");
    }
    let itself = json!({
        "/action": "introspect", "/caller/issuer": "https://broker.example.com",
        "/caller/subject": "deployer",
    });
    assert!(matches!(outcome(itself), Outcome::Permit { .. }));
}

#[test]
fn operations_are_tried_and_explained() {
    let config = config(|_| {});
    let text = policies()
        + &format!(
            "@id(\"revokes\") permit (principal in Group::\"{ISSUER}#platform\", action == Action::\"revoke\", resource == Role::\"deploy\") when {{ context.what == \"role\" }};
             @id(\"looks\") permit (principal in Group::\"{ISSUER}#platform\", action == Action::\"administer\", resource) when {{ context.operation == \"keys.list\" }};"
        );
    let trial = trial(&config, &text);
    let outcome = |changes| trial.decide(&asking(changes), NOW).unwrap();
    let permitted = |policy: &str| Outcome::permit(policy.into());
    let revoke = json!({"/action": "revoke", "/what": "role"});
    assert_eq!(outcome(revoke.clone()), permitted("revokes"));
    let list = json!({"/action": "administer", "/role": null, "/operation": "keys.list"});
    assert_eq!(outcome(list), permitted("looks"));
    let other = json!({"/action": "revoke", "/what": "role", "/role": "reader"});
    assert_eq!(reason(&outcome(other.clone())), Why::NoPermit);
    let rotate = json!({"/action": "administer", "/role": null, "/operation": "keys.rotate"});
    assert_eq!(reason(&outcome(rotate.clone())), Why::NoPermit);
    let mallory = json!({"/action": "revoke", "/what": "role", "/caller/subject": "mallory"});
    assert_eq!(reason(&outcome(mallory)), Why::Forbidden);

    let changes = |changes| trial.explain(&asking(changes), NOW).unwrap().changes.join("\n");
    let said = changes(other);
    assert!(
        said.contains("'revokes' would permit it") && said.contains("Role::\"reader\""),
        "{said}"
    );
    let said = changes(rotate);
    assert!(said.contains("context.operation is \"keys.rotate\""), "{said}");
    let of_bob = json!({
        "/action": "revoke", "/what": "subject", "/role": null, "/of_issuer": ISSUER, "/of_subject": "bob",
    });
    let said = changes(of_bob);
    assert!(said.contains("Broker::\"https://broker.example.com\""), "{said}");

    // What could not be asked proves nothing.
    for wrong in [
        json!({"/action": "revoke"}),
        json!({"/action": "revoke", "/what": "everything"}),
        json!({"/action": "revoke", "/what": "all"}),
        json!({"/action": "revoke", "/what": "subject", "/role": null, "/of_subject": "bob"}),
        json!({"/action": "revoke", "/what": "role", "/operation": "keys.list"}),
        json!({"/action": "administer", "/role": null}),
        json!({"/action": "administer", "/operation": "keys.list"}),
        json!({"/action": "administer", "/role": null, "/operation": "keys"}),
        json!({"/what": "role"}),
        json!({"/role": null}),
        json!({"/action": "introspect", "/operation": "keys.list"}),
    ] {
        assert!(trial.decide(&asking(wrong.clone()), NOW).is_err(), "{wrong}");
    }
}

/// What nobody could ask a broker decides nothing about it.
#[test]
fn what_could_not_be_asked_is_not_decided() {
    let config = config(|_| {});
    let trial = trial(&config, &policies());
    let decide = |changes| trial.decide(&asking(changes), NOW);
    for ttl in [Duration::ZERO, Duration::from_millis(999)] {
        let asking = Asking { ttl: Some(ttl), ..asking(json!({})) };
        let error = trial.decide(&asking, NOW).unwrap_err();
        assert!(error.message().contains("a second or more"), "{error}");
    }
    for name in ["iss", "sub", "aud", "exp"] {
        let error = decide(json!({"/caller/claims": {name: "x"}})).unwrap_err();
        assert!(error.message().contains(name), "{error}");
    }
    assert!(claims(&["=x".into()]).is_err());
    // It is taken for as long after its end as the issuer's leeway is.
    let ended = |seconds: u64| {
        let expires = (NOW - Duration::from_secs(seconds)).format(&Rfc3339).unwrap();
        decide(json!({"/caller/expires": expires})).unwrap()
    };
    let leeway = config.trusted_issuer.values().next().unwrap().leeway.as_secs();
    assert_eq!(reason(&ended(leeway)), Why::Token);
    assert!(matches!(ended(leeway - 1), Outcome::Permit { .. }), "{:?}", ended(leeway - 1));
}
