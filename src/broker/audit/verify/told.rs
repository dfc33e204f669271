//! What the log says of itself: which keys sign it, and what was erased of it. Whoever changes a
//! record must not have a say in that: one that differs from the tree says nothing until a
//! signature tells that it is the record that is right.

use super::{Check, Kind, PAGE};
use crate::broker::audit::erase;
use crate::broker::audit::leaf::Leaf;
use crate::broker::audit::note::VerifierKey;
use crate::broker::audit::succession;
use crate::broker::keys::KeyState;
use crate::error::Result;

/// What a record says of the log.
pub(super) struct Told {
    place: u64,
    erased: Vec<(u64, u64)>,
    key: Option<(KeyState, VerifierKey)>,
}

impl Told {
    /// What this one says; `None` where that is nothing.
    fn by(place: u64, leaf: &Leaf) -> Option<Self> {
        let told = Self { place, erased: erase::told_by(leaf), key: succession::told_by(leaf) };
        (!told.erased.is_empty() || told.key.is_some()).then_some(told)
    }
}

impl Check<'_> {
    /// Hears what a record says of the log, where that is as the tree has it; else it is kept in
    /// mind until somebody tells which of the two is right.
    pub(super) fn listen(&mut self, place: u64, leaf: &Leaf, is_in_tree: bool) {
        let Some(told) = Told::by(place, leaf) else { return };
        match is_in_tree {
            true => self.believe(told),
            false => self.doubted.push(told),
        }
    }

    /// Believes what was in doubt: the records are right.
    pub(super) fn believe_doubted(&mut self) {
        std::mem::take(&mut self.doubted).into_iter().for_each(|told| self.believe(told));
    }

    fn believe(&mut self, Told { place, erased, key }: Told) {
        erased.into_iter().for_each(|(first, last)| self.told.add(first, last));
        if let Some((state, key)) = key.filter(|_| self.follows) {
            self.hear_of_key(place, state, key);
        }
    }

    /// Looks whether the log says of all that was erased that it was.
    pub(super) async fn erasures(&mut self) -> Result<()> {
        let erased = std::mem::take(&mut self.erased);
        if !erased.clone().without(&self.told).is_empty() {
            self.hear().await?;
        }
        for (first, last) in erased.without(&self.told) {
            self.found(Kind::Erased, first, last);
        }
        Ok(())
    }

    /// Hears of what was erased meanwhile: the log says so behind all that was looked at.
    async fn hear(&mut self) -> Result<()> {
        let mut after = self.report.records;
        let size = self.store.size().await?;
        while after < size {
            let leaves = self.store.leaves(after, PAGE).await?;
            let Some(last) = leaves.last().map(|leaf| leaf.sequence) else { break };
            for leaf in leaves.iter().filter(|leaf| leaf.sequence <= size) {
                let told = erase::told_by(leaf);
                told.into_iter().for_each(|(first, last)| self.told.add(first, last));
            }
            after = last;
        }
        Ok(())
    }
}
