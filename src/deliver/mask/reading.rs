//! How what may be a secret is read on, byte by byte.
//!
//! Each character of it may stand for itself or be escaped: percent-encoded (RFC 3986
//! section 2.1), as a space in a form is by a plus; or as within a JSON string
//! (RFC 8259 section 7). Encoders differ in what they leave as it is and in the digits
//! that they write, so any of that is taken anywhere. Where it can be read in several
//! ways, such as a percent sign of the secret's own, all of them are followed.

use std::collections::BTreeSet;
use std::ops::Range;

use zeroize::Zeroizing;

use super::is_break;

/// All that is looked for, in order: those that begin alike stand together.
pub(super) struct Forms(Vec<Zeroizing<Vec<u8>>>);

/// One way to read what has been seen since something began.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading {
    /// Which forms begin with what was read.
    from: usize,
    to: usize,
    /// How much of them that is.
    depth: usize,
    escape: Escape,
}

/// Where in an escaped character it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Escape {
    /// In none, and behind none.
    No,
    /// Behind one that stood for a line break.
    Break,
    Percent,
    /// Behind the first digit, which is this.
    PercentDigit(u8),
    Backslash,
    /// Behind `\u` and so many digits. Some characters take two of these.
    Unit {
        lead: Option<u16>,
        unit: u16,
        digits: u8,
    },
    /// Behind the first of two.
    Lead(u16),
    LeadBackslash(u16),
}

/// The letters that JSON has for some characters, and these.
const SHORT: [(u8, u8); 8] = [
    (b'"', b'"'),
    (b'\\', b'\\'),
    (b'/', b'/'),
    (b'b', 0x08),
    (b'f', 0x0c),
    (b'n', b'\n'),
    (b'r', b'\r'),
    (b't', b'\t'),
];

/// What a byte makes of an escape.
enum Step {
    Open(Escape),
    Byte(u8),
    Char(char),
    /// It is none.
    Not,
}

impl Forms {
    pub(super) fn of(forms: BTreeSet<Vec<u8>>) -> Self {
        Self(forms.into_iter().map(Zeroizing::new).collect())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|form| form.as_slice())
    }

    /// Before the first byte.
    pub(super) fn begin(&self) -> Reading {
        Reading { from: 0, to: self.0.len(), depth: 0, escape: Escape::No }
    }

    /// Goes on with this byte; no reading is left where it cannot be a secret any more,
    /// or not a longer one. Whether a secret ends here.
    pub(super) fn read(&self, readings: &mut Vec<Reading>, byte: u8) -> bool {
        let before = readings.len();
        let mut ends = false;
        let mut next = |readings: &mut Vec<Reading>, read: Option<Reading>| {
            let Some(read) = read else { return };
            ends |= read.escape == Escape::No && self.ends(read);
            if self.goes_on(read) && !readings[before..].contains(&read) {
                readings.push(read);
            }
        };
        for at in 0..before {
            let reading = readings[at];
            if matches!(reading.escape, Escape::No | Escape::Break) {
                next(readings, self.literal(reading, byte));
                if byte == b'+' {
                    next(readings, self.literal(reading, b' '));
                }
            }
            match reading.escape.step(byte) {
                Step::Open(escape) => next(readings, Some(Reading { escape, ..reading })),
                // A line break within does not count, nor does one behind.
                Step::Byte(byte) if is_break(byte) && reading.depth > 0 => {
                    next(readings, Some(Reading { escape: Escape::Break, ..reading }));
                }
                Step::Byte(byte) => next(readings, self.literal(reading, byte)),
                Step::Char(char) => {
                    let mut buffer = [0; 4];
                    let mut bytes = char.encode_utf8(&mut buffer).bytes();
                    next(readings, bytes.try_fold(reading, |at, byte| self.literal(at, byte)));
                }
                Step::Not => {}
            }
        }
        readings.drain(..before);
        ends
    }

    /// How many of these bytes are the next ones of all that this reading may be, and are
    /// nothing else: nothing ends before or with them, no escape begins, and none of them
    /// is one of which `is_plain` says that it is not, by where it is.
    pub(super) fn run(
        &self,
        reading: &Reading,
        bytes: &[u8],
        is_plain: impl Fn(usize) -> bool,
    ) -> usize {
        let forms = &self.0[reading.from..reading.to];
        let (Some(first), Some(last)) = (forms.first(), forms.last()) else { return 0 };
        if reading.escape != Escape::No {
            return 0;
        }
        // They are in order: what these two have in common all have, and one that ends
        // within that is the first.
        let both = first.iter().zip(last.iter()).skip(reading.depth);
        let ends = first.len().saturating_sub(reading.depth + 1);
        let same =
            both.zip(bytes).take(ends).enumerate().take_while(|(at, ((one, other), byte))| {
                one == byte && other == byte && !matches!(byte, b'%' | b'\\') && is_plain(*at)
            });
        same.count()
    }

    /// Whether a whole secret is at the beginning.
    pub(super) fn start(&self, bytes: &[u8]) -> bool {
        let mut readings = vec![self.begin()];
        let bytes = bytes.iter().enumerate();
        for (_, byte) in bytes.filter(|(at, byte)| *at == 0 || !is_break(**byte)) {
            if self.read(&mut readings, *byte) {
                return true;
            }
            if readings.is_empty() {
                break;
            }
        }
        false
    }

    fn literal(&self, reading: Reading, byte: u8) -> Option<Reading> {
        let Reading { from, to, depth, .. } = reading;
        let forms = &self.0[from..to];
        let next = |form: &Zeroizing<Vec<u8>>| form.get(depth).copied();
        let first = forms.partition_point(|form| next(form) < Some(byte));
        let count = forms[first..].partition_point(|form| next(form) == Some(byte));
        let from = from + first;
        let read = Reading { from, to: from + count, depth: depth + 1, escape: Escape::No };
        (count > 0).then_some(read)
    }

    /// Whether it is a whole secret.
    fn ends(&self, reading: Reading) -> bool {
        self.0[reading.from..reading.to].first().is_some_and(|form| form.len() == reading.depth)
    }

    /// Whether there is a secret that is longer.
    fn goes_on(&self, reading: Reading) -> bool {
        self.0[reading.from..reading.to].last().is_some_and(|form| form.len() > reading.depth)
    }
}

impl Reading {
    /// How much of a secret has been read.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Goes on by so many bytes that [`Forms::run`] has counted.
    pub(super) fn skip(&mut self, count: usize) {
        self.depth += count;
    }
}

impl Escape {
    fn step(self, byte: u8) -> Step {
        let digit = || char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match self {
            Self::No | Self::Break => match byte {
                b'%' => Step::Open(Self::Percent),
                b'\\' => Step::Open(Self::Backslash),
                _ => Step::Not,
            },
            Self::Percent => {
                digit().map_or(Step::Not, |digit| Step::Open(Self::PercentDigit(digit)))
            }
            Self::PercentDigit(high) => {
                digit().map_or(Step::Not, |digit| Step::Byte(high << 4 | digit))
            }
            Self::Backslash if byte == b'u' => {
                Step::Open(Self::Unit { lead: None, unit: 0, digits: 0 })
            }
            Self::Backslash => {
                let short = SHORT.iter().find(|(letter, _)| *letter == byte);
                short.map_or(Step::Not, |(_, of)| Step::Byte(*of))
            }
            Self::Unit { lead, unit, digits } => match digit() {
                None => Step::Not,
                Some(digit) => {
                    let unit = unit << 4 | u16::from(digit);
                    match digits + 1 {
                        4 => Self::unit(lead, unit),
                        digits => Step::Open(Self::Unit { lead, unit, digits }),
                    }
                }
            },
            Self::Lead(lead) if byte == b'\\' => Step::Open(Self::LeadBackslash(lead)),
            Self::LeadBackslash(lead) if byte == b'u' => {
                Step::Open(Self::Unit { lead: Some(lead), unit: 0, digits: 0 })
            }
            Self::Lead(_) | Self::LeadBackslash(_) => Step::Not,
        }
    }

    fn unit(lead: Option<u16>, unit: u16) -> Step {
        if lead.is_none() && (0xd800..0xdc00).contains(&unit) {
            return Step::Open(Self::Lead(unit));
        }
        let mut chars = char::decode_utf16(lead.into_iter().chain([unit]));
        match (chars.next(), chars.next()) {
            (Some(Ok(char)), None) => {
                u8::try_from(char).ok().filter(u8::is_ascii).map_or(Step::Char(char), Step::Byte)
            }
            _ => Step::Not,
        }
    }
}

/// What a whole escape at the beginning stands for, and its length: the first byte of the
/// character. `None` where there is none, or where it may be read in other ways too.
pub(super) fn escaped(bytes: &[u8]) -> Option<(u8, usize)> {
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let number = |digits: Range<usize>| {
        digits.clone().try_fold(0, |so_far, at| Some(so_far << 4 | digit(at)?))
    };
    match bytes {
        [b'%', ..] => Some((u8::try_from(number(1..3)?).ok()?, 3)),
        [b'\\', b'u', ..] => {
            // The first half of a pair is none by itself.
            let char = char::from_u32(number(2..6)?)?;
            Some((char.encode_utf8(&mut [0; 4]).as_bytes().first().copied()?, 6))
        }
        _ => None,
    }
}

/// The first three bytes of each way to write this; all of it where that is shorter.
pub(super) fn beginnings(form: &[u8]) -> Vec<Vec<u8>> {
    let mut whole = Vec::new();
    let mut open = vec![(Vec::new(), form)];
    while let Some((written, rest)) = open.pop() {
        let Some((&byte, rest)) = rest.split_first().filter(|_| written.len() < 3) else {
            whole.push(written);
            continue;
        };
        let and =
            |with: &[u8]| -> Vec<u8> { written.iter().chain(with).copied().take(3).collect() };
        open.extend(spellings(byte).iter().map(|spelling| (and(spelling), rest)));
        if !written.is_empty() {
            whole.extend([&b"\\n"[..], b"\\r", b"%0"].map(and));
        }
    }
    whole
}

/// What a byte of a secret may be written as, or how that begins.
fn spellings(byte: u8) -> Vec<Vec<u8>> {
    let mut spellings = vec![vec![byte]];
    if byte == b' ' {
        spellings.push(vec![b'+']);
    }
    for high in digits(byte >> 4) {
        spellings.extend(digits(byte & 15).into_iter().map(|low| vec![b'%', high, low]));
    }
    for (letter, of) in SHORT {
        if of == byte {
            spellings.push(vec![b'\\', letter]);
        }
    }
    // The number of a character, of which this is the first byte.
    let firsts = if byte.is_ascii() { 0..1 } else { 0..16 };
    spellings.extend(firsts.flat_map(digits).map(|digit| vec![b'\\', b'u', digit]));
    spellings
}

fn digits(number: u8) -> Vec<u8> {
    let digits = [b"0123456789abcdef", b"0123456789ABCDEF"];
    let mut digits = digits.map(|digits| digits[usize::from(number)]).to_vec();
    digits.dedup();
    digits
}
