//! The identity source `file`: a token that somebody else puts into a file and
//! renews there, such as the kubelet (a projected service account token) or the
//! EKS webhook (`AWS_WEB_IDENTITY_TOKEN_FILE`). It is read anew for each mint.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::job::job;
use super::token::{Given, MAX_BYTES};
use super::{Context, Fact, IdentitySource, Readiness};
use crate::credential::{Assertion, Caller};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::files;
use crate::host::surroundings::Surroundings;
use crate::secret::Secret;

/// A token in a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The file that holds the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// The variable with the file's path. `token_file` wins.
    pub token_file_variable: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self { token_file: None, token_file_variable: "AWS_WEB_IDENTITY_TOKEN_FILE".into() }
    }
}

impl Settings {
    fn path<'a>(&'a self, host: &'a Host) -> Option<&'a Path> {
        let named = || host.env.get_os(&self.token_file_variable).map(Path::new);
        self.token_file.as_deref().or_else(named)
    }

    fn given(&self, host: &Host) -> Result<Given> {
        let missing = |why: String| {
            Error::new(ErrorKind::Config, "there is no token").because_of(why)
        };
        let Some(path) = self.path(host) else {
            return Err(missing(format!("{} is not set", self.token_file_variable)));
        };
        let Some(bytes) = files::read(path, MAX_BYTES as u64)? else {
            return Err(missing(format!("there is no {}", path.display())));
        };
        Given::from_bytes(&Secret::new(bytes), format!("the token in {}", path.display()))
    }
}

#[async_trait(?Send)]
impl IdentitySource for Settings {
    fn readiness(&self, host: &Host) -> Readiness {
        match self.path(host) {
            None => Readiness::Absent(format!("{} is not set", self.token_file_variable)),
            Some(path) if !files::exists(path) => {
                Readiness::Absent(format!("there is no {}", path.display()))
            }
            Some(path) if !files::is_file(path) => Readiness::Misconfigured {
                why: format!("{} is no file", path.display()),
                hint: "name the file with the token itself".into(),
            },
            Some(path) => Readiness::Ready(format!("{} is there", path.display())),
        }
    }

    fn explain(&self, _: &Surroundings) -> Vec<Fact> {
        let (value, why) = match &self.token_file {
            Some(path) => (format!("the token in {}", path.display()), "`token_file` names it"),
            None => (
                format!("the token in the file that {} names", self.token_file_variable),
                "`token_file` is not said",
            ),
        };
        vec![Fact { what: "assertion", value, why: format!("{why}; read anew for each mint") }]
    }

    fn caller(&self, cx: Context<'_>) -> Result<Option<Caller>> {
        let given = self.given(cx.host)?;
        let path = self.path(cx.host).unwrap_or(Path::new(""));
        let job = job(&cx.host.env, &format!("with the token in {}", path.display()));
        let job = given.particular(job.with("path", path.as_os_str().as_encoded_bytes()))?;
        Ok(Some(Caller::job(job).known_as(given.principal()?)))
    }

    async fn assertion(&self, cx: Context<'_>, audience: &str) -> Result<Assertion> {
        let hint = "whoever writes the file has to ask for a token for this audience; in a pod: \
                    `audience` of the projected volume's `serviceAccountToken`";
        self.given(cx.host)?.assertion(cx.host, audience, hint)
    }
}
