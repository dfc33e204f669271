use std::time::Duration;

use proptest::prelude::*;

use super::{Plan, Request, identity, plan};
use crate::config::{Config, parse};
use crate::error::ErrorKind;
use crate::identity::{Candidate, Readiness, Settings};

const BASE: &str = r#"
[identity.corp]
type = "oidc"
issuer = "https://login.example.com"
client_id = "x"
[broker.main]
url = "https://broker.example.com"
"#;

fn config(text: &str) -> Config {
    parse("f.toml", &format!("{BASE}{text}")).unwrap()
}

fn planned(config: &Config, profile: &str) -> Plan {
    plan(&Request { profile: Some(profile.into()), ..Request::default() }, config).unwrap()
}

#[test]
fn a_role_that_no_broker_can_have_is_refused_before_one_is_asked() {
    let config = config("[profile.a]\nrole = 'a'\naudience = 'https://a.example'\n");
    let long = "r".repeat(65);
    for bad in ["prod admin", "-x", "é", "a/b", &long] {
        let request =
            Request { profile: Some("a".into()), role: Some(bad.into()), ..Request::default() };
        let error = plan(&request, &config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
        assert_eq!(error.message(), "`--role` cannot be used here");
        assert!(error.hints()[0].contains("at most 64 letters"), "{error:?}");
    }
    for text in ["role = 'prod admin'", "role = 'a'\nexchange = [{ role = 'prod admin' }]"] {
        let text = format!("{BASE}[profile.a]\naudience = 'https://a.example'\n{text}\n");
        let request = Request { profile: Some("a".into()), ..Request::default() };
        let error = parse("f.toml", &text).and_then(|config| plan(&request, &config)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("no broker has a role of such a name"), "{error}");
    }
}

#[test]
fn the_only_identity_needs_no_name_and_several_do() {
    let one = config("");
    assert_eq!(identity(&one, None).unwrap().name, "corp");
    assert_eq!(identity(&one, Some("corp")).unwrap().name, "corp");
    let error = identity(&one, Some("crop")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(error.message(), "there is no identity `crop`");
    assert!(error.hints()[0].contains("did you mean `corp`?"), "{error:?}");
    assert!(error.causes().is_empty(), "an argument has no place in a file: {error}");

    let two =
        config("[identity.home]\ntype = 'oidc'\nissuer = 'https://h.example'\nclient_id = 'x'\n");
    let error = identity(&two, None).unwrap_err();
    assert!(error.message().contains("`corp`, `home`"), "{error}");
    assert_eq!(identity(&two, Some("home")).unwrap().name, "home");

    let none = parse("f.toml", "").unwrap();
    let error = identity(&none, None).unwrap_err();
    assert!(error.message().contains("no identity is configured"), "{error}");
    assert!(error.hints()[0].contains("tmpcred config init"), "{error:?}");
}

/// Plans the profile `a`, of this configuration, where these identities are ready,
/// absent or misconfigured.
fn detected(text: &str, states: &[(&str, Readiness)]) -> crate::error::Result<Plan> {
    let config = config(&format!(
        "[identity.home]\ntype = 'oidc'\nissuer = 'https://h.example'\nclient_id = 'x'\n\
         [profile.a]\nrole = 'a'\naudience = 'https://a.example'\n{text}"
    ));
    let candidate = |(name, readiness): &(&str, Readiness)| Candidate {
        name: name.to_string(),
        settings: config.identities[*name].clone(),
        readiness: readiness.clone(),
    };
    let detected = states.iter().map(candidate).collect();
    plan(&Request { profile: Some("a".into()), detected, ..Request::default() }, &config)
}

#[test]
fn where_no_identity_is_named_the_only_one_that_is_ready_is_used() {
    let ready = || Readiness::Ready("it is set".into());
    let absent = || Readiness::Absent("it is not set".into());
    let broken = || Readiness::Misconfigured { why: "it is bad".into(), hint: "mend it".into() };

    let found = detected("", &[("corp", absent()), ("home", ready())]).unwrap();
    assert_eq!(found.identity.name, "home");
    let reason = found.reasons.iter().find(|reason| reason.what == "identity").unwrap();
    assert_eq!(reason.origin, "the only one that is ready here: it is set");

    let named = detected("identity = 'corp'\n", &[("corp", absent()), ("home", ready())]).unwrap();
    assert_eq!(named.identity.name, "corp");

    let error = detected("", &[("corp", ready()), ("home", ready())]).unwrap_err();
    assert!(error.message().contains("`corp`, `home` are ready here"), "{error}");
    assert!(error.hints()[0].contains("`identity = \"corp\"` in `[profile.a]`"), "{error:?}");

    let error = detected("", &[("corp", absent()), ("home", absent())]).unwrap_err();
    assert_eq!(error.causes(), ["`corp`: it is not set", "`home`: it is not set"]);

    let error = detected("", &[("corp", broken()), ("home", ready())]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(
        (error.causes(), error.hints()),
        (&["it is bad".into()][..], &["mend it".into()][..])
    );
}

#[test]
fn how_long_a_credential_lasts_by_itself_is_what_its_target_gives() {
    let role = "arn:aws:iam::111122223333:role/x";
    let ttl = |role: &str, target: &str| {
        let config = config(&format!(
            "[identity.keys]\ntype = 'aws-keys'\n\
             [profile.a]\nidentity = 'keys'\nrole = '{role}'\ntarget = {{ type = 'aws'{target} }}\n"
        ));
        let reasons = planned(&config, "a").reasons;
        reasons.into_iter().find(|reason| reason.what == "ttl").unwrap().value
    };
    let (user, chain) =
        ("arn:aws:iam::111122223333:user/x", format!(", chain = [{{ role_arn = '{role}' }}]"));
    assert_eq!(ttl(role, ""), "1h");
    assert_eq!(ttl(role, &chain), "1h");
    assert_eq!(ttl(user, ""), "12h");
    assert_eq!(ttl(user, &chain), "1h");
}

#[test]
fn what_is_extended_is_taken_over_unless_said_otherwise() {
    let config = config(
        "[profile.a]\nrole = 'a'\nscope = ['x', 'y']\naudience = 'https://a.example'\nttl = '1h'\n\
         env = { A = 'a', B = 'a' }\nexchange = [{ role = 'hop' }]\n\
         [profile.b]\nextends = 'a'\nttl = '5m'\n\
         [profile.c]\nextends = 'b'\nscope = []\nexchange = []\nenv = { B = 'c' }\n",
    );
    let plan = planned(&config, "c");
    assert_eq!(plan.request.role, "a");
    assert_eq!(plan.request.ttl, Some(Duration::from_secs(300)));
    assert_eq!(plan.request.scope, Vec::<String>::new());
    assert!(plan.exchanges.is_empty());
    let env: Vec<_> = plan.env.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(env, [("A", "a"), ("B", "c")]);
    assert_eq!(planned(&config, "b").exchanges.len(), 1);
}

#[test]
fn every_step_yields_what_the_next_one_wants() {
    let config = config(
        "[broker.edge]\nurl = 'https://edge.example'\n[broker.hop]\nurl = 'https://hop.example'\naudience = 'hop'\n\
         [profile.a]\nrole = 'a'\naudience = 'https://a.example'\ntarget = { broker = 'main' }\n\
         exchange = [{ broker = 'edge', role = '1' }, { broker = 'hop', role = '2', scope = ['s'] }]\n",
    );
    let plan = planned(&config, "a");
    let steps: Vec<_> =
        plan.exchanges.iter().map(|e| (e.role.as_str(), e.audience.as_str())).collect();
    assert_eq!(steps, [("1", "hop"), ("2", "https://broker.example.com")]);
    assert_eq!(plan.exchanges[1].scope, ["s"]);
}

#[test]
fn options_that_make_no_sense_are_usage_errors() {
    let config = config("[profile.a]\nrole = 'a'\naudience = 'https://a.example'\n");
    let request = |change: fn(&mut Request)| {
        let mut request = Request { profile: Some("a".into()), ..Request::default() };
        change(&mut request);
        plan(&request, &config).unwrap_err()
    };
    for error in [
        request(|r| r.ttl = Some(Duration::ZERO)),
        request(|r| r.ttl = Some(Duration::from_millis(1500))),
        request(|r| r.ttl = Some(Duration::MAX)),
        request(|r| r.role = Some(" ".into())),
        request(|r| r.audience = Some(String::new())),
        request(|r| r.scope = vec!["a b".into()]),
    ] {
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    }
}

/// All that changes what a credential means.
#[derive(Clone, Debug, PartialEq)]
struct Meaning {
    role: String,
    ttl: Option<u64>,
    audience: String,
    scope: Vec<String>,
    issuer: String,
    client: String,
    broker: String,
    hops: Vec<(String, String, Vec<String>)>,
}

/// And what does not.
#[derive(Clone, Debug)]
struct Dress {
    name: String,
    env: Option<String>,
    extends: bool,
    selectable: bool,
}

impl Meaning {
    fn plan(&self, dress: &Dress) -> Plan {
        let list = |items: &[String]| format!("{items:?}");
        let hops: Vec<_> = self
            .hops
            .iter()
            .map(|(role, audience, scope)| {
                format!("{{ role = '{role}', audience = '{audience}', scope = {} }}", list(scope))
            })
            .collect();
        let ttl = self.ttl.map_or(String::new(), |ttl| format!("ttl = '{ttl}s'\n"));
        let body = format!(
            "role = '{}'\naudience = '{}'\nscope = {}\n{ttl}exchange = [{}]\n",
            self.role,
            self.audience,
            list(&self.scope),
            hops.join(", ")
        );
        let env = dress.env.as_ref().map_or(String::new(), |v| format!("env = {{ A = '{v}' }}\n"));
        let selectable = format!("project_selectable = {}\n", dress.selectable);
        let name = &dress.name;
        let profiles = match dress.extends {
            true => format!(
                "[profile.'{name}']\nextends = 'base'\n{env}{selectable}[profile.base]\n{body}"
            ),
            false => format!("[profile.'{name}']\n{body}{env}{selectable}"),
        };
        let text = format!(
            "[identity.'{name}']\ntype = 'oidc'\nissuer = '{}'\nclient_id = '{}'\n\
             [broker.'{name}']\nurl = '{}'\n{profiles}",
            self.issuer, self.client, self.broker
        );
        planned(&parse("f.toml", &text).unwrap(), name)
    }
}

fn word() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "ab"]).prop_map(String::from)
}

fn words() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(word(), 0..3)
}

fn address() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["https://a.example", "https://a.example/", "https://b.example"])
        .prop_map(String::from)
}

prop_compose! {
    fn meaning()(
        role in word(),
        ttl in prop::option::of(1u64..4),
        audience in word(),
        scope in words(),
        issuer in address(),
        client in word(),
        broker in address(),
        hops in prop::collection::vec((word(), word(), words()), 0..3),
    ) -> Meaning {
        Meaning { role, ttl, audience, scope, issuer, client, broker, hops }
    }
}

prop_compose! {
    fn dress()(
        name in prop::sample::select(vec!["x", "y.z", "a-b"]),
        env in prop::option::of(word()),
        extends in any::<bool>(),
        selectable in any::<bool>(),
    ) -> Dress {
        Dress { name: name.into(), env, extends, selectable }
    }
}

/// One part of a meaning, changed.
fn changed(meaning: &Meaning, part: usize) -> Meaning {
    let mut other = meaning.clone();
    match part {
        0 => other.role.push('x'),
        1 => other.ttl = Some(other.ttl.unwrap_or(9) + 1),
        2 => other.audience.push('!'),
        3 => other.scope.push("c".into()),
        4 => other.issuer.push('x'),
        5 => other.client.push('!'),
        6 => other.broker.push('x'),
        _ => other.hops.push(("h".into(), "h".into(), Vec::new())),
    }
    other
}

proptest! {
    /// The one thing that the cache's key rests on.
    #[test]
    fn fingerprints_are_the_same_exactly_where_the_meaning_is(
        one in meaning(), two in meaning(), part in 0..8usize, dresses in (dress(), dress()),
    ) {
        let first = one.plan(&dresses.0).fingerprint();
        prop_assert!(!first.is_empty());
        prop_assert_eq!(&first, &one.plan(&dresses.1).fingerprint());
        prop_assert_ne!(&first, &changed(&one, part).plan(&dresses.0).fingerprint());
        prop_assert_eq!(one == two, first == two.plan(&dresses.1).fingerprint());
    }
}

#[cfg(unix)]
#[test]
fn a_path_that_is_no_text_still_counts() {
    use std::os::unix::ffi::OsStringExt;
    let config = config("[profile.a]\nrole = 'a'\naudience = 'https://a.example'\n");
    let with = |byte| {
        let mut plan = planned(&config, "a");
        let Settings::Oidc(settings) = &mut plan.identity.settings else { unreachable!() };
        settings.ca_file = Some(std::ffi::OsString::from_vec(vec![byte]).into());
        plan.fingerprint()
    };
    assert!(!with(0xff).is_empty());
    assert_ne!(with(0xff), with(0xfe));
}

#[test]
fn where_a_broker_is_found_is_no_part_of_the_meaning() {
    let with = |broker: &str| {
        let text = format!(
            "{}[profile.a]\nrole = 'a'\naudience = 'https://a.example'\n",
            BASE.replace("url = \"https://broker.example.com\"", broker)
        );
        planned(&parse("f.toml", &text).unwrap(), "a")
    };
    let (one, a) = ("https://broker.example.com", "https://a.example");
    let meaning = with(&format!("url = '{one}'")).fingerprint();
    for same in [
        format!("url = ['{one}']"),
        format!("url = ['{one}', '{a}']"),
        format!("url = ['{one}', 'https://b.example', '{a}']"),
        format!("url = ['{a}', '{one}']\nissuer = '{one}'"),
        format!("url = '{a}'\nissuer = '{one}'"),
    ] {
        let plan = with(&same);
        assert_eq!(plan.fingerprint(), meaning, "{same}");
        assert_eq!(plan.assertion_audience(), one, "{same}");
    }
    for other in [format!("url = ['{a}', '{one}']"), format!("url = '{one}'\nissuer = '{a}'")] {
        assert_ne!(with(&other).fingerprint(), meaning, "{other}");
    }
}

#[test]
fn a_role_that_is_had_under_a_grant_is_that_of_the_broker_on_the_way() {
    let config = config(
        r#"
[profile.api]
role = "deploy"
audience = "https://a.example"
[profile.prod]
exchange = [{ role = "aws-deploy" }]
role = "arn:aws:iam::123456789012:role/deploy"
target = { type = "aws" }
[profile.twice]
extends = "prod"
exchange = [{ role = "one", audience = "https://a.example" }, { role = "two" }]
[profile.bare]
extends = "prod"
exchange = []
"#,
    );
    let elevated = |profile: &str, role: &str| {
        let (profile, elevate) = (Some(profile.into()), Some(role.into()));
        plan(&Request { profile, elevate, ..Request::default() }, &config)
    };
    let api = elevated("api", "admin").unwrap();
    assert_eq!((api.request.role.as_str(), api.at_broker()), ("admin", Some(api.clone())));
    let prod = elevated("prod", "admin").unwrap();
    assert!(prod.request.role.ends_with(":role/deploy"));
    assert_eq!(prod.exchanges[0].role, "admin");
    let asks = prod.at_broker().unwrap();
    assert_eq!(
        (asks.request.role.as_str(), asks.request.audience.as_str()),
        ("admin", "sts.amazonaws.com")
    );
    assert_eq!(asks.assertion_audience(), prod.assertion_audience());
    // Of one run, and so never another run's.
    let grant = uuid::Uuid::from_u128(7);
    assert_eq!(prod.clone().under(grant).exchanges[0].elevation, Some(grant));
    assert_eq!(api.clone().under(grant).request.elevation, Some(grant));
    assert_ne!(prod.clone().under(grant).fingerprint(), prod.fingerprint());
    for (profile, says) in [("twice", "has 2 exchanges"), ("bare", "no broker is asked")] {
        let error = elevated(profile, "admin").unwrap_err();
        assert!(error.to_string().contains(says) && !error.hints().is_empty(), "{error}");
    }
    let error = elevated("prod", "-x").unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::Usage, "`--elevate` cannot be used like this")
    );
}
