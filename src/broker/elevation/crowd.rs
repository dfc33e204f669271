//! Who of very many people may approve: policy is asked once about all who are the same to it.
//!
//! Where policies look at what nobody else has, it is asked about each. That takes long, so it
//! is done a little at a time, by few at once, and others go on meanwhile.

use std::collections::{BTreeSet, HashMap};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::Party;
use super::eligible::Eligible;
use super::verdict::Busy;
use crate::broker::config::Threshold;
use crate::broker::directory::{Directory, Person};
use crate::broker::policy::{Sort, Traits};
use crate::credential::Principal;

/// After how much work others go on: to look at somebody is one of it.
const A_LITTLE: usize = 1024;

/// How much it is to ask policy.
const ASKING: usize = 64;

/// How many may wait for a turn to ask about many, whoever has it included, where nothing has been
/// done yet: they keep nobody out who wants something else of the broker.
const IN_LINE: usize = 32;

/// What policies say of one request at one moment, of several people. Each sort of people is asked
/// about once.
pub(in crate::broker) struct Answers<'a> {
    eligible: Eligible<'a>,
    traits: Traits,
    known: HashMap<Sort<'a>, bool>,
    /// The work that was done since others went on.
    done: usize,
}

impl<'a> Answers<'a> {
    pub(super) fn of(eligible: Eligible<'a>) -> Self {
        Self { eligible, traits: eligible.traits(), known: HashMap::new(), done: 0 }
    }

    /// The groups of somebody who may approve; nothing where they may not.
    pub(in crate::broker) fn groups(&mut self, by: &Party) -> Option<&'a BTreeSet<String>> {
        let eligible = self.eligible;
        eligible.groups_where(by, |approver, person| self.permits(approver, person))
    }

    /// Lets others go on, where much was done since.
    pub(in crate::broker) async fn rest(&mut self) {
        if self.is_much() {
            self.done = 0;
            tokio::task::yield_now().await;
        }
    }

    fn is_much(&self) -> bool {
        self.done >= A_LITTLE
    }

    /// Whether policy was asked so often that there may be very many sorts.
    fn asks_much(&self) -> bool {
        self.known.len() >= A_LITTLE / ASKING
    }

    fn permits(&mut self, approver: &Principal, person: (&'a str, &'a Person)) -> bool {
        let Self { eligible, traits, known, done } = self;
        let sort = traits.sort_of((&approver.issuer, &approver.subject), person);
        *done += 1;
        *known.entry(sort).or_insert_with(|| {
            *done += ASKING;
            eligible.permits(approver)
        })
    }
}

/// All people of the directory, looked at one after the other.
pub(super) struct Roll<'a> {
    answers: Answers<'a>,
    parties: BTreeSet<&'a str>,
    thresholds: &'a [Threshold],
    directory: Option<&'a Directory>,
}

impl<'a> Roll<'a> {
    pub(super) fn of(eligible: Eligible<'a>) -> Self {
        Self {
            answers: eligible.answers(),
            parties: eligible.parties(),
            thresholds: eligible.rules().map_or(&[][..], |rules| &rules.approvals),
            directory: eligible.directory(),
        }
    }

    /// Whether this person could approve at this moment, by whichever id, and is taken by one of
    /// the thresholds.
    pub(super) fn takes(&mut self, (name, person): (&'a str, &'a Person)) -> bool {
        self.answers.done += 1;
        let taken = self.thresholds.iter().any(|threshold| threshold.takes(&person.groups));
        if !taken || self.parties.contains(name) {
            return false;
        }
        let Some(directory) = self.directory else { return false };
        person.ids.iter().any(|id| {
            let approver = Principal { issuer: id.issuer.clone(), subject: id.subject.clone() };
            // By an id that the broker itself issued they may be somebody else, and not themselves.
            let known = directory.person(&approver).filter(|(known, _)| *known == name);
            known.is_some_and(|known| self.answers.permits(&approver, known))
        })
    }
}

/// What it is asked for, who could approve something. One of these waits for none of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Lane {
    /// A request that is to be told of.
    Asking,
    /// The same, by a machine.
    Machines,
    /// The same, in an emergency.
    Alarming,
    /// One that somebody looks at.
    Looking,
    /// What has come of something that is done.
    Answering,
    /// Something that is done about a request, or comes about by the clock.
    Settling,
    /// A grant that somebody ends.
    Ending,
}

/// Turns for those who have policy asked about many, in each lane one at a time.
pub(in crate::broker) struct Crowds {
    asking: Line,
    machines: Line,
    alarming: Line,
    looking: Line,
    answering: Line,
    settling: Line,
    ending: Line,
}

struct Line {
    places: Semaphore,
    turn: Semaphore,
}

impl Line {
    fn of(places: usize) -> Self {
        let [places, turn] = [places, 1].map(Semaphore::new);
        Self { places, turn }
    }

    /// Waits for a turn.
    async fn turn(&self) -> Result<[SemaphorePermit<'_>; 2], Busy> {
        let place = self.places.try_acquire().map_err(|_| Busy::Approvers)?;
        // (It is never closed.)
        Ok([place, self.turn.acquire().await.map_err(|_| Busy::Approvers)?])
    }
}

impl Default for Crowds {
    fn default() -> Self {
        // Whoever does something has it done, however many there are.
        let [alarming, settling, ending] = [Semaphore::MAX_PERMITS; 3].map(Line::of);
        let [asking, machines, looking, answering] = [IN_LINE; 4].map(Line::of);
        Self { asking, machines, alarming, looking, answering, settling, ending }
    }
}

impl Crowds {
    /// The people who could approve at this moment, and whom one of the thresholds takes.
    ///
    /// # Errors
    /// Where it takes long, and too many wait already in this lane.
    pub(super) async fn people<'a>(
        &self,
        eligible: &Eligible<'a>,
        lane: Lane,
    ) -> Result<Vec<&'a str>, Busy> {
        let mut roll = Roll::of(*eligible);
        let mut turn = None;
        let mut may = Vec::new();
        for (name, person) in eligible.directory().into_iter().flat_map(Directory::people) {
            if roll.takes((name, person)) {
                may.push(name);
            }
            if roll.answers.asks_much() && turn.is_none() {
                turn = Some(self.line(lane).turn().await?);
            }
            roll.answers.rest().await;
        }
        Ok(may)
    }

    fn line(&self, lane: Lane) -> &Line {
        match lane {
            Lane::Asking => &self.asking,
            Lane::Machines => &self.machines,
            Lane::Alarming => &self.alarming,
            Lane::Looking => &self.looking,
            Lane::Answering => &self.answering,
            Lane::Settling => &self.settling,
            Lane::Ending => &self.ending,
        }
    }
}

#[cfg(test)]
mod tests;
