//! `tmpcred config`

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cli::App;
use crate::cli::args::{ConfigArgs, ConfigCommand};
use crate::cli::misuse;
use crate::cli::show;
use crate::cli::ui::written;
use crate::config::{self, Layer};
use crate::error::{Error, ErrorKind, Result};
use crate::host::files;

pub(super) fn run(app: &App, args: &ConfigArgs) -> Result<()> {
    match &args.command {
        ConfigCommand::Init => init(app),
        ConfigCommand::Path { json } => path(app, *json),
        ConfigCommand::Check { json } => check(app, *json),
        ConfigCommand::Schema => app.ui.json(&config::schema()),
        ConfigCommand::Import(args) => super::config_import::run(app, args),
        ConfigCommand::Install(args) => super::config_install::run(app, args),
        ConfigCommand::Trust { file } => trust(app, file.as_deref()),
        ConfigCommand::Untrust { file } => untrust(app, file.as_deref()),
    }
}

fn init(app: &App) -> Result<()> {
    let path = &app.host.dirs.user_config;
    if files::exists(path) {
        return Err(Error::new(ErrorKind::Config, format!("{} exists already", path.display()))
            .hint("nothing has been changed; check it with: tmpcred config check"));
    }
    files::write_private(path, config::EXAMPLE.as_bytes()).map_err(|error| {
        error.hint("to have it elsewhere, name a file in TMPCRED_CONFIG, for later runs too")
    })?;
    app.host.interact.note(&format!(
        "{} has been written.\nEdit it, then: tmpcred config check",
        path.display()
    ));
    Ok(())
}

/// What people call a layer.
fn layer_name(layer: Layer) -> &'static str {
    match layer {
        Layer::System => "system",
        Layer::User => "user",
        Layer::Project => "project",
    }
}

fn path(app: &App, as_json: bool) -> Result<()> {
    let layers = config::layers(&app.host);
    if as_json {
        let layers: Vec<_> = layers
            .iter()
            .map(|file| {
                json!({
                    "layer": layer_name(file.layer),
                    "path": file.path.to_string_lossy(),
                    "exists": file.exists,
                })
            })
            .collect();
        return app.ui.json(&layers);
    }
    let rows = layers.iter().map(|file| {
        let state = if file.exists { "read" } else { "not there" };
        [layer_name(file.layer).into(), file.path.display().to_string(), state.into()]
    });
    app.ui.table(["LAYER", "FILE", "STATE"], rows)?;
    app.host
        .interact
        .note("\nLater layers win. Environment variables and options win over all of them.");
    Ok(())
}

fn check(app: &App, as_json: bool) -> Result<()> {
    let config = config::check(&app.host)?;
    if as_json {
        return app.ui.json(&json!({
            "ok": true,
            "identities": config.identities.len(),
            "brokers": config.brokers.len(),
            "profiles": config.profiles.len(),
        }));
    }
    app.ui.line(format!(
        "The configuration is good: {}, {}, {}.",
        show::count(config.identities.len(), "identity", "identities"),
        show::count(config.brokers.len(), "broker", "brokers"),
        show::count(config.profiles.len(), "profile", "profiles"),
    ))
}

fn trust(app: &App, file: Option<&Path>) -> Result<()> {
    let candidate = config::Candidate::read(&app.host, &project_file(app, file)?)?;
    let path = candidate.path();
    // Whoever trusts a file should have seen it.
    if app.ui.stdout_is_terminal() {
        let lines = candidate.text().lines();
        let shown: String = lines.map(|line| format!("  {}\n", show::printable(line))).collect();
        written(write!(app.ui.out(), "{}:\n\n{shown}\n", path.display()))?;
    }
    candidate.trust(&app.host)?;
    app.host.interact.note(&format!(
        "{} is trusted as it is now{}",
        path.display(),
        with(&candidate)
    ));
    Ok(())
}

/// What goes with a project file that is trusted, for people.
fn with(candidate: &config::Candidate) -> String {
    let shown = |(path, is_there): (&Path, bool)| {
        let path = show::printable(&path.display().to_string());
        if is_there { format!("\n  {path}") } else { format!("\n  {path} (not there)") }
    };
    let files: String = candidate.files().map(shown).collect();
    match files.is_empty() {
        true => ". When it changes, it has to be trusted again.".into(),
        false => format!(
            ", with the files that it names:{files}\nWhen one of them changes, it has to be trusted again."
        ),
    }
}

fn untrust(app: &App, file: Option<&Path>) -> Result<()> {
    let path = project_file(app, file)?;
    let line = if config::untrust(&app.host, &path)? {
        "is not trusted any more"
    } else {
        "was not trusted"
    };
    app.host.interact.note(&format!("{} {line}", path.display()));
    Ok(())
}

fn project_file(app: &App, file: Option<&Path>) -> Result<PathBuf> {
    if let Some(file) = file {
        return Ok(file.to_path_buf());
    }
    config::project_file(&app.host).ok_or_else(|| {
        misuse(format!("there is no {} here or above", config::PROJECT_FILE)).hint("name the file")
    })
}
