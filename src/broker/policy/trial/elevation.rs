//! Supposed requests for a role, and approvals of them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Action, Asked, Asking, Outcome, Trial, usage};
use crate::broker::authenticate::Caller;
use crate::broker::config::{Elevation as Rules, Role, TrustedIssuer};
use crate::broker::decide::{Denied, Why};
use crate::broker::elevation::{self, Eligible, Party, Path};
use crate::broker::policy::terms::Told;
use crate::broker::policy::{Approving, Elevating};
use crate::credential::Principal;
use crate::error::Result;

/// So many people, and who they could be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Approvers {
    /// How many have to approve.
    pub count: u32,
    /// Of which groups; of any at all where there are none.
    pub groups: Vec<String>,
    /// Who could, at this moment.
    pub people: Vec<String>,
}

/// For whom something is approved, where that is what is done.
///
/// # Errors
/// Where it is not said, or nobody knows that issuer.
pub(super) fn about(
    asking: &Asking,
    issuers: &BTreeMap<String, TrustedIssuer>,
) -> Result<Option<Principal>> {
    if asking.action != Action::Approve {
        return Ok(None);
    }
    let (Some(issuer), Some(subject)) = (&asking.of_issuer, &asking.of_subject) else {
        return Err(usage("it is not said for whom it is approved: of_issuer, of_subject".into()));
    };
    let by_identifier = || issuers.values().find(|trusted| trusted.issuer.as_str() == issuer);
    let Some(trusted) = issuers.get(issuer).or_else(by_identifier) else {
        return Err(usage(format!("there is no trusted issuer '{issuer}'")));
    };
    Ok(Some(Principal { issuer: trusted.issuer.as_str().into(), subject: subject.clone() }))
}

impl Asked<'_> {
    fn elevating(&self, trial: &Trial<'_>) -> Elevating<'_> {
        Elevating {
            role: self.role,
            audience: self.audience,
            scope: self.scope.as_ref(),
            ttl: self.seconds(trial),
            emergency: self.path() == Path::Emergency,
            key_bound: self.key_bound,
        }
    }

    fn path(&self) -> Path {
        self.path.unwrap_or(Path::Ordinary)
    }

    /// For how long it is asked for: as the broker has it, where nobody says.
    fn seconds(&self, trial: &Trial<'_>) -> u64 {
        let rules = trial.config.role.get(self.role).and_then(|role| role.elevation.as_ref());
        let longest = || rules.map(|rules| elevation::longest(rules, self.path()));
        self.ttl.or_else(longest).unwrap_or_default().as_secs()
    }

    pub(super) fn elevates(
        &self,
        trial: &Trial<'_>,
        caller: &Caller,
    ) -> std::result::Result<Outcome, Denied> {
        let (role, rules) = self.elevated(trial)?;
        let by = self.known(trial, caller.principal())?;
        if self.path() == Path::ProviderDown && by.person.is_none() {
            let said = "nobody in the directory has this identity, and only keys of people count";
            return Err(Denied::new(Why::Directory, said));
        }
        let policy = trial.rules().elevate(caller, &self.elevating(trial), self.moment())?;
        let asked = self.supposed(trial, Some(caller.principal()));
        elevation::check_extent(&asked, rules, &role.scopes)?;
        Ok(Outcome::permit(policy))
    }

    pub(super) fn approves(
        &self,
        trial: &Trial<'_>,
        caller: &Caller,
    ) -> std::result::Result<Outcome, Denied> {
        let (role, rules) = self.elevated(trial)?;
        let asked = self.supposed(trial, self.about.as_ref());
        elevation::check_extent(&asked, rules, &role.scopes)?;
        let by = self.known(trial, caller.principal())?;
        if by.person.is_none() {
            let said = "nobody in the directory has this identity, and only people approve";
            return Err(Denied::new(Why::Forbidden, said));
        }
        if asked.by.is(&by) {
            let said = "nobody approves what is for themselves, by whatever name";
            return Err(Denied::new(Why::Forbidden, said));
        }
        let eligible = Eligible::new(trial.rules(), &asked, self.now);
        if eligible.approves_as(&by).is_some() {
            let policy = format!("the approvals of the role '{}'", self.role);
            return Ok(Outcome::permit(policy));
        }
        let said = match eligible.groups(&by) {
            Some(_) => "policy lets them approve it, and no threshold of the role takes them",
            None => "no policy lets them approve it",
        };
        Err(Denied::new(Why::NoPermit, said))
    }

    /// The role, and how it is had by elevation; for this audience.
    fn elevated<'t>(
        &self,
        trial: &'t Trial<'_>,
    ) -> std::result::Result<(&'t Role, &'t Rules), Denied> {
        let Some(role) = trial.config.role.get(self.role) else {
            return Err(Denied::new(Why::Role, format!("there is no role '{}'", self.role)));
        };
        let Some(rules) = &role.elevation else {
            let said = format!("the role '{}' is not had by elevation", self.role);
            return Err(Denied::new(Why::Elevation, said));
        };
        if !role.audiences.contains(self.audience) {
            let said = format!("the role '{}' is not for this audience", self.role);
            return Err(Denied::new(Why::Audience, said));
        }
        Ok((role, rules))
    }

    fn known(
        &self,
        trial: &Trial<'_>,
        principal: &Principal,
    ) -> std::result::Result<Party, Denied> {
        let directory = trial.policy.directory().map(AsRef::as_ref);
        Ok(elevation::known(directory, principal, self.now)?)
    }

    fn party(&self, trial: &Trial<'_>, principal: &Principal) -> Party {
        elevation::party(trial.policy.directory().map(AsRef::as_ref), principal)
    }

    fn supposed(&self, trial: &Trial<'_>, by: Option<&Principal>) -> elevation::Asked {
        let mut asked = elevation::Asked::by_nobody(self.role, self.now);
        if let Some(by) = by {
            asked.by = self.party(trial, by);
        }
        asked.audience = self.audience.into();
        asked.scope = self.scope.clone();
        asked.ttl = self.seconds(trial);
        asked.path = self.path();
        asked
    }

    /// Who could approve what somebody asks for.
    pub(super) fn approvers(&self, trial: &Trial<'_>, caller: &Caller) -> Vec<Approvers> {
        if self.action != Action::Elevate {
            return Vec::new();
        }
        let asked = self.supposed(trial, Some(caller.principal()));
        let eligible = Eligible::new(trial.rules(), &asked, self.now);
        let all = eligible.people();
        let rules = eligible.rules().map_or(&[][..], |rules| &rules.approvals);
        let named = asked.thresholds(rules).into_iter().map(|threshold| Approvers {
            count: threshold.count.get(),
            people: eligible.people_for(&threshold, &all).into_iter().map(String::from).collect(),
            groups: threshold.groups.into_iter().collect(),
        });
        named.collect()
    }

    /// What policies are told of an elevation, or of its approval; nothing where it is about
    /// neither.
    pub(super) fn elevation_context(
        &self,
        trial: &Trial<'_>,
        caller: &Caller,
    ) -> Option<std::result::Result<Told, String>> {
        match self.action {
            Action::Elevate => {
                Some(trial.policy.elevating_context(caller, &self.elevating(trial), self.moment()))
            }
            Action::Approve => {
                let asked = Approving {
                    subject: self.about.as_ref()?,
                    role: self.role,
                    audience: self.audience,
                    scope: self.scope.as_ref(),
                    ttl: self.seconds(trial),
                };
                Some(trial.policy.approving_context(&asked, self.now))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
