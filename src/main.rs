//! The `tmpcred` program: calls the library and ends as it says.

use std::process::ExitCode;

use tmpcred::cli::Outcome;

fn main() -> ExitCode {
    match tmpcred::cli::run(std::env::args_os().collect()) {
        Outcome::Exited(code) => ExitCode::from(code),
        Outcome::Signalled(signal) => ExitCode::from(tmpcred::host::process::die_of(signal)),
    }
}
