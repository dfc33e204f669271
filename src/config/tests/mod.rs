//! Configuration as a whole: files in, plans and errors out.
#![expect(clippy::disallowed_methods, reason = "tests make the files that are read")]

mod fixtures;
mod layers;
mod project;
mod properties;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::error::Error;
use crate::host::Host;
use crate::host::browser::SystemBrowser;
use crate::host::clock::{FixedClock, SkewMeter};
use crate::host::dirs::Dirs;
use crate::host::env::Env;
use crate::host::interact::Silent;

/// A world of its own: a home, a machine's configuration, a working directory.
pub(crate) struct World {
    root: tempfile::TempDir,
    pub(crate) host: Host,
}

impl World {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = fs::canonicalize(root.path()).unwrap();
        let mut dirs = Dirs::below(&path);
        dirs.working = Some(path.join("checkout/deep"));
        fs::create_dir_all(path.join("checkout/deep")).unwrap();
        let host = Host {
            clock: Arc::new(FixedClock(time::OffsetDateTime::UNIX_EPOCH)),
            env: Env::default(),
            dirs,
            browser: Arc::new(SystemBrowser),
            interact: Arc::new(Silent),
            skew: SkewMeter::default(),
        };
        Self { root, host }
    }

    /// A world with this user configuration.
    pub(crate) fn with(user: &str) -> Self {
        let world = Self::new();
        world.write("config.toml", user);
        world
    }

    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        let old: Vec<_> = self.host.env.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        self.host.env = Env::from_pairs(old.into_iter().chain([(name.into(), value.into())]));
        self
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        fs::canonicalize(self.root.path()).unwrap().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        self.mode(name, 0o644);
    }

    #[cfg(unix)]
    pub(crate) fn mode(&self, name: &str, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    #[cfg(not(unix))]
    pub(crate) fn mode(&self, _: &str, _: u32) {}

    /// The text with this world's own directory taken out.
    pub(crate) fn neutral(&self, text: &str) -> String {
        let dir = self.path("");
        let text = text.replace(dir.to_str().unwrap().trim_end_matches(['/', '\\']), "DIR");
        if cfg!(windows) { text.replace('\\', "/") } else { text }
    }
}

/// An error as a person sees it.
pub(crate) fn shown(error: &Error) -> String {
    let mut text = format!("error: {}\n", error.message());
    for cause in error.causes() {
        text.push_str(cause);
        text.push('\n');
    }
    for hint in error.hints() {
        text.push_str(&format!("help: {hint}\n"));
    }
    text
}

pub(super) fn fixtures() -> Vec<std::path::PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config");
    let mut all: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    all.retain(|path| path.is_dir());
    all.sort();
    all
}
