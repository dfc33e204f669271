//! What the rules make of what somebody wants, by what has happened so far.

use std::collections::BTreeSet;

use serde_json::Value;

/// In seconds. No sum of clock steps comes near to one of them from below, so that it is no matter
/// how long the test itself takes.
pub(super) const COOL_DOWN: i64 = 600;
pub(super) const EMERGENCY_COOL_DOWN: i64 = 400;
pub(super) const TTL: i64 = 710;
pub(super) const PENDING: i64 = 3600;
pub(super) const WINDOW: i64 = 1800;

/// How the role is had.
#[derive(Clone, Copy, Debug)]
pub(super) struct Had {
    pub(super) renewable: bool,
    pub(super) approvals: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Pending,
    Approved,
    Had,
    Over,
}

/// A request, as the model has it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) answer: Value,
    pub(super) by: usize,
    pub(super) is_emergency: bool,
    pub(super) at: i64,
    pub(super) state: State,
    /// Who said yes, and what they were called then.
    pub(super) approvals: BTreeSet<(usize, String)>,
    pub(super) approved_at: Option<i64>,
    /// From when to when at the latest.
    pub(super) had: Option<(i64, i64)>,
    /// Whether it was held against the rules when it began: another grant that ends in the same
    /// second, and later, is none that it had to wait for.
    pub(super) is_judged: bool,
    /// When it ended, and when that was put on record.
    pub(super) ended: Option<(i64, i64)>,
    pub(super) is_due: bool,
    pub(super) reviewed: Option<(usize, i64)>,
}

impl Asked {
    pub(super) fn is_had(&self, now: i64) -> bool {
        self.state == State::Had && self.had.is_some_and(|(_, until)| now < until)
    }

    /// When it ended, whether that is on record or not.
    pub(super) fn end(&self, now: i64) -> Option<i64> {
        let over = self.had.map(|(_, until)| until).filter(|until| *until <= now);
        self.ended.map(|(at, _)| at).or(over.filter(|_| self.state == State::Had))
    }

    pub(super) fn has_approved(&self, who: usize) -> bool {
        self.approvals.iter().any(|(by, _)| *by == who)
    }

    pub(super) fn finish(&mut self, end: i64, recorded: i64) {
        self.is_due = self.state == State::Had;
        (self.state, self.ended) = (State::Over, Some((end, recorded)));
    }
}

/// What there is, and what the rules make of what somebody wants.
pub(super) struct Model {
    pub(super) rules: Had,
    pub(super) now: i64,
    pub(super) names: [String; 3],
    /// Whether somebody is called as somebody else was before: then more may be refused.
    pub(super) mixed_up: bool,
    pub(super) asked: Vec<Asked>,
}

/// What the rules say: whether it must never be, and whether it has to be.
pub(super) struct Said {
    pub(super) may: bool,
    pub(super) must: bool,
}

impl Said {
    pub(super) fn exactly(may: bool) -> Self {
        Self { may, must: may }
    }
}

impl Model {
    pub(super) fn of(&self, who: usize) -> impl Iterator<Item = &Asked> {
        self.asked.iter().filter(move |one| one.by == who)
    }

    /// Whether somebody had the role so recently that they may not have it again.
    pub(super) fn cools(&self, who: usize) -> bool {
        let recorded = |one: &Asked| one.ended.map(|(_, recorded)| recorded);
        let end = |one: &Asked| recorded(one).or(one.end(self.now));
        self.of(who).any(|one| end(one).is_some_and(|end| self.now - end < COOL_DOWN))
    }

    pub(super) fn request(&self, who: usize) -> Said {
        let under_way = self.of(who).any(|one| one.state != State::Over);
        Said::exactly((self.rules.renewable || !under_way) && !self.cools(who))
    }

    pub(super) fn emergency(&self, who: usize) -> Said {
        let mut emergencies = self.of(who).filter(|one| one.is_emergency);
        Said::exactly(emergencies.all(|one| match one.ended {
            None => false,
            Some((_, end)) => !one.is_due && self.now - end >= EMERGENCY_COOL_DOWN,
        }))
    }

    pub(super) fn approve(&self, who: usize, one: &Asked) -> Said {
        let waits = match one.state {
            State::Pending => self.now - one.at < PENDING,
            State::Approved => true,
            _ => false,
        };
        Said::exactly(waits && who != one.by)
    }

    /// How many said yes, and how many of them are called as they were then.
    pub(super) fn counted(&self, one: &Asked) -> (usize, usize) {
        let all: BTreeSet<_> = one.approvals.iter().map(|(by, _)| *by).collect();
        let called = one.approvals.iter().filter(|(by, name)| self.names[*by] == *name);
        (all.len(), called.count())
    }

    pub(super) fn activate(&self, who: usize, one: &Asked) -> Said {
        let in_time = one.approved_at.is_some_and(|at| self.now - at < WINDOW);
        let begins = one.state == State::Approved && in_time && !self.cools(who);
        let (all, called) = self.counted(one);
        let enough = |count: usize| count >= self.rules.approvals as usize;
        let own = who == one.by;
        let again = one.is_had(self.now);
        Said {
            may: own && (again || begins && enough(all)),
            must: own && (again || begins && enough(called)),
        }
    }

    pub(super) fn relinquish(&self, who: usize, one: &Asked) -> Said {
        Said::exactly(who == one.by && one.is_had(self.now))
    }

    pub(super) fn revoke(&self, who: usize, one: &Asked) -> Said {
        let stands = one.state == State::Approved || one.is_had(self.now);
        Said::exactly(who != one.by && stands)
    }

    pub(super) fn review(&self, who: usize, one: &Asked) -> Said {
        Said::exactly(one.is_due && who != one.by && !one.has_approved(who))
    }

    pub(super) fn token(&self, who: usize) -> Said {
        Said::exactly(self.of(who).any(|one| one.is_had(self.now)))
    }

    /// What comes about by the clock.
    pub(super) fn due(&mut self) {
        for one in &mut self.asked {
            match (one.state, one.had, one.approved_at) {
                (State::Pending, ..) if self.now - one.at >= PENDING => one.state = State::Over,
                (State::Approved, _, Some(at)) if self.now - at >= WINDOW => {
                    one.state = State::Over;
                }
                (State::Had, Some((_, until)), _) if self.now >= until => {
                    one.finish(until, self.now);
                }
                _ => {}
            }
        }
    }

    /// What has to hold of all that came about, whatever the way there was.
    pub(super) fn holds(&mut self) {
        for (at, one) in self.asked.iter().enumerate() {
            assert!(!one.has_approved(one.by), "who asked approved: {one:?}");
            if let Some((by, _)) = one.reviewed {
                assert!(by != one.by && !one.has_approved(by), "they reviewed their own: {one:?}");
            }
            let Some((from, _)) = one.had.filter(|_| !one.is_judged) else { continue };
            for other in self.asked.iter().enumerate().filter(|(place, _)| *place != at) {
                let (place, other) = other;
                let Some((begun, _)) = other.had.filter(|_| other.by == one.by) else { continue };
                let end = other.end(self.now);
                let is_before = begun < from || begun == from && place < at;
                if one.is_emergency && other.is_emergency && is_before {
                    let reviewed = other.reviewed.is_some_and(|(_, at)| at <= from);
                    let cooled = end.is_some_and(|end| from - end >= EMERGENCY_COOL_DOWN);
                    assert!(reviewed && cooled, "{one:?} was had after {other:?}");
                }
                if !one.is_emergency && end.is_some_and(|end| end <= from && is_before) {
                    let cooled = end.is_some_and(|end| from - end >= COOL_DOWN);
                    assert!(cooled, "{one:?} begins after {other:?}");
                }
            }
        }
        self.asked.iter_mut().for_each(|one| one.is_judged = one.had.is_some());
    }
}
