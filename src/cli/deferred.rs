//! Commands whose arguments are described only when they are asked for.
//!
//! Describing all commands costs more than anything else that a run from the cache
//! does, and a run needs only one of them. Help, man pages and completions, which
//! show several, have them described too.

use std::ops::Deref;

use clap::error::Result;
use clap::{ArgMatches, Args, Command, FromArgMatches, Id};

/// The arguments of a command, described once the command is known to be meant.
#[derive(Debug)]
pub(crate) struct Deferred<T>(
    /// The arguments.
    pub T,
);

impl<T> Deref for Deferred<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Args> FromArgMatches for Deferred<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self> {
        T::from_arg_matches(matches).map(Self)
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self> {
        T::from_arg_matches_mut(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<()> {
        self.0.update_from_arg_matches(matches)
    }

    fn update_from_arg_matches_mut(&mut self, matches: &mut ArgMatches) -> Result<()> {
        self.0.update_from_arg_matches_mut(matches)
    }
}

impl<T: Args> Args for Deferred<T> {
    fn augment_args(command: Command) -> Command {
        command.defer(|command| globals_last(command, T::augment_args))
    }

    fn augment_args_for_update(command: Command) -> Command {
        command.defer(|command| globals_last(command, T::augment_args_for_update))
    }

    fn group_id() -> Option<Id> {
        T::group_id()
    }
}

/// By the time that a command is described, it has the options of every command
/// already. Help shows options in the order of the description.
fn globals_last(command: Command, augment: fn(Command) -> Command) -> Command {
    let globals: Vec<Id> = command.get_arguments().map(|arg| arg.get_id().clone()).collect();
    // This takes an argument out and puts it in again, behind the others.
    globals.iter().fold(augment(command), |command, id| command.mut_arg(id, |arg| arg))
}
