//! What secrets may look like, and where in a stream one may begin.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

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
        self.bit(number) != 0
    }

    fn bit(&self, number: u16) -> u64 {
        self.0[usize::from(number / 64)] >> (number % 64) & 1
    }
}

/// With which pairs of bytes something may begin.
struct Pairs {
    /// The first byte and the second.
    begin: Bits,
    /// These, and the second byte and the third: wherever something begins, one of them is
    /// at every other byte.
    early: Bits,
}

impl Pairs {
    /// None yet. Line breaks may stand anywhere within.
    fn none() -> Self {
        let mut pairs = Self { begin: Bits::none(), early: Bits::none() };
        BREAKS.into_iter().for_each(|second| pairs.follow(second, 0..=u8::MAX));
        pairs
    }

    /// The same where anything that [`layout::Layout`] skips may.
    fn none_on_screen() -> Self {
        let mut pairs = Self::none();
        layout::BEGINNINGS.into_iter().for_each(|second| pairs.follow(second, 0..=u8::MAX));
        pairs
    }

    /// Something begins with these, and one of those.
    fn add(&mut self, first: u8, second: u8, thirds: RangeInclusive<u8>) {
        self.begin(first, BREAKS);
        self.begin(first, [second]);
        self.follow(second, BREAKS);
        self.follow(second, thirds);
    }

    /// The same on a screen, where a byte may be written twice, too.
    fn add_on_screen(&mut self, first: u8, second: u8, thirds: RangeInclusive<u8>) {
        self.add(first, second, thirds);
        self.begin(first, layout::BEGINNINGS);
        self.begin(first, [first]);
        self.follow(second, layout::BEGINNINGS);
        self.follow(second, [second]);
    }

    fn begin(&mut self, first: u8, seconds: impl IntoIterator<Item = u8>) {
        for second in seconds {
            self.begin.add(pair(first, second));
            self.early.add(pair(first, second));
        }
    }

    fn follow(&mut self, second: u8, thirds: impl IntoIterator<Item = u8>) {
        thirds.into_iter().for_each(|third| self.early.add(pair(second, third)));
    }

    /// Where the first pair of bytes is with which something begins. (All of a stream goes
    /// through here. Written out like this it is quick even where the compiler is told to
    /// save room.)
    fn position(&self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
            let [a, b, c, d, e, f, g, h] = *chunk;
            let pairs = [pair(a, b), pair(c, d), pair(e, f), pair(g, h)];
            let bits = pairs.map(|pair| self.early.bit(pair));
            if bits[0] | bits[1] | bits[2] | bits[3] != 0 {
                // The one before may begin with the last of what was looked at.
                let from = at.saturating_sub(1);
                let mut among = bytes[from..].windows(2).take(at + 8 - from);
                if let Some(found) = among.position(|two| self.begins(two)) {
                    return Some(from + found);
                }
            }
            at += 8;
        }
        let from = at.saturating_sub(1);
        let rest = bytes.get(from..)?;
        rest.windows(2).position(|two| self.begins(two)).map(|found| from + found)
    }

    fn begins(&self, two: &[u8]) -> bool {
        matches!(two, [first, second] if self.begin.has(pair(*first, *second)))
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
        let (mut pairs, mut pairs_on_screen) = (Pairs::none(), Pairs::none_on_screen());
        let mut threes = Bits::none();
        for beginning in forms.iter().flat_map(beginnings).map(Zeroizing::new) {
            let first = beginning[0];
            let any = |at: usize| beginning.get(at).map_or(0..=u8::MAX, |byte| *byte..=*byte);
            for second in any(1) {
                pairs.add(first, second, any(2));
                pairs_on_screen.add_on_screen(first, second, any(2));
                any(2).for_each(|third| threes.add(three(first, second, third)));
            }
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

    /// Where, from `at` on, a secret may begin; the end where nothing looks like it.
    /// On a screen anything that [`layout::Layout`] skips may stand between its bytes.
    pub(super) fn next_beginning(&self, bytes: &[u8], mut at: usize, on_screen: bool) -> usize {
        #[cfg(test)]
        if self.unhurried {
            return at;
        }
        let known = if on_screen { &self.pairs_on_screen } else { &self.pairs };
        loop {
            match known.position(&bytes[at..]) {
                Some(found) => at += found,
                // Nothing is known of what follows the last one, and a line break may.
                None => match bytes.last() {
                    Some(last) if at < bytes.len() && known.begins(&[*last, b'\n']) => {
                        return bytes.len() - 1;
                    }
                    _ => return bytes.len(),
                },
            }
            let (first, second) = (bytes[at], bytes[at + 1]);
            let Some(third) = bytes.get(at + 2).copied() else { return at };
            let fourth = bytes.get(at + 3).copied();
            // Most lines that end like this are followed by another one at once.
            if is_break(second)
                && let Some(next) = [third, fourth.unwrap_or(third)].into_iter().find(is_no_break)
                && !known.begins(&[first, next])
            {
                at += 1;
                continue;
            }
            // Many begin with the same escape, of which the first bytes tell nothing.
            if matches!(first, b'%' | b'\\') && self.is_no_escape_of_one(&bytes[at..], on_screen) {
                at += 1;
                continue;
            }
            if self.threes.has(three(first, second, third))
                || is_break(second)
                || is_break(third)
                || (on_screen && layout::may_skip(first, second, Some(third)))
                || (on_screen && layout::may_skip(second, third, fourth))
            {
                return at;
            }
            at += 1;
        }
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
    u16::from_be_bytes([first, second])
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
