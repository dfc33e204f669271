//! The table `[origins]`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::broker::network::Network;
use crate::error::{Error, ErrorKind, Result};

/// The table `[origins]`: whether it is looked from where tokens are used, and what is another
/// network than the one that they were issued to.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Origins {
    /// Whether it is looked; not where all addresses are those of proxies that the broker does
    /// not know.
    pub watch: bool,
    /// How many bits of an IPv4 address are its network.
    pub ipv4_bits: u8,
    /// How many bits of an IPv6 address are its network.
    pub ipv6_bits: u8,
    /// Networks from which any token may come, such as that of a service to which callers pass
    /// theirs on.
    pub expected: Vec<Network>,
}

impl Default for Origins {
    fn default() -> Self {
        Self { watch: true, ipv4_bits: 24, ipv6_bits: 48, expected: Vec::new() }
    }
}

impl Origins {
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |why: &str| Err(Error::new(ErrorKind::Config, why));
        match (self.ipv4_bits, self.ipv6_bits) {
            (1..=32, 1..=128) => Ok(()),
            (1..=32, _) => wrong("[origins] ipv6_bits is a number from 1 to 128"),
            _ => wrong("[origins] ipv4_bits is a number from 1 to 32"),
        }
    }
}
