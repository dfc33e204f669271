//! What secrets may look like, and where in a stream one may begin.

use std::collections::{BTreeSet, HashMap};

use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{Anchored, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use super::layout;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// Shorter secrets are recognised as they are, but not encoded: that would be as
/// good as any other text.
const TELLING: usize = 8;

/// What is looked for at one time.
pub(super) struct Look {
    pub(super) automaton: NFA,
    pub(super) start: StateID,
    /// How many bytes of a pattern have been seen in each state.
    pub(super) depths: HashMap<StateID, usize>,
    /// The pairs of bytes with which a pattern may begin, as a set of bits.
    pairs: Bits,
    /// The same where what [`layout::Layout`] skips may follow the first.
    pairs_on_screen: Bits,
    /// The first three bytes of patterns, where none of them is a line break.
    threes: Bits,
    /// Every byte is looked at, for comparison.
    #[cfg(test)]
    pub(super) unhurried: bool,
}

/// A set of numbers below 2^16.
#[derive(Clone)]
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

impl Look {
    /// All the ways in which these secrets may be written.
    pub(super) fn of(secrets: &[Secret<String>]) -> Result<Self> {
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
        let mut pairs_on_screen = pairs.clone();
        for first in patterns.iter().map(|pattern| pattern[0]) {
            for second in [first].into_iter().chain(layout::BEGINNINGS) {
                pairs_on_screen.add(pair(first, second));
            }
        }
        Ok(Self {
            automaton,
            start,
            depths,
            pairs,
            pairs_on_screen,
            threes,
            #[cfg(test)]
            unhurried: false,
        })
    }

    /// Where, from `at` on, a pattern may begin; the end where nothing looks like it.
    /// On a screen anything that [`layout::Layout`] skips may stand between its bytes.
    pub(super) fn next_beginning(&self, bytes: &[u8], mut at: usize, on_screen: bool) -> usize {
        #[cfg(test)]
        if self.unhurried {
            return at;
        }
        let known = if on_screen { &self.pairs_on_screen } else { &self.pairs };
        loop {
            let mut pairs = bytes[at..].windows(2);
            match pairs.position(|two| known.has(pair(two[0], two[1]))) {
                Some(found) => at += found,
                // Nothing is known of what follows the last one, and a line break may.
                None => match bytes.last() {
                    Some(last) if at < bytes.len() && known.has(pair(*last, b'\n')) => {
                        return bytes.len() - 1;
                    }
                    _ => return bytes.len(),
                },
            }
            let (first, second) = (bytes[at], bytes[at + 1]);
            let Some(third) = bytes.get(at + 2).copied() else { return at };
            let skips = |byte| is_break(byte) || (on_screen && layout::BEGINNINGS.contains(&byte));
            if skips(second)
                || skips(third)
                || self.threes.has(three(first, second, third))
                // One of the two may be there twice.
                || (on_screen && (first == second || second == third))
            {
                return at;
            }
            at += 1;
        }
    }
}

fn pair(first: u8, second: u8) -> u16 {
    u16::from_be_bytes([first, second])
}

/// Many have the same number, but few that turn up.
fn three(first: u8, second: u8, third: u8) -> u16 {
    pair(first, second).wrapping_mul(0x9E35) ^ pair(third, first)
}

pub(super) fn is_break(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// The ways in which a secret may be written, without line breaks.
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
