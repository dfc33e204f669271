//! What policies look at of whoever approves. Of very many people most are the same in that.

use std::collections::BTreeSet;

use cedar_policy::Policy as CedarPolicy;
use serde_json::Value;

use super::super::syntax::{is_entities, is_issuer, is_principal};
use super::super::{BROKER, DIRECTORY_GROUP, PERSON};
use crate::broker::authenticate::id_of;
use crate::broker::directory::Person;

/// What those policies look at of whoever approves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::broker) struct Traits {
    /// Whether it may be anything: then nobody is like anybody else.
    all: bool,
    /// Whether it is the issuer who says who they are.
    issuer: bool,
    /// The users whom they name.
    users: BTreeSet<String>,
    /// The people whom they name.
    people: BTreeSet<String>,
    /// The groups of the directory that they name.
    groups: BTreeSet<String>,
}

/// All of somebody that is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::broker) struct Sort<'a> {
    user: Option<String>,
    issuer: Option<String>,
    person: Option<&'a str>,
    groups: Vec<&'a str>,
}

impl Traits {
    /// What this policy looks at.
    pub(super) fn of(policy: &CedarPolicy, json: &Value) -> Self {
        let mut traits = Self::default();
        // Whoever is named is told from all others, wherever that stands: Cedar may know of
        // nobody of that name but where it is they who approve.
        for named in policy.entity_literals() {
            let id = named.id().unescaped().to_string();
            match named.type_name().to_string().as_str() {
                "User" => drop(traits.users.insert(id)),
                PERSON => drop(traits.people.insert(id)),
                DIRECTORY_GROUP => drop(traits.groups.insert(id)),
                // Nobody who approves is in a group of an issuer: only tokens tell of those.
                "Action" | BROKER | "Group" | "Role" => {}
                _ => traits.all = true,
            }
        }
        traits.look(&json["conditions"]);
        traits
    }

    /// Adds what a part of a policy's conditions looks at, by Cedar's JSON form, besides whom it
    /// names.
    fn look(&mut self, value: &Value) {
        match value {
            // As something that may be compared with anything, or taken apart.
            Value::Object(_) if is_principal(value) => self.all = true,
            Value::Object(_) if is_issuer(value) => self.issuer = true,
            Value::Object(map) => {
                for (operator, operands) in map {
                    if !only_names(operator, operands) {
                        self.look(operands);
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| self.look(value)),
            _ => {}
        }
    }

    /// What both look at.
    pub(super) fn or(self, other: &Self) -> Self {
        Self {
            all: self.all || other.all,
            issuer: self.issuer || other.issuer,
            users: &self.users | &other.users,
            people: &self.people | &other.people,
            groups: &self.groups | &other.groups,
        }
    }

    /// What of somebody is looked at, by issuer and subject, who is this person in the directory.
    pub(in crate::broker) fn sort_of<'a>(
        &self,
        (issuer, subject): (&str, &str),
        (name, person): (&'a str, &'a Person),
    ) -> Sort<'a> {
        let names_users = self.all || !self.users.is_empty();
        let user = names_users.then(|| id_of(issuer, subject));
        let groups = person.groups.iter().map(String::as_str);
        Sort {
            user: user.filter(|id| self.all || self.users.contains(id)),
            issuer: self.issuer.then(|| issuer.to_string()),
            person: Some(name).filter(|name| self.people.contains(*name)),
            groups: groups.filter(|group| self.groups.contains(*group)).collect(),
        }
    }
}

/// Whether this says only whether whoever approves is, or is in, what is named.
fn only_names(operator: &str, operands: &Value) -> bool {
    let (left, right) = (&operands["left"], &operands["right"]);
    match operator {
        "==" | "!=" => {
            is_principal(left) && is_entities(right) || is_entities(left) && is_principal(right)
        }
        "in" => is_principal(left) && is_entities(right),
        "contains" => is_entities(left) && is_principal(right),
        // What they are in may be left out.
        "is" => {
            let within = operands.get("in");
            is_principal(left) && within.is_none_or(is_entities)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traits(principal: &str, condition: &str) -> Traits {
        let text = format!(
            "permit ({principal}, action == Action::\"approve\", resource == Role::\"a\") when {{ {condition} }};"
        );
        let policy: CedarPolicy = text.parse().unwrap();
        Traits::of(&policy, &policy.to_json().unwrap())
    }

    fn set(name: &str) -> BTreeSet<String> {
        [name.to_string()].into()
    }

    #[test]
    fn whoever_is_named_is_told_apart_and_nobody_else() {
        let none = Traits::default();
        let (bob, eve) = (|| set("i#bob"), || set("eve"));
        for (principal, condition, expected) in [
            ("principal", "true", none.clone()),
            ("principal is User", "context.ttl < 5", none.clone()),
            ("principal", "context.subject in Role::\"b\"", none.clone()),
            (
                "principal in DirectoryGroup::\"a\"",
                "principal in [DirectoryGroup::\"b\", DirectoryGroup::\"c\"]",
                Traits { groups: ["a", "b", "c"].map(String::from).into(), ..none.clone() },
            ),
            (
                "principal == User::\"i#bob\"",
                "principal is User in Person::\"eve\"",
                Traits { users: bob(), people: eve(), ..none.clone() },
            ),
            (
                "principal is User in Person::\"eve\"",
                "principal is User",
                Traits { people: eve(), ..none.clone() },
            ),
            (
                "principal",
                "[User::\"i#bob\"].contains(principal) && User::\"i#bob\" != principal",
                Traits { users: bob(), ..none.clone() },
            ),
            // Cedar knows their groups where it is they who approve.
            (
                "principal",
                "Person::\"eve\" in DirectoryGroup::\"a\"",
                Traits { people: eve(), groups: set("a"), ..none.clone() },
            ),
            (
                "principal",
                "[\"i\", \"j\"].contains(principal.issuer) || principal[\"issuer\"] like \"k*\"",
                Traits { issuer: true, ..none.clone() },
            ),
            ("principal", "principal in Group::\"i#g\"", none.clone()),
        ] {
            assert_eq!(traits(principal, condition), expected, "{principal} {condition}");
        }
    }

    #[test]
    fn where_more_is_looked_at_nobody_is_like_anybody_else() {
        for condition in [
            "principal.subject like \"a*\"",
            "principal has issuer",
            "principal.hasTag(\"amr\")",
            "principal.getTag(\"amr\").contains(\"mfa\")",
            "principal == context.subject",
            "context.subject in principal",
            "principal in context.subject",
            "[principal].contains(context.subject)",
            "[User::\"i#bob\", context.subject].contains(principal)",
            "principal in []",
            "{ a: principal }.a.issuer == \"i\"",
            "(if context.ttl < 5 then principal else context.subject).issuer == \"i\"",
            "principal.unheard_of == 1",
            "principal is User in context.subject",
        ] {
            assert!(traits("principal", condition).all, "{condition}");
        }
    }

    #[test]
    fn people_are_of_one_sort_where_all_that_is_looked_at_is_the_same() {
        let person = |groups: &[&str]| Person {
            name: String::new(),
            ids: Vec::new(),
            groups: groups.iter().map(ToString::to_string).collect(),
            contacts: Default::default(),
        };
        let (lead, other) = (person(&["leads", "staff"]), person(&["leads", "guests"]));
        let same = |traits: &Traits, one: (&str, &str), another: (&str, &str)| {
            traits.sort_of(one, ("ann", &lead)) == traits.sort_of(another, ("ben", &other))
        };
        let none = Traits::default();
        let (ann, ben) = (("i", "ann"), ("j", "ben"));
        assert!(same(&none, ann, ben));
        assert!(same(&Traits { groups: set("leads"), ..none.clone() }, ann, ben));
        assert!(!same(&Traits { groups: set("guests"), ..none.clone() }, ann, ben));
        assert!(!same(&Traits { people: set("ben"), ..none.clone() }, ann, ben));
        assert!(same(&Traits { people: set("eve"), ..none.clone() }, ann, ben));
        assert!(!same(&Traits { users: set("i#ann"), ..none.clone() }, ann, ben));
        assert!(same(&Traits { users: set("i#ben"), ..none.clone() }, ann, ben));
        let issuer = Traits { issuer: true, ..none.clone() };
        assert!(!same(&issuer, ann, ben) && same(&issuer, ann, ("i", "ben")));
        assert!(!same(&Traits { all: true, ..none }, ann, ("i", "ben")));
    }
}
