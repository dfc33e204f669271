//! The arguments of `tmpcred console`.

use clap::Args;

use super::{Fresh, Wanted};
use crate::deliver::console;

/// Sign in to the AWS console with a profile's credential
///
/// Opens your browser, with a browser profile of its own for each profile where
/// `browser` of the table `[console]` names one that can do that. The session there ends
/// when the credential does.
#[derive(Args, Debug)]
pub(crate) struct Console {
    /// Which credential.
    #[command(flatten)]
    pub wanted: Wanted,
    /// How fresh.
    #[command(flatten)]
    pub fresh: Fresh,
    /// Print the link instead of opening it. Whoever has it is signed in: it is yours to
    /// take care of
    #[arg(long)]
    pub url: bool,
    /// The service whose page is shown first, such as s3
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub service: Option<String>,
    /// The region whose page is shown [default: that of the profile]
    #[arg(long, value_name = "REGION", value_parser = name)]
    pub region: Option<String>,
}

fn name(text: &str) -> Result<String, String> {
    console::check(text).map(|()| text.to_string())
}
