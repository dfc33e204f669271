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

/// A variable as errors name it: what is no name of one may be the secret itself.
pub(super) fn variable_name(variable: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_name = variable.len() <= 40
        && variable.chars().all(is_part)
        && variable.starts_with(|c: char| !c.is_ascii_digit());
    if is_name {
        format!("the variable {variable}")
    } else {
        "what is no name of a variable".into()
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
                    format!("{}, which {what}_env names, is not set", variable_name(variable)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_was_written_in_the_place_of_a_name_is_not_repeated() {
        let env = Env::from_pairs::<&str, &str>([]);
        for (variable, says) in [
            ("TMPCRED_SECRET", "the variable TMPCRED_SECRET, which secret_env names, is not set"),
            ("YdWTS0hQy3A=", "what is no name of a variable, which secret_env names, is not set"),
            ("9lives", "what is no name of a variable, which secret_env names, is not set"),
        ] {
            let place = Place::Variable(variable.into());
            assert_eq!(read(&place, "secret", &env).unwrap_err().message(), says);
        }
        assert!(!variable_name(&"A".repeat(41)).contains('A'));
    }
}
