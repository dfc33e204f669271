//! The `tmpcred` program: calls the library and ends as it says.

use std::process::ExitCode;

use tmpcred::cli::Outcome;

/// That of musl asks the system for many small pieces of memory, which a short run pays
/// for, and serves many threads slowly.
#[cfg(target_env = "musl")]
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match tmpcred::cli::run(std::env::args_os().collect()) {
        Outcome::Exited(code) => ExitCode::from(code),
        Outcome::Signalled(signal) => ExitCode::from(tmpcred::host::process::die_of(signal)),
    }
}
