//! Fuzzing: what must hold for whatever a stranger sends.
//!
//! A target is a test in a module `fuzz` beside what it is about, so that it reaches all
//! that is private there, and nothing is public for its sake. It names its inputs, which
//! are in `tests/fuzz/NAME`, and says what has to hold. In the suite it is tried with
//! those inputs and with changes to them, always the same; `tests/run fuzz` builds the
//! tests so that libFuzzer looks for inputs that lead elsewhere.

use std::panic::RefUnwindSafe;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::datetime;

/// The time of all targets.
pub(crate) const NOW: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);

/// How many changes of each input are tried in the suite.
const CHANGES: u64 = 48;

/// Inputs are no longer than what any parser looks at, and a bit.
const MAX_INPUT: usize = 70_000;

/// Tries a property with the inputs of a target, and with `more`. It panics where it does
/// not hold.
pub(crate) fn hold(
    target: &str,
    more: impl IntoIterator<Item = Vec<u8>>,
    property: impl Fn(&[u8]) + RefUnwindSafe + Send + Sync + 'static,
) {
    let mut inputs: Vec<_> = more.into_iter().collect();
    inputs.extend(committed(target));
    assert!(!inputs.is_empty(), "there are no inputs for the target {target}");
    #[cfg(fuzzing)]
    campaign::run(target, &inputs, property);
    #[cfg(not(fuzzing))]
    for input in &inputs {
        tried(target, input, &property);
        let mut random = Random::of(target, input);
        for _ in 0..CHANGES {
            tried(target, &random.changed(input, &inputs), &property);
        }
    }
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

/// Says with what it failed, so that it can be kept.
fn tried(target: &str, input: &[u8], property: &(impl Fn(&[u8]) + RefUnwindSafe)) {
    if let Err(panic) = std::panic::catch_unwind(|| property(input)) {
        let shown = String::from_utf8_lossy(input);
        tracing::error!(target, "does not hold for {shown:?}");
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        panic!("{target} does not hold for {shown:?}: {}", said.unwrap_or_default());
    }
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

#[cfg(fuzzing)]
mod campaign {
    //! libFuzzer, which the build links in.

    use std::ffi::{CString, c_char, c_int};
    use std::sync::OnceLock;

    use super::MAX_INPUT;

    static PROPERTY: OnceLock<Box<dyn Fn(&[u8]) + Send + Sync>> = OnceLock::new();

    unsafe extern "C" {
        /// <https://llvm.org/docs/LibFuzzer.html#using-libfuzzer-as-a-library>
        fn LLVMFuzzerRunDriver(
            count: *mut c_int,
            arguments: *mut *mut *mut c_char,
            try_one: extern "C" fn(*const u8, usize) -> c_int,
        ) -> c_int;
    }

    /// Looks for an input with which a property does not hold, as the variable
    /// `TMPCRED_FUZZ` says: a directory for inputs, and arguments of libFuzzer.
    #[expect(clippy::disallowed_methods, reason = "a campaign is told by its environment")]
    pub(super) fn run(
        target: &str,
        inputs: &[Vec<u8>],
        property: impl Fn(&[u8]) + Send + Sync + 'static,
    ) {
        let told = std::env::var("TMPCRED_FUZZ").expect("tests/run fuzz sets TMPCRED_FUZZ");
        let mut told = told.split_whitespace();
        let corpus = told.next().expect("TMPCRED_FUZZ begins with a directory");
        for (number, input) in inputs.iter().enumerate() {
            std::fs::write(format!("{corpus}/seed-{number}"), input).unwrap();
        }
        assert!(PROPERTY.set(Box::new(property)).is_ok(), "one target at a time");
        let longest = format!("-max_len={MAX_INPUT}");
        let arguments = [target, corpus, &longest].into_iter().chain(told);
        let arguments: Vec<_> = arguments.map(|text| CString::new(text).unwrap()).collect();
        let mut pointers: Vec<_> = arguments.iter().map(|text| text.as_ptr().cast_mut()).collect();
        pointers.push(std::ptr::null_mut());
        let (mut count, mut pointers) =
            (c_int::try_from(arguments.len()).unwrap(), pointers.as_mut_ptr());
        #[expect(unsafe_code, reason = "there is no libFuzzer but this")]
        // SAFETY: both pointers are to as many texts as the count says, which outlive the call.
        let code = unsafe { LLVMFuzzerRunDriver(&raw mut count, &raw mut pointers, try_one) };
        assert_eq!(code, 0, "{target} does not hold");
    }

    #[expect(clippy::disallowed_methods, reason = "libFuzzer keeps what ends the process")]
    extern "C" fn try_one(data: *const u8, size: usize) -> c_int {
        #[expect(unsafe_code, reason = "libFuzzer hands over a pointer and a size")]
        // SAFETY: that is what libFuzzer promises of them; of nothing the pointer may be null.
        let input =
            if size == 0 { &[][..] } else { unsafe { std::slice::from_raw_parts(data, size) } };
        let property = PROPERTY.get().expect("it is set before anything is tried");
        let tried = std::panic::AssertUnwindSafe(|| property(input));
        if std::panic::catch_unwind(tried).is_err() {
            std::process::abort();
        }
        0
    }
}
