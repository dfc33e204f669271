//! Where configuration, state and locks live.

use std::path::{Path, PathBuf};

use super::env::Env;
use super::files;
use super::files::worktree::is_in_project;
use crate::error::{Error, ErrorKind, Result};

/// The directories of this user, as the platform's customs have them.
#[derive(Clone, Debug)]
pub struct Dirs {
    /// The user's configuration file.
    pub user_config: PathBuf,
    /// The machine's configuration file.
    pub system_config: PathBuf,
    /// State without secrets: the index, cached discovery documents, trusted
    /// project files; and sealed entries.
    pub state: PathBuf,
    /// Locks. Cleared at logout or reboot where the platform has such a place.
    pub runtime: PathBuf,
    /// The directory the command was started in, where it can be told.
    pub working: Option<PathBuf>,
}

/// A private directory for the files of one run. It is removed when it is dropped.
#[derive(Debug)]
pub struct RunDir {
    files: tempfile::TempDir,
    /// Says that the run has not ended.
    _lock: std::fs::File,
}

impl RunDir {
    /// Where it is.
    pub fn path(&self) -> &Path {
        self.files.path()
    }
}

impl Dirs {
    /// Finds the directories: `TMPCRED_CONFIG` and the XDG variables first,
    /// then what `directories` says for the platform.
    pub fn locate(env: &Env) -> Result<Self> {
        // Without the variable the C library would be asked, and ask modules of its
        // own, which a program that is linked statically cannot rely on.
        let told = cfg!(not(target_os = "linux")) || env.get_os("HOME").is_some();
        let project = told.then(|| directories::ProjectDirs::from("", "", "tmpcred")).flatten();
        let project = project.ok_or_else(|| {
            Error::new(ErrorKind::Config, "the home directory cannot be told")
                .because_of("the variable HOME is not set")
                .hint("set HOME to a directory that is this user's own")
        })?;
        let user_config = match env.get_os("TMPCRED_CONFIG") {
            Some(path) => PathBuf::from(path),
            None => project.config_dir().join("config.toml"),
        };
        let state = project.state_dir().unwrap_or_else(|| project.data_local_dir()).to_path_buf();
        let runtime = match project.runtime_dir() {
            Some(dir) if is_runtime(dir.parent().unwrap_or(dir)) => dir.to_path_buf(),
            // Never a directory shared with others, such as /tmp. A session without
            // the variable takes the same locks as one with it.
            _ => {
                files::login_runtime_dir().map_or_else(|| state.join("run"), |d| d.join("tmpcred"))
            }
        };
        Ok(Self {
            user_config,
            system_config: system_config(),
            state,
            runtime,
            working: files::working_dir(),
        })
    }

    /// Those of a server, which knows its files by its own configuration: there are none where
    /// they cannot be told, and nothing can be put there.
    #[cfg(feature = "broker")]
    pub fn of_a_server(env: &Env) -> Self {
        // There is never a directory of that name.
        const NOWHERE: &str = "/dev/null/tmpcred";
        Self::locate(env).unwrap_or_else(|_| Self {
            working: files::working_dir(),
            ..Self::below(Path::new(NOWHERE))
        })
    }

    /// Directories below a private one that is removed when the guard is
    /// dropped: for a run that leaves nothing behind.
    pub fn passing(&self) -> Result<(Self, tempfile::TempDir)> {
        let guard = tempfile::Builder::new().prefix("tmpcred-").tempdir().map_err(|cause| {
            Error::new(ErrorKind::Io, "no temporary directory can be made").because(cause)
        })?;
        let dirs = Self { working: self.working.clone(), ..Self::below(guard.path()) };
        Ok((dirs, guard))
    }

    /// A private directory for the files of one run, below that for locks, removed when
    /// it is dropped. What runs that were killed have left there is removed too.
    ///
    /// It is never in a checkout, where the runtime directory is when all directories of
    /// this user are: what the files hold could be committed.
    pub fn of_this_run(&self) -> Result<RunDir> {
        const PREFIX: &str = "run-";
        const ATTEMPTS: usize = 20;
        let cannot = || Error::new(ErrorKind::Io, "no directory for this run can be made");
        let below = self.outside_of_projects().ok_or_else(|| {
            cannot()
                .because_of("all places for it are in a checkout")
                .hint("set XDG_RUNTIME_DIR to a private directory outside of it")
        })?;
        files::private_dir(&below)?;
        for path in files::list(&below)? {
            let name = path.file_name().unwrap_or_default();
            if name.to_string_lossy().starts_with(PREFIX) && files::is_dir(&path) {
                files::remove_abandoned(&path);
            }
        }
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
        for _ in 0..ATTEMPTS {
            let made = builder
                .prefix(PREFIX)
                .tempdir_in(&below)
                .map_err(|cause| cannot().because(cause))?;
            if let Some(lock) = files::occupy(made.path())? {
                return Ok(RunDir { files: made, _lock: lock });
            }
        }
        Err(cannot().because_of("others remove it each time"))
    }

    /// The runtime directory, or one for temporary files of this user, whichever is in
    /// no project.
    #[expect(
        clippy::disallowed_methods,
        reason = "for what would lie in a checkout otherwise; the directory is private, and its files last as long as the run"
    )]
    fn outside_of_projects(&self) -> Option<PathBuf> {
        let own = format!("tmpcred-{}", super::process::user_id());
        let temporary = std::env::temp_dir().join(&own);
        let mut places = vec![self.runtime.clone(), temporary];
        if cfg!(unix) {
            places.push(Path::new("/tmp").join(own));
        }
        places.into_iter().find(|place| !is_in_project(place))
    }

    /// Directories below `root`, for tests.
    pub fn below(root: &Path) -> Self {
        Self {
            user_config: root.join("config.toml"),
            system_config: root.join("system.toml"),
            state: root.join("state"),
            runtime: root.join("run"),
            working: Some(root.to_path_buf()),
        }
    }
}

/// Whether a directory is what `XDG_RUNTIME_DIR` has to be, by its specification: this
/// user's, and closed to everybody else. In containers the variable may say anything.
fn is_runtime(dir: &Path) -> bool {
    // Where a login has made it there are no projects: not looked for, as each run asks.
    files::is_own_dir(dir) && (files::is_login_runtime_dir(dir) || !is_in_project(dir))
}

#[cfg(unix)]
fn system_config() -> PathBuf {
    PathBuf::from("/etc/tmpcred/config.toml")
}

#[cfg(not(unix))]
fn system_config() -> PathBuf {
    PathBuf::from(r"C:\ProgramData\tmpcred\config.toml")
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test of who may read the directory")]
    fn a_runtime_directory_is_private_and_in_no_checkout() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("run");
        files::private_dir(&dir).unwrap();
        let set = |mode| {
            std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        assert!(is_runtime(&dir));
        for open in [0o755, 0o770, 0o1777] {
            set(open);
            assert!(!is_runtime(&dir), "{open:o}");
        }
        set(0o700);
        let link = root.path().join("link");
        std::os::unix::fs::symlink(&dir, &link).unwrap();
        assert!(is_runtime(&link));
        assert!(!is_runtime(&root.path().join("missing")));
        files::private_dir(&root.path().join(".git")).unwrap();
        assert!(!is_runtime(&dir) && !is_runtime(&link));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test of who may read the directory")]
    fn the_files_of_a_run_are_in_no_checkout() {
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs::below(root.path());
        assert!(dirs.of_this_run().unwrap().path().starts_with(&dirs.runtime));
        files::write_private(&root.path().join(".git"), b"gitdir: elsewhere").unwrap();
        let run = dirs.of_this_run().unwrap();
        assert!(!run.path().starts_with(root.path()), "{}", run.path().display());
        let mode = std::fs::metadata(run.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
