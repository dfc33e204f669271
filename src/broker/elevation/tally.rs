//! Counting who has approved.

use std::collections::BTreeSet;

use super::{Approval, Elevation, Party};
use crate::broker::config::Threshold;

/// What of the approvals of a request counts, by the rules and the people of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// What has to be approved.
    pub hash: String,
    /// What is needed, and how much of it is there.
    pub needs: Vec<Need>,
    /// The people whose approval counts.
    pub counted: BTreeSet<String>,
    /// Whether it is by what counted when the role began to be had, whatever the rules are since.
    pub has_begun: bool,
}

/// One of the thresholds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The threshold.
    pub threshold: Threshold,
    /// Who has approved of those that it takes.
    pub have: BTreeSet<String>,
}

impl Need {
    /// How many are missing.
    pub fn missing(&self) -> u32 {
        self.threshold
            .count
            .get()
            .saturating_sub(u32::try_from(self.have.len()).unwrap_or(u32::MAX))
    }
}

impl Tally {
    /// Counts. `thresholds` are those of the role, and `groups` tells the groups of those who may approve at this moment, and nothing of
    /// all others.
    pub fn of(
        elevation: &Elevation,
        with: Option<&Approval>,
        thresholds: &[Threshold],
        hash: &str,
        groups: impl Fn(&Party) -> Option<BTreeSet<String>>,
    ) -> Self {
        let mut tally = Self::none(elevation, thresholds, hash);
        for approval in elevation.approvals.iter().filter(|one| !one.void).chain(with) {
            // Machines never approve, nor does who asked by another name, whatever is stored.
            let Some(person) = &approval.by.person else { continue };
            if approval.hash != hash || elevation.is_for(&approval.by) {
                continue;
            }
            let Some(groups) = groups(&approval.by) else { continue };
            // Nor anybody as what they only became since.
            tally.take(person, &(&groups & &approval.groups));
        }
        tally
    }

    /// Counts what counted when the role began to be had: by the groups of then, whatever became
    /// of rules and people since. `thresholds` are those of the role now; none of then are stored.
    pub fn begun(elevation: &Elevation, thresholds: &[Threshold], hash: &str) -> Self {
        let mut tally = Self { has_begun: true, ..Self::none(elevation, thresholds, hash) };
        for approval in elevation.approvals.iter().filter(|one| !one.void) {
            let Some(person) = &approval.by.person else { continue };
            tally.take(person, &approval.groups);
            tally.counted.insert(person.clone());
        }
        tally
    }

    fn none(elevation: &Elevation, thresholds: &[Threshold], hash: &str) -> Self {
        let needed = elevation.asked.thresholds(thresholds).into_iter();
        let needs = needed.map(|threshold| Need { threshold, have: BTreeSet::new() }).collect();
        Self { hash: hash.into(), needs, counted: BTreeSet::new(), has_begun: false }
    }

    /// Counts somebody who approved as one of these groups.
    fn take(&mut self, person: &str, groups: &BTreeSet<String>) {
        for need in self.needs.iter_mut().filter(|need| need.threshold.takes(groups)) {
            // A person is there once, by however many names they approved.
            need.have.insert(person.to_string());
            self.counted.insert(person.to_string());
        }
    }

    /// Whether this approval is among those that count.
    pub fn counts(&self, approval: &Approval) -> bool {
        let person = approval.by.person.as_ref();
        !approval.void
            && (self.has_begun || approval.hash == self.hash)
            && person.is_some_and(|person| self.counted.contains(person))
    }

    /// Whether all is there that is needed. Nothing that needs nothing is ever met.
    pub fn is_met(&self) -> bool {
        !self.needs.is_empty() && self.needs.iter().all(|need| need.missing() == 0)
    }
}
