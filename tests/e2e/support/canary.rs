//! A secret that must not show, and the search for it.

use std::collections::BTreeSet;
use std::path::Path;

use base64::engine::general_purpose::{STANDARD, URL_SAFE};

use super::walk::files;

/// A value that is easy to tell from all others. It stands for a secret in a
/// test: wherever it shows afterwards, something leaks.
#[derive(Clone)]
pub(crate) struct Canary {
    kind: String,
    value: Vec<u8>,
}

/// A place where a canary was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Leak {
    /// Where.
    pub(crate) place: String,
    /// Which canary, and how it was written.
    pub(crate) what: String,
}

/// Whether what was said has lines of the log of the program itself and of a library
/// that it is made of: else a search of it proves nothing.
#[cfg(feature = "broker")]
#[track_caller]
pub(crate) fn assert_traced(said: &str) {
    // 2026-01-01T12:00:00.000000Z DEBUG hyper_util::client::legacy::pool: …
    let targets = said.lines().filter_map(|line| {
        let (before, rest) = line.split_once(" DEBUG ")?;
        let target = rest.split(": ").next()?;
        (before.ends_with('Z') && target.contains("::")).then_some(target)
    });
    let (own, others): (Vec<_>, Vec<_>) =
        targets.partition(|target| target.starts_with("tmpcred::"));
    assert!(!own.is_empty(), "the program has not logged anything: {said}");
    assert!(!others.is_empty(), "no library has logged anything: {said}");
}

impl Canary {
    /// A new canary for a kind of secret, such as `refresh token`.
    pub(crate) fn new(kind: &str) -> Self {
        // Among others characters that look different in every encoding.
        Self::of(kind, format!("canary/{}+?\"", uuid::Uuid::new_v4()))
    }

    /// A secret that somebody else has chosen, such as a token of a provider.
    ///
    /// # Panics
    /// Where it is too short for the search to mean anything.
    #[track_caller]
    pub(crate) fn of(kind: &str, value: impl Into<String>) -> Self {
        Self::of_bytes(kind, value.into())
    }

    /// The same for a secret that is no text, such as a key.
    ///
    /// # Panics
    /// Where it is too short for the search to mean anything.
    #[track_caller]
    pub(crate) fn of_bytes(kind: &str, value: impl Into<Vec<u8>>) -> Self {
        let value = value.into();
        assert!(value.len() >= 12, "too short to search for: {kind}");
        Self { kind: kind.into(), value }
    }

    /// The secret itself.
    ///
    /// # Panics
    /// Where it is no text.
    #[track_caller]
    pub(crate) fn value(&self) -> &str {
        std::str::from_utf8(&self.value).unwrap()
    }

    /// The ways in which it may be written, and what each of them looks like
    /// wherever it stands in a longer text.
    fn spellings(&self) -> Vec<(&'static str, Vec<u8>)> {
        let value = &self.value[..];
        let mut spellings = vec![("plain", value.to_vec())];
        for ahead in 0..3 {
            spellings.push(("base64", in_base64(&STANDARD, value, ahead)));
            spellings.push(("base64url", in_base64(&URL_SAFE, value, ahead)));
        }
        for (name, upper) in [("hex", false), ("upper-case hex", true)] {
            spellings.push((name, hex(value, upper, "")));
        }
        for upper in [false, true] {
            spellings.push(("URL encoding", percent(value, upper)));
            spellings.push(("URL encoding", hex(value, upper, "%")));
        }
        if let Ok(text) = std::str::from_utf8(value) {
            let utf16 = |order: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(order).collect();
            spellings.push(("JSON", json(text)));
            spellings.push(("UTF-16", utf16(u16::to_le_bytes)));
            spellings.push(("UTF-16", utf16(u16::to_be_bytes)));
        } else {
            // As a list of numbers, such as Debug and JSON have it.
            spellings.push(("numbers", numbers(value, ", ")));
            spellings.push(("numbers", numbers(value, ",")));
        }
        // Some look alike.
        let mut seen = BTreeSet::new();
        spellings.retain(|(_, spelling)| seen.insert(spelling.clone()));
        spellings
    }

    /// Searches `bytes`, which are those of `place`.
    pub(crate) fn search(&self, place: &str, bytes: &[u8]) -> Vec<Leak> {
        let mut leaks: Vec<Leak> = self
            .spellings()
            .into_iter()
            .filter(|(_, spelling)| contains(bytes, spelling))
            .map(|(how, _)| Leak { place: place.into(), what: format!("{} in {how}", self.kind) })
            .collect();
        leaks.sort();
        leaks.dedup();
        leaks
    }

    /// Searches the names and contents of all files below `directory`.
    pub(crate) fn search_files(&self, directory: &Path) -> Vec<Leak> {
        files(directory)
            .into_iter()
            .flat_map(|file| {
                let name = file.path.display().to_string();
                let mut leaks = self.search(&format!("the name {name}"), name.as_bytes());
                leaks.extend(self.search(&name, &file.bytes));
                leaks
            })
            .collect()
    }

    /// Searches the arguments of all processes that run just now: everybody on a
    /// machine can read them.
    pub(crate) fn search_processes(&self) -> Vec<Leak> {
        let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
        processes
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok())
            .filter_map(|entry| {
                Some((entry.path(), std::fs::read(entry.path().join("cmdline")).ok()?))
            })
            .flat_map(|(path, arguments)| self.search(&path.display().to_string(), &arguments))
            .collect()
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && text.windows(part.len()).any(|window| window == part)
}

fn numbers(value: &[u8], between: &str) -> Vec<u8> {
    let numbers: Vec<_> = value.iter().map(u8::to_string).collect();
    numbers.join(between).into_bytes()
}

fn json(value: &str) -> Vec<u8> {
    let quoted = serde_json::Value::from(value).to_string();
    quoted.trim_matches('"').into()
}

/// The base64 characters that `value` alone decides where `ahead` bytes (modulo
/// three) stand before it: those at its ends depend on its neighbours too.
fn in_base64(engine: &impl base64::Engine, value: &[u8], ahead: usize) -> Vec<u8> {
    let mut bytes = vec![0; ahead];
    bytes.extend_from_slice(value);
    let whole_groups = bytes.len() / 3 * 4;
    let start = if ahead == 0 { 0 } else { 4 };
    engine.encode(bytes).as_bytes()[start..whole_groups].to_vec()
}

fn hex(value: &[u8], upper: bool, before: &str) -> Vec<u8> {
    let digits = |byte: u8| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") };
    value.iter().flat_map(|&byte| format!("{before}{}", digits(byte)).into_bytes()).collect()
}

fn percent(value: &[u8], upper: bool) -> Vec<u8> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let one = |&byte: &u8| if plain(byte) { vec![byte] } else { hex(&[byte], upper, "%") };
    value.iter().flat_map(one).collect()
}
