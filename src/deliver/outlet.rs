//! Where a command gets the current credential from, again and again, when its
//! credential is renewed while it runs.

use std::path::PathBuf;

use super::{TOKEN_FILE, set_path};
use crate::credential::Material;
use crate::error::Result;
use crate::secret::Secret;

/// The endpoint that AWS SDKs ask:
/// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html>.
pub const ENDPOINT_URI: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
/// What they show there. The variable that names a file with it instead is newer, and
/// not read by the AWS CLI 2.9 of Debian 12 for one.
pub const ENDPOINT_TOKEN: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN";

/// Where the current credential is.
#[derive(Clone, Debug)]
pub enum Outlet {
    /// Credentials of AWS: behind this endpoint.
    Endpoint {
        /// Its address.
        url: String,
        /// What has to be shown there.
        token: Secret<String>,
        /// Files of AWS that stand in for the user's own: variables and paths.
        files: Vec<(&'static str, PathBuf)>,
    },
    /// A token: in this file.
    File(PathBuf),
}

impl Outlet {
    /// Whether the first credential is out of the environment altogether.
    pub(super) fn is_endpoint(&self) -> bool {
        matches!(self, Self::Endpoint { .. })
    }

    /// The path of the file with the token.
    pub(super) fn file(&self) -> Result<Option<Secret<String>>> {
        match self {
            Self::Endpoint { .. } => Ok(None),
            Self::File(path) => set_path(path).map(Some),
        }
    }

    /// The variables for this kind of credential. Keys of AWS are not among them:
    /// SDKs would take them, and ask no endpoint.
    pub(super) fn variables(
        &self,
        material: &Material,
        expires_at: &str,
    ) -> Result<Vec<(&'static str, Secret<String>)>> {
        let mut variables = material.variables(expires_at);
        match self {
            Self::Endpoint { url, token, files } => {
                variables.retain(|(name, _)| name.ends_with("REGION"));
                variables.push((ENDPOINT_URI, Secret::new(url.clone())));
                variables.push((ENDPOINT_TOKEN, token.clone()));
                for (name, path) in files {
                    variables.push((name, set_path(path)?));
                }
            }
            Self::File(path) => variables.push((TOKEN_FILE, set_path(path)?)),
        }
        Ok(variables)
    }
}
