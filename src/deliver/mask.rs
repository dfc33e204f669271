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

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{Anchored, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use zeroize::{Zeroize, Zeroizing};

use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;
use layout::Layout;

/// What stands in place of a secret.
pub const INSTEAD: &[u8] = b"***";

/// Shorter secrets are recognised as they are, but not encoded: that would be as
/// good as any other text.
const TELLING: usize = 8;

/// So much of what may turn out to be a secret is passed on after a pause.
const EARLY: usize = 4;

/// Where something is held back, so much is put behind it at once.
const FEW: usize = 1024;

/// What to look for. Made once, for all the streams.
pub struct Patterns {
    automaton: NFA,
    start: StateID,
    /// How many bytes of a pattern have been seen in each state.
    depths: HashMap<StateID, usize>,
    /// The pairs of bytes with which a pattern may begin, as a set of bits.
    pairs: Bits,
    /// The first three bytes of patterns, where none of them is a line break.
    threes: Bits,
}

/// A set of numbers below 2^16.
struct Bits(Vec<u64>);

impl Bits {
    fn none() -> Self {
        Self(vec![0; (1 << 16) / 64])
    }

    fn add(&mut self, number: u16) {
        self.0[usize::from(number / 64)] |= 1 << (number % 64);
    }

    fn has(&self, number: u16) -> bool {
        self.0[usize::from(number / 64)] & (1 << (number % 64)) != 0
    }
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
        let cannot = |cause: &dyn std::error::Error| {
            Error::new(ErrorKind::Other, "the command's output cannot be masked")
                .because_of(cause.to_string())
        };
        let mut patterns = BTreeSet::new();
        for secret in secrets {
            forms(secret.expose().as_bytes(), &mut patterns);
        }
        let patterns: Vec<Zeroizing<Vec<u8>>> = patterns.into_iter().map(Zeroizing::new).collect();
        let automaton = NFA::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .prefilter(false)
            .build(patterns.iter().map(|pattern| pattern.as_slice()))
            .map_err(|cause| cannot(&cause))?;
        let start = automaton.start_state(Anchored::No).map_err(|cause| cannot(&cause))?;
        let mut depths = HashMap::from([(start, 0)]);
        let (mut pairs, mut threes) = (Bits::none(), Bits::none());
        for pattern in &patterns {
            let mut state = start;
            for (seen, byte) in pattern.iter().enumerate() {
                state = automaton.next_state(Anchored::No, state, *byte);
                depths.insert(state, seen + 1);
            }
            let any = |at: usize| pattern.get(at).map_or(0..=u8::MAX, |byte| *byte..=*byte);
            for second in any(1) {
                pairs.add(pair(pattern[0], second));
                any(2).for_each(|third| threes.add(three(pattern[0], second, third)));
            }
            pairs.add(pair(pattern[0], b'\r'));
            pairs.add(pair(pattern[0], b'\n'));
        }
        Ok(Self { automaton, start, depths, pairs, threes })
    }

    /// Where, from `at` on, a pattern may begin; the end where nothing looks like it.
    fn next_beginning(&self, bytes: &[u8], mut at: usize) -> usize {
        loop {
            let mut pairs = bytes[at..].windows(2);
            match pairs.position(|two| self.pairs.has(pair(two[0], two[1]))) {
                Some(found) => at += found,
                // Nothing is known of what follows the last one, and a line break may.
                None => match bytes.last() {
                    Some(last) if at < bytes.len() && self.pairs.has(pair(*last, b'\n')) => {
                        return bytes.len() - 1;
                    }
                    _ => return bytes.len(),
                },
            }
            let (first, second) = (bytes[at], bytes[at + 1]);
            match bytes.get(at + 2) {
                Some(third) if !is_break(second) && !is_break(*third) => {
                    if self.threes.has(three(first, second, *third)) {
                        return at;
                    }
                    at += 1;
                }
                _ => return at,
            }
        }
    }
}

impl Patterns {
    /// The same where anything that [`Layout`] skips may come after a byte.
    fn next_beginning_on_screen(&self, bytes: &[u8], at: usize) -> usize {
        let may = |(at, first): (usize, &u8)| {
            self.pairs.has(pair(*first, b'\n'))
                && bytes.get(at + 1).is_none_or(|second| {
                    self.pairs.has(pair(*first, *second))
                        || matches!(*second, b' ' | layout::ESCAPE)
                        || second == first
                })
        };
        let mut rest = bytes.iter().enumerate().skip(at);
        rest.find(|one| may(*one)).map_or(bytes.len(), |(found, _)| found)
    }
}

fn pair(first: u8, second: u8) -> u16 {
    u16::from_be_bytes([first, second])
}

/// Many have the same number, but few that turn up.
fn three(first: u8, second: u8, third: u8) -> u16 {
    pair(first, second).wrapping_mul(0x9E35) ^ pair(third, first)
}

fn is_break(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// The ways in which a secret may be written, without line breaks.
fn forms(secret: &[u8], into: &mut BTreeSet<Vec<u8>>) {
    let mut add = |form: &[u8]| {
        let form: Vec<u8> = form.iter().copied().filter(|byte| !is_break(*byte)).collect();
        if !form.is_empty() {
            into.insert(form);
        }
    };
    add(secret);
    if secret.len() < TELLING {
        return;
    }
    for engine in [STANDARD, URL_SAFE, STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
        add(engine.encode(secret).as_bytes());
    }
    for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
        for before in 0..3 {
            let all = Zeroizing::new([&[0; 3][..before], secret, &[0; 3]].concat());
            let all = Zeroizing::new(engine.encode(all.as_slice()));
            // A character stands for six bits. These depend on the secret alone.
            let own = (before * 8).div_ceil(6)..(before + secret.len()) * 8 / 6;
            add(&all.as_bytes()[own]);
        }
    }
    let form: Zeroizing<String> =
        Zeroizing::new(url::form_urlencoded::byte_serialize(secret).collect());
    add(form.as_bytes());
    // In a path a space is not a plus, and a tilde may stay as it is (RFC 3986
    // section 2.3), as may an asterisk not.
    let path = Zeroizing::new(form.replace('+', "%20"));
    add(path.as_bytes());
    add(path.replace("%7E", "~").as_bytes());
    add(path.replace("%7E", "~").replace('*', "%2A").as_bytes());
    if let Ok(text) = std::str::from_utf8(secret) {
        let json = Zeroizing::new(serde_json::Value::from(text).to_string());
        let inside = &json[1..json.len() - 1];
        add(inside.as_bytes());
        // Some escape it although they need not.
        add(inside.replace('/', "\\/").as_bytes());
    }
    let hex = |digits: &[u8; 16]| -> Vec<u8> {
        let digit = |half: u8| digits[usize::from(half)];
        secret.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
    };
    add(&hex(b"0123456789abcdef"));
    add(&hex(b"0123456789ABCDEF"));
}

/// A stream that is searched as it goes by.
pub struct Mask {
    patterns: Arc<Patterns>,
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
        let state = patterns.start;
        Self {
            patterns,
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
        (self.done, self.at, self.state) = (0, 0, self.patterns.start);
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
        let patterns = Arc::clone(&self.patterns);
        let automaton = &patterns.automaton;
        loop {
            if self.state == patterns.start {
                self.at = match &mut self.layout {
                    None => patterns.next_beginning(seen, self.at),
                    Some(layout) => {
                        layout.clear();
                        patterns.next_beginning_on_screen(seen, self.at)
                    }
                };
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
        (self.at, self.state) = (found.end, self.patterns.start);
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
