//! Who has signed the log, and what rests on it: the keys that are good change as the log goes
//! on, and it says so itself.

use serde::Serialize;

use super::{Check, Elsewhere, Kind, PAGE};
use crate::broker::audit::note::{Checkpoint, VerifierKey};
use crate::broker::keys::KeyState;
use crate::broker::store::Noted;
use crate::error::Result;

/// What a key has signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Signed {
    /// The key.
    pub key: String,
    /// How many checkpoints.
    pub checkpoints: u64,
    /// How many records the first of them covers.
    pub first: u64,
    /// How many the last one covers.
    pub last: u64,
    /// Whether its signatures are good no more: then nothing rests on them.
    pub revoked: bool,
}

impl Check<'_> {
    /// Looks at a checkpoint of the records up to this one.
    pub(super) fn read_note(&mut self, noted: &Noted) {
        let place = noted.size;
        let of_this_size = |opened: &(Checkpoint, _)| opened.0.size == place;
        let opened = Checkpoint::open_signed(&noted.note, &self.keys).ok().filter(of_this_size);
        let Some((checkpoint, signers)) = opened else {
            if !self.is_by_revoked(noted) {
                // The log may say further on what became of its key.
                self.unread.push(place);
            }
            return;
        };
        let good = self.judge(place, &checkpoint.root);
        self.count(place, &signers, good);
        if good {
            let told = |(at, _): &mut (u64, VerifierKey)| *at <= place;
            let announced: Vec<_> = self.announced.extract_if(.., told).collect();
            let known = announced.into_iter().map(|(_, key)| key);
            self.keys.extend(known.filter(|key| !self.revoked.contains(key)));
        }
    }

    /// Whether those have signed a checkpoint whose signatures are good no more: it was good
    /// once, and nothing rests on it.
    fn is_by_revoked(&mut self, noted: &Noted) -> bool {
        let opened = Checkpoint::open_signed(&noted.note, &self.revoked).ok();
        let opened = opened.filter(|(checkpoint, _)| checkpoint.size == noted.size);
        let Some((_, signers)) = opened else { return false };
        self.count(noted.size, &signers, false);
        true
    }

    /// Looks once more at the checkpoints that could not be read, now that all is known that
    /// the log says of its keys.
    pub(super) async fn read_again(&mut self) -> Result<()> {
        let unread = std::mem::take(&mut self.unread);
        let mut left = unread.into_iter().peekable();
        while let Some(first) = left.peek() {
            let notes = self.store.notes(first.saturating_sub(1), PAGE).await?;
            let Some(last) = notes.last().map(|noted| noted.size) else { break };
            let mut notes = notes.into_iter().peekable();
            while let Some(place) = left.next_if(|place| *place <= last) {
                while notes.next_if(|noted| noted.size < place).is_some() {}
                let noted = notes.next_if(|noted| noted.size == place);
                if !noted.is_some_and(|noted| self.is_by_revoked(&noted)) {
                    self.found(Kind::Checkpoint, place, place);
                }
            }
        }
        // Those that are not there any more.
        left.for_each(|place| self.found(Kind::Checkpoint, place, place));
        Ok(())
    }

    /// Keeps in mind who has signed so many records, and whether these are as they were.
    fn count(&mut self, place: u64, signers: &[VerifierKey], good: bool) {
        for key in signers {
            let fresh = || {
                let (key, checkpoints, first, last) = (key.to_string(), 0, place, place);
                (Signed { key, checkpoints, first, last, revoked: false }, 0)
            };
            let (signed, proven) = self.by_key.entry(key.clone()).or_insert_with(fresh);
            signed.checkpoints += 1;
            // Those of revoked keys are read behind the others.
            (signed.first, signed.last) = (signed.first.min(place), signed.last.max(place));
            if good {
                *proven = place;
            }
        }
        self.report.checkpoints += u64::from(signers.iter().any(|key| self.keys.contains(key)));
    }

    /// What the log says became of a key that signs it.
    pub(super) fn hear_of_key(&mut self, place: u64, state: KeyState, key: VerifierKey) {
        match state {
            // Whoever has appended it: it is better to trust one too few.
            KeyState::Revoked if !self.revoked.contains(&key) => {
                self.keys.retain(|known| *known != key);
                self.announced.retain(|(_, announced)| *announced != key);
                self.revoked.push(key);
            }
            KeyState::Published | KeyState::Active if !self.keys.contains(&key) => {
                self.announced.push((place, key));
            }
            _ => {}
        }
    }

    /// Says who has signed the log, and how much of it those did whose signatures are good.
    pub(super) fn weigh(&mut self) {
        let by_key = std::mem::take(&mut self.by_key);
        let good = by_key.iter().filter(|(key, _)| !self.revoked.contains(key));
        let here = good.map(|(_, (_, proven))| *proven).max().unwrap_or_default();
        let mut elsewhere = 0;
        for (Elsewhere { checkpoint, by }, is_as_it_says) in std::mem::take(&mut self.elsewhere) {
            if by.iter().all(|key| self.revoked.contains(key)) {
                let size = checkpoint.size;
                let text = format!(
                    "the key was revoked that signed the checkpoint from elsewhere of {size} records"
                );
                self.tell(Kind::Checkpoint, size, size, text);
            } else if is_as_it_says {
                elsewhere = elsewhere.max(checkpoint.size);
            }
        }
        self.report.signed = here.max(elsewhere);
        self.proven = self.report.signed.max(self.report.sealed.unwrap_or_default());
        let revoked = |(key, (signed, _)): (VerifierKey, (Signed, u64))| Signed {
            revoked: self.revoked.contains(&key),
            ..signed
        };
        self.report.keys = by_key.into_iter().map(revoked).collect();
        self.report.keys.sort_by_key(|signed| signed.first);
    }
}
