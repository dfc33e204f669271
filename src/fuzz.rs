//! Fuzzing: what must hold for whatever a stranger sends.
//!
//! A target is a test in a module `fuzz` beside what it is about, so that it reaches all
//! that is private there, and nothing is public for its sake. It names its inputs, which
//! are in `tests/fuzz/NAME`, and says what has to hold. In the suite it is tried with
//! those inputs and with changes to them, always the same; `tests/run fuzz` builds the
//! tests so that libFuzzer looks for inputs that lead elsewhere.

#[cfg(fuzzing)]
mod campaign;
#[cfg(not(fuzzing))]
mod changes;

use std::panic::RefUnwindSafe;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::datetime;

/// The time of all targets.
pub(crate) const NOW: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);

/// Inputs are no longer than what any parser looks at, and a bit.
const MAX_INPUT: usize = 70_000;

/// What became of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was taken for what it says, and what must hold of such was looked at.
    Accepted,
    /// It was not, and there is little that could fail to hold.
    Refused,
}

impl Fate {
    pub(crate) fn accepted_if(is_accepted: bool) -> Self {
        if is_accepted { Self::Accepted } else { Self::Refused }
    }
}

/// Tries a property with the inputs of a target, and with `more`. It panics where it does
/// not hold, and tells what became of the input where it does. One of the inputs has to be
/// accepted: a property of what is accepted holds of nothing, too.
pub(crate) fn hold(
    target: &str,
    more: impl IntoIterator<Item = Vec<u8>>,
    property: impl Fn(&[u8]) -> Fate + RefUnwindSafe + Send + Sync + 'static,
) {
    let mut inputs: Vec<_> = more.into_iter().collect();
    inputs.extend(committed(target));
    assert!(!inputs.is_empty(), "there are no inputs for the target {target}");
    #[cfg(fuzzing)]
    campaign::run(target, &inputs, property);
    #[cfg(not(fuzzing))]
    changes::run(target, &inputs, &property);
}

/// Where the inputs of a target are.
fn directory(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(target)
}

#[expect(clippy::disallowed_methods, reason = "a test reads its own inputs")]
fn committed(target: &str) -> Vec<Vec<u8>> {
    let Ok(files) = std::fs::read_dir(directory(target)) else { return Vec::new() };
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// A key that everybody knows: RFC 8037 appendix A.1. What it signs is always the same.
pub(crate) fn key() -> EncodingKey {
    let head = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let secret = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
    EncodingKey::from_ed_der(&[&head[..], &secret].concat())
}

/// Its public half.
pub(crate) fn jwk() -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
}

/// Header and claims as they are, signed by it.
pub(crate) fn signed(header: &[u8], claims: &[u8]) -> String {
    let message = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let signature = crypto::sign(message.as_bytes(), &key(), Algorithm::EdDSA).unwrap();
    format!("{message}.{signature}")
}

/// Two parts of an input: what is before its first line end, and what is after.
pub(crate) fn halves(input: &[u8]) -> (&[u8], &[u8]) {
    let at = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    (&input[..at], input.get(at + 1..).unwrap_or_default())
}

/// Lines such as `Name: value`; those that no HTTP library would let through are left out.
pub(crate) fn headers(input: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n').take(100) {
        let at = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let value = line.get(at + 1..).unwrap_or_default();
        let value = HeaderValue::from_bytes(value.trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&line[..at]), value) {
            headers.append(name, value);
        }
    }
    headers
}
