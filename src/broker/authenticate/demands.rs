//! What tokens must say so that nothing that is forbidden can be escaped.

use super::{Caller, unacceptable};
use crate::broker::config::{Assertions, TrustedIssuer};
use crate::broker::policy::Needs;
use crate::error::{Result, foreign};

/// How much of a claim's name is shown.
const SHOWN: usize = 100;

/// What is demanded of an issuer's tokens beyond that they are good.
#[derive(Clone, Debug)]
pub(super) struct Demands {
    groups_claim: String,
    groups_required: bool,
    ends_with_token: bool,
    assertions: Assertions,
}

impl Demands {
    /// What the configuration demands.
    pub(super) fn of(config: &TrustedIssuer) -> Self {
        Self {
            groups_claim: config.groups_claim.clone(),
            groups_required: config.groups_required,
            ends_with_token: config.ends_with_token,
            assertions: config.assertions,
        }
    }

    /// How often its tokens may be exchanged.
    pub(super) fn assertions(&self) -> Assertions {
        self.assertions
    }

    /// Looks whether a caller's token says enough, for the configuration and for policies
    /// with these needs.
    pub(super) fn accept(&self, caller: Caller, needs: &Needs) -> Result<Caller> {
        let groups_required =
            self.groups_required || needs.groups_of.contains(&caller.principal().issuer);
        // Many issuers leave it out unless the caller asks for it.
        if groups_required && !caller.lists_groups() {
            let name = &self.groups_claim;
            return Err(unacceptable(format!("it has no claim '{name}', which is required here"))
                .hint("ask the issuer for a token that lists groups, be it none"));
        }
        if let Some(name) = caller.unseen().filter(|_| needs.whole_claims) {
            let name: String = foreign(name).chars().take(SHOWN).collect();
            return Err(unacceptable(format!(
                "policies forbid by claims here, and they cannot see all of its claim '{name}'"
            ))
            .hint("let the issuer leave that claim out, or make it a text or a list of texts"));
        }
        Ok(if self.ends_with_token { caller.ending_with_token() } else { caller })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::caller_tests::caller;
    use super::*;

    const A: &str = "https://a.example";

    fn demands() -> Demands {
        Demands {
            groups_claim: "groups".into(),
            groups_required: false,
            ends_with_token: false,
            assertions: Assertions::UntilExpiry,
        }
    }

    fn needs(groups_of: &[&str], whole_claims: bool) -> Needs {
        Needs { groups_of: groups_of.iter().map(ToString::to_string).collect(), whole_claims }
    }

    fn accept(needs: &Needs, claims: Value) -> Result<Caller> {
        demands().accept(caller(A, "x", claims).unwrap(), needs)
    }

    #[test]
    fn where_groups_are_required_an_empty_list_is_not_the_same_as_none() {
        let (strict, other) = (needs(&[A], false), needs(&["https://b.example"], false));
        for claims in [json!({}), json!({"groups": null}), json!({"roles": ["a"]})] {
            assert!(accept(&other, claims.clone()).is_ok());
            let error = accept(&strict, claims).unwrap_err().to_string();
            assert!(error.contains("no claim 'groups', which is required"), "{error}");
        }
        assert!(accept(&strict, json!({"groups": []})).unwrap().groups().is_empty());
        assert_eq!(accept(&strict, json!({"groups": ["a"]})).unwrap().groups().len(), 1);
    }

    #[test]
    fn claims_of_which_policy_sees_only_a_part_are_refused_where_one_forbids_by_them() {
        let (strict, none) = (needs(&[], true), Needs::default());
        for claims in [
            json!({"a": {"b": {"c": {"d": {"e": {"f": "x"}}}}}}),
            json!({"list": [{"a": "b"}]}),
            json!({"list": ["a", null]}),
            json!({"list": [["a"]]}),
            json!({"within": {"list": [{"a": "b"}]}}),
            json!({"/a": "x"}),
        ] {
            assert!(accept(&none, claims.clone()).is_ok(), "{claims}");
            let error = accept(&strict, claims.clone()).unwrap_err().to_string();
            assert!(error.contains("cannot see all of its claim"), "{claims}: {error}");
        }
        let whole = json!({"a": {"b": {"c": {"d": "x"}}}, "l": ["a", 1, true], "n": null, "o": {}});
        assert!(accept(&strict, whole).is_ok());
    }
}
