//! The inputs of a target, and changes to them that are the same each time.

use std::panic::RefUnwindSafe;

use super::{Fate, MAX_INPUT};

/// How many changes of each input are tried.
const CHANGES: u64 = 48;

/// Tries a property with all of them. One of those that are not changed has to be accepted.
pub(super) fn run(
    target: &str,
    inputs: &[Vec<u8>],
    property: &(impl Fn(&[u8]) -> Fate + RefUnwindSafe),
) {
    let mut fates = Vec::new();
    for input in inputs {
        fates.push(tried(target, input, property));
        let mut random = Random::of(target, input);
        for _ in 0..CHANGES {
            tried(target, &random.changed(input, inputs), property);
        }
    }
    assert!(fates.contains(&Fate::Accepted), "{target} accepts none of its inputs");
}

/// Says with what it failed, so that it can be kept.
fn tried(target: &str, input: &[u8], property: &(impl Fn(&[u8]) -> Fate + RefUnwindSafe)) -> Fate {
    std::panic::catch_unwind(|| property(input)).unwrap_or_else(|panic| {
        let shown = String::from_utf8_lossy(input);
        tracing::error!(target, "does not hold for {shown:?}");
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        panic!("{target} does not hold for {shown:?}: {}", said.unwrap_or_default());
    })
}

/// What looks random, and is the same each time.
struct Random(u64);

impl Random {
    fn of(target: &str, input: &[u8]) -> Self {
        let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        Self(target.as_bytes().iter().chain(input).fold(0xcbf2_9ce4_8422_2325, hash) | 1)
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % (end.max(1) as u64)).unwrap()
    }

    /// The input with a few changes, some of them from other inputs.
    fn changed(&mut self, input: &[u8], others: &[Vec<u8>]) -> Vec<u8> {
        const BYTES: &[u8] = b"\0\n\r \"'%&*+,-./:;<=>?@[\\]_{|}~\x7f\x80\xff019aAzZ";
        let mut changed = input.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(changed.len() + 1);
            match self.below(6) {
                0 => changed.truncate(at),
                1 => changed.insert(at, BYTES[self.below(BYTES.len())]),
                2 if at < changed.len() => changed[at] = BYTES[self.below(BYTES.len())],
                3 if at < changed.len() => changed[at] ^= 1 << self.below(8),
                4 => {
                    let end = (at + self.below(64)).min(changed.len());
                    let part = changed[at..end].to_vec();
                    changed.splice(at..at, part);
                }
                _ => {
                    let other = &others[self.below(others.len())];
                    let from = self.below(other.len() + 1);
                    let to = (from + self.below(64)).min(other.len());
                    changed.splice(at..at, other[from..to].iter().copied());
                }
            }
        }
        changed.truncate(MAX_INPUT);
        changed
    }
}

#[test]
#[should_panic(expected = "made_up accepts none of its inputs")]
fn a_target_that_accepts_none_of_its_inputs_fails() {
    run("made_up", &[b"x".to_vec(), b"y".to_vec()], &|_| Fate::Refused);
}
