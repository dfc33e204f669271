//! What identity sources, targets and commands know alike of AWS.
//!
//! | file | what it does |
//! |---|---|
//! | `files` | which files its tools read |
//! | `sso` | the requests to IAM Identity Center |

pub mod files;
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

/// How the codes of regions start outside of the usual partition, which partition that is,
/// and what servers' names end with there.
const PARTITIONS: &[(&str, &str, &str)] = &[
    ("cn-", "aws-cn", "amazonaws.com.cn"),
    ("us-gov-", "aws-us-gov", USUAL_SUFFIX),
    ("eusc-", "aws-eusc", "amazonaws.eu"),
    ("us-iso-", "aws-iso", "c2s.ic.gov"),
    ("us-isob-", "aws-iso-b", "sc2s.sgov.gov"),
    ("eu-isoe-", "aws-iso-e", "cloud.adc-e.uk"),
    ("us-isof-", "aws-iso-f", "csp.hci.ic.gov"),
];
const USUAL_SUFFIX: &str = "amazonaws.com";

impl Region {
    /// What the names of AWS's servers in this region end with, as botocore's
    /// [`partitions.json`](https://github.com/boto/botocore/blob/develop/botocore/data/partitions.json)
    /// has it.
    pub fn dns_suffix(&self) -> &'static str {
        self.known().map_or(USUAL_SUFFIX, |(_, _, suffix)| suffix)
    }

    /// The partition that it is in, as ARNs name it.
    pub fn partition(&self) -> &'static str {
        self.known().map_or("aws", |(_, partition, _)| partition)
    }

    fn known(&self) -> Option<&'static (&'static str, &'static str, &'static str)> {
        PARTITIONS.iter().find(|(start, ..)| self.0.starts_with(start))
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
