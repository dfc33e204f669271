//! The ways out: what becomes of a credential once there is one.
//!
//! | way out | what it does |
//! |---|---|
//! | [`exec`] | becomes the command, with the credential in its environment |
//! | [`supervisor`] | runs the command and stays beside it until it ends |
//! | [`mod@env`] | writes the variables down for a shell or a program |
//! | [`token`] | writes the bare secret |
//! | [`credential_process`] | writes AWS credentials for the AWS SDKs and CLI |
//!
//! A way out is handed a [`Handout`]: the credential and how to label it, but
//! never the configuration. All of them hand out the same variables.

pub mod credential_process;
pub mod env;
pub mod exec;
#[cfg(unix)]
mod forward;
pub mod mask;
#[cfg(unix)]
mod monitor;
mod print;
#[cfg(unix)]
mod relay;
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

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub use print::{Printed, print};

use crate::credential::Template;
use crate::credential::{Credential, Material};
use crate::error::{Error, ErrorKind, Result};
use crate::host::env::Env;
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
        let labels: [(&'static str, &str); 3] = [
            (ACTIVE_PROFILE, self.profile),
            (ROLE, &self.credential.role),
            (EXPIRES_AT, &expires_at),
        ];
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

        let mut variables = Vec::new();
        for (name, value) in labels {
            set(&mut variables, name, Secret::new(value.to_owned()))?;
        }
        for (name, value) in material.variables(&expires_at) {
            set(&mut variables, name, value)?;
        }
        for (name, template) in self.env {
            let value =
                Template::parse(template).and_then(|t| t.fill(&parts)).map_err(|cause| {
                    Error::new(
                        ErrorKind::Config,
                        format!("the variable {name} cannot be filled in"),
                    )
                    .because(cause)
                })?;
            set(&mut variables, name, value)?;
        }
        let names = self.mapped();
        if !names.is_empty() {
            set(&mut variables, MAPPED, Secret::new(names.join(" ")))?;
        }
        Ok(variables)
    }

    /// The names that this run sets and that only [`MAPPED`] tells of.
    fn mapped(&self) -> Vec<&str> {
        let own = [ACTIVE_PROFILE, ROLE, EXPIRES_AT, TOKEN];
        let by_kind = self.credential.material.variables("").into_iter().map(|(name, _)| name);
        let mut names: Vec<&str> = by_kind.filter(|name| !own.contains(name)).collect();
        names.extend(self.env.keys().map(String::as_str));
        names.sort_unstable();
        names.dedup();
        names
    }

    /// What must not be seen in the command's output: every secret part, and each
    /// value of the profile's `env` that has one in it.
    ///
    /// # Errors
    ///
    /// Those of [`Handout::variables`].
    pub fn secrets(&self) -> Result<Vec<Secret<String>>> {
        let parts = self.credential.material.parts();
        let has_part = |value: &Secret<String>| {
            parts.iter().any(|(_, part)| {
                !part.expose().is_empty() && value.expose().contains(part.expose().as_str())
            })
        };
        let values = self.variables()?.into_iter().map(|variable| variable.value);
        let values = values.filter(has_part);
        Ok(parts.iter().map(|(_, part)| (*part).clone()).chain(values).collect())
    }

    /// The variables to remove: those that another run of tmpcred may have set
    /// and that this one does not set, and those of other tools that would
    /// contradict the credential. So a run within a run hands out nothing of the
    /// outer one.
    pub fn stale(&self) -> Vec<String> {
        let set_now = [ACTIVE_PROFILE, ROLE, EXPIRES_AT];
        let set_by_kind = self.credential.material.variables("");
        let maps = !self.mapped().is_empty();
        // Of the names that an outer run left, only such that a shell could have.
        let mapped = self.environment.get(MAPPED).unwrap_or_default();
        let mapped = mapped.split(' ').filter(|name| {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            !name.is_empty()
                && name.chars().all(plain)
                && !name.starts_with(|c: char| c.is_ascii_digit())
        });
        let mut stale: Vec<String> = [ACTIVE_PROFILE, ROLE, EXPIRES_AT, TOKEN, MAPPED]
            .into_iter()
            .chain(rivals(&self.credential.material).iter().copied())
            .chain(mapped)
            .filter(|name| !set_now.contains(name))
            .filter(|name| set_by_kind.iter().all(|(set, _)| set != name))
            .filter(|name| !self.env.contains_key(*name))
            .filter(|name| *name != MAPPED || !maps)
            .map(String::from)
            .collect();
        stale.sort();
        stale.dedup();
        stale
    }
}

/// The variables by which the tools that use this kind of credential might find
/// another one of its kind.
fn rivals(material: &Material) -> &'static [&'static str] {
    match material {
        // Every tool has its own variable for bearer tokens; the profile maps it.
        Material::Bearer { .. } => &[],
        Material::Aws { .. } => AWS_RIVALS,
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
