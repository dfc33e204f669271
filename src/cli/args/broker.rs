//! The arguments of `tmpcred broker`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

/// The broker that decides who may have which role
#[derive(Args, Debug)]
pub(crate) struct Broker {
    /// What to do.
    #[command(subcommand)]
    pub command: BrokerCommand,
}

/// The commands below `broker`.
#[derive(Debug, Subcommand)]
pub(crate) enum BrokerCommand {
    /// Run the broker
    Serve {
        /// The broker's own configuration file
        #[arg(long = "config", value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Run a broker and an identity provider to try things with, on loopback
    Dev {
        /// The port [default: any free one]
        #[arg(long)]
        port: Option<u16>,
    },
}
