//! What policies look at of a request that is to be approved, and of whoever approves it. All
//! requests, and all people, that are the same in that are one question, which is asked once.

mod traits;

use cedar_policy::{ActionConstraint, EntityUid, Policy as CedarPolicy, ResourceConstraint};
use serde_json::Value;

pub(in crate::broker) use self::traits::{Sort, Traits};
use super::syntax::is_entities;
use super::{APPROVE, PERSON, Policy};

/// What those policies look at that say who may approve a request, besides its role and who
/// approves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::broker) struct Reads {
    /// For whom it is.
    pub(in crate::broker) subject: bool,
    /// Whom its tokens are for.
    pub(in crate::broker) audience: bool,
    /// What they cover.
    pub(in crate::broker) scope: bool,
    /// For how long it is.
    pub(in crate::broker) ttl: bool,
    /// What time it is.
    pub(in crate::broker) time: bool,
}

impl Reads {
    /// All of it.
    const ALL: Self = Self { subject: true, audience: true, scope: true, ttl: true, time: true };

    /// Whether no two requests are told apart at one moment.
    pub(in crate::broker) fn tells_none_apart(self) -> bool {
        Self { time: false, ..self } == Self::default()
    }

    fn or(self, other: Self) -> Self {
        Self {
            subject: self.subject || other.subject,
            audience: self.audience || other.audience,
            scope: self.scope || other.scope,
            ttl: self.ttl || other.ttl,
            time: self.time || other.time,
        }
    }

    /// What a part of a policy looks at, by Cedar's JSON form.
    fn of(value: &Value) -> Self {
        match value {
            Value::Object(map) => {
                // Somebody of this name may be the one for whom it is, of whom more is known then.
                let kind = map.get("type").and_then(Value::as_str);
                if matches!(kind, Some("User" | PERSON)) && map.contains_key("id") {
                    return Self { subject: true, ..Self::default() };
                }
                // The whole context, whatever is done with it.
                if map.get("Var").and_then(Value::as_str) == Some("context") {
                    return Self::ALL;
                }
                map.iter().fold(Self::default(), |reads, (operator, operands)| {
                    reads.or(match operator.as_str() {
                        "." | "has" if operands["left"]["Var"] == "context" => {
                            Self::of_attribute(operands["attr"].as_str())
                        }
                        // That somebody is in what is named says nothing else of that.
                        "in" if is_entities(&operands["right"]) => Self::of(&operands["left"]),
                        _ => Self::of(operands),
                    })
                })
            }
            Value::Array(values) => values.iter().map(Self::of).fold(Self::default(), Self::or),
            _ => Self::default(),
        }
    }

    fn of_attribute(name: Option<&str>) -> Self {
        let none = Self::default();
        match name {
            Some("time") => Self { time: true, ..none },
            Some("subject") => Self { subject: true, ..none },
            Some("audience") => Self { audience: true, ..none },
            Some("scope") => Self { scope: true, ..none },
            Some("ttl") => Self { ttl: true, ..none },
            _ => Self::ALL,
        }
    }
}

/// What all policies look at that have to do with approvals.
#[derive(Debug, Default)]
pub(super) struct OfApprovals(Vec<OfOne>);

/// What one of them looks at.
#[derive(Debug, PartialEq, Eq)]
struct OfOne {
    /// The one role that it is for, where it is for one.
    role: Option<String>,
    reads: Reads,
    traits: Traits,
}

impl OfApprovals {
    /// Adds what this policy looks at.
    pub(super) fn add(&mut self, policy: &CedarPolicy, json: &Value) {
        let approves = |uid: &EntityUid| uid.id().unescaped() == APPROVE;
        let concerns = match policy.action_constraint() {
            ActionConstraint::Any => true,
            ActionConstraint::In(actions) => actions.iter().any(approves),
            ActionConstraint::Eq(action) => approves(&action),
        };
        if !concerns {
            return;
        }
        let role = match policy.resource_constraint() {
            ResourceConstraint::Any | ResourceConstraint::Is(_) => None,
            ResourceConstraint::In(uid)
            | ResourceConstraint::Eq(uid)
            | ResourceConstraint::IsIn(_, uid) => Some(uid.id().unescaped().to_string()),
        };
        // What stands in the head is about who approves, the action and the role.
        let reads = Reads::of(&json["conditions"]);
        self.0.push(OfOne { role, reads, traits: Traits::of(policy, json) });
    }

    /// What those look at that are for this role.
    fn of_role(&self, role: &str) -> impl Iterator<Item = &OfOne> {
        self.0.iter().filter(move |one| one.role.as_deref().is_none_or(|only| only == role))
    }
}

impl Policy {
    /// What policies look at of a request for this role that is to be approved. Two requests
    /// that are the same in that are one question: Cedar knows nothing else.
    pub(in crate::broker) fn reads_to_approve(&self, role: &str) -> Reads {
        self.approving.of_role(role).map(|one| one.reads).fold(Reads::default(), Reads::or)
    }

    /// What they look at of whoever approves such a request. Two who are the same in that are one
    /// question, too.
    pub(in crate::broker) fn traits_to_approve(&self, role: &str) -> Traits {
        let all = self.approving.of_role(role).map(|one| &one.traits);
        all.fold(Traits::default(), Traits::or)
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use cedar_policy::PolicySet;

    use super::*;

    fn reads(condition: &str) -> Reads {
        let text = format!(
            "permit (principal in DirectoryGroup::\"leads\", action == Action::\"approve\", resource) when {{ {condition} }};"
        );
        let policies = PolicySet::from_str(&text).unwrap();
        let policy = policies.policies().next().unwrap();
        let mut all = OfApprovals::default();
        all.add(policy, &policy.to_json().unwrap());
        all.0[0].reads
    }

    #[test]
    fn what_a_policy_looks_at_is_all_that_is_told_apart() {
        let none = Reads::default();
        for (condition, expected) in [
            ("true", none),
            ("principal in DirectoryGroup::\"staff\"", none),
            ("resource == Role::\"admin\"", none),
            ("context.time < datetime(\"2030-01-01\")", Reads { time: true, ..none }),
            ("context.ttl < 3600", Reads { ttl: true, ..none }),
            ("context.scope.contains(\"a\")", Reads { scope: true, ..none }),
            ("context.audience like \"https://*\"", Reads { audience: true, ..none }),
            ("!(context.subject in DirectoryGroup::\"a\")", Reads { subject: true, ..none }),
            (
                "context has ttl && context.scope == [\"a\"]",
                Reads { ttl: true, scope: true, ..none },
            ),
            // Whoever is named may be the one for whom it is.
            ("User::\"i#bob\" in DirectoryGroup::\"a\"", Reads { subject: true, ..none }),
            ("[User::\"i#bob\"].contains(principal)", Reads { subject: true, ..none }),
            ("Person::\"bob\" in DirectoryGroup::\"a\"", Reads { subject: true, ..none }),
            ("principal in Person::\"bob\"", none),
            ("principal in [Person::\"bob\", Person::\"eve\"]", none),
            ("context.subject in Person::\"bob\"", Reads { subject: true, ..none }),
            ("(if context.ttl > 1 then context else context).ttl < 5", Reads::ALL),
            ("context == {}", Reads::ALL),
            ("{ a: context }.a.ttl > 1", Reads::ALL),
            ("context[\"ttl\"] < 5", Reads { ttl: true, ..none }),
            ("context.unheard_of", Reads::ALL),
        ] {
            assert_eq!(reads(condition), expected, "{condition}");
        }
    }

    #[test]
    fn policies_about_something_else_tell_nothing_apart() {
        let text = r#"
            permit (principal, action == Action::"issue", resource) when { context.ttl < 5 };
            forbid (principal, action, resource == Role::"b") when { context.ttl < 5 };
        "#;
        let policies = PolicySet::from_str(text).unwrap();
        let mut all = OfApprovals::default();
        for policy in policies.policies() {
            all.add(policy, &policy.to_json().unwrap());
        }
        let ttl = Reads { ttl: true, ..Reads::default() };
        let only = OfOne { role: Some("b".into()), reads: ttl, traits: Traits::default() };
        assert_eq!(all.0, [only]);
    }
}
