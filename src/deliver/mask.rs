//! Keeps secrets out of a stream of bytes: wherever one of them, or a usual
//! encoding of it, turns up, three asterisks stand in its place.
//!
//! Of each secret these are recognised: the secret itself; Base64 and its variant
//! for URLs (RFC 4648 sections 4 and 5), whatever stands before and after the
//! secret in what was encoded; and hexadecimal digits. Any character of these may be
//! percent-encoded or escaped as in a JSON string, and line breaks within do not hide
//! it: many tools break what they encode into lines.
//!
//! What began like a secret and is none is searched again from its second byte on. So the
//! work is linear in what goes by, but for output that goes on beginning like a secret:
//! there each byte is read as often as the longest form of a secret has bytes, and six
//! times as often where all of it is escaped, but never more. As little is held back
//! without end: where too much that does not count follows a byte of a secret, it is none.
//!
//! This is a net below those who are careful, not a wall against those who want
//! to get a secret out: whoever encrypts it, or turns it round, is not noticed.

mod layout;
mod look;
mod reading;

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zeroize::{Zeroize, Zeroizing};

use crate::secret::Secret;
use layout::Layout;
use look::Look;
use reading::Reading;

/// What stands in place of a secret.
pub const INSTEAD: &[u8] = b"***";

/// So much of what may turn out to be a secret is passed on after a pause.
const EARLY: usize = 4;

/// Where something is held back, so much is put behind it at once.
const FEW: usize = 1024;

/// So many bytes between two of a secret's do not count: an escape, line breaks, and how
/// a terminal is laid out.
const BETWEEN: usize = 256;

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
    pub fn of<'a>(secrets: impl IntoIterator<Item = &'a Secret<String>>) -> Self {
        let secrets: Vec<_> = secrets.into_iter().cloned().collect();
        let look = Arc::new(Look::of(&secrets));
        Self(Mutex::new(Known { first: secrets.len(), secrets, look }))
    }

    /// From now on these are looked for too.
    pub fn add<'a>(&self, more: impl IntoIterator<Item = &'a Secret<String>>) {
        let mut known = self.lock();
        known.secrets.extend(more.into_iter().cloned());
        let old = known.secrets.len().saturating_sub(known.first + LATER);
        let first = known.first;
        known.secrets.drain(first..first + old);
        known.look = Arc::new(Look::of(&known.secrets));
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
    /// So much of it has been searched.
    at: usize,
    /// Where what may be a secret begins, and how it can be read; nothing where nothing
    /// looks like one.
    begun: usize,
    readings: Vec<Reading>,
    /// How much of a secret has been read, at best, and how many bytes ago that was so.
    depth: usize,
    idle: usize,
    /// A secret that begins there, and may yet turn out to be part of a longer one.
    found: Option<Range<usize>>,
    /// What stands in place of that has been put out already.
    shown: bool,
    /// How many bytes have been read, each as often as it was.
    #[cfg(test)]
    steps: usize,
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
        Self {
            patterns,
            look,
            layout: None,
            seen: Zeroizing::default(),
            done: 0,
            at: 0,
            begun: 0,
            readings: Vec::new(),
            depth: 0,
            idle: 0,
            found: None,
            shown: false,
            #[cfg(test)]
            steps: 0,
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
        self.at = replaced;
        self.readings.clear();
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
        self.begun = self.begun.saturating_sub(held);
        if let Some(found) = &mut self.found {
            *found = found.start - held..found.end - held;
        }
        if let Some(layout) = &mut self.layout {
            layout.forget(held);
        }
    }

    /// Whether something is held back that [`Mask::pause`] would put out.
    pub fn is_waiting(&self) -> bool {
        self.done < self.passable(&self.seen) || self.is_showable()
    }

    /// Nothing has come for a while: puts out a little of what is held back. What
    /// somebody waits for at a prompt is unlikely to begin like a secret for
    /// longer than that. Should it become one after all, the rest of it is replaced.
    /// A secret that may yet become a longer one is replaced now, and no more of it is
    /// put out if it does.
    pub fn pause(&mut self, out: &mut Vec<u8>) {
        let seen = std::mem::take(&mut self.seen);
        self.pass(&seen, self.passable(&seen), out);
        if let Some(found) = self.found.clone().filter(|_| self.is_showable()) {
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
        while !self.readings.is_empty() {
            let seen = std::mem::take(&mut self.seen);
            self.give_up(&seen, out);
            self.search_and_keep(seen, true, out);
        }
        let seen = std::mem::take(&mut self.seen);
        self.pass(&seen, seen.len(), out);
        (self.done, self.at) = (0, 0);
    }

    /// Up to where a little of this goes, which is held back.
    fn passable(&self, held: &[u8]) -> usize {
        let (mut to, mut little) = (0, 0);
        while to < held.len() && (little < EARLY || self.is_skipped(to)) {
            little += usize::from(!self.is_skipped(to));
            to += 1;
        }
        if self.found.is_some() {
            return 0;
        }
        // What may be a secret may have a shorter one in it.
        (1..to).find(|at| self.look.forms.start(&held[*at..])).unwrap_or(to)
    }

    fn end_of_skipped(&self, from: usize) -> usize {
        (from..self.at).find(|at| !self.is_skipped(*at)).unwrap_or(self.at)
    }

    fn is_skipped(&self, at: usize) -> bool {
        self.layout.as_ref().is_some_and(|layout| layout.has(at))
    }

    /// Whether what was found can be replaced.
    fn is_showable(&self) -> bool {
        !self.shown && self.found.is_some()
    }

    /// Searches on, and puts out all but what has to be held back: from where. What
    /// is the `last` of the stream is not followed by anything.
    fn search(&mut self, seen: &[u8], last: bool, out: &mut Vec<u8>) -> usize {
        let look = Arc::clone(&self.look);
        loop {
            let begins = self.readings.is_empty();
            if begins {
                self.layout.iter_mut().for_each(Layout::clear);
                self.at = look.next_beginning(seen, self.at, self.layout.is_some());
                self.begun = self.at;
                (self.depth, self.idle) = (0, 0);
            }
            let Some(byte) = seen.get(self.at).copied() else { break };
            if self.idle > BETWEEN {
                self.give_up(seen, out);
                continue;
            }
            if self.runs(seen, &look) {
                continue;
            }
            #[cfg(test)]
            {
                self.steps += 1;
            }
            if let Some(layout) = self.layout.as_mut().filter(|_| !begins) {
                match layout.skips(seen, self.at) {
                    Some(true) => {
                        self.at += 1;
                        self.idle += 1;
                        continue;
                    }
                    Some(false) => {}
                    None if last => {}
                    None => break,
                }
            }
            self.at += 1;
            self.idle += 1;
            if begins {
                self.readings.push(look.forms.begin());
            } else if is_break(byte) {
                continue;
            }
            if look.forms.read(&mut self.readings, byte) {
                self.found = Some(self.begun..self.at);
            }
            match self.readings.iter().map(Reading::depth).max() {
                None => self.give_up(seen, out),
                Some(depth) if depth > self.depth => (self.depth, self.idle) = (depth, 0),
                Some(_) => {}
            }
        }
        let held = if self.readings.is_empty() { self.at } else { self.begun };
        self.pass(seen, held, out);
        held
    }

    /// Goes on by as many bytes as are a secret's own and nothing else: most of those that
    /// turn up are whole, and written without escapes.
    fn runs(&mut self, seen: &[u8], look: &Look) -> bool {
        let [reading] = &mut self.readings[..] else { return false };
        #[cfg(test)]
        if look.unhurried {
            return false;
        }
        let on_screen = match &self.layout {
            Some(layout) if layout.is_within_sequence() => return false,
            layout => layout.is_some(),
        };
        let from = self.at;
        let is_plain = |at: usize| {
            let at = from + at;
            let next = seen.get(at + 1).copied();
            !on_screen || !layout::may_skip(seen[at - 1], seen[at], next)
        };
        let count = look.forms.run(reading, &seen[from..], is_plain);
        if count > 0 {
            reading.skip(count);
            (self.depth, self.idle) = (reading.depth(), 0);
            self.at += count;
        }
        #[cfg(test)]
        {
            self.steps += count;
        }
        count > 0
    }

    /// What began is not a secret, or not a longer one than was found: replaces that,
    /// and goes on behind it; else behind its first byte.
    fn give_up(&mut self, seen: &[u8], out: &mut Vec<u8>) {
        self.readings.clear();
        let Some(found) = self.found.take() else {
            self.at = self.begun + 1;
            return;
        };
        self.pass(seen, found.start, out);
        if !std::mem::take(&mut self.shown) {
            self.put_instead(seen, found.clone(), out);
        }
        self.done = self.done.max(found.end);
        self.at = found.end;
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

fn is_break(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

#[cfg(test)]
mod tests;
