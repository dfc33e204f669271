//! `tmpcred config install`

use std::path::{Path, PathBuf};

use crate::cli::App;
use crate::cli::args::{Install, Tool};
use crate::cli::change::Change;
use crate::cli::prepare::{detected, planned};
use crate::config;
use crate::config::aws::{self, After, Entry};
use crate::error::{Error, ErrorKind, Result};
use crate::host::{files, process};
use crate::mint;

pub(super) fn run(app: &App, args: &Install) -> Result<()> {
    match args.tool {
        Tool::Aws => aws(app, args),
    }
}

fn aws(app: &App, args: &Install) -> Result<()> {
    let file = aws::File::config(&app.host)?;
    let in_file =
        |error: Error| error.context(format!("{} cannot be changed", file.path.display()));
    let before = file.text.as_deref();
    let after = if args.undo {
        match aws::undo(before.unwrap_or_default()).map_err(in_file)? {
            None => before.map(String::from),
            Some(After::Removed) => None,
            Some(After::Text(text)) => Some(text),
        }
    } else {
        let entries = entries(app, &args.profile)?;
        not_shadowed(app, &entries)?;
        Some(aws::install(before, &entries, &call(app)?).map_err(in_file)?)
    };
    Change { path: &file.path, before, after: after.as_deref() }.make(app, args.yes)?;
    Ok(())
}

/// The profiles to write: those that are named, or all that yield credentials of AWS. What a
/// project says counts in that project alone, and AWS's tools call from everywhere.
fn entries(app: &App, named: &[String]) -> Result<Vec<Entry>> {
    let config = config::load_without_project(&app.host)?;
    let detected = detected(&app.host, &config);
    let mut entries = Vec::new();
    let all = named.is_empty();
    let names: Vec<&String> =
        if all { config.profiles.keys().collect() } else { named.iter().collect() };
    for name in names {
        if !config.profiles.contains_key(name)
            && config::load(&app.host).is_ok_and(|here| here.profiles.contains_key(name))
        {
            return Err(Error::new(
                ErrorKind::Config,
                format!("only this project has the profile {name}"),
            )
            .because_of("AWS's tools ask for their credentials from every directory")
            .hint(format!("write the profile into {}", config.user_file.display())));
        }
        match planned(&config, &detected, name) {
            Ok(plan) if plan.target.yields_aws() => {
                let region = region(&plan.target);
                entries.push(Entry { profile: name.clone(), region });
            }
            Ok(_) if all => {}
            Ok(_) => {
                return Err(Error::new(
                    ErrorKind::Usage,
                    format!("the profile {name} yields no credentials of AWS"),
                )
                .hint("name a profile whose target has `type = \"aws\"`"));
            }
            // One that lacks something that commands say, such as a role.
            Err(error) if all => tracing::debug!(name, %error, "a profile is passed over"),
            Err(error) => return Err(error),
        }
    }
    entries.sort_by(|a, b| a.profile.cmp(&b.profile));
    entries.dedup();
    if entries.is_empty() {
        return Err(Error::new(ErrorKind::Config, "no profile yields credentials of AWS")
            .hint("write one whose target has `type = \"aws\"` or `type = \"aws-sso\"`"));
    }
    Ok(entries)
}

fn region(target: &mint::Plan) -> Option<String> {
    match target {
        mint::Plan::Aws(settings) => settings.region.as_ref().map(ToString::to_string),
        mint::Plan::AwsSso(plan) => plan.region().map(ToString::to_string),
        mint::Plan::Broker(_) => None,
    }
}

/// Refuses profiles whose keys AWS's tools would take from another file: these win over
/// a `credential_process`.
fn not_shadowed(app: &App, entries: &[Entry]) -> Result<()> {
    let (path, sections) = aws::File::sections_of_credentials(&app.host)?;
    let shadowed = |name: &String| entries.iter().any(|entry| entry.profile == *name);
    match sections.into_iter().find(|(_, name)| shadowed(name)) {
        None => Ok(()),
        Some((line, name)) => Err(Error::new(
            ErrorKind::Config,
            format!("the keys of another profile {name} would be used"),
        )
        .because_of(format!("{}, line {line}: AWS's tools look there first", path.display()))
        .hint("take that section out, or rename it; or choose with --profile what to write")),
    }
}

/// How AWS's tools are to call this program. They read the configuration that is read now,
/// also where it is not where it is usually looked for and they are started without the
/// variable that says so.
fn call(app: &App) -> Result<String> {
    let program = program(app)?;
    if app.host.env.get_os("TMPCRED_CONFIG").is_none() {
        return Ok(program);
    }
    if cfg!(windows) {
        app.host.interact.warn(
            "AWS's tools read this configuration only where TMPCRED_CONFIG is set for \
             them too",
        );
        return Ok(program);
    }
    let file = &app.host.dirs.user_config;
    let file = app.host.dirs.working.as_ref().map_or(file.clone(), |dir| dir.join(file));
    let mut variable = std::ffi::OsString::from("TMPCRED_CONFIG=");
    variable.push(&file);
    let variable = quoted(Path::new(&variable)).map_err(|error| {
        error.context("AWS's tools could not be told where the configuration is")
    })?;
    Ok(format!("/usr/bin/env {variable} {program}"))
}

/// This program as AWS's tools are to call it: by the name under which it is found, where
/// there is one, because that stays when the program is replaced by a newer one.
fn program(app: &App) -> Result<String> {
    let own = process::own_program()?;
    let same = |path: &PathBuf| {
        files::is_file(path) && files::canonical(path).ok() == files::canonical(&own).ok()
    };
    let found = app.host.env.get_os("PATH").and_then(|path| {
        let dirs = std::env::split_paths(path).filter(|dir| dir.is_absolute());
        let name = own.file_name()?.to_owned();
        dirs.map(|dir| dir.join(&name)).find(same)
    });
    quoted(found.as_deref().unwrap_or(&own))
}

/// A path as a word of a `credential_process`, which tools split into words as a shell
/// does.
fn quoted(path: &Path) -> Result<String> {
    let cannot = || {
        Error::new(ErrorKind::Config, "AWS's tools could not call tmpcred")
            .because_of(format!("the path {} has special characters", path.display()))
            .hint("put the file into a directory with a plain name")
    };
    let text = path.to_str().ok_or_else(cannot)?;
    let plain =
        |c: char| c.is_alphanumeric() || "/._-+@%=:,".contains(c) || (cfg!(windows) && c == '\\');
    if text.chars().all(plain) {
        return Ok(text.to_string());
    }
    if text.chars().all(|c| plain(c) || " ()&'~".contains(c)) {
        return Ok(format!("\"{text}\""));
    }
    Err(cannot())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_or_refused() {
        let of = |path: &str| quoted(Path::new(path)).ok();
        assert_eq!(of("/usr/bin/tmpcred").unwrap(), "/usr/bin/tmpcred");
        assert_eq!(of("/opt/my tools/tmpcred").unwrap(), "\"/opt/my tools/tmpcred\"");
        assert_eq!(of("TMPCRED_CONFIG=/a b.toml").unwrap(), "\"TMPCRED_CONFIG=/a b.toml\"");
        for bad in ["/a\"b/tmpcred", "/$HOME/tmpcred", "/a\nb/tmpcred", "/a #b/tmpcred", "/`id`/x"]
        {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
