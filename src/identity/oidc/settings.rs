//! What the configuration says of an OpenID provider.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::super::login::{Flow, Redirect, RedirectHost};
use crate::oidc::Issuer;

/// An OpenID provider at which people log in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The provider's issuer identifier, exactly as it has it in its tokens.
    pub issuer: Issuer,
    /// The name under which tmpcred is registered there, as a public native client.
    pub client_id: String,
    /// The scopes to ask for.
    #[serde(default = "default_scopes")]
    pub scopes: Vec<String>,
    /// How to log in.
    #[serde(default)]
    pub flow: Flow,
    /// The loopback ports that the provider allows for the redirect, tried in
    /// turn. Empty: any free port (RFC 8252 section 7.3).
    #[serde(default)]
    pub redirect_ports: Vec<u16>,
    /// The host name in the redirect address.
    #[serde(default)]
    pub redirect_host: RedirectHost,
    /// The path of the redirect address.
    #[serde(default = "default_redirect_path", deserialize_with = "redirect_path")]
    pub redirect_path: String,
    /// How to ask for an access token that is bound to the broker.
    #[serde(default)]
    pub audience_parameter: AudienceParameter,
    /// Further parameters for the login page, for providers that want them, such
    /// as `prompt = "consent"` or `access_type = "offline"`.
    #[serde(
        default,
        deserialize_with = "login_parameters",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub login_parameters: BTreeMap<String, String>,
    /// A PEM file with certificate authorities to trust besides the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

fn default_scopes() -> Vec<String> {
    ["openid", "offline_access"].map(String::from).to_vec()
}

fn default_redirect_path() -> String {
    "/callback".into()
}

fn redirect_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let path = String::deserialize(deserializer)?;
    if !path.starts_with('/') || path.contains(['?', '#']) {
        return Err(de::Error::custom(
            "the path of a redirect address starts with '/' and has neither '?' nor '#'",
        ));
    }
    Ok(path)
}

/// The parameters that are tmpcred's own to set.
const OWN_PARAMETERS: &[&str] = &[
    "audience",
    "client_id",
    "code_challenge",
    "code_challenge_method",
    "nonce",
    "redirect_uri",
    "request",
    "request_uri",
    "resource",
    "response_mode",
    "response_type",
    "scope",
    "state",
];

fn login_parameters<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let parameters = BTreeMap::<String, String>::deserialize(deserializer)?;
    match parameters.keys().find(|name| OWN_PARAMETERS.contains(&name.as_str())) {
        Some(own) => Err(de::Error::custom(format!("`{own}` is set by tmpcred itself"))),
        None => Ok(parameters),
    }
}

impl<'a> From<&'a Settings> for Redirect<'a> {
    fn from(settings: &'a Settings) -> Self {
        let Settings { redirect_host: host, redirect_ports: ports, redirect_path: path, .. } =
            settings;
        Self { host: *host, ports, path }
    }
}

impl Settings {
    /// Those of a client at a provider, of which nothing else is said.
    pub(super) fn new(issuer: Issuer, client_id: &str) -> Self {
        Self {
            issuer,
            client_id: client_id.into(),
            scopes: default_scopes(),
            flow: Flow::default(),
            redirect_ports: Vec::new(),
            redirect_host: RedirectHost::default(),
            redirect_path: default_redirect_path(),
            audience_parameter: AudienceParameter::default(),
            login_parameters: BTreeMap::new(),
            ca_file: None,
        }
    }

    /// The scopes to ask for. Without `openid` a provider does not say who
    /// logged in.
    pub(super) fn all_scopes(&self) -> Vec<String> {
        let mut scopes = self.scopes.clone();
        if !scopes.iter().any(|scope| scope == "openid") {
            scopes.insert(0, "openid".into());
        }
        scopes
    }

    /// Whether an access token is wanted as the assertion.
    pub(super) fn wants_access_token(&self) -> bool {
        self.audience_parameter != AudienceParameter::None
    }
}

/// How to ask the provider for an access token bound to an audience.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AudienceParameter {
    /// `resource` (RFC 8707). A provider that refuses it gets asked without, and
    /// the ID token is used; so it is where the provider takes no notice of it.
    #[default]
    Resource,
    /// `audience`, as some providers have it.
    Audience,
    /// Not at all: the ID token is used.
    None,
}
