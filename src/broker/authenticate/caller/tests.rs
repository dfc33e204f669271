use serde_json::json;
use time::macros::datetime;

use super::super::names::tests::usual;
use super::*;

/// A caller with these claims besides issuer and subject.
pub(crate) fn caller(issuer: &str, subject: &str, more: Value) -> Result<Caller> {
    Caller::new(claims(issuer, subject, &[], more), &usual(), "cli".into())
}

fn claims(issuer: &str, subject: &str, audience: &[&str], more: Value) -> Claims {
    Claims {
        principal: Principal { issuer: issuer.into(), subject: subject.into() },
        audience: audience.iter().map(|one| one.to_string()).collect(),
        issued_at: None,
        expires_at: datetime!(2026-01-01 12:00 UTC),
        all: more.as_object().unwrap().clone(),
    }
}

#[test]
fn the_id_that_callers_have_is_found_for_what_somebody_wrote() {
    let issuer = "https://i.example";
    for name in ["auth0|mallory", "summer interns", "a#b", "50%", "é", "a%zz"] {
        let id = caller(issuer, name, json!({})).unwrap().id;
        assert_eq!(respelled(&format!("{issuer}#{name}")), Some(id.clone()), "{name}");
        assert_eq!(respelled(&id), None, "{id}");
    }
    for good in ["alice", "repo:octo/app:ref:refs/heads/main", "a@b.example", "a%7Cb"] {
        assert_eq!(respelled(&format!("{issuer}#{good}")), None, "{good}");
    }
    // What decodes to no text is no encoding.
    assert_eq!(respelled("https://i.example#%ff").unwrap(), "https://i.example#%25ff");
    assert_eq!(respelled("https://i.example#a%7cb").unwrap(), "https://i.example#a%7Cb");
}

#[test]
fn names_with_control_characters_are_refused() {
    for name in ["a\0", "a\nb", "\u{1b}[2J", "\u{85}"] {
        let error = caller("https://i.example", name, json!({})).unwrap_err().to_string();
        assert!(error.contains("control characters"), "{error}");
    }
}

#[test]
fn different_principals_never_share_an_id() {
    let names = ["a", "A", "a b", "a%20b", "a+b", "a#b", "a|b", "a%7Cb", "é", "e\u{301}", "#", "%"];
    let issuers = ["https://i.example", "https://i.example/", "https://i.example/a"];
    let mut ids = BTreeSet::new();
    for issuer in issuers {
        for name in names {
            let id = caller(issuer, name, json!({})).unwrap().id;
            assert_eq!(id.matches('#').count(), 1, "{id}");
            assert!(url::Url::parse(&id).is_ok() && id.is_ascii(), "{id}");
            assert!(ids.insert(id));
        }
    }
    let id = caller("https://i.example", "repo:acme/app:ref:refs/heads/main", json!({}));
    assert_eq!(id.unwrap().id, "https://i.example#repo:acme/app:ref:refs/heads/main");
}

#[test]
fn groups_are_those_of_their_issuer() {
    let a = caller("https://a.example", "x", json!({"groups": ["admins", "Admins"]})).unwrap();
    let b = caller("https://b.example", "x", json!({"groups": "admins"})).unwrap();
    assert!(a.groups.contains("https://a.example#admins") && a.groups.len() == 2);
    assert!(a.groups.is_disjoint(&b.groups));
    assert!(caller("https://a.example", "x", json!({"groups": null})).unwrap().groups.is_empty());
}

#[test]
fn groups_that_cannot_be_understood_are_refused() {
    for bad in [json!(7), json!({"a": "b"}), json!(["a", 7]), json!([""]), json!([["a"]])] {
        assert!(caller("https://a.example", "x", json!({ "groups": bad })).is_err(), "{bad}");
    }
    let elsewhere = json!({"_claim_names": {"groups": "src1"}});
    assert!(caller("https://a.example", "x", elsewhere).is_err());
    for withheld in [json!(true), json!("true")] {
        let claims = json!({"hasgroups": withheld});
        let error = caller("https://a.example", "x", claims).unwrap_err().to_string();
        assert!(error.contains("not in the token itself"), "{error}");
    }
    assert!(caller("https://a.example", "x", json!({"hasgroups": false})).is_ok());
}

#[test]
fn names_that_are_too_long_are_refused() {
    let long = |n: usize| caller("https://a.example", &"x".repeat(n), json!({}));
    assert!(long(MAX_NAME).is_ok());
    assert!(long(MAX_NAME + 1).unwrap_err().to_string().contains("its subject is longer"));
    let claims = claims("https://a.example", "x", &[], json!({}));
    let error = Caller::new(claims, &usual(), "c".repeat(MAX_NAME + 1)).unwrap_err();
    assert!(error.to_string().contains("its client is longer"), "{error}");
}

#[test]
fn claims_become_tags_that_cannot_be_mistaken_for_each_other() {
    let claims = json!({
        "hd": "example.com", "level": 3, "verified": true, "amr": ["pwd", "mfa"], "none": null,
        "kubernetes.io": {"namespace": "prod", "pod": {"name": "p"}},
        "/kubernetes.io/namespace": "forged", "a/b": {"c": "d"}, "empty": [],
    });
    let caller = caller("https://a.example", "x", claims).unwrap();
    let tag = |name: &str| {
        caller.tags.get(name).map(|v| v.iter().map(String::as_str).collect::<Vec<_>>().join(","))
    };
    assert_eq!(tag("hd").unwrap(), "example.com");
    assert_eq!(tag("level").unwrap(), "3");
    assert_eq!(tag("verified").unwrap(), "true");
    assert_eq!(tag("amr").unwrap(), "mfa,pwd");
    assert_eq!(tag("/kubernetes.io/namespace").unwrap(), "prod");
    assert_eq!(tag("/kubernetes.io/pod/name").unwrap(), "p");
    assert_eq!(tag("/a~1b/c").unwrap(), "d");
    assert_eq!(tag("empty").unwrap(), "");
    assert_eq!(tag("none"), None);
}

#[test]
fn mapped_claims_are_what_the_configuration_makes_of_others_and_nothing_else() {
    let config = json!({
        "issuer": "https://a.example",
        "claims": {
            "branch": {"from": "ref", "matches": "refs/heads/(.+)"},
            "release": {"from": "ref", "matches": "refs/heads/release/[0-9]+"},
            "team": {"from": "/realm_access/roles", "matches": "team:(?:x-)?(.+)"},
            "number": {"from": "level"},
        },
    });
    let names = Names::of(&serde_json::from_value(config).unwrap());
    let seen = |more: Value| {
        let claims = claims("https://a.example", "x", &[], more);
        let tags = Caller::new(claims, &names, "cli".into()).unwrap().tags;
        let tag = |name: &str| {
            let values = tags.get(name)?.iter().map(String::as_str);
            Some(values.collect::<Vec<_>>().join(","))
        };
        ["branch", "release", "team", "number"].map(tag)
    };
    let some = |text: &str| Some(text.to_string());
    let all = json!({
        "ref": "refs/heads/release/7", "level": 3,
        "realm_access": {"roles": ["team:a", "team:x-b", "other", "xteam:c", 4, {}]},
    });
    assert_eq!(
        seen(all),
        [some("release/7"), some("refs/heads/release/7"), some("a,b"), some("3")]
    );
    // Neither what a token says by such a name, nor what only begins or ends so.
    for other in ["refs/heads/release/7x", "xrefs/heads/release/7", "refs/heads/release/7\n", ""] {
        let forged = json!({ "ref": other, "release": "refs/heads/release/7", "branch": ["main"] });
        assert_eq!(seen(forged)[1], None, "{other:?}");
    }
    let forged = json!({"branch": "main", "release": "1", "team": ["a"], "number": "9"});
    assert_eq!(seen(forged), [None, None, None, None]);
    let odd = json!({"ref": null, "realm_access": "team:a", "level": {"deep": 1}, "number": 9});
    assert_eq!(seen(odd), [None, None, None, None]);
}

#[test]
fn too_many_claims_are_refused() {
    let many: Vec<_> = (0..MAX_VALUES + 1).map(|n| n.to_string()).collect();
    assert!(caller("https://a.example", "x", json!({ "many": many })).is_err());
}
