//! The ways out: what becomes of a credential once there is one.
//!
//! | way out | what it does |
//! |---|---|
//! | [`exec`] | becomes the command, with the credential in its environment |
//! | [`supervisor`] | runs the command and stays beside it until it ends |
//! | [`mod@env`] | writes the variables down for a shell or a program |
//! | [`token`] | writes the bare secret |
//! | [`proof`] | writes the headers of one request with a token that is bound |
//! | [`console`] | a sign-in link to the AWS console |
//! | [`credential_process`] | writes AWS credentials for the AWS SDKs and CLI |
//! | [`renewal`] | keeps what a command has been handed good while it runs |
//!
//! A way out is handed a [`Handout`]: the credential and how to label it, but
//! never the configuration. All of them hand out the same variables.

pub mod aws_files;
pub mod console;
pub mod credential_process;
pub mod deadline;
pub mod endpoint;
pub mod env;
pub mod exec;
#[cfg(unix)]
mod forward;
pub mod hide;
pub mod mask;
#[cfg(unix)]
mod monitor;
pub mod outlet;
mod print;
pub mod proof;
pub mod reach;
#[cfg(unix)]
mod relay;
pub mod renewal;
#[cfg(unix)]
mod screen;
#[cfg(test)]
#[cfg(unix)]
mod stage;
#[cfg(unix)]
mod stream;
pub mod supervisor;
#[cfg(unix)]
mod terminal;
mod text;
pub mod token;

use std::collections::BTreeMap;
use std::path::Path;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use aws_files::{BOTO, CONFIG, CREDENTIALS};
pub use outlet::Outlet;
pub use print::{Printed, print};

use crate::credential::{Credential, Material, TOKEN_FILE_PART, Template, TemplateError};
use crate::error::{Error, ErrorKind, Result};
use crate::host::env::{CACHE_KEY, Env};
use crate::host::process;
use crate::secret::Secret;

/// The name of the profile that a command runs under.
pub const ACTIVE_PROFILE: &str = "TMPCRED_ACTIVE_PROFILE";
/// The role that its credential is scoped to.
pub const ROLE: &str = "TMPCRED_ROLE";
/// When its credential ends: RFC 3339, UTC, whole seconds, by this machine's clock.
pub const EXPIRES_AT: &str = "TMPCRED_EXPIRES_AT";
/// The bearer token, where the credential is one.
pub const TOKEN: &str = "TMPCRED_TOKEN";

/// The file with the token that is current, where a bearer token is renewed.
pub const TOKEN_FILE: &str = "TMPCRED_TOKEN_FILE";
/// A file with a token that SDKs of AWS trade for a session of a role.
const WEB_IDENTITY: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";

/// The names of the other variables that a run has set, those of the profile's `env`
/// and those of AWS, with spaces between them, so that a run within a run can remove them.
pub const MAPPED: &str = "TMPCRED_MAPPED";

/// A credential that is to be handed out, and how to label it.
#[derive(Clone, Copy, Debug)]
pub struct Handout<'a> {
    /// What is handed out.
    pub credential: &'a Credential,
    /// The name of the profile it was minted for.
    pub profile: &'a str,
    /// The profile's own variables: names, and templates such as `Bearer {token}`.
    pub env: &'a BTreeMap<String, String>,
    /// The environment that the variables are put into.
    pub environment: &'a Env,
    /// Where the current credential can be had, when it is renewed.
    pub outlet: Option<&'a Outlet>,
}

/// A variable to be set.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Its name; neither empty nor with a `=` or a NUL in it.
    pub name: String,
    /// Its value, without a NUL.
    pub value: Secret<String>,
}

impl Handout<'_> {
    /// The variables to set, in the order in which to show them: the labels, the
    /// secrets, then those of the profile, which win over a label of that name.
    ///
    /// # Errors
    ///
    /// A template that names an unknown part, and names or values that no
    /// environment can hold.
    pub fn variables(&self) -> Result<Vec<Variable>> {
        let material = &self.credential.material;
        let expires_at = rfc3339(self.credential.lifetime.expires_at_local())?;
        let mut labels = vec![(ACTIVE_PROFILE, self.profile), (ROLE, &self.credential.role)];
        if self.tells_end() {
            labels.push((EXPIRES_AT, &expires_at));
        }
        let file = self.outlet.map(Outlet::file).transpose()?.flatten();
        let mut parts: Vec<(&'static str, &str)> = material
            .parts()
            .into_iter()
            .map(|(name, value)| (name, value.expose().as_str()))
            .collect();
        parts.extend([
            ("profile", self.profile),
            ("role", &self.credential.role),
            ("expires_at", &expires_at),
        ]);
        parts.extend(file.iter().map(|path| (TOKEN_FILE_PART, path.expose().as_str())));

        let mut variables = Vec::new();
        for (name, value) in labels {
            set(&mut variables, name, Secret::new(value.to_owned()))?;
        }
        for (name, value) in self.by_kind(&expires_at)? {
            set(&mut variables, name, value)?;
        }
        for (name, template) in self.env {
            let value =
                Template::parse(template).and_then(|t| t.fill(&parts)).map_err(|cause| {
                    let error = Error::new(
                        ErrorKind::Config,
                        format!("the variable {name} cannot be filled in"),
                    );
                    match cause {
                        TemplateError::Absent(part) if part == TOKEN_FILE_PART => error.because_of(
                            "only `tmpcred exec` has a file with a token, and renews it",
                        ),
                        cause => error.because(cause),
                    }
                })?;
            set(&mut variables, name, value)?;
        }
        let names = self.mapped()?;
        if !names.is_empty() {
            set(&mut variables, MAPPED, Secret::new(names.join(" ")))?;
        }
        Ok(variables)
    }

    /// The variables for this kind of credential.
    fn by_kind(&self, expires_at: &str) -> Result<Vec<(&'static str, Secret<String>)>> {
        let material = &self.credential.material;
        match self.outlet {
            Some(outlet) => outlet.variables(material, expires_at),
            None => Ok(material.variables(expires_at)),
        }
    }

    /// Whether the command is told when its credential ends: that of a credential
    /// which it gets anew whenever it asks would mislead it.
    fn tells_end(&self) -> bool {
        !self.outlet.is_some_and(Outlet::is_endpoint)
    }

    /// The names that this run sets and that only [`MAPPED`] tells of.
    fn mapped(&self) -> Result<Vec<&str>> {
        // Those files of AWS are as good for a run within this one.
        let own = [ACTIVE_PROFILE, ROLE, EXPIRES_AT, TOKEN, TOKEN_FILE, CONFIG, CREDENTIALS, BOTO];
        let by_kind = self.by_kind("")?.into_iter().map(|(name, _)| name);
        let mut names: Vec<&str> = by_kind.filter(|name| !own.contains(name)).collect();
        names.extend(self.env.keys().map(String::as_str));
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// What must not be seen in the command's output or in the log of a job: every
    /// secret part, each value of the profile's `env` that has one in it, and the key
    /// under which the cache is sealed.
    ///
    /// # Errors
    ///
    /// Those of [`Handout::variables`].
    pub fn secrets(&self) -> Result<Vec<Secret<String>>> {
        let mut parts: Vec<_> =
            self.credential.material.parts().into_iter().map(|(_, part)| part).collect();
        if let Some(Outlet::Endpoint { token, .. }) = self.outlet {
            parts.push(token);
        }
        let has_part = |value: &Secret<String>| {
            parts.iter().any(|part| {
                !part.expose().is_empty() && value.expose().contains(part.expose().as_str())
            })
        };
        let values = self.variables()?.into_iter().map(|variable| variable.value);
        let values = values.filter(has_part);
        let cache_key = self.environment.get(CACHE_KEY).map(|key| Secret::new(key.to_owned()));
        Ok(parts.iter().map(|part| (*part).clone()).chain(values).chain(cache_key).collect())
    }

    /// The variables to remove: those that another run of tmpcred may have set
    /// and that this one does not set, and those of other tools that would
    /// contradict the credential. So a run within a run hands out nothing of the
    /// outer one.
    ///
    /// # Errors
    ///
    /// Those of [`Handout::variables`].
    pub fn stale(&self) -> Result<Vec<String>> {
        let set_now = [ACTIVE_PROFILE, ROLE];
        let set_by_kind = self.by_kind("")?;
        let maps = !self.mapped()?.is_empty();
        // Of the names that an outer run left, only such that a shell could have.
        let mapped = self.environment.get(MAPPED).unwrap_or_default();
        let mapped = mapped.split(' ').filter(|name| {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            !name.is_empty()
                && name.chars().all(plain)
                && !name.starts_with(|c: char| c.is_ascii_digit())
        });
        let mut stale: Vec<String> = [ACTIVE_PROFILE, ROLE, EXPIRES_AT, TOKEN, TOKEN_FILE, MAPPED]
            .into_iter()
            .chain(self.rivals().iter().copied())
            .chain(mapped)
            .filter(|name| !set_now.contains(name))
            .filter(|name| *name != EXPIRES_AT || !self.tells_end())
            .filter(|name| set_by_kind.iter().all(|(set, _)| set != name))
            .filter(|name| !self.env.contains_key(*name))
            .filter(|name| *name != MAPPED || !maps)
            .map(String::from)
            .collect();
        stale.sort();
        stale.dedup();
        Ok(stale)
    }

    /// The variables by which the tools that use this kind of credential might find
    /// another one of its kind.
    fn rivals(&self) -> &'static [&'static str] {
        match self.credential.material {
            Material::Aws { .. } => AWS_RIVALS,
            Material::Bearer { .. } if self.env.contains_key(WEB_IDENTITY) => AWS_RIVALS,
            // Every tool has its own variable for bearer tokens; the profile maps it.
            Material::Bearer { .. } | Material::Bound { .. } => &[],
        }
    }
}

/// Where AWS SDKs and tools look for other credentials, or for what goes with them:
/// <https://docs.aws.amazon.com/sdkref/latest/guide/settings-reference.html>. A profile
/// named by a variable wins over keys from the environment in some of them. Not
/// `AWS_SDK_LOAD_CONFIG`, which says where settings are and names no credential.
const AWS_RIVALS: &[&str] = &[
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_CREDENTIAL_EXPIRATION",
    // Older names of the same.
    "AWS_ACCESS_KEY",
    "AWS_SECRET_KEY",
    "AWS_SECURITY_TOKEN",
    "AWS_DELEGATION_TOKEN",
    // A file with keys, of tools that were before the AWS CLI; botocore reads it.
    "AWS_CREDENTIAL_FILE",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    // The account of the credential that it stands beside.
    "AWS_ACCOUNT_ID",
];

fn set(variables: &mut Vec<Variable>, name: &str, value: Secret<String>) -> Result<()> {
    let impossible = |why: &str| {
        Error::new(ErrorKind::Config, format!("the variable {name:?} cannot be set"))
            .because_of(why)
    };
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(impossible("a name is neither empty nor has it a = or a NUL"));
    }
    if value.expose().contains('\0') {
        return Err(impossible("its value has a NUL"));
    }
    match variables.iter_mut().find(|variable| same_name(&variable.name, name)) {
        Some(variable) => variable.value = value,
        None => variables.push(Variable { name: name.to_owned(), value }),
    }
    Ok(())
}

/// A path as the value of a variable. What is not Unicode is no path of ours.
fn set_path(path: &Path) -> Result<Secret<String>> {
    path.to_str().map(|path| Secret::new(path.to_string())).ok_or_else(|| {
        Error::new(ErrorKind::Config, "a path cannot be the value of a variable")
            .because_of(format!("{} is not Unicode", path.display()))
            .hint("set XDG_RUNTIME_DIR to another directory")
    })
}

fn same_name(a: &str, b: &str) -> bool {
    if cfg!(windows) { a.eq_ignore_ascii_case(b) } else { a == b }
}

fn rfc3339(moment: OffsetDateTime) -> Result<String> {
    let seconds = moment.unix_timestamp();
    OffsetDateTime::from_unix_timestamp(seconds)
        .map_err(|cause| cause.to_string())
        .and_then(|moment| moment.format(&Rfc3339).map_err(|cause| cause.to_string()))
        .map_err(|cause| {
            Error::new(ErrorKind::Other, "the credential's expiry cannot be written down")
                .because_of(cause)
        })
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ended by itself, with this code.
    Exited(u8),
    /// This signal ended it.
    Signalled(i32),
}

impl Outcome {
    /// The exit code that tells the same. A caller that ends with it where
    /// [`process::die_of`] could be called tells less.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Signalled(signal) => process::signal_exit_code(signal),
        }
    }
}

#[cfg(test)]
mod tests;
