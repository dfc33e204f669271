//! Who is calling, as policy, audit and tokens name them.

use std::collections::{BTreeMap, BTreeSet};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};

use super::unacceptable;
use crate::credential::{Principal, TokenType};
use crate::error::Result;
use crate::oidc::Claims;

/// What stays as it is in the fragment of a URL (RFC 3986 section 3.5). `%` does
/// not, so that different names never become the same.
const FRAGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@')
    .remove(b'/')
    .remove(b'?');

/// How many groups a caller may have.
const MAX_GROUPS: usize = 2_000;

/// How many values of claims policy gets to see.
const MAX_VALUES: usize = 5_000;

/// How deep claims within claims are followed.
const MAX_DEPTH: usize = 4;

/// Somebody who proved who they are.
#[derive(Clone, Debug)]
pub struct Caller {
    principal: Principal,
    id: String,
    groups: BTreeSet<String>,
    tags: BTreeMap<String, BTreeSet<String>>,
    client: String,
}

impl Caller {
    /// Takes a verified token, issued to `client`.
    ///
    /// # Errors
    /// A groups claim that cannot be understood: a policy that forbids something
    /// to a group must not be escaped by it.
    pub(super) fn new(claims: Claims, groups_claim: &str, client: String) -> Result<Self> {
        let principal = claims.principal;
        let groups = groups(&claims.all, groups_claim)?
            .into_iter()
            .map(|group| qualified(&principal.issuer, &group))
            .collect();
        Ok(Self {
            id: qualified(&principal.issuer, &principal.subject),
            groups,
            tags: tags(&claims.all)?,
            client,
            principal,
        })
    }

    /// Issuer and subject.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Issuer and subject as one: the issuer, `#`, and the subject with whatever a
    /// URL's fragment cannot have percent-encoded. An issuer has no `#`, so no two
    /// principals share an id. It is the `sub` of tokens and the id of a `User`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The ids of the caller's groups, formed like [`id`](Self::id).
    pub fn groups(&self) -> &BTreeSet<String> {
        &self.groups
    }

    /// The claims, as policy sees them.
    pub fn tags(&self) -> &BTreeMap<String, BTreeSet<String>> {
        &self.tags
    }

    /// The client that the token was issued to; where it names none, the name of
    /// the issuer's table in the configuration.
    pub fn client(&self) -> &str {
        &self.client
    }
}

/// The client that a token was issued to: its `client_id` (RFC 9068 section 2.2),
/// else its `azp`. An ID token without either was issued to its only audience
/// (OpenID Connect Core section 2).
pub(super) fn client(claims: &Claims, token_type: TokenType) -> Option<&str> {
    let named = ["client_id", "azp"]
        .iter()
        .find_map(|name| claims.all.get(*name).and_then(Value::as_str))
        .filter(|client| !client.is_empty());
    match (named, token_type, claims.audience.as_slice()) {
        (None, TokenType::IdToken, [one]) => Some(one),
        _ => named,
    }
}

fn qualified(issuer: &str, name: &str) -> String {
    format!("{issuer}#{}", utf8_percent_encode(name, FRAGMENT))
}

fn groups(claims: &Map<String, Value>, name: &str) -> Result<BTreeSet<String>> {
    // OpenID Connect Core section 5.6.2: the groups are elsewhere, because there are too many.
    let elsewhere = claims.get("_claim_names").and_then(Value::as_object);
    if elsewhere.is_some_and(|names| names.contains_key(name)) {
        return Err(unacceptable(format!("its claim '{name}' is not in the token itself"))
            .hint("let the issuer put fewer groups into the token"));
    }
    let text = |value: &Value| value.as_str().map(String::from);
    let groups: Option<BTreeSet<String>> = match claims.get(name) {
        None | Some(Value::Null) => Some(BTreeSet::new()),
        Some(Value::String(one)) => Some([one.clone()].into()),
        Some(Value::Array(many)) => many.iter().map(text).collect(),
        Some(_) => None,
    };
    groups
        .filter(|groups| groups.len() <= MAX_GROUPS && !groups.contains(""))
        .ok_or_else(|| unacceptable(format!("its claim '{name}' is not a list of groups")))
}

fn tags(claims: &Map<String, Value>) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut tags = Tags { tags: BTreeMap::new(), left: MAX_VALUES };
    for (name, value) in claims {
        // What begins so is the pointer of a claim within a claim.
        if !name.starts_with('/') {
            tags.add(name.clone(), &pointer("", name), value, MAX_DEPTH);
        }
    }
    if tags.left == 0 {
        return Err(unacceptable("it has too many claims"));
    }
    Ok(tags.tags)
}

struct Tags {
    tags: BTreeMap<String, BTreeSet<String>>,
    left: usize,
}

impl Tags {
    fn add(&mut self, name: String, path: &str, value: &Value, depth: usize) {
        match value {
            Value::Object(inner) if depth > 0 => {
                for (key, value) in inner {
                    let path = pointer(path, key);
                    self.add(path.clone(), &path, value, depth - 1);
                }
            }
            Value::Array(values) => {
                let found: BTreeSet<_> = values.iter().filter_map(scalar).take(self.left).collect();
                self.left = self.left.saturating_sub(found.len().max(1));
                self.tags.insert(name, found);
            }
            value => {
                if let Some(text) = scalar(value) {
                    self.left = self.left.saturating_sub(1);
                    self.tags.insert(name, [text].into());
                }
            }
        }
    }
}

/// RFC 6901.
fn pointer(path: &str, key: &str) -> String {
    format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"))
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use super::*;

    /// A caller with these claims besides issuer and subject.
    pub(crate) fn caller(issuer: &str, subject: &str, more: Value) -> Result<Caller> {
        Caller::new(claims(issuer, subject, &[], more), "groups", "cli".into())
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
    fn different_principals_never_share_an_id() {
        let names = [
            "a", "A", "a b", "a%20b", "a+b", "a#b", "a|b", "a%7Cb", "é", "e\u{301}", "a\0", "#",
            "%",
        ];
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
        assert!(
            caller("https://a.example", "x", json!({"groups": null})).unwrap().groups.is_empty()
        );
    }

    #[test]
    fn groups_that_cannot_be_understood_are_refused() {
        for bad in [json!(7), json!({"a": "b"}), json!(["a", 7]), json!([""]), json!([["a"]])] {
            assert!(caller("https://a.example", "x", json!({ "groups": bad })).is_err(), "{bad}");
        }
        let many: Vec<_> = (0..=MAX_GROUPS).map(|n| n.to_string()).collect();
        assert!(caller("https://a.example", "x", json!({ "groups": many })).is_err());
        let elsewhere = json!({"_claim_names": {"groups": "src1"}});
        assert!(caller("https://a.example", "x", elsewhere).is_err());
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
            caller
                .tags
                .get(name)
                .map(|v| v.iter().map(String::as_str).collect::<Vec<_>>().join(","))
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
    fn too_many_claims_are_refused() {
        let many: Vec<_> = (0..MAX_VALUES + 1).map(|n| n.to_string()).collect();
        assert!(caller("https://a.example", "x", json!({ "many": many })).is_err());
    }

    #[test]
    fn the_client_is_the_one_the_token_was_issued_to() {
        let of = |token_type, audience: &[&str], more| {
            let claims = claims("https://a.example", "x", audience, more);
            client(&claims, token_type).map(String::from)
        };
        let named = |name: &str| Some(name.to_string());
        for token_type in [TokenType::IdToken, TokenType::AccessToken, TokenType::Jwt] {
            let both = json!({"client_id": "a", "azp": "b"});
            assert_eq!(of(token_type, &["c"], both), named("a"));
            assert_eq!(of(token_type, &["c"], json!({"azp": "b"})), named("b"));
        }
        // The audience of an ID token is a client, that of an access token is not.
        assert_eq!(of(TokenType::IdToken, &["c"], json!({})), named("c"));
        assert_eq!(of(TokenType::IdToken, &["c"], json!({"azp": ["b"]})), named("c"));
        assert_eq!(of(TokenType::IdToken, &["c", "d"], json!({})), None);
        assert_eq!(of(TokenType::AccessToken, &["c"], json!({})), None);
        assert_eq!(of(TokenType::Jwt, &["c"], json!({})), None);
    }
}
