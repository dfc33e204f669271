//! Keeps secrets out of a stream of bytes: wherever one of them, or a usual
//! encoding of it, turns up, three asterisks stand in its place.
//!
//! Of each secret these are recognised: the secret itself; Base64 and its variant
//! for URLs (RFC 4648 sections 4 and 5), whatever stands before and after the
//! secret in what was encoded; percent-encoding, as in paths and in forms; the
//! inside of a JSON string (RFC 8259 section 7); and hexadecimal digits. Line
//! breaks within do not hide it: many tools break what they encode into lines.
//!
//! This is a net below those who are careful, not a wall against those who want
//! to get a secret out: whoever encrypts it, or turns it round, is not noticed.

mod layout;
mod look;

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aho_corasick::Anchored;
use aho_corasick::automaton::{Automaton, StateID};
use zeroize::{Zeroize, Zeroizing};

use crate::error::Result;
use crate::secret::Secret;
use layout::Layout;
use look::{Look, is_break};

/// What stands in place of a secret.
pub const INSTEAD: &[u8] = b"***";

/// So much of what may turn out to be a secret is passed on after a pause.
const EARLY: usize = 4;

/// Where something is held back, so much is put behind it at once.
const FEW: usize = 1024;

/// So many secrets are looked for besides those from the beginning. What is older
/// has expired long ago.
const LATER: usize = 12;

/// What to look for, in all the streams. More can be added at any time.
pub struct Patterns(Mutex<Known>);

struct Known {
    secrets: Vec<Secret<String>>,
    /// How many of them have been there from the beginning.
    first: usize,
    look: Arc<Look>,
}

impl std::fmt::Debug for Patterns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Patterns(redacted)")
    }
}

impl Patterns {
    /// What these secrets look like.
    ///
    /// # Errors
    ///
    /// There is too much to look for: gigabytes.
    pub fn of<'a>(secrets: impl IntoIterator<Item = &'a Secret<String>>) -> Result<Self> {
        let secrets: Vec<_> = secrets.into_iter().cloned().collect();
        let look = Arc::new(Look::of(&secrets)?);
        Ok(Self(Mutex::new(Known { first: secrets.len(), secrets, look })))
    }

    /// From now on these are looked for too.
    ///
    /// # Errors
    ///
    /// Those of [`Patterns::of`].
    pub fn add<'a>(&self, more: impl IntoIterator<Item = &'a Secret<String>>) -> Result<()> {
        let mut known = self.lock();
        known.secrets.extend(more.into_iter().cloned());
        let old = known.secrets.len().saturating_sub(known.first + LATER);
        let first = known.first;
        known.secrets.drain(first..first + old);
        known.look = Arc::new(Look::of(&known.secrets)?);
        Ok(())
    }

    fn now(&self) -> Arc<Look> {
        Arc::clone(&self.lock().look)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that is searched as it goes by.
pub struct Mask {
    patterns: Arc<Patterns>,
    look: Arc<Look>,
    /// Where it goes to a terminal: what is there to be skipped.
    layout: Option<Layout>,
    /// What may be the beginning of a secret, and is held back for that.
    seen: Zeroizing<Vec<u8>>,
    /// So much of it has been passed on or replaced.
    done: usize,
    /// So much of it has been searched, and led to this state.
    at: usize,
    state: StateID,
    /// A secret in it that may yet turn out to be part of a longer one.
    found: Option<Range<usize>>,
    /// What stands in place of that has been put out already.
    shown: bool,
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mask(redacted)")
    }
}

impl Mask {
    /// A stream at its beginning.
    pub fn new(patterns: Arc<Patterns>) -> Self {
        let look = patterns.now();
        let state = look.start;
        Self {
            patterns,
            look,
            layout: None,
            seen: Zeroizing::default(),
            done: 0,
            at: 0,
            state,
            found: None,
            shown: false,
        }
    }

    /// A stream that a terminal shows: how a program moves to another line does not
    /// hide a secret there, and is kept.
    pub fn of_terminal(patterns: Arc<Patterns>) -> Self {
        Self { layout: Some(Layout::default()), ..Self::new(patterns) }
    }

    /// Takes more of the stream, and puts out all that cannot be the beginning of
    /// a secret.
    pub fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        self.look_anew();
        while !self.seen.is_empty() && !bytes.is_empty() {
            let (few, rest) = bytes.split_at(bytes.len().min(FEW));
            let mut seen = std::mem::take(&mut self.seen);
            seen.extend_from_slice(few);
            self.search_and_keep(seen, false, out);
            bytes = rest;
        }
        // What need not be held back is not copied to see that.
        if !bytes.is_empty() {
            let held = self.search(bytes, false, out);
            self.seen.extend_from_slice(&bytes[held..]);
            self.forget(held);
        }
    }

    /// Where there is more to look for, searches again what is held back, but for a
    /// secret that has been replaced already.
    fn look_anew(&mut self) {
        let look = self.patterns.now();
        if Arc::ptr_eq(&look, &self.look) {
            return;
        }
        let shown = std::mem::take(&mut self.shown);
        let replaced = self.found.take().filter(|_| shown).map_or(0, |found| found.end);
        self.done = self.done.max(replaced);
        (self.at, self.state) = (replaced, look.start);
        self.look = look;
    }

    fn search_and_keep(&mut self, mut seen: Zeroizing<Vec<u8>>, last: bool, out: &mut Vec<u8>) {
        let held = self.search(&seen, last, out);
        seen[..held].zeroize();
        seen.drain(..held);
        self.seen = seen;
        self.forget(held);
    }

    /// What is held back begins here from now on.
    fn forget(&mut self, held: usize) {
        self.at -= held;
        self.done -= held;
        if let Some(found) = &mut self.found {
            *found = found.start - held..found.end - held;
        }
        if let Some(layout) = &mut self.layout {
            layout.forget(held);
        }
    }

    /// Whether something is held back that [`Mask::pause`] would put out.
    pub fn is_waiting(&self) -> bool {
        self.done < self.passable(self.seen.len()) || self.is_showable(self.seen.len())
    }

    /// Nothing has come for a while: puts out a little of what is held back. What
    /// somebody waits for at a prompt is unlikely to begin like a secret for
    /// longer than that. Should it become one after all, the rest of it is replaced.
    /// A secret that may yet become a longer one is replaced now, and no more of it is
    /// put out if it does.
    pub fn pause(&mut self, out: &mut Vec<u8>) {
        let seen = std::mem::take(&mut self.seen);
        self.pass(&seen, self.passable(seen.len()), out);
        if let Some(found) = self.found.clone().filter(|_| self.is_showable(seen.len())) {
            self.put_instead(&seen, found.clone(), out);
            self.shown = true;
            self.done = self.done.max(found.end);
            // Where the cursor is.
            self.pass(&seen, self.end_of_skipped(found.end), out);
        }
        self.seen = seen;
    }

    /// The stream has ended: puts out the rest.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let seen = std::mem::take(&mut self.seen);
        self.search_and_keep(seen, true, out);
        while self.found.is_some() {
            let seen = std::mem::take(&mut self.seen);
            self.replace(&seen, out);
            self.search_and_keep(seen, true, out);
        }
        let seen = std::mem::take(&mut self.seen);
        self.pass(&seen, seen.len(), out);
        (self.done, self.at, self.state) = (0, 0, self.look.start);
    }

    /// Up to where a little of so much goes that is held back.
    fn passable(&self, held: usize) -> usize {
        let (mut to, mut little) = (0, 0);
        while to < held && (little < EARLY || self.is_skipped(to)) {
            little += usize::from(!self.is_skipped(to));
            to += 1;
        }
        self.found.as_ref().map_or(to, |found| to.min(found.start))
    }

    fn end_of_skipped(&self, from: usize) -> usize {
        (from..self.at).find(|at| !self.is_skipped(*at)).unwrap_or(self.at)
    }

    fn is_skipped(&self, at: usize) -> bool {
        self.layout.as_ref().is_some_and(|layout| layout.has(at))
    }

    /// Whether all before the secret that was found can be put out, and so it too.
    fn is_showable(&self, held: usize) -> bool {
        let found = self.found.as_ref();
        !self.shown && found.is_some_and(|found| found.start <= self.passable(held).max(self.done))
    }

    /// Searches on, and puts out all but what has to be held back: from where. What
    /// is the `last` of the stream is not followed by anything.
    fn search(&mut self, seen: &[u8], last: bool, out: &mut Vec<u8>) -> usize {
        let patterns = Arc::clone(&self.look);
        let automaton = &patterns.automaton;
        loop {
            if self.state == patterns.start {
                self.layout.iter_mut().for_each(Layout::clear);
                self.at = patterns.next_beginning(seen, self.at, self.layout.is_some());
            }
            let Some(byte) = seen.get(self.at).copied() else { break };
            if let Some(layout) = &mut self.layout
                && self.state != patterns.start
            {
                match layout.skips(seen, self.at) {
                    Some(true) => {
                        self.at += 1;
                        continue;
                    }
                    Some(false) => {}
                    None if last => {}
                    None => break,
                }
            }
            self.at += 1;
            if is_break(byte) {
                continue;
            }
            let state = automaton.next_state(Anchored::No, self.state, byte);
            if automaton.is_dead(state) {
                // What was found is not part of a longer one.
                self.replace(seen, out);
                continue;
            }
            self.state = state;
            if automaton.is_match(state) {
                let pattern = automaton.match_pattern(state, 0);
                let start = self.back_by(seen, automaton.pattern_len(pattern));
                self.found = Some(start..self.at);
            }
        }
        let depth = patterns.depths.get(&self.state).copied().unwrap_or(self.at);
        let held = if depth == 0 { self.at } else { self.back_by(seen, depth) };
        let held = self.found.as_ref().map_or(held, |found| held.min(found.start));
        self.pass(seen, held, out);
        held
    }

    /// The place from which so many bytes lead to where the search is, not counting
    /// line breaks and what is skipped.
    fn back_by(&self, seen: &[u8], count: usize) -> usize {
        let before = seen[..self.at].iter().enumerate().rev();
        let mut counted = before.filter(|(at, byte)| !is_break(**byte) && !self.is_skipped(*at));
        counted.nth(count.saturating_sub(1)).map_or(0, |(place, _)| place)
    }

    fn replace(&mut self, seen: &[u8], out: &mut Vec<u8>) {
        let Some(found) = self.found.take() else { return };
        self.pass(seen, found.start, out);
        if !std::mem::take(&mut self.shown) {
            self.put_instead(seen, found.clone(), out);
        }
        self.done = self.done.max(found.end);
        (self.at, self.state) = (found.end, self.look.start);
    }

    fn put_instead(&self, seen: &[u8], found: Range<usize>, out: &mut Vec<u8>) {
        match self.layout.as_ref().filter(|layout| layout.is_within(&found)) {
            Some(layout) => layout.put_instead(seen, found, out),
            None => out.extend_from_slice(INSTEAD),
        }
    }

    fn pass(&mut self, seen: &[u8], to: usize, out: &mut Vec<u8>) {
        if self.done < to {
            out.extend_from_slice(&seen[self.done..to]);
            self.done = to;
        }
    }
}

#[cfg(test)]
mod tests;
