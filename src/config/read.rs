//! Reads configuration files: bounded, as text, and only where nobody else could
//! have written them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::source::{Source, SourceKind};
use super::tree::{Node, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::host::files::{self, Guard};

/// How large a configuration file may be, in bytes.
pub const MAX_BYTES: u64 = 1024 * 1024;

/// A file as it was read.
pub(super) struct Text {
    /// What it holds.
    pub(super) source: Arc<Source>,
    /// Who could have written it.
    pub(super) guard: Guard,
    /// Its bytes, as they are on the disk.
    pub(super) bytes: Vec<u8>,
}

/// Reads a file; `None` where there is none. `home` is what `~` stands for.
pub(super) fn read(path: &Path, home: Option<&Path>) -> Result<Option<Text>> {
    let name = path.display().to_string();
    let failed = |cause: Error| {
        Error::new(ErrorKind::Config, "a configuration file cannot be read").because(cause)
    };
    let Some((bytes, guard)) = files::read_guarded(path, MAX_BYTES).map_err(failed)? else {
        return Ok(None);
    };
    let text = text(&bytes).map_err(|why| {
        Error::new(ErrorKind::Config, "a configuration file cannot be read")
            .because_of(format!("{name} {why}"))
            .hint("a configuration file is TOML, in UTF-8")
    })?;
    let source = Source { short: short(path, home), name, kind: SourceKind::File, text };
    Ok(Some(Text { source: Arc::new(source), guard, bytes }))
}

/// Refuses a file that somebody else could have written.
pub(super) fn require_guarded(path: &Path, guard: Guard) -> Result<()> {
    let place = path.display();
    let refused = |why: &str, hint: String| {
        Err(Error::new(ErrorKind::Config, format!("the configuration file {place} is not safe"))
            .because_of(why)
            .hint(hint))
    };
    match guard {
        Guard::Guarded => Ok(()),
        Guard::OtherOwner => refused(
            "it belongs to somebody else, who could change whom you get credentials from",
            format!("if you trust what it says, make it yours: `sudo chown \"$USER\" {place}`"),
        ),
        Guard::OthersMayWrite => refused(
            "other users may write to it, and could change whom you get credentials from",
            format!("look at what it says, then take that right away: `chmod go-w {place}`"),
        ),
    }
}

/// The text of a file, or what is wrong with its bytes.
fn text(bytes: &[u8]) -> Result<String, String> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err("is in UTF-16; save it as UTF-8".into());
    }
    let text = std::str::from_utf8(bytes).map_err(|cause| {
        let before = &bytes[..cause.valid_up_to()];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        format!("is not a text file: line {line} is not in UTF-8")
    })?;
    if text.contains('\0') {
        return Err("is not a text file: it has zero bytes".into());
    }
    // Some editors put a byte order mark before UTF-8.
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text).to_string())
}

/// A path as a person would write it.
fn short(path: &Path, home: Option<&Path>) -> String {
    match home.map(|home| path.strip_prefix(home)) {
        Some(Ok(rest)) => Path::new("~").join(rest).display().to_string(),
        _ => path.display().to_string(),
    }
}

/// The tables whose keys are the person's own words.
const FREE: [&str; 5] = ["claims", "env", "login_parameters", "required_claims", "tags"];

/// Makes paths mean what their writer meant: a value whose key ends in `_file` is
/// relative to the configuration file it is in, and `~/` is the home directory.
pub(super) fn resolve_paths(tree: &mut Node, dir: &Path, home: Option<&Path>) {
    each_text(tree, "", 0, &mut |name, path| {
        if !name.ends_with("_file") {
            return;
        }
        let whole = match (path.strip_prefix("~/"), home) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => dir.join(&*path),
        };
        // A path that TOML cannot write is left as it is.
        if let Some(whole) = whole.to_str() {
            *path = whole.to_string();
        }
    });
}

/// The files that a configuration file in `dir` names and that go with it: what it says
/// relative to itself, wherever that leads, and all that is below its directory, which is
/// without symbolic links. A file with a token decides nothing, and is another one all the
/// time. A word of a program counts where there is such a file, there or in the directory that the
/// program would be started in.
pub(super) fn named_files(
    tree: &Node,
    dir: &Path,
    (working, home): (Option<&Path>, Option<&Path>),
) -> BTreeSet<PathBuf> {
    let mut tree = tree.clone();
    resolve_paths(&mut tree, dir, home);
    let mut named = BTreeSet::new();
    each_text(&mut tree, "", 0, &mut |name, text| {
        let is_word = ["command", "browser"].contains(&name);
        let is_file = name.ends_with("_file") && name != "token_file";
        let below = |path: &Path| path.starts_with(dir);
        let mut add = |path: PathBuf| {
            let is_named = is_file || is_word && files::is_file(&path);
            if is_named && (below(&path) || files::canonical(&path).is_ok_and(|path| below(&path)))
            {
                named.insert(path);
            }
        };
        add(dir.join(&*text));
        if let Some(working) = working.filter(|_| is_word) {
            add(working.join(&*text));
        }
    });
    named
}

/// Shows each text with the key that it stands under, so many tables deep. What is below the
/// second has names: of an identity, a broker, a profile.
fn each_text(node: &mut Node, name: &str, depth: usize, see: &mut dyn FnMut(&str, &mut String)) {
    match &mut node.value {
        Value::String(text) => see(name, text),
        Value::Table(table) => {
            for (name, entry) in table {
                let is_table = matches!(entry.node.value, Value::Table(_));
                if !(is_table && depth > 1 && FREE.contains(&name.as_str())) {
                    each_text(&mut entry.node, name, depth + 1, see);
                }
            }
        }
        Value::Array(items) => {
            items.iter_mut().for_each(|item| each_text(item, name, depth, see));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value as Json;

    use super::*;

    #[test]
    fn every_table_with_free_keys_is_known() {
        fn look(json: &Json, name: &str, found: &mut Vec<String>) {
            if json["additionalProperties"]["type"] == "string" {
                found.push(name.to_string());
            }
            let members = json.as_object().into_iter().flatten();
            members.for_each(|(name, member)| look(member, name, found));
            json.as_array().into_iter().flatten().for_each(|item| look(item, name, found));
        }
        let mut found = Vec::new();
        look(&crate::config::schema::schema(), "", &mut found);
        // Those of a broker's configuration and of cases for policies, whose values may be more
        // than texts.
        found.extend(["claims", "required_claims"].map(String::from));
        found.sort();
        found.dedup();
        assert_eq!(found, FREE);
    }
}
