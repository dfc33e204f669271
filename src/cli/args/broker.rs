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
    /// List, rotate, revoke and export the keys that sign
    #[command(subcommand)]
    Keys(BrokerKeys),
}

/// The commands below `broker keys`.
#[derive(Debug, Subcommand)]
pub(crate) enum BrokerKeys {
    /// List the keys, and what state they are in
    List {
        /// The broker's configuration.
        #[command(flatten)]
        of: BrokerFile,
        /// Report as JSON
        #[arg(long)]
        json: bool,
    },
    /// Publish the next key; it signs once everybody can know it
    Rotate {
        /// The broker's configuration.
        #[command(flatten)]
        of: BrokerFile,
    },
    /// Revoke keys: what they signed is good no more, and another key signs at once
    Revoke {
        /// The keys, by their ids
        #[arg(required = true, value_name = "KID")]
        kids: Vec<String>,
        /// The broker's configuration.
        #[command(flatten)]
        of: BrokerFile,
        /// Why, for the audit log
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Write the public keys and the discovery document, for a web server in the broker's place
    Export {
        /// The directory that the web server shows at the broker's address
        #[arg(value_name = "DIRECTORY", value_hint = ValueHint::DirPath)]
        directory: PathBuf,
        /// The broker's configuration.
        #[command(flatten)]
        of: BrokerFile,
    },
}

/// Which broker.
#[derive(Args, Debug)]
pub(crate) struct BrokerFile {
    /// The broker's own configuration file
    #[arg(long = "config", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
}
