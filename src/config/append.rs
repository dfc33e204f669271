//! Adding to the user's own file, without touching what stands there.

use std::path::PathBuf;

use super::de::decode;
use super::diagnostic::into_error;
use super::model::File;
use super::read::MAX_BYTES;
use super::source::Source;
use super::tree::Node;
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::files;

/// The user's own file with more behind its end. What stands in it, comments too,
/// stays as it is.
#[derive(Debug)]
pub struct Addition {
    path: PathBuf,
    /// What the file holds, where there is one.
    before: Option<String>,
    text: String,
}

impl Addition {
    /// Makes sure that the file can be read with `tables` behind its end.
    ///
    /// # Errors
    /// Where it cannot: a table is there already, or the file has them in another form.
    pub fn new(host: &Host, tables: &str) -> Result<Self> {
        let path = &host.dirs.user_config;
        // A link is kept, and what it leads to is changed.
        let path = if files::exists(path) { files::canonical(path)? } else { path.clone() };
        let before = files::read_text(&path, MAX_BYTES)?;
        let mut text = before.clone().unwrap_or_default();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(tables);
        let failed = |error: Error| {
            error
                .context(format!("nothing can be added to {}", path.display()))
                .hint("nothing has been changed")
        };
        let name = path.display().to_string();
        let tree = Node::parse(&Source::text(&name, &text))
            .map_err(|problem| failed(problem.into_error()))?;
        decode::<File>(&tree).map_err(|problems| failed(into_error(problems)))?;
        if text.len() as u64 > MAX_BYTES {
            return Err(failed(Error::new(ErrorKind::Config, "it would be too large")));
        }
        Ok(Self { path, before, text })
    }

    /// The file.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Replaces the file in one step; its mode and owner stay.
    ///
    /// # Errors
    /// Where it was changed meanwhile, or cannot be written: it is as it was then.
    pub fn write(&self) -> Result<()> {
        let before = self.before.as_deref().map(str::as_bytes);
        files::rewrite(&self.path, before, Some(self.text.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests make the files that are changed")]

    use std::fs;

    use super::*;
    use crate::config::tests::World;

    const TABLES: &str = "[profile.new]\nrole = \"reader\"\n";

    fn added_to(world: &World) -> Addition {
        Addition::new(&world.host, TABLES).unwrap()
    }

    #[cfg(unix)]
    #[test]
    fn the_file_stays_for_those_who_could_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let world = World::with("# Mine.");
        let path = world.path("config.toml");
        let mode = |path: &PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        for before in [0o640, 0o600] {
            fs::write(&path, "# Mine.").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(before)).unwrap();
            added_to(&world).write().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("# Mine.\n\n{TABLES}"));
            assert_eq!(mode(&path), before);
        }
        // One that is made is for nobody else.
        fs::remove_file(&path).unwrap();
        added_to(&world).write().unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), (TABLES, 0o600));
    }

    #[test]
    fn what_somebody_has_written_meanwhile_stays() {
        let world = World::with("# Mine.");
        let path = world.path("config.toml");
        let refused = |addition: Addition, now: &str| {
            fs::write(&path, now).unwrap();
            let error = addition.write().unwrap_err();
            assert!(error.message().ends_with("was changed meanwhile"), "{error}");
            assert_eq!(error.hints(), ["nothing has been written; try again"]);
            assert_eq!(fs::read_to_string(&path).unwrap(), now);
        };
        for now in ["# Mine.\n# And more.", "# Mine", ""] {
            fs::write(&path, "# Mine.").unwrap();
            refused(added_to(&world), now);
        }
        fs::remove_file(&path).unwrap();
        refused(added_to(&world), "# New.");
        // One that was removed does not come back.
        let addition = added_to(&world);
        fs::remove_file(&path).unwrap();
        assert!(addition.write().unwrap_err().message().ends_with("was changed meanwhile"));
        assert!(!files::exists(&path));
    }
}
