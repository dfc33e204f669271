//! Patterns, and stars that are none.

use serde_json::Value;

use super::super::finding::{Finding, Rule};
use super::super::view::{View, entities_of, literal, walk};

/// Operators that compare texts letter by letter.
pub(super) const COMPARING: [&str; 6] =
    ["==", "!=", "contains", "containsAll", "containsAny", "in"];

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
}

fn literal_star(view: &View<'_>, what: &str) -> String {
    format!("the policy '{}' compares with {what} letter by letter", view.id)
}

/// The literals on both sides of a comparison.
pub(super) fn texts(operands: &Value) -> Vec<String> {
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
    let text = text_of(pattern);
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
        if before.is_some_and(|before| before.ends_with(goes_on)) {
            let what =
                format!("the policy '{id}' has the pattern \"{text}\", which ends amid a name");
            found(Rule::LikeOpenEnd, &format!("\"{text}\""), what);
        }
    }
}

/// A pattern, as it is written.
pub(super) fn text_of(pattern: &Value) -> String {
    let elements = pattern.as_array().into_iter().flatten();
    elements.map(|element| element["Literal"].as_str().unwrap_or("*")).collect()
}

/// Whether a name can go on after this.
pub(super) fn goes_on(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | '.')
}
