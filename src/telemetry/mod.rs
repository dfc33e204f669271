//! Logs of what is being done, for people who look for a fault, and where spans go.
//!
//! Secrets cannot get here: `Secret` has no form that a log could show.

pub mod export;
mod json;
#[cfg(feature = "broker")]
mod server;
pub mod settings;

use schemars::JsonSchema;
use serde::Deserialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::JsonFields;

#[cfg(feature = "broker")]
pub use server::{LogCounts, ServerLog};

use crate::host::env::Env;

const FILTER: &str = "TMPCRED_LOG";
const INFO: &str = "tmpcred=info";

/// What a log looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Lines for people.
    #[default]
    Text,
    /// A JSON object a line, for programs.
    Json,
}

/// How the lines of a log are written.
#[derive(Clone, Copy, Debug)]
pub struct Looks {
    /// What each is.
    pub format: Format,
    /// Whether those for people have colours.
    pub colours: bool,
}

/// Starts logging to stderr, where `-v` or `TMPCRED_LOG` asks for it.
/// `TMPCRED_LOG` holds a filter such as `info` or `tmpcred=debug`.
///
/// Yields what is wrong with that filter, where something is: `-v` counts then. `colours`:
/// whether stderr is to have some.
pub fn start(verbosity: u8, env: &Env, colours: bool) -> Option<String> {
    let by_arguments = by_arguments(verbosity);
    // A hit in the cache must not pay for a logger that nobody asked for.
    if by_arguments.is_none() && env.get_os(FILTER).is_none() {
        return None;
    }
    let looks = Looks { format: Format::Text, colours };
    start_with(env, by_arguments.unwrap_or(INFO), looks, std::io::stderr)
}

/// The same for a server, which [`start`] is not for: always, at `info` unless told
/// otherwise, in this format, and by a thread of its own, for as long as what is returned is there.
#[cfg(feature = "broker")]
pub fn start_server(verbosity: u8, env: &Env, looks: Looks) -> ServerLog {
    let (log, queue) = ServerLog::to(std::io::stderr());
    let wrong = start_with(env, by_arguments(verbosity).unwrap_or(INFO), looks, queue);
    log.count_panics();
    log.with(wrong)
}

fn by_arguments(verbosity: u8) -> Option<&'static str> {
    match verbosity {
        0 => None,
        1 => Some(INFO),
        _ => Some("tmpcred=debug"),
    }
}

fn start_with(
    env: &Env,
    otherwise: &str,
    looks: Looks,
    writer: impl for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
) -> Option<String> {
    let (filter, wrong) = match filter(env) {
        Ok(filter) => (filter, None),
        Err(why) => {
            let wrong = format!("{FILTER} is no filter: {why}; logged is `{otherwise}`");
            (None, Some(wrong))
        }
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|| EnvFilter::new(otherwise)))
        // To say that a line could not be written, it would write another one, in a way that
        // panics where that cannot be written either: on a full disk whoever logs would end.
        .log_internal_errors(false)
        .with_writer(writer);
    // One per process; whoever comes second changes nothing.
    let _ = match looks.format {
        Format::Text => {
            let log = log.with_ansi(looks.colours);
            tracing::subscriber::set_global_default(log.finish())
        }
        Format::Json => {
            json::tell_of_panics();
            let log = log.with_ansi(false).fmt_fields(JsonFields::new()).event_format(json::Lines);
            tracing::subscriber::set_global_default(log.finish())
        }
    };
    wrong
}

/// The filter of the environment, or why it is none.
fn filter(env: &Env) -> Result<Option<EnvFilter>, String> {
    let Some(text) = env.get_os(FILTER) else { return Ok(None) };
    let text = text.to_str().ok_or("it is not UTF-8")?;
    let mut directives = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let directive: Directive = part.parse().map_err(|_| format!("`{part}`"))?;
        directives.push(capped(&directive));
    }
    EnvFilter::try_new(directives.join(",")).map(Some).map_err(|cause| cause.to_string())
}

/// A directive without what is not compiled in, of which the library would tell the
/// person how to change that.
fn capped(directive: &Directive) -> String {
    let text = directive.to_string();
    match text.strip_suffix("trace") {
        Some(rest) if rest.is_empty() || rest.ends_with('=') => format!("{rest}debug"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        let env = Env::from_pairs([(FILTER, text)]);
        filter(&env).map(|filter| filter.unwrap().to_string())
    }

    #[test]
    fn what_is_not_compiled_in_is_not_asked_for() {
        for (asked, got) in [
            ("trace", "debug"),
            ("TRACE", "debug"),
            ("5", "debug"),
            // A name alone is all of it.
            ("tmpcred", "tmpcred=debug"),
            ("tmpcred=trace", "tmpcred=debug"),
            ("tmpcred::trace=info", "tmpcred::trace=info"),
            ("off", "off"),
            ("info", "info"),
        ] {
            assert_eq!(read(asked).as_deref(), Ok(got), "{asked}");
        }
        let several = read("hyper=trace,tmpcred=debug").unwrap();
        assert!(several.contains("hyper=debug") && !several.contains("trace"), "{several}");
    }

    #[test]
    fn what_is_no_filter_is_named() {
        assert_eq!(read("tmpcred=loud"), Err("`tmpcred=loud`".into()));
        assert_eq!(read("info,a=b=c"), Err("`a=b=c`".into()));
        assert!(filter(&Env::from_pairs([("OTHER", "x")])).unwrap().is_none());
    }
}
