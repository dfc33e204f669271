//! What is found in tables of trusted issuers, and of what policies make of them.

use super::*;
use crate::broker::config::TrustedIssuer;

const GITHUB: &str = "https://token.actions.githubusercontent.com";

/// The rules of names and patterns that this is against, with what is said: policies and tables of
/// trusted issuers.
fn said(policies: &str, tables: &str) -> Vec<(&'static str, String)> {
    let trusted: BTreeMap<String, TrustedIssuer> = toml::from_str(tables).unwrap();
    let roles = BTreeMap::from([("deploy".to_string(), role("read write", 3600))]);
    let source = Source { path: "policy.cedar".into(), text: policies.into() };
    let now = time::macros::datetime!(2026-01-01 12:00 UTC);
    let found = check(&[source], world(&roles, &trusted), now).unwrap().into_iter();
    assert!(found.clone().all(|finding| finding.rule != Rule::Schema), "{policies}");
    let found = found.map(|finding| (finding.rule.name(), finding.message));
    found.filter(|(rule, _)| rule.starts_with("like-") || *rule == "name-not-id").collect()
}

fn rules(policies: &str, tables: &str) -> Vec<&'static str> {
    said(policies, tables).into_iter().map(|(rule, _)| rule).collect()
}

/// A permit for callers of whatever issuer.
fn any(condition: &str) -> String {
    permit("p", "@ttl(\"5m\") @any_issuer", condition)
}

/// A table of an issuer.
fn table(name: &str, issuer: &str, rest: &str) -> String {
    format!("[{name}]\nissuer = \"{issuer}\"\n{rest}\n")
}

fn github(rest: &str) -> String {
    table("ci", GITHUB, rest)
}

#[test]
fn a_claim_that_is_made_of_a_name_is_a_name() {
    let maps = |claim: &str, of: &str| github(&format!("claims.{claim} = {of}"));
    let shop = maps("shop", "{ from = \"repository\", matches = \"example/(.+)\" }");
    let found = said(&any(&tag("shop")), &shop);
    let message = "the policy 'p' goes by 'shop', which [trusted_issuer.ci] makes of 'repository'; there is the claim 'repository_id'";
    assert_eq!(found, [("name-not-id", message.to_string())]);

    let id = maps("repository", "{ from = \"repository_id\" }");
    let renamed = maps("shop", "{ from = \"repository\" }");
    let has = "principal.hasTag(\"shop\")";
    for (tables, condition, is_found) in [
        (maps("shop", "{ from = \"/repository\" }"), tag("shop"), true),
        (maps("who", "{ from = \"email\" }"), tag("who"), true),
        // To ask whether it is like something is to go by it; to ask whether there is one is not.
        (shop.clone(), has.into(), true),
        (renamed.clone(), has.into(), false),
        (shop.clone(), tag("other"), false),
        (shop.clone(), format!("{} && {}", tag("shop"), tag("repository_id")), false),
        (
            github(
                "claims = { shop = { from = \"repository\" }, id = { from = \"repository_id\" } }",
            ),
            format!("{} && {}", tag("shop"), tag("id")),
            false,
        ),
        // It is an id, whatever it is called.
        (id.clone(), tag("repository"), false),
        (maps("repository_id", "{ from = \"repository\" }"), tag("repository_id"), true),
        // All tokens are of one repository.
        (github("required_claims.repository_id = \"1\""), tag("repository"), false),
        (github("required_claims.repository_id = [\"1\", \"2\"]"), tag("repository"), true),
    ] {
        let found = rules(&any(&condition), &tables);
        assert_eq!(found.contains(&"name-not-id"), is_found, "{condition}\n{tables}\n{found:?}");
    }
}

#[test]
fn it_is_enough_that_one_issuer_of_a_policy_makes_it_of_a_name() {
    let tables = table("a", "https://a.example.com", "claims.x = { from = \"project_id\" }")
        + &table("b", "https://b.example.com", "claims.x = { from = \"project_path\" }")
        + &table("c", "https://c.example.com", "claims.repository = { from = \"repository_id\" }");
    let found = said(&any(&tag("x")), &tables);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].1.contains("'x', which [trusted_issuer.b] makes of 'project_path'"));
    let of = |issuer: &str, claim: &str| {
        let condition = format!("principal.issuer == \"{issuer}\" && {}", tag(claim));
        rules(&permit("p", "@ttl(\"5m\")", &condition), &tables)
    };
    assert_eq!(of("https://a.example.com", "x"), [""; 0]);
    assert_eq!(of("https://b.example.com", "x"), ["name-not-id"]);
    // Those of others have it as it is.
    assert_eq!(of("https://c.example.com", "repository"), [""; 0]);
    assert_eq!(rules(&any(&tag("repository")), &tables), ["name-not-id"]);
}

#[test]
fn names_are_found_among_required_claims_unless_the_id_is_required_too() {
    let no_policy = any("principal.hasTag(\"amr\")");
    let found = said(&no_policy, &github("required_claims = { repository = \"example/shop\" }"));
    let message = "[trusted_issuer.ci] required_claims goes by 'repository'; there is the claim 'repository_id'";
    assert_eq!(found, [("name-not-id", message.to_string())]);
    for (claims, is_found) in [
        ("repository_owner = [\"example\"]", true),
        ("\"/repository\" = { matches = \"example/.+\" }", true),
        ("email = \"a@example.com\"", true),
        ("email = \"a@example.com\", sub = \"8e7f\"", false),
        ("repository = \"example/shop\", repository_id = \"1\"", false),
        ("repository = \"example/shop\", \"/repository_id\" = [\"1\", \"2\"]", false),
        ("repository = \"example/shop\", repository_owner_id = \"1\"", true),
        ("repository = \"example/shop\", repository_id = { matches = \".+\" }", true),
        ("repository_id = \"1\", ref = \"refs/heads/main\"", false),
        // Their ids are in tokens only where they are asked for.
        ("organization_slug = \"example\", pipeline_slug = \"shop\"", false),
    ] {
        let found = rules(&no_policy, &github(&format!("required_claims = {{ {claims} }}")));
        assert_eq!(found.contains(&"name-not-id"), is_found, "{claims}: {found:?}");
    }
}

/// What is said of a pattern that tokens have to be like.
fn of_required(pattern: &str) -> Vec<&'static str> {
    let claim = format!("required_claims.ref = {{ matches = '{pattern}' }}");
    rules(&any("principal.hasTag(\"amr\")"), &github(&claim))
}

#[test]
fn patterns_that_take_more_than_is_meant_are_found() {
    for (rule, patterns) in [
        (
            "like-anything",
            &[
                ".*",
                ".+",
                "(.*)",
                "^.*$",
                "(?s).*",
                "(?:.|\\n)+",
                ".*.*",
                "..*",
                "\\S+",
                "main|.*",
                ".{1,200}",
                ".*x?",
                "[^\\s]*",
            ] as &[&str],
        ),
        (
            "like-unanchored",
            &[
                ".*@example\\.com",
                "^.+@example\\.com",
                "(.*)/main",
                "(?:.*\\.)?example\\.com",
                "main|.*/main",
                ".*main.*",
                "x?.*main",
                ".{0,64}main",
            ],
        ),
        (
            "like-open-end",
            &[
                "refs/heads/main.*",
                "refs/heads/(main.*)",
                "v[0-9].*",
                "main(?:.*)?",
                "(a|b-).*",
                "main[^/]*",
                "other/|main.*",
                "main/?.+",
                "example\\.com.*$",
                "main.{0,64}",
            ],
        ),
    ] {
        for pattern in patterns {
            assert_eq!(of_required(pattern), [rule], "{pattern}");
        }
    }
    for pattern in [
        "main|release",
        "refs/(heads|tags)/.+",
        "refs/heads/(.+)",
        "refs/heads/release/[0-9]+\\.[0-9]+",
        "repo:example/.*",
        "example#.*",
        "[0-9]+",
        "[^@]+@example\\.com",
        "main.?",
        ".main",
        ".{40}",
        "refs/[^/]+/main",
        "sha:.{40}",
        "x/.*/main",
    ] {
        assert_eq!(of_required(pattern), [""; 0], "{pattern}");
    }
    let found = said(&any("true"), &github("required_claims.ref = { matches = \".*x\" }"));
    let message = "[trusted_issuer.ci] required_claims.ref has the pattern \".*x\", which begins with anything";
    assert_eq!(found, [("like-unanchored", message.to_string())]);
}

#[test]
fn patterns_of_claims_count_where_more_is_permitted_by_them() {
    let of = |policies: &str, pattern: &str| {
        rules(policies, &github(&format!("claims.x = {{ from = \"ref\", matches = '{pattern}' }}")))
    };
    let has = any("principal.hasTag(\"x\")");
    let gets = any(&tag("x"));
    let other = any("principal.hasTag(\"amr\")");
    let forbids = other.clone()
        + "@id(\"f\") forbid (principal, action == Action::\"issue\", resource) when { principal.hasTag(\"x\") };";
    let unless = other.clone()
        + "@id(\"f\") forbid (principal, action == Action::\"issue\", resource) unless { principal.hasTag(\"x\") };";
    assert_eq!(of(&has, ".*/main"), ["like-unanchored"]);
    assert_eq!(of(&has, "(main.*)"), ["like-open-end"]);
    assert_eq!(of(&has, "refs/heads/(.+)"), [""; 0]);
    // What is seen is compared as a whole.
    assert_eq!(of(&gets, ".*/main"), [""; 0]);
    assert_eq!(of(&gets, "(main.*)"), [""; 0]);
    assert_eq!(of(&gets, ".*/(main|release)"), ["like-unanchored"]);
    assert_eq!(of(&gets, "refs/heads/(main|release).*"), ["like-open-end"]);
    // To forbid more is no danger.
    assert_eq!(of(&forbids, ".*/main"), [""; 0]);
    assert_eq!(of(&unless, ".*/main"), ["like-unanchored"]);
    assert_eq!(of(&other, ".*/main"), [""; 0]);
    // It says nothing in any case.
    for policies in [&has, &gets, &forbids, &other] {
        assert_eq!(of(policies, "(.*)"), ["like-anything"]);
    }
    let found = said(&has, &github("claims.x = { from = \"ref\", matches = \"main.*\" }"));
    let message = "[trusted_issuer.ci] claims.x has the pattern \"main.*\", which ends amid a name; the policy 'p' goes by it";
    assert_eq!(found, [("like-open-end", message.to_string())]);
}

#[test]
fn subjects_that_are_made_of_names_are_found() {
    let subject = |subject: &str| any(&format!("principal.subject == \"{subject}\""));
    let user = |id: &str| any(&format!("principal == User::\"{id}\""));
    let like = |pattern: &str| any(&format!("principal.subject like \"{pattern}\""));
    let main = "repo:example/shop:ref:refs/heads/main";
    let found = said(&subject(main), &github(""));
    let message = format!(
        "the policy 'p' goes by the subject \"{main}\", which is made of names; there is the claim 'repository_id', or 'repository_owner_id'"
    );
    assert_eq!(found, [("name-not-id", message)]);

    let other = |issuer: &str| table("ci", issuer, "");
    let server = "https://github.example.com/_services/token";
    let scope =
        any("true").replace("principal,", &format!("principal == User::\"{GITHUB}#{main}\","));
    assert!(scope.contains(main));
    for (policies, tables, is_found) in [
        (user(&format!("{GITHUB}#{main}")), github(""), true),
        (scope, github(""), true),
        (like("repo:example/*"), github(""), true),
        (like("repo:*/shop:*"), github(""), true),
        (like("repo:*"), github(""), false),
        (any(&format!("[\"{main}\"].contains(principal.subject)")), github(""), true),
        (any(&format!("context.scope.contains(\"{main}\")")), github(""), false),
        (subject("repository_owner:example"), github(""), true),
        (subject(main), other(server), true),
        (user(&format!("{server}#{main}")), other(server), true),
        (subject(main), other("https://token.actions.githubusercontent.com/example"), true),
        (subject(main), other("https://token.actions.example.ghe.com"), true),
        (subject(main), other(ISSUER), false),
        (user(&format!("{ISSUER}#{main}")), github("") + &table("b", ISSUER, ""), false),
        // With ids.
        (subject("repository_id:123:ref:refs/heads/main"), github(""), false),
        (subject("repo:example@12/shop@34:ref:refs/heads/main"), github(""), false),
        (like("repo:example@12/*"), github(""), false),
        (subject("repo:example/shop:repository_id:34"), github(""), false),
        (
            any(&format!("principal.subject == \"{main}\" && {}", tag("repository_id"))),
            github(""),
            false,
        ),
        (subject(main), github("required_claims.repository_owner_id = \"12\""), false),
        // By another name.
        (
            any(&tag("x")),
            github("claims.x = { from = \"sub\", matches = \"repo:example/([^:]+):.*\" }"),
            true,
        ),
        (
            any(&tag("x")),
            github("claims.x = { from = \"sub\", matches = \"repository_id:([0-9]+)\" }"),
            false,
        ),
        (
            any(&format!(
                "principal.hasTag(\"x\") && principal.getTag(\"x\").contains(\"{main}\")"
            )),
            github("claims.x = { from = \"sub\" }"),
            true,
        ),
        // GitLab's.
        (
            subject("project_path:example/shop:ref_type:branch:ref:main"),
            other("https://gitlab.example.com"),
            true,
        ),
        (like("project_path:example/*"), other("https://gitlab.com"), true),
        (
            any(&format!(
                "principal.subject like \"project_path:example/*\" && {}",
                tag("project_id")
            )),
            other("https://gitlab.com"),
            false,
        ),
    ] {
        let found = rules(&policies, &tables);
        assert_eq!(found.contains(&"name-not-id"), is_found, "{policies}\n{tables}\n{found:?}");
    }
}

#[test]
fn required_subjects_that_are_made_of_names_are_found() {
    let no_policy = any("principal.hasTag(\"amr\")");
    for (claims, is_found) in [
        ("sub = \"repo:example/shop:environment:production\"", true),
        ("\"/sub\" = [\"repo:example/shop:pull_request\"]", true),
        ("sub = { matches = \"repo:example/(a|b):.+\" }", true),
        ("sub = { matches = \"(?:other|repo:example/shop):.+\" }", true),
        ("sub = { matches = \"repo:example@12/.+\" }", false),
        ("sub = \"repository_owner_id:12:environment:production\"", false),
        ("sub = \"repo:example/shop:environment:production\", repository_id = \"34\"", false),
        ("sub = \"project_path:example/shop:ref_type:branch:ref:main\"", true),
        ("sub = \"project_path:example/shop:ref_type:branch:ref:main\", project_id = \"5\"", false),
    ] {
        let found = rules(&no_policy, &github(&format!("required_claims = {{ {claims} }}")));
        assert_eq!(found.contains(&"name-not-id"), is_found, "{claims}: {found:?}");
    }
    // A pattern is named once, as it is written.
    let pattern = "(?i)repo:example/(shop|web):.+";
    let claim = format!("required_claims.sub = {{ matches = \"{pattern}\" }}");
    let found = said(&no_policy, &github(&claim));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].1.contains(&format!("goes by the subject \"{pattern}\"")), "{found:?}");
}

#[test]
fn people_of_issuers_that_are_not_trusted_are_found() {
    let person = |name: &str, issuer: &str| {
        format!("[person.{name}]\nids = [{{ issuer = \"{issuer}\", subject = \"{name}\" }}]\n")
    };
    let typo = "https://tokens.actions.githubusercontent.com";
    let people = person("alice", GITHUB) + &person("bob", typo) + &person("carol", typo);
    let directory = Arc::new(directory_of(&people));
    let trusted: BTreeMap<String, TrustedIssuer> = toml::from_str(&github("")).unwrap();
    let roles = BTreeMap::from([("deploy".to_string(), role("read write", 3600))]);
    let source = Source { path: "policy.cedar".into(), text: any("true") };
    let world = World { directory: Some(&directory), ..world(&roles, &trusted) };
    let now = time::macros::datetime!(2026-01-01 12:00 UTC);
    let found = check(&[source], world, now).unwrap().into_iter();
    let found = found.filter(|finding| finding.rule == Rule::DirectoryIssuer);
    let said: Vec<_> = found.map(|finding| finding.message).collect();
    let expected =
        format!("the directory has ids at {typo}, which is not trusted: that of 'bob' and 1 more");
    assert_eq!(said, [expected]);
}
