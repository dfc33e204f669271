//! The way out `exec`: the command, with the credential in its environment.
//!
//! The variables are the only place where the secret goes: never an argument, a
//! file or a pipe. That the environment of a child can be read by the same user
//! is the price of every tool that takes its credentials from there. The standard
//! library's copies of the variables are not wiped; `execve` does away with them,
//! and a supervisor leaves no core.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Handout, Outcome};
use crate::error::{Error, ErrorKind, Result};
use crate::host::env::CACHE_KEY;
use crate::host::files;
use crate::host::process::{self, CoreLimit};

/// Becomes the command: the same process, another program, so that nothing of
/// tmpcred stays behind. Returns only where that failed.
///
/// The command is looked for in the `PATH` that it will run with, and started
/// with the arguments as they are, byte by byte. It inherits what this process
/// was started with: working directory, open files, ignored signals and signal
/// mask; `SIGPIPE`, which Rust programs ignore, has its default action again.
/// A script without `#!` runs in `sh`, as `execvp` has it.
///
/// Systems without `execve` run the command and wait for it.
///
/// # Errors
///
/// [`ErrorKind::CommandNotFound`] and [`ErrorKind::CommandCannotRun`], besides
/// those of [`Handout::variables`].
pub fn replace(handout: &Handout<'_>, command: &[OsString], core: CoreLimit) -> Result<Outcome> {
    let mut prepared = Prepared::new(handout, command)?;
    #[cfg(unix)]
    {
        let cause = become_it(&mut prepared.command, core);
        Err(prepared.cannot_start(cause))
    }
    #[cfg(not(unix))]
    {
        let _ = core;
        prepared.run()
    }
}

/// Returns only where that failed, with everything as it was.
#[cfg(unix)]
fn become_it(command: &mut Command, core: CoreLimit) -> io::Error {
    use std::os::unix::process::CommandExt;

    use crate::host::process::signals::Action;

    // The standard library gives it the default action for the new program.
    let on_closed_pipe = Action::of(libc::SIGPIPE);
    let cause = match core.restore() {
        Ok(()) => command.exec(),
        Err(cause) => cause,
    };
    process::forbid_core_dumps();
    if let Ok(action) = on_closed_pipe {
        let _ = action.install(libc::SIGPIPE);
    }
    cause
}

/// A command that is ready to be started.
pub(super) struct Prepared {
    pub(super) command: Command,
    program: OsString,
    path: Option<OsString>,
    alone: bool,
}

impl Prepared {
    pub(super) fn new(handout: &Handout<'_>, command: &[OsString]) -> Result<Self> {
        let [program, arguments @ ..] = command else {
            return Err(Error::new(ErrorKind::Usage, "there is no command to run")
                .hint("name it after two dashes: `tmpcred exec -- COMMAND`"));
        };
        let variables = handout.variables()?;
        let mut prepared = process::command(program);
        prepared.args(arguments).env_clear().envs(handout.environment.iter());
        for name in handout.stale()? {
            prepared.env_remove(name);
        }
        prepared.env_remove(CACHE_KEY);
        for variable in &variables {
            prepared.env(&variable.name, variable.value.expose());
        }
        let path = prepared.get_envs().find(|(name, _)| *name == "PATH");
        let path = path.and_then(|(_, value)| value).map(OsStr::to_owned);
        let program = program.clone();
        Ok(Self { command: prepared, program, path, alone: arguments.is_empty() })
    }

    /// Runs the command beside this process, where nothing better is to be had.
    #[cfg(not(unix))]
    pub(super) fn run(&mut self) -> Result<Outcome> {
        let status = self.command.status().map_err(|cause| self.cannot_start(cause))?;
        // A code beyond a byte must not turn into success.
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        Ok(Outcome::Exited(code.unwrap_or(crate::error::exit_code::FAILURE)))
    }

    /// The error for a command that the system would not start.
    pub(super) fn cannot_start(&self, cause: io::Error) -> Error {
        use io::ErrorKind as Kind;
        let name = self.program.display();
        let found = self.find();
        let not_found =
            || Error::new(ErrorKind::CommandNotFound, format!("there is no command {name}"));
        let cannot_run =
            || Error::new(ErrorKind::CommandCannotRun, format!("the command {name} cannot be run"));
        match (cause.kind(), found) {
            (Kind::NotFound, Some(file)) => cannot_run()
                .because(cause)
                .hint(format!("the interpreter that {} asks for is missing", file.display())),
            (Kind::NotFound, None) => self.advise(not_found()),
            // A directory of PATH that may not be searched: no reason to think
            // that the command is there.
            (Kind::PermissionDenied, None) if !self.has_path() => self.advise(not_found()),
            (Kind::NotADirectory, _) => not_found().because(cause),
            (Kind::PermissionDenied, Some(file)) if files::is_dir(&file) => {
                cannot_run().because_of(format!("{} is a directory", file.display()))
            }
            (Kind::PermissionDenied, Some(file)) => cannot_run()
                .because(cause)
                .hint(format!("make it executable: chmod +x {}", file.display())),
            (Kind::ArgumentListTooLong, _) => cannot_run()
                .because(cause)
                .hint("arguments and environment variables share one limit; pass fewer of them"),
            (Kind::InvalidInput, _) => {
                Error::new(ErrorKind::Usage, "the command cannot be handed to the system")
                    .because(cause)
            }
            // The system's troubles, not the command's.
            (Kind::WouldBlock | Kind::OutOfMemory | Kind::QuotaExceeded, _) => {
                Error::new(ErrorKind::Io, format!("cannot start {name}")).because(cause)
            }
            _ => cannot_run().because(cause),
        }
    }

    fn advise(&self, error: Error) -> Error {
        let name = self.program.to_string_lossy();
        if self.alone && name.contains(' ') {
            error.hint("leave the quotes out: a command and its arguments are separate words")
        } else if self.has_path() {
            error.hint("there is no such file; check the spelling and the current directory")
        } else if files::exists(Path::new(&self.program)) {
            error.hint(format!("to run the file in this directory, write ./{name}"))
        } else if self.path.is_none() {
            error.hint("PATH is not set")
        } else {
            error.hint("check the spelling; it was looked for in PATH")
        }
    }

    fn has_path(&self) -> bool {
        let bytes = self.program.as_encoded_bytes();
        bytes.contains(&b'/') || (cfg!(windows) && bytes.contains(&b'\\'))
    }

    /// The file by which the system would have started the command. Only errors
    /// need it; the system searches by itself.
    fn find(&self) -> Option<PathBuf> {
        if self.program.is_empty() {
            return None;
        }
        if self.has_path() {
            return Some(PathBuf::from(&self.program)).filter(|file| files::exists(file));
        }
        // Where the C library looks when PATH is not set.
        let path = self.path.as_deref().unwrap_or(OsStr::new("/bin:/usr/bin"));
        std::env::split_paths(path)
            .map(|dir| dir.join(&self.program))
            .find(|file| files::exists(file))
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests;
