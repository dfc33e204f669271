//! Policies as the linter and explanations look at them: each with its place, in
//! Cedar's JSON form (<https://docs.cedarpolicy.com/policies/json-format.html>).

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use cedar_policy::PolicySet;
use serde_json::Value;

use super::load::{ANY_ISSUER, World, offset_of};
use super::{EXCHANGE, INTROSPECT, ISSUE, Place, Source};

/// A policy.
pub(super) struct View<'a> {
    pub(super) id: String,
    source: &'a Source,
    /// Where it stands in its file.
    begin: usize,
    end: usize,
    json: Value,
}

/// All policies of the files that can be read.
pub(super) fn all(sources: &[Source]) -> Vec<View<'_>> {
    let mut all = Vec::new();
    for source in sources {
        let Ok(set) = PolicySet::from_str(&source.text) else { continue };
        let mut views: Vec<View<'_>> = set
            .policies()
            .filter_map(|policy| {
                // Where Cedar has the very text of it, that is where it is.
                let own = policy.to_cedar().and_then(|own| source.text.find(&own));
                Some(View {
                    id: policy.annotation("id").unwrap_or_default().to_string(),
                    source,
                    begin: own.unwrap_or_else(|| offset_of(policy, &source.text)),
                    end: source.text.len(),
                    json: policy.to_json().ok()?,
                })
            })
            .collect();
        views.sort_by_key(|view| view.begin);
        let begins: Vec<usize> = views.iter().map(|view| view.begin).collect();
        for (view, next) in views.iter_mut().zip(begins.into_iter().skip(1)) {
            view.end = next;
        }
        all.append(&mut views);
    }
    all
}

/// A part of a policy's conditions that has to hold for it to apply.
pub(super) struct Part<'a> {
    /// `unless`, rather than `when`.
    pub(super) unless: bool,
    /// The expression.
    pub(super) body: &'a Value,
}

impl<'a> View<'a> {
    pub(super) fn forbids(&self) -> bool {
        self.json["effect"] == "forbid"
    }

    /// What its scope says of `principal`, `action` or `resource`.
    pub(super) fn scope(&self, of: &str) -> &Value {
        &self.json[of]
    }

    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        self.json["annotations"][name].as_str()
    }

    pub(super) fn is_for_any_issuer(&self) -> bool {
        self.json["annotations"].get(ANY_ISSUER).is_some()
    }

    /// Whether it permits to issue, or to exchange.
    pub(super) fn issues(&self) -> bool {
        self.permits(&[ISSUE, EXCHANGE])
    }

    /// Whether it permits to introspect.
    pub(super) fn introspects(&self) -> bool {
        self.permits(&[INTROSPECT])
    }

    pub(super) fn permits(&self, actions: &[&str]) -> bool {
        let is_one = |(_, name): &(String, String)| actions.contains(&name.as_str());
        !self.forbids() && entities_of(&self.json["action"]).iter().any(is_one)
    }

    /// The parts of its conditions: those that `&&` joins are apart.
    pub(super) fn parts(&self) -> Vec<Part<'_>> {
        let mut parts = Vec::new();
        for condition in self.json["conditions"].as_array().into_iter().flatten() {
            if condition["kind"] == "unless" {
                parts.push(Part { unless: true, body: &condition["body"] });
            } else {
                split(&condition["body"], &mut parts);
            }
        }
        parts
    }

    /// Whether it has no conditions at all.
    pub(super) fn is_unconditional(&self) -> bool {
        self.parts().iter().all(|part| part.body["Value"] == !part.unless)
    }

    /// The roles that it can be for, as far as its text tells.
    pub(super) fn roles<'w>(&self, world: World<'w>) -> BTreeSet<&'w str> {
        let constraints = self.constraints();
        let named = constraints.get("resource").map(|(values, _)| values);
        let is = |name: &&str| named.is_none_or(|named| named.contains(&format!("Role::{name}")));
        world.roles.keys().map(String::as_str).filter(is).collect()
    }

    /// What must be one of certain values for it to apply: the values, and whether two
    /// parts of it left none.
    pub(super) fn constraints(&self) -> BTreeMap<String, (BTreeSet<String>, bool)> {
        let mut found: BTreeMap<String, (BTreeSet<String>, bool)> = BTreeMap::new();
        let mut add = |path: String, values: BTreeSet<String>| {
            found
                .entry(path)
                .and_modify(|(known, empty)| {
                    *known = known.intersection(&values).cloned().collect();
                    *empty |= known.is_empty();
                })
                .or_insert((values, false));
        };
        for variable in ["principal", "resource"] {
            let scope = self.scope(variable);
            let named = entities_of(scope);
            if named.is_empty() {
                continue;
            }
            if variable == "principal" {
                add("principal.issuer".into(), named.iter().filter_map(issuer_of).collect());
            }
            if scope["op"] == "==" || variable == "resource" {
                add(
                    variable.into(),
                    named.iter().map(|(kind, id)| format!("{kind}::{id}")).collect(),
                );
            }
        }
        for part in self.parts().iter().filter(|part| !part.unless) {
            if let Some((path, values)) = one_of(part.body) {
                if path == "principal" {
                    let issuers = values.iter().filter_map(|value| {
                        let (_, id) = value.split_once("::")?;
                        Some(id.split_once('#')?.0.to_string())
                    });
                    add("principal.issuer".into(), issuers.collect());
                }
                add(path, values);
            }
        }
        found
    }

    /// Where this text stands in it; where it begins, if that cannot be told.
    pub(super) fn place(&self, text: Option<&str>) -> Place {
        let own = self.source.text.get(self.begin..self.end).unwrap_or_default();
        let found = text.and_then(|text| own.find(text)).unwrap_or(0);
        Place::at(&self.source.path, &self.source.text, self.begin + found)
    }
}

fn split<'a>(body: &'a Value, into: &mut Vec<Part<'a>>) {
    match body.get("&&") {
        Some(both) => {
            split(&both["left"], into);
            split(&both["right"], into);
        }
        None => into.push(Part { unless: false, body }),
    }
}

/// Calls `look` with this expression and each one within.
pub(super) fn walk<'a>(value: &'a Value, look: &mut impl FnMut(&'a Value)) {
    look(value);
    match value {
        Value::Object(map) => map.values().for_each(|value| walk(value, look)),
        Value::Array(values) => values.iter().for_each(|value| walk(value, look)),
        _ => {}
    }
}

/// The type and id of each entity that a scope names.
pub(super) fn entities_of(scope: &Value) -> Vec<(String, String)> {
    let one = [&scope["entity"], &scope["in"]["entity"]];
    let many = scope["entities"].as_array().into_iter().flatten();
    one.into_iter().chain(many).filter_map(entity).collect()
}

fn entity(value: &Value) -> Option<(String, String)> {
    Some((value["type"].as_str()?.to_string(), value["id"].as_str()?.to_string()))
}

fn issuer_of((_, id): &(String, String)) -> Option<String> {
    Some(id.split_once('#')?.0.to_string())
}

/// What this expression compares for equality with one or several literals. Entities
/// are written `Type::id`.
pub(super) fn one_of(value: &Value) -> Option<(String, BTreeSet<String>)> {
    let (operator, operands) = value.as_object()?.iter().next()?;
    let (left, right) = (&operands["left"], &operands["right"]);
    match operator.as_str() {
        "==" => [(left, right), (right, left)]
            .iter()
            .find_map(|(one, other)| Some((path(one)?, [literal(other)?].into()))),
        "contains" => Some((path(right)?, literals(left)?)),
        "||" => {
            let ((path, mut values), (other, more)) = (one_of(left)?, one_of(right)?);
            values.extend(more);
            (path == other).then_some((path, values))
        }
        _ => None,
    }
}

/// `principal.issuer`, `context.audience`, `resource` and the like.
pub(super) fn path(value: &Value) -> Option<String> {
    if let Some(variable) = value["Var"].as_str() {
        return Some(variable.to_string());
    }
    let access = value.get(".")?;
    Some(format!("{}.{}", path(&access["left"])?, access["attr"].as_str()?))
}

/// A text, or an entity.
pub(super) fn literal(value: &Value) -> Option<String> {
    let value = &value["Value"];
    match value.as_str() {
        Some(text) => Some(text.to_string()),
        None => entity(&value["__entity"]).map(|(kind, id)| format!("{kind}::{id}")),
    }
}

/// A list of them.
pub(super) fn literals(value: &Value) -> Option<BTreeSet<String>> {
    value["Set"].as_array()?.iter().map(literal).collect()
}
