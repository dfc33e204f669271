//! The arguments of `tmpcred broker notify`.

use clap::{Args, Subcommand};

use super::broker::BrokerFile;

/// Look at what people are told, and try a channel
#[derive(Args, Debug)]
pub(crate) struct BrokerNotify {
    /// What to do.
    #[command(subcommand)]
    pub command: NotifyCommand,
}

/// The commands below `broker notify`.
#[derive(Debug, Subcommand)]
pub(crate) enum NotifyCommand {
    /// Send a test message on a channel, now, and say what came of it
    Test(NotifyTest),
    /// List what has not been delivered, and why; the broker may be running
    List(NotifyList),
}

/// Which channel is tried.
#[derive(Args, Debug)]
pub(crate) struct NotifyTest {
    /// The channel, by the name of its `[notify.NAME]`
    #[arg(value_name = "CHANNEL")]
    pub channel: String,
    /// The broker's configuration.
    #[command(flatten)]
    pub of: BrokerFile,
    /// Also to this person, by their name in the directory
    #[arg(long = "person", value_name = "NAME")]
    pub people: Vec<String>,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
}

/// What is listed.
#[derive(Args, Debug)]
pub(crate) struct NotifyList {
    /// The broker's configuration.
    #[command(flatten)]
    pub of: BrokerFile,
    /// The oldest so many
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    pub limit: u32,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
}
