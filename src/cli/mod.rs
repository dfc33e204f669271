//! The command line: arguments, commands, and what people see.

mod ahead;
mod args;
mod change;
mod commands;
mod complete;
mod deferred;
mod elevated;
mod elsewhere;
mod help;
mod hide;
mod hold;
mod onlooker;
mod parse;
mod prepare;
mod renewal;
mod show;
mod signed;
mod traced;
mod ui;

use std::ffi::OsString;
use std::path::Path;
use std::rc::Rc;

use clap::CommandFactory;
use clap_complete::CompleteEnv;

pub use crate::deliver::Outcome;
use crate::error::{Error, ErrorKind, Result, exit_code};
use crate::host::Host;
use crate::host::env::Env;
use crate::host::files;
use crate::host::process::{self, CoreLimit};
use crate::telemetry;

use args::{Cli, Command};
use traced::{Ended, Traced};
use ui::Ui;

/// What a command works with.
struct App {
    ui: Ui,
    host: Host,
    /// What the command of `exec` gets back.
    core: CoreLimit,
    /// What the run tells of itself.
    traced: Rc<Traced>,
    /// How much `-v` asks for.
    #[cfg(feature = "broker")]
    verbosity: u8,
}

/// Runs the program with these arguments, the first of which is its own name,
/// and tells how the process is to end.
pub fn run(arguments: Vec<OsString>) -> Outcome {
    // Completion scripts call the program itself; nothing else may print then.
    match CompleteEnv::with_factory(Cli::command)
        .var(complete::VARIABLE)
        .try_complete(arguments.clone(), None)
    {
        Ok(true) => return Outcome::Exited(exit_code::OK),
        Ok(false) => {}
        Err(error) => return usage(&error, false),
    }
    let is_exec = parse::is_exec(&arguments);
    let cli = match parse::parse(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, is_exec),
    };
    #[cfg(feature = "broker")]
    if matches!(cli.command, Command::Broker(_)) {
        let global = cli.global.clone();
        return process::with_room(|| go(cli, is_exec)).unwrap_or_else(|error| {
            Ui::new(&global, &Env::of_process()).error(&error);
            Outcome::Exited(error.kind().exit_code())
        });
    }
    go(cli, is_exec)
}

/// Does what the command line says.
fn go(cli: Cli, is_exec: bool) -> Outcome {
    // Before anything secret is read.
    let core = process::forbid_core_dumps();
    let env = Env::of_process();
    let mut ui = Ui::new(&cli.global, &env);
    match cli.command {
        Command::Login(_) => ui = ui.asked_for(&cli.global, &env),
        Command::CredentialProcess(_) => ui = ui.for_a_program(),
        _ => {}
    }
    // A server knows what its log looks like once it has read its configuration.
    if !cli.command.serves()
        && let Some(wrong) = telemetry::start(cli.global.verbose, &env, ui.stderr_has_colours())
    {
        ui.interact().warn(&wrong);
    }
    let traced = Rc::new(Traced::begin(&cli.command, &env));
    let outcome = traced.place().within(|| {
        host(&cli.command, env, &ui).and_then(|host| {
            let app = App {
                ui: ui.clone(),
                host,
                core,
                traced: Rc::clone(&traced),
                #[cfg(feature = "broker")]
                verbosity: cli.global.verbose,
            };
            commands::run(&app, cli.command)
        })
    });
    let outcome = outcome.unwrap_or_else(|error| {
        ui.error(&error);
        Outcome::Exited(if is_exec {
            error.kind().exec_exit_code()
        } else {
            error.kind().exit_code()
        })
    });
    traced.end(Ended::With(outcome));
    outcome
}

/// The world as this command sees it.
fn host(command: &Command, env: Env, ui: &Ui) -> Result<Host> {
    #[cfg(feature = "broker")]
    if command.is_of_a_server() {
        return Ok(Host::of_a_server(env, ui.interact()));
    }
    let _ = command;
    Host::real(env, ui.interact())
}

/// Shows help, the version, or what is wrong with the command line. With `exec`, all other
/// codes are the command's.
fn usage(error: &clap::Error, is_exec: bool) -> Outcome {
    let _ = error.print();
    Outcome::Exited(match u8::try_from(error.exit_code()).unwrap_or(exit_code::USAGE) {
        exit_code::USAGE if is_exec => ErrorKind::Usage.exec_exit_code(),
        code => code,
    })
}

/// An error about how a command was called.
fn misuse(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Usage, message)
}

/// Refuses a file that the command line names where there is none.
fn require_file(file: &Path) -> Result<()> {
    if files::is_dir(file) {
        return Err(misuse(format!("{} is a directory, where a file is wanted", file.display())));
    }
    match files::is_there(file)? {
        true => Ok(()),
        false => Err(misuse(format!("there is no file {}", file.display()))),
    }
}
