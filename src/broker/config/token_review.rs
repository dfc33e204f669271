//! The table `[trusted_issuer.NAME.token_review]`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use crate::error::Result;

/// The table `token_review` of a trusted issuer: a Kubernetes API server is asked about
/// each of its tokens, in place of any keys.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenReview {
    /// The address of the API server, such as `https://10.96.0.1`.
    pub server: Url,
    /// A file with the token by which the API server knows the broker. It is read for each
    /// review, since the cluster changes it.
    pub token_file: PathBuf,
}

impl TokenReview {
    pub(super) fn check(&self) -> Result<()> {
        crate::host::http::require_secure(&self.server)
    }
}
