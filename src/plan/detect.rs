//! Which of the identity sources that were looked at is used.

use crate::config::diagnostic::{list, quoted};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Candidate, Readiness};

/// The one that is ready here, and why it is it. None of several is preferred to
/// another: a run must not change identity because something else was installed
/// or set.
///
/// # Errors
/// Where none is ready or several are, and where one applies but is broken: no
/// other stands in for it.
pub(super) fn choose<'a>(
    profile: &str,
    detected: &'a [Candidate],
) -> Result<(&'a Candidate, String)> {
    let failed = |message: &str| Error::new(ErrorKind::Config, message);
    for candidate in detected {
        if let Readiness::Misconfigured { why, hint } = &candidate.readiness {
            let name = quoted(&candidate.name);
            return Err(failed(&format!("the identity {name} cannot be used here"))
                .because_of(why)
                .hint(hint));
        }
    }
    let ready = |one: &&Candidate| matches!(one.readiness, Readiness::Ready(_));
    let found: Vec<_> = detected.iter().filter(ready).collect();
    let told = |error: Error, all: &[&Candidate]| {
        all.iter().fold(error, |error, one| {
            error.because_of(format!("{}: {}", quoted(&one.name), one.state().1))
        })
    };
    match found.as_slice() {
        [one] => Ok((one, format!("the only one that is ready here: {}", one.state().1))),
        [] => Err(told(
            failed("no identity can be used here"),
            &detected.iter().collect::<Vec<_>>(),
        )
        .hint("outside of CI jobs an identity has to be configured, as a table `[identity.NAME]`")
        .hint("`tmpcred config init` writes a configuration to start from")),
        [first, ..] => {
            let names = list(found.iter().map(|one| one.name.as_str())).unwrap_or_default();
            let message = format!("it is not said which identity to use: {names} are ready here");
            Err(told(failed(&message), &found).hint(format!(
                "name one: `identity = \"{}\"` in `[profile.{profile}]`, and have a table \
                 `[identity.{}]` with `type = \"{}\"`",
                first.name,
                first.name,
                first.settings.kind()
            )))
        }
    }
}
