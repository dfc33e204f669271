//! The identity source `command`: a token that a program prints, such as
//! `gcloud auth print-identity-token`.
//!
//! The command is an argument vector; no shell reads it. It gets `PATH`, `HOME`
//! and the variables that are named, and nothing else.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::job::job;
use super::token::{Given, MAX_BYTES};
use super::{Context, Fact, IdentitySource, Readiness};
use crate::credential::{Assertion, Caller};
use crate::error::{Error, ErrorKind, Result, foreign};
use crate::host::Host;
use crate::host::env::ASKED_FOR;
use crate::host::files;
use crate::host::process::output::{Ended, output};
use crate::host::process;
use crate::host::surroundings::Surroundings;
use crate::secret::Secret;

/// What every command gets, as far as it is set.
const ALWAYS: &[&str] = if cfg!(windows) {
    &["PATH", "HOME", "USERPROFILE", "SYSTEMROOT", ASKED_FOR]
} else {
    &["PATH", "HOME", ASKED_FOR]
};

/// What stands for the audience among the arguments.
const AUDIENCE: &str = "{audience}";

/// A command that prints a token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The program and its arguments, in which `{audience}` stands for whom the
    /// token has to be for. The program is a bare name, found through PATH, or an
    /// absolute path.
    #[serde(deserialize_with = "command")]
    pub command: Vec<String>,
    /// The variables that it gets besides PATH and HOME.
    #[serde(default)]
    pub variables: Vec<String>,
    /// How long it may take.
    #[serde(default)]
    pub limit: Limit,
}

fn command<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let command = Vec::<String>::deserialize(deserializer)?;
    let Some(program) = command.first().filter(|program| !program.is_empty()) else {
        return Err(de::Error::custom("a command has a program, and may have arguments"));
    };
    if command.iter().any(|word| word.contains('\0')) {
        return Err(de::Error::custom("a command cannot have null characters"));
    }
    // In the directory of a clone it would be the clone's.
    if program.contains(['/', '\\']) && !Path::new(program).is_absolute() {
        return Err(de::Error::custom(
            "the program is a bare name, found through PATH, or an absolute path",
        ));
    }
    Ok(command)
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

#[async_trait(?Send)]
impl IdentitySource for Settings {
    fn readiness(&self, _: &Host) -> Readiness {
        let program = self.command.first().map_or("", String::as_str);
        if Path::new(program).is_absolute() && !files::is_file(program) {
            return Readiness::Misconfigured {
                why: format!("there is no program {program}"),
                hint: "correct `command` in the configuration".into(),
            };
        }
        Readiness::Ready(format!("{program} is to be asked"))
    }

    fn explain(&self, _: &Surroundings) -> Vec<Fact> {
        vec![Fact {
            what: "assertion",
            value: format!("what {} prints", self.command.join(" ")),
            why: format!("asked anew for each mint; it may take {}", self.limit),
        }]
    }

    /// The command is not run to know whom it is for. Another value of a variable
    /// that it gets makes another caller.
    fn caller(&self, cx: Context<'_>) -> Result<Option<Caller>> {
        let env = &cx.host.env;
        let program = self.command.first().map_or("", String::as_str);
        let job = job(env, &format!("with the token of {program}"));
        let variables = self.variables.iter().map(String::as_str).chain(["HOME"]);
        let job = variables.fold(job, |job, name| match env.get_os(name) {
            Some(value) => job.with(name, value.as_encoded_bytes()),
            None => job,
        });
        Ok(Some(Caller::job(job)))
    }

    async fn assertion(&self, cx: Context<'_>, audience: &str) -> Result<Assertion> {
        let words: Vec<_> =
            self.command.iter().map(|word| word.replace(AUDIENCE, audience)).collect();
        let variables = self.variables.iter().map(String::as_str);
        let printed = printed(cx.host, &words, variables, self.limit).await?;
        let program = words.first().map_or("", String::as_str);
        let given = Given::from_bytes(&printed, format!("the token of {program}"))?;
        given.assertion(
            cx.host,
            audience,
            "let the command ask for this audience: `{audience}` stands for it among its arguments",
        )
    }
}

/// What a command prints that is given PATH, HOME and these variables. Its words
/// are not shown but for the program: arguments may be anything.
///
/// # Errors
/// [`ErrorKind::Config`] where it cannot be started, [`ErrorKind::Unreachable`]
/// where it takes too long, [`ErrorKind::Other`] where it fails.
pub(super) async fn printed<'a>(
    host: &Host,
    words: &[String],
    variables: impl Iterator<Item = &'a str>,
    limit: Limit,
) -> Result<Secret<Vec<u8>>> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(Error::new(ErrorKind::Config, "there is no command to ask for a token"));
    };
    let mut command = process::command(program);
    command.args(arguments).env_clear();
    for name in ALWAYS.iter().copied().chain(variables) {
        if let Some(value) = host.env.get_os(name) {
            command.env(name, value);
        }
    }
    let failed = |kind| Error::new(kind, format!("{program} gives no token"));
    let said = |error: Error, stderr: &str| match last_words(stderr) {
        Some(words) => error.because_of(format!("it said: {words}")),
        None => error,
    };
    match output(command, limit.0, MAX_BYTES).await {
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
            .because_of(format!("it printed more than {MAX_BYTES} bytes, and was killed"))),
        Ok(Ended::Itself { status, stderr, .. }) if !status.success() => {
            Err(said(failed(ErrorKind::Other).because_of(format!("it ended with {status}")), &stderr))
        }
        Ok(Ended::Itself { stdout, .. }) => Ok(stdout),
    }
}

/// The last of what a program said, which is where it says what went wrong.
fn last_words(stderr: &str) -> Option<String> {
    const MOST: usize = 280;
    let start = stderr.char_indices().rev().nth(MOST).map_or(0, |(at, _)| at);
    let words = stderr[start..].split_whitespace().collect::<Vec<_>>().join(" ");
    (!words.is_empty()).then(|| foreign(&words))
}
