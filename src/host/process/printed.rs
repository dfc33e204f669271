//! What a program prints that the configuration names.

use std::fmt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::output::{Ended, output};
use crate::error::{Error, ErrorKind, Result, foreign};
use crate::host::env::{ASKED_FOR, Env};
use crate::secret::Secret;

/// What every program gets, as far as it is set.
const ALWAYS: &[&str] = if cfg!(windows) {
    &["PATH", "HOME", "USERPROFILE", "SYSTEMROOT", ASKED_FOR]
} else {
    &["PATH", "HOME", ASKED_FOR]
};

/// Reads a program and its arguments: no shell reads them. The program is found through
/// PATH, or is an absolute path.
pub fn command<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let command = words(deserializer)?;
    let program = command.first().map_or("", String::as_str);
    // In the directory of a clone it would be the clone's.
    if program.contains(['/', '\\']) && !Path::new(program).is_absolute() {
        return Err(de::Error::custom(
            "the program is a bare name, found through PATH, or an absolute path",
        ));
    }
    Ok(command)
}

/// Reads a program and its arguments, wherever the program is.
pub fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let words = Vec::<String>::deserialize(deserializer)?;
    if words.first().is_none_or(String::is_empty) {
        return Err(de::Error::custom("a command has a program, and may have arguments"));
    }
    if words.iter().any(|word| word.contains('\0')) {
        return Err(de::Error::custom("a command cannot have null characters"));
    }
    Ok(words)
}

/// How long a command may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(pub Duration);

impl Limit {
    /// The longest that can be said.
    const MAX: Duration = Duration::from_secs(600);
}

impl Default for Limit {
    fn default() -> Self {
        Self(Duration::from_secs(30))
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let limit = humantime::parse_duration(&text).map_err(|cause| {
            de::Error::custom(format!("this is not a duration such as `30s` ({cause})"))
        })?;
        if limit.is_zero() || limit > Self::MAX {
            return Err(de::Error::custom("a command may take up to ten minutes, and some time"));
        }
        Ok(Self(limit))
    }
}

impl JsonSchema for Limit {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Limit".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": ["30s"] })
    }
}

/// What a command prints, such as a `token`, that is given PATH, HOME and these
/// variables: at most `max` bytes. Its words
/// are not shown but for the program: arguments may be anything.
///
/// # Errors
/// [`ErrorKind::Config`] where it cannot be started, [`ErrorKind::Unreachable`]
/// where it takes too long, [`ErrorKind::Other`] where it fails.
pub async fn printed<'a>(
    env: &Env,
    what: &str,
    words: &[String],
    variables: impl Iterator<Item = &'a str>,
    limit: Limit,
    max: usize,
) -> Result<Secret<Vec<u8>>> {
    let Ran { status, stdout, failed } = ran(env, what, words, variables, limit, max).await?;
    match status.success() {
        true => Ok(stdout),
        false => Err(failed),
    }
}

/// What a command says to a question.
#[cfg(feature = "broker")]
#[derive(Debug)]
pub enum Answer {
    /// It ended with 0.
    Yes,
    /// It ended otherwise; with what it said.
    No(Error),
}

/// With what a command ends that cannot say: `EX_TEMPFAIL` of sysexits.h.
#[cfg(feature = "broker")]
const CANNOT_SAY: i32 = 75;

/// What a command says to a question about something, such as a `ticket`. It is run, and shown,
/// as with [`printed()`].
///
/// # Errors
/// Where it did not answer: [`ErrorKind::Unreachable`] also where it says that it cannot.
#[cfg(feature = "broker")]
pub async fn answered(
    env: &Env,
    what: &str,
    words: &[String],
    limit: Limit,
    max: usize,
) -> Result<Answer> {
    let none = std::iter::empty();
    let Ran { status, failed, .. } = ran(env, what, words, none, limit, max).await?;
    match status.code() {
        Some(0) => Ok(Answer::Yes),
        // Whatever killed it, it was not asked to.
        Some(CANNOT_SAY) | None => Err(failed.of_kind(ErrorKind::Unreachable)),
        Some(_) => Ok(Answer::No(failed)),
    }
}

/// A command that has ended by itself.
struct Ran {
    status: ExitStatus,
    stdout: Secret<Vec<u8>>,
    /// The same as an error, for where it ended badly.
    failed: Error,
}

async fn ran<'a>(
    env: &Env,
    what: &str,
    words: &[String],
    variables: impl Iterator<Item = &'a str>,
    limit: Limit,
    max: usize,
) -> Result<Ran> {
    let Some((program, command)) = started(env, words, variables) else {
        return Err(Error::new(
            ErrorKind::Config,
            format!("there is no command to ask for a {what}"),
        ));
    };
    let failed = |kind| Error::new(kind, format!("{program} gives no {what}"));
    let said = |error: Error, stderr: &str| match last_words(stderr) {
        Some(words) => error.because_of(format!("it said: {words}")),
        None => error,
    };
    match output(command, limit.0, max).await {
        Err(cause) => Err(failed(ErrorKind::Config)
            .because_of("it cannot be started")
            .because(cause)
            .hint("install it, or put it on PATH")),
        Ok(Ended::TooLong(stderr)) => {
            let error = failed(ErrorKind::Unreachable)
                .because_of(format!("it did not end within {limit}, and was killed"));
            Err(said(error, &stderr))
        }
        Ok(Ended::TooMuch) => Err(failed(ErrorKind::Verification)
            .because_of(format!("it printed more than {max} bytes, and was killed"))),
        Ok(Ended::Itself { status, stdout, stderr }) => {
            let error = failed(ErrorKind::Other).because_of(format!("it ended with {status}"));
            Ok(Ran { status, stdout, failed: said(error, &stderr) })
        }
    }
}

/// Hands this to a command on its standard input, which is given PATH and HOME, and no other
/// variable; nobody looks at what it prints. It is shown as with [`printed()`].
///
/// # Errors
/// As with [`printed()`].
#[cfg(feature = "broker")]
pub async fn told(
    env: &Env,
    words: &[String],
    input: &Secret<Vec<u8>>,
    limit: Limit,
) -> Result<()> {
    /// How much it may print.
    const MOST: usize = 64 * 1024;
    let Some((program, command)) = started(env, words, std::iter::empty()) else {
        return Err(Error::new(ErrorKind::Config, "there is no command to tell"));
    };
    let failed = |kind| Error::new(kind, format!("{program} was not told"));
    let said = |error: Error, stderr: &str| match last_words(stderr) {
        Some(words) => error.because_of(format!("it said: {words}")),
        None => error,
    };
    match super::output::fed(command, input, limit.0, MOST).await {
        Err(cause) => {
            Err(failed(ErrorKind::Config).because_of("it cannot be started").because(cause))
        }
        Ok(Ended::TooLong(stderr)) => {
            let error = failed(ErrorKind::Unreachable)
                .because_of(format!("it did not end within {limit}, and was killed"));
            Err(said(error, &stderr))
        }
        Ok(Ended::TooMuch) => Err(failed(ErrorKind::Verification)
            .because_of(format!("it printed more than {MOST} bytes, and was killed"))),
        Ok(Ended::Itself { status, stderr, .. }) if !status.success() => Err(said(
            failed(ErrorKind::Other).because_of(format!("it ended with {status}")),
            &stderr,
        )),
        Ok(Ended::Itself { .. }) => Ok(()),
    }
}

/// A command that is given what each gets, and these variables; and its program.
fn started<'a, 'w>(
    env: &Env,
    words: &'w [String],
    variables: impl Iterator<Item = &'a str>,
) -> Option<(&'w str, Command)> {
    let (program, arguments) = words.split_first()?;
    let mut command = super::command(program);
    command.args(arguments).env_clear();
    for name in ALWAYS.iter().copied().chain(variables) {
        if let Some(value) = env.get_os(name) {
            command.env(name, value);
        }
    }
    Some((program, command))
}

/// The last of what a program said, which is where it says what went wrong.
fn last_words(stderr: &str) -> Option<String> {
    const MOST: usize = 280;
    let start = stderr.char_indices().rev().nth(MOST).map_or(0, |(at, _)| at);
    let words = stderr[start..].split_whitespace().collect::<Vec<_>>().join(" ");
    (!words.is_empty()).then(|| foreign(&words))
}
