//! Options about renewal.

use clap::Args;
use clap::builder::BoolishValueParser;
use clap_complete::engine::ArgValueCandidates;

use crate::cli::complete;
use crate::cli::renewal::on_renewal;
use crate::deliver::renewal::OnRenewal;

/// Whether the credential is renewed while the command runs.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct Renew {
    /// Renew the credential while the command runs: AWS SDKs get an endpoint, others a
    /// file (so it is where the profile's `expected_runtime` is longer than the
    /// credential is good)
    #[arg(long, hide_possible_values = true, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new(), help_heading = "Credential")]
    pub renew: Option<bool>,
    /// Whenever it has been renewed, send the command a signal (signal:HUP) or start it
    /// again with the new credential (restart)
    #[arg(long, value_name = "ACTION", value_parser = on_renewal, add = ArgValueCandidates::new(complete::on_renewal), help_heading = "Credential")]
    pub on_renew: Option<OnRenewal>,
}
