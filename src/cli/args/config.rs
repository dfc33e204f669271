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

/// What is written for another program.
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

/// What is taken over from another program.
#[derive(Args, Debug)]
pub(crate) struct Import {
    /// The program
    pub tool: Tool,
    /// Take this profile over only (repeatable) [default: all of them]
    #[arg(long, value_name = "NAME")]
    pub profile: Vec<String>,
    /// Change the file without asking
    #[arg(long, short)]
    pub yes: bool,
    /// Report as JSON; only with --yes is anything changed then
    #[arg(long)]
    pub json: bool,
}
