//! Where a token says what the broker wants to know of a caller: each issuer has other
//! names for it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::unacceptable;
use crate::broker::config::{MappedClaim, TrustedIssuer};
use crate::credential::TokenType;
use crate::error::Result;
use crate::oidc::Claims;

/// How many groups a caller may have.
const MAX_GROUPS: usize = 2_000;

/// The claims of an issuer's tokens that say who is calling, besides `iss` and `sub`.
#[derive(Clone, Debug)]
pub(super) struct Names {
    groups: String,
    client: Option<String>,
    mapped: BTreeMap<String, MappedClaim>,
}

impl Names {
    /// Those that the configuration names.
    pub(super) fn of(config: &TrustedIssuer) -> Self {
        Self {
            groups: config.groups_claim.clone(),
            client: config.client_claim.clone(),
            mapped: config.claims.clone(),
        }
    }

    /// Claims as policies are to see them, which is by nothing that a token says by such a name
    /// itself.
    pub(super) fn map(
        &self,
        claims: &Map<String, Value>,
        tags: &mut BTreeMap<String, BTreeSet<String>>,
    ) {
        for (name, mapped) in &self.mapped {
            let seen = |value: &Value| {
                let text = scalar(value)?;
                match &mapped.matches {
                    Some(pattern) => pattern.found(&text).map(String::from),
                    None => Some(text),
                }
            };
            let found: BTreeSet<_> = match claim(claims, &mapped.from) {
                Some(Value::Array(values)) => values.iter().filter_map(seen).collect(),
                Some(value) => seen(value).into_iter().collect(),
                None => BTreeSet::new(),
            };
            match found.is_empty() {
                true => tags.remove(name),
                false => tags.insert(name.clone(), found),
            };
        }
    }

    /// The claims that [`map`](Self::map) makes, and whether it is known of each what it is made
    /// of.
    pub(super) fn mapped(&self, claims: &Map<String, Value>) -> BTreeMap<String, bool> {
        let known = |(name, mapped): (&String, &MappedClaim)| {
            (name.clone(), is_whole(claims, &mapped.from))
        };
        self.mapped.iter().map(known).collect()
    }

    /// The client that a token was issued to: where no claim is configured its `client_id`
    /// (RFC 9068 section 2.2), else its `azp`. An ID token without either was issued to its
    /// only audience (OpenID Connect Core section 2).
    pub(super) fn client<'a>(&self, claims: &'a Claims, token_type: TokenType) -> Option<&'a str> {
        let text = |name: &str| claim(&claims.all, name).and_then(Value::as_str);
        let named = match &self.client {
            Some(name) => text(name),
            None => ["client_id", "azp"].into_iter().find_map(text),
        };
        match (named.filter(|client| !client.is_empty()), token_type, claims.audience.as_slice()) {
            (None, TokenType::IdToken, [one]) if self.client.is_none() => Some(one),
            (named, ..) => named,
        }
    }

    /// Whether a token lists groups, be it none.
    pub(super) fn lists_groups(&self, claims: &Map<String, Value>) -> bool {
        claim(claims, &self.groups).is_some_and(|list| !list.is_null())
    }

    /// The groups that a token lists.
    ///
    /// # Errors
    /// A claim that is no list of groups, or that says that they are elsewhere.
    pub(super) fn groups(&self, claims: &Map<String, Value>) -> Result<BTreeSet<String>> {
        let name = &self.groups;
        // OpenID Connect Core section 5.6.2: the groups are elsewhere, because there are too many.
        let elsewhere = claims.get("_claim_names").and_then(Value::as_object);
        let elsewhere = elsewhere.is_some_and(|names| names.contains_key(&split(name).0));
        // How Entra ID says the same in a token that came through a browser.
        let withheld = match claims.get("hasgroups") {
            Some(Value::Bool(flag)) => *flag,
            Some(Value::String(text)) => text.eq_ignore_ascii_case("true"),
            _ => false,
        };
        if elsewhere || withheld {
            return Err(unacceptable(format!("its claim '{name}' is not in the token itself"))
                .hint("let the issuer put fewer groups into the token"));
        }
        let text = |value: &Value| value.as_str().map(String::from);
        let groups: Option<BTreeSet<String>> = match claim(claims, name) {
            None | Some(Value::Null) => Some(BTreeSet::new()),
            Some(Value::String(one)) => Some([one.clone()].into()),
            Some(Value::Array(many)) => many.iter().map(text).collect(),
            Some(_) => None,
        };
        groups
            .filter(|groups| groups.len() <= MAX_GROUPS && !groups.contains(""))
            .ok_or_else(|| unacceptable(format!("its claim '{name}' is not a list of groups")))
    }
}

/// What is no list and no object, as a text.
pub(super) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Whether a claim is in the token itself (OpenID Connect Core section 5.6.2), if it is anywhere,
/// and has nothing but what policies see.
pub(super) fn is_whole(claims: &Map<String, Value>, name: &str) -> bool {
    let elsewhere = claims.get("_claim_names").and_then(Value::as_object);
    let is_elsewhere = elsewhere.is_some_and(|names| names.contains_key(&split(name).0));
    !is_elsewhere
        && match claim(claims, name) {
            None | Some(Value::Null) => true,
            Some(Value::Array(values)) => values.iter().all(|value| scalar(value).is_some()),
            Some(value) => scalar(value).is_some(),
        }
}

/// A claim, by its name or by its JSON pointer (RFC 6901).
pub(in crate::broker) fn claim<'a>(
    claims: &'a Map<String, Value>,
    name: &str,
) -> Option<&'a Value> {
    let (first, inner) = split(name);
    claims.get(&first)?.pointer(inner)
}

/// Adds a claim by its name or by its JSON pointer, if there is nothing in its place.
pub(in crate::broker) fn add(claims: &mut Map<String, Value>, name: &str, value: Value) {
    let (first, inner) = split(name);
    let within: Vec<_> = inner.split('/').skip(1).map(unescaped).collect();
    let value = within
        .into_iter()
        .rev()
        .fold(value, |value, key| Value::Object(Map::from_iter([(key, value)])));
    match (claims.get_mut(&first), value) {
        (None, value) => {
            claims.insert(first, value);
        }
        (Some(there), value) => merge(there, value),
    }
}

/// What is there stays.
fn merge(there: &mut Value, more: Value) {
    let (Value::Object(there), Value::Object(more)) = (there, more) else { return };
    for (key, value) in more {
        match there.get_mut(&key) {
            None => {
                there.insert(key, value);
            }
            Some(there) => merge(there, value),
        }
    }
}

/// The claim of the token that a name begins with, and the pointer to what is within.
fn split(name: &str) -> (String, &str) {
    let Some(rest) = name.strip_prefix('/') else { return (name.into(), "") };
    let (first, inner) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    (unescaped(first), inner)
}

/// The names on the way to a claim: its own, or those of its JSON pointer.
pub(in crate::broker) fn path(name: &str) -> Vec<String> {
    let (first, inner) = split(name);
    [first].into_iter().chain(inner.split('/').skip(1).map(unescaped)).collect()
}

fn unescaped(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;
    use time::OffsetDateTime;

    use super::*;
    use crate::credential::Principal;
    use crate::oidc::Issuer;

    fn claims(audience: &[&str], all: Value) -> Claims {
        Claims {
            principal: Principal { issuer: "https://a.example".into(), subject: "x".into() },
            audience: audience.iter().map(ToString::to_string).collect(),
            issued_at: None,
            expires_at: OffsetDateTime::UNIX_EPOCH,
            all: object(all),
        }
    }

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    /// Those of an issuer of which nothing is configured.
    pub(in crate::broker::authenticate) fn usual() -> Names {
        Names { groups: "groups".into(), client: None, mapped: BTreeMap::new() }
    }

    #[test]
    fn a_claim_is_found_by_its_name_or_by_its_pointer() {
        let all = object(json!({
            "groups": ["a"], "realm_access": {"roles": ["b"]}, "a/b": {"c~d": 1}, "/x": 2,
        }));
        for (name, wanted) in [
            ("groups", Some(json!(["a"]))),
            ("/groups", Some(json!(["a"]))),
            ("/realm_access/roles", Some(json!(["b"]))),
            ("/a~1b/c~0d", Some(json!(1))),
            ("realm_access/roles", None),
            ("/realm_access/none", None),
            ("/x", None),
            ("/", None),
        ] {
            assert_eq!(claim(&all, name).cloned(), wanted, "{name}");
        }
        assert_eq!(claim(&object(json!({"": 3})), "/"), Some(&json!(3)));
    }

    #[test]
    fn what_is_added_is_found_and_takes_no_place() {
        let mut all = object(json!({"realm_access": {"other": 1}, "groups": ["a"]}));
        for name in ["/realm_access/roles", "groups", "/a~1b/c", "plain"] {
            add(&mut all, name, json!(["new"]));
        }
        assert_eq!(
            Value::Object(all),
            json!({
                "realm_access": {"other": 1, "roles": ["new"]}, "groups": ["a"],
                "a/b": {"c": ["new"]}, "plain": ["new"],
            })
        );
    }

    /// As Entra ID and Keycloak have them.
    #[test]
    fn groups_and_client_are_where_the_configuration_says() {
        let mut config = TrustedIssuer::new(Issuer::parse("https://a.example").unwrap());
        config.groups_claim = "/resource_access/broker/roles".into();
        config.client_claim = Some("appid".into());
        let names = Names::of(&config);
        let roles = json!({"broker": {"roles": ["deployer"]}, "other": {"roles": ["admin"]}});
        let token = claims(&["one"], json!({"appid": "app", "azp": "x", "resource_access": roles}));
        assert_eq!(names.client(&token, TokenType::Jwt), Some("app"));
        assert_eq!(names.groups(&token.all).unwrap(), ["deployer".to_string()].into());
        assert!(names.lists_groups(&token.all));

        let other = claims(&["one"], json!({"azp": "x"}));
        assert_eq!(names.client(&other, TokenType::IdToken), None, "nothing else will do");
        assert!(!names.lists_groups(&other.all));
        for wrong in [
            json!({"resource_access": {"broker": {"roles": {"deployer": true}}}}),
            json!({"_claim_names": {"resource_access": "src1"}}),
        ] {
            assert!(names.groups(&object(wrong)).is_err());
        }
    }

    #[test]
    fn groups_are_not_too_many() {
        let list = |most: usize| {
            let many: Vec<_> = (0..most).map(|n| n.to_string()).collect();
            usual().groups(&object(json!({ "groups": many })))
        };
        assert_eq!(list(MAX_GROUPS).unwrap().len(), MAX_GROUPS);
        assert!(list(MAX_GROUPS + 1).is_err());
    }

    #[test]
    fn the_client_is_the_one_the_token_was_issued_to() {
        let of = |token_type, audience: &[&str], more| {
            let claims = claims(audience, more);
            usual().client(&claims, token_type).map(String::from)
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
