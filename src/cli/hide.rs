//! Telling a CI platform what not to show in the log of the job, before a secret is
//! handed out.

use std::time::Duration;

use crate::deliver::Handout;
use crate::deliver::hide::{Platform, REDACTOR, Telling};
use crate::error::{Error, ErrorKind, Result};
use crate::host::process::output::{Ended, fed};
use crate::host::process::{command, runtime};
use crate::host::stderr::{self, Reader};
use crate::secret::Secret;

use super::App;

/// How long a platform may take to hear of the secrets.
const LIMIT: Duration = Duration::from_secs(10);
/// How long it may take to read lines that are in its pipe already.
const READ: Duration = Duration::from_secs(1);

/// Where a secret is about to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hiding {
    /// To standard output or a file: standard error is this program's own.
    Printed,
    /// To a command that writes to the same standard error, which scripts may well keep
    /// in a file: a line with the secret in it would be what leaks it. What poses as a
    /// terminal is the log itself.
    Command,
    /// To a program that has standard error to itself, and may write it anywhere.
    Program,
}

/// Tells the platform whose job this is, if it is one. Failing is told and no more.
pub(crate) fn hide(app: &App, handout: &Handout<'_>, hiding: Hiding) -> Result<()> {
    hide_these(app, || handout.secrets(), hiding)
}

/// The same for other secrets, which are asked for only where there is somebody to tell.
pub(crate) fn hide_these(
    app: &App,
    secrets: impl FnOnce() -> Result<Vec<Secret<String>>>,
    hiding: Hiding,
) -> Result<()> {
    if let Err(error) = try_to_hide(app, secrets, hiding)? {
        app.host
            .interact
            .warn(&format!("the platform cannot be told what to hide in the job's log: {error}"));
    }
    Ok(())
}

/// The same for what must not be handed out unless it is hidden.
pub(crate) fn must_hide(app: &App, handout: &Handout<'_>) -> Result<()> {
    try_to_hide(app, || handout.secrets(), Hiding::Printed)?
}

fn try_to_hide(
    app: &App,
    secrets: impl FnOnce() -> Result<Vec<Secret<String>>>,
    hiding: Hiding,
) -> Result<Result<()>> {
    let Some(platform) = Platform::of(&app.host.env) else { return Ok(Ok(())) };
    Ok(match platform.tell(&secrets()?)? {
        None => Ok(()),
        Some(Telling::Redactor(values)) => runtime()?.block_on(redact(app, &values)),
        Some(Telling::Lines(lines)) => {
            match (stderr::reader(app.ui.stderr_is_terminal()), hiding) {
                (Reader::Terminal, Hiding::Printed | Hiding::Command)
                | (Reader::Program, Hiding::Printed) => {
                    app.ui.to_platform(&lines)?;
                    // Platforms read the two outputs apart from each other: what is
                    // printed next must not be there first.
                    stderr::wait_until_read(READ);
                    Ok(())
                }
                (Reader::Nobody, Hiding::Printed) => {
                    Err(Error::new(ErrorKind::Usage, "it reads that on standard error")
                        .because_of("standard error leads to a file, or to nobody")
                        .hint("leave standard error as the step has it"))
                }
                (_, Hiding::Command | Hiding::Program) => Ok(()),
            }
        }
    })
}

/// Hands the values to the agent of Buildkite.
async fn redact(app: &App, values: &Secret<Vec<u8>>) -> Result<()> {
    let [program, arguments @ ..] = REDACTOR;
    let mut command = command(program);
    command.args(arguments).env_clear();
    let env = &app.host.env;
    for name in env.of_platform("BUILDKITE").into_iter().chain(["PATH", "HOME"]) {
        if let Some(value) = env.get_os(name) {
            command.env(name, value);
        }
    }
    let failed = |why: String| Error::new(ErrorKind::Other, format!("{program} {why}"));
    match fed(command, values, LIMIT, MAX_SAID).await {
        Err(cause) => Err(failed("cannot be started".into()).because(cause)),
        Ok(Ended::Itself { status, .. }) if status.success() => Ok(()),
        // What it says is not shown: it was told secrets.
        Ok(Ended::Itself { status, .. }) => Err(failed(format!("ended with {status}"))),
        Ok(Ended::TooLong(_)) => Err(failed("took too long, and was killed".into())),
        Ok(Ended::TooMuch) => Err(failed("said too much, and was killed".into())),
    }
}

/// It has little to say.
const MAX_SAID: usize = 64 * 1024;
