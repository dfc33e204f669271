//! From the words of the command line to what is asked.

use std::ffi::OsString;

use clap::{Args, FromArgMatches, Parser, Subcommand};

use super::args::{Cli, Command, Global};

/// Understands these arguments, the first of which is the program's own name.
///
/// # Errors
/// Help, the version, or what is wrong with the command line.
pub(super) fn parse(arguments: Vec<OsString>) -> clap::error::Result<Cli> {
    match meant(&arguments) {
        Some(cli) => Ok(cli),
        None => Cli::try_parse_from(arguments),
    }
}

/// Whether `exec` is what these arguments ask for, be they understood or not.
pub(super) fn is_exec(arguments: &[OsString]) -> bool {
    let whole = Command::augment_subcommands(clap::Command::new(""));
    let named = arguments.iter().skip(1).take_while(|word| *word != "--");
    let mut commands = named.filter_map(|word| whole.find_subcommand(word));
    commands.next().is_some_and(|command| command.get_name() == "exec")
}

/// Understands the arguments by a definition that has only the commands named in
/// them: the whole one gives every command the options of all, which takes longer
/// than a run from the cache may. It accepts nothing that the whole one does not,
/// and whatever is left of it (help, mistakes and suggestions) is for the whole one.
fn meant(arguments: &[OsString]) -> Option<Cli> {
    let whole = Command::augment_subcommands(clap::Command::new(""));
    let named = whole
        .get_subcommands()
        .filter(|command| arguments.iter().skip(1).any(|word| word == command.get_name()));
    let few = Global::augment_args(clap::Command::new("tmpcred"))
        .subcommands(named.cloned())
        .disable_help_subcommand(true);
    let mut matches = few.try_get_matches_from(arguments).ok()?;
    Cli::from_arg_matches_mut(&mut matches).ok()
}
