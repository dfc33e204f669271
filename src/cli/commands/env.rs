//! `tmpcred env`

use std::path::{Path, PathBuf};

use crate::cli::App;
use crate::cli::args::Env;
use crate::cli::hide::{Hiding, hide, must_hide};
use crate::cli::misuse;
use crate::cli::prepare::prepare;
use crate::deliver::Handout;
use crate::deliver::env::Format;
use crate::deliver::hide::Platform;
use crate::error::{Error, ErrorKind, Result};
use crate::host::files;

pub(super) fn run(app: &App, args: &Env) -> Result<()> {
    // Nothing is minted for a shell that is not known.
    let format = match &args.format {
        Some(name) => {
            Format::named(name).ok_or_else(|| misuse(format!("there is no format '{name}'")))?
        }
        None => Format::from_shell(&app.host.env)?,
    };
    let file = later_steps(app, format, args.for_later_steps)?;
    let prepared = prepare(app, &args.wanted)?;
    prepared.can_be_handed_on()?;
    let credential = prepared.credential(&args.fresh)?;
    let handout = prepared.handout(&credential);
    let text = format.render(&handout)?;
    let Some(file) = file else {
        hide(app, &handout, Hiding::Printed)?;
        return app.ui.secret(&text);
    };
    must_hide(app, &handout)?;
    files::append_lines(&file, text.expose().as_bytes())?;
    tell_of_rivals(app, &handout)?;
    Ok(())
}

/// The file by which the job's later steps get the variables, where that is what was
/// asked for.
fn later_steps(app: &App, format: Format, wanted: bool) -> Result<Option<PathBuf>> {
    let Some(variable) = format.file() else {
        return if wanted {
            Err(misuse(format!("--for-later-steps does not go with the format {}", format.name()))
                .hint("use --format github"))
        } else {
            Ok(None)
        };
    };
    if !wanted {
        return Err(misuse(format!("--format {} needs --for-later-steps", format.name()))
            .because_of(
                "every later step of the job gets the credential, and so do the actions of others that it uses",
            )
            .hint("to give it to one command, use: tmpcred exec -- COMMAND")
            .hint("where that is what you want, add --for-later-steps"));
    }
    let no_job =
        |why: String| Error::new(ErrorKind::Usage, "there are no later steps here").because_of(why);
    if Platform::of(&app.host.env) != Some(Platform::Github) {
        return Err(no_job("this is no job of GitHub Actions: GITHUB_ACTIONS is not set".into()));
    }
    let Some(file) = app.host.env.get_os(variable) else {
        return Err(no_job(format!("{variable} is not set"))
            .hint("in a container of your own, pass the variable and the file that it names"));
    };
    let file = Path::new(file);
    if !files::is_file(file) {
        return Err(no_job(format!("{variable} names no file: {}", file.display())));
    }
    Ok(Some(file.to_path_buf()))
}

/// What would contradict the credential stays: the file cannot remove a variable.
fn tell_of_rivals(app: &App, handout: &Handout<'_>) -> Result<()> {
    let stale = handout.stale()?;
    let set: Vec<&str> = stale
        .iter()
        .map(String::as_str)
        .filter(|name| app.host.env.get_os(name).is_some())
        .collect();
    if !set.is_empty() {
        app.host.interact.warn(&format!(
            "later steps still have {}, which may win over the credential: nothing can remove a variable for them",
            set.join(", ")
        ));
    }
    Ok(())
}
