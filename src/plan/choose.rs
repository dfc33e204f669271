//! Which profile a run uses.

use super::{ARGUMENT, Request};
use crate::config::diagnostic::{self, Problem, quoted};
use crate::config::rules::unknown_profile;
use crate::config::{self, Config, Origin, Project, Standing};
use crate::error::{Error, ErrorKind, Result};

/// The profile that a run uses, and who says so.
pub(super) struct Choice {
    pub(super) profile: String,
    pub(super) reason: String,
}

/// The command line wins, then `TMPCRED_PROFILE`, then the project's file, then
/// `default_profile`.
pub(super) fn choose(request: &Request, config: &Config) -> Result<Choice> {
    let missing = |name: &str, origin| unknown_profile(config, name, origin);
    if let Some(name) = &request.profile {
        return match config.profiles.contains_key(name) {
            true => Ok(Choice { profile: name.clone(), reason: ARGUMENT.into() }),
            false if config.profiles.is_empty() => {
                Err(nothing_configured(config)
                    .context(format!("there is no profile {}", quoted(name))))
            }
            false => Err(missing(name, Origin::BuiltIn).without_place().into_error()),
        };
    }
    if let Some(name) = &config.environment_profile {
        return match config.profiles.contains_key(name) {
            true => {
                let reason = config::PROFILE_VARIABLE.into();
                Ok(Choice { profile: name.clone(), reason })
            }
            false => {
                Err(missing(name, Origin::variable(config::PROFILE_VARIABLE, name)).into_error())
            }
        };
    }
    match &config.project {
        Project::Refused(error) => return Err(error.clone()),
        Project::Chooses { profile: name, origin, standing } => {
            let Some(profile) = config.profiles.get(name) else {
                return Err(missing(name, origin.clone()).into_error());
            };
            if *standing != Some(Standing::Trusted) && !profile.project_selectable {
                let standing = standing.as_ref();
                return Err(not_selectable(config, name, origin, standing).into_error());
            }
            return Ok(Choice { profile: name.clone(), reason: origin.to_string() });
        }
        Project::Silent => {}
    }
    match &config.default_profile {
        Some(name) if config.profiles.contains_key(name) => {
            let reason = config.origin(&["default_profile"]).to_string();
            Ok(Choice { profile: name.clone(), reason })
        }
        Some(name) => Err(missing(name, config.origin(&["default_profile"])).into_error()),
        None => Err(nothing_chosen(config)),
    }
}

fn not_selectable(
    config: &Config,
    name: &str,
    origin: &Origin,
    standing: Option<&Standing>,
) -> Problem {
    let written = match config.origin(&["profile", name]) {
        Origin::BuiltIn => String::new(),
        origin => format!(" ({origin})"),
    };
    let (why, look) = match standing {
        Some(Standing::Changed) => (
            ", and has changed since it was trusted".into(),
            "read the file; if you trust it as it is, run `tmpcred config trust`",
        ),
        Some(Standing::OtherChanged(path)) => (
            format!(", and {}, which it names, has changed since it was trusted", path.display()),
            "read that file; if you trust it as it is, run `tmpcred config trust`",
        ),
        _ => (String::new(), "to let this one file choose it, run `tmpcred config trust`"),
    };
    let title = format!("a project may not choose the profile {}{why}", quoted(name));
    Problem::new(title, origin.clone())
        .label("this profile is not marked `project_selectable`")
        .help(format!("to use it now, name it yourself: `tmpcred exec {name} -- COMMAND`"))
        .help(format!(
            "to let every project choose it, say `project_selectable = true` in `[profile.{name}]`{written}"
        ))
        .help(look)
}

fn nothing_chosen(config: &Config) -> Error {
    if config.profiles.is_empty() {
        return nothing_configured(config);
    }
    let names = diagnostic::list(config.profiles.keys().map(String::as_str)).unwrap_or_default();
    let first = config.profiles.keys().next().map_or("NAME", String::as_str);
    Error::new(ErrorKind::Config, "no profile is named, and no default is set")
        .because_of(format!("the profiles are {names}"))
        .hint(format!("name one: `tmpcred exec {first} -- COMMAND`"))
        .hint(format!("or set `default_profile = \"{first}\"` in {}", config.user_file.display()))
}

fn nothing_configured(config: &Config) -> Error {
    let error = Error::new(ErrorKind::Config, "nothing is configured yet").because_of(format!(
        "there are no profiles, in {} or elsewhere",
        config.user_file.display()
    ));
    #[cfg(feature = "broker")]
    let error = error.hint("to see it work, without any account: `tmpcred exec --dev -- COMMAND`");
    error.hint("to start a configuration: `tmpcred config init`")
}
