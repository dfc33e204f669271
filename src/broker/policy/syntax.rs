//! What a policy's own text tells of it, without anybody asking: whether it is bound
//! to an issuer, and what tokens must say so that it cannot be escaped.
//!
//! Read from Cedar's JSON form
//! (<https://docs.cedarpolicy.com/policies/json-format.html>).

use std::collections::BTreeSet;

use serde_json::Value;

use super::{DIRECTORY_GROUP, PERSON};
use crate::broker::authenticate::Actor;

/// What tokens must say so that policies work as they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Issuers of whose groups a policy forbids something, or permits something to
    /// those outside.
    pub groups_of: BTreeSet<String>,
    /// Whether a policy does the same by claims.
    pub whole_claims: bool,
}

impl Needs {
    /// Whether policies need to know more of somebody of this name than the name.
    pub(in crate::broker) fn more_than_name_of(&self, actor: &Actor) -> bool {
        self.whole_claims || self.groups_of.contains(&actor.principal().issuer)
    }

    /// What keeps those of whom nothing is known but who they are from being let in, those of
    /// this issuer or of any.
    pub(in crate::broker) fn untold(&self, issuer: Option<&str>) -> Option<&'static str> {
        if self.whole_claims {
            return Some("policies forbid by claims, which a signature does not tell");
        }
        let by_groups = issuer.is_some_and(|issuer| self.groups_of.contains(issuer));
        by_groups
            .then_some("policies forbid by groups of its issuer, which a signature does not tell")
    }

    /// Adds what this policy needs.
    pub(super) fn add(&mut self, policy: &Value) {
        if policy["effect"] == "forbid" {
            self.add_all(policy);
            return;
        }
        for condition in policy["conditions"].as_array().into_iter().flatten() {
            if condition["kind"] == "unless" {
                self.add_all(&condition["body"]);
            } else {
                self.add_withholding(&condition["body"]);
            }
        }
    }

    /// Adds all that this speaks of.
    fn add_all(&mut self, value: &Value) {
        match value {
            Value::Object(map) => {
                self.whole_claims |= map.contains_key("hasTag") || map.contains_key("getTag");
                if let (Some("Group"), Some(id)) =
                    (map.get("type").and_then(Value::as_str), map.get("id").and_then(Value::as_str))
                {
                    let issuer = id.split_once('#').map_or(id, |(issuer, _)| issuer);
                    self.groups_of.insert(issuer.to_string());
                }
                map.values().for_each(|value| self.add_all(value));
            }
            Value::Array(values) => values.iter().for_each(|value| self.add_all(value)),
            _ => {}
        }
    }

    /// Adds those parts of a permit's condition that hold for one of whom less is
    /// known.
    fn add_withholding(&mut self, value: &Value) {
        match value {
            Value::Object(map) => {
                for (operator, operands) in map {
                    match operator.as_str() {
                        "!" | "==" | "!=" | "isEmpty" => self.add_all(operands),
                        // All of a set that is too small.
                        "containsAll" => {
                            self.add_all(&operands["right"]);
                            self.add_withholding(&operands["left"]);
                        }
                        // Being one of a set is being equal to one.
                        "contains" => {
                            self.add_withholding(&operands["left"]);
                            self.add_all(&operands["right"]);
                        }
                        "if-then-else" => {
                            self.add_all(&operands["if"]);
                            self.add_withholding(&operands["then"]);
                            self.add_withholding(&operands["else"]);
                        }
                        _ => self.add_withholding(operands),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| self.add_withholding(value)),
            _ => {}
        }
    }
}

/// What policies read of something, by name; `None` where one of them may read any of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamesRead(Option<BTreeSet<String>>);

impl Default for NamesRead {
    fn default() -> Self {
        Self(Some(BTreeSet::new()))
    }
}

impl NamesRead {
    /// Whether this may be read.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|names| names.contains(name))
    }

    /// Adds a name; `None`: any.
    fn add(&mut self, name: Option<&str>) {
        match (name, &mut self.0) {
            (Some(name), Some(names)) => drop(names.insert(name.to_string())),
            (None, names) => *names = None,
            (Some(_), None) => {}
        }
    }

    /// Adds the claims that this policy reads.
    pub(super) fn add_claims(&mut self, policy: &Value) {
        match policy {
            Value::Object(map) => {
                for (operator, operands) in map {
                    if operator == "getTag" || operator == "hasTag" {
                        self.add(operands["right"]["Value"].as_str());
                    }
                    self.add_claims(operands);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| self.add_claims(value)),
            _ => {}
        }
    }

    /// Adds the attributes of the context that this policy reads.
    pub(super) fn add_attributes(&mut self, policy: &Value) {
        match policy {
            Value::Object(map) => {
                for (operator, operands) in map {
                    let of_context = is_context(&operands["left"]);
                    if of_context && (operator == "." || operator == "has") {
                        // Where it is one within another, they are all there, the outer one first.
                        let attribute = &operands["attr"];
                        self.add(attribute.as_str().or_else(|| attribute[0].as_str()));
                    } else {
                        self.add_attributes(operands);
                    }
                }
                // As a whole, to be compared or handed on.
                if is_context(policy) {
                    self.add(None);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| self.add_attributes(value)),
            _ => {}
        }
    }
}

fn is_context(value: &Value) -> bool {
    value["Var"] == "context"
}

/// Whether a policy looks at all who act and have acted.
pub(super) fn reads_prior_actors(policy: &Value) -> bool {
    match policy {
        Value::Object(map) => {
            let of_context =
                |access: &Value| is_context(&access["left"]) && access["attr"] == "actors";
            [".", "has"].iter().any(|operator| map.get(*operator).is_some_and(of_context))
                || map.values().any(reads_prior_actors)
        }
        Value::Array(values) => values.iter().any(reads_prior_actors),
        _ => false,
    }
}

/// Whether a policy can only be true of callers of issuers that it names.
pub(super) fn names_issuer(policy: &Value) -> bool {
    // `==` and `in` have an entity there, `is … in` has it below `in`.
    let scope = &policy["principal"];
    let by_scope = [scope, &scope["in"]].iter().any(|place| of_issuer(&place["entity"]));
    by_scope
        || policy["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|condition| condition["kind"] == "when" && implies_issuer(&condition["body"]))
}

/// Whether a condition is true of callers of certain issuers only.
fn implies_issuer(condition: &Value) -> bool {
    let Some((operator, operands)) = condition.as_object().and_then(|map| map.iter().next()) else {
        return false;
    };
    let (left, right) = (&operands["left"], &operands["right"]);
    match operator.as_str() {
        "&&" => implies_issuer(left) || implies_issuer(right),
        "||" => implies_issuer(left) && implies_issuer(right),
        "==" => [(left, right), (right, left)].iter().any(|(one, other)| {
            is_issuer(one) && other["Value"].is_string() || is_principal(one) && is_entity(other)
        }),
        "in" => is_principal(left) && is_entities(right),
        "is" => is_principal(left) && is_entities(&operands["in"]),
        "contains" => {
            is_issuer(right) && is_texts(left) || is_principal(right) && is_entities(left)
        }
        _ => false,
    }
}

pub(super) fn is_principal(value: &Value) -> bool {
    value["Var"] == "principal"
}

/// `principal.issuer`.
pub(super) fn is_issuer(value: &Value) -> bool {
    is_principal(&value["."]["left"]) && value["."]["attr"] == "issuer"
}

fn is_entity(value: &Value) -> bool {
    of_issuer(&value["Value"]["__entity"])
}

/// An entity, or a list of them that is not empty.
pub(super) fn is_entities(value: &Value) -> bool {
    is_entity(value)
        || value["Set"].as_array().is_some_and(|set| !set.is_empty() && set.iter().all(is_entity))
}

fn is_texts(value: &Value) -> bool {
    let texts = |set: &Vec<Value>| set.iter().all(|text| text["Value"].is_string());
    value["Set"].as_array().is_some_and(texts)
}

/// Whether this is an entity whose id begins with an issuer, or of the directory, which
/// names people by issuer and subject.
fn of_issuer(entity: &Value) -> bool {
    matches!(entity["type"].as_str(), Some("User" | "Group" | PERSON | DIRECTORY_GROUP))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(policy: &str) -> Value {
        policy.parse::<cedar_policy::Policy>().unwrap().to_json().unwrap()
    }

    fn permit(principal: &str, condition: &str) -> Value {
        json(&format!("permit ({principal}, action, resource) {condition};"))
    }

    #[test]
    fn a_permit_names_an_issuer_where_nobody_elses_callers_can_have_it() {
        for (principal, condition) in [
            (r#"principal == User::"https://a#x""#, ""),
            (r#"principal in Group::"https://a#x""#, ""),
            (r#"principal is User in Group::"https://a#x""#, ""),
            ("principal", r#"when { principal.issuer == "https://a" }"#),
            ("principal", r#"when { "https://a" == principal["issuer"] }"#),
            ("principal", r#"when { ["https://a", "https://b"].contains(principal.issuer) }"#),
            ("principal", r#"when { principal in [Group::"https://a#x", Group::"https://b#x"] }"#),
            ("principal", r#"when { [User::"https://a#x"].contains(principal) }"#),
            ("principal", r#"when { principal is User in Group::"https://a#x" }"#),
            ("principal", r#"when { context.x == 1 && principal.issuer == "https://a" }"#),
            ("principal", r#"when { context.x == 1 } when { principal.issuer == "https://a" }"#),
            (
                "principal",
                r#"when { principal.issuer == "https://a" || principal == User::"https://b#x" }"#,
            ),
        ] {
            assert!(names_issuer(&permit(principal, condition)), "{principal} {condition}");
        }
        for (principal, condition) in [
            ("principal", ""),
            ("principal is User", ""),
            ("principal", r#"when { principal.hasTag("amr") }"#),
            ("principal", r#"when { principal.subject == "https://a" }"#),
            ("principal", r#"when { principal.issuer != "https://a" }"#),
            ("principal", r#"when { principal.issuer like "https://*" }"#),
            ("principal", r#"when { principal.issuer == principal.subject }"#),
            ("principal", r#"when { !(principal.issuer == "https://a") }"#),
            ("principal", r#"when { principal.issuer == "https://a" || context.x == 1 }"#),
            ("principal", r#"unless { principal.issuer == "https://a" }"#),
            ("principal", r#"when { [principal.issuer, "https://a"].contains(principal.issuer) }"#),
            ("principal", r#"when { if principal.issuer == "https://a" then true else true }"#),
        ] {
            assert!(!names_issuer(&permit(principal, condition)), "{principal} {condition}");
        }
    }

    /// What permits with these conditions read, in one line; `None`: any of it.
    fn read(add: fn(&mut NamesRead, &Value), conditions: &[&str]) -> Option<String> {
        let mut names = NamesRead::default();
        conditions.iter().for_each(|condition| add(&mut names, &permit("principal", condition)));
        names.0.map(|names| names.into_iter().collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn the_claims_that_are_read_are_those_that_are_named_or_all() {
        let read = |conditions: &[&str]| read(NamesRead::add_claims, conditions);
        let some = |names: &str| Some(names.to_string());
        assert_eq!(read(&["", r#"when { principal.issuer == "getTag" }"#]), some(""));
        let amr = r#"unless { principal.hasTag("amr") && principal.getTag("hd").contains("x") }"#;
        let deep =
            r#"when { if principal has "x" then [{a: principal.getTag("y")}] == [] else true }"#;
        assert_eq!(read(&[amr, deep]), some("amr hd y"));
        assert_eq!(read(&[amr, "when { principal.hasTag(context.x) }"]), None);
        assert_eq!(read(&["when { principal.hasTag(context.x) }", amr]), None);
        let twice = r#"when { principal.getTag(if true then "x" else "y") == [] }"#;
        assert_eq!(read(&[twice]), None);
        assert!(NamesRead(None).has("x") && !NamesRead::default().has("x"));
    }

    #[test]
    fn the_attributes_that_are_read_of_a_context_are_those_that_are_named_or_all() {
        let read = |conditions: &[&str]| read(NamesRead::add_attributes, conditions);
        let some = |names: &str| Some(names.to_string());
        // What principals have is none of them.
        assert_eq!(read(&["", r#"when { principal.issuer == "context.time" }"#]), some(""));
        let client = r#"when { context has client && context["ttl"] < 60 }"#;
        let deep = r#"unless { [{a: context.scope.contains("x")}] == [] }"#;
        let path = r#"when { context has elevation.path && context.elevation.path == "x" }"#;
        assert_eq!(read(&[client, deep]), some("client scope ttl"));
        // (What is within one is read with it.)
        assert_eq!(read(&[path]), some("elevation"));
        for whole in [
            "when { context == {x: 1} }",
            "when { [context].contains({x: 1}) }",
            r#"when { (if true then context else {"ttl": 1}).ttl == 1 }"#,
            r#"when { {a: context}.a.ttl == 1 }"#,
        ] {
            assert_eq!(read(&[client, whole]), None, "{whole}");
            assert_eq!(read(&[whole, client]), None, "{whole}");
        }
    }

    #[test]
    fn what_is_withheld_matters_where_it_would_help() {
        let needs = |policy: Value| {
            let mut needs = Needs::default();
            needs.add(&policy);
            (needs.groups_of.into_iter().collect::<Vec<_>>().join(" "), needs.whole_claims)
        };
        let forbid = |principal: &str, condition: &str| {
            json(&format!("forbid ({principal}, action, resource) {condition};"))
        };
        let (group, has) = (r#"principal in Group::"https://a#x""#, r#"principal.hasTag("x")"#);
        let is = |groups: &str, claims| (groups.to_string(), claims);
        assert_eq!(needs(forbid(group, "")), is("https://a", false));
        assert_eq!(needs(forbid("principal", &format!("when {{ {has} }}"))), is("", true));
        assert_eq!(
            needs(forbid("principal", &format!("unless {{ {group} }}"))),
            is("https://a", false)
        );
        assert_eq!(needs(forbid(r#"principal == User::"https://a#x""#, "")), is("", false));

        assert_eq!(needs(permit(group, &format!("when {{ {has} }}"))), is("", false));
        assert_eq!(needs(permit("principal", &format!("when {{ {group} }}"))), is("", false));
        let tag = r#"principal.getTag("x")"#;
        for (condition, expected) in [
            (format!("unless {{ {group} }}"), is("https://a", false)),
            (format!("when {{ !({group}) }}"), is("https://a", false)),
            (format!("when {{ ({group}) == false }}"), is("https://a", false)),
            (format!("when {{ if {group} then false else true }}"), is("https://a", false)),
            (format!("when {{ !{has} }}"), is("", true)),
            (format!("when {{ {tag} == [\"a\"] }}"), is("", true)),
            (format!("when {{ {tag}.isEmpty() }}"), is("", true)),
            (format!("when {{ [\"a\"].containsAll({tag}) }}"), is("", true)),
            (format!("when {{ [false].contains({has}) }}"), is("", true)),
            (format!("when {{ [false].contains({group}) }}"), is("https://a", false)),
            (format!("when {{ {tag}.containsAll([\"a\"]) }}"), is("", false)),
            (format!("when {{ {tag}.contains(\"a\") }}"), is("", false)),
        ] {
            assert_eq!(needs(permit("principal", &condition)), expected, "{condition}");
        }
    }
}
