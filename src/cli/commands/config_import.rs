//! `tmpcred config import`

use std::collections::BTreeSet;

use serde_json::json;

use crate::cli::App;
use crate::cli::args::{Import, Tool};
use crate::cli::change::Change;
use crate::cli::prepare::{detected, planned};
use crate::config::aws::{self, Existing, Left, Taken};
use crate::config::{self, Config};
use crate::error::{Error, ErrorKind, Result};
use crate::host::dirs::Dirs;
use crate::host::{Host, files};
use crate::identity;

pub(super) fn run(app: &App, args: &Import) -> Result<()> {
    match args.tool {
        Tool::Aws => aws(app, args),
    }
}

fn aws(app: &App, args: &Import) -> Result<()> {
    let theirs = aws::File::config(&app.host)?;
    let Some(text) = &theirs.text else {
        return Err(Error::new(ErrorKind::Config, "there is nothing to import")
            .because_of(format!("there is no {}", theirs.path.display())));
    };
    let config = config::load(&app.host)?;
    let (_, keys) = aws::File::sections_of_credentials(&app.host)?;
    let keys: BTreeSet<String> = keys.into_iter().map(|(_, name)| name).collect();
    let profiles: BTreeSet<String> = config.profiles.keys().cloned().collect();
    let identities: BTreeSet<String> = config.identities.keys().cloned().collect();
    let existing = Existing {
        profiles: &profiles,
        identities: &identities,
        keys: &keys,
        kinds: identity::KINDS,
    };
    let wanted = |name: &str| args.profile.is_empty() || args.profile.iter().any(|n| n == name);
    let mut import = aws::read(text, wanted, existing)
        .map_err(|error| error.because_of(theirs.path.display().to_string()))?;
    for name in &args.profile {
        let found = import.taken.iter().any(|t| t.from == *name)
            || import.left.iter().any(|l| l.profile == *name);
        if !found {
            return Err(Error::new(ErrorKind::Usage, format!("there is no profile {name}"))
                .because_of(format!("{} does not have it", theirs.path.display())));
        }
    }
    let (taken, refused): (Vec<Taken>, Vec<Taken>) =
        import.taken.into_iter().partition(|taken| tried(app, taken).is_ok());
    import.left.extend(refused.into_iter().filter_map(|taken| {
        let because = tried(app, &taken).err()?;
        Some(Left { profile: taken.from, because })
    }));
    import.left.sort_by(|a, b| a.profile.cmp(&b.profile));

    let ours = &app.host.dirs.user_config;
    let before = files::read_text(ours, config::MAX_BYTES)?;
    let after = if taken.is_empty() { before.clone() } else { Some(joined(&before, &taken)?) };
    if let Some(after) = after.as_ref().filter(|_| !taken.is_empty()) {
        changes_nothing_else(app, &config, after)?;
    }
    if args.json {
        let written = !taken.is_empty() && args.yes;
        if written {
            let bytes = before.as_deref().map(str::as_bytes);
            files::rewrite(ours, bytes, after.as_deref().map(str::as_bytes))?;
        }
        let taken: Vec<_> = taken
            .iter()
            .map(|t| json!({ "profile": t.from, "as": t.name, "kept_there": t.kept, "lacks": t.lacks }))
            .collect();
        return app.ui.json(&json!({
            "written": written,
            "taken_over": taken,
            "not_taken_over": import.left,
        }));
    }
    report(app, &taken, &import.left)?;
    if taken.is_empty() {
        app.host.interact.note("nothing can be taken over, and nothing has been changed");
        return Ok(());
    }
    app.ui.line("")?;
    Change { path: ours, before: before.as_deref(), after: after.as_deref() }
        .make(app, args.yes)?;
    Ok(())
}

/// The configuration with these profiles behind what it has.
fn joined(before: &Option<String>, taken: &[Taken]) -> Result<String> {
    let mut text = before.clone().unwrap_or_default();
    if !text.is_empty() {
        text.push_str(if text.ends_with('\n') { "\n" } else { "\n\n" });
    }
    text.push_str(&aws::tables(taken.iter())?);
    Ok(text)
}

/// Plans a run of the profile, as if it were the only one: what it says may be something
/// that cannot be had.
fn tried(app: &App, taken: &Taken) -> Result<(), String> {
    let text = aws::tables(std::iter::once(taken)).map_err(in_one_line)?;
    let config = config::parse("what was imported", &text).map_err(in_one_line)?;
    planned(&config, &detected(&app.host, &config), &taken.name).map_err(in_one_line)?;
    Ok(())
}

/// What an error says. Of a cause that shows a place in the text, what stands at that
/// place: the text is nobody's file.
fn in_one_line(error: Error) -> String {
    let last = |cause: &String| cause.rsplit('^').next().unwrap_or(cause).trim().to_string();
    let causes = error.causes().iter().map(last);
    std::iter::once(error.message().to_string()).chain(causes).collect::<Vec<_>>().join(": ")
}

/// Refuses a configuration in which a profile that was there has another identity, or does
/// not know which: more identities are more to choose from.
fn changes_nothing_else(app: &App, before: &Config, after: &str) -> Result<()> {
    let (passing, _files) = app.host.dirs.passing()?;
    let dirs = Dirs { user_config: passing.user_config, ..app.host.dirs.clone() };
    files::write_private(&dirs.user_config, after.as_bytes())?;
    let host = Host { dirs, ..app.host.clone() };
    let after = config::load(&host)?;
    let (sources, sources_after) = (detected(&app.host, before), detected(&host, &after));
    for name in before.profiles.keys() {
        let Ok(was) = planned(before, &sources, name) else { continue };
        let is = planned(&after, &sources_after, name).map(|plan| plan.identity.name);
        if is.as_ref().ok() != Some(&was.identity.name) {
            return Err(Error::new(
                ErrorKind::Config,
                "with more identities, a profile would not have its own any more",
            )
            .because_of(format!(
                "the profile {name} uses {}, and does not say so",
                was.identity.name
            ))
            .hint(format!("write `identity = \"{}\"` into it, and try again", was.identity.name)));
        }
    }
    Ok(())
}

fn report(app: &App, taken: &[Taken], left: &[Left]) -> Result<()> {
    let good = taken.iter().map(|t| {
        let name = if t.name == t.from { String::new() } else { format!("as {}; ", t.name) };
        let all = if t.lacks.is_empty() { "all that" } else { "what" };
        let lacks = match &t.lacks[..] {
            [] => String::new(),
            lacks => format!(", but without {}", lacks.join(", ")),
        };
        let kept = match &t.kept[..] {
            [] => String::new(),
            kept => format!("; AWS's tools keep {}", kept.join(", ")),
        };
        let what = format!("{name}{all} it says of credentials{lacks}{kept}");
        [t.from.clone(), "taken over".into(), what]
    });
    let bad = left.iter().map(|l| [l.profile.clone(), "not taken over".into(), l.because.clone()]);
    app.ui.table(["PROFILE", "", "WHAT, OR WHY NOT"], good.chain(bad))
}
