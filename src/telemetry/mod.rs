//! Logs of what is being done, for people who look for a fault.
//!
//! Secrets cannot get here: `Secret` has no form that a log could show.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::host::env::Env;

/// Starts logging to stderr, where `-v` or `TMPCRED_LOG` asks for it.
/// `TMPCRED_LOG` holds a filter such as `info` or `tmpcred=debug`.
pub fn start(verbosity: u8, env: &Env) {
    let filter = match (env.get("TMPCRED_LOG"), verbosity) {
        (Some(filter), _) => filter.to_string(),
        // A hit in the cache must not pay for a logger that nobody asked for.
        (None, 0) => return,
        (None, 1) => "tmpcred=info".into(),
        (None, _) => "tmpcred=debug".into(),
    };
    start_with(&filter);
}

/// Starts logging for a server: always, at `info` unless told otherwise.
pub fn start_server(env: &Env) {
    start_with(env.get("TMPCRED_LOG").unwrap_or("tmpcred=info"));
}

fn start_with(filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("tmpcred=info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .finish();
    // Set already where `-v` came with a server command.
    let _ = tracing::subscriber::set_global_default(subscriber);
}
