//! The identity source `command`: a token that a program prints, such as
//! `gcloud auth print-identity-token`.
//!
//! The command is an argument vector; no shell reads it. It gets `PATH`, `HOME`
//! and the variables that are named, and nothing else.

use std::path::Path;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::job::job;
use super::token::{Given, MAX_BYTES};
use super::{Context, Fact, IdentitySource, Readiness};
use crate::credential::{Assertion, Caller};
use crate::error::Result;
use crate::host::Host;
use crate::host::files;
use crate::host::process::printed::{Limit, command, printed};
use crate::host::surroundings::Surroundings;

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
            // Its arguments may be anything, secrets too.
            value: format!("what {} prints", self.command.first().map_or("", String::as_str)),
            why: format!("asked anew for each mint; it may take {}", self.limit),
        }]
    }

    /// The command is not run to know whom it is for. Another value of a variable
    /// that it gets makes another caller.
    fn caller(&self, cx: Context<'_>) -> Result<Option<Caller>> {
        let env = &cx.host.env;
        let program = self.command.first().map_or("", String::as_str);
        let job = job(env, &format!("whom {program} vouches for"));
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
        let printed = printed(&cx.host.env, "token", &words, variables, self.limit, MAX_BYTES).await?;
        let program = words.first().map_or("", String::as_str);
        let given = Given::from_bytes(&printed, format!("the token of {program}"))?;
        given.assertion(
            cx.host,
            audience,
            "let the command ask for this audience: `{audience}` stands for it among its arguments",
        )
    }
}
