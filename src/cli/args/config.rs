//! Arguments of the commands below `config` that deal with other programs' files.

use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCandidates;

use crate::cli::complete;

/// A program that has a configuration of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tool {
    /// The AWS CLI and SDKs: ~/.aws/config, or the file that AWS_CONFIG_FILE names
    Aws,
}

/// Let another program get its credentials here
///
/// Writes the profiles into that program's configuration, between two comments. What
/// is outside of these is never touched. The change is shown first.
#[derive(Args, Debug)]
pub(crate) struct Install {
    /// The program
    pub tool: Tool,
    /// Write this profile only (repeatable) [default: all that yield such credentials]
    #[arg(long, value_name = "NAME", add = ArgValueCandidates::new(complete::profiles))]
    pub profile: Vec<String>,
    /// Take out what was written
    #[arg(long, conflicts_with = "profile")]
    pub undo: bool,
    /// Change the file without asking
    #[arg(long, short)]
    pub yes: bool,
}
