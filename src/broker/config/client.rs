//! The tables `[client.NAME]`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{Binding, algorithms};
use crate::error::{Error, ErrorKind, Result};
use crate::oidc::jwt::Algorithm;

/// A table `[client.NAME]`: a client that the broker knows by this name, which is its
/// `client_id`. Whoever comes as this client has to do what stands here.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// How it shows that it is this client.
    #[serde(default)]
    pub auth: ClientAuth,
    /// Whether it gets tokens only that are bound to a key which it proves (DPoP).
    #[serde(default)]
    pub dpop: Binding,
    /// Further clients whose tokens it may show, such as those that are shown to it: none where
    /// left out.
    #[serde(default)]
    pub tokens_of: BTreeSet<String>,
    /// Where its public keys are.
    #[serde(default, skip_serializing)]
    pub jwks_uri: Option<Url>,
    /// A file with its public keys, instead of `jwks_uri`.
    #[serde(default, skip_serializing)]
    pub jwks_file: Option<PathBuf>,
    /// The signature algorithms to accept; all with a public key where left out.
    #[serde(default, deserialize_with = "algorithms::some")]
    #[schemars(with = "Option<Vec<String>>")]
    pub algorithms: Option<Vec<Algorithm>>,
    /// A PEM file with certificate authorities to trust besides the system's when its
    /// keys are fetched.
    #[serde(default, skip_serializing)]
    pub ca_file: Option<PathBuf>,
}

/// How a client shows that it is the one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// By an assertion that it signs (RFC 7523 section 2.2).
    #[default]
    PrivateKeyJwt,
    /// Not at all: anybody can say that they are this client.
    None,
}

impl Client {
    pub(super) fn check(&self, name: &str, all: &Clients) -> Result<()> {
        let wrong =
            |why: &str| Err(Error::new(ErrorKind::Config, format!("[client.{name}] {why}")));
        let has_keys = self.jwks_uri.is_some() || self.jwks_file.is_some();
        match self.auth {
            ClientAuth::None => {
                if has_keys || self.algorithms.is_some() || self.ca_file.is_some() {
                    return wrong("has auth = \"none\", so it needs no keys");
                }
                if !self.tokens_of.is_empty() {
                    return wrong("has auth = \"none\", so anybody could show those tokens as it");
                }
                if self.dpop != Binding::Required {
                    return Err(Error::new(
                        ErrorKind::Config,
                        format!("[client.{name}] has auth = \"none\", and nothing is asked of it"),
                    )
                    .hint("set dpop = \"required\", or leave the table out"));
                }
            }
            ClientAuth::PrivateKeyJwt => {
                if self.jwks_uri.is_some() == self.jwks_file.is_some() {
                    return wrong("has to name its keys, by either jwks_uri or jwks_file");
                }
            }
        }
        if let Some(unknown) = self.tokens_of.iter().find(|other| !all.contains_key(*other)) {
            return wrong(&format!(
                "names '{unknown}' in tokens_of, and there is no [client.{unknown}]"
            ));
        }
        if let Some(url) = &self.jwks_uri {
            crate::host::http::require_secure(url)
                .map_err(|error| error.context(format!("[client.{name}] jwks_uri")))?;
        }
        Ok(())
    }

    /// Whether it shows that it is the one.
    pub fn authenticates(&self) -> bool {
        self.auth == ClientAuth::PrivateKeyJwt
    }
}

/// The clients, by their id.
pub type Clients = BTreeMap<String, Client>;
