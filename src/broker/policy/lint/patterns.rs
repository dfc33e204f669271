//! Patterns, stars that are none, and names where there are ids.

use serde_json::Value;

use super::super::finding::{Finding, Rule};
use super::super::view::{View, entities_of, literal, walk};

/// Claims that are names, and what to go by instead.
const NAMES: [(&str, &str); 24] = [
    ("email", SUBJECT),
    ("preferred_username", SUBJECT),
    ("upn", SUBJECT),
    ("unique_name", SUBJECT),
    ("name", SUBJECT),
    ("nickname", SUBJECT),
    ("given_name", SUBJECT),
    ("family_name", SUBJECT),
    ("username", SUBJECT),
    ("login", SUBJECT),
    ("phone_number", SUBJECT),
    ("user_name", "user_id"),
    ("user_login", "user_id"),
    ("user_email", "user_id"),
    ("namespace_path", "namespace_id"),
    ("project_path", "project_id"),
    ("repository", "repository_id"),
    ("repository_owner", "repository_owner_id"),
    ("actor", "actor_id"),
    ("organization_slug", "organization_id"),
    ("pipeline_slug", "pipeline_id"),
    ("terraform_organization_name", "terraform_organization_id"),
    ("terraform_workspace_name", "terraform_workspace_id"),
    ("terraform_project_name", "terraform_project_id"),
];

/// Where a person is meant.
const SUBJECT: &str = "";

/// Operators that compare texts letter by letter.
const COMPARING: [&str; 6] = ["==", "!=", "contains", "containsAll", "containsAny", "in"];

pub(super) fn look(view: &View<'_>, findings: &mut Vec<Finding>) {
    let mut found = |rule: Rule, at: &str, message: String| {
        findings.push(Finding::new(rule, message).of(&view.id).at(view.place(Some(at))));
    };
    for (kind, id) in entities_of(view.scope("principal")) {
        if id.contains('*') {
            found(Rule::LiteralStar, &id, literal_star(view, &format!("{kind}::\"{id}\"")));
        }
    }
    for part in view.parts() {
        // Where more is matched than is meant, more is permitted or less is forbidden.
        let widens = view.forbids() == part.unless;
        walk(part.body, &mut |value| {
            if let Some(like) = value.get("like") {
                look_at_pattern(view, &like["pattern"], widens, &mut found);
            }
            for operator in COMPARING {
                if let Some(operands) = value.get(operator) {
                    for text in texts(operands).into_iter().filter(|text| text.contains('*')) {
                        let shown = text.split_once("::").map_or(&*text, |(_, id)| id);
                        found(Rule::LiteralStar, shown, literal_star(view, &format!("\"{text}\"")));
                    }
                }
            }
        });
    }
    look_at_names(view, &mut found);
}

fn literal_star(view: &View<'_>, what: &str) -> String {
    format!("the policy '{}' compares with {what} letter by letter", view.id)
}

/// The literals on both sides of a comparison.
fn texts(operands: &Value) -> Vec<String> {
    let sides = [&operands["left"], &operands["right"]];
    let sets = sides.into_iter().filter_map(|side| side["Set"].as_array()).flatten();
    sides.into_iter().chain(sets).filter_map(literal).collect()
}

fn look_at_pattern(
    view: &View<'_>,
    pattern: &Value,
    widens: bool,
    found: &mut impl FnMut(Rule, &str, String),
) {
    let elements: Vec<&Value> = pattern.as_array().into_iter().flatten().collect();
    let literal = |element: &Value| element["Literal"].as_str().map(String::from);
    let text: String =
        elements.iter().map(|e| literal(e).unwrap_or_else(|| "*".to_string())).collect();
    let id = &view.id;
    if elements.iter().all(|element| literal(element).is_none()) {
        let what = format!("the policy '{id}' has the pattern \"{text}\", which matches anything");
        found(Rule::LikeAnything, &format!("\"{text}\""), what);
        return;
    }
    if !widens {
        return;
    }
    let is_open = |element: Option<&&Value>| element.is_some_and(|e| literal(e).is_none());
    if is_open(elements.first()) {
        let what =
            format!("the policy '{id}' has the pattern \"{text}\", which begins with anything");
        found(Rule::LikeUnanchored, &format!("\"{text}\""), what);
    } else if is_open(elements.last()) {
        let before = elements.iter().rev().find_map(|element| literal(element));
        let goes_on = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
        if before.is_some_and(|before| before.ends_with(goes_on)) {
            let what =
                format!("the policy '{id}' has the pattern \"{text}\", which ends amid a name");
            found(Rule::LikeOpenEnd, &format!("\"{text}\""), what);
        }
    }
}

/// Claims that are read and are names, unless the id is looked at as well.
fn look_at_names(view: &View<'_>, found: &mut impl FnMut(Rule, &str, String)) {
    let mut read = Vec::new();
    for part in view.parts() {
        walk(part.body, &mut |value| {
            read.extend(value.get("getTag").and_then(|tag| literal(&tag["right"])));
        });
    }
    for (name, instead) in NAMES {
        let has = |claim: &str| read.iter().any(|read| read == claim);
        if !has(name) || has(instead) {
            continue;
        }
        let instead = if instead == SUBJECT {
            "a User, whose id is issuer and subject, or a Group".to_string()
        } else {
            format!("the claim '{instead}'")
        };
        let what = format!("the policy '{}' goes by '{name}'; there is {instead}", view.id);
        found(Rule::NameNotId, &format!("getTag(\"{name}\")"), what);
    }
}
