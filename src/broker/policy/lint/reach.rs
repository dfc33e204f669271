//! Policies that can never match, permits that nobody can have or everybody, and roles
//! that nobody gets.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::BROKER;
use super::super::finding::{Finding, Rule};
use super::super::load::World;
use super::super::operation::{Administration, Named};
use super::super::view::{View, entities_of, literal, literals, one_of, path, walk};
use crate::broker::config;

/// Whom a token is for.
const AUDIENCE: &str = "context.audience";

/// By what tokens are named that are revoked.
const WHAT: &str = "context.what";

/// What is done who looks after the broker.
const OPERATION: &str = "context.operation";

/// Looks at one policy.
pub(super) fn look(view: &View<'_>, world: World<'_>, findings: &mut Vec<Finding>) {
    let mut found = |rule: Rule, at: Option<&str>, message: String| {
        findings.push(Finding::new(rule, message).of(&view.id).at(view.place(at)));
    };
    let id = &view.id;
    let roles = view.roles(world);
    for part in view.parts() {
        walk(part.body, &mut |value| {
            for (rule, text, whole) in unknown(value, &roles, world) {
                found(rule, Some(&text), format!("the policy '{id}' {whole}"));
            }
        });
    }
    if let Some(why) = contradiction(view) {
        found(Rule::NeverMatches, None, format!("the policy '{id}' can never match: {why}"));
    }
    if view.forbids() {
        return;
    }
    if view.issues() && view.constraints().contains_key("resource") {
        look_at_limits(view, &roles, world, &mut found);
    }
    let speaks_of = |what: &dyn Fn(&Value) -> bool| {
        let mut speaks = false;
        for part in view.parts() {
            walk(part.body, &mut |value| speaks |= what(value));
        }
        speaks
    };
    if view.introspects() && !speaks_of(&|value| path(value).as_deref() == Some(AUDIENCE)) {
        let of_roles = roles.iter().filter_map(|name| world.roles.get(*name));
        let audiences: BTreeSet<_> = of_roles.flat_map(|role| &role.audiences).collect();
        if audiences.len() > 1 {
            let count = audiences.len();
            let message = format!("the permit '{id}' is for tokens of all {count} audiences");
            found(Rule::EveryAudience, None, message);
        }
    }
    let speaks_of_caller = speaks_of(&|value| value["Var"] == "principal");
    let by_scope = !entities_of(view.scope("principal")).is_empty();
    if !by_scope && !speaks_of_caller && !view.is_for_any_issuer() {
        found(Rule::Everybody, None, format!("the permit '{id}' is for every caller"));
    }
}

/// Issuers, audiences, clients and scopes in this comparison that do not exist: the rule, the
/// text, and what there is to say.
fn unknown(value: &Value, roles: &BTreeSet<&str>, world: World<'_>) -> Vec<(Rule, String, String)> {
    let of = |names: &dyn Fn(&config::Role) -> bool| {
        roles.iter().filter_map(|name| world.roles.get(*name)).any(names)
    };
    let mut unknown = Vec::new();
    if value.get("||").is_none()
        && let Some((path, texts)) = one_of(value)
    {
        for text in texts {
            if path == "principal.issuer" && !world.trusts(&text) {
                let what = format!("speaks of the issuer '{text}', which is not trusted");
                unknown.push((Rule::UnknownIssuer, text, what));
            } else if path == AUDIENCE
                && !text.contains('*')
                && !of(&|role| role.audiences.contains(&text))
            {
                let what = format!("speaks of the audience '{text}', which its roles do not have");
                unknown.push((Rule::UnknownAudience, text, what));
            } else if path == "context.client" && !world.authenticates(&text) {
                let what = format!("speaks of the client '{text}', which does not authenticate");
                unknown.push((Rule::UnknownClient, text, what));
            } else if path == WHAT && Named::from_name(&text).is_none() {
                let what = format!("speaks of revoking by '{text}', by which nothing is revoked");
                unknown.push((Rule::UnknownOperation, text, what));
            } else if path == OPERATION && Administration::from_name(&text).is_none() {
                let what = format!("speaks of the operation '{text}', which there is not");
                unknown.push((Rule::UnknownOperation, text, what));
            }
        }
    }
    for operator in ["contains", "containsAll", "containsAny"] {
        let Some(operands) = value.get(operator) else { continue };
        if path(&operands["left"]).as_deref() != Some("context.scope") {
            continue;
        }
        let one = literal(&operands["right"]).map(|one| [one].into());
        for text in one.or_else(|| literals(&operands["right"])).unwrap_or_default() {
            if !of(&|role| role.scopes.contains(&text)) {
                let what = format!("speaks of the scope '{text}', which its roles do not have");
                unknown.push((Rule::UnknownScope, text, what));
            }
        }
    }
    unknown
}

/// Why what is revoked can never be what a policy is for: tokens with a role in common are
/// revoked by that or one by one, and no others are.
fn contradiction_of_revoking(view: &View<'_>) -> Option<String> {
    let constraints = view.constraints();
    let (named, _) = constraints.get(WHAT)?;
    let named: Vec<Named> = named.iter().filter_map(|name| Named::from_name(name)).collect();
    let scope = view.scope("resource");
    let kind = match scope["entity_type"].as_str() {
        Some(kind) => kind.to_string(),
        None => {
            let (resources, _) = constraints.get("resource")?;
            resources.first()?.split_once("::")?.0.to_string()
        }
    };
    // A token that is on record nowhere has no role that anybody knows.
    let fits = |named: &Named| match kind.as_str() {
        BROKER => *named != Named::Role,
        _ => named.has_role(),
    };
    (!named.is_empty() && !named.iter().any(fits))
        .then(|| format!("its resource is a {kind}, which is not what is revoked in that way"))
}

/// Why a policy can never be true, as far as its parts tell.
fn contradiction(view: &View<'_>) -> Option<String> {
    if let Some(why) = contradiction_of_revoking(view) {
        return Some(why);
    }
    if let Some((path, _)) = view.constraints().iter().find(|(_, (_, empty))| *empty) {
        return Some(format!("no {path} is all that it has to be"));
    }
    let parts = view.parts();
    let is = |body: &Value, unless: bool| {
        parts.iter().any(|part| part.body == body && part.unless == unless)
    };
    for part in parts.iter().filter(|part| !part.unless) {
        if is(part.body, true) || is(&part.body["!"]["arg"], false) {
            return Some("it has a condition and the opposite of it".into());
        }
    }
    let (mut least, mut most) = (i64::MIN, i64::MAX);
    for part in parts.iter().filter(|part| !part.unless) {
        let (more, less) = bounds(part.body);
        least = least.max(more);
        most = most.min(less);
    }
    (least > most || most < 1).then(|| "no lifetime is within its bounds of context.ttl".into())
}

/// What an expression lets `context.ttl` be at least and at most.
fn bounds(value: &Value) -> (i64, i64) {
    const ANY: (i64, i64) = (i64::MIN, i64::MAX);
    let Some((operator, operands)) = value.as_object().and_then(|map| map.iter().next()) else {
        return ANY;
    };
    let sides = [&operands["left"], &operands["right"]];
    let is_ttl = sides.map(|side| path(side).as_deref() == Some("context.ttl"));
    let number = sides.map(|side| side["Value"].as_i64());
    let (number, turned) = match (is_ttl, number) {
        ([true, false], [_, Some(number)]) => (number, false),
        ([false, true], [Some(number), _]) => (number, true),
        _ => return ANY,
    };
    match (operator.as_str(), turned) {
        ("==", _) => (number, number),
        ("<", false) | (">", true) => (i64::MIN, number.saturating_sub(1)),
        ("<=", false) | (">=", true) => (i64::MIN, number),
        (">", false) | ("<", true) => (number.saturating_add(1), i64::MAX),
        (">=", false) | ("<=", true) => (number, i64::MAX),
        _ => ANY,
    }
}

/// What a permit says it grants, and its roles do not have.
fn look_at_limits(
    view: &View<'_>,
    roles: &BTreeSet<&str>,
    world: World<'_>,
    found: &mut impl FnMut(Rule, Option<&str>, String),
) {
    let id = &view.id;
    let roles: Vec<&config::Role> =
        roles.iter().filter_map(|name| world.roles.get(*name)).collect();
    let longest = roles.iter().map(|role| role.max_ttl).max();
    let ttl = view.annotation("ttl").and_then(|ttl| config::parse_duration(ttl).ok());
    if let (Some(longest), Some(ttl)) = (longest, ttl)
        && ttl > longest
    {
        let what = format!(
            "the permit '{id}' has a @ttl of {}, and its roles a max_ttl of {}",
            humantime::format_duration(ttl),
            humantime::format_duration(longest)
        );
        found(Rule::TtlBeyondRole, Some("@ttl"), what);
    }
    for scope in view.annotation("scope").unwrap_or_default().split_ascii_whitespace() {
        if !roles.is_empty() && !roles.iter().any(|role| role.scopes.contains(scope)) {
            let what = format!("the permit '{id}' has the scope '{scope}', which its roles do not");
            found(Rule::ScopeBeyondRole, Some("@scope"), what);
        }
    }
}

/// Looks at what policies are to each other.
pub(super) fn look_at_all(views: &[View<'_>], world: World<'_>, findings: &mut Vec<Finding>) {
    let mut reached: BTreeSet<&str> = BTreeSet::new();
    for permit in views.iter().filter(|view| !view.forbids()) {
        let mut forbids = views.iter().filter(|view| view.forbids() && view.is_unconditional());
        if let Some(forbid) = forbids.find(|forbid| covers(forbid, permit)) {
            let (id, by) = (&permit.id, &forbid.id);
            let what = format!("the permit '{id}' is in vain: '{by}' forbids all of it");
            findings.push(Finding::new(Rule::Shadowed, what).of(id).at(permit.place(None)));
        } else if permit.issues() && contradiction(permit).is_none() {
            reached.extend(permit.roles(world));
        }
    }
    for role in world.roles.keys().filter(|role| !reached.contains(role.as_str())) {
        let what = format!("no permit is for [role.{role}]");
        findings.push(Finding::new(Rule::RoleUnreachable, what));
    }
}

/// Whether whatever the scope of one policy lets in, that of the other does too.
fn covers(wide: &View<'_>, narrow: &View<'_>) -> bool {
    ["principal", "action", "resource"].iter().all(|of| {
        let (wide, narrow) = (wide.scope(of), narrow.scope(of));
        let of_any_kind = wide["op"] == "All" || wide["op"] == "is" && wide["in"].is_null();
        let (outer, inner) = (entities_of(wide), entities_of(narrow));
        of_any_kind
            || wide == narrow
            || (wide["op"] == "in"
                && narrow["op"] != "All"
                && !inner.is_empty()
                && inner.iter().all(|entity| outer.contains(entity)))
    })
}
