//! The commands, one file each.

#[cfg(feature = "broker")]
mod broker;
mod completions;
mod config;
mod config_import;
mod config_install;
mod console;
mod credential_process;
pub(in crate::cli) mod elevate;
mod env;
mod exec;
mod explain;
mod inspect;
mod login;
mod logout;
mod ls;
mod man;
mod renew_ahead;
mod status;
mod token;
mod verify;

use crate::deliver::Outcome;
use crate::error::Result;

use super::App;
use super::args::Command;

/// Runs a command.
pub(crate) fn run(app: &App, command: Command) -> Result<Outcome> {
    match command {
        Command::Exec(args) => return exec::run(app, &args),
        Command::Env(args) => env::run(app, &args),
        Command::Token(args) => token::run(app, &args),
        Command::CredentialProcess(args) => credential_process::run(app, &args),
        Command::RenewAhead(args) => renew_ahead::run(app, &args),
        Command::Console(args) => console::run(app, &args),
        Command::Login(args) => login::run(app, &args),
        Command::Logout(args) => logout::run(app, &args),
        Command::Status(args) => status::run(app, &args),
        Command::Ls(args) => ls::run(app, &args),
        Command::Elevate(args) => elevate::run(app, &args),
        Command::Explain(args) => explain::run(app, &args),
        Command::Config(args) => config::run(app, &args),
        Command::Inspect(args) => inspect::run(app, &args),
        Command::Verify(args) => verify::run(app, &args),
        Command::Completions(args) => completions::run(app, &args),
        Command::Man(args) => man::run(app, &args),
        #[cfg(feature = "broker")]
        Command::Broker(args) => return broker::run(app, &args),
    }
    .map(|()| Outcome::Exited(crate::error::exit_code::OK))
}
