//! Puts the layers together: built-in values, the machine's file, the user's, the
//! project's, the environment.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::de::decode;
use super::diagnostic::{Problem, into_error};
use super::misfit::Misfit;
use super::model::{Config, File};
use super::project::{self, Failure, project_file};
use super::source::{Origin, Source};
use super::tree::{Node, Value};
use super::{read, rules};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::files;

/// The environment variables that set a value, and the value's path.
const VARIABLES: &[(&str, &[&str])] = &[
    ("TMPCRED_DEFAULT_PROFILE", &["default_profile"]),
    ("TMPCRED_CACHE_STORE", &["cache", "store"]),
];

/// The variable that chooses a profile.
pub(crate) const PROFILE_VARIABLE: &str = "TMPCRED_PROFILE";

/// A layer of the configuration that is a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// The machine's.
    System,
    /// The user's.
    User,
    /// The project's.
    Project,
}

/// A file that configuration is read from.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LayerFile {
    /// Which layer it is.
    pub layer: Layer,
    /// Where it is, or would be.
    pub path: PathBuf,
    /// Whether there is one.
    pub exists: bool,
}

/// The files that configuration is read from, lowest layer first. The project's
/// is named only where there is one.
pub fn layers(host: &Host) -> Vec<LayerFile> {
    let file = |layer, path: PathBuf| LayerFile { layer, exists: files::exists(&path), path };
    let mut all = vec![
        file(Layer::System, host.dirs.system_config.clone()),
        file(Layer::User, host.dirs.user_config.clone()),
    ];
    all.extend(project_file(host).map(|path| file(Layer::Project, path)));
    all
}

/// Reads the whole configuration.
///
/// # Errors
/// Of kind [`ErrorKind::Config`], with file, line, column and what may have been
/// meant; as many at once as can be told.
pub fn load(host: &Host) -> Result<Config> {
    assemble(host, true, rules::references)
}

/// The same without the project's file: what holds wherever this user is.
///
/// # Errors
/// As [`load`].
pub fn load_without_project(host: &Host) -> Result<Config> {
    assemble(host, false, rules::references)
}

/// Reads the whole configuration, and looks at every profile as if it were used:
/// one that lacks something is an error too.
pub fn check(host: &Host) -> Result<Config> {
    assemble(host, true, |config| {
        let mut problems = rules::references(config);
        problems.extend(rules::completeness(config));
        problems
    })
}

/// Takes a configuration from a text instead of files. `name` stands for the
/// file's path in errors and explanations.
pub fn parse(name: &str, text: &str) -> Result<Config> {
    let tree = Node::parse(&Source::text(name, text)).map_err(Problem::into_error)?;
    let config = build(tree, PathBuf::from(name)).map_err(into_error)?;
    settle(config, rules::references)
}

/// Reads another configuration file, such as a broker's, with errors of the same
/// quality.
///
/// A value whose key ends in `_file` is a path, relative to the file. The file
/// must not be writable by others.
pub fn read_file<T: DeserializeOwned>(path: &Path) -> Result<T> {
    read_checked(path, |value| Ok(value))
}

/// The same for what has more to it than its types say. Where the check finds something, the
/// error shows the table, or the key in it that the words name.
pub fn read_checked<T: DeserializeOwned, U>(
    path: &Path,
    check: impl FnOnce(T) -> Result<U, Misfit>,
) -> Result<U> {
    let Some(text) = read::read(path, None)? else {
        return Err(Error::new(ErrorKind::Config, "a configuration file cannot be read")
            .because_of(format!("there is no {}", path.display())));
    };
    read::require_guarded(path, text.guard)?;
    let mut tree = Node::parse(&text.source).map_err(Problem::into_error)?;
    read::resolve_paths(&mut tree, path.parent().unwrap_or(path), None);
    check(decode(&tree).map_err(into_error)?).map_err(|misfit| misfit.shown_in(&tree))
}

/// The same for a text; `name` stands for the file's path in errors.
pub fn read_str<T: DeserializeOwned>(name: &str, text: &str) -> Result<T> {
    let tree = Node::parse(&Source::text(name, text)).map_err(Problem::into_error)?;
    decode(&tree).map_err(into_error)
}

fn assemble(
    host: &Host,
    with_project: bool,
    check: impl Fn(&Config) -> Vec<Problem>,
) -> Result<Config> {
    let home = host.env.home();
    let mut tree = Node::empty();
    let mut problems = Vec::new();

    for path in [&host.dirs.system_config, &host.dirs.user_config] {
        let Some(text) = read::read(path, home)? else { continue };
        read::require_guarded(path, text.guard)?;
        match Node::parse(&text.source) {
            Ok(mut layer) => {
                let whole = host.dirs.working.as_deref().unwrap_or(Path::new("")).join(path);
                read::resolve_paths(&mut layer, whole.parent().unwrap_or(path), home);
                tree.merge(layer);
            }
            Err(problem) => problems.push(problem),
        }
    }
    if let Some(named) = host.env.get_os("TMPCRED_CONFIG")
        && !files::exists(named)
    {
        return Err(Error::new(ErrorKind::Config, "a configuration file cannot be read")
            .because_of(format!("there is no {}", Path::new(named).display()))
            .hint("TMPCRED_CONFIG names it: set it to a file that exists, or unset it"));
    }
    let project = match with_project.then(|| project::look(host, home)).transpose() {
        Ok(None) => None,
        Ok(Some(mut found)) => {
            if let Some(layer) = found.layer.take() {
                tree.merge(layer);
            }
            Some(found)
        }
        Err(Failure::Problem(problem)) => {
            problems.push(problem);
            None
        }
        Err(Failure::Error(error)) => return Err(error),
    };
    environment(host, &mut tree)?;
    if !problems.is_empty() {
        return Err(into_error(problems));
    }

    let mut config = build(tree, host.dirs.user_config.clone()).map_err(into_error)?;
    config.environment_profile = variable(host, PROFILE_VARIABLE)?.map(String::from);
    if let Some(project) = project {
        config.project = project.choose(host, &config)?;
    }
    settle(config, check)
}

fn build(tree: Node, user_file: PathBuf) -> Result<Config, Vec<Problem>> {
    let file = decode::<File>(&tree)?;
    Ok(Config::new(file, tree, user_file))
}

fn settle(config: Config, check: impl Fn(&Config) -> Vec<Problem>) -> Result<Config> {
    let problems = check(&config);
    if problems.is_empty() { Ok(config) } else { Err(into_error(problems)) }
}

fn environment(host: &Host, tree: &mut Node) -> Result<()> {
    for (name, path) in VARIABLES {
        if let Some(value) = variable(host, name)? {
            tree.set(path, Value::String(value.into()), &Origin::variable(name, value));
        }
    }
    Ok(())
}

fn variable<'a>(host: &'a Host, name: &str) -> Result<Option<&'a str>> {
    match (host.env.get(name), host.env.get_os(name)) {
        (None, Some(_)) => Err(Error::new(ErrorKind::Config, format!("{name} cannot be read"))
            .because_of("its value is not valid Unicode")),
        (value, _) => Ok(value),
    }
}
