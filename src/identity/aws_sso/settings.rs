//! What the configuration says of an IAM Identity Center.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};
use url::Url;

use crate::aws::sso::Server;
use crate::aws::{EndpointUrl, Region};
use crate::host::http;
use crate::identity::login::Flow;

/// An IAM Identity Center at which people log in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The address of the access portal, such as `https://example.awsapps.com/start`.
    #[serde(deserialize_with = "start_url")]
    pub start_url: String,
    /// The region that the Identity Center is in.
    pub region: Region,
    /// The scopes to ask for.
    #[serde(default = "default_scopes")]
    pub scopes: Vec<String>,
    /// How to log in.
    #[serde(default)]
    pub flow: Flow,
    /// Another server that speaks the protocols of IAM Identity Center.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_url: Option<EndpointUrl>,
    /// A PEM file with certificate authorities to trust besides the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

/// What the portal wants; with it comes a refresh token.
fn default_scopes() -> Vec<String> {
    vec!["sso:account:access".into()]
}

/// Reads the address as people copy it, which often ends with `#/`.
fn start_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let text = text.split('#').next().unwrap_or_default().trim_end_matches('/');
    let url = Url::parse(text)
        .map_err(|cause| de::Error::custom(format!("this is no address: {cause}")))?;
    http::require_secure(&url).map_err(de::Error::custom)?;
    Ok(text.to_string())
}

impl Settings {
    /// The service that logs people in.
    pub(in crate::identity) fn oidc(&self) -> Server {
        Server::oidc(&self.region, self.endpoint_url.as_ref(), self.ca_file.as_ref())
    }

    /// The service that hands out what a session may have. It alone is shown the
    /// session's token.
    pub fn portal(&self) -> Server {
        Server::portal(&self.region, self.endpoint_url.as_ref(), self.ca_file.as_ref())
    }
}
