//! How programs lay out a terminal, where a secret does not fit into a line.
//!
//! Some move the cursor to the next line by a control sequence (ECMA-48 section 5.4),
//! and have written the last byte of the line twice before that, as `vim` does; others
//! write a space and take it back, as `less` does. All of that is skipped within what
//! may be a secret. Where some was, each byte of the secret is replaced by one
//! asterisk, so that everything stays in its place.

use std::ops::Range;

const ESCAPE: u8 = 0x1b;
const BACKSPACE: u8 = 0x08;

/// What is skipped begins with one of these, or with the byte before it once more.
pub(super) const BEGINNINGS: [u8; 3] = [ESCAPE, BACKSPACE, b' '];

/// Whether a byte may be skipped behind another one, and before the next.
pub(super) fn may_skip(before: u8, byte: u8, next: Option<u8>) -> bool {
    let before_a = |wanted| next.is_none_or(|next| next == wanted);
    match byte {
        ESCAPE | BACKSPACE => true,
        b' ' if before_a(BACKSPACE) => true,
        _ => byte == before && before_a(ESCAPE),
    }
}

/// What was skipped since something began like a secret.
#[derive(Default)]
pub(super) struct Layout {
    /// Where it is, in order, and whether the terminal is to have it.
    skipped: Vec<(usize, bool)>,
    sequence: Sequence,
}

#[derive(Default)]
enum Sequence {
    /// None has begun.
    #[default]
    None,
    /// After the escape, which a bracket follows.
    Begun,
    /// Before its last byte.
    Parameters,
}

impl Layout {
    /// Whether the byte there is to be skipped; `None` where the next one tells.
    pub(super) fn skips(&mut self, seen: &[u8], at: usize) -> Option<bool> {
        let (byte, next) = (seen[at], seen.get(at + 1).copied());
        let kept = match self.sequence {
            Sequence::Begun => {
                self.sequence = Sequence::Parameters;
                true
            }
            Sequence::Parameters => {
                if !(0x20..0x40).contains(&byte) {
                    self.sequence = Sequence::None;
                }
                true
            }
            Sequence::None if byte == ESCAPE && next? == b'[' => {
                self.sequence = Sequence::Begun;
                true
            }
            Sequence::None if byte == BACKSPACE => true,
            Sequence::None if byte == b' ' && next? == BACKSPACE => true,
            // Written twice.
            Sequence::None if self.last(seen, at) == Some(byte) && next? == ESCAPE => false,
            Sequence::None => return Some(false),
        };
        self.skipped.push((at, kept));
        Some(true)
    }

    /// Whether a control sequence has begun and not ended.
    pub(super) fn is_within_sequence(&self) -> bool {
        !matches!(self.sequence, Sequence::None)
    }

    fn last(&self, seen: &[u8], at: usize) -> Option<u8> {
        at.checked_sub(1).filter(|before| !self.has(*before)).map(|before| seen[before])
    }

    /// Whether the byte there was skipped.
    pub(super) fn has(&self, at: usize) -> bool {
        self.skipped.binary_search_by_key(&at, |(at, _)| *at).is_ok()
    }

    pub(super) fn is_within(&self, range: &Range<usize>) -> bool {
        self.skipped.iter().any(|(at, _)| range.contains(at))
    }

    /// Puts out what stands in place of the secret there.
    pub(super) fn put_instead(&self, seen: &[u8], range: Range<usize>, out: &mut Vec<u8>) {
        for at in range {
            let skipped = self.skipped.binary_search_by_key(&at, |(at, _)| *at);
            let kept = skipped.is_ok_and(|index| self.skipped[index].1);
            let is_break = super::is_break(seen[at]);
            out.push(if kept || is_break { seen[at] } else { b'*' });
        }
    }

    /// Nothing begins like a secret any more.
    pub(super) fn clear(&mut self) {
        self.skipped.clear();
        self.sequence = Sequence::None;
    }

    /// What is held back begins here from now on.
    pub(super) fn forget(&mut self, held: usize) {
        // However much has been skipped, nothing moves.
        if held == 0 {
            return;
        }
        self.skipped.retain(|(at, _)| *at >= held);
        self.skipped.iter_mut().for_each(|(at, _)| *at -= held);
    }
}
