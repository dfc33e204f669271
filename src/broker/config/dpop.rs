//! The table `[dpop]`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::oidc::Issuer;

/// The table `[dpop]`: what proofs of a key (RFC 9449) have to be like.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dpop {
    /// Whether a proof that is shown for a token needs a nonce of the broker's, which
    /// shows that it was made just now.
    #[serde(default)]
    pub nonces: Nonces,
    /// Further addresses at which callers reach the broker, as they have them in their
    /// configuration. A proof is for one of these or for `issuer`, whatever the request
    /// says of its host.
    #[serde(default)]
    pub urls: Vec<Issuer>,
}

/// Whether proofs need a nonce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Nonces {
    /// They do. Whoever has none is told one, and asks again.
    #[default]
    Required,
    /// One that is there must be good.
    Optional,
}
