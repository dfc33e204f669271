//! Which policies were considered for a decision, what of them holds, and what would
//! have to be different for a permit.

use std::collections::BTreeMap;

use cedar_policy::{
    Authorizer, Decision, Entities, Policy as CedarPolicy, PolicyId, PolicySet, Request,
};
use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::super::view::{self, View, literal, path, walk};
use super::super::{APPROVE, Asks, ELEVATE, INTROSPECT};
use super::elevation::Approvers;
use super::{Action, Asked, Asking, Outcome, Trial, operation};
use crate::broker::authenticate::Caller;
use crate::broker::decide::{Bounds, Wanted, Why};
use crate::error::Result;

/// How many permits are named that would be nearest to permitting it.
const NEAREST: usize = 3;

/// Why it is decided as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What is decided.
    pub outcome: Outcome,
    /// The policies that were considered; none where it did not come to that.
    pub considered: Vec<Considered>,
    /// What would have to be different for a permit; nothing where there is one.
    pub changes: Vec<String>,
    /// Who could approve it, where it is asked for a role for a while.
    pub approvers: Vec<Approvers>,
}

/// A policy, and what of it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Considered {
    /// Its id.
    pub policy: String,
    /// Whether it forbids.
    pub forbids: bool,
    /// Whether it applies: all of it holds.
    pub applies: bool,
    /// Whether it is the one that decides.
    pub decides: bool,
    /// Its parts.
    pub parts: Vec<Part>,
}

/// A part of a policy that has to hold for it to apply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// `principal`, `action`, `resource`, `when` or `unless`.
    pub of: &'static str,
    /// Its text.
    pub text: String,
    /// Whether it holds.
    pub holds: Holds,
    /// What the values are that it speaks of.
    pub found: Vec<Found>,
}

/// Whether a part holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holds {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// It cannot be evaluated, which is no matter, as another part does not hold before.
    NotReached,
    /// It cannot be evaluated.
    Fails,
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Of what.
    pub what: String,
    /// The value.
    pub is: String,
}

impl Trial<'_> {
    /// Explains a decision.
    ///
    /// # Errors
    /// A question that cannot be asked, such as an issuer that nobody knows.
    pub fn explain(&self, asking: &Asking, now: OffsetDateTime) -> Result<Explanation> {
        let asked = self.ask(asking, now)?;
        let outcome = asked.outcome(self);
        let mut considered = match &asked.caller {
            Ok(caller) => self.considered(&asked, caller),
            Err(_) => Vec::new(),
        };
        if let Outcome::Permit { policy, .. } | Outcome::Deny { policy: Some(policy), .. } =
            &outcome
        {
            for one in &mut considered {
                one.decides = one.policy == *policy;
            }
        }
        let changes = self.changes(&asked, &outcome, &considered);
        let approvers = asked.caller.as_ref().ok();
        let approvers = approvers.map(|caller| asked.approvers(self, caller)).unwrap_or_default();
        Ok(Explanation { outcome, considered, changes, approvers })
    }

    /// What policy was asked, and what of each holds; nothing where it was not asked.
    fn considered(&self, asked: &Asked<'_>, caller: &Caller) -> Vec<Considered> {
        let Some(Ok(asks)) = self.asks(asked, caller) else { return Vec::new() };
        let (action, resource) = (asks.action, self.policy.uid_of(asks.resource).to_string());
        let Ok((request, entities)) = self.policy.request(caller, asks, asked.now) else {
            return Vec::new();
        };
        let looker = Looker { request, entities, asked, caller, action, resource };
        view::all(&self.sources).iter().map(|view| looker.look(view)).collect()
    }

    /// What Cedar is asked; nothing where it does not come to that.
    fn asks<'q>(
        &self,
        asked: &'q Asked<'_>,
        caller: &'q Caller,
    ) -> Option<Result<Asks<'q>, String>> {
        if let Some(operation) = &asked.operation {
            return Some(self.policy.asks_of(caller, operation, asked.moment()));
        }
        let rules = self.rules();
        if let Some(told) = asked.elevation_context(self, caller) {
            let action = self.action_of(asked, caller);
            let about = asked.about.as_ref();
            return Some(told.map(|told| Asks {
                about,
                ..Asks::of_role(caller.id(), action, asked.role, told)
            }));
        }
        let role = rules.role(Wanted { key_bound: true, ..asked.wanted() }).ok()?;
        let told = match asked.action {
            Action::Introspect => {
                self.policy.terms.audience_context(asked.audience, asked.moment())
            }
            _ => {
                let bounds = Bounds::of(caller, role, asked.wanted(), asked.now).ok()?;
                let question = bounds.question(asked.wanted(), asked.now);
                self.policy.terms.context(caller, &question)
            }
        };
        let action = self.action_of(asked, caller);
        Some(told.map(|told| Asks::of_role(caller.id(), action, asked.role, told)))
    }

    /// What policy is asked about.
    fn action_of(&self, asked: &Asked<'_>, caller: &Caller) -> &'static str {
        match asked.action {
            Action::Introspect => INTROSPECT,
            Action::Elevate => ELEVATE,
            Action::Approve => APPROVE,
            _ => self.policy.action_of(caller),
        }
    }

    fn changes(
        &self,
        asked: &Asked<'_>,
        outcome: &Outcome,
        considered: &[Considered],
    ) -> Vec<String> {
        let Outcome::Deny { reason, said, .. } = outcome else { return Vec::new() };
        let role = self.config.role.get(asked.role);
        match reason {
            Why::Role => {
                let known: Vec<_> = self.config.role.keys().map(String::as_str).collect();
                vec![format!("another role would have to be asked for: {}", known.join(", "))]
            }
            Why::Audience => {
                let known = role.iter().flat_map(|role| &role.audiences).cloned();
                let known: Vec<String> = known.collect();
                vec![format!("another audience would have to be asked for: {}", known.join(", "))]
            }
            Why::Scope => self.scopes_to_be_had(asked, considered),
            Why::Forbidden => considered
                .iter()
                .filter(|one| one.forbids && one.applies)
                .map(|one| {
                    let parts: Vec<_> = one.parts.iter().map(|part| part.text.as_str()).collect();
                    let id = &one.policy;
                    format!(
                        "'{id}' would have to forbid it no longer; it does where {}",
                        parts.join(", ")
                    )
                })
                .collect(),
            Why::NoPermit => nearest(considered),
            Why::Unbound => vec!["the caller would have to prove a key of their own (DPoP)".into()],
            Why::Elevation if asked.action == Action::Issue => {
                vec!["the caller would need a grant: `tmpcred elevate request`".into()]
            }
            Why::Elevation
            | Why::Token
            | Why::Ended
            | Why::Actor
            | Why::Directory
            | Why::Failed
            | Why::Aws
            | Why::Claims => vec![said.clone()],
        }
    }

    fn scopes_to_be_had(&self, asked: &Asked<'_>, considered: &[Considered]) -> Vec<String> {
        let applying = considered.iter().filter(|one| !one.forbids && one.applies);
        let limits = applying.filter_map(|one| Some((one, self.policy.limits.get(&one.policy)?)));
        let mut changes: Vec<String> = limits
            .map(|(one, limits)| {
                let scope: Vec<_> = limits.scope.iter().map(String::as_str).collect();
                format!(
                    "no more scope may be asked for than '{}' has: {}",
                    one.policy,
                    scope.join(" ")
                )
            })
            .collect();
        if changes.is_empty()
            && let Some(role) = self.config.role.get(asked.role)
        {
            let scope: Vec<_> = role.scopes.iter().map(String::as_str).collect();
            changes.push(format!(
                "no more scope may be asked for than the role '{}' has: {}",
                asked.role,
                scope.join(" ")
            ));
        }
        changes
    }
}

/// The permits of which the least does not hold.
fn nearest(considered: &[Considered]) -> Vec<String> {
    let lacking = |one: &Considered| -> Vec<String> {
        let lacks = one.parts.iter().filter(|part| matches!(part.holds, Holds::No | Holds::Fails));
        lacks.map(Part::lack).collect()
    };
    let holds = |one: &Considered, of: &str| {
        one.parts.iter().all(|part| part.of != of || part.holds == Holds::Yes)
    };
    let mut permits: Vec<_> = considered
        .iter()
        .filter(|one| !one.forbids && !one.applies && holds(one, "action"))
        .map(|one| (!holds(one, "resource"), lacking(one), &one.policy))
        .collect();
    permits.sort_by_key(|(elsewhere, lacking, id)| (*elsewhere, lacking.len(), *id));
    permits
        .into_iter()
        .take(NEAREST)
        .map(|(_, lacking, id)| format!("'{id}' would permit it, if {}", lacking.join(", and ")))
        .collect()
}

impl Part {
    /// That it would have to hold, and what is the case.
    fn lack(&self) -> String {
        let not = if self.of == "unless" { "not " } else { "" };
        let found: Vec<_> =
            self.found.iter().map(|found| format!("{} is {}", found.what, found.is)).collect();
        let found =
            if found.is_empty() { String::new() } else { format!(" ({})", found.join("; ")) };
        format!("{not}{}{found}", self.text)
    }
}

/// Looks at each part of a policy by itself.
struct Looker<'a> {
    request: Request,
    entities: Entities,
    asked: &'a Asked<'a>,
    caller: &'a Caller,
    action: &'a str,
    resource: String,
}

impl Looker<'_> {
    fn look(&self, view: &View<'_>) -> Considered {
        let mut parts = Vec::new();
        for of in ["principal", "action", "resource"] {
            let scope = view.scope(of);
            if scope["op"] == "All" {
                continue;
            }
            let found = match of {
                "principal" => self.found(&json!({"in": {"left": {"Var": "principal"}}})),
                _ => self.found(&json!({"Var": of})),
            };
            parts.push(Part {
                of,
                text: scope_text(of, scope),
                holds: self.holds(of, scope),
                found,
            });
        }
        for part in view.parts() {
            let of = if part.unless { "unless" } else { "when" };
            let holds = self.holds(of, part.body);
            parts.push(Part { of, text: text(part.body), holds, found: self.found(part.body) });
        }
        // What comes behind something that does not hold is not looked at.
        let mut open = true;
        for part in &mut parts {
            if !open && part.holds == Holds::Fails {
                part.holds = Holds::NotReached;
            }
            open &= part.holds == Holds::Yes;
        }
        Considered {
            policy: view.id.clone(),
            forbids: view.forbids(),
            applies: parts.iter().all(|part| part.holds == Holds::Yes),
            decides: false,
            parts,
        }
    }

    /// Whether a policy of nothing but this part would permit it.
    fn holds(&self, of: &str, part: &Value) -> Holds {
        let mut policy = json!({
            "effect": "permit",
            "principal": {"op": "All"}, "action": {"op": "All"}, "resource": {"op": "All"},
            "conditions": [],
        });
        match of {
            "when" | "unless" => policy["conditions"] = json!([{"kind": of, "body": part}]),
            of => policy[of] = part.clone(),
        }
        let mut set = PolicySet::new();
        let added = CedarPolicy::from_json(Some(PolicyId::new("part")), policy)
            .map_err(|_| ())
            .and_then(|policy| set.add(policy).map_err(|_| ()));
        if added.is_err() {
            return Holds::Fails;
        }
        let response = Authorizer::new().is_authorized(&self.request, &set, &self.entities);
        match (response.diagnostics().errors().next(), response.decision()) {
            (Some(_), _) => Holds::Fails,
            (None, Decision::Allow) => Holds::Yes,
            (None, Decision::Deny) => Holds::No,
        }
    }

    /// The values of what an expression speaks of.
    fn found(&self, body: &Value) -> Vec<Found> {
        let mut found: BTreeMap<String, String> = BTreeMap::new();
        let list = |values: &mut dyn Iterator<Item = &String>| {
            let values: Vec<_> = values.map(|value| format!("\"{value}\"")).collect();
            format!("[{}]", values.join(", "))
        };
        let question = self.asked;
        walk(body, &mut |value| {
            let tag = value.get("getTag").or(value.get("hasTag"));
            if let Some(name) = tag.and_then(|tag| literal(&tag["right"])) {
                let is = match self.caller.tags().get(&name) {
                    Some(values) => list(&mut values.iter()),
                    None => "not in the token".into(),
                };
                found.insert(format!("the claim '{name}'"), is);
            }
            if value.get("in").is_some_and(|of| of["left"]["Var"] == "principal") {
                found.insert("principal".into(), format!("User::\"{}\"", self.caller.id()));
                let groups = list(&mut self.caller.groups().iter());
                found.insert("the list of the caller's groups".into(), groups);
            }
            let principal = self.caller.principal();
            let is = match path(value).as_deref() {
                Some("principal.issuer") => format!("\"{}\"", principal.issuer),
                Some("principal.subject") => format!("\"{}\"", principal.subject),
                Some("action") => format!("Action::\"{}\"", self.action),
                Some("resource") => self.resource.clone(),
                Some("context.audience") => format!("\"{}\"", question.audience),
                Some("context.scope") => match &question.scope {
                    Some(scope) => list(&mut scope.iter()),
                    None => "all that can be had".into(),
                },
                Some("context.ttl") => match question.ttl {
                    Some(ttl) => ttl.as_secs().to_string(),
                    None => "the longest that can be had".into(),
                },
                Some("context.client") => match self.caller.authenticated_client() {
                    Some(client) => format!("\"{client}\""),
                    None => "none that has authenticated".into(),
                },
                Some("context.key_bound") => question.key_bound.to_string(),
                Some(of) => {
                    match question.operation.as_ref().and_then(|op| operation::found(op, of)) {
                        Some(is) => is,
                        None => return,
                    }
                }
                None => return,
            };
            found.insert(path(value).unwrap_or_default(), is);
        });
        found.into_iter().map(|(what, is)| Found { what, is }).collect()
    }
}

/// An expression, as Cedar writes it.
fn text(body: &Value) -> String {
    let policy = json!({
        "effect": "permit",
        "principal": {"op": "All"}, "action": {"op": "All"}, "resource": {"op": "All"},
        "conditions": [{"kind": "when", "body": body}],
    });
    let written = CedarPolicy::from_json(None, policy).ok().and_then(|policy| policy.to_cedar());
    let own = written.as_deref().and_then(|written| {
        let (_, rest) = written.split_once("when {")?;
        Some(rest.rsplit_once('}')?.0.trim())
    });
    own.map_or_else(|| body.to_string(), String::from)
}

fn scope_text(of: &str, scope: &Value) -> String {
    let entity = |value: &Value| {
        let part = |name: &str| value[name].as_str().unwrap_or_default().to_string();
        format!("{}::\"{}\"", part("type"), part("id"))
    };
    let operator = scope["op"].as_str().unwrap_or_default();
    let (one, many) = (&scope["entity"], scope["entities"].as_array());
    let mut text = match (operator, many) {
        ("is", _) => format!("{of} is {}", scope["entity_type"].as_str().unwrap_or_default()),
        (_, Some(many)) => {
            let many: Vec<_> = many.iter().map(entity).collect();
            format!("{of} {operator} [{}]", many.join(", "))
        }
        _ => format!("{of} {operator} {}", entity(one)),
    };
    if !scope["in"].is_null() {
        text += &format!(" in {}", entity(&scope["in"]["entity"]));
    }
    text
}
