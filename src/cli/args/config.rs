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

/// Take profiles over from another program
///
/// Reads that program's configuration and writes what it can be in yours. The
/// change is shown first, and so is what could not be taken over, and why. Long-lived
/// keys are never copied.
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
