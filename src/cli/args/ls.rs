//! The arguments of `tmpcred ls`.

use clap::Args;
use clap_complete::engine::ArgValueCandidates;

use crate::cli::complete;

/// List the profiles, or the accounts and roles that you may use
#[derive(Args, Debug)]
pub(crate) struct Ls {
    /// List the accounts and roles that your session at IAM Identity Center may use, the roles
    /// that brokers give, and the profiles that you have for them
    #[arg(long)]
    pub available: bool,
    /// Those of this identity [default: of all with `type = "aws-sso"`, and of all that ask a broker]
    #[arg(long, value_name = "NAME", requires = "available", add = ArgValueCandidates::new(complete::identities))]
    pub identity: Option<String>,
    /// Add a profile to your configuration for each role of AWS that has none, and show what is added
    #[arg(long, requires = "available", conflicts_with = "json")]
    pub write: bool,
    /// Show what `--write` would add, and write nothing
    #[arg(long, requires = "write")]
    pub dry_run: bool,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
}
