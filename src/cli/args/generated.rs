//! The arguments of what is generated from this definition.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueHint};

use crate::cli::complete;

/// Print a shell's completion script
#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_parser = PossibleValuesParser::new(complete::SHELLS))]
    pub shell: String,
}

/// Print or write the manual pages
#[derive(Args, Debug)]
pub(crate) struct Man {
    /// The page, such as `exec` or `config-check` [default: tmpcred itself]
    pub page: Option<String>,
    /// Write all pages into this directory
    #[arg(long, value_name = "DIR", conflicts_with = "page", value_hint = ValueHint::DirPath)]
    pub out: Option<PathBuf>,
}
