//! What secrets may look like, and where in a stream one may begin.

use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use super::reading::{Forms, beginnings, escaped};
use super::{BREAKS, is_break, layout};
use crate::secret::Secret;

/// Shorter secrets are recognised as they are, but not encoded: that would be as
/// good as any other text.
const TELLING: usize = 8;

/// What is looked for at one time.
pub(super) struct Look {
    pub(super) forms: Forms,
    /// The pairs of bytes with which a secret may begin.
    pairs: Pairs,
    /// The same where what [`layout::Layout`] skips may stand between its bytes.
    pairs_on_screen: Pairs,
    /// The first three bytes, where none of them is a line break.
    threes: Bits,
    /// The pairs of bytes with which a form begins that is neither escaped nor broken.
    plain: Bits,
    /// The first of these.
    firsts: [bool; 256],
    /// Every byte is looked at, for comparison.
    #[cfg(test)]
    pub(super) unhurried: bool,
}

/// A set of numbers below 2^16. So many words that none needs to be looked for beyond
/// their end.
#[derive(Clone)]
struct Bits(Box<[u64; 1024]>);

impl Bits {
    fn none() -> Self {
        Self(Box::new([0; 1024]))
    }

    fn add(&mut self, number: u16) {
        self.0[usize::from(number / 64)] |= 1 << (number % 64);
    }

    fn has(&self, number: u16) -> bool {
        self.bit(number) & 1 != 0
    }

    /// In the last bit, with others before it.
    fn bit(&self, number: u16) -> u64 {
        self.0[usize::from(number / 64)] >> (number % 64)
    }
}

/// With which pairs of bytes something may begin.
struct Pairs {
    /// The first byte and the second.
    begin: Bits,
    /// Wherever something begins, one of these is at every other byte: the first and the
    /// second, the second and the third, or a byte that may stand between them.
    early: Bits,
}

/// So far behind where something begins a byte may stand that tells of it: a backspace
/// behind a space behind the second.
const FAR: usize = 3;

impl Pairs {
    /// None yet. These bytes may stand between those of what begins.
    fn none(between: &[u8]) -> Self {
        let mut early = Bits::none();
        for one in between {
            for other in 0..=u8::MAX {
                early.add(pair(*one, other));
                early.add(pair(other, *one));
            }
        }
        Self { begin: Bits::none(), early }
    }

    /// Something begins with these, and one of those.
    fn add(&mut self, first: u8, second: u8, thirds: RangeInclusive<u8>) {
        self.begin.add(pair(first, second));
        self.early.add(pair(first, second));
        thirds.for_each(|third| self.early.add(pair(second, third)));
    }

    /// What may follow the first byte instead.
    fn or(&mut self, first: u8, instead: impl IntoIterator<Item = u8>) {
        instead.into_iter().for_each(|second| self.begin.add(pair(first, second)));
    }

    fn begins(&self, first: u8, second: u8) -> bool {
        self.begin.has(pair(first, second))
    }

    /// Whether one of these four pairs is an early one. (All of a stream goes through here.
    /// Written out like this it is quick even where the compiler is told to save room.)
    fn is_any_early(&self, bytes: [u8; 8]) -> bool {
        let all = u64::from_le_bytes(bytes);
        let bit = |at: u32| self.early.bit((all >> at) as u16);
        (bit(0) | bit(16) | bit(32) | bit(48)) & 1 != 0
    }

    /// Where this is an early pair: how many bytes before it something may have begun, or
    /// else with its first.
    fn early_before(&self, one: u8, other: u8) -> Option<usize> {
        if !self.early.has(pair(one, other)) {
            return None;
        }
        let is_between = |byte| is_break(byte) || layout::is_telling(byte);
        Some(if is_between(one) || is_between(other) { FAR } else { 1 })
    }
}

impl Look {
    /// All the ways in which these secrets may be written.
    pub(super) fn of(secrets: &[Secret<String>]) -> Self {
        let mut all = BTreeSet::new();
        for secret in secrets {
            forms(secret.expose().as_bytes(), &mut all);
        }
        let forms = Forms::of(all);
        let (mut plain, mut plain_firsts) = (Bits::none(), [false; 256]);
        for form in forms.iter() {
            plain_firsts[usize::from(form[0])] = true;
            let any = form.get(1).map_or(0..=u8::MAX, |byte| *byte..=*byte);
            any.for_each(|second| plain.add(pair(form[0], second)));
        }
        let mut pairs = Pairs::none(&BREAKS);
        let mut pairs_on_screen = Pairs::none(&[&BREAKS[..], &layout::TELLING].concat());
        let mut threes = Bits::none();
        for beginning in forms.iter().flat_map(beginnings).map(Zeroizing::new) {
            let first = beginning[0];
            let any = |at: usize| beginning.get(at).map_or(0..=u8::MAX, |byte| *byte..=*byte);
            for second in any(1) {
                pairs.add(first, second, any(2));
                pairs_on_screen.add(first, second, any(2));
                any(2).for_each(|third| threes.add(three(first, second, third)));
            }
            pairs.or(first, BREAKS);
            pairs_on_screen.or(first, BREAKS.into_iter().chain(layout::BEGINNINGS).chain([first]));
        }
        Self {
            forms,
            pairs,
            pairs_on_screen,
            threes,
            plain,
            firsts: plain_firsts,
            #[cfg(test)]
            unhurried: false,
        }
    }

    /// Where, from there on, a secret may begin; the end where nothing looks like it.
    /// On a screen anything that [`layout::Layout`] skips may stand between its bytes.
    pub(super) fn next_beginning(&self, bytes: &[u8], from: usize, on_screen: bool) -> usize {
        #[cfg(test)]
        if self.unhurried {
            return from;
        }
        let pairs = if on_screen { &self.pairs_on_screen } else { &self.pairs };
        let first = |mut range: Range<usize>| {
            range.find(|at| self.may_begin(&bytes[*at..], pairs, on_screen))
        };
        let mut at = from;
        while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
            if pairs.is_any_early(*chunk) {
                for (two, at) in chunk.chunks_exact(2).zip((at..).step_by(2)) {
                    let before = pairs.early_before(two[0], two[1]);
                    let range = before.map(|before| at.saturating_sub(before).max(from)..at + 1);
                    if let Some(found) = range.and_then(first) {
                        return found;
                    }
                }
            }
            at += 8;
        }
        first(at.saturating_sub(FAR).max(from)..bytes.len()).unwrap_or(bytes.len())
    }

    fn may_begin(&self, bytes: &[u8], pairs: &Pairs, on_screen: bool) -> bool {
        let (first, second) = match *bytes {
            [first, second, ..] => (first, second),
            // Nothing is known of what follows the last one, and a line break may.
            [first] => return pairs.begins(first, b'\n'),
            [] => return false,
        };
        if !pairs.begins(first, second) {
            return false;
        }
        let Some(third) = bytes.get(2).copied() else { return true };
        let fourth = bytes.get(3).copied();
        // Most lines that end like this are followed by another one at once.
        if is_break(second)
            && let Some(next) = [third, fourth.unwrap_or(third)].into_iter().find(is_no_break)
            && !pairs.begins(first, next)
        {
            return false;
        }
        // Many begin with the same escape, of which the first bytes tell nothing.
        if matches!(first, b'%' | b'\\') && self.is_no_escape_of_one(bytes, on_screen) {
            return false;
        }
        self.threes.has(three(first, second, third))
            || is_break(second)
            || is_break(third)
            || (on_screen && layout::may_skip(first, second, Some(third)))
            || (on_screen && layout::may_skip(second, third, fourth))
    }
}

impl Look {
    /// Whether a whole escape is at the beginning with which no secret begins.
    fn is_no_escape_of_one(&self, bytes: &[u8], on_screen: bool) -> bool {
        let Some((byte, len)) = escaped(bytes) else { return false };
        // As it stands it may be the beginning of one, too.
        if self.firsts[usize::from(bytes[0])] {
            return false;
        }
        let two = |at: usize| Some((bytes[at], *bytes.get(at + 1)?, bytes.get(at + 2).copied()));
        let may_skip = |(before, byte, next)| layout::may_skip(before, byte, next);
        if on_screen && (0..len).any(|at| two(at).is_none_or(may_skip)) {
            return false;
        }
        if !self.firsts[usize::from(byte)] {
            return true;
        }
        match bytes.get(len).copied() {
            // Of more than one byte, or not the end of it.
            _ if !byte.is_ascii() => false,
            None | Some(b'%' | b'\\' | b'+' | b'\r' | b'\n') => false,
            Some(second) => !self.plain.has(pair(byte, second)),
        }
    }

    /// How long the longest form is.
    #[cfg(test)]
    pub(super) fn longest(&self) -> usize {
        self.forms.iter().map(<[u8]>::len).max().unwrap_or_default()
    }
}

fn is_no_break(byte: &u8) -> bool {
    !is_break(*byte)
}

fn pair(first: u8, second: u8) -> u16 {
    u16::from_le_bytes([first, second])
}

/// Many have the same number, but few that turn up.
fn three(first: u8, second: u8, third: u8) -> u16 {
    pair(first, second).wrapping_mul(0x9E35) ^ pair(third, first)
}

/// What a secret may be encoded as, without line breaks, before any of that is escaped.
pub(super) fn forms(secret: &[u8], into: &mut BTreeSet<Vec<u8>>) {
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
    let hex = |digits: &[u8; 16]| -> Vec<u8> {
        let digit = |half: u8| digits[usize::from(half)];
        secret.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
    };
    add(&hex(b"0123456789abcdef"));
    add(&hex(b"0123456789ABCDEF"));
}
