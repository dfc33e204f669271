//! The table `[log]`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::telemetry::Format;

/// The table `[log]`: what the log on standard error looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// For people, or for programs.
    #[serde(default)]
    pub format: Format,
}
