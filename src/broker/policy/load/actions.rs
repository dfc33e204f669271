//! Whether a policy is for the actions that it can be for, and says whose callers it means.

use cedar_policy::{ActionConstraint, Policy as CedarPolicy};
use serde_json::Value;

use super::super::elevation::reads_tokens;
use super::super::syntax::names_issuer;
use super::super::{ADMINISTER, APPROVE, EXCHANGE, INTROSPECT, ISSUE, REVOKE};
use super::{ANY_ISSUER, Loader};

impl Loader<'_> {
    /// Refuses a permit that says nothing of whose word is taken for it: each trusted
    /// issuer chooses the claims of its tokens by itself.
    pub(super) fn check_issuer(
        &self,
        id: &str,
        permit: &CedarPolicy,
        action: &str,
        json: &Value,
    ) -> Result<(), String> {
        // Clients are not issued anything in their own name, but there is what they may do.
        let own = self.world.has_own_users() && [INTROSPECT, REVOKE, ADMINISTER].contains(&action);
        // What is exchanged is always the broker's own.
        if action == EXCHANGE {
            return Ok(());
        }
        let several = self.world.trusted.len() + usize::from(own) > 1;
        if !several || permit.annotation(ANY_ISSUER).is_some() || names_issuer(json) {
            return Ok(());
        }
        Err(format!(
            "the permit '{id}' is for callers of every trusted issuer; name a User or a Group, or add principal.issuer == \"…\" to its conditions, or annotate it @{ANY_ISSUER} if that is what is meant"
        ))
    }

    /// Refuses a policy that forbids to issue and not to exchange, where that can be: who has
    /// a token of the broker's would escape it.
    pub(super) fn check_evasion(&self, id: &str, forbid: &CedarPolicy) -> Result<(), String> {
        let actions = match forbid.action_constraint() {
            ActionConstraint::Any => return Ok(()),
            ActionConstraint::In(actions) => actions,
            ActionConstraint::Eq(action) => vec![action],
        };
        let has = |name: &str| actions.iter().any(|action| action.id().unescaped() == name);
        if has(EXCHANGE) || !has(ISSUE) || !self.world.is_trusted(self.world.own.as_str()) {
            return Ok(());
        }
        Err(format!(
            "the policy '{id}' forbids to issue, and not to exchange a token of the broker's; say action in [Action::\"{ISSUE}\", Action::\"{EXCHANGE}\"]"
        ))
    }

    /// Refuses a policy about approvals that asks what only a token says: approvals are
    /// counted again when nobody is there to show one.
    pub(super) fn check_approvals(
        &self,
        id: &str,
        policy: &CedarPolicy,
        json: &Value,
    ) -> Result<(), String> {
        let elevates = self.world.roles.values().any(|role| role.elevation.is_some());
        let approves = match policy.action_constraint() {
            ActionConstraint::Any => elevates,
            ActionConstraint::In(actions) => {
                actions.iter().any(|action| action.id().unescaped() == APPROVE)
            }
            ActionConstraint::Eq(action) => action.id().unescaped() == APPROVE,
        };
        if !approves || !reads_tokens(json) {
            return Ok(());
        }
        Err(format!(
            "the policy '{id}' is about approvals too, and looks at groups of an issuer or at claims; who may approve is said by the directory: name a DirectoryGroup, a Person or a User, or the actions that it is for"
        ))
    }
}

/// What a permit is for. It is never for two things: what is granted together is granted
/// by oversight.
pub(in crate::broker::policy) fn action_of(
    id: &str,
    permit: &CedarPolicy,
) -> Result<String, String> {
    let actions = match permit.action_constraint() {
        ActionConstraint::Any => Vec::new(),
        ActionConstraint::In(actions) => actions,
        ActionConstraint::Eq(action) => vec![action],
    };
    match &actions[..] {
        [one] => Ok(one.id().unescaped().to_string()),
        _ => Err(format!(
            "the permit '{id}' has to name the one action that it is for, such as action == Action::\"issue\""
        )),
    }
}
