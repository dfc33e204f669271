mod clients;
mod limits;
mod operations;

use std::path::PathBuf;
use std::sync::LazyLock;

use serde_json::json;

use super::*;
use crate::broker::authenticate::caller_tests::caller;
use crate::broker::config::{Clients, Notify, Role, TokenFormat, TrustedIssuer};
use crate::broker::told;
use crate::error::Result as LoadResult;
use crate::oidc::Issuer;

pub(super) const ISSUER: &str = "https://login.example.com";

fn set(text: &str) -> BTreeSet<String> {
    text.split_ascii_whitespace().map(String::from).collect()
}

pub(super) fn role(scopes: &str, ttl: u64) -> Role {
    Role {
        audiences: set("https://api.example.com"),
        scopes: set(scopes),
        max_ttl: Duration::from_secs(ttl),
        ends_with_token: false,
        dpop: Default::default(),
        token_format: TokenFormat::Jwt,
        ttl_jitter: Duration::ZERO,
        aws: None,
        claims: told::claims::Settings::default(),
        elevation: None,
    }
}

fn load(text: &str) -> LoadResult<Policy> {
    load_files(&[("policy.cedar", text)])
}

pub(super) fn trusted(issuers: &[&str]) -> BTreeMap<String, TrustedIssuer> {
    let trusted = |issuer: &&str| {
        let issuer = TrustedIssuer::new(Issuer::parse(issuer).unwrap());
        (issuer.issuer.as_str().to_string(), issuer)
    };
    issuers.iter().map(trusted).collect()
}

/// These roles and issuers, no clients, and no directory.
pub(super) fn world<'a>(
    roles: &'a BTreeMap<String, Role>,
    trusted: &'a BTreeMap<String, TrustedIssuer>,
) -> World<'a> {
    static OWN: LazyLock<Issuer> =
        LazyLock::new(|| Issuer::parse("https://broker.example.com").unwrap());
    static NONE: Clients = Clients::new();
    static UNTOLD: Notify = Notify::new();
    World { roles, trusted, clients: &NONE, own: &OWN, directory: None, notify: &UNTOLD }
}

/// Loads policies where these issuers are trusted.
fn load_among(issuers: &BTreeMap<String, TrustedIssuer>, text: &str) -> LoadResult<Policy> {
    let roles = BTreeMap::from([("deploy".to_string(), role("read write admin", 3600))]);
    let source = Source { path: "policy.cedar".into(), text: text.into() };
    Policy::load(&[source], world(&roles, issuers))
}

pub(super) fn load_files(files: &[(&str, &str)]) -> LoadResult<Policy> {
    let roles = BTreeMap::from([
        ("deploy".to_string(), role("read write admin", 3600)),
        ("reader".to_string(), role("", 3600)),
    ]);
    let sources: Vec<_> = files
        .iter()
        .map(|(path, text)| Source { path: PathBuf::from(path), text: text.to_string() })
        .collect();
    Policy::load(&sources, world(&roles, &trusted(&[ISSUER])))
}

fn refused(text: &str) -> String {
    load(text).unwrap_err().to_string()
}

/// A permit for the role `deploy`.
pub(super) fn permit(id: &str, annotations: &str, condition: &str) -> String {
    format!(
        "@id(\"{id}\")\n{annotations}\npermit (principal, action == Action::\"issue\", resource == Role::\"deploy\")\nwhen {{ {condition} }};\n"
    )
}

/// A permit to introspect tokens of the role `deploy`.
fn introspects(id: &str, annotations: &str, condition: &str) -> String {
    permit(id, annotations, condition).replace("\"issue\"", "\"introspect\"")
}

struct Asked<'a> {
    scope: Option<&'a str>,
    ttl: Option<u64>,
    claims: serde_json::Value,
    key_bound: bool,
    left: Duration,
}

const MOMENT: Moment = Moment {
    now: time::macros::datetime!(2026-01-02 12:00 UTC),
    source: std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7)),
};

const NOTHING: Asked<'static> = Asked {
    scope: None,
    ttl: None,
    claims: serde_json::Value::Null,
    key_bound: false,
    left: Duration::MAX,
};

fn decide(policy: &Policy, asked: Asked<'_>) -> Verdict {
    let claims = if asked.claims.is_null() { json!({}) } else { asked.claims };
    let caller = caller(ISSUER, "alice", claims).unwrap();
    let scope = asked.scope.map(set);
    policy.decide(
        &caller,
        &Question {
            role: "deploy",
            role_scopes: &set("read write admin"),
            role_ttl: Duration::from_secs(3600),
            key_bound: asked.key_bound,
            jwt: false,
            elevation: None,
            left: asked.left,
            audience: "https://api.example.com",
            scope: scope.as_ref(),
            ttl: asked.ttl.map(Duration::from_secs),
            moment: MOMENT,
        },
    )
}

fn granted(id: &str, ttl: u64, scope: &str) -> Verdict {
    Verdict::Granted(Granted {
        policy_id: id.into(),
        ttl: Duration::from_secs(ttl),
        scope: set(scope),
        obligations: BTreeSet::new(),
    })
}

#[test]
fn what_nothing_permits_is_denied() {
    let policy =
        load(&permit("p", "@ttl(\"15m\")", "false || principal.subject == \"bob\"")).unwrap();
    assert_eq!(decide(&policy, NOTHING), Verdict::Denied { forbidden_by: None });
}

#[test]
fn a_forbid_wins_and_is_named() {
    let text = format!(
        "{}@id(\"no-alice\")\nforbid (principal == User::\"{ISSUER}#alice\", action, resource);",
        permit("p", "@ttl(\"15m\")", "true")
    );
    let policy = load(&text).unwrap();
    let denied = Verdict::Denied { forbidden_by: Some("no-alice".into()) };
    assert_eq!(decide(&policy, NOTHING), denied);
}

#[test]
fn to_be_issued_a_token_is_not_to_be_told_about_others() {
    let api = "https://api.example.com";
    let issue = permit("p", "@ttl(\"15m\")", "true");
    let asks = |text: &str, audience: &str| {
        let caller = caller(ISSUER, "alice", json!({"groups": ["api"]})).unwrap();
        load(&[issue.as_str(), text].concat())
            .unwrap()
            .may_introspect(&caller, "deploy", audience, MOMENT)
    };
    assert_eq!(asks("", api), Ok(false));
    let own = introspects("i", "", &format!("context.audience == \"{api}\""));
    assert_eq!(asks(&own, api), Ok(true));
    assert_eq!(asks(&own, "https://other.example.com"), Ok(false));
    let forbidden =
        format!("{own}@id(\"f\") forbid (principal in Group::\"{ISSUER}#api\", action, resource);");
    assert_eq!(asks(&forbidden, api), Ok(false));
    let fails = format!(
        "{own}@id(\"f\") forbid (principal, action == Action::\"introspect\", resource) \
         when {{ 9223372036854775807 + 1 == (if context.audience == \"\" then 1 else 2) }};"
    );
    assert!(asks(&fails, api).is_err());
    // And the other way round.
    let policy = load(
        &[
            introspects("i", "", "true"),
            permit("p", "@ttl(\"1m\")", "principal.subject == \"bob\""),
        ]
        .concat(),
    );
    assert_eq!(decide(&policy.unwrap(), NOTHING), Verdict::Denied { forbidden_by: None });
}

#[test]
fn the_least_ttl_counts() {
    let at = |permit_ttl: &str, asked| {
        let policy = load(&permit("p", &format!("@ttl(\"{permit_ttl}\")"), "true")).unwrap();
        match decide(&policy, Asked { ttl: asked, ..NOTHING }) {
            Verdict::Granted(granted) => granted.ttl.as_secs(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(at("15m", None), 900);
    assert_eq!(at("15m", Some(60)), 60);
    assert_eq!(at("15m", Some(7200)), 900);
    assert_eq!(at("15m", Some(u64::MAX)), 900);
    assert_eq!(at("2h", None), 3600, "the role's own limit");
    assert_eq!(at("2h", Some(5400)), 3600);
}

#[test]
fn limits_of_several_permits_are_never_mixed() {
    let text = [
        permit("long-and-narrow", "@ttl(\"1h\") @scope(\"read\")", "true"),
        permit("short-and-wide", "@ttl(\"5m\") @scope(\"read write\")", "true"),
    ]
    .concat();
    let policy = load(&text).unwrap();
    let ask = |scope| decide(&policy, Asked { scope, ..NOTHING });
    assert_eq!(ask(Some("read")), granted("long-and-narrow", 3600, "read"));
    assert_eq!(ask(Some("write")), granted("short-and-wide", 300, "write"));
    assert_eq!(ask(Some("read write")), granted("short-and-wide", 300, "read write"));
    assert_eq!(ask(None), granted("long-and-narrow", 3600, "read"));
    // Together they would have all of it; alone none of them has.
    let text = [
        permit("a", "@ttl(\"1h\") @scope(\"read\")", "true"),
        permit("b", "@ttl(\"1h\") @scope(\"write\")", "true"),
    ]
    .concat();
    let policy = load(&text).unwrap();
    let both = Asked { scope: Some("read write"), ..NOTHING };
    assert_eq!(decide(&policy, both), Verdict::ScopeDenied);
}

#[test]
fn among_equals_the_first_by_id_is_taken() {
    let text =
        ["c", "a", "b"].map(|id| permit(id, "@ttl(\"1h\") @scope(\"read\")", "true")).concat();
    assert_eq!(decide(&load(&text).unwrap(), NOTHING), granted("a", 3600, "read"));
}

#[test]
fn a_permit_that_does_not_apply_lends_nothing() {
    let text = [
        permit("mine", "@ttl(\"5m\") @scope(\"read\")", "true"),
        permit("others", "@ttl(\"1h\") @scope(\"read write\")", "principal.subject == \"bob\""),
    ]
    .concat();
    let policy = load(&text).unwrap();
    assert_eq!(decide(&policy, NOTHING), granted("mine", 300, "read"));
    let write = Asked { scope: Some("write"), ..NOTHING };
    assert_eq!(decide(&policy, write), Verdict::ScopeDenied);
}

#[test]
fn a_permit_without_scope_grants_none() {
    let policy = load(&permit("p", "@ttl(\"5m\")", "true")).unwrap();
    assert_eq!(decide(&policy, NOTHING), granted("p", 300, ""));
    let read = Asked { scope: Some("read"), ..NOTHING };
    assert_eq!(decide(&policy, read), Verdict::ScopeDenied);
}

#[test]
fn scopes_are_compared_whole() {
    let policy = load(&permit("p", "@ttl(\"5m\") @scope(\"read\")", "true")).unwrap();
    for other in ["Read", "rea", "read*", "*", "read,write"] {
        let asked = Asked { scope: Some(other), ..NOTHING };
        assert_eq!(decide(&policy, asked), Verdict::ScopeDenied, "{other}");
    }
}

#[test]
fn groups_and_claims_decide() {
    let condition = format!(
        "principal in Group::\"{ISSUER}#platform\" && principal.hasTag(\"amr\") && principal.getTag(\"amr\").contains(\"mfa\")"
    );
    let policy = load(&permit("p", "@ttl(\"5m\")", &condition)).unwrap();
    let ask = |claims| decide(&policy, Asked { claims, ..NOTHING });
    let denied = Verdict::Denied { forbidden_by: None };
    assert_eq!(ask(json!({"groups": ["platform"], "amr": ["pwd", "mfa"]})), granted("p", 300, ""));
    assert_eq!(ask(json!({"groups": ["Platform"], "amr": ["mfa"]})), denied);
    assert_eq!(ask(json!({"groups": ["platform"], "amr": ["pwd"]})), denied);
    assert_eq!(ask(json!({"groups": ["platform"]})), denied);
    assert_eq!(ask(json!({"amr": ["mfa"]})), denied);
}

#[test]
fn the_context_has_what_is_asked_for_or_all_that_could_be_had() {
    let condition = "context.audience == \"https://api.example.com\" && context.ttl <= 600 && [\"read\"].containsAll(context.scope)";
    let policy = load(&permit("p", "@ttl(\"1h\") @scope(\"read\")", condition)).unwrap();
    let ask = |scope, ttl| decide(&policy, Asked { scope, ttl, ..NOTHING });
    let denied = Verdict::Denied { forbidden_by: None };
    assert_eq!(ask(Some("read"), Some(600)), granted("p", 600, "read"));
    assert_eq!(ask(Some("read"), Some(601)), denied);
    assert_eq!(ask(Some("read"), None), denied, "an hour could be had");
    assert_eq!(ask(None, Some(600)), denied, "more scope could be had");
}

#[test]
fn a_policy_that_fails_denies() {
    // Overflow is what the validator cannot rule out.
    let text = [
        permit("p", "@ttl(\"5m\")", "true"),
        "@id(\"f\") forbid (principal, action == Action::\"issue\", resource) when { context.ttl * 9223372036854775807 > 5 };".into(),
    ]
    .concat();
    let policy = load(&text).unwrap();
    assert!(matches!(decide(&policy, NOTHING), Verdict::Failed { .. }));
}

#[test]
fn broken_policies_are_refused_with_their_place() {
    let p = |annotations: &str, condition: &str| permit("p", annotations, condition);
    for (text, says) in [
        ("permit (principal, action, resource)".to_string(), "policy.cedar:1:37"),
        (format!("{}\npermit (principal, action", p("@ttl(\"5m\")", "true")), "policy.cedar:6:26"),
        (p("@ttl(\"5m\")", "principal.email == \"a\""), "policy.cedar:4:8"),
        (p("@ttl(\"5m\")", "principal.email == \"a\""), "email"),
        (p("@ttl(\"5m\")", "context.ttl == \"a\""), "policy.cedar:4:"),
        (p("@ttl(\"5m\")", "principal.getTag(\"hd\").contains(\"x\")"), "tag"),
        (p("@ttl(\"5m\")", "principal in Grupe::\"x\""), "Grupe"),
        (p("@ttl(\"5m\")", "resource == principal"), "policy is impossible"),
        (p("", "true"), "policy.cedar:1:5: the permit 'p' has no @ttl"),
        (
            p("@ttl(\"5m\")", "if context.ttl > 1 then context.actors.isEmpty() else true"),
            "the permit 'p' looks at context.actors",
        ),
        (p("@ttl(\"5m\")", "context has actors"), "the permit 'p' looks at context.actors"),
        (p("@ttl(\"soon\")", "true"), "'soon' is not a duration"),
        (p("@ttl(\"0s\")", "true"), "@ttl of 0s"),
        (p("@ttl(\"25h\")", "true"), "@ttl of 1 day 1h"),
        (p("@ttl(\"5m\") @scopes(\"read\")", "true"), "unknown annotation @scopes"),
        (p("@ttl(\"5m\") @scope(\"raed\")", "true"), "'raed', which no role has"),
        (p("@ttl(\"5m\")", "true").replace("@id(\"p\")", ""), "has no @id"),
        (
            [p("@ttl(\"5m\")", "true"), permit("", "@ttl(\"6m\")", "true")]
                .join("\n")
                .replace("@id(\"\")", ""),
            "policy.cedar:7:1: a policy has no @id",
        ),
        (
            format!(
                "{}\n@id(\"t\") permit (principal == ?principal, action, resource);",
                p("@ttl(\"5m\")", "true")
            ),
            "policy.cedar:6:1: templates are not supported",
        ),
        (p("@ttl(\"5m\")", "true").repeat(2), "another policy with the id 'p'"),
        (p("@ttl(\"5m\")", "true").replace("deploy", "depoly"), "Role::\"depoly\", which is not"),
        (p("@ttl(\"5m\")", "principal == User::\"alice\""), "does not begin with a trusted issuer"),
        (
            p("@ttl(\"5m\")", "principal in Group::\"https://other.example#g\""),
            "does not begin with a trusted issuer",
        ),
        (
            p("@ttl(\"5m\")", "principal in Group::\"https://login.example.com#summer interns\""),
            "callers have it as Group::\"https://login.example.com#summer%20interns\"",
        ),
        (
            "@id(\"f\") forbid (principal == User::\"https://login.example.com#auth0|eve\", action, resource);"
                .into(),
            "callers have it as User::\"https://login.example.com#auth0%7Ceve\"",
        ),
        (p("@ttl(\"5m\")", "true").replace("\"issue\"", "\"isue\""), "isue"),
        (
            "@id(\"f\") @ttl(\"5m\") forbid (principal, action, resource);".into(),
            "cannot have @ttl",
        ),
        ("@id(\"f\") forbid (principal, action, resource);".into(), "there is no permit"),
        (introspects("i", "", "true"), "there is no permit to issue"),
        (introspects("i", "@ttl(\"5m\")", "true"), "'i' grants no token, so it cannot have @ttl"),
        (introspects("i", "@scope(\"read\")", "true"), "cannot have @scope"),
        (introspects("i", "", "context.ttl > 1"), "ttl"),
        (
            p("@ttl(\"5m\")", "true").replace("action == Action::\"issue\"", "action"),
            "'p' has to name the one action that it is for",
        ),
        (
            p("@ttl(\"5m\")", "true")
                .replace("== Action::\"issue\"", "in [Action::\"issue\", Action::\"introspect\"]"),
            "has to name the one action",
        ),
        (String::new(), "there is no permit"),
        ("@id(\"t\") permit (principal == ?principal, action, resource);".into(), "templates"),
        ("\u{0}\u{1f512}".into(), "policy.cedar:1:1"),
    ] {
        let error = refused(&text);
        assert!(error.contains(says), "{text}\n{error}");
    }
}

#[test]
fn every_mistake_is_named_with_its_own_file() {
    let good = permit("good", "@ttl(\"5m\")", "true");
    let bad = permit("bad", "@ttl(\"5m\")", "principal.nope == 1");
    let worse = permit("worse", "@ttl(\"5m\")", "context.nope == 1");
    let error = load_files(&[("a.cedar", &good), ("b.cedar", &bad), ("c.cedar", &worse)]);
    let causes = error.unwrap_err().causes().join("\n");
    assert!(causes.contains("b.cedar:4:") && causes.contains("c.cedar:4:"), "{causes}");
    assert!(!causes.contains("a.cedar"), "{causes}");
}

#[test]
fn a_source_that_is_no_text_or_not_there_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.cedar");
    assert!(Source::read(&path).unwrap_err().to_string().contains("no such file"));
    crate::host::files::write_private(&path, &[0xff, 0xfe]).unwrap();
    assert!(Source::read(&path).unwrap_err().to_string().contains("not a text file"));
    crate::host::files::write_private(&path, "\u{feff}permit".as_bytes()).unwrap();
    assert_eq!(Source::read(&path).unwrap().text, "permit");
}

#[test]
fn the_hash_tells_versions_apart() {
    let (a, b) = (permit("p", "@ttl(\"5m\")", "true"), permit("p", "@ttl(\"6m\")", "true"));
    assert_eq!(load(&a).unwrap().hash(), load(&a).unwrap().hash());
    assert_ne!(load(&a).unwrap().hash(), load(&b).unwrap().hash());
    assert_eq!(load(&a).unwrap().hash().len(), 64);
}

#[test]
fn the_hash_tells_apart_what_is_required_of_tokens() {
    let text = permit("p", "@ttl(\"5m\")", "true");
    let hash = |change: &dyn Fn(&mut TrustedIssuer)| {
        let mut issuers = trusted(&[ISSUER]);
        issuers.values_mut().for_each(change);
        load_among(&issuers, &text).unwrap().hash().to_string()
    };
    let same = hash(&|_| {});
    assert_eq!(same, hash(&|_| {}));
    for change in [
        &(|i: &mut TrustedIssuer| i.groups_claim = "roles".into()) as &dyn Fn(&mut TrustedIssuer),
        &|i| i.clients = Some(set("cli")),
        &|i| i.audiences = Some(set("api")),
        &|i| i.groups_required = true,
        &|i| i.ends_with_token = true,
        &|i| i.people = true,
        &|i| {
            let claim = crate::broker::config::RequiredClaim::Text("x".into());
            i.required_claims.insert("hd".into(), claim);
        },
    ] {
        assert_ne!(same, hash(change));
    }
}

#[test]
fn among_several_issuers_a_permit_names_one_or_says_that_it_does_not() {
    let several = trusted(&[ISSUER, "https://ci.example.com"]);
    let open = permit("p", "@ttl(\"5m\")", "principal.hasTag(\"amr\")");
    assert!(load(&open).is_ok(), "there is just one");
    let error = load_among(&several, &open).unwrap_err().to_string();
    assert!(error.contains("policy.cedar:1:5: the permit 'p' is for callers of every"), "{error}");
    let meant = permit("p", "@ttl(\"5m\") @any_issuer", "true");
    assert!(load_among(&several, &meant).is_ok());
    let named = permit("p", "@ttl(\"5m\")", &format!("principal.issuer == \"{ISSUER}\""));
    assert!(load_among(&several, &named).is_ok());
    let asks = named.clone() + &introspects("i", "", "true");
    assert!(load_among(&several, &asks).unwrap_err().to_string().contains("the permit 'i' is for"));
    let forbids = named
        + "@id(\"f\") forbid (principal, action, resource) when { principal.subject == \"x\" };";
    assert!(load_among(&several, &forbids).is_ok(), "to forbid more is no danger");
    let error = refused(&forbids.replace("@id(\"f\")", "@id(\"f\") @any_issuer"));
    assert!(error.contains("'f' forbids, so it cannot have @any_issuer"), "{error}");
}
