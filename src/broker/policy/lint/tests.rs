mod issuers;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::finding::{Rule, Severity};
use super::super::tests::{ISSUER, load_files, permit, role, trusted, world};
use super::*;
use crate::broker::config;
use crate::broker::directory::tests::directory_of;

fn found_in(files: &[(&str, &str)]) -> Vec<Finding> {
    let mut reader = role("read", 60);
    reader.audiences.insert("https://reader.example.com".into());
    found_of(&[("deploy", role("read write", 3600)), ("reader", reader)], files)
}

fn found_of(roles: &[(&str, config::Role)], files: &[(&str, &str)]) -> Vec<Finding> {
    let roles: BTreeMap<_, _> =
        roles.iter().map(|(name, role)| (name.to_string(), role.clone())).collect();
    let sources: Vec<_> = files
        .iter()
        .map(|(path, text)| Source { path: path.into(), text: text.to_string() })
        .collect();
    let now = time::macros::datetime!(2026-01-01 12:00 UTC);
    check(&sources, world(&roles, &trusted(&[ISSUER])), now).unwrap()
}

/// What is found besides what is wrong with none of these policies.
fn found(text: &str) -> Vec<Finding> {
    let reader = format!(
        "@id(\"reader\") @ttl(\"1m\") permit (principal in Group::\"{ISSUER}#x\", action == Action::\"issue\", resource == Role::\"reader\");\n"
    );
    let mut found = found_in(&[("policy.cedar", text), ("reader.cedar", &reader)]);
    found.retain(|finding| finding.rule != Rule::RoleUnreachable);
    found
}

/// A permit with this condition besides one on the caller.
fn when(condition: &str) -> String {
    permit("p", "@ttl(\"5m\")", &format!("principal.hasTag(\"amr\") && {condition}"))
}

/// A permit of an operation besides a good one.
fn operates(action: &str, resource: &str, condition: &str) -> String {
    when("true")
        + &format!(
            "@id(\"o\") permit (principal, action == Action::\"{action}\", {resource}) when {{ principal.hasTag(\"amr\") && {condition} }};"
        )
}

fn rules(text: &str) -> Vec<&'static str> {
    found(text).iter().map(|finding| finding.rule.name()).collect()
}

fn forbid(condition: &str) -> String {
    when("true")
        + &format!(
            "@id(\"f\") forbid (principal, action == Action::\"issue\", resource) when {{ {condition} }};"
        )
}

fn tag(name: &str) -> String {
    format!("principal.hasTag(\"{name}\") && principal.getTag(\"{name}\").contains(\"x\")")
}

#[test]
fn each_lint_finds_what_it_is_for_and_leaves_alone_what_looks_like_it() {
    let like = |pattern: &str| when(&format!("principal.subject like \"{pattern}\""));
    let issuer = |issuer: &str| when(&format!("principal.issuer == \"{issuer}\""));
    let audience = |audience: &str| when(&format!("context.audience == \"{audience}\""));
    let scope = |scope: &str| when(&format!("context.scope.contains(\"{scope}\")"));
    let by = |annotations: &str| permit("p", annotations, "principal.hasTag(\"amr\")");
    let other = format!("User::\"{ISSUER}#a\"");
    let shadow =
        |who: &str| when("true") + &format!("@id(\"f\") forbid ({who}, action, resource);");
    for (rule, bad, good) in [
        ("like-anything", like("*"), like("repo:acme/*")),
        ("like-anything", like("**"), like("repo:acme/*:ref")),
        (
            "like-anything",
            forbid("principal.subject like \"*\""),
            forbid("principal.subject like \"a*\""),
        ),
        ("like-unanchored", like("*@example.com"), like("repo:acme/*")),
        ("like-unanchored", like("*acme*"), forbid("principal.subject like \"*acme\"")),
        ("like-open-end", like("repo:acme*"), like("repo:acme/*")),
        ("like-open-end", like("a/*/b*"), like("a/*/b")),
        (
            "literal-star",
            when("principal.subject == \"repo:acme/*\""),
            when("principal.subject == \"repo:acme/x\""),
        ),
        (
            "literal-star",
            when("principal.getTag(\"amr\").contains(\"*\")"),
            when("principal.getTag(\"amr\").contains(\"mfa\")"),
        ),
        ("literal-star", audience("*"), audience("https://api.example.com")),
        (
            "literal-star",
            when(&format!("principal == User::\"{ISSUER}#*\"")),
            when(&format!("principal == {other}")),
        ),
        ("name-not-id", when(&tag("email")), when(&tag("oid"))),
        (
            "name-not-id",
            when(&tag("repository")),
            when(&format!("{} && {}", tag("repository"), tag("repository_id"))),
        ),
        ("unknown-issuer", issuer("https://login.example.com/"), issuer(ISSUER)),
        (
            "unknown-issuer",
            when("[\"https://x\"].contains(principal.issuer)"),
            when(&format!("[\"{ISSUER}\"].contains(principal.issuer)")),
        ),
        (
            "unknown-audience",
            audience("https://api.example.org"),
            audience("https://api.example.com"),
        ),
        ("unknown-scope", scope("admin"), scope("write")),
        (
            "unknown-client",
            when("context has client && context.client == \"nobody\""),
            when("context has client"),
        ),
        (
            "unknown-operation",
            operates("administer", "resource", "context.operation == \"keys.rotated\""),
            operates("administer", "resource", "context.operation == \"keys.rotate\""),
        ),
        (
            "unknown-operation",
            operates("revoke", "resource", "[\"tokens\"].contains(context.what)"),
            operates("revoke", "resource", "[\"token\"].contains(context.what)"),
        ),
        (
            "never-matches",
            operates("revoke", "resource == Role::\"deploy\"", "context.what == \"all\""),
            operates("revoke", "resource == Role::\"deploy\"", "context.what == \"role\""),
        ),
        (
            "never-matches",
            operates("revoke", "resource is Broker", "context.what == \"role\""),
            operates("revoke", "resource is Broker", "context.what == \"subject\""),
        ),
        (
            "literal-star",
            operates("administer", "resource", "context.operation == \"keys.*\""),
            operates("administer", "resource", "context.operation like \"keys.*\""),
        ),
        (
            "everybody",
            operates("revoke", "resource", "context.what == \"token\"")
                .replace("principal.hasTag(\"amr\") && ", ""),
            operates("revoke", "resource", "context.what == \"token\""),
        ),
        (
            "every-audience",
            operates("introspect", "resource", "true"),
            operates("introspect", "resource", "context.audience == \"https://api.example.com\""),
        ),
        (
            "every-audience",
            operates(
                "introspect",
                "resource == Role::\"reader\"",
                "context.time > datetime(\"2026-01-01\")",
            ),
            operates("introspect", "resource == Role::\"deploy\"", "true"),
        ),
        (
            "unknown-reference",
            operates("administer", "resource == Broker::\"https://other.example.com\"", "true"),
            operates("administer", "resource == Broker::\"https://broker.example.com\"", "true"),
        ),
        (
            "annotation",
            operates("administer", "resource", "true")
                .replace("@id(\"o\")", "@id(\"o\") @ttl(\"5m\")"),
            operates("administer", "resource", "true"),
        ),
        (
            "unknown-scope",
            when("context.scope.containsAny([\"read\", \"raed\"])"),
            when("context.scope.containsAny([\"read\"])"),
        ),
        (
            "never-matches",
            when("principal.subject == \"a\" && principal.subject == \"b\""),
            when("(principal.subject == \"a\" || principal.subject == \"b\")"),
        ),
        (
            "never-matches",
            when("context.ttl > 60 && context.ttl <= 60"),
            when("context.ttl > 60 && context.ttl <= 61"),
        ),
        ("never-matches", when("!(principal.hasTag(\"amr\"))"), when("!(principal.hasTag(\"x\"))")),
        (
            "never-matches",
            when("resource == Role::\"reader\""),
            when("resource == Role::\"deploy\""),
        ),
        ("ttl-beyond-role", by("@ttl(\"2h\")"), by("@ttl(\"1h\")")),
        ("shadowed", shadow("principal"), shadow(&format!("principal == {other}"))),
        ("shadowed", shadow("principal is User"), forbid("context.ttl > 60")),
        (
            "everybody",
            permit("p", "@ttl(\"5m\")", "context.ttl > 5"),
            permit("p", "@ttl(\"5m\") @any_issuer", "context.ttl > 5"),
        ),
    ] {
        assert!(rules(&bad).contains(&rule), "{rule}: {bad}\n{:?}", rules(&bad));
        assert!(!rules(&good).contains(&rule), "{rule}: {good}\n{:?}", found(&good));
    }
}

/// Also where there are no others.
#[test]
fn a_permit_beyond_the_only_role_is_found() {
    let only = [("deploy", role("read write", 3600))];
    let rules = |ttl: &str| {
        let text = permit("p", &format!("@ttl(\"{ttl}\")"), "principal.hasTag(\"amr\")");
        let found = found_of(&only, &[("policy.cedar", &text)]);
        found.iter().map(|finding| finding.rule.name()).collect::<Vec<_>>()
    };
    assert_eq!(rules("2h"), ["ttl-beyond-role"]);
    assert!(rules("1h").is_empty());
}

#[test]
fn what_is_as_it_should_be_has_no_findings() {
    let good = when(
        "principal.getTag(\"amr\").contains(\"mfa\") && context.audience == \"https://api.example.com\"",
    );
    assert_eq!(found(&good), []);
}

#[test]
fn scopes_beyond_the_role_of_a_permit_are_found() {
    // Another role has it, so it can be loaded.
    let text = permit("p", "@ttl(\"1m\") @scope(\"write read\")", "principal.hasTag(\"x\")");
    assert_eq!(rules(&text), Vec::<&str>::new());
    let reader = text.replace("Role::\"deploy\"", "Role::\"reader\"");
    let found = found(&reader);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].rule, Rule::ScopeBeyondRole);
    assert!(found[0].message.contains("'write'"), "{found:?}");
}

#[test]
fn roles_that_nobody_gets_are_found() {
    let all = |text: &str| -> Vec<String> {
        let found = found_in(&[("policy.cedar", text)]);
        let role = |finding: &&Finding| finding.rule == Rule::RoleUnreachable;
        found.iter().filter(role).map(|finding| finding.message.clone()).collect()
    };
    assert_eq!(all(&when("true")), ["no permit is for [role.reader]"]);
    let both = when("true").replace("resource == Role::\"deploy\"", "resource");
    assert_eq!(all(&both), Vec::<String>::new());
    assert_eq!(all("permit ("), Vec::<String>::new());
    let forbidden = both + "@id(\"f\") forbid (principal, action, resource);";
    assert_eq!(all(&forbidden).len(), 2);
}

#[test]
fn findings_have_their_place() {
    let text = format!(
        "{}\n{}",
        when("true"),
        when("principal.subject like \"*x\"").replace("\"p\"", "\"q\"")
    );
    let found = found(&text);
    assert_eq!(found.len(), 1, "{found:?}");
    let place = found[0].place.as_ref().unwrap();
    assert_eq!((place.line, found[0].policy.as_deref()), (Some(9), Some("q")));
    assert!(text.lines().nth(8).unwrap()[place.column.unwrap() - 1..].starts_with("\"*x\""));
}

#[test]
fn what_is_refused_is_found_by_a_rule_of_its_own() {
    let p = |annotations: &str, condition: &str| permit("p", annotations, condition);
    for (rule, text) in [
        ("syntax", "permit (".to_string()),
        ("template", "@id(\"t\") permit (principal == ?principal, action, resource);".into()),
        ("schema", p("@ttl(\"5m\")", "principal.email == \"a\"")),
        ("annotation", p("", "true")),
        ("annotation", p("@ttl(\"2d\")", "true")),
        ("duplicate-id", p("@ttl(\"5m\")", "true").repeat(2)),
        ("unknown-reference", p("@ttl(\"5m\")", "true").replace("deploy", "depoly")),
        ("unknown-reference", p("@ttl(\"5m\")", "principal in Group::\"https://other#g\"")),
        ("one-action", p("@ttl(\"5m\")", "true").replace("action == Action::\"issue\"", "action")),
    ] {
        let found = found(&text);
        let by_rule = found.iter().find(|finding| finding.rule.name() == rule);
        let finding = by_rule.unwrap_or_else(|| panic!("{rule}: {text}\n{found:?}"));
        assert_eq!(finding.severity, Severity::Error);
        assert!(finding.place.is_some(), "{finding:?}");
    }
    assert!(load_files(&[("policy.cedar", &when("true"))]).is_ok());
}

/// Whatever else is wrong with the second of them, the place is its own.
#[test]
fn of_two_with_one_id_the_second_is_named() {
    let first = permit("p", "@ttl(\"5m\")", "true");
    let text = format!("{first}\n\n{}", first.replace("deploy", "depoly"));
    let found = found(&text);
    let twice = found.iter().find(|finding| finding.rule == Rule::DuplicateId).unwrap();
    let line = first.matches('\n').count() + 3;
    assert_eq!(twice.place.as_ref().unwrap().line, Some(line), "{text}\n{found:?}");
}

#[test]
fn rules_have_names_of_their_own_and_say_what_to_do() {
    let all: Vec<Rule> = Rule::REFUSED.into_iter().chain(Rule::LINTS).collect();
    let names: std::collections::BTreeSet<_> = all.iter().map(|rule| rule.name()).collect();
    assert_eq!(names.len(), all.len());
    assert!(all.iter().all(|rule| !rule.about().why.is_empty() && !rule.about().advice.is_empty()));
    assert!(Rule::REFUSED.iter().all(|rule| rule.about().severity == Severity::Error));
}

/// What is said of the thresholds of a role that two leads approve by this condition.
fn of_approvals(people: &[&str], condition: &str) -> Vec<(&'static str, String)> {
    let entry = |name: &&str| {
        let (name, groups) = name.split_once(':').unwrap_or((name, ""));
        let groups: Vec<_> = groups.split_terminator(',').map(|one| format!("\"{one}\"")).collect();
        let groups = groups.join(", ");
        format!(
            "[person.{name}]\nids = [{{ issuer = \"{ISSUER}\", subject = \"{name}\" }}]\ngroups = [{groups}]\n"
        )
    };
    let entries: String = people.iter().map(entry).collect();
    let directory = Arc::new(directory_of(&format!("[group.leads]\n[group.on-call]\n{entries}")));
    let mut admin = role("read", 3600);
    admin.audiences.insert("https://admin.example.com".into());
    let table = "longest = \"2h\"\nreview_within = \"1d\"\napprovals = [{ count = 2, groups = [\"leads\"] }]";
    admin.elevation = Some(toml::from_str(table).unwrap());
    let roles =
        BTreeMap::from([("deploy".to_string(), role("read write", 3600)), ("admin".into(), admin)]);
    let policies = when("true")
        + &format!(
            "@id(\"e\") permit (principal in DirectoryGroup::\"on-call\", action == Action::\"elevate\", resource == Role::\"admin\");
             @id(\"i\") @ttl(\"5m\") permit (principal in DirectoryGroup::\"on-call\", action == Action::\"issue\", resource == Role::\"admin\");
             @id(\"a\") permit (principal in DirectoryGroup::\"leads\", action == Action::\"approve\", resource == Role::\"admin\") when {{ {condition} }};"
        );
    let sources = [Source { path: "policy.cedar".into(), text: policies }];
    let trusted = trusted(&[ISSUER]);
    let world = World { directory: Some(&directory), ..world(&roles, &trusted) };
    let now = time::macros::datetime!(2026-01-01 12:00 UTC);
    let found = check(&sources, world, now).unwrap().into_iter();
    let found = found.map(|finding| (finding.rule.name(), finding.message));
    found.filter(|(name, _)| *name != "directory-undated").collect()
}

#[test]
fn thresholds_are_tried_with_all_kinds_of_requests() {
    let three = ["alice:on-call", "bob:leads", "carol:leads", "erin:leads"];
    let names = |people: &[&str], condition: &str| {
        of_approvals(people, condition).into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    // Somebody may be found for one of them.
    for met in [
        "true",
        "context.subject in DirectoryGroup::\"on-call\"",
        "context.audience == \"https://api.example.com\"",
        "context.audience == \"https://admin.example.com\"",
        "context.ttl >= 60",
        "context.ttl <= 7200",
        "context.scope.contains(\"read\")",
    ] {
        assert_eq!(names(&three, met), [""; 0], "{met}");
    }
    // Not for each of them.
    let short = of_approvals(&three, "context.ttl <= 60");
    assert!(short[0].1.contains("for as long as `longest` says"), "{short:?}");
    let tried = of_approvals(&three, "context.ttl == 61");
    assert!(tried[0].0 == "threshold-tight" && tried[0].1.contains("were tried"), "{tried:?}");
    let early = "context.time.toTime() < duration(\"8h\")";
    let at_night = of_approvals(&three, early);
    assert!(
        at_night[0].0 == "threshold-tight" && at_night[0].1.contains("this hour"),
        "{at_night:?}"
    );
    // For no people.
    let strangers = "!(context.subject in DirectoryGroup::\"leads\") && !(context.subject in DirectoryGroup::\"on-call\")";
    let outside = of_approvals(&three, strangers);
    assert!(
        outside[0].0 == "threshold-tight" && outside[0].1.contains("nobody in the directory"),
        "{outside:?}"
    );
    // For none.
    let other = "context.audience == \"https://api.example.com\" && context.audience == \"https://admin.example.com\"";
    assert_eq!(names(&three, other), ["never-matches", "threshold-unmeetable"]);
    let nobodys = "context.subject == User::\"https://login.example.com#nobody\"";
    assert_eq!(names(&three, nobodys), ["threshold-unmeetable"]);
    let one = ["alice:on-call", "bob:leads"];
    assert_eq!(names(&one, "true"), ["threshold-unmeetable"]);
    // Just for one of those who approve others.
    let two = of_approvals(&["alice:on-call", "bob:leads", "carol:leads"], "true");
    let said = "none of them could have it, nor could a job, which takes one more, and nobody could review";
    assert!(two[0].0 == "threshold-tight" && two[0].1.contains(said), "{two:?}");
}

#[test]
fn a_role_that_aws_is_told_of_without_its_grant_is_found() {
    let rules = r#"{"longest": "1h", "approvals": []}"#;
    let found = |aws: &str| {
        let mut elevated = role("", 3600);
        elevated.elevation = Some(serde_json::from_str(rules).unwrap());
        elevated.aws = Some(serde_json::from_str(aws).unwrap());
        let roles = BTreeMap::from([("cloud".to_string(), elevated)]);
        let policies =
            Source { path: "policy.cedar".into(), text: permit("p", "@ttl(\"5m\")", "true") };
        let now = time::macros::datetime!(2026-01-01 12:00 UTC);
        let found = check(&[policies], world(&roles, &trusted(&[ISSUER])), now).unwrap();
        found.iter().any(|finding| finding.rule == Rule::GrantUntold)
    };
    assert!(found(r#"{"source_identity": "{subject}"}"#));
    assert!(found(r#"{"source_identity": "{subject}", "tags": {"Path": "{elevation:path}"}}"#));
    assert!(!found("{}"), "the grant is the source identity where nothing else is said");
    assert!(!found(r#"{"source_identity": "{subject}", "tags": {"Grant": "{elevation}"}}"#));
}
