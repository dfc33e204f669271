//! libFuzzer, which the build links in.

use std::ffi::{CString, c_char, c_int};
use std::sync::OnceLock;

use super::{Fate, MAX_INPUT};

static PROPERTY: OnceLock<Box<dyn Fn(&[u8]) -> Fate + Send + Sync>> = OnceLock::new();

#[expect(unsafe_code, reason = "there is no libFuzzer but this")]
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
    property: impl Fn(&[u8]) -> Fate + Send + Sync + 'static,
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
    let input = if size == 0 { &[][..] } else { unsafe { std::slice::from_raw_parts(data, size) } };
    let property = PROPERTY.get().expect("it is set before anything is tried");
    let tried = std::panic::AssertUnwindSafe(|| property(input));
    if std::panic::catch_unwind(tried).is_err() {
        std::process::abort();
    }
    0
}
