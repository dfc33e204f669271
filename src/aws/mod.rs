//! What identity sources, targets and commands know alike of AWS.
//!
//! | file | what it does |
//! |---|---|
//! | `sso` | the requests to IAM Identity Center |

pub mod sso;

use url::Url;

use crate::host::http;

/// Declares a text that was checked when it was read.
macro_rules! checked {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
        #[serde(transparent)]
        #[schemars(inline)]
        pub struct $name(String);

        impl $name {
            /// Reads one, or tells what is wrong with it.
            pub fn parse(text: &str) -> Result<Self, String> {
                $check(text)?;
                Ok(Self(text.to_string()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

pub(crate) use checked;

checked! {
    /// The number of an AWS account: twelve digits.
    AccountId, check_account
}

checked! {
    /// The code of a region, such as `eu-central-1`.
    Region, check_region
}

checked! {
    /// The address of a server: https, or http to loopback.
    EndpointUrl, check_endpoint
}

/// How the codes of regions start, and what servers' names end with, outside of the
/// partitions that share the usual one.
const SUFFIXES: &[(&str, &str)] = &[
    ("cn-", "amazonaws.com.cn"),
    ("eusc-", "amazonaws.eu"),
    ("us-iso-", "c2s.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("eu-isoe-", "cloud.adc-e.uk"),
    ("us-isof-", "csp.hci.ic.gov"),
];

impl Region {
    /// What the names of AWS's servers in this region end with, as botocore's
    /// [`partitions.json`](https://github.com/boto/botocore/blob/develop/botocore/data/partitions.json)
    /// has it.
    pub fn dns_suffix(&self) -> &'static str {
        let known = SUFFIXES.iter().find(|(start, _)| self.0.starts_with(start));
        known.map_or("amazonaws.com", |(_, suffix)| suffix)
    }
}

fn check_account(text: &str) -> Result<(), String> {
    if text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(());
    }
    Err("the number of an account has twelve digits".into())
}

fn check_region(text: &str) -> Result<(), String> {
    // It becomes part of a host's name.
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !text.is_empty() && text.len() <= 63 && text.bytes().all(legal) && !text.starts_with('-') {
        return Ok(());
    }
    Err("this is no code of a region such as `eu-central-1`".into())
}

fn check_endpoint(text: &str) -> Result<(), String> {
    let url = Url::parse(text).map_err(|cause| format!("this is no address: {cause}"))?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("the address has a query or a fragment".into());
    }
    http::require_secure(&url).map_err(|error| error.to_string())
}
