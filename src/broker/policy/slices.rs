//! The policies that a question is put to.
//!
//! Cedar takes a microsecond or two for each policy that it is asked about, whatever that is for.
//! The head of a policy says which action and which resource it is for, and where it is for
//! others, neither a decision comes of it nor an error: those are left out. What is left is put
//! together once for each action and resource that somebody asks about.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cedar_policy::{ActionConstraint, EntityUid, Policy, PolicySet, ResourceConstraint};

/// How many policies may be in all slices for one resource together: so many for each that there
/// is, and this many in any case. Beyond, what is for an action is asked about as a whole.
const ROOM: usize = 16;
const ROOM_ANYWAY: usize = 32 * 1024;

/// Policies, and those of them that can count for something.
#[derive(Debug)]
pub(super) struct Slices {
    all: PolicySet,
    made: Mutex<Made>,
}

#[derive(Debug)]
struct Made {
    by_action: HashMap<String, Slice>,
    /// How many more there may be in slices for one resource.
    room: usize,
}

#[derive(Debug)]
struct Slice {
    /// Those for the action, whatever the resource.
    all: Arc<PolicySet>,
    by_resource: HashMap<EntityUid, Arc<PolicySet>>,
}

impl Slices {
    pub(super) fn of(all: PolicySet) -> Self {
        let room = all.num_of_policies().saturating_mul(ROOM).max(ROOM_ANYWAY);
        Self::within(all, room)
    }

    fn within(all: PolicySet, room: usize) -> Self {
        Self { all, made: Mutex::new(Made { by_action: HashMap::new(), room }) }
    }

    pub(super) fn all(&self) -> &PolicySet {
        &self.all
    }

    /// Those that can count where somebody asks for this action with this resource. `is_there`
    /// says whether that is a resource that there is: of others, of which there are any number,
    /// nothing is kept.
    pub(super) fn for_question(
        &self,
        action: &str,
        resource: &EntityUid,
        is_there: bool,
    ) -> Arc<PolicySet> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let Made { by_action, room } = &mut *made;
        if !by_action.contains_key(action) {
            let all = Arc::new(some_of(&self.all, |policy| is_for_action(policy, action)));
            let slice = Slice { all, by_resource: HashMap::new() };
            by_action.insert(action.to_string(), slice);
        }
        let Some(Slice { all, by_resource }) = by_action.get_mut(action) else {
            return Arc::new(self.all.clone());
        };
        if let Some(slice) = by_resource.get(resource) {
            return slice.clone();
        }
        if !is_there {
            return all.clone();
        }
        let slice = some_of(all, |policy| is_for_resource(policy, resource));
        let size = slice.num_of_policies();
        // One that would leave nothing out, or too large a part of what there is room for, is the
        // one for all.
        let slice = match size < all.num_of_policies() && size <= *room {
            true => {
                *room -= size;
                Arc::new(slice)
            }
            false => all.clone(),
        };
        by_resource.insert(resource.clone(), slice.clone());
        slice
    }
}

/// Those of which this is so. Where they cannot be put together, it is all of them.
fn some_of(policies: &PolicySet, is: impl Fn(&Policy) -> bool) -> PolicySet {
    let mut some = PolicySet::new();
    for policy in policies.policies().filter(|policy| is(policy)) {
        if some.add(policy.clone()).is_err() {
            return policies.clone();
        }
    }
    some
}

/// Whether it is for this action. No action is one of others.
pub(super) fn is_for_action(policy: &Policy, action: &str) -> bool {
    let is = |uid: &EntityUid| uid.id().unescaped() == action;
    match policy.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::In(actions) => actions.iter().any(is),
        ActionConstraint::Eq(uid) => is(&uid),
    }
}

/// Whether it is for this resource. No resource is in another one.
pub(super) fn is_for_resource(policy: &Policy, resource: &EntityUid) -> bool {
    match policy.resource_constraint() {
        ResourceConstraint::Any | ResourceConstraint::Is(_) => true,
        ResourceConstraint::In(uid)
        | ResourceConstraint::Eq(uid)
        | ResourceConstraint::IsIn(_, uid) => uid == *resource,
    }
}

#[cfg(test)]
mod tests {
    use cedar_policy::EntityTypeName;

    use super::*;

    fn role(name: &str) -> EntityUid {
        let kind: EntityTypeName = "Role".parse().unwrap();
        EntityUid::from_type_name_and_id(kind, name.parse().unwrap())
    }

    fn slices(text: &str) -> Slices {
        Slices::of(text.parse().unwrap())
    }

    fn counted(slices: &Slices, action: &str, name: &str, is_there: bool) -> usize {
        slices.for_question(action, &role(name), is_there).num_of_policies()
    }

    const SOME: &str = r#"
        permit (principal, action == Action::"issue", resource == Role::"a");
        permit (principal, action in [Action::"issue", Action::"exchange"], resource == Role::"b");
        permit (principal, action == Action::"issue", resource in Role::"a");
        permit (principal, action == Action::"issue", resource is Role in Role::"b");
        permit (principal, action == Action::"revoke", resource is Role);
        forbid (principal, action, resource == Role::"a");
        forbid (principal, action, resource) unless { context has source };
    "#;

    #[test]
    fn what_is_for_another_action_or_resource_is_left_out() {
        let slices = slices(SOME);
        for _ in 0..2 {
            for (action, name, count) in [
                ("issue", "a", 4),
                ("issue", "b", 3),
                ("issue", "c", 1),
                ("exchange", "a", 2),
                ("exchange", "b", 2),
                ("revoke", "a", 3),
                ("revoke", "b", 2),
                ("unheard-of", "b", 1),
            ] {
                assert_eq!(counted(&slices, action, name, true), count, "{action} {name}");
            }
        }
        assert_eq!(slices.all().num_of_policies(), 7);
    }

    #[test]
    fn of_what_is_not_there_nothing_is_kept() {
        let slices = slices(SOME);
        for n in 0..1000 {
            assert_eq!(counted(&slices, "issue", &n.to_string(), false), 6);
        }
        let made = slices.made.lock().unwrap();
        assert!(made.by_action["issue"].by_resource.is_empty());
    }

    #[test]
    fn slices_take_no_more_room_than_there_is() {
        let mut text = r#"permit (principal, action, resource == Role::"x");"#.to_string();
        text += &"permit (principal, action, resource);".repeat(9);
        let slices = Slices::within(text.parse().unwrap(), 160);
        let sizes: Vec<_> =
            (0..100).map(|n| counted(&slices, "issue", &n.to_string(), true)).collect();
        assert_eq!(sizes[..17], [9; 17]);
        assert_eq!(sizes[17..], [10; 83], "those go to all");
    }
}
