//! Secrets that are a line of text: a password, or what signs.

use std::path::PathBuf;

use super::private_file;
use crate::error::{Error, ErrorKind, Result};
use crate::host::env::Env;
use crate::secret::Secret;

/// How long it may be, in bytes.
const MAX: u64 = 4096;

/// Where one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A file that nobody else can read.
    File(PathBuf),
    /// A variable of the environment.
    Variable(String),
}

impl Place {
    /// Where it is by what a configuration names; `None` where that is neither or both.
    pub(super) fn of(file: Option<&PathBuf>, variable: Option<&String>) -> Option<Self> {
        match (file, variable) {
            (Some(path), None) => Some(Self::File(path.clone())),
            (None, Some(variable)) => Some(Self::Variable(variable.clone())),
            _ => None,
        }
    }
}

/// Reads one; `what` names it, as «password».
pub(super) fn read(place: &Place, what: &str, env: &Env) -> Result<Secret<String>> {
    let path = match place {
        Place::File(path) => path,
        Place::Variable(variable) => {
            return env.get(variable).map(|text| Secret::new(text.into())).ok_or_else(|| {
                Error::new(
                    ErrorKind::Config,
                    format!("the variable {variable}, which {what}_env names, is not set"),
                )
            });
        }
    };
    let name = format!("the {what} file {}", path.display());
    let bytes = private_file::read(path, MAX, &name, env)?
        .ok_or_else(|| Error::new(ErrorKind::Config, format!("{name} does not exist")))?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Error::new(ErrorKind::Config, format!("{name} does not hold text")))?;
    Ok(Secret::new(text.trim_end_matches(['\r', '\n']).into()))
}
