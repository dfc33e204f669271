//! The project's own file, `.tmpcred.toml`.
//!
//! Anybody can put one into a repository. So it may only choose among profiles
//! that the person has marked `project_selectable`, unless the person has
//! trusted that very file.

use std::path::{Path, PathBuf};

use super::diagnostic::{Problem, quoted};
use super::model::{Config, Project};
use super::read::{self, Text};
use super::source::Origin;
use super::tree::{Entry, Node, Value};
use super::trust::{self, Standing};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::files::{self, Guard};

/// The name of a project's own file.
pub const PROJECT_FILE: &str = ".tmpcred.toml";

/// The key by which a project's file chooses a profile.
const PROFILE: &str = "profile";

/// Where the project's own file is: in the working directory, or nearest above it.
pub fn project_file(host: &Host) -> Option<PathBuf> {
    let working = host.dirs.working.as_deref()?;
    working.ancestors().map(|dir| dir.join(PROJECT_FILE)).find(|path| files::exists(path))
}

/// What a project's file says.
pub(super) struct Found {
    /// What is merged over the other layers; only of a trusted file.
    pub(super) layer: Option<Node>,
    /// Whether it was needed, and found, that the person trusts the file.
    trusted: bool,
    /// What it chooses.
    choice: Choice,
}

enum Choice {
    None,
    Refused(Error),
    Profile { name: String, origin: Origin, path: PathBuf, text: Text },
}

/// Why a project's file cannot be used.
pub(super) enum Failure {
    /// What it says is wrong.
    Problem(Problem),
    /// It cannot be read.
    Error(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Looks for the project's file, and reads it.
pub(super) fn look(host: &Host, home: Option<&Path>) -> Result<Found, Failure> {
    let nothing = |choice| Ok(Found { layer: None, trusted: false, choice });
    let Some(path) = project_file(host) else { return nothing(Choice::None) };
    // Somebody else's is not even opened: whoever put it there has no say here,
    // not by errors either.
    let others = || nothing(Choice::Refused(refused(&path, "it belongs to somebody else")));
    if files::guard_of(&path)? == Guard::OtherOwner {
        return others();
    }
    // A clone could point to a file that is trusted for another project.
    if files::is_link(&path) {
        return nothing(Choice::Refused(refused(&path, "it is a symbolic link")));
    }
    if !files::is_file(&path) {
        return nothing(Choice::Refused(refused(&path, "it is no regular file")));
    }
    let Some(text) = read::read(&path, home)? else { return nothing(Choice::None) };
    if text.guard == Guard::OtherOwner {
        return others();
    }
    let mut tree = Node::parse(&text.source).map_err(Failure::Problem)?;
    let choice = take_choice(&mut tree).map_err(Failure::Problem)?;
    let first = tree.as_table().and_then(|table| {
        let place = |origin: &Origin| match origin {
            Origin::Text { span, .. } => span.start,
            Origin::BuiltIn => 0,
        };
        table.iter().min_by_key(|(_, entry)| place(&entry.key))
    });
    let layer = match first {
        None => None,
        Some((name, entry)) => match trust::standing(host, &path, &text)? {
            Standing::Trusted => {
                read::resolve_paths(&mut tree, path.parent().unwrap_or(&path), home);
                Some(tree)
            }
            standing => {
                return Err(Failure::Problem(untrusted(name, entry.key.clone(), standing)));
            }
        },
    };
    let choice = match choice {
        Some((name, origin)) => Choice::Profile { name, origin, path, text },
        None => Choice::None,
    };
    Ok(Found { trusted: layer.is_some(), layer, choice })
}

impl Found {
    /// Whether the choice may be made, now that the other layers are known.
    pub(super) fn choose(self, host: &Host, config: &Config) -> Result<Project> {
        Ok(match self.choice {
            Choice::None => Project::Silent,
            Choice::Refused(error) => Project::Refused(error),
            Choice::Profile { name, origin, path, text } => {
                let selectable =
                    config.profiles.get(&name).is_some_and(|profile| profile.project_selectable);
                let standing = match (self.trusted, selectable) {
                    (true, _) => Some(Standing::Trusted),
                    (false, true) => None,
                    (false, false) => Some(trust::standing(host, &path, &text)?),
                };
                Project::Chooses { profile: name, origin, standing }
            }
        })
    }
}

/// Takes `profile = "NAME"` out of a project's file. What remains is what any
/// other file may hold.
fn take_choice(tree: &mut Node) -> Result<Option<(String, Origin)>, Problem> {
    let Value::Table(table) = &mut tree.value else { return Ok(None) };
    let Some(Entry { node, .. }) = table.get(PROFILE) else { return Ok(None) };
    let choice = match &node.value {
        Value::String(name) => (name.clone(), node.origin.clone()),
        Value::Table(_) => return Ok(None),
        _ => {
            let title = "`profile` must be a string, the name of a profile";
            return Err(Problem::new(title, node.origin.clone()));
        }
    };
    table.remove(PROFILE);
    Ok(Some(choice))
}

fn untrusted(name: &str, key: Origin, standing: Standing) -> Problem {
    let (what, why) = match standing {
        Standing::Changed => ("the whole file", "and has changed since it was trusted".into()),
        Standing::OtherChanged(path) => {
            let path = path.display();
            ("that file", format!("and {path}, which it names, has changed since it was trusted"))
        }
        _ => ("the whole file", "but it is not trusted".into()),
    };
    let title = format!("this project file sets {}, {why}", quoted(name));
    Problem::new(title, key)
        .label("without trust, only `profile = \"NAME\"` may be here")
        .help(format!("read {what}; if you trust it as it is, run `tmpcred config trust`"))
}

fn refused(path: &Path, why: &str) -> Error {
    Error::new(ErrorKind::Config, format!("{} may not choose a profile", path.display()))
        .because_of(why)
        .hint("name the profile on the command line, or in TMPCRED_PROFILE")
}
